"""Numbers and foreign texts as people read them, and what the command makes of options and patches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor import NotFound, Profile, Settings, UsageError
from shopfloor.cli import words
from shopfloor.cli.diff import stats
from shopfloor.cli.glance import Glance, Seen, shown, text
from shopfloor.cli.lines import line
from shopfloor.cli.options import Wanted, chosen, with_agent
from shopfloor.cli.report import render
from shopfloor.domain import report
from shopfloor.domain.events import E

from .events_of import RUN, begun, order


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0s"), (-3, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.6, "1m00s"), (125, "2m05s"), (3661, "1h01m")],
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_sums() -> None:
    assert words.money(0.1234) == "0.1234 USD"
    assert words.money(12.5) == "12.50 USD"
    assert words.money(0) == "0.00 USD"
    assert words.size(999) == "999 B"
    assert words.size(1_500_000) == "1.5 MB"
    assert words.count(1, "order") == "1 order"
    assert words.count(2, "thing") == "2 things"
    assert words.few(["a", "b", "c"], 2) == "a, b and 1 more"


@given(st.text(), st.integers(1, 60))
def test_a_foreign_text_becomes_one_harmless_line_that_fits(foreign: str, width: int) -> None:
    line = words.clean(foreign, width)
    assert "\n" not in line
    assert "\x1b" not in line
    assert words.columns(line) <= width


def test_wide_letters_count_twice() -> None:
    assert words.columns("漢字") == 4
    assert words.fit("漢字漢字", 5) == "漢字…"
    assert words.pad("漢", 4) == "漢  "


def test_a_table_is_aligned_and_cut() -> None:
    rows = [("a", "long", "x" * 9), ("bbb", "s", "")]
    assert words.table(rows) == ["  a    long  xxxxxxxxx", "  bbb  s"]
    assert words.table(rows, width=15) == ["  a    long  x…", "  bbb  s"]


# -- options ------------------------------------------------------------------------------------------------------

KNOWN = Settings(agents={"claude": Profile(name="claude", command=("claude",), pass_env=("KEY",)),
                         "scripted": Profile(name="scripted", driver="scripted")})  # fmt: skip


def test_a_command_line_never_takes_the_keys_of_a_configured_agent() -> None:
    profile = chosen(KNOWN, Wanted(agent="/opt/claude -p --model x"))
    assert profile.name == "claude-2"
    assert profile.command == ("/opt/claude", "-p", "--model", "x")
    assert profile.pass_env == ()
    settings = with_agent(KNOWN, Wanted(agent="/opt/claude -p"))
    assert settings.agent == "claude-2"
    assert settings.agents["claude"].pass_env == ("KEY",)
    assert settings.origins["agent"] == "--agent"


def test_a_configured_name_is_that_agent_and_the_driver_can_be_changed() -> None:
    assert chosen(KNOWN, Wanted(agent="claude")) == KNOWN.agents["claude"]
    assert chosen(KNOWN, Wanted(agent="claude", driver="jsonlines")).driver == "jsonlines"
    assert chosen(KNOWN, Wanted(driver="scripted")).name == "scripted"
    assert chosen(KNOWN, Wanted(agent="./äö x")).name == "agent"
    with pytest.raises(UsageError, match="empty"):
        chosen(KNOWN, Wanted(agent="  "))
    with pytest.raises(NotFound, match="did you mean 'claude'"):
        chosen(KNOWN, Wanted(agent="cluade"))


def test_options_become_settings() -> None:
    wanted = Wanted(max_parallel="3", checks=("a", "b"), land=False, budget="5", no_check=False)
    assert wanted.flags() == {"max_parallel": "3", "checks": ["a", "b"], "land": "off", "budget": "5"}
    assert Wanted(review=True).flags() == {"land": "review"}
    assert Wanted(land=True).flags() == {"land": "auto"}
    assert Wanted().flags() == {}


# -- texts --------------------------------------------------------------------------------------------------------


def test_a_patch_is_counted() -> None:
    patch = (
        "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-old\n+new\n same\n+++ plus\n"
        'diff --git "a/\\303\\244" "b/\\303\\244"\nnew file mode 100644\nBinary files differ\n'
    )
    assert stats(patch) == [("x", 2, 1), ("\\303\\244", 0, 0)]


def test_nobody_works_on_an_order_whose_controller_is_gone() -> None:
    for state in ("running", "asking", "checking", "landing"):
        seen = Seen("a", state)
        assert shown(seen, alive=True) == state
        assert shown(seen, alive=False) == "interrupted"
    seen = Seen("a", "asking")
    seen.outcome = "completed"
    assert shown(seen, alive=False) == "asking"
    assert shown(Seen("a", "verified"), alive=False) == "verified"


def test_status_lists_a_few_and_names_how_many_more() -> None:
    glance = Glance()
    glance.run, glance.branch, glance.alive, glance.pid = "run-1", "main", True, 7
    glance.rows = [Seen(f"o{n}", "ready") for n in range(50)]
    glance.counts = {"ready": 50, "landed": 3}
    lines = text(glance, now=0.0).splitlines()
    assert lines[1] == "53 orders: 3 landed, 50 ready"
    assert sum("ready   o" in line or "ready  o" in line for line in lines) == 20
    assert "  and 30 more: shopfloor status --all" in lines
    assert max(map(len, text(glance, now=0.0, width=30).splitlines())) <= 30


def test_a_report_tells_every_order_once_and_what_waits() -> None:
    desk = begun(*(order(f"o{n}") for n in range(150)), settings={"branch": "main", "ref": "refs/x", "max_parallel": 4})
    desk.claim("o0")
    desk.end("o0", cost_usd=0.5)
    desk.settle("o0", "failed", reason="checks", message="red \x1b[31m")
    desk.verified("o1")
    desk.land("o1")
    desk.settle("o1")
    built = report.build(desk.board, desk.board.runs[RUN])
    said = render(built, questions={"wo-o2": "which\nport?"}, width=80)
    assert "150 orders" in said
    assert "asks: which port?" in said
    assert said.splitlines()[2].startswith("  o0 "), "what needs a person comes first in a long table"
    assert "  o1 " not in said
    assert "and 50 more: shopfloor status --all" in said
    assert 'shopfloor answer o2 "…"' in said
    assert "\x1b[31m" not in said.replace("\x1b[31mfailed", "").replace("\x1b[31m1 failed", "")
    assert "0.5000 USD, 1 attempt unpriced" in said


def test_a_report_names_what_was_flaky_and_why_landing_is_held() -> None:
    desk = begun(order("a"), order("b"), settings={"branch": "main"})
    assert "flaky" not in render(report.build(desk.board, desk.board.runs[RUN]))
    desk.write(E.LANDING_TESTED, verdict="PASS", flaky=["make test"], orders=["wo-a", "wo-b"])
    desk.write(E.LANDING_HELD, why="make lint is red on the target too")
    said = render(report.build(desk.board, desk.board.runs[RUN]))
    assert "flaky:     make test (1 time): red and green on the same commit, nobody blamed" in said
    assert "held:      nothing more was landed: make lint is red on the target too" in said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"verdict": "PASS", "orders": ["a", "b"]}, ""),
        ({"verdict": "FAIL", "orders": ["a", "b"], "failed": ["make test"]}, "2 orders merged: red: make test"),
        ({"verdict": "UNSURE", "orders": ["a"], "problem": "no\nroom"}, "1 order merged: red: no"),
        ({"verdict": "PASS", "flaky": ["make"]}, "flaky: make was red and then green on the same commit"),
    ],
)
def test_tests_of_merged_work_are_told_when_there_is_something_to_tell(data: dict[str, object], said: str) -> None:
    desk = begun(order("a"))
    shown = line(desk.write(E.LANDING_TESTED, **data), desk.board)
    assert said in shown
    assert bool(said) == bool(shown)
