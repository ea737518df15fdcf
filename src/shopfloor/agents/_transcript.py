"""What was said to a running agent, as a line of its transcript."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from shopfloor.masking import Masker
from shopfloor.ports import Delivery


def said(transcript: Path, secrets: tuple[str, ...], wall_s: float, text: str, delivery: Delivery) -> None:
    """Append it, masked. The log has it too, so nothing else happens where it cannot be written."""
    line = {"time": round(wall_s, 3), "kind": "said", "text": Masker(secrets).text(text), "status": delivery.value}
    with suppress(OSError):
        descriptor = os.open(transcript, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab", buffering=0) as file:
            file.write(msgspec.json.encode(line) + b"\n")
