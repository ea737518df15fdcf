"""A trajectory as reports: recorded ones of mini-swe-agent 2.4.6, and the same in pieces, damaged, or too large."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shopfloor.agents import mini
from shopfloor.agents.mini import TrajectoryReader, quoted
from shopfloor.masking import MASK, Masker
from shopfloor.ports import Kind, Report

GOLDEN = Path(__file__).parents[1] / "golden" / "mini"
PLAIN = msgspec.structs.asdict(Report(kind=Kind.LOG))
SECRET = "sk-0123456789abcdef"


def reader(path: Path = Path("none")) -> TrajectoryReader:
    return TrajectoryReader(path, Masker((SECRET,)), "mini")


def told(report: Report) -> dict[str, Any]:
    fields = msgspec.structs.asdict(report)
    return {name: value for name, value in fields.items() if name == "kind" or value != PLAIN[name]}


def heard(document: Any) -> list[dict[str, Any]]:
    subject = reader()
    reports = [*subject.take(document), subject.ended(0)]
    found: list[dict[str, Any]] = json.loads(json.dumps([told(report) for report in reports]))
    return found


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.trajectory")))
def test_golden(name: str) -> None:
    document = json.loads((GOLDEN / f"{name}.trajectory").read_text())
    assert heard(document) == json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.trajectory")))
async def test_a_trajectory_that_grows_tells_the_same(name: str, tmp_path: Path) -> None:
    document = json.loads((GOLDEN / f"{name}.trajectory").read_text())
    path = tmp_path / "t.json"
    subject = reader(path)
    reports: list[Report] = [*await subject.look()]
    for length in range(len(document["messages"])):
        part = {"info": {}, "messages": document["messages"][:length]}
        half = json.dumps(part)
        path.write_text(half[: len(half) // 2])  # as a reader finds it that comes while it is being written
        reports += await subject.look()
        path.write_text(half)
        reports += await subject.look()
        reports += await subject.look()
    path.write_text(json.dumps(document))
    os.utime(path, ns=(1, 1))
    reports += await subject.look()
    reports.append(subject.ended(0))
    kinds = [report for report in reports if report.kind is not Kind.USAGE]
    whole = [one for one in json.loads((GOLDEN / f"{name}.json").read_text()) if one["kind"] != "usage"]
    assert json.loads(json.dumps([told(report) for report in kinds])) == whole


@pytest.mark.parametrize("document", [None, [], 7, "x", {}, {"messages": 3}, {"messages": {}, "info": []}])
def test_what_is_no_trajectory_says_nothing(document: object) -> None:
    assert reader().take(document) == []


def test_success_needs_the_file_and_the_exit_code() -> None:
    document = json.loads((GOLDEN / "submitted.trajectory").read_text())
    subject = reader()
    subject.take(document)
    assert subject.ended(0).status == "completed"
    assert (subject.ended(1).status, subject.ended(1).text) == ("error", "exit 1 although it submitted its work")
    silent = reader()
    assert silent.ended(0).text == "exit 0 without an end in its trajectory"


def test_a_price_that_it_does_not_know_is_no_price() -> None:
    document = {"info": {"model_stats": {"instance_cost": 0.0, "api_calls": 3}}, "messages": []}
    (usage,) = reader().take(document)
    assert (usage.cost_usd, usage.steps) == (None, 3)


def test_secrets_are_masked() -> None:
    message = {"role": "assistant", "content": SECRET, "extra": {"actions": [{"command": f"echo {SECRET}"}]}}
    reports = reader().take({"messages": [message]})
    assert [report.text for report in reports] == [MASK, f"echo {MASK}"]


async def test_a_file_that_is_too_large_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini, "LARGEST_BYTES", 10)
    path = tmp_path / "t.json"
    subject = reader(path)
    path.write_text('{"messages": []}')
    (warning,) = await subject.look()
    assert "is not read any more" in warning.text
    path.write_text('{"messages": [1]}')
    assert await subject.look() == []


def test_a_task_is_one_line_of_ascii() -> None:
    assert quoted('a "b"\\\n\t\x85\u2028\U0001f527\ud800') == '"a \\"b\\"\\\\\\u000a\\u0009\\u0085\\u2028\\U0001f527?"'
