"""What an agent said, made fit to be reported: masked, of bounded size, and such that it can be written again."""

from __future__ import annotations

import json
import math
from typing import Any

from shopfloor.agents._lines import Line
from shopfloor.masking import Masker
from shopfloor.ports import Kind, Report

TEXT_CHARS = 1 << 20
DEPTH = 40


class Tidy:
    """Tidies the words of one agent."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker

    def text(self, text: str) -> str:
        """The text without secrets and lone surrogates, cut where it is very long."""
        # Masked before it is cut: the half of a secret is one too.
        return self._masker.text(text)[:TEXT_CHARS].encode(errors="replace").decode()

    def line(self, data: bytes, *, cut: bool) -> str:
        """A line of output; a ``cut`` one may end in the middle of a secret, which is left out then."""
        safe = self._masker.stream().feed(data) if cut else self._masker.data(data)
        return safe.decode(errors="replace")

    def noise(self, stream: str, line: Line) -> list[Report]:
        """A line that means nothing, as NOISE; nothing for a blank one."""
        text = self.line(line.data, cut=line.cut)
        if not text.strip():
            return []
        told: dict[str, Any] = {"stream": stream} if stream != "stdout" else {}
        if line.cut or len(text) > TEXT_CHARS:
            told["cut"] = True
        return [Report(kind=Kind.NOISE, text=text[:TEXT_CHARS], data=told)]

    def value(self, value: Any, depth: int = 0) -> Any:
        """The same value: no secrets, no lone surrogates, no NaN, no endless depth."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int | float):
            return self._number(value)
        if depth >= DEPTH:
            return "…"
        if isinstance(value, dict):
            return {self.value(key): self.value(item, depth + 1) for key, item in value.items()}
        return [self.value(item, depth + 1) for item in value]

    def _number(self, value: float) -> float | str:
        """The number, or text where it cannot be written as one, or is a secret."""
        fits = -(2**63) <= value < 2**63 if isinstance(value, int) else math.isfinite(value)
        if not fits:
            return hex(value) if isinstance(value, int) else repr(value)  # a huge one takes too long in decimal
        told = repr(value)
        return value if self._masker.text(told) == told else self._masker.text(told)


def json_object(line: bytes) -> dict[str, Any] | None:
    """A line as a JSON object; None for anything else."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        found: dict[str, Any] = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return found
