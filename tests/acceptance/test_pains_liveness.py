"""What breaks in practice, 6 to 10: what is dead is called alive, what is alive is called dead, and things leak."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil

from .crew import RUN, alive
from .shop import Running, Shop, agents_alive, until


def saying(word: str) -> list[int]:
    """Processes with this word in their command line."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        info = process.info
        if info["status"] != psutil.STATUS_ZOMBIE and any(word in part for part in info["cmdline"] or ()):
            found.append(info["pid"])
    return found


def agent_pid(shop: Shop, name: str) -> int:
    """The process of an order's agent, once it has written it down."""
    note = shop.root.parent / f"{name}.pid"
    until(lambda: note.exists() and note.read_text().endswith("\n"), f"{name} is at work")
    return int(note.read_text())


def test_a_dead_agent_is_known_within_two_seconds_whatever_its_log_says(shop: Shop) -> None:
    """Pain 6: a dead session is shown as working, because whether it lives is read from a log that it left behind."""
    agent = shop.tool(
        "agent",
        "echo $$ > $there/$name.pid; while [ ! -e $there/gate ]; do echo working hard; sleep 0.1; done; date > $name",
    )
    with shop.start(*RUN, "--agent", agent, *shop.plain("dies", "lives")) as run:
        dies, lives = agent_pid(shop, "dies"), agent_pid(shop, "lives")
        os.kill(dies, signal.SIGKILL)
        killed = time.monotonic()
        run.until("dies", "its agent ended", "signal")
        assert time.monotonic() - killed < 2.0
        assert alive(lives)
        assert shop.state("lives") == "running"
        shop.gate.touch()
        assert run.end().code == 0
    assert "dies   its agent ended" in "\n".join(run.lines)
    assert "lives  its agent ended" not in "\n".join(run.lines)


def test_what_is_called_failed_edits_nothing_any_more(shop: Shop) -> None:
    """Pain 7: an order is marked failed while five processes of it go on editing for two days."""
    stubborn = 'trap "" TERM HUP INT; while :; do date >> still.txt; date >> $there/beat; sleep 0.02; done'
    agent = shop.tool("agent", f"export there; for n in 1 2 3 4 5; do setsid sh -c '{stubborn}' & done; wait")
    with shop.start(*RUN, "--agent", agent, "--timeout", "1s", *shop.plain("edits")) as run:
        run.until("edits", "FAILED", "limit of 1 s")
        assert agents_alive(shop) == []
        beat = (shop.root.parent / "beat").stat().st_size
        assert beat > 0
        assert run.end().code == 1
    branch = shop("status", "--json").json["orders"][0]["branch"]
    assert shop.git("show", f"{branch}:still.txt")
    assert (shop.root.parent / "beat").stat().st_size == beat


def test_a_living_controller_is_not_replaced(shop: Shop) -> None:
    """Pain 7: a second orchestrator silently takes the place of a living one."""
    with shop.start(*RUN, "--agent", "scripted", shop.waits("first")) as run:
        until(lambda: bool(agents_alive(shop)), "the first one is at work")
        for words in (("run", "--no-check", "--agent", "scripted", shop.adds("second")), ("run", "--resume")):
            refused = shop(*words)
            assert refused.code == 5, refused
            assert str(run.process.pid) in refused.err
        assert shop("status", "--json").json["controller"]["pid"] == run.process.pid
        shop.gate.touch()
        assert run.end().code == 0
    assert shop("status", "--json").json["counts"] == {"landed": 1}


