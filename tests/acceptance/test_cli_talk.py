"""Talking with agents from the command line: progress, questions across a killed controller, mail, several floors."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from .shop import Shop, until

SF = f"{sys.executable} -P -m shopfloor"


def asks(shop: Shop, name: str) -> str:
    """Asks and then goes on waiting in its first attempt; keeps the prompt of the next one."""
    once = f"test $SHOPFLOOR_GENERATION != 1 || {{ {SF} progress 'reads the code'; {SF} ask 'Which port?'; }}"
    wait = f"test $SHOPFLOOR_GENERATION != 1 || while [ ! -e {shop.gate} ]; do sleep 0.02; done"
    return shop.prompt(name, 'save_prompt = "prompt.txt"', f'run = "{once}"', f'run = "{wait}"')


def test_a_question_outlives_a_killed_controller_and_its_agent(shop: Shop) -> None:
    shop.configure()
    with shop.start("run", asks(shop, "port")) as run:
        run.until("port", "reads the code")
        run.until("asks: Which port?", 'shopfloor answer port "…"')
        seen = shop("status").out
        assert "asking" in seen
        assert "Which port?" in seen
        run.signal(signal.SIGKILL)
        run.end()
    until(lambda: shop.state("port") in ("interrupted", "asking"), "its controller is gone")
    assert shop("answer", "port", "8080").code == 0
    said = shop("run", "--resume")
    assert said.code == 0, said
    prompt = shop.git("show", "main:prompt.txt")
    assert "You asked: Which port?\nThe answer is: 8080" in prompt
    told = shop("show", "port").out
    assert "asked (its agent): Which port?" in told
    assert "8080" in told


def test_a_question_that_nobody_answered_yet_is_kept_by_resume(shop: Shop) -> None:
    shop.configure()
    with shop.start("run", asks(shop, "port")) as run:
        run.until("asks: Which port?")
        run.signal(signal.SIGKILL)
        run.end()
    said = shop("run", "--resume")
    assert said.code == 1, "it waits for a person, and starts nothing before that"
    assert shop.state("port") == "asking"
    assert "Which port?" in shop("status").out
    answered = shop("answer", "port", "8080")
    assert "shopfloor run --resume" in answered.out
    assert shop("run", "--resume").code == 0


def test_status_and_show_tell_progress_steering_and_mail(shop: Shop) -> None:
    shop.configure()
    tell = f"run = \"{SF} progress 'half of it'; {SF} send human -s hello 'I am here'\""
    wait = f'run = "while [ ! -e {shop.gate} ]; do sleep 0.02; done"'
    with shop.start("run", shop.prompt("works", tell, wait, 'write = "x.txt"')) as run:
        run.until("mail from shopfloor/workers/works to human: hello")
        for words in (("status",), ("status", "--all")):  # from the index, and from the log
            assert "half of it" in shop(*words).out
            assert "1 message for you: shopfloor inbox" in shop(*words).out
        assert "progress" in shop("show", "works").out
        refused = shop("steer", "works", "hurry")
        assert refused.code == 4
        assert "shopfloor stop works, then: shopfloor retry works -m WORDS" in refused.err
        assert shop("send", "works", "well done").out == "sent to shopfloor/workers/works\n"
        read = shop("inbox")
        assert "From: shopfloor/workers/works\nSubject: hello\n\nI am here" in read.out
        assert shop("inbox").out == "no new messages\n"
        assert "message for you" not in shop("status").out
        shop.gate.touch()
        assert run.end().code == 0
    assert shop("status", "--json").json["orders"][0]["progress"] == ""


def test_each_agent_speaks_to_the_floor_that_started_it(tmp_path: Path) -> None:
    floors = [Shop(tmp_path / name) for name in ("one", "two")]
    for shop in floors:
        shop.configure()
        deed = f'run = "cd / && {SF} progress {shop.root.parent.name}"'
        assert shop("run", shop.prompt("works", deed, 'write = "x.txt"')).code == 0
    for shop in floors:
        log = (shop.root / ".work/events.jsonl").read_text()
        assert log.count('"agent.progress"') == 1
        assert f'"text":"{shop.root.parent.name}"' in log


@pytest.mark.parametrize("words", [("assignment",), ("progress", "x"), ("done",), ("ask", "why?")])
def test_outside_of_an_attempt_it_is_said_who_these_are_for(shop: Shop, words: tuple[str, ...]) -> None:
    said = shop(*words)
    assert said.code == 4
    assert f"{words[0]!r} is for agents that were started by shopfloor" in said.err


def test_prompts_name_the_commands_only_where_that_is_set(shop: Shop) -> None:
    shop.configure()
    keeps = ('save_prompt = "kept.txt"',)
    assert shop("run", shop.prompt("plain", *keeps)).code == 0
    assert shop.git("show", "main:kept.txt") == (shop.prompts / "plain.md").read_text().strip()
    told = shop("run", shop.prompt("told", *keeps, 'write = "y.txt"'), env={"SHOPFLOOR_TALK": "all"})
    assert told.code == 0, told
    kept = shop.git("show", "main:kept.txt")
    for verb in ("progress", "ask", "inbox", "send", "done"):
        assert f"shopfloor {verb}" in kept
    off = shop.prompt("off", f'run = "{SF} progress x > said.txt 2>&1; true"')
    assert shop("run", off, env={"SHOPFLOOR_TALK": "off"}).code == 0
    assert "is for agents that were started by shopfloor" in shop.git("show", "main:said.txt")
