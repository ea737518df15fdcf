"""What the answers of agent servers mean, on recorded ones: a head that says of what kind it is, and the body."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shopfloor.agents._answer import Reading
from shopfloor.masking import MASK, Masker
from shopfloor.ports import Kind, Report

GOLDEN = Path(__file__).parents[1] / "golden" / "http"
RECORDED = sorted(path.stem for path in GOLDEN.glob("*.answer"))
PLAIN = msgspec.structs.asdict(Report(kind=Kind.LOG))


def recorded(name: str) -> tuple[str, bytes]:
    kind, _, body = (GOLDEN / f"{name}.answer").read_bytes().partition(b"\n\n")
    return kind.decode(), body


def read(reading: Reading, kind: str, *pieces: bytes) -> list[dict[str, Any]]:
    reading.open(kind)
    reports = [report for piece in pieces for report in reading.feed(piece)]
    reports += [*reading.close(), reading.ended("")]
    told = [
        {name: value for name, value in msgspec.structs.asdict(one).items() if name == "kind" or value != PLAIN[name]}
        for one in reports
    ]
    found: list[dict[str, Any]] = json.loads(json.dumps(told))
    return found


@pytest.mark.parametrize("name", RECORDED)
def test_golden(name: str, tmp_path: Path) -> None:
    wanted = json.loads((GOLDEN / f"{name}.json").read_text())
    kind, body = recorded(name)
    for cut in range(len(body)):
        assert read(Reading(Masker(()), tmp_path), kind, body[:cut], body[cut:]) == wanted, f"cut after {cut} bytes"


def test_what_a_first_try_cost_is_in_the_sum_of_the_second(tmp_path: Path) -> None:
    reading = Reading(Masker(()), tmp_path)
    read(reading, *recorded("events_success"))
    reading.begin_again()
    last = read(reading, *recorded("object_success"))[-1]
    assert (last["cost_usd"], last["tokens_in"], last["status"]) == (0.025, 1800, "completed")


def test_a_secret_in_an_answer_is_masked(tmp_path: Path) -> None:
    kind, body = recorded("events_success")
    told = str(read(Reading(Masker(("look first",)), tmp_path), kind, body))
    assert MASK in told
    assert "look first" not in told
