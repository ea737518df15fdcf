"""What breaks in practice, 11 to 16: stale starts, words that are not true, work that strands or lands falsely."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .crew import RUN, data_of
from .shop import Shop, agents_alive, until

ONCE = {"SHOPFLOOR_RETRIES": "0", "SHOPFLOOR_REWORK": "0"}


def marked(shop: Shop) -> list[str]:
    """Every file with a conflict marker, in the checkout and in everything that a ref leads to."""
    refs = shop.git("for-each-ref", "--format=%(objectname)").split()
    return [*shop.git("grep", "-l", "<<<<<<<", check=False).splitlines(),
            *shop.git("grep", "-l", "<<<<<<<", *refs, check=False).splitlines()]  # fmt: skip


@contextmanager
def somebodys_git(shop: Shop) -> Iterator[None]:
    """A git that is at work in the repository all the time, and so may be who holds a lock."""
    words = ["git", "cat-file", "--batch"]
    with subprocess.Popen(words, cwd=shop.root, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield
        process.kill()


def test_a_restarted_order_begins_from_what_has_landed_and_redoes_nothing(shop: Shop) -> None:
    """Pain 11: a restarted worker sits on its last task's branch, weeks behind main, and does finished work again."""
    agent = shop.tool(
        "agent",
        """seen=$there/$name.$SHOPFLOOR_GENERATION
        { git log --format=%s; ls; git status --short; } > $seen
        [ $name != slow ] || date > half.txt
        [ $name != slow ] || touch $there/half
        while [ $name = slow ] && [ ! -e $there/gate ]; do sleep 0.02; done
        date > "$name.txt" """,
    )
    slow, quick = shop.plain("slow", "quick")
    shop.write(".shopfloor.toml", f'no_check = true\n[agents.a]\ncommand = ["{agent}"]\n')
    shop.commit("settings")
    with shop.start("run", "--plain", slow, quick) as run:
        run.until("quick", "landed")
        until((shop.root.parent / "half").exists, "slow has done the half of it")
        run.process.kill()
        run.end()
    shop.gate.touch()
    again = shop("run", "--resume", "--json")
    assert again.code == 0, again
    seen = (shop.root.parent / "slow.2").read_text().splitlines()
    assert "quick.txt" in seen
    assert not [line for line in seen if "half" in line], "what its last attempt left is in its branch, not in its way"
    assert {row["name"]: row["attempts"] for row in again.json["orders"]} == {"slow": 2, "quick": 1}
    assert not (shop.root.parent / "quick.2").exists()
    shop.git("commit", "-q", "--allow-empty", "-m", "a person went on")
    assert shop("run", "--plain", *shop.plain("later")).code == 0
    assert (shop.root.parent / "later.1").read_text().startswith("a person went on\n")


def test_started_and_removed_are_said_only_of_what_is_true(shop: Shop) -> None:
    """Pain 12: "spawned" and "deleted" are printed although the worktree is broken, or still there."""
    (shop.root / ".git" / "info" / "exclude").write_text(".worktrees\n")
    (shop.root / ".worktrees").write_text("a file where the workspaces belong\n")
    said = shop(*RUN, "--agent", "scripted", shop.adds("one"), env=ONCE)
    assert said.code != 0, said
    assert "started (attempt" not in said.out
    assert ".worktrees" in said.out + said.err
    (shop.root / ".worktrees").unlink()
    assert shop("stop", "--cancel").code in (0, 4)
    assert shop(*RUN, "--agent", "scripted", shop.adds("two"), shop.adds("three")).code == 0
    slots = [path for path in (shop.root / ".worktrees").iterdir() if not path.name.startswith(".")]
    # Somebody went on in a workspace that was given back, and git refuses one of the names: it has to stay.
    worked = next(path for path in slots if path.name.startswith("slot"))
    (worked / "git~1").write_text("late\n")
    removed = shop("gc", "--yes", "--json").json["dropped"]
    gone = {Path(one["where"]) for one in removed if one["what"] == "workspace"}
    assert worked not in gone
    assert gone == {path for path in slots if not path.exists()} != set()
    assert (worked / "git~1").read_text() == "late\n"


