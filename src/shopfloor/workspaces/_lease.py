"""What is written beside a slot, so that a later process knows whose it was and what state it is in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from shopfloor import spawn
from shopfloor.git import open_lock, sync_folder, write_durably

Purpose = Literal["attempt", "check"]
# An agent never gets a checkout that checks use, nor the other way round: two pools by name.
PREFIX: dict[Purpose, str] = {"attempt": "slot", "check": "check"}
_NAME = re.compile(r"(slot|check)-[0-9]{2,}")


class Lease(msgspec.Struct, kw_only=True):
    """One slot. ``filling``: claimed, being made ready, nobody has worked in it yet."""

    slot: str
    state: Literal["free", "filling", "used", "retired"] = "free"
    git_dir: str = ""
    """its own git folder; empty: the slot was never made"""
    key: str = ""
    purpose: Purpose = "attempt"
    branch: str = ""
    base: str = ""
    onto: str = ""
    """where its branch began, when that was not the base"""
    pid: int = 0
    start_time: int = 0
    kept: bool = False
    """snapshotted since it was handed out"""
    heads: tuple[str, ...] = ()
    """where its HEAD may stand if nobody has worked in it since it was snapshotted"""
    sparse: bool = False
    """its index hides files, so what git says about it means little"""
    ready_ns: int = 0
    """file system time when it was handed out; what changed before was made by setup (0: there was none)"""
    caches: dict[str, str] = msgspec.field(default_factory=dict)
    """declared cache folder -> digest of its key files when it was filled"""
    ignored: tuple[str, ...] = ()
    """ignored paths that were there when it was handed out"""
    repositories: tuple[str, ...] = ()
    """nested repositories that were there when it was handed out"""
    submodules: tuple[str, ...] = ()
    messy: bool = False
    """it holds what git does not list (pipes, sockets): only a walk finds all that has to go"""
    note: str = ""
    """why it was retired"""


class Shelf:
    """All leases of one folder of slots."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._leases = folder / ".leases"
        self._owner = (0, 0)

    def open(self) -> None:
        """Make the folder."""
        if not self._leases.is_dir():
            self._leases.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Choose and claim slots one at a time, among threads and processes."""
        self.open()
        with open_lock(self._leases / "lock"):
            yield

    def path(self, slot: str) -> Path:
        return self.folder / slot

    def is_there(self, slot: str) -> bool:
        """True for a folder; a link in its place must not lead us elsewhere."""
        return self.path(slot).is_dir() and not self.path(slot).is_symlink()

    def mark(self, slot: str) -> Path:
        """The lease's file."""
        return self._leases / f"{slot}.json"

    def log(self, slot: str) -> Path:
        """Takes the output of setup where the claim names no file."""
        return self._leases / f"{slot}.setup.log"

    def write(self, lease: Lease) -> None:
        write_durably(self.mark(lease.slot), msgspec.json.encode(lease))

    def read(self, slot: str) -> Lease | None:
        """None: there is no such lease, or nobody can read it."""
        try:
            found = msgspec.json.decode(self.mark(slot).read_bytes(), type=Lease)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return found if found.slot == slot else None

    def forget(self, slot: str) -> None:
        self.mark(slot).unlink(missing_ok=True)

    def all(self) -> list[Lease]:
        """Every lease that can be read, by name."""
        names = sorted(p.stem for p in self._leases.glob("*.json")) if self._leases.is_dir() else []
        return [lease for name in names if (lease := self.read(name)) is not None]

    def without_lease(self) -> list[Path]:
        """Folders that look like slots and have no lease that can be read."""
        if not self.folder.is_dir():
            return []
        found = sorted(p for p in self.folder.iterdir() if _NAME.fullmatch(p.name))
        return [path for path in found if self.read(path.name) is None]

    def unused_name(self, purpose: Purpose) -> str:
        """The first number that neither a lease nor a folder has."""
        number = 1
        while True:
            name = f"{PREFIX[purpose]}-{number:02d}"
            if not self.mark(name).exists() and not os.path.lexists(self.path(name)):
                return name
            number += 1

    def own(self, lease: Lease) -> None:
        """Write this process into the lease."""
        if not self._owner[0]:
            self._owner = spawn.identity()
        lease.pid, lease.start_time = self._owner


def abandoned(lease: Lease) -> bool:
    """True when the process that holds it is gone."""
    return not spawn.alive(lease.pid, lease.start_time)
