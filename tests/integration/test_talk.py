"""What agents say while they run, by their shell, and what becomes of it: real agents, a real controller."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from shopfloor.app import Shopfloor, wiring
from shopfloor.domain.errors import Refused
from shopfloor.domain.events import E
from shopfloor.domain.order import Record, State

from .engine_lab import Watch, log_of, records, resumed
from .lab import Lab, git, row, script, write

SF = f"{sys.executable} -P -m shopfloor"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def says(*words: str, into: str = "", failing: bool = False) -> dict[str, object]:
    """A deed: one of our commands, what it printed kept in a file that is committed."""
    kept = f" > {into} 2>&1" if into else ""
    after = "; true" if failing else ""
    return {"run": f"{SF} {' '.join(words)}{kept}{after}", "raw": True}


def landed(lab: Lab, name: str) -> str:
    return git(lab.repo, "show", f"main:{name}")


async def record_of(floor: Shopfloor, name: str) -> Record:
    return records(await floor.board())[name]


def impatient(monkeypatch: pytest.MonkeyPatch, grace_s: float) -> None:
    """Whoever says that it is done is ended so soon."""
    real = wiring.policy
    quick = "shopfloor.app.leading.policy"
    monkeypatch.setattr(quick, lambda s: msgspec.structs.replace(real(s), done_grace_s=grace_s))


# -- about its own attempt ------------------------------------------------------------------------------------------


def test_progress_is_told_and_done_asks_for_nothing_but_verification(lab: Lab) -> None:
    report = lab.run(
        lab.prompt("good", script(says("assignment", into="told.txt"), says("progress", "half"), says("done", "ok"))),
        lab.prompt("bad", script(write("broken"), says("done", "'all is well'"))),
        rework=0,
    )
    assert (row(report, "good").outcome, row(report, "bad").outcome) == ("landed", "failed")
    assert row(report, "bad").reason == "checks", "only the checks make it done"
    told = landed(lab, "told.txt")
    assert told.startswith(f"ASSIGNED: {row(report, 'good').order}\n")
    assert "check: test ! -e broken" not in told, "those are the run's, not the order's"
    assert [e.data["text"] for e in lab.seen(E.AGENT_PROGRESS)] == ["half"]
    assert {e.data["text"] for e in lab.seen(E.AGENT_DONE)} == {"ok", "all is well"}
    assert {e.actor for e in lab.seen(E.AGENT_DONE)} == {"shopfloor/workers/good", "shopfloor/workers/bad"}


def test_who_says_done_and_does_not_end_is_ended_and_verified(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch, 0.1)
    report = lab.run(
        lab.prompt("good", script(write("new.txt"), says("done", "'the words'"), {"hang": True})),
        lab.prompt("bad", script(write("broken"), says("done"), {"hang": True})),
        rework=0,
    )
    assert (row(report, "good").outcome, row(report, "bad").outcome) == ("landed", "failed")
    assert {e.data["outcome"] for e in lab.seen(E.AGENT_STOPPED)} == {"completed"}
    assert "the words" in {e.data["message"] for e in lab.seen(E.AGENT_STOPPED)}


FORGED = {
    "another attempt": "SHOPFLOOR_ORDER=$(cat {there}/order) SHOPFLOOR_ATTEMPT=$(cat {there}/order).a1",
    "no attempt": "SHOPFLOOR_ATTEMPT=wo-nobody.a1",
    "another token": "SHOPFLOOR_TOKEN=guessed",
    "another order": "SHOPFLOOR_ORDER=$(cat {there}/order)",
}


async def test_an_identity_cannot_be_forged(lab: Lab, tmp_path: Path) -> None:
    told = f"printf %s $SHOPFLOOR_ORDER > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/order"
    waits = f"{told}; while [ ! -e {tmp_path}/over ]; do sleep 0.02; done"
    forger = f"while [ ! -e {tmp_path}/order ]; do sleep 0.02; done; "
    for number, how in enumerate(FORGED.values()):
        into = f"said{number}.txt"
        forger += f"{how.format(there=tmp_path)} {SF} progress forged > {into} 2>&1; echo $? >> {into}; "
    deeds = {"run": f"{forger} touch {tmp_path}/over", "raw": True}
    async with lab.floor() as floor:
        report = await floor.run(
            [lab.prompt("victim", script({"run": waits}, write("v"))), lab.prompt("thief", script(deeds))]
        )
    assert report.counts["landed"] == 2
    for number, how in enumerate(FORGED):
        said = landed(lab, f"said{number}.txt")
        assert said.endswith("\n4"), (how, said)
    assert not lab.seen(E.AGENT_PROGRESS)


def test_an_attempt_that_is_over_changes_nothing_and_is_told_so(lab: Lab, tmp_path: Path) -> None:
    keep = {"run": f"[ -e {tmp_path}/env ] || env | grep ^SHOPFLOOR_ > {tmp_path}/env"}
    old = f"env $(cat {tmp_path}/env) {SF} progress stale > said.txt 2>&1; echo $? >> said.txt"
    report = lab.run(lab.prompt("two", script(keep, {"crash_once": "x"}, {"run": old, "raw": True})))
    assert row(report, "two").attempts == 2
    said = landed(lab, "said.txt")
    assert "attempt 1 of 'two' is over: attempt 2 is the newest; nothing was changed" in said
    assert said.endswith("\n5")
    assert not lab.seen(E.AGENT_PROGRESS)


async def test_what_a_person_decides_no_agent_does(lab: Lab, tmp_path: Path) -> None:
    accept = f"(cd {lab.repo} && {SF} accept first) > said.txt 2>&1; echo $? >> said.txt; touch {tmp_path}/over"
    async with lab.floor(land="review") as floor:
        watch = Watch(floor)
        running = asyncio.create_task(
            floor.run([
                lab.prompt("first", script(write("a"))),
                lab.prompt("second", script({"run": accept, "raw": True}), depends_on=[]),
            ])
        )  # fmt: skip
        await watch.until(E.VERIFY_VERDICT, 2)
        report = await running
        second = await record_of(floor, "second")
    assert report.counts["verified"] == 2
    said = git(lab.repo, "show", f"{second.commit}:said.txt")
    assert "an agent may not accept: that is for a person to decide" in said
    assert said.endswith("\n4")


def test_an_agent_claims_another_order_by_the_one_mechanism_and_loses_it_with_its_end(lab: Lab) -> None:
    claims = f"{SF} ready > ready.txt; {SF} claim --order other --json > claimed.json"
    report = lab.run(
        lab.prompt("worker", script({"run": claims, "raw": True}), priority=0),
        lab.prompt("other", script(write("o"))),
        max_parallel=1,
    )
    assert report.counts["landed"] == 2
    assert landed(lab, "ready.txt").startswith("other  wo-")
    (claimed,) = json.loads(landed(lab, "claimed.json"))["orders"]
    assert claimed["generation"] == 1
    assert row(report, "other").attempts == 2
    released = [e for e in lab.seen(E.RELEASED) if e.data["reason"] == "lost"]
    assert [e.data["handle"]["name"] for e in released] == ["worker"]


def test_the_same_verbs_serve_an_agent_that_speaks_mcp(lab: Lab) -> None:
    tell = {"call": "progress", "arguments": {"text": "by a tool"}}
    calls = [{"call": name, "into": f"{name}.txt"} for name in ("assignment", "ready", "show", "inbox", "done")]
    toml = script(tell, *calls).replace('{"text": "by a tool"}', '{ text = "by a tool" }')
    shows = script({"run": "env | grep ^SHOPFLOOR_TOKEN=", "raw": True}, {"run": "env | grep ^SHOPFLOOR_TOKEN="})
    report = lab.run(lab.prompt("works", toml + shows))
    assert report.counts["landed"] == 1
    kept = list((lab.repo / ".work/attempts").glob("*/*"))
    assert any("SHOPFLOOR_TOKEN=" in path.read_text() for path in kept)
    assert not [path for path in kept if re.search("SHOPFLOOR_TOKEN=[0-9a-f]{8}", path.read_text())], "it was kept"
    assert landed(lab, "assignment.txt") == f"ASSIGNED: {report.orders[0].order}"
    assert "state: running" in landed(lab, "show.txt")
    assert "progress: by a tool" in landed(lab, "show.txt")
    assert landed(lab, "inbox.txt") == "no new messages"
    assert "verified" in landed(lab, "done.txt")
    assert [e.data["text"] for e in lab.seen(E.AGENT_PROGRESS)] == ["by a tool"]
    assert len(lab.seen(E.AGENT_DONE)) == 1


# -- questions ------------------------------------------------------------------------------------------------------


def asks(*after: Mapping[str, object], wait: str = "", kept: str = "") -> str:
    """Asks in its first attempt only; the prompt of every attempt is kept."""
    question = f'test $SHOPFLOOR_GENERATION != 1 || {SF} ask "Which port?" {wait} > asked{kept}.txt'
    return script({"save_prompt": f"prompt{kept}.txt"}, {"run": question, "raw": True}, *after)


def test_a_question_waits_beyond_its_agent_and_the_answer_starts_it_again(lab: Lab) -> None:
    report = lab.run(lab.prompt("asks", asks(write("a.txt", "new\n"))))
    assert row(report, "asks").outcome == "waiting"
    assert "agent starts again" in lab.ask("answer", report.orders[0].order, "8080")
    report = lab.resume()
    assert report.counts["landed"] == 1
    prompt = landed(lab, "prompt.txt")
    assert "You asked: Which port?\nThe answer is: 8080" in prompt
    assert "not accepted" not in prompt


async def test_an_agent_that_waits_gets_its_answer_live(lab: Lab) -> None:
    async with lab.floor() as floor:
        watch = Watch(floor)
        running = asyncio.create_task(floor.run([lab.prompt("asks", asks(wait="--wait 30"))]))
        await watch.until(E.AGENT_ASKED)
        record = await record_of(floor, "asks")
        assert (record.state, record.question, record.live) == (State.ASKING, "Which port?", True)
        await floor.answer(record.order.id, "8080")
        report = await asyncio.wait_for(running, 30)
    assert report.counts["landed"] == 1
    assert row(report, "asks").attempts == 1
    assert "The answer is: 8080" in landed(lab, "asked.txt")


async def test_an_answer_to_an_agent_that_cannot_listen_is_not_lost(lab: Lab, tmp_path: Path) -> None:
    hold = {"run": f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"}
    async with lab.floor() as floor:
        watch = Watch(floor)
        running = asyncio.create_task(
            floor.run(
                [
                    lab.prompt("ends", asks(hold)),
                    lab.prompt("looks", asks(hold, says("inbox", into="read.txt"), kept="2")),
                ]
            )
        )
        await watch.until(E.AGENT_ASKED, 2)
        for name in ("ends", "looks"):
            said = await floor.answer((await record_of(floor, name)).order.id, f"for {name}")
            assert "cannot be interrupted" in said
        (tmp_path / "go").touch()
        report = await asyncio.wait_for(running, 40)
    assert report.counts["landed"] == 2
    assert (row(report, "ends").attempts, row(report, "looks").attempts) == (2, 1)
    assert "The answer is: for looks" in landed(lab, "read.txt")


def test_where_nobody_answers_the_agent_is_told_so_at_once(lab: Lab) -> None:
    stubborn = script({"ask": "One?"}, {"ask": "Two?"}, write("s"))
    report = lab.run(lab.prompt("asks", asks()), lab.prompt("stubborn", stubborn), on_question="decline", rework=1)
    assert row(report, "asks").outcome == "landed"
    assert "Nobody answers questions in this run" in landed(lab, "asked.txt")
    assert row(report, "stubborn").outcome == "failed"
    assert "it goes on asking" in row(report, "stubborn").message


@pytest.mark.parametrize("on_question", ["ask", "decline"])
def test_the_session_that_asked_goes_on_whoever_answers(lab: Lab, on_question: str) -> None:
    """A person or the policy: the same session, with the work that it had done."""
    told = {"run": 'printf %s "$SCRIPTED_SESSION" > session.txt', "raw": True}
    body = script(write("before.txt"), {"ask": "Which?"}, told)
    prompt = lab.prompt("asks", body.replace("```script\n", '```script\nsession = "known"\n'))
    report = lab.run(prompt, on_question=on_question)
    if on_question == "ask":
        lab.ask("answer", report.orders[0].order, "the second")
        report = lab.resume()
    assert (row(report, "asks").outcome, row(report, "asks").attempts) == ("landed", 2)
    (session,) = {e.data["session"] for e in lab.seen(E.AGENT_USAGE) if e.data["session"]}
    assert landed(lab, "session.txt") == session
    first, second = [e.data for e in lab.seen(E.ASSIGNED)]
    assert (first.get("session", ""), second["session"]) == ("", session)
    assert second["onto"], "what it had done before it asked"


# -- mail -----------------------------------------------------------------------------------------------------------


def test_two_agents_write_to_each_other_and_each_message_is_read_once(lab: Lab) -> None:
    one = script(
        {"run": f"{SF} send two -s 'the name' 'call it port'", "raw": True},
        says("inbox", "--wait", "30", into="one.txt"),
        says("inbox", into="again.txt"),
    )
    two = script(
        says("inbox", "--wait", "30", into="two.txt"),
        {"run": f"{SF} send shopfloor/workers/one agreed; {SF} send human 'we agreed'", "raw": True},
    )
    report = lab.run(lab.prompt("one", one), lab.prompt("two", two))
    assert report.counts["landed"] == 2
    assert "From: shopfloor/workers/one\nSubject: the name\n\ncall it port" in landed(lab, "two.txt")
    assert "agreed" in landed(lab, "one.txt")
    assert landed(lab, "again.txt") == "no new messages"

    async def read() -> list[list[str]]:
        async with lab.floor() as floor:
            return [[m.body for m in await floor.mail.inbox()] for _ in range(2)]

    assert asyncio.run(read()) == [["we agreed"], []]
    sent = next(line for line in log_of(lab) if line["event_type"] == "mail.sent")
    assert {"message_id", "from", "to", "subject", "message_type", "body", "priority", "metadata"} <= sent[
        "data"
    ].keys()


async def test_mail_without_a_controller_waits_for_the_agent(lab: Lab) -> None:
    prompt = lab.prompt("late", script({"ask": "Shall I?"}, says("inbox", into="read.txt")))
    async with lab.floor() as floor:
        report = await floor.run([prompt])
        sent = await floor.mail.send("late", "do it", priority="urgent")
        assert sent.to == "shopfloor/workers/late"
    async with lab.floor() as floor:
        await floor.answer(report.orders[0].order, "yes")
    assert (await resumed(lab)).counts["landed"] == 1
    assert "do it" in landed(lab, "read.txt")


async def test_an_unknown_address_is_refused(lab: Lab) -> None:
    async with lab.floor() as floor:
        await floor.run([lab.prompt("one", script(write("x")))])
        with pytest.raises(Exception, match="there is no order 'nobody'"):
            await floor.mail.send("nobody", "x")


# -- steering -------------------------------------------------------------------------------------------------------


async def test_who_cannot_listen_is_said_and_what_to_type(lab: Lab) -> None:
    async with lab.floor() as floor:
        watch = Watch(floor)
        running = asyncio.create_task(floor.run([lab.prompt("deaf", script(write("x"), {"hang": True}))]))
        await watch.until(E.AGENT_STARTED)
        record = await record_of(floor, "deaf")
        with pytest.raises(Refused, match="cannot listen") as refused:
            await floor.steer(record.order.id, "stop that")
        assert refused.value.hint == "shopfloor stop deaf, then: shopfloor retry deaf -m WORDS"
        await floor.ask("stop", record.order.id)
        await asyncio.wait_for(running, 20)
        assert not lab.seen(E.AGENT_STEERED)
    async with lab.floor() as floor:
        await floor.ask("retry", record.order.id, "leave it alone")
        assert (await record_of(floor, "deaf")).findings == "leave it alone"
