"""Paths, messages and identities as git wants them and as people read them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

NAME, EMAIL = "Shopfloor", "shopfloor@localhost"
OWN_FOLDERS = (".work/", ".worktrees/")
"""Ours inside a repository: never part of a change, never a reason to call a checkout modified."""

_TRAILER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*: ")


def split(output: bytes) -> list[str]:
    """The words of NUL-terminated output."""
    return [os.fsdecode(word) for word in output.split(b"\0") if word]


def shown(path: str) -> str:
    """A path fit for people, logs and JSON: bytes that are not UTF-8 are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_ours(path: str) -> bool:
    """True for what lies in a folder of ours."""
    return path.startswith(OWN_FOLDERS)


def with_trailers(message: str, trailers: Mapping[str, str]) -> str:
    """The message with trailers behind it, joined to those it ends with already."""
    body = message.replace("\0", "\ufffd").strip() or "change"
    lines = [f"{name}: {' '.join(value.replace(chr(0), ' ').split())}" for name, value in trailers.items()]
    if not lines:
        return body + "\n"
    last = body.rpartition("\n\n")
    joined = bool(last[1]) and all(_TRAILER.match(line) for line in last[2].splitlines())
    return body + ("\n" if joined else "\n\n") + "\n".join(lines) + "\n"


def author_env(author: str) -> dict[str, str]:
    name, _, email = author.rstrip("> ").partition("<")
    clean = re.sub(r"[\x00-\x1f<>]", " ", name).strip(" .,:;\"'\\")
    if not clean:
        return {}
    return {"GIT_AUTHOR_NAME": clean, "GIT_AUTHOR_EMAIL": email.strip() or EMAIL}
