"""Masking: no secret in anything that is kept, however the output was cut into pieces.

A secret is looked for as it is, as JSON and URLs write it, and, when it has several lines, each line by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import quote

MASK = "\u2039masked\u203a"
SHORTEST = 8
"""Characters: a shorter value is a word like any other, and masking it would spoil the text for nothing."""

_MASK = MASK.encode()


class Masker:
    """Masks a fixed set of secrets; what overlaps is masked as one."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        # A form that contains a shorter one is found with it, so only the longest match matters for the cut.
        self._forms = sorted((form.encode(errors="replace") for form in forms), key=lambda form: (-len(form), form))

    def __bool__(self) -> bool:
        return bool(self._forms)

    def text(self, text: str) -> str:
        """A whole text, masked."""
        if not self._forms:
            return text
        raw = text.encode(errors="replace")
        masked = self.data(raw)
        return text if masked is raw else masked.decode()

    def data(self, data: bytes) -> bytes:
        """A whole piece of data, masked; the same object when there was nothing to mask."""
        spans = self._spans(data)
        return _cover(data, spans, len(data), 0)[0] if spans else data

    def stream(self) -> MaskedStream:
        """A masker for data that comes in pieces."""
        return MaskedStream(self)

    def _spans(self, data: bytes, covered: int = 0) -> list[tuple[int, int]]:
        """Where secrets are, overlapping ones joined, in order; the first ``covered`` bytes count as one."""
        found = [(0, covered)] if covered else []
        for form in self._forms:
            at = data.find(form)
            while at >= 0:
                found.append((at, at + len(form)))
                at = data.find(form, at + 1)
        found.sort()
        joined: list[tuple[int, int]] = []
        for start, end in found:
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return joined

    def _undecided(self, data: bytes) -> int:
        """From where on the end of the data could be the beginning of a secret; its length when nowhere."""
        first = len(data)
        for form in self._forms:
            at = data.find(form[:1], max(0, len(data) - len(form) + 1))
            while 0 <= at < first:
                if form.startswith(data[at:]):
                    first = at
                    break
                at = data.find(form[:1], at + 1)
        return first


class MaskedStream:
    """Masks data that comes in pieces: what is written equals the masked whole. Holds back less than one secret."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._held = b""
        self._covered = 0
        """so many held bytes belong to a secret whose mask is already out"""

    def feed(self, data: bytes) -> bytes:
        """What can be said for sure after this piece."""
        return self._take(data, last=False)

    def close(self) -> bytes:
        """The rest."""
        return self._take(b"", last=True)

    def _take(self, data: bytes, *, last: bool) -> bytes:
        if not self._masker:
            return data
        data = self._held + data
        cut = len(data) if last else self._masker._undecided(data)
        spans = self._masker._spans(data, self._covered)
        out, self._covered = _cover(data, spans, cut, self._covered)
        self._held = data[cut:]
        return out


def _cover(data: bytes, spans: list[tuple[int, int]], cut: int, covered: int) -> tuple[bytes, int]:
    """The data up to ``cut`` with a mask for each span that begins there, and how far the last reaches behind it."""
    out: list[bytes] = []
    at, behind = 0, max(0, covered - cut)
    for start, end in spans:
        if start >= cut:
            break
        out.append(data[at:start])
        if start or not covered:
            out.append(_MASK)
        at, behind = min(end, cut), max(0, end - cut)
    out.append(data[at:cut])
    return b"".join(out), behind


def _forms(secret: str) -> set[str]:
    """Everything a secret may look like; empty when it is too short to be one."""
    whole = secret.strip()
    lines = [line.strip() for line in whole.splitlines()]
    found: set[str] = set()
    for text in (whole, *lines):
        if len(text) >= SHORTEST:
            found |= {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], quote(text, safe="")}
            found.add(json.dumps(text)[1:-1].replace("/", "\\/"))
    return found
