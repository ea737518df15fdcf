"""What breaks in practice, 1 to 5: work that was done and is gone."""

import json
import signal
from contextlib import suppress
from pathlib import Path

import psutil

from .crew import RUN
from .shop import Shop, agents_alive, until


def branches(shop: Shop) -> dict[str, str]:
    """The branch of each order's newest attempt, by name."""
    return {order["name"]: order["branch"] for order in shop("status", "--json").json["orders"]}


def test_thirteen_agents_at_once_lose_no_uncommitted_work(shop: Shop) -> None:
    """Pain 1: thirteen agents in worktrees collide on git's locks, leave uncommitted work, and tidying deletes it."""
    names = [f"agent{n:02}" for n in range(13)]
    agent = shop.tool(
        "agent",
        """mkdir -p $there/here; touch $there/here/$name
        while [ $(ls $there/here | wc -l) -lt 13 ]; do sleep 0.02; done
        echo "new of $name" > "$name.txt"
        echo "staged of $name" > "$name.staged"; git add "$name.staged"
        mkdir -p deep/er; echo "changed by $name" >> deep/er/$name.md
        case $name in *[02468]) exit 0;; esac; exit 1""",
    )
    said = shop(*RUN, "--max-parallel", "13", "--agent", agent, *shop.plain(*names), env={"SHOPFLOOR_RETRIES": "0"})
    assert said.code == 1, said
    assert "13 orders: 7 landed, 6 failed" in said.out
    assert "at most 13 of 13 agents at once" in said.out
    kept = branches(shop)
    assert shop("gc", "--yes").code == 0
    shop.git("gc", "-q", "--prune=now")
    for name in names:
        where = "main" if name[-1] in "02468" else kept[name]
        for file, word in ((f"{name}.txt", "new of"), (f"{name}.staged", "staged of"), (f"deep/er/{name}.md", "by")):
            assert f"{word} {name}" in shop.git("show", f"{where}:{file}")


def test_a_name_used_again_within_a_minute_deletes_nothing(shop: Shop) -> None:
    """Pain 2: a name is used again at once; tidying up after the first deletes the second, or commits strangers."""
    for number in range(198):
        shop.write(f"unrelated/{number}.txt", "mine, and not committed\n")
    first = shop.tool("agent", "echo first > first.txt; exit 1")
    said = shop(*RUN, "--agent", first, *shop.plain("fix"), env={"SHOPFLOOR_RETRIES": "0"})
    assert said.code == 1, said
    kept = branches(shop)["fix"]
    shop.tool("agent", "while [ ! -e $there/gate ]; do sleep 0.02; done; echo second > second.txt")
    with shop.start(*RUN, "--agent", first, *shop.plain("fix")) as run:
        until(lambda: bool(agents_alive(shop)), "the second one of this name is at work")
        assert shop("gc", "--yes").code == 5
        shop.gate.touch()
        assert run.end().code == 0
    assert shop("gc", "--yes").code == 0
    assert shop.git("show", f"{kept}:first.txt") == "first"
    assert shop.git("diff", "--name-only", "HEAD~1", "HEAD") == "second.txt"
    assert len(list((shop.root / "unrelated").iterdir())) == 198


def test_clearing_up_leaves_every_object_and_no_worktree(shop: Shop) -> None:
    """Pain 3: removing a workspace with its branch empties the object store; or worktrees are never removed."""
    agent = shop.tool("agent", 'echo x > "$name.txt"; case $name in b*) exit 1;; esac')
    names = [f"{kind}{n}" for kind in "ab" for n in range(4)]
    said = shop(*RUN, "--agent", agent, *shop.plain(*names), env={"SHOPFLOOR_RETRIES": "0"})
    assert said.code == 1, said
    kept = {name: branch for name, branch in branches(shop).items() if name.startswith("b")}
    assert len(kept) == 4
    said = shop("gc", "--yes", "--json")
    for dropped in said.json["dropped"]:
        assert dropped["what"] != "workspace" or not Path(dropped["where"]).exists()
    assert len(shop.git("worktree", "list").splitlines()) == 1
    assert list((shop.root / ".worktrees").glob("[!.]*")) == []
    shop.git("gc", "-q", "--prune=now")
    assert shop.git("fsck", "--full", "--strict", "--no-dangling") == ""
    assert shop.git("rev-parse", "--verify", "HEAD")
    for name, branch in kept.items():
        assert shop.git("show", f"{branch}:{name}.txt") == "x"
    assert "nothing to remove" in shop("gc", "--yes").out


def test_a_list_written_back_from_a_stale_copy_drops_nobodys_record(shop: Shop) -> None:
    """Pain 4: a program rewrites the shared list from what it read long ago, and drops everybody else's records."""
    shop.configure()
    shared = shop.root / ".work" / "work_orders.jsonl"
    assert shop("run", shop.adds("one"), shop.adds("two")).code == 0
    stale = shared.read_bytes()
    with shop.start("run", "--plain", shop.waits("three"), shop.adds("four")) as run:
        run.until("four", "landed")
        shared.write_bytes(stale)
        shop.gate.touch()
        assert run.end().code == 0
    shared.write_bytes(stale)
    assert shop("run", shop.adds("five")).code == 0
    listed = {row["title"]: row["status"] for row in map(json.loads, shared.read_text().splitlines())}
    assert listed == {f"Do {name}": "closed" for name in ("one", "two", "three", "four", "five")}


def test_after_a_reboot_nothing_is_said_to_run_and_the_work_goes_on(shop: Shop) -> None:
    """Pain 5: after a restart of the machine the terminal server is gone, records say Running, nothing can go on."""
    shop.configure()
    deeds = ('write = "half.txt"', f'run = "while [ ! -e {shop.gate} ]; do sleep 0.02; done"', 'write = "slow.txt"')
    with shop.start("run", "--plain", shop.adds("quick"), shop.prompt("slow", *deeds)) as run:
        run.until("quick", "landed")
        until(lambda: any(shop.root.glob(".worktrees/*/half.txt")), "slow has done the half of it")
        everything = psutil.Process(run.process.pid).children(recursive=True)
        for process in (psutil.Process(run.process.pid), *everything):
            with suppress(psutil.NoSuchProcess):  # the death of one ends others
                process.send_signal(signal.SIGKILL)  # all at once, as a power failure does
        assert run.end().code == 137
    status = shop("status")
    assert "no controller is alive" in status.out
    assert shop.state("slow") == "interrupted"
    assert "running" not in shop("status", "--json").json["counts"]
    shop.gate.touch()
    again = shop("run", "--resume", "--json")
    assert again.code == 0, again
    assert again.json["counts"]["landed"] == 2
    notes = [note for row in again.json["orders"] for note in row["notes"]]
    (kept,) = [note for note in notes if "what it had done is kept on" in note]
    ref = kept.partition("(")[2].partition(")")[0]
    assert shop.git("ls-tree", "--name-only", ref, "half.txt") == "half.txt"
