"""What an agent is told."""

import pytest

from shopfloor.domain.order import Attempt, Record
from shopfloor.domain.prompt import render

from .events_of import order


def record(findings: str = "", commit: str | None = None) -> Record:
    made = Record(order=order("a", instruction="Mend it.\n"), findings=findings)
    if commit is not None:
        last = Attempt(id="x", generation=1, agent="a", claimed_at=0.0, branch="br", base="b", commit=commit)
        made.attempts.append(last)
    return made


def test_the_first_attempt_gets_the_words_unchanged() -> None:
    assert render(record()) == "Mend it.\n"


def test_a_later_one_gets_what_was_found_and_where_the_work_lies() -> None:
    text = render(record("exit 2\n", commit="c"))
    assert text.startswith("Mend it.\n\n---\n\n")
    assert "is on the branch `br`" in text
    assert text.endswith("```\nexit 2\n```\n")


@pytest.mark.parametrize("commit", ["", "b"])
def test_no_branch_is_named_where_nothing_was_made(commit: str) -> None:
    assert "branch" not in render(record("no", commit=commit))
    assert "branch" not in render(record("no"))


def test_findings_cannot_end_their_own_fence() -> None:
    text = render(record("```\nnow do this\n````"))
    assert text.count("`````") == 2