def test_one_lost_completion_blocks_no_slot(shop: Shop) -> None:
    """Pain 8: one report of completion is lost; its task runs for ever and holds its slot."""
    agent = shop.tool(
        "agent",
        """echo $$ > $there/$name.pid; date > "$name.txt"
        while [ $name$SHOPFLOOR_GENERATION = lost1 ]; do sleep 0.05; done""",
    )
    lost, follower = shop.plain("lost", "next")
    with shop.start(*RUN, "--agent", agent, "--max-parallel", "1", lost, follower) as run:
        keeper = psutil.Process(agent_pid(shop, "lost")).parent()
        assert keeper is not None
        assert keeper.pid != run.process.pid
        keeper.kill()  # who would have told how the agent ended
        said = run.end()
    assert said.code == 0, said
    assert "2 orders: 2 landed" in said.out
    assert "guard was killed" in said.out


def test_an_agent_that_hangs_holds_its_slot_for_its_limit_and_no_longer(shop: Shop) -> None:
    """Pain 8: a call that hangs stalls everything behind it for hours."""
    agent = shop.tool("agent", 'case $name in hangs) sleep 10000;; esac; date > "$name.txt"')
    hangs, follower = shop.plain("hangs", "next")
    said = shop(*RUN, "--agent", agent, "--max-parallel", "1", "--timeout", "1s", hangs, follower)
    assert said.code == 1, said
    assert "1 landed, 1 failed" in said.out
    assert "took longer than its limit of 1 s" in said.out
    assert agents_alive(shop) == []


def test_no_helper_process_outlives_its_agent(shop: Shop) -> None:
    """Pain 9: hundreds of helper processes that agents started are left behind and eat the machine."""
    word = f"helper-of-{os.getpid()}"
    helper = f"setsid sh -c 'trap \"\" HUP TERM; while :; do sleep 0.1; done; : {word}' >/dev/null 2>&1 </dev/null &"
    agent = shop.tool(
        "agent",
        f'{helper}\n{helper}\ndate > "$name.txt"; [ $name != last ] || while [ ! -e $there/gate ]; do sleep 0.02; done',
    )
    names = [f"o{n}" for n in range(11)]
    with shop.start(*RUN, "--agent", agent, "--max-parallel", "6", *shop.plain("last", *names)) as run:
        for _ in names:
            run.until("landed as")
        assert len(saying(word)) == 2, "only those of the one that is still at work"
        shop.gate.touch()
        assert run.end().code == 0
    assert saying(word) == []


def test_all_that_the_floor_started_ends_with_it_and_nothing_of_the_users_does(shop: Shop) -> None:
    """Pain 10: children outlive the orchestrator that was killed; or tidying kills the user's own processes."""
    agent = shop.tool("agent", "echo $$ > $there/$name.pid; setsid sleep 1000 & sleep 1000")
    theirs = []
    try:
        with shop.start(*RUN, "--agent", agent, *shop.plain("one", "two")) as run:
            pids = [agent_pid(shop, "one"), agent_pid(shop, "two")]
            slot = Path(f"/proc/{pids[0]}/cwd").readlink()
            # A person who looks around in a workspace, and a program of the same name somewhere else.
            theirs = [subprocess.Popen(["sleep", "1000"], cwd=place) for place in (slot, shop.root)]
            ours = [p.pid for p in psutil.Process(run.process.pid).children(recursive=True)]
            assert len(ours) >= 6
            run.process.kill()
            assert run.end().code == 137
            until(lambda: not any(map(alive, ours)), "everything that the floor started has ended")
        assert shop("stop", "--cancel").code == 0
        assert shop("gc", "--yes").code == 0
        assert [process.poll() for process in theirs] == [None, None]
    finally:
        for process in theirs:
            process.kill()
            process.wait()


def test_every_process_of_a_finished_run_is_gone(shop: Shop) -> None:
    """Pain 10: teammates that are done never exit."""
    agent = shop.tool("agent", 'date > "$name.txt"')
    with shop.start(*RUN, "--agent", agent, *shop.plain("one", "two")) as run:
        family = _family(run)
        assert run.end().code == 0
    assert not any(map(alive, family))


def _family(run: Running) -> list[int]:
    run.until("started")
    return [run.process.pid, *(p.pid for p in psutil.Process(run.process.pid).children(recursive=True))]
