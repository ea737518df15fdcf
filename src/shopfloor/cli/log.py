"""``log``: what an order's agent said and did."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from shopfloor import Shopfloor
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.lines import clock
from shopfloor.cli.orders import find
from shopfloor.cli.words import block, clean, money
from shopfloor.domain.errors import NotFound
from shopfloor.domain.order import Attempt, Record

POLL_S = 0.2
CHUNK = 1 << 16
COLORS = {"said": "magenta", "tool": "cyan", "error": "red", "asked": "magenta", "exited": "green", "started": "green"}
_SIGNS = {"text": "", "noise": "", "tool": "> ", "asked": "? ", "error": "! ", "said": "< "}


@verb(example="shopfloor log fix-login --follow")
@click.argument("order")
@click.option("--attempt", type=int, metavar="N", help="Another attempt than the newest; the first is 1.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the agent has ended.")
@click.option("--raw", is_flag=True, help="Its output byte for byte, instead of what it means.")
def log(edge: Edge, *, order: str, attempt: int | None, follow: bool, raw: bool) -> None:
    """Show what the agent of an order said and did."""
    which, folder = edge.call(lambda floor: _find(floor, order, attempt))
    transcript, output = folder / "transcript.jsonl", folder / "stdout.log"
    path = output if raw or not transcript.exists() else transcript
    if not follow and not path.exists():
        raise NotFound(f"attempt {which.id} has no output", hint=f"shopfloor show {order}")
    pieces = _read(edge, path, which) if follow else iter([path.read_bytes()])
    if edge.json:
        entries = [entry for line in b"".join(pieces).splitlines() if (entry := _entry(line)) is not None]
        edge.put_json({"attempt": which.id, "file": str(path), "entries": entries if path is transcript else []})
    elif path is transcript:
        for line in _lines(pieces):
            if text := render(line):
                edge.put(text)
    else:
        _put_raw(edge, pieces)


async def _find(floor: Shopfloor, order: str, number: int | None) -> tuple[Attempt, Path]:
    _, record = await find(floor, order)
    which = attempt_of(record, number)
    return which, floor.work / "attempts" / which.id


def attempt_of(record: Record, number: int | None) -> Attempt:
    """The newest attempt, or the one with that number. Raises NotFound."""
    name = clean(record.order.name)
    if not record.attempts:
        raise NotFound(f"{name!r} has no attempt yet", hint=f"shopfloor show {name}")
    if number is None:
        return record.attempts[-1]
    for attempt in record.attempts:
        if attempt.generation == number:
            return attempt
    known = ", ".join(str(attempt.generation) for attempt in record.attempts)
    raise NotFound(f"{name!r} has no attempt {number}", hint=f"there are: {known}")


def _read(edge: Edge, path: Path, which: Attempt) -> Iterator[bytes]:
    """The file as it grows, until its attempt has ended and all of it was seen."""

    async def ended(floor: Shopfloor) -> bool:
        order = which.id.rpartition(".")[0]
        record = (await floor.board(order=order)).records.get(order)
        known = next((a for a in record.attempts if a.id == which.id), None) if record else None
        return known is None or bool(known.outcome) or floor.controller() is None

    offset = 0
    over = False
    while True:
        data = b""
        if path.exists():
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(CHUNK)
        if data:
            offset += len(data)
            yield data
        elif over:
            return
        else:
            over = edge.call(ended)
            time.sleep(0 if over else POLL_S)


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        *whole, held = (held + piece).split(b"\n")
        yield from whole
    if held:
        yield held


def _put_raw(edge: Edge, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        if sys.stdout.isatty():
            edge.put(block(piece.decode(errors="replace")).rstrip("\n"))
        else:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def render(line: bytes) -> str:
    """One report of a transcript as a person reads it; empty for what says nothing."""
    report = _entry(line)
    if report is None:
        return ""
    kind, text = str(report.get("kind", "")), str(report.get("text") or "")
    if kind == "usage":
        cost = report.get("cost_usd")
        text = money(cost) + " so far" if isinstance(cost, int | float) else ""
    elif kind == "exited":
        code = report.get("exit_code")
        text = f"ended: {report.get('status', '')}" + (f", exit {code}" if code is not None else "")
        text += f": {report['text']}" if report.get("text") else ""
    elif kind == "permission":
        text = f"{report.get('status', '')}: {text}"
    elif kind in ("started", "turn_end"):
        text = f"{kind.replace('_', ' ')}: {text}".rstrip(": ")
    if not text.strip():
        return ""
    when = report.get("time")
    at = clock(when) if isinstance(when, int | float) else "--:--:--"
    first, *rest = block(text.rstrip("\n")).splitlines() or [""]
    shown = "\n".join([f"{_SIGNS.get(kind, '')}{first}", *(f"          {line}" for line in rest)])
    return f"{at}  " + (click.style(shown, fg=COLORS[kind]) if kind in COLORS else shown)
