"""One attempt's talk in the Agent Client Protocol: pure, lines in, reports and answers out.

It opens a session, sets the mode, sends the prompt, answers what is asked, and judges the end of each turn. Words that
arrive while a turn runs are its next prompt. When there is nothing more to say it closes stdin, which ends the agent.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from acp import schema
from pydantic import BaseModel

from shopfloor.agents import _acp_wire as wire
from shopfloor.agents._acp_files import Outside, WorkspaceFiles
from shopfloor.agents._acp_permits import Asked, Permits, response
from shopfloor.agents._acp_presets import Preset
from shopfloor.agents._acp_turn import Turn
from shopfloor.agents._acp_updates import Updates
from shopfloor.agents._dialect import Dialect, Wait
from shopfloor.agents._faults import classify
from shopfloor.agents._lines import Line
from shopfloor.agents._tidy import TEXT_CHARS, Tidy
from shopfloor.masking import Masker
from shopfloor.ports import Delivery, Kind, Launch, Report

LINE_BYTES = 16 << 20
WORDS_S = 0.3
"""how long words wait for more of them"""

Answered = Callable[[wire.Message], list[Report]]


class Talk(Dialect):
    """Speaks with one agent."""

    line_bytes = LINE_BYTES

    def __init__(self, launch: Launch, preset: Preset, *, wall: Callable[[], float], hello_s: float) -> None:
        super().__init__()
        self._launch, self._preset, self._wall, self._hello_s = launch, preset, wall, hello_s
        self._tidy = Tidy(Masker(launch.secrets))
        self._files = WorkspaceFiles(launch.workspace)
        self.permits = Permits(launch.profile.permissions)
        self._asked: dict[int, Answered] = {}
        self._count = 0
        self._queue: deque[tuple[str, str]] = deque()
        self._updates = Updates(preset, self._tidy)
        self._resuming = ""
        self._leaving = False
        self._step = wire.INITIALIZE
        self._agent: dict[str, str] = {}
        self._session = self._shown_session = ""
        self._terminal = self._why = ""
        self._logins: set[str] = set()
        self._can_load = self._can_resume = False
        self._aside: list[Report] = []

    # -- the dialect --------------------------------------------------------------------------------------------------

    @property
    def waits(self) -> Wait | None:
        if self.done:
            return Wait("its end", self._preset.exit_s)
        if self._updates.turn:
            return Wait("more words", WORDS_S) if self._updates.holds else None
        return Wait(self._step, self._hello_s)

    def overdue(self) -> Sequence[Report]:
        if self._updates.turn and not self.done:
            return self._updates.flushed()
        self.dismissed = True
        if self.done:
            return []
        return self._fault(f"no answer to {self._step} within {self._hello_s:g} s", name="timeout")

    def started(self) -> list[Report]:
        self._ask(wire.INITIALIZE, wire.hello(files=self._preset.files), self._greeted)
        return []

    def heard(self, stream: str, line: Line) -> list[Report]:
        """What one line means; nothing for a blank one."""
        message = None if line.cut or stream != "stdout" else wire.decode(line.data)
        if message is None:
            noise = self._tidy.noise(stream, line)
            return [*self._updates.flushed(), *noise] if noise else []
        return self._means(message)

    def _means(self, message: wire.Message) -> list[Report]:
        if not (message.method == wire.UPDATE and message.id is None):
            return [*self._updates.flushed(), *self._reacts(message)]
        return self._updates.heard(message.params)

    def _reacts(self, message: wire.Message) -> list[Report]:
        if message.method and message.id is None:
            return self._notified(message)
        if message.method:
            return self._served(message, message.id or 0)
        answered = self._asked.pop(message.id, None) if isinstance(message.id, int) else None
        return answered(message) if answered and not self.done else []

    def told(self, text: str) -> str:
        """An answer to what it asked, or its next prompt."""
        self.delivery = Delivery.DELIVERED
        answer = self.permits.answered(text)
        if answer is not None:
            self._aside += self._permitted(answer.asked, allowed=answer.allowed)
            text = answer.rest
            if not text:
                return ""
        self.delivery = Delivery.QUEUED
        self._count += 1
        key = f"words {self._count}"
        self._queue.append((key, text))
        return key

    def leave(self) -> None:
        """Cancel the turn that runs; its end is the end of the talk."""
        self._leaving = True
        self._queue.clear()
        if self._updates.turn is None:
            self.done = True
            return
        for key in self.permits.dropped():
            self.say(wire.answer(key, wire.cancelled()))
        self.say(wire.notification(wire.CANCEL, schema.CancelNotification(session_id=self._session)))

    def aside(self) -> list[Report]:
        """What became known otherwise than by a line of the agent."""
        aside, self._aside = self._aside, []
        return [*self._updates.flushed(), *aside]

    def ended(self, code: int | None) -> Report:
        """EXITED: completed only when its last turn succeeded and it did not end by itself in another way."""
        completed = self._terminal == "success" and (code == 0 or self.dismissed)
        how = "ended by a signal" if code is None else f"exit {code}"
        if self._terminal == "success":
            why = self._why if completed else f"{how} although it reported success"
        else:
            why = (
                self._why
                if self.dismissed
                else f"{how}: {self._why}"
                if self._why
                else f"{how} in the middle of its turn"
            )
        status = "completed" if completed else "error"
        return self._updates.sums(Kind.EXITED, status=status, text=why[:TEXT_CHARS], session=self._shown_session)

    # -- until the prompt is sent -------------------------------------------------------------------------------------

    def _ask(self, method: str, body: Any, answered: Answered) -> None:
        self._count += 1
        self._asked[self._count] = answered
        self._step = method
        self.say(wire.request(self._count, method, body))

    def _greeted(self, message: wire.Message) -> list[Report]:
        hello = wire.read(schema.InitializeResponse, message.result)
        if hello is None:
            return self._failed(message, "initialize")
        if hello.protocol_version != wire.VERSION:
            what = f"it speaks version {hello.protocol_version} of the protocol, not {wire.VERSION}"
            return self._fault(what, name="protocol")
        if hello.agent_info:
            self._agent = {"agent": hello.agent_info.name, "version": hello.agent_info.version}
        # Where these are off, the package hands over what it made of them instead of its types.
        can = hello.agent_capabilities
        if isinstance(can, schema.AgentCapabilities):
            self._can_load = bool(can.load_session)
            session = can.session_capabilities
            self._can_resume = isinstance(session, schema.SessionCapabilities) and session.resume is not None
        self._logins = {str(getattr(method, "id", "")) for method in hello.auth_methods or ()}
        return self._open(self._launch.session)

    def _open(self, session: str) -> list[Report]:
        """Ask for a session: that one again, where the agent can, else a new one."""
        servers, cwd = wire.servers(self._launch.servers), self._launch.workspace
        self._resuming = session if self._can_load or self._can_resume else ""
        if self._resuming and self._can_resume:
            again = schema.ResumeSessionRequest(session_id=session, cwd=cwd, mcp_servers=servers)
            self._ask(wire.RESUME, again, self._opened)
        elif self._resuming:
            load = schema.LoadSessionRequest(session_id=session, cwd=cwd, mcp_servers=servers)
            self._ask(wire.LOAD, load, self._opened)
        else:
            self._ask(wire.NEW, schema.NewSessionRequest(cwd=cwd, mcp_servers=servers), self._opened)
        if session and not self._resuming:
            return [self._warning("it cannot take up an earlier session; a new one begins")]
        return []

    def _opened(self, message: wire.Message) -> list[Report]:
        """A session stands, or why not."""
        code = (message.error or {}).get("code")
        if code == wire.AUTH_REQUIRED and self._preset.auth in self._logins:
            login = schema.AuthenticateRequest(method_id=self._preset.auth)
            self._logins.clear()  # once
            self._ask(wire.AUTHENTICATE, login, self._logged_in)
            return []
        if message.error and self._resuming:
            what = f"session {self._resuming!r} cannot be taken up ({message.error.get('message')}); a new one begins"
            return [self._warning(what), *self._open("")]
        modes = None
        if self._resuming:
            self._session = self._resuming
            loaded = wire.read(schema.LoadSessionResponse, message.result or {})
            modes = loaded.modes if loaded else None
        else:
            opened = wire.read(schema.NewSessionResponse, message.result)
            if opened is None:
                return self._failed(message, "session")
            self._session, modes = opened.session_id, opened.modes
        told = {**self._agent, **({"resumed": True} if self._resuming else {})}
        name = self._tidy.text(" ".join(self._agent.values())) or self._launch.profile.name
        self._shown_session = self._tidy.text(self._session)
        started = Report(kind=Kind.STARTED, text=name, session=self._shown_session, data=self._tidy.value(told))
        return [started, *self._set_mode(modes)]

    def _logged_in(self, message: wire.Message) -> list[Report]:
        return self._failed(message, "authenticate") if message.error else self._open(self._launch.session)

    def _set_mode(self, modes: schema.SessionModeState | None) -> list[Report]:
        mode = self._preset.modes.get(self._launch.profile.permissions, "")
        if not mode or (modes and modes.current_mode_id == mode):
            return self._begin()
        if self._leaving:
            self.done = True
            return []
        request = schema.SetSessionModeRequest(session_id=self._session, mode_id=mode)
        self._ask(wire.SET_MODE, request, lambda message: self._mode_set(mode, message))
        return []

    def _mode_set(self, mode: str, message: wire.Message) -> list[Report]:
        if message.error is None:
            return self._begin()
        what = f"it does not take mode {mode!r}: {message.error.get('message')}"
        if self._launch.profile.permissions != "allow":  # it might do what nobody allowed
            return self._fault(what, name="mode")
        return [self._warning(what), *self._begin()]

    def _begin(self) -> list[Report]:
        self._prompt(self._launch.prompt)
        return []

    def _prompt(self, text: str) -> None:
        if self._leaving:
            self.done = True
            return
        self._updates.begin()
        safe = text.encode(errors="replace").decode()
        self._ask(wire.PROMPT, wire.prompt(self._session, safe), self._turn_ended)

    # -- the end of a turn --------------------------------------------------------------------------------------------

    def _turn_ended(self, message: wire.Message) -> list[Report]:
        turn, self._updates.turn = self._updates.turn or Turn(self._preset), None
        self.permits.dropped()
        found = wire.read(schema.PromptResponse, message.result)
        if found is None:
            return self._failed(message, "prompt")
        usage = self._updates.counted(found)
        verdict = turn.judged(found.stop_reason, usage=bool(usage or found.usage))
        if verdict.fault:
            return [*usage, *self._fault(verdict.why)]
        self._terminal = verdict.status
        self._why = self._tidy.text(verdict.why or turn.said.strip())
        end = Report(kind=Kind.TURN_END, status=verdict.status, text=self._why, data={"reason": found.stop_reason})
        reports = [*usage, end]
        if self._queue and not self._leaving:
            key, text = self._queue.popleft()
            self._prompt(text)
            self.seen.add(key)
            return [*reports, Report(kind=Kind.LOG, status="delivered", text=self._tidy.text(text))]
        self.done = True
        return reports

    def _failed(self, message: wire.Message, step: str) -> list[Report]:
        """A step of the talk failed: with an error, or with an answer that is none."""
        if message.error is None:
            return self._fault(f"its answer to {step} cannot be understood", name="protocol")
        error = message.error
        said = error.get("message")
        data = error.get("data")
        text = f"{step}: {said}" if isinstance(said, str) and said else f"{step} failed"
        detail = data.get("details") or data.get("message") if isinstance(data, dict) else data
        if isinstance(detail, str) and detail not in text:
            text += f": {detail[:2000]}"
        code = error.get("code")
        if code == wire.AUTH_REQUIRED:
            return self._fault(text, name="auth", code=401, data=data)
        return self._fault(text, code=code, data=data)

    def _fault(self, text: str, *, name: str = "error", code: object = None, data: Any = None) -> list[Report]:
        """The talk ends here, by an error."""
        fault = classify(text, code=code, data=data, name=name, now_s=self._wall())
        self._terminal, self._why, self.done = "error", self._tidy.text(text), True
        self._updates.turn = None
        told: dict[str, Any] = {"reset_at": fault.reset_at} if fault.reset_at is not None else {}
        if fault.http:
            told["http_status"] = fault.http
        reports = [Report(kind=Kind.ERROR, status=self._tidy.text(fault.status), text=self._why, data=told)]
        if self._queue:
            reports.append(self._warning(f"{len(self._queue)} messages were not delivered"))
            self._queue.clear()
        return reports

    def _warning(self, text: str) -> Report:
        return Report(kind=Kind.LOG, status="warning", text=self._tidy.text(text))

    # -- what it says and asks ----------------------------------------------------------------------------------------

    def _notified(self, message: wire.Message) -> list[Report]:
        return [Report(kind=Kind.LOG, status="unknown", text=self._tidy.text(message.method))]

    def _served(self, message: wire.Message, key: wire.Id) -> list[Report]:
        """Answer a request of the agent, or let a person answer it."""
        if message.method == wire.PERMISSION:
            asked = wire.read(schema.RequestPermissionRequest, message.params)
            if asked is not None:
                return self._permission(key, asked)
        elif message.method == wire.READ:
            reading = wire.read(schema.ReadTextFileRequest, message.params)
            if reading is not None:
                return self._file(key, lambda: self._read(reading))
        elif message.method == wire.WRITE:
            writing = wire.read(schema.WriteTextFileRequest, message.params)
            if writing is not None:
                return self._file(key, lambda: self._write(writing))
        else:
            self.say(wire.refusal(key, wire.UNKNOWN_METHOD, "Method not found"))
            return [Report(kind=Kind.LOG, status="unknown", text=self._tidy.text(message.method))]
        self.say(wire.refusal(key, wire.INVALID, "Invalid params"))
        return [self._warning(f"a request {message.method!r} of the agent cannot be understood")]

    def _permission(self, key: wire.Id, asked: schema.RequestPermissionRequest) -> list[Report]:
        if self._leaving or self._updates.turn is None:
            self.say(wire.answer(key, wire.cancelled()))
            return []
        call = asked.tool_call
        begun = self._updates.asks(call)
        request = Asked(key, call.tool_call_id, self._updates.title(call), asked.options)
        allowed = self.permits.asked(request)
        if allowed is not None:
            return [*begun, *self._permitted(request, allowed=allowed)]
        told = {"id": self._tidy.text(request.tool), "options": ["allow", "deny"]}
        return [*begun, Report(kind=Kind.PERMISSION, status="asked", text=request.title, data=told)]

    def _permitted(self, asked: Asked, *, allowed: bool) -> list[Report]:
        self.say(wire.answer(asked.key, response(asked.options, allowed=allowed)))
        if not allowed and self._updates.turn:
            self._updates.turn.denies(asked.tool)
        told = {"id": self._tidy.text(asked.tool)}
        status = "allowed" if allowed else "denied"
        return [Report(kind=Kind.PERMISSION, status=status, text=asked.title, data=told)]

    def _read(self, asked: schema.ReadTextFileRequest) -> schema.ReadTextFileResponse:
        return schema.ReadTextFileResponse(content=self._files.read(asked.path, asked.line, asked.limit))

    def _write(self, asked: schema.WriteTextFileRequest) -> schema.WriteTextFileResponse:
        self._files.write(asked.path, asked.content)
        return schema.WriteTextFileResponse()

    def _file(self, key: wire.Id, serve: Callable[[], BaseModel]) -> list[Report]:
        """Read or write for the agent, or say why not."""
        try:
            self.say(wire.answer(key, serve()))
        except FileNotFoundError as error:
            self.say(wire.refusal(key, wire.NOT_FOUND, f"Resource not found: {error.filename}"))
        except Outside as error:
            self.say(wire.refusal(key, wire.INVALID, str(error)))
            return [self._warning(f"refused to the agent: {error}")]
        except OSError as error:
            self.say(wire.refusal(key, wire.INTERNAL, f"{error.filename!r}: {os.strerror(error.errno or 0).lower()}"))
        return []
