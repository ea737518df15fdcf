"""Mail of a person: by the controller when one runs, else straight into the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.domain import talk
from shopfloor.domain.board import Board
from shopfloor.domain.errors import Refused
from shopfloor.domain.events import E, stamp_time
from shopfloor.domain.talk import Message
from shopfloor.engine.journal import Draft, Journal
from shopfloor.engine.talk import find, mail_data
from shopfloor.ports import Clock, Query, Store
from shopfloor.stores.workdir import controller_alive
from shopfloor.wire.client import HungUp, Wire


class Mail:
    """``await floor.mail.send("fix-login", "…")`` and ``await floor.mail.inbox()``: messages that are read once."""

    def __init__(self, work: Path, journal: Journal, person: str, *, masked: Callable[[str], str]) -> None:
        self._work = work
        self._journal = journal
        self._store: Store = journal.store
        self._clock: Clock = journal.clock
        self._person = person
        self._masked = masked

    async def send(self, to: str, body: str, *, subject: str = "", priority: str = "normal") -> Message:
        """Write to an order's agent (by name or id), or to a person (``human``, ``human:NAME``).

        Raises NotFound for an unknown order, UsageError for words that are off, Refused when its inbox is full.
        """
        wish = {"to": to, "body": self._masked(body), "subject": self._masked(subject), "priority": priority}
        reply = await self._ask("send", wish)
        board = await self._board()
        if reply is not None:
            return board.mail.get(reply["id"]) or Message(id=reply["id"], sender=self._person, to=to, body=body)
        name = f"msg-{self._journal.new_id().removeprefix('evt-')}"
        known = (await self._board(to.removeprefix(talk.WORKERS))) if not talk.is_address(to) else board
        data, _ = mail_data(wish, sender=self._person, name=name, find=lambda n: find(known.find(n), n), about=None)
        event = self._journal.event(Draft(E.MAIL_SENT, data, self._person), None)
        sent = talk.sent(event)
        assert sent is not None  # it was just made from what was checked
        await self._store.append([event])
        return sent

    async def unread(self) -> list[Message]:
        """What waits for this person, and goes on waiting."""
        return talk.inbox((await self._board()).mail.values(), self._person)

    async def inbox(self) -> list[Message]:
        """What waits for this person, the urgent first; it is read with this."""
        reply = await self._ask("inbox", {})
        if reply is not None:
            return msgspec.convert(reply.get("messages", []), list[Message])
        now = stamp_time(self._clock.wall())
        found = await self.unread()
        drafts = [
            Draft(E.MAIL_READ, {"message_id": m.id, "reader": self._person, "read_at": now}, self._person)
            for m in found
        ]
        if drafts:
            await self._store.append([self._journal.event(draft, None) for draft in drafts])
        return [msgspec.structs.replace(message, read_at=now) for message in found]

    async def _ask(self, what: str, wish: dict[str, Any]) -> dict[str, Any] | None:
        """The reply of the controller; None when none is alive."""
        if controller_alive(self._work) is None or (wire := await Wire.connect(self._work)) is None:
            return None
        try:
            return await wire.ask({"verb": "talk", "what": what, "actor": self._person, **wish})
        except HungUp:
            raise Refused("the controller ended before it could answer", hint="try again") from None
        finally:
            await wire.close()

    async def _board(self, order: str = "") -> Board:
        (row,) = await self._store.query(
            Query(what="board", order=order) if order else Query(what="board", state="open")
        )
        board: Board = row["board"]
        return board
