"""Sessions: work on orders with a process of your own, through the controller when one runs, else by the log itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from shopfloor.app import holders
from shopfloor.app.wiring import Place
from shopfloor.domain.errors import Led, NotFound, Refused, ShopfloorError
from shopfloor.domain.holder import Holder, Wanted
from shopfloor.domain.order import Record
from shopfloor.engine.direct import AHEAD, Direct, Held
from shopfloor.engine.hands import Back, Claimed, Work
from shopfloor.engine.journal import Journal
from shopfloor.ports import Query
from shopfloor.stores.workdir import controller_alive
from shopfloor.wire.client import HungUp, Wire

LISTENS_S = 10.0
"""How long a controller that is alive may take until it listens: it checks the base first, or is about to end."""
_PAUSE_S = 0.05
T = TypeVar("T")


class WorkSession:
    """``async with floor.session("my-tool") as session: orders = await session.claim(3)``.

    What this process holds is given back at the end of the block, and when the process ends in any other way. With
    ``pid`` of another process that one is the holder: what it claimed stays its own until it ends.
    """

    def __init__(self, place: Place, journal: Journal, holder: Holder, *, ahead: int = AHEAD) -> None:
        self.holder = holder
        self._ahead = ahead
        self._place = place
        self._journal = journal
        self._store = journal.store
        self._direct = self._new_direct()
        self._wire: Wire | None = None
        self._mine: dict[str, str] = {}
        """order -> the attempt by which it is ours, as far as this object knows"""

    async def claim(
        self, limit: int = 1, *, orders: Iterable[str] = (), types: Iterable[str] = (), agents: Iterable[str] = (),
        run: str = "", metadata: Mapping[str, Iterable[str]] | None = None,
        without: Mapping[str, Iterable[str]] | None = None,
    ) -> list[Claimed]:  # fmt: skip
        """Up to ``limit`` orders that are ready now, the next ones first, durably ours; perhaps none.

        ``orders`` are ids, ``types`` values of ``issue_type``, ``agents`` profiles that an order names. ``metadata``
        has for each key the texts of which the order's metadata has one (an empty one: it has no such key),
        ``without`` those of which it has none. Raises Refused when a controller is alive and does not listen.
        """
        wanted = Wanted(
            orders=tuple(orders), types=tuple(types), agents=tuple(agents), run=run,
            metadata={key: tuple(values) for key, values in (metadata or {}).items()},
            without={key: tuple(values) for key, values in (without or {}).items()},
        )  # fmt: skip
        request = {"verb": "claim", "limit": limit, "wanted": msgspec.to_builtins(wanted)}

        async def directly(direct: Direct) -> list[Claimed]:
            return await direct.claim(limit, wanted)

        asked_at = int(self._place.clock.wall() * 1000) / 1000  # as the log writes times
        claimed = await self._either(request, _claims, directly, lambda: self._missed(asked_at))
        self._mine.update((claim.id, claim.attempt) for claim in claimed)
        return claimed

    async def release(
        self, order: str, why: str = "", *, force: bool = False, failed: bool = False, delay_s: float = 0.0,
        aside: str = "",
    ) -> Record | None:  # fmt: skip
        """Give an order back, so that others may claim it; ``force``: whoever holds it. Raises NotFound, Refused.

        ``failed``: this attempt came to nothing, which is counted, and the next one is told why. Nobody may claim it
        before ``delay_s`` have passed; with ``aside``, a status such as ``blocked``, not before its status is ``open``.
        Returns what the order is then, where that is known without asking.
        """
        back = Back(why=why, failed=failed, delay_s=delay_s, aside=aside)
        request = {"verb": "release", "order": order, "back": msgspec.to_builtins(back), "force": force}

        async def directly(direct: Direct) -> Record | bool:
            return await direct.release(order, back, force=force)

        given = await self._either(request, lambda _reply: True, directly, lambda: self._gone(order))
        self._mine.pop(order, None)
        return given if isinstance(given, Record) else None

    async def finish(self, order: str, *, text: str = "", commit: str = "") -> Record | None:
        """Hand in work: an answer, or a commit that is verified and landed by the controller of its run.

        Nothing is done by saying so. Returns what the order is then, where that is known without asking: a controller
        may go on with it at once. Raises NotFound for an unknown commit or an order that is not ours, Refused for
        work that is not what the order hands back, or that changes nothing.
        """
        attempt = self._mine.get(order, "")
        if commit or not attempt:
            found = await self._held(order)
            attempt = found.attempt
        work = msgspec.structs.replace(self._work(found, commit) if commit else Work(), text=text)
        request = {"verb": "finish", "order": order, "work": msgspec.to_builtins(work)}

        async def directly(direct: Direct) -> Record | bool:
            return await direct.finish(order, work)

        done = await self._either(request, lambda _reply: True, directly, lambda: self._handed_in(order, attempt))
        self._mine.pop(order, None)
        return done if isinstance(done, Record) else None

    @property
    def claimed(self) -> frozenset[str]:
        """Ids of what this object has claimed and not given away, as far as it knows."""
        return frozenset(self._mine)

    def forget(self, order: str) -> None:
        """Do not give it back at the end: it was taken back already."""
        self._mine.pop(order, None)

    async def held(self, order: str = "") -> list[Held]:
        """What this session holds now, or only this order if it does."""
        query = Query(what="held", order=order)
        rows = [msgspec.convert(row, Held) for row in await self._store.query(query)]
        return [row for row in rows if row.holder.identity == self.holder.identity]

    async def close(self) -> None:
        """Give back what this process itself holds, and hang up."""
        if self.holder.pid == os.getpid():
            for order in list(self._mine):
                with suppress(ShopfloorError):  # it was stopped, or taken back, meanwhile
                    await self.release(order, "its session has ended")
        await self._hang_up()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- inside: by socket or by log --------------------------------------------------------------------------------

    async def _either(
        self,
        request: Mapping[str, Any],
        read: Callable[[dict[str, Any]], T],
        directly: Callable[[Direct], Awaitable[T]],
        after_all: Callable[[], Awaitable[T | None]],
    ) -> T:
        """Through the controller when one is alive, else by the log; ``after_all``: what came of a lost reply."""
        limit = self._place.clock.awake() + LISTENS_S
        in_doubt = False
        while True:
            try:
                if in_doubt and (found := await after_all()):
                    return found
                if controller_alive(self._place.work) is None:
                    return await directly(self._direct)
                if wire := await self._connected():
                    in_doubt = True
                    return read(await wire.ask({**request, "holder": msgspec.to_builtins(self.holder)}))
            except (Led, HungUp):
                await self._hang_up()
                self._direct = self._new_direct()
            except ShopfloorError:
                in_doubt = False
                raise
            if self._place.clock.awake() > limit:
                text = f"a controller is alive, but it has not listened for {LISTENS_S:g} s"
                raise Refused(text, hint="look with `shopfloor status`, and try again")
            await asyncio.sleep(_PAUSE_S)

    async def _connected(self) -> Wire | None:
        if self._wire is None:
            self._wire = await Wire.connect(self._place.work)
        return self._wire

    async def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close()

    def _new_direct(self) -> Direct:
        return Direct(self._journal, self.holder, alive=holders.alive, ahead=self._ahead)

    # -- inside: what a lost reply would have said ------------------------------------------------------------------

    async def _missed(self, since: float) -> list[Claimed]:
        """What became ours at a time or later, without our having been told."""
        known = set(self._mine.values())
        new = [row for row in await self.held() if row.claimed_at >= since and row.attempt not in known]
        return [
            Claimed.of(
                row.order,
                {"generation": row.generation, "attempt": row.attempt, "branch": row.branch, "base": row.base},
                row.order.instruction,
            )
            for row in new
        ]

    async def _gone(self, order: str) -> bool:
        return not await self.held(order)

    async def _handed_in(self, order: str, attempt: str) -> bool:
        rows = await self._store.query(Query(order=order))
        records = [msgspec.convert(row["record"], Record) for row in rows]
        return any(a.id == attempt and a.outcome == "completed" for r in records for a in r.attempts)

    # -- inside: the commit -----------------------------------------------------------------------------------------

    async def _held(self, order: str) -> Held:
        found = next(iter(await self.held(order)), None)
        if found is None:
            raise NotFound(f"this session does not hold {order!r}", hint=f"shopfloor claim, or: shopfloor show {order}")
        return found

    def _work(self, held: Held, name: str) -> Work:
        """The commit as it is handed in, kept on the branch of the attempt whatever becomes of its own."""
        git = self._place.git()
        commit = git.rev_parse(name)
        base = git.merge_base(held.base, commit) if held.base else ""
        if held.base and not base:
            raise Refused(
                f"{name!r} has no history in common with {held.base[:12]}", hint="start from the order's base"
            )
        if commit == base and not held.order.allow_no_changes:
            raise Refused(f"{name!r} changes nothing: {held.base[:12]} has it already", hint="commit your work first")
        git.update_ref(f"refs/heads/{held.branch}", commit, reason="shopfloor: handed in")
        files = git.changed(base, commit) if base else ()
        return Work(commit=commit, tree=git.tree_of(commit), base=base, files=files)


def _claims(reply: Mapping[str, Any]) -> list[Claimed]:
    return msgspec.convert(reply.get("orders", []), list[Claimed])
