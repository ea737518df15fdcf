"""Declared paths: what an order expects to touch."""

from __future__ import annotations

WHOLE = "."
"""The declared path that stands for the whole repository."""


def plain_path(path: str) -> str:
    """A declared path as paths are compared: ``./src//a/`` is ``src/a``, ``.`` and ``/`` are the whole repository."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/".join(parts) or (WHOLE if path else "")


def folders_above(path: str) -> tuple[str, ...]:
    """All folders above a plain path, the nearest first, the whole repository last."""
    found = []
    while "/" in path:
        path = path.rpartition("/")[0]
        found.append(path)
    return (*found, WHOLE) if path != WHOLE else ()


def overlap(one: str, other: str) -> bool:
    """True when two declared paths meet: equal, or one is a folder above the other."""
    a, b = plain_path(one), plain_path(other)
    return bool(a and b) and (a == b or a in folders_above(b) or b in folders_above(a))
