"""The envelope, its times, and who may say what."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shopfloor.domain.events import OPEN_TO_ALL, VERMAS_STATUS, E, Event, Stamp, read_time, stamp_time
from shopfloor.domain.order import State, reason_of

from .events_of import Log

MALFORMED = [
    "",
    "yesterday",
    "2026-01-06",
    "2026-01-06T12:00:00",
    5,
    None,
    ["2026-01-06T12:00:00Z"],
    "9999-99-99T00:00:00Z",
]


def test_a_time_is_written_in_utc_with_milliseconds() -> None:
    assert stamp_time(1767700800.0) == "2026-01-06T12:00:00.000Z"
    assert stamp_time(1767700800.0019) == "2026-01-06T12:00:00.001Z"


@pytest.mark.parametrize("text", ["2026-01-06T12:00:00Z", "2026-01-06T13:00:00.000+01:00", "2026-01-06T07:00:00-05:00"])
def test_a_time_of_any_zone_is_read(text: str) -> None:
    assert read_time(text) == 1767700800.0


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_no_zoned_time_reads_as_the_default(text: object) -> None:
    assert read_time(text) == 0.0
    assert read_time(text, 7.0) == 7.0


@given(st.text())
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59-23:59")
def test_no_text_breaks_the_clock(text: str) -> None:
    assert isinstance(read_time(text), float)


def test_a_line_is_what_other_programs_expect_with_one_more_key() -> None:
    event = Log(4).write(E.SETTLED, "wo-a", outcome="done", caused_by="evt-0")
    line = msgspec.json.encode(event)
    assert list(msgspec.json.decode(line)) == [
        *("event_id", "event_type", "timestamp", "actor", "correlation_id", "data", "caused_by", "sf")
    ]
    assert msgspec.json.decode(line)["sf"] == [4, 1, 0, 1]
    assert msgspec.json.decode(line, type=Event) == event
    assert event.sf == Stamp(4, 1)


def test_the_order_of_a_line() -> None:
    assert Log().write(E.SETTLED, "wo-a").order_id == "wo-a"
    assert Log().write(E.SETTLED).order_id == ""
    assert Log().write(E.SETTLED, work_order_id=7).order_id == ""


def test_only_requests_creations_wishes_and_mail_are_open_to_all() -> None:
    told = {E.LOG_OPENED, E.VIEW_COLLISION, E.PROBLEM, E.MAIL_SENT, E.MAIL_READ}
    assert {E.CREATED, E.UPDATED, E.REQUEST, *told} == OPEN_TO_ALL


def test_every_state_has_a_status_for_other_programs() -> None:
    assert set(VERMAS_STATUS) == {str(state) for state in State}
    assert set(VERMAS_STATUS.values()) <= {"open", "assigned", "in_progress", "closed"}


@pytest.mark.parametrize("value", ["sang", None, 3, ["timeout"], {}])
def test_what_is_no_reason_is_none(value: object) -> None:
    assert reason_of(value) is None
    assert reason_of("timeout") == "timeout"
