"""The live picture as lines: it fits, it counts right, and nothing foreign gets through."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.cli.stage import Line, Stage
from shopfloor.cli.words import columns
from shopfloor.domain.events import E

from .events_of import Desk, begun, order

SETTINGS = {"branch": "main", "max_parallel": 4}


def texts(lines: list[Line]) -> list[str]:
    return ["".join(text for text, _ in parts) for parts in lines]


def stage_of(desk: Desk, work: Path = Path("nowhere")) -> Stage:
    stage = Stage(lambda: desk.floor, work)
    for event in desk.log.events:
        stage.see(event)
    return stage


def crowd(number: int) -> Desk:
    """So many orders in all states, some with hostile names and questions."""
    desk = begun(*(order(f"o{n}", title=f"t{n}") for n in range(number)), settings=SETTINGS)
    for n in range(0, number, 3):
        desk.claim(f"o{n}")
    for n in range(0, number, 6):
        desk.end(f"o{n}")
    for n in range(0, number, 12):
        desk.check(f"o{n}")
    for n in range(0, number, 24):
        desk.land(f"o{n}")
        desk.settle(f"o{n}")
    for n in range(3, number, 24):
        desk.write(E.AGENT_ASKED, f"o{n}", generation=1, question="漢字 \x1b[2J\nwhy " * 50)
    return desk


@pytest.mark.parametrize(("columns_", "lines"), [(80, 24), (120, 40), (40, 10), (20, 5), (10, 3), (200, 60)])
def test_a_thousand_orders_fit_into_any_terminal(columns_: int, lines: int) -> None:
    desk = crowd(1000)
    shown = texts(stage_of(desk).picture(columns_, lines, desk.log.wall))
    assert len(shown) <= lines
    assert max(map(columns, shown)) <= columns_
    assert not any("\x1b" in line or "\n" in line for line in shown)


@given(st.integers(10, 130), st.integers(3, 50), st.integers(0, 30), st.text(max_size=30))
def test_no_name_and_no_size_breaks_the_picture(width: int, height: int, number: int, name: str) -> None:
    orders = [msgspec.structs.replace(order(f"o{n}"), name=f"{name}{n}") for n in range(number)]
    desk = begun(*orders, settings=SETTINGS)
    for n in range(number):
        desk.claim(f"o{n}")
    shown = texts(stage_of(desk).picture(width, height, desk.log.wall))
    assert len(shown) <= height
    assert max(map(columns, shown)) <= width
    assert not {unicodedata.category(char) for line in shown for char in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_it_counts_every_order_once_and_shows_who_works() -> None:
    desk = begun(order("a"), order("b", needs=["a"]), order("c"), order("d"), settings=SETTINGS)
    desk.claim("a")
    desk.claim("c")
    desk.settle("d", "failed", reason="error", message="no luck")
    desk.log.pass_time(65)
    shown = texts(stage_of(desk).picture(100, 20, desk.log.wall))
    assert shown[0].startswith("run-1 on main  1m05s  slots 2/4")
    assert shown[1] == "4 orders: 1 failed 2 running 1 waiting"
    assert any("running  a #1  1m05s" in line for line in shown)
    assert any("d  FAILED: no luck" in line for line in shown)


def test_what_goes_on_before_and_beside_the_run_is_said() -> None:
    stage = Stage(lambda: None, Path("nowhere"))
    stage.tell("red on the base: make test", 0.0)
    assert "red on the base" in texts(stage.picture(80, 24, 0.0))[0]
    desk = crowd(60)
    stage = stage_of(desk)
    stage.tell("red on the base: make test", 0.0)
    assert any("red on the base" in line for line in texts(stage.picture(80, 60, desk.log.wall)))
    stage.note = "stopping"
    assert texts(stage.picture(80, 8, desk.log.wall))[-1] == "stopping"
    desk.write(E.REQUEST, verb="pause", text="")
    desk.write(E.HANDLED, verb="pause", result="ok", text="")
    assert "paused" in texts(stage.picture(80, 8, desk.log.wall))[0]


def words_of(desk: Desk, work: Path, state: str) -> str:
    """What is said last in the line of the one order in this state."""
    lines = texts(stage_of(desk, work).picture(100, 20, desk.log.wall))
    (line,) = (line for line in lines if f" {state} " in line[:12])
    return line.split("s  ", 1)[1]


def test_the_last_words_of_an_agent_and_the_check_that_runs_are_shown(tmp_path: Path) -> None:
    desk = begun(order("a"), order("c", checks=["make own"]), settings={**SETTINGS, "checks": ["make all"]})
    desk.claim("a")
    desk.claim("c")
    desk.end("c")
    desk.write(E.VERIFY_STARTED, "c", generation=1)
    transcript = tmp_path / "attempts" / "wo-a.a1" / "transcript.jsonl"
    transcript.parent.mkdir(parents=True)
    said = ['{"kind":"text","text":"first"}', '{"kind":"tool","text":"edit \\u001b[1mx"}', '{"kind":"usage"}', '{"ha']
    transcript.write_text("\n".join(said))
    evidence = tmp_path / "evidence" / "wo-c" / "runs" / "1.1"
    evidence.mkdir(parents=True)
    (evidence / "1-make-own.log").write_text("")
    assert words_of(desk, tmp_path, "running") == "edit �[1mx"
    assert words_of(desk, tmp_path, "checking") == "make own"
    (evidence / "2-make-all.log").write_text("")
    assert words_of(desk, tmp_path, "checking") == "make all"


def test_a_damaged_transcript_says_nothing(tmp_path: Path) -> None:
    from shopfloor.cli.tail import last_words, running_check

    path = tmp_path / "t"
    assert last_words(path) == ""
    path.write_bytes(b"\xff\xfe\n[1]\n{\n" + b"x" * 20_000 + b'\n{"kind":"text","text":"still"}\n')
    assert last_words(path) == "still"
    assert running_check(tmp_path / "nix", []) == ""
    (tmp_path / "2-x.log").write_text("")
    assert running_check(tmp_path, ["one", "two"]) == "two"
    (tmp_path / "base-2-x.log").write_text("")
    assert running_check(tmp_path, ["one", "two"]) == "two again on the base"


def test_calls_take_no_slot_and_prepare_no_workspace() -> None:
    desk = begun(order("a"), order("b"), order("c"), settings=SETTINGS | {"branch": ""})
    for name in "ab":
        desk.write(E.ASSIGNED, name, generation=1, attempt=f"wo-{name}.a1", agent="a", base="", branch="", call=True)
    desk.log.pass_time(5)
    shown = texts(stage_of(desk).picture(100, 20, desk.log.wall))
    assert shown[0] == "run-1  5.0s  calls 2"
    assert shown[3].endswith("running  a #1   5.0s  ")