def test_the_oldest_work_lands_first_and_nothing_is_left_behind(shop: Shop) -> None:
    """Pain 13: a queue serves the newest first; clean branches lie stranded for days while every light is green."""
    names = [f"o{n}" for n in range(9)]
    # Each waits until the one after it has been checked: the newest is ready first, the oldest last.
    agent = shop.tool(
        "agent",
        """n=${name#o}; while [ $n -lt 8 ] && [ ! -e $there/checked.o$((n+1)) ]; do sleep 0.02; done
        echo x > "$name.txt" """,
    )
    check = f"for f in o*.txt; do touch {shop.root.parent}/checked.${{f%.txt}}; done"
    said = shop(
        "run", "--plain", "--review", "--max-parallel", "9", "--agent", agent, "--check", check, *shop.plain(*names)
    )
    assert said.code == 0, said
    by_id = {order["id"]: order["name"] for order in shop("status", "--json").json["orders"]}
    assert [by_id[str(v["work_order_id"])] for v in data_of(shop, "verify.verdict")] == names[::-1]
    assert shop("land").code == 0
    assert [by_id[str(landed["work_order_id"])] for landed in data_of(shop, "landing.landed")] == names
    assert shop("status", "--json").json["counts"] == {"landed": 9}


def test_what_could_not_be_moved_is_not_called_landed_and_nothing_is_deleted(shop: Shop) -> None:
    """Pain 14: the checkout fails, the push does nothing, and a stale commit is recorded as merged, its branch gone."""
    shop.configure()
    lock = shop.root / ".git" / "refs" / "shopfloor" / "target" / "main.lock"
    with somebodys_git(shop), shop.start("run", "--plain", shop.waits("one")) as run:
        until(lambda: bool(agents_alive(shop)), "the agent is at work")
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        shop.gate.touch()
        said = run.end()
    assert said.code == 1, said
    assert "main.lock" in said.out
    assert data_of(shop, "landing.landed") == []
    assert shop("status", "--json").json["counts"].get("landed", 0) == 0
    branch = shop("status", "--json").json["orders"][0]["branch"]
    assert shop.git("show", f"{branch}:one.txt") == ""
    assert shop("run", "--resume").code == 0, "nobody holds the lock any more"
    (landed,) = data_of(shop, "landing.landed")
    assert shop.git("rev-parse", "refs/shopfloor/target/main") == landed["observed"] == landed["commit"]


def test_a_checkout_that_cannot_be_updated_is_left_alone_and_told(shop: Shop) -> None:
    """Pain 14: where a checkout cannot be updated, a merge is claimed all the same."""
    shop.configure()
    shop.write("README", "a person is at work here\n")
    said = shop("run", shop.prompt("one", 'append = "README"\ncontent = "more\\n"'))
    assert said.code == 0, said
    assert "main was left alone" in said.out
    assert "git merge --ff-only refs/shopfloor/target/main" in said.out
    assert (shop.root / "README").read_text() == "a person is at work here\n"
    (landed,) = data_of(shop, "landing.landed")
    assert shop.git("rev-parse", "refs/shopfloor/target/main") == landed["observed"]
    assert shop.git("rev-parse", "main") != landed["observed"]


def test_a_conflict_leaves_no_marker_anywhere_and_names_its_file(shop: Shop) -> None:
    """Pain 15: merging stops with conflict markers in the tree, and nobody is told."""
    shop.configure()
    prompts = [shop.prompt(name, f'write = "README"\ncontent = "{name} was here\\n"') for name in ("one", "two")]
    said = shop("run", "--plain", "--max-parallel", "2", *prompts, env=ONCE)
    assert said.code == 1, said
    assert "1 landed, 1 failed" in said.out
    assert "conflict with what has landed since: README" in said.out
    assert marked(shop) == []
    assert shop.git("status", "--porcelain") == ""
    assert not (shop.root / ".git" / "MERGE_HEAD").exists()
    failed = next(order for order in shop("status", "--json").json["orders"] if order["state"] == "failed")
    assert "was here" in shop.git("show", f"{failed['branch']}:README")


def test_an_agent_that_did_nothing_is_no_success(shop: Shop) -> None:
    """Pain 16: a worker that did nothing at all in two seconds, and said that all is done, is recorded as success."""
    agent = shop.tool("agent", "cat > /dev/null; echo 'Done! Everything is implemented, all tests pass.'")
    said = shop("run", "--plain", "--check", "true", "--agent", agent, *shop.plain("lazy"))
    assert said.code == 1, said
    assert "1 order: 1 failed" in said.out
    assert "the agent ended well but changed nothing" in said.out
    assert shop("status", "--json").json["orders"][0]["attempts"] == 1
    assert shop.git("rev-list", "--count", "main") == "1"
