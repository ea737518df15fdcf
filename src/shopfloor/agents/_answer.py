"""What is sent to an agent server, and what its answer means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.agents._json import is_usd
from shopfloor.agents._lines import Lines
from shopfloor.agents.jsonlines import LINE_BYTES, EventReader, meaning
from shopfloor.masking import Masker
from shopfloor.ports import Kind, Launch, Report

MOST_BYTES = 64 << 20
"""of an answer that has to be read as one"""
MOST_FILES = 10_000
_EVENTS = ("application/x-ndjson", "application/jsonl", "application/json-lines", "application/jsonlines")


def request_of(launch: Launch, *, local: bool) -> bytes:
    """The order as JSON. A server on this machine is also told the workspace, and the way to the gateway."""
    order = launch.order
    told: dict[str, Any] = {
        "order": order.id,
        "attempt": launch.attempt,
        "name": order.name,
        "title": order.title,
        "prompt": launch.prompt,
        "deliverable": order.deliverable.value,
        "branch": launch.branch,
        "model": launch.profile.model,
        "budget_usd": launch.budget_usd,
    }
    if local:
        told["workspace"] = launch.workspace
        if launch.route is not None:
            told["route"] = {"url": launch.route.url, "token": launch.route.token}
    return json.dumps(told, ensure_ascii=True).encode()


class Reading:
    """An answer as reports. Sums go on over several tries."""

    def __init__(self, masker: Masker, workspace: Path) -> None:
        self.asked_again = False
        """a server that still answered had the same request twice"""
        self._masker = masker
        self._workspace = workspace
        self._before = Report(kind=Kind.USAGE)
        self._fresh()

    def _fresh(self) -> None:
        self._reader = EventReader(self._masker)
        self._lines = Lines(LINE_BYTES)
        self._whole = bytearray()
        self._size = 0
        self._kind = ""

    def begin_again(self) -> None:
        """What was begun does not count, but it was paid for."""
        self._before = self._summed(self._reader.ended(None))
        self._fresh()

    def open(self, content_type: str) -> None:
        """An answer of this kind begins."""
        self._kind = content_type.partition(";")[0].strip().lower()

    def feed(self, piece: bytes) -> list[Report]:
        """What a piece of the body means."""
        self._size += len(piece)
        if self._kind in _EVENTS:
            found = [self._reader.heard("stdout", line) for line in self._lines.feed(piece)]
            return [self._summed(report) for reports in found for report in reports]
        if self._size <= MOST_BYTES:
            self._whole += piece
        return []

    def close(self) -> list[Report]:
        """What the end of the body means."""
        if self._kind in _EVENTS:
            found = [report for line in self._lines.close() for report in self._reader.heard("stdout", line)]
        elif self._size > MOST_BYTES:
            found = self._read({"type": "error", "data": {"error": f"its answer has more than {MOST_BYTES >> 20} MiB"}})
        else:
            found = self._read_whole()
        return [self._summed(report) for report in found]

    def ended(self, why: str) -> Report:
        """EXITED; ``why`` it failed, empty when there was an answer."""
        report = self._summed(self._reader.ended(0))
        if why:
            return msgspec.structs.replace(report, status="error", text=why)
        if report.status == "error" and not self._reader.terminal:
            return msgspec.structs.replace(report, text="its answer says nothing of an end")
        return msgspec.structs.replace(report, text=report.text.removeprefix("exit 0: "))

    def _read(self, *events: dict[str, Any]) -> list[Report]:
        return [report for event in events for report in self._reader.read(event)]

    def _read_whole(self) -> list[Report]:
        text = bytes(self._whole).decode(errors="replace")
        document: Any = None
        if self._kind.endswith("json"):
            try:
                document = json.loads(text)
            except (ValueError, RecursionError):
                return self._read(_error("its answer says that it is JSON, and is none"))
        if isinstance(document, dict):
            return self._read_document(document)
        if not text.strip():
            return []
        # Told once, with the end: the result may be long.
        return [msgspec.structs.replace(one, text="") for one in self._read(_finish("success", text))]

    def _read_document(self, document: dict[str, Any]) -> list[Report]:
        """One object that says it all; an event as in a stream is read as one."""
        if isinstance(document.get("type"), str):
            return self._read(document)
        found = self._read(*_costs(document.get("cost")))
        error = document.get("error")
        fails = document.get("success") is False or document.get("valid") is False
        if error or fails:
            return found + self._read(_error(error if isinstance(error, str) else "it says that it failed"))
        status = document.get("status", "success")
        result = next((v for key in ("result", "code", "text") if isinstance(v := document.get(key), str)), "")
        if isinstance(status, str) and meaning(status) == "success" and (files := document.get("files")):
            problem = write_files(self._workspace, files)
            if problem:
                return found + self._read(_error(problem))
        end = self._read(_finish(status if isinstance(status, str) else "", result))
        return found + [msgspec.structs.replace(one, text="", data={}) for one in end]

    def _summed(self, report: Report) -> Report:
        """With what earlier tries spent."""
        before = self._before
        if report.kind not in (Kind.USAGE, Kind.EXITED, Kind.TOOL):
            return report
        known = [usd for usd in (before.cost_usd, report.cost_usd) if usd is not None]
        return msgspec.structs.replace(
            report,
            cost_usd=sum(known) if known and report.kind is not Kind.TOOL else report.cost_usd,
            tokens_in=before.tokens_in + report.tokens_in,
            tokens_out=before.tokens_out + report.tokens_out,
            steps=before.steps + report.steps,
        )


def _finish(status: str, result: str) -> dict[str, Any]:
    return {"type": "finish", "data": {"status": status, "result": result}}


def _error(text: str) -> dict[str, Any]:
    return {"type": "error", "data": {"error": text}}


def _costs(cost: object) -> list[dict[str, Any]]:
    if is_usd(cost):
        return [{"type": "cost", "data": {"total": cost}}]
    return [{"type": "cost", "data": cost}] if isinstance(cost, dict) else []


def write_files(workspace: Path, files: object) -> str:
    """Lay the files of an answer into the workspace. Returns what is wrong with them, before anything is written."""
    if not isinstance(files, dict) or len(files) > MOST_FILES:
        return f"its files are no object of paths and texts, or more than {MOST_FILES}"
    root = workspace.resolve()
    wanted: dict[Path, str | None] = {}
    for name, text in files.items():
        path = (root / name).resolve() if "\0" not in name else root
        if not path.is_relative_to(root) or path == root or ".git" in path.relative_to(root).parts:
            return f"{name!r} is no path inside of the workspace"
        if text is not None and not isinstance(text, str):
            return f"the content of {name!r} is no text"
        wanted[path] = text
    try:
        for path, text in wanted.items():
            if text is None:
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode(errors="replace"))
    except OSError as error:
        return f"cannot write {error.filename!r}: {(error.strerror or str(error)).lower()}"
    return ""
