"""What breaks in practice, 21 to 25: driving agents, what they share with each other, and what an idle floor costs."""

import subprocess
import threading
import time
from pathlib import Path

import psutil

from shopfloor.domain.events import read_time

from .crew import RUN, agents_waiting, events, starts, watched
from .shop import Shop, agents_alive, until

CROWD = 24
RSS_BYTES = 120 << 20


def test_an_order_reaches_its_agent_byte_for_byte_without_a_keyboard(shop: Shop) -> None:
    """Pain 21: a prompt is typed into a terminal, Enter is swallowed, and the agent waits for ever."""
    agent = shop.tool(
        "agent",
        """cat > prompt.txt; cp "$SHOPFLOOR_ATTEMPT_DIR/prompt.md" $there/kept
        if [ -t 0 ] || [ -t 1 ] || (: < /dev/tty) 2>/dev/null; then exit 3; fi""",
    )
    hard = "\n".join(
        ["Enter\r", "C-c ^C \t tab", "`$HOME` $(id) \"two\" 'one' \\ ; & | < >", "ünï ✂ 中", "x" * 200_000, ""]
    )
    said = shop(*RUN, "--agent", agent, *shop.plain("hard", text=hard))
    assert said.code == 0, said
    asked = subprocess.run(["git", "show", "main:prompt.txt"], cwd=shop.root, capture_output=True, check=True).stdout
    assert hard.strip().encode() in asked
    assert asked == (shop.root.parent / "kept").read_bytes()


def test_a_consent_dialog_costs_a_few_starts_and_is_told(shop: Shop) -> None:
    """Pain 22: an update of the agent adds a dialog, and every unattended worker hangs or dies at once."""
    agent = shop.tool(
        "agent",
        """echo $name >> $there/called
        echo 'New terms. Continue? [y/N]'; read answer < /dev/tty || read answer
        [ "$answer" = y ] || { echo 'the new terms were not accepted' >&2; exit 1; }""",
    )
    names = [f"o{n:02}" for n in range(76)]
    began = time.monotonic()
    said = shop(*RUN, "--agent", f"sh -c 'cat > /dev/null; exec {agent}'", "--max-parallel", "8", *shop.plain(*names))
    assert time.monotonic() - began < 30.0, "nobody waits for an answer that cannot come"
    assert said.code == 1, said
    assert len(starts(shop)) <= 12, starts(shop)
    assert "76 orders: 76 waiting" in said.out
    assert "the new terms were not accepted" in said.out.partition("76 orders")[2]
    assert "shopfloor run --resume" in said.out


def test_stop_reaches_a_running_agent_within_two_seconds(shop: Shop) -> None:
    """Pain 23: "stop" arrives 14 minutes late, after the damage."""
    agent = shop.tool(
        "agent",
        """trap 'echo heard > $there/heard; exit 0' INT
        echo $$ > $there/$name.pid; while :; do sleep 0.05; done""",
    )
    with shop.start(*RUN, "--agent", agent, *shop.plain("busy", "other")) as run:
        until(lambda: len(list(shop.root.parent.glob("*.pid"))) == 2, "both are at work")
        assert shop("stop", "busy").code == 0
        heard = shop.root.parent / "heard"
        until(heard.exists, "the agent has heard it")
        (asked,) = events(shop, "request.made")
        assert heard.stat().st_mtime - read_time(asked["timestamp"]) < 2.0
        assert len(agents_alive(shop)) >= 1
        assert shop.state("other") == "running"
        assert shop("stop", "--cancel").code == 0
        run.end()
    assert agents_alive(shop) == []


def test_worktrees_side_by_side_and_a_person_at_work_break_no_lock_and_no_file(shop: Shop) -> None:
    """Pain 24: making worktrees side by side fails on git's locks, and shared files of settings are cut off."""
    shop.configure()
    shop.git("config", "person.count", "0")
    mine = shop.root.parent / "mine"
    shop.git("worktree", "add", "-q", "-b", "mine", str(mine))
    trouble: list[str] = []
    over = threading.Event()

    def person() -> None:
        """Uses the same repository all the time, as people do, and commits in a worktree of their own."""
        number = 0
        while not over.is_set():
            number += 1
            for words in (
                ("config", "person.count", str(number)),
                ("branch", f"mine-{number}"),
                ("status", "--short"),
                ("-C", str(mine), "commit", "-q", "--allow-empty", "-m", str(number)),
            ):
                try:
                    shop.git(*words)
                except AssertionError as problem:
                    trouble.append(f"{words}: {problem}")

    agent = shop.tool("agent", 'git config user.name > $there/$name.who; echo x > "$name.txt"; git add "$name.txt"')
    at_work = threading.Thread(target=person)
    at_work.start()
    try:
        said = shop(
            "run", "--plain", "--agent", agent, "--max-parallel", str(CROWD),
            *shop.plain(*(f"o{n:02}" for n in range(CROWD))),
        )  # fmt: skip
    finally:
        over.set()
        at_work.join()
    assert said.code == 0, said
    assert f"{CROWD} orders: {CROWD} landed" in said.out
    assert "attempt 2" not in said.out
    assert trouble == []
    assert shop.git("log", "-1", "--format=%s", "mine") == shop.git("config", "person.count") != "0"
    assert shop.git("config", "core.bare") == "false"
    assert [p for p in (shop.root / ".git").rglob("*.lock") if "shopfloor" not in p.name] == []
    assert shop.git("fsck", "--no-dangling") == ""


def test_fifty_waiting_agents_cost_next_to_nothing(shop: Shop) -> None:
    """Pain 25: gigabytes and a third of a processor while nothing is done; two programs started for each session."""
    with agents_waiting(shop, 50, side_by_side=50) as run:
        before, after = watched(run, 3)
        assert after.process.memory_info().rss < RSS_BYTES
        assert after.family == before.family
        assert after.ended == before.ended, "it started a process"
        assert after.cpu_s - before.cpu_s < 0.3
    assert not psutil.pid_exists(before.process.pid)


def test_a_workspace_can_run_the_project(shop: Shop) -> None:
    """Pain 25: a fresh worktree has no dependencies and no settings, so nothing can be run in it."""
    shop.write(".gitignore", ".env\ndeps/\n.deps-cache/\n")
    shop.write(".env", "PORT=8080\n")
    shop.write("lock", "one\n")
    made = shop.root.parent / "made"
    setup = f"test -e deps/tool || {{ mkdir -p deps; echo x >> {made}; echo ok > deps/tool; }}"
    check = "grep -q ok deps/tool && grep -q 8080 .env"
    caches = '[{ path = "deps", key = "lock" }]'
    shop.write(".shopfloor.toml", f'setup = "{setup}"\ncopies = [".env"]\ncaches = {caches}\ncheck = "{check}"\n')
    shop.commit("settings")
    agent = shop.tool("agent", 'cat deps/tool .env > "$name.txt"')
    said = shop("run", "--plain", "--max-parallel", "1", "--agent", agent, *shop.plain("one", "two", "three"))
    assert said.code == 0, said
    assert shop.git("show", "main:three.txt") == "ok\nPORT=8080"
    assert ".env" not in shop.git("ls-tree", "-r", "--name-only", "main").split()
    assert len(made.read_text().split()) <= 3, "once for each workspace, not for each order"
    assert Path(shop.root / ".env").read_text() == "PORT=8080\n"
