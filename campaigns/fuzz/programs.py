"""What other programs of ours and git print: git's machine output, requests to the guard, journals of cut-off moves."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from campaigns.fuzz.mutate import Mutator
from campaigns.fuzz.target import READ, REFUSED, Target, chance, harmless, holds
from shopfloor import guard
from shopfloor.domain.names import branch_name, printable, slug
from shopfloor.domain.paths import overlap, plain_path
from shopfloor.git import output, shown, split, with_trailers
from shopfloor.landers._repair import Journal

A, B = "a" * 40, "0123456789abcdef" * 4
_REF = re.compile(r"shopfloor/[a-z0-9]+(?:-[a-z0-9]+)*")


def _paths(m: Mutator) -> list[str]:
    """Names that a file may have: any bytes but NUL, as git has decoded them."""
    count = m.random.randint(0, 5)
    words = [m.random.choice((m.word(), f"src/{m.word()}", "a", "-x", " b\n", '"q"')) for _ in range(count)]
    raw = [word.replace("\0", "").encode("utf-8", "surrogatepass") for word in words]
    raw += [m.random.randbytes(4).replace(b"\0", b"")] if m.random.random() < 0.3 else []
    return [os.fsdecode(path) for path in dict.fromkeys(raw) if path]


def _bytes(words: list[str], end: str = "\0") -> bytes:
    return b"".join(os.fsencode(word + end) for word in words)


def _status(m: Mutator) -> bytes:
    words = [f"# branch.oid {A}", "# branch.head main"]
    for path in _paths(m):
        plain = f"{m.random.choice(('M.', '.M', '.A', 'D.'))} N... 100644 100644 100644 {A} {A} {path}"
        unmerged = f"UU N... 100644 100644 100644 100644 {A} {A} {A} {path}"
        words.append(m.random.choice((f"1 {plain}", f"u {unmerged}", f"? {path}", f"! {path}")))
    return _damaged(m, _bytes(words))


def _damaged(m: Mutator, good: bytes) -> bytes:
    """Sound, marked by a first byte of 1, or damaged, marked by 0."""
    return b"\1" + good if m.random.random() < 0.4 else b"\0" + m.data(good, (good,))


def _status_of(raw: bytes) -> list[str]:
    entries = list(output.status(split(raw)))
    for entry in entries:
        holds(entry.kind in ("1", "u", "?", "!", "#") and entry.path, "an entry of no kind", entry)
        holds(len(entry.letters) == (2 if entry.kind in ("1", "u") else 0), "letters", entry)
    return [entry.path for entry in entries]


def _reader(read: Callable[[bytes], list[str]]) -> Callable[[bytes], str]:
    """A check: sound output is read, damaged output is read or refused with an error that can be shown."""

    def check(data: bytes) -> str:
        try:
            paths = read(data[1:])
        except output.Unreadable as error:
            holds(data[:1] != b"\1", "sound output was refused", error.message)
            printable(error.message).encode()
            return REFUSED
        for path in paths:
            holds("\0" not in path and os.fsencode(path) in data, "a path that is not in the output", path)
            shown(path).encode()
        return READ

    return check


def _refs(m: Mutator) -> bytes:
    names = [path.replace("\n", "") for path in _paths(m)]
    return _damaged(m, _bytes([f"{A} refs/heads/{name}" for name in names], "\n"))


def _worktrees(m: Mutator) -> bytes:
    blocks = [f"worktree /repo\0HEAD {A}\0branch refs/heads/main\0"]
    for path in _paths(m):
        lock = m.random.choice(("", "locked shopfloor\0", "locked\0", "prunable gitdir file\0"))
        head = m.random.choice(("detached", f"branch refs/heads/{path}"))
        blocks.append(f"worktree /repo/{path}\0HEAD {A}\0{head}\0{lock}")
    return _damaged(m, _bytes(blocks))


def _worktrees_of(raw: bytes) -> list[str]:
    found = output.worktrees(raw)
    for tree in found:
        holds(not tree.branch or tree.branch.startswith("refs/"), "a branch that is no ref", tree)
    return [tree.branch for tree in found]


def _merge(m: Mutator) -> bytes:
    paths = _paths(m)
    said = [word for path in paths for word in ("1", path, "CONFLICT (contents)", f"CONFLICT in {path}\n")]
    return _damaged(m, _bytes([B, *paths]) + b"\0" + _bytes(said))


def _merge_of(raw: bytes) -> list[str]:
    clean = output.merge(raw, clean=True)
    holds(output.is_hash(clean.tree) and not clean.conflicts, "a tree that is none", clean)
    found = output.merge(raw, clean=False)
    holds(not found.tree, "a conflict with a tree", found)
    return list(found.conflicts)


def _differences(m: Mutator) -> bytes:
    return _damaged(m, _bytes([word for path in _paths(m) for word in (f":100644 000000 {A} {A} D", path)]))


def _differences_of(raw: bytes) -> list[str]:
    return [found.path for found in output.differences(raw)]


def _request(m: Mutator) -> bytes:
    words = [m.word().encode("utf-8", "surrogatepass") for _ in range(m.random.randint(1, 5))]
    env = {f"V{number}".encode(): word for number, word in enumerate(words)}
    try:
        return _damaged(m, guard.encode_request(b"/tmp", words, env)[8:])
    except ValueError:
        return b"\0" + b"\0".join(words)


def _check_request(data: bytes) -> str:
    """A request reads as it was written, or cannot be read; one with a NUL in a word cannot be written."""
    body = data[1:]
    try:
        cwd, argv, env = guard.decode_request(body)
    except ValueError:
        holds(data[:1] != b"\1", "a sound request was refused")
        return REFUSED
    holds(argv, "a request for no program")
    again = guard.encode_request(cwd, argv, env)
    holds(guard.decode_request(again[8:]) == (cwd, argv, env), "a request reads as another", cwd, argv, env)
    holds(int.from_bytes(again[:8], "big") == len(again) - 8, "a length that is wrong")
    if data[:1] == b"\1":
        holds(again[8:] == body, "a sound request reads as another")
    return READ


def _journal(m: Mutator) -> bytes:
    good = Journal(ref="refs/heads/main", old=A, new=B).encode()
    if m.random.random() < 0.3:
        return m.random.choice((b"DIRC\0\0\0\2", b"")) + m.data(good)
    return m.json({"shopfloor": "mirror", "ref": "refs/heads/main", "old": A, "new": B})


def _check_journal(data: bytes) -> str:
    """What is not a journal of ours is none; what is names a branch and two commits, whatever it says."""
    found = Journal.decode(data)
    if found is None:
        return REFUSED
    holds(output.is_hash(found.old) and output.is_hash(found.new), "no commits", found)
    holds(found.ref.startswith("refs/heads/"), "no branch", found)
    holds(Journal.decode(found.encode()) == found, "it reads as another", found)
    return READ


def _name(m: Mutator) -> bytes:
    return m.data(m.word().encode("utf-8", "surrogatepass") * m.random.choice((1, 1, 1, 40)), (b"wo-a1b2", b"wo-a.1"))


def _check_name(data: bytes) -> str:
    """Whatever a name is made of, what is made of it fits a ref, a file name, a commit and a terminal."""
    text = data.decode("utf-8", "replace")
    holds(re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", slug(text)) and len(slug(text)) <= 40, "no slug", slug(text))
    other = text[chance(data).randint(0, len(text)) :]
    branch = branch_name(text, other, 2)
    holds(_REF.fullmatch(branch), "no branch of ours", branch)
    harmless(printable(text, 100).replace("\n", " ").replace("\t", " "), "not printable")
    message = with_trailers(text, {"Shopfloor-Order": other})
    holds(message.endswith("\n") and "\0" not in message, "no message", message)
    last = message.rstrip("\n").rpartition("\n")[2]
    holds(last.startswith("Shopfloor-Order:"), "a trailer of several lines", message)
    plain = plain_path(text)
    holds(plain_path(plain) == plain and (not text or overlap(text, plain)), "a path that is not itself", text, plain)
    return READ


TARGETS = (
    Target("git-status", _status, _reader(_status_of), 6),
    Target("git-refs", _refs, _reader(lambda raw: list(output.refs(raw))), 4),
    Target("git-worktrees", _worktrees, _reader(_worktrees_of), 4),
    Target("git-merge", _merge, _reader(_merge_of), 4),
    Target("git-differences", _differences, _reader(_differences_of), 4),
    Target("guard-request", _request, _check_request, 5),
    Target("journal", _journal, _check_journal, 5),
    Target("names", _name, _check_name, 6),
)
