"""The tolerant reader: nothing an agent prints may end it, and only evidence counts as success."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.agents._lines import Line, Lines
from shopfloor.agents._tidy import TEXT_CHARS
from shopfloor.agents.jsonlines import LINE_BYTES, EventReader
from shopfloor.masking import MASK, Masker
from shopfloor.ports import Kind, Report

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = sorted(
    f"{path.parent.name}/{path.stem}" for who in ("jsonlines", "muscle") for path in (GOLDEN / who).glob("*.stdout")
)
PLAIN = msgspec.structs.asdict(Report(kind=Kind.LOG))
SECRET = "sk-0123456789abcdef"


def read(data: bytes, masker: Masker | None = None) -> tuple[EventReader, list[Report]]:
    reader = EventReader(masker)
    lines = Lines(LINE_BYTES)
    heard = [*lines.feed(data), *lines.close()]
    return reader, [report for line in heard for report in reader.heard("stdout", line)]


def told(report: Report) -> dict[str, Any]:
    fields = msgspec.structs.asdict(report)
    return {name: value for name, value in fields.items() if name == "kind" or value != PLAIN[name]}


@pytest.mark.parametrize("name", RECORDED)
def test_golden(name: str) -> None:
    reader, reports = read((GOLDEN / f"{name}.stdout").read_bytes())
    found = [told(report) for report in (*reports, reader.ended(0))]
    assert json.loads(json.dumps(found)) == json.loads((GOLDEN / f"{name}.json").read_text())


def event(kind: str, **data: Any) -> bytes:
    return json.dumps({"type": kind, "data": data}).encode() + b"\n"


@pytest.mark.parametrize(
    ("status", "means"),
    [
        ("success", "success"),
        ("Submitted", "success"),
        ("completed", "success"),
        ("LimitsExceeded", "limit"),
        ("TimeExceeded", "limit"),
        ("cost_limit", "limit"),
        ("step_limit", "limit"),
        ("RepeatedFormatError", "failed"),
        ("", "failed"),
        ("successful?", "failed"),
    ],
)
def test_what_a_status_means(status: str, means: str) -> None:
    reader, (report,) = read(event("finish", status=status, result="r"))
    assert (report.kind, report.status) == (Kind.TURN_END, means)
    assert reader.ended(0).status == ("completed" if means == "success" else "error")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"", 0),
        (event("start", task="t"), 0),
        (event("finish", status="success"), 7),
        (event("finish", status="success"), None),
        (event("error", error="e"), 0),
        (event("finish", status="success") + event("error", error="e"), 0),
        (b'{"type":"finish","data":{"status":"success"}', 0),
        (b'done: {"type":"finish","data":{"status":"success"}}', 0),
    ],
)
def test_success_needs_a_finish_and_exit_0(said: bytes, code: int | None) -> None:
    end = read(said)[0].ended(code)
    assert end.status == "error"
    assert end.text


def test_cost_is_the_largest_sum_ever_told() -> None:
    reader, reports = read(event("step", cost_so_far=0.5) + event("cost", total=0.2) + event("cost", total=0.75))
    assert [r.cost_usd for r in reports if r.kind is Kind.USAGE] == [0.5, 0.5, 0.75]
    assert reader.ended(0).cost_usd == 0.75


def test_an_agent_that_tells_no_cost_is_unpriced() -> None:
    reader, _ = read(event("step", step=1) + event("finish", status="success"))
    assert reader.ended(0).cost_usd is None


def test_a_line_of_100_mb_is_noise_and_the_rest_is_read() -> None:
    reader = EventReader()
    lines = Lines(LINE_BYTES)
    reports = []
    piece = b"x" * (1 << 20)
    pieces = [b'{"type":"thought","data":{"content":"', *[piece] * 100, b'"}}\n' + event("finish", status="success")]
    for part in pieces:
        for line in lines.feed(part):
            reports += reader.heard("stdout", line)
    assert [report.kind for report in reports] == [Kind.NOISE, Kind.TURN_END]
    assert len(reports[0].text) == TEXT_CHARS
    assert reader.ended(0).status == "completed"


def test_stderr_is_noise_even_when_it_looks_like_an_event() -> None:
    reader = EventReader()
    (report,) = reader.heard("stderr", Line(event("finish", status="success").strip()))
    assert (report.kind, report.data) == (Kind.NOISE, {"stream": "stderr"})
    assert reader.ended(0).status == "error"


def test_a_line_nested_without_end_is_noise() -> None:
    _, (report,) = read(b'{"type":"x","data":' + b"[" * 200_000 + b"\n")
    assert report.kind is Kind.NOISE


def test_deep_data_can_be_written_again() -> None:
    _, (report,) = read(b'{"type":"x","data":' + b"[" * 500 + b"]" * 500 + b"}\n")
    msgspec.json.encode(report)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([event("start"), event("step", step=1), b"\n", b"{"])))
def test_any_bytes_are_read_and_can_be_written(pieces: list[bytes]) -> None:
    reader, reports = read(b"".join(pieces))
    for report in (*reports, reader.ended(0)):
        msgspec.json.decode(msgspec.json.encode(report), type=Report)
    assert not [report for report in reports if report.kind is Kind.EXITED]
    if not any(b"finish" in piece for piece in pieces):
        assert reader.ended(0).status == "error"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(["start", "step", "thought", "log", "finish", "error", "cost", "ask", "other"])
FIELDS = st.sampled_from(
    ["step", "action", "output", "cost_so_far", "total", "status", "result", "content", "tokens_in", "error"]
)


@given(KINDS, st.dictionaries(FIELDS, VALUES))
def test_any_values_are_read_and_can_be_written(kind: str, data: dict[str, Any]) -> None:
    reader, reports = read(json.dumps({"type": kind, "data": data}).encode() + b"\n")
    assert reports
    for report in (*reports, reader.ended(0)):
        msgspec.json.decode(msgspec.json.encode(report), type=Report)
    assert reader.cost_usd is None or reader.cost_usd >= 0
    assert min(reader.steps, reader.tokens_in, reader.tokens_out) >= 0


@given(KINDS, FIELDS, st.text(max_size=5), st.booleans())
def test_no_secret_comes_through(kind: str, field: str, around: str, ascii_only: bool) -> None:
    told_it = {field: f"{around}{SECRET}{around}", SECRET: [SECRET]}
    line = json.dumps({"type": kind, "data": told_it}, ensure_ascii=ascii_only).encode(errors="replace")
    reader, reports = read(line + b"\n", Masker([SECRET]))
    assert SECRET not in repr((reports, reader.ended(0)))
    assert MASK in repr(reports)


def test_a_secret_in_a_cut_line_does_not_come_through_in_part() -> None:
    reader = EventReader(Masker([SECRET]))
    (report,) = reader.heard("stdout", Line(b"key " + SECRET[:-1].encode(), cut=True))
    assert report.text == "key "


@given(st.lists(st.binary(max_size=20)), st.integers(1, 30))
def test_lines_are_the_same_however_they_arrive(pieces: list[bytes], limit: int) -> None:
    whole, parts = Lines(limit), Lines(limit)
    expected = [*whole.feed(b"".join(pieces)), *whole.close()]
    found = [line for piece in pieces for line in parts.feed(piece)] + parts.close()
    assert found == expected
    assert all(len(line.data) <= limit for line in found)
