"""Every verb's answer: its JSON, its words, its help."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from shopfloor.cli.main import VERBS

from .shop import Shop


@pytest.fixture
def worked(shop: Shop) -> Shop:
    """A run that is over: ``good`` landed, ``bad`` failed after two attempts, ``later`` failed with it."""
    shop.configure()
    bad = shop.prompt("bad", 'write = "bad.txt"', "cost = 0.5")
    said = shop("run", shop.adds("good"), bad, shop.adds("later", head="depends_on: bad"))
    assert said.code == 1, said
    return shop


def test_every_verb_answers_in_json(worked: Shop) -> None:
    shapes: dict[tuple[str, ...], set[str]] = {
        ("status",): {"run", "controller", "paused", "counts", "spent_usd", "orders"},
        ("show", "bad"): {"record", "state", "why", "checks", "next"},
        ("log", "bad"): {"attempt", "file", "entries"},
        ("diff", "bad"): {"order", "files", "patch"},
        ("diff", "bad", "--stat"): {"order", "files"},
        ("doctor",): {"ok", "findings"},
        ("gc",): {"applied", "dropped"},
        ("gc", "--yes"): {"applied", "dropped"},
        ("init", "--print"): {"path", "written", "text"},
        ("plan", worked.adds("more")): {"waves", "critical_path", "agents", "checks", "problems", "collisions"},
    }
    for words, keys in shapes.items():
        said = worked(*words, "--json")
        assert said.code == 0, (words, said)
        assert keys <= said.json.keys(), words
        assert said.err == "", words
    refused = [("pause",), ("resume",), ("stop",), ("accept", "good"), ("reject", "good"), ("answer", "good", "x")]
    for words in refused:
        said = worked(*words, "--json")
        assert said.code == 4, (words, said)
        assert said.json["error"]["kind"] == "Refused"
    assert worked("land", "--json").json["ok"] is True
    report = worked("retry", "bad", "--json")
    assert report.code == 1, report
    assert report.json["counts"]["failed"] == 2


def test_status_counts_every_order_once(worked: Shop) -> None:
    told = worked("status", "--json").json
    assert told["counts"] == {"landed": 1, "failed": 2}
    assert sum(told["counts"].values()) == len(told["orders"]) == 3
    assert told["controller"] is None
    assert told["spent_usd"] == 1.0
    later = next(order for order in told["orders"] if order["name"] == "later")
    assert later["reason"] == "dependency"
    assert "'bad' failed" in later["why"]


def test_show_tells_the_whole_story(worked: Shop) -> None:
    out = worked("show", "bad").out
    for words in ("attempt 1", "attempt 2", "FAIL", "test ! -e bad.txt", "exit 1", "bad.txt", "shopfloor retry bad"):
        assert words in out
    record = worked("show", "bad", "--json").json
    assert [attempt["generation"] for attempt in record["record"]["attempts"]] == [1, 2]
    (check,) = record["checks"]
    assert check["passed"] is False
    assert check["exit_code"] == 1
    assert Path(check["log"]).exists()
    branch = record["record"]["attempts"][-1]["branch"]
    assert branch in out
    assert worked.git("show", f"{branch}:bad.txt") == ""


def test_a_patch_is_one(worked: Shop) -> None:
    patch = worked("diff", "bad").out
    (worked.root / "x.patch").write_text(patch)
    worked.git("apply", "--check", "x.patch")
    assert worked("diff", "bad", "--stat").out == "bad.txt  +0  -0\n1 file changed\n"
    none = worked("diff", "later")
    assert none.code == 3
    assert "'later' has no work yet" in none.err


def test_plan_says_what_would_happen_and_touches_nothing(shop: Shop) -> None:
    one = shop.adds("one", head="files: [src/a]")
    two = shop.adds("two", head="files: [src]")
    three = shop.adds("three", head="depends_on: [one, two]")
    before = sorted(str(path) for path in shop.root.rglob("*"))
    said = shop("plan", one, two, three, "--agent", "scripted", "--check", "make test", "--max-parallel", "7")
    assert said.code == 0, said
    assert "3 orders in 2 waves, at most 7 side by side; verified work lands on main" in said.out
    assert "one, two  src/a" in said.out.replace("two, one", "one, two")
    assert "after one, two" in said.out
    assert "longest chain: one → three" in said.out.replace("two → three", "one → three")
    assert "make test" in said.out
    assert sorted(str(path) for path in shop.root.rglob("*")) == before
    refused = shop("plan", one, "--agent", "nonesuch-4 -p")
    assert refused.code == 0
    assert "would be refused" in refused.out
    assert "'nonesuch-4' is not found on PATH" in refused.out
    assert "there is no check" in refused.out


def test_init_writes_settings_that_can_be_read(shop: Shop) -> None:
    shop.write("Makefile", "test:\n\ttrue\n")
    printed = shop("init", "--print")
    assert printed.code == 0
    assert not (shop.root / ".shopfloor.toml").exists()
    below = shop.write("src/deep/x", "").parent
    said = shop("init", cwd=below)
    assert said.code == 0, said
    text = (shop.root / ".shopfloor.toml").read_text()
    assert tomllib.loads(text)["check"] == "make test"
    assert text == printed.out
    assert "shopfloor plan" in said.out
    refused = shop("init")
    assert refused.code == 4
    assert "--force" in refused.err
    (shop.root / ".shopfloor.toml").write_text("not toml")
    assert shop("init", "--force").code == 0
    assert shop("doctor").code == 0


def test_gc_only_says_and_then_does(worked: Shop) -> None:
    said = worked("gc")
    assert "would be removed" in said.out
    assert "shopfloor gc --yes" in said.out
    assert "removed:" in worked("gc", "--yes").out
    assert worked("gc").out == "there is nothing to remove\n"
    assert worked("diff", "bad").code == 0


def test_hostile_words_cannot_move_the_cursor(shop: Shop) -> None:
    shop.configure()
    evil = shop.prompts / "evil.md"
    evil.write_text(
        '---\ntitle: "[red]x[/red] \\u001b[2Jgone\\u202e"\n---\n```script\n[[do]]\nsay = "[bold]\\u001b]0;t\\u0007"\n'
        '[[do]]\nask = "\\u001b[31mwhy\\u202e[link]"\n```\n'
    )
    run = shop("run", str(evil))
    answers = [run, shop("status"), shop("show", "evil"), shop("log", "evil"), shop("plan", str(evil))]
    for said in answers:
        assert not {"\x1b", "\u202e", "\x07"} & set(said.out + said.err), said
    assert "[red]x[/red]" in answers[2].out
    assert "[bold]" in answers[3].out


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"demo"}))
def test_every_verb_has_help_with_an_example(shop: Shop, verb: str) -> None:
    said = shop(verb, "--help", cwd=shop.root.parent)
    assert said.code == 0, said
    assert "Example:" in said.out
    assert f"shopfloor {verb}" in said.out.rpartition("Example:")[2]
    assert max(map(len, said.out.splitlines())) <= 80


def test_help_names_every_verb_in_a_section(shop: Shop) -> None:
    said = shop("--help")
    assert said.code == 0
    assert said.out == shop("-h").out == shop().out
    for verb in VERBS:
        assert re.search(rf"\n(?:  |For agents: (?:[a-z]+, )*){verb}\b", said.out), verb
    assert len(said.out.splitlines()) <= 50


def test_options_may_stand_on_either_side_of_the_verb(worked: Shop) -> None:
    place = str(worked.root)
    answers = [
        worked("-C", place, "status", cwd=worked.root.parent),
        worked("status", "-C", place, cwd=worked.root.parent),
        worked("--no-color", "-C", place, "status", "--all", cwd=worked.root.parent),
    ]
    assert all(said.code == 0 and "2 failed" in said.out for said in answers), answers


def test_an_answer_survives_an_encoding_that_cannot_write_it(worked: Shop) -> None:
    said = worked("show", "bad", env={"PYTHONIOENCODING": "ascii"})
    assert said.code == 0, said


def events(shop: Shop) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (shop.root / ".work" / "events.jsonl").read_text().splitlines()]


def test_watch_in_json_is_one_event_a_line(shop: Shop) -> None:
    shop.configure()
    with shop.start("run", "--plain", shop.waits("one")) as run:
        run.until("started")
        with shop.start("watch", "--json") as watch:
            watch.until('"run.started"')
            shop.gate.touch()
            said = watch.end()
        run.end()
    assert said.code == 0, said
    seen = [json.loads(line) for line in said.out.splitlines()]
    types = [event["event_type"] for event in seen]
    assert types[0] == "run.started"
    assert "run.finished" in types
    assert {event["event_id"] for event in seen} <= {event["event_id"] for event in events(shop)}
