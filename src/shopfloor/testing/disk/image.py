"""What was done to a folder, step by step, and what of it may be left when the power goes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec

PAGE = 4096

REBOOT_S = 60.0
"""Files are as old as if a machine had started again since."""


class Style(StrEnum):
    """How a disk treats what was not synced."""

    FORGETS = "forgets"
    """it keeps only what it must"""
    CONTENT_LAST = "content last"
    """all names are there, and of what was not synced in the files nothing: empty files"""
    IN_ORDER = "in order"
    """a beginning of what was done, as a journal keeps it, and beginnings of files"""
    ANY = "any"
    """any names, any pages"""
    KEEPS = "keeps"
    """all of it, as after a kill"""


class Node(msgspec.Struct):
    """A file, a folder or a link; ``content`` is what it had when the recording began."""

    kind: str
    mode: int = 0o600
    content: bytes = b""
    names: dict[str, int] = msgspec.field(default_factory=dict)


class Write(NamedTuple):
    node: int
    offset: int
    data: bytes


class Cut(NamedTuple):
    """A file is given a length."""

    node: int
    size: int


class Names(NamedTuple):
    """Names that are given (folder, name, node) or taken (no node) at once; sure once ``folder`` is synced."""

    folder: int
    changes: tuple[tuple[int, str, int | None], ...]


class Sync(NamedTuple):
    """What was done to a node (None: to all) before the step ``upto`` is on the disk."""

    node: int | None
    upto: int


class Said(NamedTuple):
    """A line that the program, or one that it has started, wrote to its standard output."""

    text: str


Step = Write | Cut | Names | Sync | Said


class Recording(msgspec.Struct):
    """A program's steps in one folder. Its length is how many they are; the power can go before or behind each."""

    root: int
    nodes: list[Node]
    steps: list[Step]

    def __len__(self) -> int:
        return len(self.steps)

    def said(self, at: int) -> list[str]:
        """What the program had said before the step ``at``."""
        return [step.text for step in self.steps[:at] if isinstance(step, Said)]

    def lose_power(self, at: int, random: Random, into: Path, *, style: Style | None = None) -> Style:
        """Make the folder ``into`` as it may look when the power goes before the step ``at``; returns how it went."""
        style = style or random.choice(list(Style))
        disk = _Disk(self, at)
        disk.settle(style, random)
        disk.write(self.root, into)
        return style

    def files(self, at: int) -> dict[str, bytes]:
        """The folder as programs saw it then: path -> content (of a link: where it leads; of a folder: ``/``)."""
        disk = _Disk(self, at)
        disk.keep_all()
        return dict(disk.walk(self.root, ""))


