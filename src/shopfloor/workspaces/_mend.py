"""After a crash: what power loss made of a slot's repository, put right as far as that is possible.

An agent's own git syncs neither the objects that it writes nor its branch. Its files are the work; they are kept on
top of the newest of its commits that is whole.
"""

from __future__ import annotations

import msgspec

from shopfloor.git import GitError
from shopfloor.workspaces._backend import Slot


def mend(slot: Slot, since_ns: int) -> None:
    """Make it possible to snapshot the slot. ``since_ns``: when it was handed out, in file system time."""
    # Its folder may be gone; nothing here looks at files.
    git = slot.main.at(slot.main.root, slot.git_dir)
    slot, branch = msgspec.structs.replace(slot, git=git), f"refs/heads/{slot.lease.branch}"
    git.objects.drop_damaged(since_ns)
    if slot.lease.branch:
        standing = git.read_ref(branch)
        if not _is_whole(slot, standing):
            whole = next((oid for oid in _logged(slot) if _is_whole(slot, oid)), slot.lease.base)
            # Git itself moves no ref that it cannot read.
            (git.common_dir / branch).unlink(missing_ok=True)
            for log in (git.common_dir / "logs" / branch, slot.git_dir / "logs" / "HEAD"):
                log.unlink(missing_ok=True)  # it names what is lost, and housekeeping stumbles over that
            git.update_ref(branch, whole, old=git.read_ref(branch))
    if not _is_whole(slot, git.read_ref("HEAD")):
        words = (
            ("symbolic-ref", "HEAD", branch)
            if slot.lease.branch
            else ("update-ref", "--no-deref", "HEAD", slot.lease.base)
        )
        git.call(*words)
    if not _index_is_whole(slot):
        (slot.git_dir / "index").unlink(missing_ok=True)
        git.call("read-tree", "HEAD")


def _is_whole(slot: Slot, oid: str) -> bool:
    """True when all that a commit has and the slot's base has not can be read."""
    words = ("rev-list", "--objects", "--verify-objects", "--quiet", oid, "--not", slot.lease.base)
    return bool(oid) and slot.git.call(*words, ok=(0, 1, 128)).code == 0


def _logged(slot: Slot) -> list[str]:
    """Where the slot's HEAD was, the newest first."""
    try:
        lines = (slot.git_dir / "logs" / "HEAD").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    words = [line.split(b" ", 2)[1].decode(errors="replace") for line in reversed(lines) if line.count(b" ") > 1]
    return [word for word in words if word.isalnum()]


def _index_is_whole(slot: Slot) -> bool:
    try:
        staged = {facts.split(" ")[1] for facts in slot.git.names("ls-files", "-z", "-s")}
    except GitError:
        return False
    found = slot.git.call("cat-file", "--batch-check", input="\n".join(staged).encode() + b"\n")
    return b" missing" not in found.stdout
