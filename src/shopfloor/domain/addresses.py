"""Addresses of servers as people write them: with ranges of ports."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

MOST_SERVERS = 1000
_RANGE = re.compile(r"(.*:)(\d{1,5})-(\d{1,5})(/.*)?")


def expanded(urls: Sequence[str]) -> list[str]:
    """The addresses with ranges of ports written out. Raises ValueError that names the one that is off."""
    found: dict[str, None] = {}
    for url in urls:
        for one in _each(url.rstrip("/")):
            try:
                parts = urlsplit(one)
                fit = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            except ValueError:  # a port that is no number, or too large
                fit = False
            if not fit:
                raise ValueError(f"{url!r} is no address such as http://127.0.0.1:8080 or http://127.0.0.1:8080-8089")
            found[one] = None
    if len(found) > MOST_SERVERS:
        raise ValueError(f"there are {len(found)} addresses; at most {MOST_SERVERS} can be used")
    return list(found)


def _each(url: str) -> Iterator[str]:
    found = _RANGE.fullmatch(url)
    if found is None:
        yield url
        return
    first, last = int(found[2]), int(found[3])
    if not 0 < first <= last < 1 << 16 or last - first >= MOST_SERVERS:
        raise ValueError(f"{url!r} has no range of ports such as 8080-8089")
    for port in range(first, last + 1):
        yield f"{found[1]}{port}{found[4] or ''}"
