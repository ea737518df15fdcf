"""What agents send: requests of talk at the controller's socket, and lines to our MCP server."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import msgspec

from campaigns.fuzz import corpus
from campaigns.fuzz.mutate import Mutator
from campaigns.fuzz.target import READ, REFUSED, Target, holds
from shopfloor.app import holders
from shopfloor.app.leading import new_event_id
from shopfloor.app.wiring import SystemClock
from shopfloor.domain.board import creation
from shopfloor.domain.errors import ShopfloorError
from shopfloor.domain.events import E
from shopfloor.domain.floor import Floor
from shopfloor.engine.control import Control
from shopfloor.engine.counter import Counter
from shopfloor.engine.journal import Draft, Journal
from shopfloor.engine.requests import Desk
from shopfloor.mcp.server import Server
from shopfloor.mcp.verbs import VERBS
from shopfloor.ports import Caller, Runner
from shopfloor.runners.local import LocalRunner
from shopfloor.stores.memory import MemoryStore

ANEW = 500
"""Inputs for one floor: a log that grows without end would be what is measured."""
_ORDER = corpus.ORDERS[0]
_ATTEMPT = f"{_ORDER.id}.a1"
_CALLERS = holders.Callers(b"key", (corpus.SECRET,))


class _Behind:
    """A floor with one order at work, behind its counter."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.inputs = 0
        self._begin()

    def _begin(self) -> None:
        clock = SystemClock()
        self.journal = Journal(MemoryStore(clock=clock), Floor(), clock, new_event_id)
        desk = Desk(self.journal, runner=_no_runner(), stop=lambda _why: None)
        self.counter = Counter(self.journal, desk, callers=_CALLERS, spawn=lambda work: work.close())
        self.loop.run_until_complete(self._work())

    async def _work(self) -> None:
        journal = self.journal
        journal.generation = await journal.store.lead({})
        await journal.take_stock()
        run = {"run_id": corpus.RUN, "branch": "main", "ref": "refs/x", "base": "b" * 40, "land": "auto"}
        created = [Draft(E.CREATED, creation(order)) for order in corpus.ORDERS]
        await journal.commit(Draft(E.RUN_STARTED, run), *created, run=corpus.RUN)
        journal.floor.open(corpus.RUN, journal.now())
        of = {"work_order_id": _ORDER.id, "generation": 1}
        await journal.commit(Draft(E.ASSIGNED, {**of, "attempt": _ATTEMPT, "agent": "a"}), run=corpus.RUN)
        await journal.commit(Draft(E.AGENT_STARTED, {**of, "handle": {"driver": "x", "pid": 0}}), run=corpus.RUN)

    def ask(self, request: dict[str, Any]) -> tuple[bool, int]:
        """Whether it was taken, and how many lines it made."""
        self.inputs += 1
        if self.inputs % ANEW == 0:
            self._begin()
        before = len(self.journal.floor.board.records), self.journal.floor.board.last_event
        try:
            reply = self.loop.run_until_complete(self.counter.answer(Caller(number=1), request))
        except ShopfloorError as problem:
            holds(problem.message, "refused without a word", request)
            return False, int(before[1] != self.journal.floor.board.last_event)
        msgspec.json.encode(reply)
        return True, int(before[1] != self.journal.floor.board.last_event)


def _no_runner() -> Runner:
    async def execute(*_: object) -> None: ...

    return LocalRunner(execute, lambda: Control(lambda _attempt, _text, _delivery: None))


_behind: list[_Behind] = []


def _request(m: Mutator) -> bytes:
    what = m.random.choice([*VERBS, "nonesuch"])
    token = _CALLERS.token(_ATTEMPT) if m.random.random() < 0.7 else "t"
    speaker = {"order": _ORDER.id, "attempt": _ATTEMPT, "generation": 1, "token": token}
    words = {"text": "x", "question": "y?", "to": "beta", "body": "z", "subject": "s", "priority": "low", "order": "b"}
    return m.json({"verb": "talk", "what": what, "speaker": speaker, "actor": "human:x", **words})


def _check_request(data: bytes) -> str:
    """Any object is answered or refused in words, and who cannot show its token changes nothing as an agent."""
    try:
        request = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return REFUSED
    request = {**request, "verb": "talk"}
    request.pop("wait_s", None)
    if not _behind:
        _behind.append(_Behind())
    taken, changed = _behind[0].ask(request)
    speaker = request.get("speaker")
    known = isinstance(speaker, dict) and speaker.get("token") == _CALLERS.token(_ATTEMPT)
    if speaker is not None and not known:
        holds(not taken and not changed, "spoke without its token", request)
    return READ if taken else REFUSED


def _messages(m: Mutator) -> bytes:
    method = m.random.choice(("initialize", "tools/list", "tools/call", "ping", "server/discover"))
    params = {"name": m.random.choice([*VERBS]), "arguments": {"text": "x"}, "protocolVersion": "2025-06-18"}
    good = m.json({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    return (good if m.random.random() < 0.5 else m.data(good)) + b"\n"


def _check_messages(data: bytes) -> str:
    """Whatever comes, what goes out is JSON-RPC, one message a line, and nothing is raised."""
    out = io.BytesIO()
    Server(out, {}).serve(io.BytesIO(data))
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    for answer in answers:
        holds(answer["jsonrpc"] == "2.0" and ("result" in answer) != ("error" in answer), "no answer", answer)
    holds(len(answers) <= data.count(b"\n") + 1, "more answers than lines", answers)
    return READ if any("result" in answer for answer in answers) else REFUSED


TARGETS = (
    Target("talk", _request, _check_request, 2),
    Target("mcp", _messages, _check_messages, 3),
)
