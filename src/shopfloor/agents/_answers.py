"""What people answer when an agent asks whether it may."""

from __future__ import annotations

import re

YES = frozenset({"allow", "allowed", "yes", "y", "ok", "approve", "approved"})
NO = frozenset({"deny", "denied", "no", "n", "reject", "rejected"})
_WORD = re.compile(r"\s*([A-Za-z]+)(?:[\s.,:;!-]+|$)")


def yes_or_no(text: str) -> tuple[bool, str] | None:
    """Whether it may, and what was said beyond that; None when the words are no answer."""
    found = _WORD.match(text)
    word = found[1].lower() if found else ""
    return (word in YES, text[found.end() :].strip()) if found and word in YES | NO else None
