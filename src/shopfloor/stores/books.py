"""The ``.work`` folder as one thread sees it: log, index and views kept in step. Everything here blocks."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.domain.errors import Conflict, Led, Refused, ShopfloorError
from shopfloor.domain.events import SCHEMA, E, Event, Stamp, stamp_time
from shopfloor.ports import Clock, Query
from shopfloor.stores.answers import meta_row, rows
from shopfloor.stores.changes import (
    Change,
    alternatives,
    check_expected,
    check_schema,
    check_session,
    may_wait,
    of_session,
    own_event,
    stamp,
    superseded,
)
from shopfloor.stores.codec import CANCEL, encode
from shopfloor.stores.durable import Durable
from shopfloor.stores.files import Lock, refusal
from shopfloor.stores.follow import Follower
from shopfloor.stores.index import Index
from shopfloor.stores.lead import Lead, controller_alive
from shopfloor.stores.log import Log
from shopfloor.stores.rows import claimed_generation
from shopfloor.stores.scan import Scanner
from shopfloor.stores.sheet import Findings
from shopfloor.stores.views import ORDERS, Views
from shopfloor.stores.wishes import changes_of, complaint_of

PATIENCE_S = 5.0
"""How long a program that does not lead waits for a peer that is writing a view."""

GLANCE_S = 0.3
"""The same for one that only reads."""

FOREIGN = f"file:{ORDERS}"
"""The actor of what other programs wrote there: nobody can tell which one it was."""


class Books:
    """Everything that a workdir store knows and writes."""

    def __init__(self, folder: Path, *, clock: Clock, random: Callable[[int], bytes]) -> None:
        self.folder = folder
        self.generation = 0
        """own generation as a controller; 0: it does not lead"""
        self.log = Log(folder)
        self.follower = Follower(self.log)
        self._clock = clock
        self._random = random
        self._lead = Lead(folder)
        self._views = Views(folder)
        self._turn = Lock(folder / ".publish.lock")
        self._durable = Durable(self.log)
        self._unpublished = False
        self._owed = False
        """the views lack what processes that live on said while nobody led"""
        self._said = 0
        """where the log ended after we last said something that the views lack"""

    # -- appending --------------------------------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change]) -> None:
        """Append all changes with one write; each gets its ``stamped`` events or its ``error``."""
        try:
            self._append(changes)
            self._append(self._late(changes))
        except ShopfloorError as problem:
            for change in changes:
                change.error = change.error or problem
            return
        # They are durable. Whatever is wrong with the folder comes up again in the next call.
        with contextlib.suppress(ShopfloorError):
            if self._unpublished and not self.generation:
                self._said = self.log.size()
                if all(map(may_wait, changes)):
                    self._owed = True  # one rewrite does for many
                elif not self._led():
                    self._publish_in_turn()

    def _late(self, changes: Sequence[Change]) -> list[Change]:
        """Those that found all they want told of, when it shows that there is something free after all."""
        late = [change for change in changes if change.at_most and change.done and not change.parts]
        if not late or not self.follower.told:
            return []
        self.follower.follow_in_turn(may_restart=not self.generation)
        self.follow()
        return [change for change in late if self.follower.any_at(change.expect)]

    def _append(self, changes: Sequence[Change]) -> None:
        self._durable.check()
        if not changes:
            return
        self.log.create()
        quick = not self.generation and all(map(of_session, changes))
        if not quick:
            self.follow()  # most of it before the lock, which others wait for
        with self.log.lock.held():
            sequence = self._glance(changes) if quick else None
            if sequence is None:
                self.follow(alone=True)
                sequence = self.follower.mark.sequence
            self.log.create()  # a log that somebody replaced was let go of
            clean = self.generation and not any(change.foreign for change in changes)
            lines = self._lines(changes, sequence)
            if not any(change.parts for change in changes):
                return
            known = self._durable.reached()
            written = self.log.write(lines, min(end for change in changes for end, _ in change.parts))
        if written.size or written.problem is None:
            self._durable.make(written, known=known, shared=not self.generation)
        whole = 0
        for change in changes:
            kept = [(end, events) for end, events in change.parts if end <= written.size]
            change.stamped = [event for _, events in kept for event in events]
            change.done = change.done or bool(kept)
            whole = max([whole, *(end for end, _ in kept)])
            if change.parts and not kept and written.problem is not None:
                change.error = refusal(f"append {len(change.events)} events to", self.log.path, written.problem)
        # It is durable. Whatever else is wrong with the folder comes up again in the next call.
        self._unpublished = True
        if not quick:
            with contextlib.suppress(ShopfloorError):
                events = [event for change in changes for event in change.stamped]
                if not (clean and self.follower.take_own(written, lines, events)):
                    self.follow()
        self._views.feed(lines[:whole].lstrip(CANCEL))

    def _glance(self, changes: Sequence[Change]) -> int | None:
        sequence = self.follower.glance()
        firm = {order for change in changes if not change.at_most for order in change.expect}
        told = self.follower.told
        # Whether what was told of concerns us is seen when it is followed: an order may have been given back meanwhile.
        return None if firm & told else sequence

    def _lines(self, changes: Sequence[Change], sequence: int) -> bytes:
        """What to write: every change that is allowed, and where in it each of its parts ends."""
        mark = self.follower.mark
        lines = bytearray(self.log.closing(self.follower.scanner))
        if not self.follower.scanner.seen:
            sequence += 1
            opening = self._own(E.LOG_OPENED, {"schema": SCHEMA})
            lines += encode(msgspec.structs.replace(opening, sf=Stamp(0, sequence)))
        claims: dict[str, int] = {}
        for change in changes:
            for part in alternatives(change, free=self._free):
                try:
                    self._check(part, claims)
                    stamped = stamp(part.events, 0 if change.foreign else self.generation, sequence + 1)
                    text = b"".join([encode(event) for event in stamped])
                except ShopfloorError as problem:
                    if change.at_most and isinstance(problem, Conflict) and not isinstance(problem, Led):
                        continue
                    change.error = problem
                    break
                for event in stamped:
                    if "generation" in event.data and (claimed := claimed_generation(event, mark.controller)):
                        order = event.order_id
                        claims[order] = max(claims.get(order, 0), claimed)
                sequence += 1
                lines += text
                change.parts.append((len(lines), stamped))
                if len(change.parts) == change.at_most:
                    break
            change.done = change.at_most > 0 and not change.parts
        return bytes(lines)

    def _free(self, order: str, generation: int) -> bool:
        """As expected, as far as we know; what somebody has just spoken of is not."""
        return order not in self.follower.told and self.follower.stands_at(order, generation)

    def _check(self, change: Change, claims: Mapping[str, int]) -> None:
        mark = self.follower.mark
        check_schema(self.log.path, mark.schema)
        if self.generation and mark.controller > self.generation:
            raise superseded(self.generation, mark.controller)
        if not self.generation:
            check_session(change.events, change.expect, alive=self._led)
        known = self.follower.generations(change.expect)
        check_expected(change.expect, mark.controller, known, claims, self.follower.told)

    def _led(self) -> bool:
        return controller_alive(self.folder) is not None

    # -- leading ----------------------------------------------------------------------------------------------------

    def lead(self, info: Mapping[str, Any]) -> int:
        """Become the controller; calling it again changes nothing. Raises Conflict when another one is alive."""
        if self.generation:
            return self.generation
        self.log.create()
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": stamp_time(self._clock.wall()), **info}
        self._lead.take(who)
        try:
            self._announce(who)
        except ShopfloorError:
            self.generation = 0
            self._lead.drop()
            raise
        self._unpublished = True
        self._take_edits_in()
        return self.generation

    def _announce(self, who: Mapping[str, Any]) -> None:
        self.follow()
        with self.log.lock.held():
            self._views.mend_feed(self.log)
        self.generation = self.follower.mark.controller + 1
        change = Change([self._own(E.CONTROLLER_STARTED, {**who, "generation": self.generation})])
        self.commit([change])
        if change.error is not None:
            raise change.error

    # -- following --------------------------------------------------------------------------------------------------

    def follow(self, *, alone: bool = False) -> None:
        """Take in what anybody appended. ``alone``: we hold the lock, so an unfinished group will stay unfinished."""
        before = self.follower.mark.offset
        self.follower.follow(alone=alone, may_restart=not self.generation)
        self._unpublished |= self.follower.mark.offset != before

    @property
    def behind(self) -> bool:
        """True when :meth:`tidy` has something to do."""
        leads = self.generation > 0
        return self._owed or self.follower.behind or (leads and (self._unpublished or self._views.touched()))

    @property
    def edited(self) -> bool:
        """True when another program has written to a view of ours."""
        return self.generation > 0 and self._views.touched()

    @property
    def soon(self) -> bool:
        """True when :meth:`tidy` has to look again at a file that somebody is writing."""
        return self._views.waiting

    def look(self) -> tuple[int, int]:
        """Follow the log; the position behind its newest event, and how many bytes were looked at."""
        self.follow()
        if self.follower.scanner.undecided:
            with self.log.lock.held():  # whoever writes it has finished then
                self.follow(alone=True)
        return self.follower.mark.last, self.follower.scanner.seen

    def tidy(self, *, views_only: bool = False) -> None:
        """Bring the index up to date, and the views when this store leads; those alone where they can do without it."""
        if self._owed and not self.generation:
            if self._led():
                self._owed = False  # the controller publishes
            else:
                self._publish_unless_another_does()
            return
        if not (views_only and self.generation and self.follower.ahead):
            self.follower.flush()
        if self.generation and self.behind:
            self._publish()

    def tidy_quietly(self) -> None:
        """The same in the background: what is wrong comes up again in the next call that somebody waits for."""
        with contextlib.suppress(ShopfloorError):
            self.tidy(views_only=bool(self.follower.rush))

    def _publish(self) -> bool:
        self.follow()
        self._unpublished = False
        done = self._views.publish(self)
        self._unpublished |= not done
        return done

    def _publish_in_turn(self) -> None:
        """Without a controller everybody publishes; those who waited meanwhile find it done for them too."""
        with contextlib.suppress(Refused), self._turn.held():
            self._publish_for_all()

    def _publish_unless_another_does(self) -> None:
        """The same in the background: where another is at it, look again later."""
        with contextlib.suppress(Refused):
            if self._turn.try_once():
                try:
                    self._owed = False
                    self._publish_for_all()
                finally:
                    self._turn.release()

    def _publish_for_all(self) -> None:
        if self.follower.published() >= self._said:
            self._unpublished = False
        else:
            self.follow()
            self._publish_patiently()

    def _publish_patiently(self, limit_s: float = PATIENCE_S) -> None:
        limit = time.monotonic() + limit_s
        while not self._publish() and time.monotonic() < limit:
            time.sleep(0.02)

    def _take_edits_in(self) -> None:
        """Without a controller whoever looks first takes in what other programs wrote."""
        with contextlib.suppress(ShopfloorError):
            if not self.log.size() or not self.follower.glimpse(self._views.unread):
                return
            if self.generation:
                self._publish_patiently(GLANCE_S)
            elif controller_alive(self.folder) is None:
                with self._turn.held():  # what another has just published is no edit
                    if self.follower.ask(self._views.unread):
                        self._publish_patiently(GLANCE_S)

    def take_in(self, findings: Findings, kept: str) -> bool:
        """Make what others want events of the log; False when somebody was faster with one of the orders."""
        wanted = [
            Change([self._own(kind, data, FOREIGN) for kind, data in events], expect, foreign=True)
            for events, expect in changes_of(findings.wishes, kept)
        ]
        if findings.complaints:
            data = complaint_of(findings.complaints)
            wanted.append(Change([self._own(E.PROBLEM, data, FOREIGN)], foreign=True))
        self._append(wanted)
        late = [change.error for change in wanted if isinstance(change.error, Conflict)]
        for change in wanted:
            if change.error is not None and not isinstance(change.error, Conflict):
                self._views.note(ORDERS, f"an edit was not taken in: {change.error.message}")
        return not late

    # -- asking -----------------------------------------------------------------------------------------------------

    def query(self, query: Query) -> list[dict[str, Any]]:
        """Rows, as new as the log."""
        if not self.generation:
            self.follower.follow_in_turn(may_restart=True)
        self.look()
        if not self.generation:
            self._take_edits_in()
        found = self.follower.few(query, self._clock.wall())
        return self.follower.ask(lambda index: self._rows(index, query)) if found is None else found

    def _rows(self, index: Index, query: Query) -> list[dict[str, Any]]:
        if query.what == "meta":
            return [meta_row(index, self.follower, self._views.notes)]
        return rows(index, query, self.log, self.follower.mark, now=self._clock.wall())

    # -- end --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Bring everything up to date and let go."""
        try:
            # What cannot be brought up to date now is so at the next start: nothing of it is truth.
            with contextlib.suppress(ShopfloorError):
                if self._owed:
                    self._owed = False
                    self._publish_in_turn()
                if self.follower.mark.offset:  # else nobody has asked it anything
                    self.follow()
                    self.tidy(views_only=True)
                if self.generation and self._unpublished:
                    self._publish_patiently()
        finally:
            self.follower.close()
            self.log.close()
            self._views.close()
            self._turn.close()
            self._durable.close()
            self._lead.drop()

    def scanner(self, after: int) -> tuple[Scanner, int]:
        """A scanner for what comes after a position, and where the log ends now."""
        if not self.generation:
            self._take_edits_in()
        until = self.log.size()
        return self.log.scanner_at(after), until

    def _own(self, event_type: E, data: dict[str, Any], actor: str = "system") -> Event:
        return own_event(event_type, data, clock=self._clock, random=self._random, actor=actor)
