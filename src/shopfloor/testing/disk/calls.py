"""Running a program under ``strace``, and reading off what it did to one folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec

from shopfloor import spawn
from shopfloor.testing.disk.image import Cut, Names, Node, Recording, Said, Step, Sync, Write, apply

SYSCALLS = (
    *("open", "openat", "creat", "close", "dup", "dup2", "dup3", "lseek", "chdir", "fchdir"),
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range"),
    *("ftruncate", "truncate", "fallocate", "fsync", "fdatasync", "sync", "syncfs"),
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "symlink", "symlinkat"),
    *("mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat", "fork", "vfork", "clone", "clone3"),
)
"""Calls that are looked at."""

_WHOLE = re.compile(r"(\d+)\s+(\w+)\((.*)\)\s+= (\S+)(.*)")
_BEGUN = re.compile(r"(\d+)\s+(\w+)\((.*) <unfinished \.\.\.>")
_ENDED = re.compile(r"(\d+)\s+<\.\.\. (\w+) resumed>(.*)\)\s+= (\S+)(.*)")
_STRING = re.compile(r'"((?:[^"\\]+|\\.)*)"')
_DESCRIPTOR = re.compile(r"(AT_FDCWD|\d+)(?:<([^>]*)>)?(\(deleted\))?")
_STARTS = {"fork", "vfork", "clone", "clone3"}
_SYNCS = {"fsync", "fdatasync", "sync", "syncfs"}
_LONGEST = 1 << 26
# Memory that processes share; SQLite makes it anew when nobody has it open.
_NOT_COMPARED = "-shm"


class Unsupported(Exception):
    """The trace cannot be followed: ``strace`` may not trace here, or the program did what this disk does not know."""


class Call(NamedTuple):
    """One system call that succeeded; it was entered and left at these lines of the trace."""

    begin: int
    end: int
    thread: int
    name: str
    words: str
    result: int
    path: str
    """of the descriptor that it gave"""


def record(
    argv: Sequence[str], folder: Path, *, cwd: Path, env: Mapping[str, str], timeout_s: float = 60.0
) -> Recording:
    """Run a program to its end and follow what it does below ``folder``, which is there already.

    What is in the folder at the start counts as synced. Raises Unsupported, SpawnError and CommandTimeout; an
    AssertionError with its last words when the program fails.
    """
    before = Trace(folder.resolve())
    with TemporaryDirectory() as scratch:
        trace = Path(scratch, "trace")
        known = ",".join(f"?{name}" for name in SYSCALLS)
        tracer = ["strace", "-f", "-qqq", "--seccomp-bpf", "-y", "-s", str(_LONGEST), "-o", str(trace), "-e"]
        done = spawn.run([*tracer, f"trace={known}", "--", *argv], cwd=cwd, env=env, timeout_s=timeout_s)
        if not trace.exists() or not trace.stat().st_size:
            raise Unsupported(f"strace cannot trace here: {done.stderr.decode(errors='replace').strip()}")
        assert done.code == 0, done.stderr.decode(errors="replace")[-4000:]
        before.follow(cwd.resolve(), trace.read_text("ascii").splitlines())
    before.compare()
    return before.recording


def _calls(lines: Sequence[str]) -> Iterator[Call]:
    begun: dict[str, tuple[int, str]] = {}
    for place, line in enumerate(lines):
        if found := _WHOLE.fullmatch(line):
            thread, name, words, result, more = found.groups()
            begin = place
        elif found := _BEGUN.fullmatch(line):
            thread, name, words = found.groups()
            begun[thread] = (place, words)
            continue
        elif found := _ENDED.fullmatch(line):
            thread, name, words, result, more = found.groups()
            begin, first = begun.pop(thread, (place, ""))
            words = first + words
        else:
            continue
        number, _, _ = result.partition("<")
        if number.isdigit():
            path = _DESCRIPTOR.match(result + more)
            yield Call(begin, place, int(thread), name, words, int(number), _text((path and path[2]) or ""))


def _bytes(quoted: str) -> bytes:
    if len(quoted) >= _LONGEST:
        raise Unsupported(f"{len(quoted)} characters in one call")
    return quoted.encode("ascii").decode("unicode_escape").encode("latin-1")


def _text(quoted: str) -> str:
    return os.fsdecode(_bytes(quoted))


class _Open(msgspec.Struct):
    """A file as a program has it open."""

    node: int
    append: bool
    position: int = 0


class _Process(msgspec.Struct):
    """What threads of one process share, and children inherit."""

    cwd: str
    open: dict[int, _Open] = msgspec.field(default_factory=dict)


class Trace:
    """A folder as it is when this is made, and every step that a trace tells of."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._content: dict[int, bytearray] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._processes: dict[int, _Process] = {}
        self._stdout = ""
        self.recording = Recording(root=0, nodes=[], steps=[])
        self._load(folder)

    def _node(self, kind: str, *, mode: int = 0o600, content: bytes = b"") -> int:
        self.recording.nodes.append(Node(kind, mode=mode, content=content))
        number = len(self.recording.nodes) - 1
        if kind == "folder":
            self._names[number] = {}
        else:
            self._content[number] = bytearray(content)
        return number

    def _load(self, folder: Path) -> int:
        number = self._node("folder", mode=stat.S_IMODE(folder.stat().st_mode))
        seen: dict[int, int] = {}
        for path in sorted(folder.iterdir()):
            there = path.lstat()
            mode = stat.S_IMODE(there.st_mode)
            if path.is_symlink():
                node = self._node("link", content=os.fsencode(path.readlink()))
            elif path.is_dir():
                node = self._load(path)
            elif stat.S_ISREG(there.st_mode):
                node = seen.get(there.st_ino, -1)
                if node < 0:
                    node = seen[there.st_ino] = self._node("file", mode=mode, content=path.read_bytes())
            else:
                continue
            self._names[number][path.name] = node
        self.recording.nodes[number].names.update(self._names[number])
        return number

    def compare(self) -> None:
        """Raises Unsupported when the steps do not lead to the folder as it is now: then the trace misses something."""
        now = Trace(Path(self._folder)).recording.files(0)
        then = self.recording.files(len(self.recording.steps))
        wrong = [name for name in now.keys() | then.keys() if now.get(name) != then.get(name)]
        wrong = [name for name in wrong if not name.endswith(_NOT_COMPARED)]
        if wrong:
            raise Unsupported(f"what was traced does not explain {sorted(wrong)[:5]} in {self._folder!r}")

    # -- following --------------------------------------------------------------------------------------------------

    def follow(self, cwd: Path, lines: Sequence[str]) -> None:
        """Take in what ``strace`` wrote. A sync holds for what was done before it began."""
        calls = list(_calls(lines))
        moments = sorted(
            ((call.begin, place) for place, call in enumerate(calls) if call.name in _STARTS | _SYNCS), reverse=True
        )
        own = (c.words for c in calls if c.thread == calls[0].thread and c.name == "write" and c.words.startswith("1<"))
        self._stdout = self._descriptor(next(own, ""))[1]
        upto: dict[int, int] = {}
        for place, call in enumerate(calls):
            while moments and moments[-1][0] <= call.end:
                _, which = moments.pop()
                begun = calls[which]
                if begun.name in _STARTS:
                    self._start(self._process(begun.thread, cwd), begun)
                upto[which] = len(self.recording.steps)
            self._do(self._process(call.thread, cwd), call, upto.get(place, 0))

    def _process(self, thread: int, cwd: Path) -> _Process:
        return self._processes.setdefault(thread, _Process(str(cwd)))

    def _start(self, parent: _Process, call: Call) -> None:
        shares_files, shares_cwd = "CLONE_FILES" in call.words, "CLONE_FS" in call.words
        if shares_files != shares_cwd:
            raise Unsupported(f"a process that shares half of its parent: {call.words}")
        self._processes[call.result] = parent if shares_files else _Process(parent.cwd, dict(parent.open))

    def _do(self, process: _Process, call: Call, upto: int) -> None:
        name = call.name
        strings = [_text(found) for found in _STRING.findall(call.words)] if "write" not in name else []
        if name in {"write", "pwrite64", "writev", "pwritev", "pwritev2"}:
            self._write(process, call)
        elif name in {"open", "openat", "creat"}:
            self._open(process, call)
        elif name in _SYNCS:
            self._sync(process, call, upto)
        elif name in {"chdir", "fchdir"}:
            process.cwd = self._path(process, "", strings[0]) if strings else self._descriptor(call.words)[1]
        elif name in {"dup", "dup2", "dup3"}:
            old, _ = self._descriptor(call.words)
            if old in process.open:
                process.open[call.result] = process.open[old]
        elif name == "lseek":
            self._seek(process, call)
        elif name in {"sendfile", "copy_file_range"}:
            self._copy(process, call)
        elif name in {"ftruncate", "truncate", "fallocate"}:
            self._cut(process, call, strings)
        elif strings:
            self._rename(process, call, strings)

    def _descriptor(self, words: str) -> tuple[int, str]:
        """A descriptor at the start of a call's words and the path it stands for, empty for a file without a name."""
        found = _DESCRIPTOR.match(words)
        if found is None:
            return -1, ""
        number = -1 if found[1] == "AT_FDCWD" else int(found[1])
        return number, "" if found[3] else _text(found[2] or "")

    def _ours(self, process: _Process, call: Call) -> _Open | None:
        number, path = self._descriptor(call.words)
        if not self._inside(path) and not (self._folder in call.words and "(deleted)" in call.words):
            return None
        return process.open.get(number)

    def _inside(self, path: str) -> bool:
        return path == self._folder or path.startswith(f"{self._folder}/")

    def _path(self, process: _Process, at: str, path: str) -> str:
        return os.path.normpath(Path(at or process.cwd, path))

    def _place(self, path: str) -> tuple[int, str]:
        """The folder's node and the name in it."""
        above, name = os.path.split(path)
        return self._find(above), name

    def _find(self, path: str) -> int:
        node = self.recording.root
        for name in path.removeprefix(self._folder).split("/"):
            if name:
                found = self._names.get(node, {}).get(name)
                if found is None:
                    raise Unsupported(f"{path!r} was used and never made, as far as the trace tells")
                node = found
        return node

    def _step(self, step: Step) -> None:
        if isinstance(step, Write | Cut):
            apply(self._content[step.node], step)
        elif isinstance(step, Names):
            for folder, name, node in step.changes:
                if node is None:
                    self._names[folder].pop(name, None)
                else:
                    self._names[folder][name] = node
        self.recording.steps.append(step)

    # -- calls ------------------------------------------------------------------------------------------------------

    def _open(self, process: _Process, call: Call) -> None:
        process.open.pop(call.result, None)
        if not self._inside(call.path) or call.path == self._folder:
            return
        folder, name = self._place(call.path)
        node = self._names[folder].get(name)
        flags = "O_CREAT|O_TRUNC" if call.name == "creat" else call.words[call.words.rfind('"') :]
        if node is None:
            mode = re.search(r", (0\d+)$", call.words)
            node = self._node("file", mode=int(mode[1], 8) & ~0o022 if mode else 0o600)
            self._step(Names(folder, ((folder, name, node),)))
        elif "O_TRUNC" in flags and self._content[node]:
            self._step(Cut(node, 0))
        process.open[call.result] = _Open(node, "O_APPEND" in flags)

    def _write(self, process: _Process, call: Call) -> None:
        number, path = self._descriptor(call.words)
        file = self._ours(process, call)
        if number == 1 and path and path == self._stdout and file is None:
            data = b"".join(_bytes(found) for found in _STRING.findall(call.words))
            for line in data.decode().splitlines():
                self._step(Said(line))
        if file is None or not call.result:
            return
        data = b"".join(_bytes(found) for found in _STRING.findall(call.words))[: call.result]
        if call.name in {"write", "writev"}:
            offset = len(self._content[file.node]) if file.append else file.position
            file.position = offset + len(data)
        else:
            offset = int(call.words.rsplit(", ", 1)[1])
        self._step(Write(file.node, offset, data))

    def _seek(self, process: _Process, call: Call) -> None:
        file = self._ours(process, call)
        if file is not None:
            file.position = call.result

    def _copy(self, process: _Process, call: Call) -> None:
        if call.name == "copy_file_range":
            if self._folder in call.words:
                raise Unsupported("copy_file_range")
            return
        file = self._ours(process, call)
        if file is None:
            return
        source = self._descriptor(call.words.split(", ", 1)[1])[1]
        start = re.search(r"\[(\d+)\]", call.words)
        if start is None:
            raise Unsupported(f"sendfile without a position: {call.words}")
        content = bytes(self._content[self._find(source)]) if self._inside(source) else Path(source).read_bytes()
        data = content[int(start[1]) : int(start[1]) + call.result]
        self._step(Write(file.node, file.position, data))
        file.position += len(data)

    def _cut(self, process: _Process, call: Call, strings: Sequence[str]) -> None:
        size = int(call.words.rsplit(", ", 1)[1])
        if strings:
            path = self._path(process, "", strings[0])
            node = self._find(path) if self._inside(path) else None
        else:
            file = self._ours(process, call)
            node = file.node if file else None
        if node is None:
            return
        if call.name == "fallocate":
            raise Unsupported("fallocate")
        self._step(Cut(node, size))

    def _sync(self, process: _Process, call: Call, upto: int) -> None:
        if call.name in {"sync", "syncfs"}:
            self._step(Sync(None, upto))
            return
        number, path = self._descriptor(call.words)
        file = self._ours(process, call)
        if file is not None:
            self._step(Sync(file.node, upto))
        elif self._inside(path) and number >= 0:
            self._step(Sync(self._find(path), upto))

    def _rename(self, process: _Process, call: Call, strings: Sequence[str]) -> None:
        """Calls that change names."""
        ats = [_text(found[1]) for found in re.findall(r"(?:^|, )(AT_FDCWD|\d+)<([^>]*)>", _STRING.sub("", call.words))]
        symbolic = call.name.startswith("symlink")
        paths = strings[1:] if symbolic else strings
        ats = ats[-len(paths) :] if ats else [""] * len(paths)
        full = [self._path(process, at, path) for at, path in zip(ats, paths, strict=True)]
        if not any(self._inside(path) for path in full):
            return
        if not all(self._inside(path) for path in full):
            raise Unsupported(f"into the folder or out of it: {call.name} {' '.join(full)}")
        folder, name = self._place(full[-1])
        if call.name.startswith("rename"):
            source, old = self._place(full[0])
            node = self._names[source][old]
            there = self._names[folder].get(name)
            left = there if "RENAME_EXCHANGE" in call.words else None
            if there != node:
                self._step(Names(folder, ((source, old, left), (folder, name, node))))
        elif call.name.startswith("link"):
            self._step(Names(folder, ((folder, name, self._find(full[0])),)))
        elif call.name in {"unlink", "unlinkat", "rmdir"}:
            self._step(Names(folder, ((folder, name, None),)))
        elif symbolic:
            node = self._node("link", content=os.fsencode(strings[0]))
            self._step(Names(folder, ((folder, name, node),)))
        elif call.name.startswith("mkdir"):
            mode = int(call.words.rsplit(", ", 1)[1], 8) & ~0o022
            self._step(Names(folder, ((folder, name, self._node("folder", mode=mode)),)))
        elif call.name.startswith("chmod") or call.name == "fchmodat":
            changed = self._names[folder].get(name)
            if changed is not None:
                self.recording.nodes[changed].mode = int(re.findall(r", (0\d+)", call.words)[-1], 8)
