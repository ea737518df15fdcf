"""One attempt's talk with Claude Code by two-way stream-json: pure, lines in, reports and answers out.

It sends the prompt, answers what is asked, hears every turn, and closes stdin when the last one is over and nothing is
pending: no words that the model has not seen, no command in the background. The last result counts, and no word of it
alone: a run in which everything was denied calls itself a success.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from shopfloor.agents import _claude_wire as wire
from shopfloor.agents._answers import yes_or_no
from shopfloor.agents._claude_result import Spent, judge
from shopfloor.agents._dialect import Dialect, Wait
from shopfloor.agents._json import decode
from shopfloor.agents._lines import Line
from shopfloor.agents._tidy import TEXT_CHARS, Tidy
from shopfloor.masking import Masker
from shopfloor.ports import Delivery, Kind, Launch, Report

LINE_BYTES = 16 << 20
"""An event carries whole files."""
HELLO_S = 90.0
"""to its first word: it starts MCP servers before"""
BACKGROUND_S = 300.0
"""for commands that it left in the background at the end of a turn"""
NEXT_S = 60.0
"""for the turn that follows when such a command has ended, or when there are words that the model has not seen"""
EXIT_S = 30.0
"""from the end of its stdin to its own; hooks may run then"""
NOT_ALLOWED = "Not allowed: this agent runs without permission for that. Go on without it."
_QUIET = frozenset({"stream_event", "keep_alive", "command_lifecycle", "control_response", "tool_progress"})
_OVER = frozenset({"completed", "failed", "killed", "stopped"})


class Asked(NamedTuple):
    """A request that waits for a person."""

    key: str
    tool: str
    given: Any
    use: str

    @property
    def question(self) -> bool:
        return self.tool == "AskUserQuestion"


class Talk(Dialect):
    """Speaks with one Claude Code."""

    line_bytes = LINE_BYTES

    def __init__(
        self, launch: Launch, *, wall: Callable[[], float], key: Callable[[], str] = lambda: str(uuid4())
    ) -> None:
        super().__init__()
        self._launch, self._wall, self._key = launch, wall, key
        self._tidy = Tidy(Masker(launch.secrets))
        self._spent = Spent()
        self._session = self._terminal = self._why = self._last_error = ""
        self._heard_any = self._resting = False
        self._unseen: dict[str, str] = {}
        self._tools: dict[str, str] = {}
        self._messages: set[str] = set()
        self._tasks: set[str] = set()
        self._asked: list[Asked] = []
        self._denied: dict[str, str] = {}
        self._worked = False
        self._reset_at: float | None = None
        self._aside: list[Report] = []
        self._first = ""

    # -- the dialect --------------------------------------------------------------------------------------------------

    @property
    def waits(self) -> Wait | None:
        if self.done:
            return Wait("its end", EXIT_S)
        if not self._heard_any:
            return Wait("its first word", HELLO_S)
        if self._resting and self._tasks:
            return Wait("its commands in the background", BACKGROUND_S)
        return Wait("its next turn", NEXT_S) if self._resting else None

    def overdue(self) -> Sequence[Report]:
        self.dismissed = True
        if self.done:
            return []
        self.done = True
        if not self._heard_any:
            self._terminal, self._why = "failed", f"it said nothing within {HELLO_S:g} s"
            return [Report(kind=Kind.ERROR, status="timeout", text=self._why)]
        self.say(wire.control("end", "end_session", reason="done"))
        left = len(self._tasks)
        what = f"{left} of its commands still ran in the background {BACKGROUND_S:g} s after its last turn: ended"
        return [Report(kind=Kind.LOG, status="warning", text=what)] if left else []

    def started(self) -> list[Report]:
        self.say(wire.control(wire.INIT, wire.INIT, hooks=None))
        self._first = self._tell(self._launch.prompt)
        return []

    def heard(self, stream: str, line: Line) -> list[Report]:
        """What one line means; nothing for a blank one."""
        event = None if line.cut or stream != "stdout" else decode(line.data)
        if event is None:
            return self._noise(stream, line)
        self._heard_any = True
        kind = event["type"]
        known = {
            "system": self._system,
            "assistant": self._assistant,
            "user": self._user,
            "result": self._result,
            "control_request": self._control,
            "control_cancel_request": self._cancelled,
            "rate_limit_event": self._rate_limit,
        }
        if kind in known:
            return known[kind](event)
        return [] if kind in _QUIET else [self._unknown(event)]

    def told(self, text: str) -> str:
        """An answer to what it asked, or words that the model gets between two steps, or as its next turn."""
        self.delivery = Delivery.DELIVERED
        if self._asked and self._asked[0].question:
            self._answered(self._asked.pop(0), text)
            return ""
        found = yes_or_no(text) if self._asked else None
        if found is None:
            return self._tell(text)
        allowed, rest = found
        self._aside += self._decided(self._asked.pop(0), allowed=allowed, why="" if allowed else rest)
        return self._tell(rest) if allowed and rest else ""

    def aside(self) -> list[Report]:
        """What became known otherwise than by a line of the agent."""
        aside, self._aside = self._aside, []
        return aside

    def leave(self) -> None:
        """Interrupt the turn that runs, and end the session, background and all."""
        self.say(wire.control("interrupt", "interrupt") + wire.control("end", "end_session", reason="stopped"))
        self.done = True

    def ended(self, code: int | None) -> Report:
        """EXITED: completed only when its last turn succeeded and its exit code does not contradict."""
        how = "ended by a signal" if code is None else f"exit {code}"
        completed = self._terminal == "success" and (code == 0 or self.dismissed)
        why = self._why
        if self._terminal == "success" and not completed:
            why = f"{how} although it reported success"
        elif not self._terminal:
            why = f"{how} without a result" + (f": {self._last_error}" if self._last_error else "")
        return self._sums(Kind.EXITED, status="completed" if completed else "error", text=why, session=self._session)

    # -- what it says -------------------------------------------------------------------------------------------------

    def _system(self, event: dict[str, Any]) -> list[Report]:
        match event.get("subtype"):
            case "init":
                return self._init(event)
            case "api_retry":
                data: dict[str, Any] = {key: event.get(key) for key in ("attempt", "max_retries")}
                data["delay_s"] = wire.number(event.get("retry_delay_ms")) / 1000
                status = event.get("error_status")
                told = str(status) if isinstance(status, int) else ""
                text = self._tidy.text(wire.text(event, "error"))
                return [Report(kind=Kind.RETRYING, status=told, text=text, data=self._tidy.value(data))]
            case "permission_denied":
                return self._denies(wire.text(event, "tool_use_id"), wire.text(event, "tool_name"), event)
            case "task_started":
                self._tasks.add(wire.text(event, "task_id"))
            case "task_notification":
                self._tasks.discard(wire.text(event, "task_id"))
            case "task_updated" if wire.text(wire.table(event, "patch"), "status") in _OVER:
                self._tasks.discard(wire.text(event, "task_id"))
            case "background_tasks_changed":
                self._tasks = {wire.text(task, "task_id") for task in wire.tables(event, "tasks")}
        return []

    def _init(self, event: dict[str, Any]) -> list[Report]:
        """The first of them is the start; it comes again with every turn."""
        self._resting = False
        if self._session:
            return []
        self._session = self._tidy.text(wire.text(event, "session_id"))
        servers = {wire.text(one, "name"): wire.text(one, "status") for one in wire.tables(event, "mcp_servers")}
        data = {"version": wire.text(event, "claude_code_version"), "mode": wire.text(event, "permissionMode")}
        model = self._tidy.text(wire.text(event, "model"))
        data = self._tidy.value({**data, "servers": servers})
        reports = [Report(kind=Kind.STARTED, text=model, session=self._session, data=data)]
        for server in self._launch.servers:
            status = servers.get(server.name, "missing")
            if status not in ("connected", "pending"):
                text = f"it has no tools of MCP server {server.name!r}: {self._tidy.text(status)}"
                reports.append(Report(kind=Kind.LOG, status="warning", text=text))
        return reports

    def _assistant(self, event: dict[str, Any]) -> list[Report]:
        self._resting = False
        message = wire.table(event, "message")
        if message.get("model") != "<synthetic>":
            self._messages.add(wire.text(message, "id"))
        reports = []
        for block in wire.blocks(event):
            match block.get("type"):
                case "text":
                    reports.append(Report(kind=Kind.TEXT, text=self._tidy.text(wire.text(block, "text"))))
                case "thinking" if wire.text(block, "thinking"):
                    thought = self._tidy.text(wire.text(block, "thinking"))
                    reports.append(Report(kind=Kind.TEXT, text=thought, data={"thinking": True}))
                case "tool_use":
                    use, name = wire.text(block, "id"), wire.text(block, "name")
                    self._tools[use] = name
                    reports.append(self._tool(use, name, {"input": block.get("input")}))
        return reports

    def _user(self, event: dict[str, Any]) -> list[Report]:
        """Results of tools, or our own words again: then the model has them."""
        key = wire.text(event, "uuid")
        if event.get("isReplay") is True:
            words = self._unseen.pop(key, None)
            self.seen.add(key)
            if words is None or key == self._first:
                return []
            return [Report(kind=Kind.LOG, status="seen", text=self._tidy.text(words))]
        return [self._done(block) for block in wire.blocks(event) if block.get("type") == "tool_result"]

    def _done(self, block: dict[str, Any]) -> Report:
        use = wire.text(block, "tool_use_id")
        name = self._tools.get(use, "")
        bad = block.get("is_error") is True
        status = "denied" if use in self._denied else "error" if bad else "ok"
        self._worked = self._worked or (status == "ok" and name not in wire.LOOKING)
        return self._tool(use, name, {"output": wire.plain(block.get("content"))}, status=status)

    def _result(self, event: dict[str, Any]) -> list[Report]:
        reports = []
        for denial in wire.tables(event, "permission_denials"):
            use, name = wire.text(denial, "tool_use_id"), wire.text(denial, "tool_name")
            reports += self._denies(use, name, {"input": denial.get("tool_input")})
        self._spent.add(event)
        reports.append(self._sums(Kind.USAGE))
        verdict = judge(event, now_s=self._wall(), reset_at=self._reset_at)
        status, why, fault = verdict
        denied = ", ".join(dict.fromkeys(self._denied.values()))
        if status == "success" and denied and not self._worked:
            status, why = "failed", f"it was denied all that it wanted to do ({denied}), whatever it says: {why}"
        elif denied and status == "success":
            reports.append(Report(kind=Kind.LOG, status="warning", text=f"it was denied: {denied}"))
        self._terminal, self._why = status, self._tidy.text(why)
        if fault is not None:
            data: dict[str, Any] = {"http": fault.http} if fault.http else {}
            if fault.reset_at is not None:
                data["reset_at"] = fault.reset_at
            reports.append(Report(kind=Kind.ERROR, status=self._tidy.text(fault.status), text=self._why, data=data))
        reports.append(Report(kind=Kind.TURN_END, status=status, text=self._why))
        self._resting = True
        self.done = self.done or not (self._unseen or self._tasks) or (fault is not None and fault.status == "session")
        return reports

    def _rate_limit(self, event: dict[str, Any]) -> list[Report]:
        info = wire.table(event, "rate_limit_info")
        status, at = wire.text(info, "status"), wire.number(info.get("resetsAt"))
        if status == "rejected" and at:
            self._reset_at = float(at)
        if status in ("", "allowed"):
            return []
        return [Report(kind=Kind.LOG, status="warning", text=f"rate limit: {status}", data=self._tidy.value(info))]

    def _unknown(self, event: dict[str, Any]) -> Report:
        event = self._tidy.value(event)
        return Report(kind=Kind.LOG, text=str(event.get("type")), status="unknown", data=event)

    def _noise(self, stream: str, line: Line) -> list[Report]:
        text = self._tidy.line(line.data, cut=line.cut)
        if not text.strip():
            return []
        told: dict[str, Any] = {"stream": stream} if stream != "stdout" else {}
        if stream == "stderr":
            self._last_error = text.strip()[:500]
        if line.cut or len(text) > TEXT_CHARS:
            told["cut"] = True
        return [Report(kind=Kind.NOISE, text=text[:TEXT_CHARS], data=told)]

    # -- what it asks -------------------------------------------------------------------------------------------------

    def _control(self, event: dict[str, Any]) -> list[Report]:
        request, key = wire.table(event, "request"), wire.text(event, "request_id")
        subtype = wire.text(request, "subtype")
        if subtype != "can_use_tool":
            self.say(wire.refuse(key, f"{subtype} is not served here"))
            return []
        name = wire.text(request, "tool_name")
        asked = Asked(key, name, request.get("input"), wire.text(request, "tool_use_id"))
        rule = self._launch.profile.permissions
        ours = any(name.startswith(f"mcp__{server.name}__") for server in self._launch.servers)
        if asked.question:
            self._asked.append(asked)
            text = self._tidy.text(wire.asked(asked.given))
            return [Report(kind=Kind.ASKED, text=text, data=self._tidy.value({"input": asked.given}))]
        if ours or rule != "ask":
            return self._decided(asked, allowed=ours or rule == "allow")
        self._asked.append(asked)
        return [self._permission(asked.tool, "asked", asked.use, {"input": asked.given})]

    def _cancelled(self, event: dict[str, Any]) -> list[Report]:
        self._asked = [one for one in self._asked if one.key != wire.text(event, "request_id")]
        return []

    def _answered(self, asked: Asked, text: str) -> None:
        given = asked.given if isinstance(asked.given, dict) else {}
        answers = {wire.text(one, "question"): text for one in wire.questions(given)}
        self.say(wire.allow(asked.key, {**given, "answers": answers}))

    def _decided(self, asked: Asked, *, allowed: bool, why: str = "") -> list[Report]:
        if not allowed:
            self.say(wire.deny(asked.key, why or NOT_ALLOWED))
            return self._denies(asked.use, asked.tool, {"input": asked.given})
        self.say(wire.allow(asked.key, asked.given))
        return [self._permission(asked.tool, "allowed", asked.use, {"input": asked.given})]

    def _denies(self, use: str, name: str, data: dict[str, Any]) -> list[Report]:
        """Told once, whoever denied it."""
        if use in self._denied:
            return []
        self._denied[use] = self._tidy.text(name)
        told: dict[str, Any] = {key: data[key] for key in ("input", "message") if key in data}
        return [self._permission(name, "denied", use, told)]

    # -- reports ------------------------------------------------------------------------------------------------------

    def _permission(self, name: str, status: str, use: str, data: dict[str, Any]) -> Report:
        told = self._tidy.value({"id": use, **data})
        return Report(kind=Kind.PERMISSION, status=status, text=self._tidy.text(name), data=told)

    def _tool(self, use: str, name: str, data: dict[str, Any], status: str = "") -> Report:
        told = self._tidy.value({"id": use, **data})
        return Report(kind=Kind.TOOL, status=status, text=self._tidy.text(name), steps=len(self._messages), data=told)

    def _sums(self, kind: Kind, **fields: Any) -> Report:
        spent = self._spent
        into, out = spent.tokens_in, spent.tokens_out
        return Report(
            kind=kind, cost_usd=spent.usd, tokens_in=into, tokens_out=out, steps=len(self._messages), **fields
        )

    def _tell(self, text: str) -> str:
        key = self._key()
        self._unseen[key] = text
        self.say(wire.user(text, key))
        return key
