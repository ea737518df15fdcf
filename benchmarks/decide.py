"""What a decision costs at 100,000 open orders, in three shapes. Only the rules are measured: no disk, no process.

A decision is one call of `decide` together with the `apply` of the facts that came back from the one before it. Orders
go their whole way (start, check, landing, done), ten at work side by side.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Iterator

import msgspec

from benchmarks.figures import Figure
from shopfloor.domain.board import creation
from shopfloor.domain.events import E, Event, Stamp, stamp_time
from shopfloor.domain.floor import Capacity, Floor, Now
from shopfloor.domain.judge import Decision, Land, Settle, Start, Verify
from shopfloor.domain.order import Order

OPEN, ENDED, SIDE_BY_SIDE = 100_000, 10_000, 10
BAR_US = 50.0
START_S = 1_767_700_800.0
RUN = "run-1"


class _Log:
    """Events without a store."""

    def __init__(self) -> None:
        self.number = 0
        self.at = stamp_time(START_S)

    def event(self, kind: str, order: str = "", **data: object) -> Event:
        self.number += 1
        return Event(
            event_id=f"evt-{self.number}",
            event_type=kind,
            timestamp=self.at,
            actor="shopfloor",
            correlation_id=RUN,
            data={"work_order_id": order, **data} if order else data,
            sf=Stamp(1, self.number),
        )


def shapes() -> dict[str, list[Order]]:
    """100,000 orders: independent; all on one file; all but one behind that one."""

    def order(number: int, *, files: tuple[str, ...] = (), depends_on: tuple[str, ...] = ()) -> Order:
        name = f"o{number}"
        made = Order(id=f"wo-{name}", name=name, title=name, run=RUN, created_at=START_S)
        return msgspec.structs.replace(made, files=files, depends_on=depends_on)

    return {
        "independent": [order(n, files=(f"src/part{n}.py",)) for n in range(OPEN)],
        "one hot file": [order(n, files=("src/hot.py",)) for n in range(OPEN)],
        "one releases all": [order(0), *(order(n, depends_on=("wo-o0",)) for n in range(1, OPEN))],
    }


def opened(log: _Log, orders: list[Order]) -> Floor:
    """A floor with a run of these orders."""
    floor = Floor()
    floor.load([log.event(E.RUN_STARTED, run_id=RUN), *(log.event(E.CREATED, **creation(o)) for o in orders)])
    floor.open(RUN, Now(START_S, 0.0))
    return floor


def facts(log: _Log, decision: Decision, generation: int = 1) -> Iterator[Event]:
    """What comes back when a decision was performed."""
    match decision:
        case Start(order, generation):
            yield log.event(E.ASSIGNED, order, generation=generation, attempt=f"{order}.a1", base="b")
            yield log.event(E.AGENT_STARTED, order, generation=generation, handle={"pid": 1})
            yield log.event(
                E.AGENT_STOPPED, order, generation=generation, outcome="completed", commit="c", cost_usd=0.01
            )
        case Verify(order):
            yield log.event(E.VERIFY_STARTED, order, generation=generation)
            yield log.event(E.VERIFY_VERDICT, order, generation=generation, verdict="PASS", commit="c", duration_s=1.0)
        case Land(orders):
            for order in orders:
                yield log.event(E.LANDING_STARTED, order, generation=generation)
            for order in orders:
                yield log.event(E.LANDING_LANDED, order, commit="m", observed="m")
        case Settle(order, outcome):
            yield log.event(E.SETTLED, order, outcome=outcome.value)


def durations(floor: Floor, log: _Log) -> list[float]:
    """Seconds for each decision, until enough orders have ended."""
    now, found = Now(START_S, 0.0), []
    back: deque[tuple[Event, ...]] = deque([()])
    ended = 0
    while ended < ENDED and back:
        room = Capacity(starts=int(len(floor.live) + len(back) < SIDE_BY_SIDE), checks=1, landing=True)
        events = back.popleft()
        began = time.perf_counter()
        for event in events:
            floor.apply(event, now)
        decisions = floor.decide(now, room)
        found.append(time.perf_counter() - began)
        back.extend(tuple(facts(log, decision)) for decision in decisions)
        ended += sum(isinstance(decision, Settle) for decision in decisions)
        if not back and len(floor.plan):
            back.append(())
    return found


def run() -> list[Figure]:
    """Mean, p95 and the most expensive single one, for each shape."""
    figures = []
    for name, orders in shapes().items():
        log = _Log()
        floor = opened(log, orders)
        gc.collect()
        gc.freeze()
        taken = sorted(durations(floor, log))
        gc.unfreeze()
        mean_us = 1e6 * sum(taken) / len(taken)
        p95_us = 1e6 * taken[int(0.95 * len(taken))]
        bar = f"≤ {BAR_US:g} µs"
        figures += [
            Figure(name=f"{name}: mean of {len(taken):,}, the worst included", value=mean_us, unit="µs", bar=bar,
                   ok=mean_us <= BAR_US),
            Figure(name=f"{name}: p95", value=p95_us, unit="µs", bar=bar, ok=p95_us <= BAR_US),
            Figure(name=f"{name}: the most expensive one", value=taken[-1] * 1e3, unit="ms"),
        ]  # fmt: skip
    return figures
