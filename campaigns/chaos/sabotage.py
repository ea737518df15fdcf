"""Harm to files and refs: git that dies half-way, damaged tails, targets and branches moved by somebody else."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random
from typing import Protocol

from campaigns.chaos.dying_git import When, dying_git, struck
from campaigns.chaos.scene import Scene

TARGET = "refs/shopfloor/target/main"
TRIES = 20


class Act(Protocol):
    """What is needed to know of a fault on its way."""

    @property
    def scene(self) -> Scene: ...
    @property
    def random(self) -> Random: ...
    def over(self) -> bool: ...


# -- git that dies ------------------------------------------------------------------------------------------------

_VERBS = {
    "update-ref": 14, "read-tree": 3, "worktree": 5, "commit-tree": 8, "checkout": 14, "merge-tree": 3, "status": 12,
    "update-index": 5, "write-tree": 5, "rev-parse": 60, "for-each-ref": 5, "merge-base": 8, "ls-files": 25,
}  # fmt: skip
"""git's commands that a run gives, and how often it is sure to give each."""


def wrap_git(scene: Scene, random: Random) -> None:
    """Put a git first on the PATH that dies in one of its calls."""
    verb = random.choice([*_VERBS, "update-ref", "update-ref", "checkout", "read-tree"])
    moments: tuple[When, ...] = ("before", "after", "during")
    if verb in ("update-ref", "checkout"):
        moments += ("locked", "locked")
    first = dying_git(
        scene.folder / "git", verb=verb, when=random.choice(moments), nth=random.randint(1, _VERBS[verb]),
        delay_s=random.choice((0.0, 0.001, 0.002, 0.004)),
    )  # fmt: skip
    scene.env["PATH"] = f"{first}:{scene.env['PATH']}"


def unwrap_git(scene: Scene, _random: Random) -> None:
    """The machine's git again."""
    scene.env["PATH"] = scene.env["PATH"].removeprefix(f"{scene.folder / 'git' / 'bin'}:")


def git_died(scene: Scene) -> bool:
    """Whether it has died by now."""
    return struck(scene.folder / "git")


# -- the log's tail -----------------------------------------------------------------------------------------------


def _last_line(log: Path) -> bytes:
    lines = log.read_bytes().splitlines()
    return lines[-1] if lines else b'{"event_id":"evt-x"}'


def torn(scene: Scene, random: Random) -> bytes:
    """The beginning of a line like the last one."""
    line = _last_line(scene.log)
    return line[: random.randrange(1, max(2, len(line)))]


def garbage(_scene: Scene, random: Random) -> bytes:
    """Bytes that nobody meant."""
    return random.randbytes(random.randrange(1, 3000))


def zeros(_scene: Scene, random: Random) -> bytes:
    """What some file systems leave of the last block after a power cut."""
    return b"\0" * random.choice((1, 512, 4096, 65536))


def half_a_group(scene: Scene, random: Random) -> bytes:
    """Whole lines of a change of ours that has more of them, perhaps with a torn one behind."""
    known = [json.loads(line) for line in scene.log.read_bytes().splitlines() if line.startswith(b"{")]
    stamps = [event["sf"] for event in known if event.get("sf")]
    controller, sequence = max(s[0] for s in stamps), max(s[1] for s in stamps) + 1
    of_orders = [event for event in known if event["data"].get("work_order_id")] or known
    size, lines = random.randint(2, 4), b""
    for place in range(random.randint(1, size - 1)):
        event = {**random.choice(of_orders), "event_id": f"evt-half{place}{random.randrange(10**6):06}"}
        event |= {"event_type": "work_order.settled", "sf": [controller, sequence, place, size]}
        event["data"] = {**event["data"], "outcome": "done", "reason": None, "message": "half"}
        lines += json.dumps(event).encode() + b"\n"
    return lines + (torn(scene, random) if random.random() < 0.3 else b"")


# -- refs that somebody moves -------------------------------------------------------------------------------------


def _commit_on(scene: Scene, parent: str, name: str) -> str:
    """A commit with one more file, as objects only."""
    index = {**scene.env, "GIT_INDEX_FILE": str(scene.folder / "stranger.index")}
    view = Scene(scene.folder)
    view.repo, view.env = scene.repo, index
    view.git("read-tree", parent)
    blob = view.git("hash-object", "-w", "--", str(scene.repo / "README"))
    view.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")
    return view.git("commit-tree", view.git("write-tree"), "-p", parent, "-m", f"add {name}")


def _target(act: Act) -> str:
    """Where the target stands, once it exists; empty when the run ended before."""
    while not act.over():
        tip = act.scene.git("for-each-ref", "--format=%(objectname)", TARGET)
        if tip:
            return tip
        time.sleep(0.005)
    return ""


def _move(act: Act, name: str) -> bool:
    for _ in range(TRIES):
        tip = _target(act)
        if not tip:
            return False
        new = _commit_on(act.scene, tip, name)
        act.scene.strangers.append(new)
        if _ref(act.scene, "update-ref", TARGET, new, tip):
            return not act.over()
    return False


def _ref(scene: Scene, *words: str) -> bool:
    before = scene.git("for-each-ref", "--format=%(objectname)", TARGET)
    scene.git(*words, check=False)
    return scene.git("for-each-ref", "--format=%(objectname)", TARGET) != before


def target_forward(act: Act) -> bool:
    """Somebody puts a green commit on the target."""
    return _move(act, "stranger.txt")


def target_red(act: Act) -> bool:
    """Somebody puts a commit on the target that fails the check."""
    return _move(act, "bad.txt")


def target_back(act: Act) -> bool:
    """Somebody sets the target back to where the run began."""
    start = act.scene.base
    while (tip := _target(act)) == start:
        time.sleep(0.005)
    if not tip:
        return False
    act.scene.set_back = True
    return _ref(act.scene, "update-ref", TARGET, start) and not act.over()


def target_deleted(act: Act) -> bool:
    """Somebody deletes the target."""
    act.scene.set_back = True
    return bool(_target(act)) and _ref(act.scene, "update-ref", "-d", TARGET) and not act.over()


def user_commits(act: Act) -> bool:
    """The user commits in their checkout."""
    (act.scene.repo / "theirs.txt").write_text("theirs\n")
    for _ in range(TRIES):
        before = act.scene.git("rev-parse", "HEAD")
        act.scene.git("add", "theirs.txt", check=False)
        act.scene.git("commit", "-q", "-m", "theirs", "--", "theirs.txt", check=False)
        head = act.scene.git("rev-parse", "HEAD")
        if act.scene.git("log", "-1", "--format=%s", head) == "theirs" and head != before:
            act.scene.strangers.append(head)
            return not act.over()
        time.sleep(0.01)
    return False


def user_edits(act: Act) -> bool:
    """The user changes a tracked file and does not commit."""
    act.scene.edited = "edited by its user\n"
    (act.scene.repo / "README").write_text(act.scene.edited)
    return not act.over()


def branch_deleted(act: Act) -> bool:
    """The user detaches and deletes the branch."""
    for _ in range(TRIES):
        # Git looks where HEAD stands before it locks the index: when the branch moves in between, HEAD stays one step
        # behind, as it does with any two commands of git at one moment. The second one takes it along.
        for _ in range(2):
            act.scene.git("checkout", "-q", "--detach", "main", check=False)
        act.scene.git("branch", "-q", "-D", "main", check=False)
        if not act.scene.git("for-each-ref", "refs/heads/main"):
            return not act.over()
        time.sleep(0.01)
    return False
