"""Several servers that do the same: how many calls each may have under way, who takes which, and what takes too long.

Nothing here knows what a call is. Times are seconds on a clock that does not go back.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

import msgspec

SpreadPolicy = Literal["round-robin", "strict", "least-busy"]
"""``round-robin``: call i is offered to server i mod N first, and taken by another one where that is slow or down;
``strict``: server i mod N and no other; ``least-busy``: whoever has most room"""

FIRST, MOST = 16, 256
"""calls under way at one server: before anything is known of it, and at most"""
GAIN = 1.25
"""a doubling that buys less throughput than this is taken back"""
ENOUGH = 0.85
"""the smallest limit with this share of the best throughput is the one to keep"""
IDLE, IDLE_S = 0.25, 0.1
"""share of a call, and seconds, from which on what it waited for its turn is taken for a sign"""
FEWER = 4
"""by so much a sign divides the limit"""
FEWEST_SAMPLES = 8
WINDOW_S = 0.05
"""seconds that one look at a limit takes at least"""
AGAIN, AGAIN_S = 16, 2.0
"""looks and seconds after which a limit that has proved itself is left, to see whether another is better by now"""


class Limit:
    """How many calls one server may have under way: found by trying, as a power of two.

    A server that takes r seconds for a call while it has n under way answers n / r of them a second (Little's law). The
    limit is doubled while that buys throughput, and then the smallest one is kept that buys nearly as much. So a server
    with one thread ends at one or two, and one that works on many at once at the most. What counts are averages of
    calls that began with the server full, so calls of very different length do no harm.

    Where requests that take next to nothing take long at the start, they wait behind others: then fewer are tried
    before more. That is a sign and no proof. What decides is throughput.
    """

    def __init__(self, fixed: int = 0, most: int = MOST) -> None:
        """``fixed``: so many, whatever happens; 0: as found. ``most`` is at least 1."""
        self._most = most
        self._fixed = bool(fixed)
        self.value = min(fixed or FIRST, most)
        self._top = most
        self._since = -math.inf
        self._rates: dict[int, float] = {}
        self._climbing = True
        self._new = self.value
        """calls still to come that have to connect first: short ones say nothing"""
        self._kept = 0
        self._clear()

    @property
    def fresh(self) -> bool:
        """It has not been changed yet: what a call waited for is heeded."""
        return self._since == -math.inf

    def _clear(self) -> None:
        self._samples, self._calls, self._seconds, self._waited, self._first = 0, 0.0, 0.0, 0.0, math.inf

    def took(self, under_way: float, seconds: float, now: float, waited: float = 0.0) -> None:
        """A call was answered; so many were under way with it, itself included: on average over its time.

        ``waited`` are those of its seconds in which it asked for what takes a free server next to nothing.
        """
        if self._fixed or not self.value // 2 < round(under_way) <= self.value or now - seconds < self._since:
            return
        if self._new > 0:
            self._new -= 1
            if seconds < WINDOW_S:
                return
        self._samples += 1
        self._calls += under_way
        self._seconds += seconds
        self._waited += waited
        self._first = min(self._first, now - seconds)
        in_line = self._waited >= max(IDLE * self._seconds, IDLE_S * self._samples)
        fewest = max(FEWEST_SAMPLES, self.value // 2)
        # Calls that wait for each other come back together: their places are to be given away with the new limit.
        if in_line and self.fresh:
            fewest //= 2
        if self._samples >= fewest and now - self._first >= WINDOW_S:
            rate = self._calls / max(self._seconds, 1e-9)
            self._rates[self.value] = (rate + self._rates.get(self.value, rate)) / 2
            self._clear()
            self._move(self._next(in_line=in_line), now)

    def overloaded(self, seconds: float, now: float) -> None:
        """It said that this is too much, or left a call that began so long ago without an answer: half, for a while."""
        if not self._fixed and now - seconds >= self._since:
            self._top = max(1, self.value // 2)
            self._rates.clear()
            self._clear()
            self._move(self._top, now)

    def _next(self, *, in_line: bool) -> int:
        rates, value = self._rates, self.value
        if in_line and self.fresh and value >= FEWER:
            return value // FEWER
        if self._climbing:
            highest, lower = max(rates), max((limit for limit in rates if limit < value), default=0)
            if value < highest and rates[value] * GAIN * GAIN < rates[highest]:
                value = highest  # it was no more than a sign: go on where it was seen
            elif value < highest:
                lower = value
            if value * 2 <= self._top and rates[value] >= GAIN * rates.get(lower, 0.0):
                return value * 2
            # What was measured on the way up may be out of date: on the way down it is measured again.
            self._climbing, self._rates = False, {value: rates[value]}
        best = max(self._rates.values())
        wanted = min(limit for limit, rate in self._rates.items() if rate >= ENOUGH * best)
        return value // 2 if wanted == value > 1 and value // 2 not in self._rates else wanted

    def _move(self, value: int, now: float) -> None:
        if value != self.value:
            self._new = max(0, value - self.value)
            self.value, self._since, self._kept = value, now, 0
            return
        self._kept += 1
        if self._kept >= AGAIN and now - self._since >= AGAIN_S:
            self._since = now
            self._kept, self._top, self._climbing = 0, self._most, True
            self._rates = {value: self._rates[value]} if value in self._rates else {}


class Pace:
    """How many calls all servers together answer in a second."""

    def __init__(self) -> None:
        self.rate = 0.0
        self.count = 0
        """answered since the last look"""
        self._looked = -math.inf

    def look(self, now: float) -> None:
        """To be called from time to time; what was half a second ago weighs half as much."""
        if now - self._looked > 0.0:
            old = 0.5 ** (2.0 * (now - self._looked))
            self.rate = old * self.rate + (1.0 - old) * self.count / (now - self._looked)
            self._looked, self.count = now, 0


class Turns:
    """The requests that one server has not answered yet, and which of them have taken too long.

    A server that works on one request at a time has not begun with the second one before it has answered the first. So
    the clock of a request runs from when it was sent or, when that is later, from the last answer to one that was sent
    before it. A request that hangs beside others that are answered is noticed all the same: those before it are few.
    """

    def __init__(self) -> None:
        self._next = 0
        self._sent: dict[int, tuple[float, float]] = {}
        self._lowest: float = math.inf
        """the first request that was answered since the last look"""
        self._looks: deque[tuple[float, float]] = deque(maxlen=1024)

    def send(self, now: float, limit_s: float) -> int:
        """One more: its number."""
        self._next += 1
        self._sent[self._next] = (now, limit_s)
        return self._next

    def answered(self, number: int) -> None:
        """That one has its answer."""
        if self._sent.pop(number, None) is not None and number < self._lowest:
            self._lowest = number

    def gone(self, number: int) -> None:
        """That one will have none: it broke off, or nobody wants it any more."""
        self._sent.pop(number, None)

    def shortest(self) -> float:
        """The narrowest limit of those that wait; infinite when none has one."""
        return min((limit for _, limit in self._sent.values()), default=math.inf)

    def overdue(self, now: float) -> list[int]:
        """Those that have taken too long. To be asked several times within the narrowest limit."""
        if self._lowest != math.inf:
            self._looks.append((now, self._lowest))
            self._lowest = math.inf
        found, longest = [], 0.0
        for number, (sent, limit_s) in self._sent.items():
            longest = max(longest, limit_s)
            if now - sent < limit_s:
                continue
            before = min((low for at, low in self._looks if at > now - limit_s), default=math.inf)
            if number < before:
                found.append(number)
        while self._looks and (not self._sent or self._looks[0][0] <= now - longest):
            self._looks.popleft()
        return found


class Standing(msgspec.Struct, frozen=True):
    """How far one server is with its work."""

    limit: int
    under_way: int
    queued: int
    """calls that wait for it"""
    oldest_s: float
    """how long the call that began first has been under way; 0 when none is"""
    typical_s: float
    """what a call took lately; 0: not known yet"""


MOVE_S = 0.25
"""shorter waits are not worth a move"""


def end_of_queue_s(home: Standing, typical_s: float) -> float:
    """In how many seconds the last call that waits for this server may be expected to be answered.

    A call that has been under way for longer than usual is expected to take as long again as it is late.
    """
    usual = home.typical_s or typical_s
    first = abs(usual - home.oldest_s) if home.under_way >= home.limit else 0.0
    rounds = max(0, home.queued - 1) // max(1, home.limit) + 1
    return first + rounds * usual


def worth_moving(home: Standing, idle: Standing) -> bool:
    """Whether the last call that waits for ``home`` should go to a server that has room.

    Only when that one will have been done with it twice: servers of the same speed keep what is theirs.
    """
    usual = idle.typical_s or home.typical_s
    return bool(home.queued and usual) and end_of_queue_s(home, usual) > 2 * usual + MOVE_S