class _Disk:
    """What is certainly there, and what may be."""

    def __init__(self, recording: Recording, at: int) -> None:
        self._nodes = recording.nodes
        self._names = {number: dict(node.names) for number, node in enumerate(recording.nodes) if node.kind == "folder"}
        self._content: dict[int, bytes] = {}
        self._unsure: dict[int, list[tuple[int, Write | Cut]]] = {}
        self._unsure_names: list[tuple[int, Names]] = []
        for place, step in enumerate(recording.steps[:at]):
            match step:
                case Write() | Cut():
                    self._unsure.setdefault(step.node, []).append((place, step))
                case Names():
                    self._unsure_names.append((place, step))
                case Sync():
                    self._sync(step)

    def content(self, node: int) -> bytes:
        return self._content.get(node, self._nodes[node].content)

    def _sync(self, sync: Sync) -> None:
        for node in list(self._unsure) if sync.node is None else [sync.node]:
            pending = self._unsure.get(node)
            if pending:
                self._content[node] = _applied(self.content(node), [s for place, s in pending if place < sync.upto])
                self._unsure[node] = [(place, step) for place, step in pending if place >= sync.upto]
        left = []
        for place, names in self._unsure_names:
            if sync.node in (None, names.folder) and place < sync.upto:
                self._rename(names)
            else:
                left.append((place, names))
        self._unsure_names = left

    def _rename(self, names: Names) -> None:
        for folder, name, node in names.changes:
            if node is None:
                self._names[folder].pop(name, None)
            else:
                self._names[folder][name] = node

    def keep_all(self) -> None:
        """Nothing is lost."""
        for _, names in self._unsure_names:
            self._rename(names)
        for node, pending in self._unsure.items():
            self._content[node] = _applied(self.content(node), [step for _, step in pending])

    def settle(self, style: Style, random: Random) -> None:
        """Decide what becomes of all that is not certain."""
        if style == Style.KEEPS:
            self.keep_all()
            return
        places = [place for place, _ in self._unsure_names]
        places += [place for pending in self._unsure.values() for place, _ in pending]
        until = random.choice(sorted(places)) if places else 0
        for place, names in self._unsure_names:
            if (
                style == Style.CONTENT_LAST
                or (style == Style.IN_ORDER and place <= until)
                or (style == Style.ANY and random.choice((True, False)))
            ):
                self._rename(names)
        for node, pending in sorted(self._unsure.items()):
            if style == Style.IN_ORDER:
                steps = [step for place, step in pending if place <= until]
                self._content[node] = _beginning(self.content(node), steps, random)
            elif style == Style.ANY:
                self._content[node] = _pages(self.content(node), [step for _, step in pending], random)

    def walk(self, folder: int, under: str) -> Iterator[tuple[str, bytes]]:
        """All that is in a folder."""
        for name, number in self._names[folder].items():
            node = self._nodes[number]
            if node.kind == "folder":
                yield f"{under}{name}", b"/"
                yield from self.walk(number, f"{under}{name}/")
            else:
                yield f"{under}{name}", self.content(number)

    def write(self, folder: int, path: Path) -> None:
        """Make a real folder of it."""
        path.mkdir()
        then = time.time() - REBOOT_S
        made: dict[int, Path] = {}
        for name, number in self._names[folder].items():
            node, place = self._nodes[number], path / name
            if node.kind == "folder":
                self.write(number, place)
            elif node.kind == "link":
                place.symlink_to(os.fsdecode(self.content(number)))
            elif number in made:
                place.hardlink_to(made[number])
            else:
                place.write_bytes(self.content(number))
                place.chmod(node.mode)
                os.utime(place, (then, then))
                made[number] = place
        path.chmod(self._nodes[folder].mode)


def _applied(content: bytes, steps: list[Write | Cut]) -> bytes:
    if not steps:
        return content
    now = bytearray(content)
    for step in steps:
        apply(now, step)
    return bytes(now)


def apply(content: bytearray, step: Write | Cut) -> None:
    """Do a step to a file's content."""
    if isinstance(step, Cut):
        del content[step.size :]
        content.extend(bytes(step.size - len(content)))
    else:
        content.extend(bytes(max(0, step.offset - len(content))))
        content[step.offset : step.offset + len(step.data)] = step.data


def _beginning(content: bytes, steps: list[Write | Cut], random: Random) -> bytes:
    """Some of the steps; of the last one a part, or only the length that it gives the file."""
    if not steps:
        return content
    count = random.randint(0, len(steps))
    now = bytearray(_applied(content, steps[:count]))
    if count < len(steps):
        step = steps[count]
        if isinstance(step, Write):
            keep = random.randint(0, len(step.data))
            zeros = random.choice((0, len(step.data) - keep))
            step = step._replace(data=step.data[:keep] + bytes(zeros))
        apply(now, step)
    return bytes(now)


def _pages(content: bytes, steps: list[Write | Cut], random: Random) -> bytes:
    """Each page as it was, as it was to be, or (where the file grew) zeros; the length is one of those it had."""
    new = _applied(content, steps)
    size = random.choice((len(content), len(new), random.randint(*sorted((len(content), len(new))))))
    old = content.ljust(size, b"\0")
    whole = new.ljust(size, b"\0")
    pages = (random.choice((old, whole))[at : min(at + PAGE, size)] for at in range(0, size, PAGE))
    return b"".join(pages)
