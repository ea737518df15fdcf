"""Orders worked on by a process of one's own: `claim`, `finish` and `release` as they are typed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .shop import COMMAND, Said, Shop, until


def by(shop: Shop, holder: subprocess.Popen[bytes], *words: str) -> Said:
    return shop(*words, "--holder", str(holder.pid))


@pytest.fixture
def ann() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def commit_on(shop: Shop, branch: str, file: str) -> None:
    """A commit of somebody's own, made without leaving ``main``."""
    tree = shop.git("rev-parse", "main^{tree}")
    blob = shop.git("hash-object", "-w", str(shop.write("made.tmp", f"{file}\n")))
    (shop.root / "made.tmp").unlink()
    listed = shop.git("ls-tree", tree)
    done = subprocess.run(
        ["git", "mktree"], cwd=shop.root, env=shop.env, input=f"{listed}\n100644 blob {blob}\t{file}\n",
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    commit = shop.git("commit-tree", done.stdout.strip(), "-p", "main", "-m", file)
    shop.git("branch", branch, commit)


def test_a_session_works_beside_a_run(shop: Shop, ann: subprocess.Popen[bytes]) -> None:
    shop.configure()
    with shop.start("run", shop.waits("first"), shop.waits("second"), "--max-parallel", "1", "--plain") as run:
        run.until("first", "started")
        said = by(shop, ann, "claim", "--limit", "5", "--as", "ann", "--json")
        [claimed] = said.json["orders"]
        assert (said.code, claimed["name"], claimed["generation"]) == (0, "second", 1)
        assert claimed["base"] == shop.git("rev-parse", "main")
        nothing = by(shop, ann, "claim")
        assert (nothing.code, nothing.err) == (1, "no order is ready\n")
        assert shop.state("second") == "running"
        commit_on(shop, "mine", "second.txt")
        said = shop("finish", "second", "--commit", "mine")
        assert said.code == 3
        assert "does not hold" in said.err
        said = by(shop, ann, "finish", "second", "--commit", "mine")
        assert (said.code, said.out) == (0, "'second' is handed in\n")
        run.until("second", "landed")
        assert shop("pause").out.startswith("nothing new is started")
        assert shop("resume").code == 0
        shop.gate.touch()
        assert run.end().code == 0
    assert {"first.txt", "second.txt"} <= set(shop.git("ls-tree", "--name-only", "main").splitlines())


def test_what_a_dead_process_held_is_worked_on_by_others(shop: Shop, ann: subprocess.Popen[bytes]) -> None:
    shop.configure()
    with shop.start("run", shop.waits("first"), shop.adds("second"), "--max-parallel", "1", "--plain") as run:
        run.until("first", "started")
        assert by(shop, ann, "claim").code == 0
        assert shop.state("second") == "running"
        ann.kill()
        until(lambda: shop.state("second") == "ready", "it is given back")
        shop.gate.touch()
        assert run.end().code == 0


def test_a_session_outlives_the_controller(shop: Shop, ann: subprocess.Popen[bytes]) -> None:
    shop.configure()
    with shop.start("run", shop.waits("first"), shop.adds("second"), "--max-parallel", "1", "--plain") as run:
        run.until("first", "started")
        assert by(shop, ann, "claim", "--as", "ann").code == 0
        run.signal(signal.SIGKILL)
        run.end()
    commit_on(shop, "mine", "second.txt")
    said = by(shop, ann, "finish", "second", "--commit", "mine")
    assert (said.code, said.out) == (0, "'second' is handed in; it is checked with: shopfloor run --resume\n")
    shop.gate.touch()
    assert shop("run", "--resume").code == 0
    assert {"first.txt", "second.txt"} <= set(shop.git("ls-tree", "--name-only", "main").splitlines())


def test_status_says_which_session_holds_an_order(shop: Shop, ann: subprocess.Popen[bytes]) -> None:
    shop.configure()

    def told() -> tuple[str, str]:
        """State and words of the second order: the quick answer, which is that of the full command."""
        quick, full = (
            next(line for line in shop(*words, "status").out.splitlines() if " second " in line)
            for words in ((), ("--no-color",))
        )
        assert quick.split(", ")[0::2] == full.split(", ")[0::2], "only the time between them may differ"
        state, _, words = quick.split(maxsplit=2)
        return state, words

    with shop.start("run", shop.waits("first"), shop.adds("second"), "--max-parallel", "1", "--plain") as run:
        run.until("first", "started")
        assert by(shop, ann, "claim", "--as", "ann").code == 0
        state, words = told()
        assert (state, words.split(", ")[0::2]) == ("running", ["attempt 1", f"held by ann (pid {ann.pid})"])
        assert f"held by ann (pid {ann.pid})" in shop("show", "second").out
        orders = {order["name"]: order["session"] for order in shop("status", "--json").json["orders"]}
        assert (orders["first"], orders["second"]["name"], orders["second"]["pid"]) == (None, "ann", ann.pid)
        assert "held by" not in next(row for row in shop("status").out.splitlines() if " first " in row)
        run.signal(signal.SIGKILL)
        run.end()
    state, words = told()
    assert (state, f"held by ann (pid {ann.pid})" in words) == ("running", True), "it outlives the controller"
    ann.kill()
    ann.wait()
    assert told() == ("interrupted", f"attempt 1 was held by ann (pid {ann.pid}), which has ended")


def test_a_bad_commit_does_not_land_by_being_handed_in(shop: Shop, ann: subprocess.Popen[bytes]) -> None:
    shop.configure()
    with shop.start("run", shop.waits("first"), shop.hangs("second"), "--max-parallel", "1", "--plain") as run:
        run.until("first", "started")
        assert by(shop, ann, "claim").code == 0
        commit_on(shop, "mine", "bad.txt")
        assert "changes nothing" in by(shop, ann, "finish", "second", "--commit", "main").err
        assert "hands back a change" in by(shop, ann, "finish", "second", "--answer", "done").err
        assert "no commit 'nowhere'" in by(shop, ann, "finish", "second", "--commit", "nowhere").err
        assert by(shop, ann, "finish", "second", "--commit", "mine").code == 0
        run.until("second", "goes back")
        assert "bad.txt" not in shop.git("ls-tree", "--name-only", "refs/shopfloor/target/main")
        run.signal(signal.SIGINT)
        run.end()


def test_orders_are_claimed_and_given_back_when_nothing_runs(shop: Shop, ann: subprocess.Popen[bytes]) -> None:
    shop.configure()
    with shop.start("run", shop.waits("first"), shop.adds("second"), "--max-parallel", "1", "--plain") as run:
        run.until("first", "started")
        assert shop("stop").code == 0
        run.end()
    assert len(by(shop, ann, "claim", "--limit", "9", "--json").json["orders"]) == 2
    lines = (shop.root / ".work/work_orders.jsonl").read_text().splitlines()
    assert {json.loads(line)["status"] for line in lines} == {"in_progress"}
    said = shop("release", "first")
    assert (said.code, "is held by" in said.err) == (4, True)
    assert by(shop, ann, "release", "first", "-m", "not for me").out == "1 order given back\n"
    assert by(shop, ann, "claim", "--order", "second").code == 1
    assert by(shop, ann, "claim", "--order", "first").code == 0
    assert by(shop, ann, "release", "--all").out == "2 orders given back\n"
    assert shop("release", "first").code == 3


def test_the_caller_holds_what_it_claims(shop: Shop) -> None:
    shop.configure()
    with shop.start("run", shop.waits("first"), "--plain") as run:
        run.until("first", "started")
        assert shop("stop").code == 0
        run.end()
    shell = " ".join(COMMAND)
    script = f"{shell} claim --as script >out && {shell} release first && {shell} claim >/dev/null; echo $? >code"
    subprocess.run(["sh", "-c", script], cwd=shop.root, env=shop.env, check=True, timeout=60)
    assert (shop.root / "out").read_text().startswith("first  wo-")
    assert (shop.root / "code").read_text() == "0\n"
    assert shop("claim").code == 0, "the script has ended, and what it held is free"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("claim", "--limit", "0"), "--limit"),
        (("release",), "name one ORDER, or say --all"),
        (("finish", "x", "--answer", "a", "--answer-file", "b"), "exclude each other"),
        (("claim", "--holder", "999999999"), "there is no process 999999999"),
    ],
)
def test_what_is_off_is_refused(shop: Shop, words: tuple[str, ...], said: str) -> None:
    found = shop(*words)
    assert found.code in (2, 3)
    assert said in found.err
