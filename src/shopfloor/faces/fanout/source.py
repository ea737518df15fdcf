"""Where specifications come from, and how a run that is resumed finds those of them again that its log has not.

Specifications become orders as agents get free, so a run that is killed has taken in only some of them. A file is read
again then, and has to be what it was. What cannot be read again (standard input, a pipe, what a program made) is kept
beside the log as long as the run is not finished.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from shopfloor import NotFound, Refused, ShopfloorError
from shopfloor.faces.fanout.specs import Specification, read

KEPT = Path(".work", "specs")
"""in the folder of the run"""
GIVE_UP = "or give the rest up: shopfloor stop --cancel"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted."""

    specs: Sequence[Specification] = ()
    name: str = ""
    """the file that they came from, which can be read again; empty: there is none"""
    digest: str = ""
    """of what was read, as it stood there"""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was asked for, as its first order has it in the log."""

    specs: int
    digest: str
    timeout_s: float


def source(text: bytes, where: str, *, name: str = "") -> Source:
    """Specifications as they were read from ``where``; ``name`` as :class:`Source` has it. Raises UsageError."""
    return Source(specs=read(text, where), name=name, digest=digest_of(text))


def digest_of(text: bytes) -> str:
    """Tells one text from another."""
    return hashlib.sha256(text).hexdigest()[:32]


def keep(found: Source, here: Path, folder: Path) -> Source:
    """Have specifications that cannot be read again in a file of ``folder``, durably. Raises ShopfloorError.

    Names of files are those that they have ``here``.
    """
    if found.name:
        here = here.resolve()  # who resumes may stand in another part of the folder
        return found if here == folder else msgspec.structs.replace(found, name=str(here / found.name))
    if not found.specs:
        return found
    text = _lines(found.specs)
    # Who gives the same input again is told by what was read; a program's specifications are told by themselves.
    name = KEPT / f"{found.digest or digest_of(text)}.jsonl"
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        forget(folder)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        why = (problem.strerror or str(problem)).lower()
        raise ShopfloorError(f"the specifications cannot be kept in {str(path)!r}: {why}") from None
    return msgspec.structs.replace(found, name=str(name), digest=found.digest or digest_of(text))


def _lines(specs: Sequence[Specification]) -> bytes:
    return b"".join(msgspec.json.encode(spec.document()) + b"\n" for spec in specs)


def forget(folder: Path) -> None:
    """Nothing is needed any more of what was kept."""
    for path in (folder / KEPT).glob("*.jsonl"):
        with suppress(OSError):
            path.unlink()


def again(folder: Path, name: str, asked: Asked, known: int, given: Source) -> Source:
    """The specifications of a run of which ``known`` are in its log; ``given`` were given anew.

    Raises Refused when they are not what the run was begun with, NotFound when they are gone.
    """
    if given.specs and (given.digest or digest_of(_lines(given.specs))) != asked.digest:
        hint = f"go on with what it was begun with: shopfloor fanout --resume; {GIVE_UP}"
        raise Refused("these are not the specifications that the unfinished run was begun with", hint=hint)
    if given.specs or known >= asked.specs:
        return given
    left = f"{asked.specs - known} of {asked.specs} specifications are not in the log yet"
    try:
        text = (folder / name).read_bytes()
    except OSError as problem:
        why = (problem.strerror or str(problem)).lower()
        hint = f"put {name!r} back and say it again, {GIVE_UP}"
        raise NotFound(f"{left}, and {name!r}, where they came from, cannot be read: {why}", hint=hint) from None
    found = source(text, name, name=name)
    if not name.startswith(f"{KEPT}{os.sep}") and found.digest != asked.digest:
        hint = f"put {name!r} back as it was and say it again, {GIVE_UP}"
        raise Refused(f"{left}, and {name!r}, where they came from, has changed", hint=hint)
    return found
