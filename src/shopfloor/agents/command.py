"""Any command as an agent: the prompt goes in, lines come out, the exit code decides."""

from __future__ import annotations

from shopfloor.agents._lines import Line
from shopfloor.agents._preset import PresetAgent
from shopfloor.agents._run import Reader
from shopfloor.ports import Kind, Launch, Report

LINE_BYTES = 1 << 20
LAST_CHARS = 300
"""of the line that is told as the reason"""


class CommandAgent(PresetAgent):
    """Runs the profile's command. What it spends cannot be seen."""

    driver = "command"

    def reader(self, launch: Launch) -> Reader:
        """Every line is text."""
        return PlainReader(launch.profile.name)


class PlainReader:
    """Takes every line for text; exit code 0 is success."""

    line_bytes = LINE_BYTES
    masked = True

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: dict[str, str] = {}

    def started(self) -> list[Report]:
        return [Report(kind=Kind.STARTED, text=self._name)]

    def heard(self, stream: str, line: Line) -> list[Report]:
        """One TEXT; ``data`` names the stream when it is stderr, and tells when the line was cut."""
        data: dict[str, object] = {"stream": stream} if stream != "stdout" else {}
        if line.cut:
            data["cut"] = True
        text = line.data.decode(errors="replace")
        if text.strip():
            self._last[stream] = text.strip()[:LAST_CHARS]
        return [Report(kind=Kind.TEXT, text=text, data=data)]

    def ended(self, code: int | None) -> Report:
        """EXITED: completed for exit code 0; else its text is the last thing that the agent said."""
        if code == 0:
            return Report(kind=Kind.EXITED, status="completed")
        return Report(kind=Kind.EXITED, status="error", text=self._last.get("stderr") or self._last.get("stdout") or "")
