"""Lines of a log for tests: each with its own id, a time on the test's clock, and a controller's stamp."""

from collections.abc import Mapping
from typing import Any

import msgspec

from shopfloor.domain.board import Board, creation
from shopfloor.domain.events import E, Event, Stamp, stamp_time
from shopfloor.domain.floor import Capacity, Floor, Now
from shopfloor.domain.judge import Start
from shopfloor.domain.order import Order
from shopfloor.domain.policy import Policy

START_S = 1_767_700_800.0
RUN = "run-1"


class Log:
    """Writes events; ``wall`` is the time of the next one."""

    def __init__(self, controller: int = 1) -> None:
        self.events: list[Event] = []
        self.wall = START_S
        self.awake = 0.0
        self.controller = controller

    @property
    def now(self) -> Now:
        return Now(self.wall, self.awake)

    def pass_time(self, seconds: float) -> None:
        self.wall = round(self.wall + seconds, 3)
        self.awake = round(self.awake + seconds, 3)

    def write(
        self,
        kind: str,
        order: str = "",
        /,
        *,
        stamped: bool = True,
        of_run: str | None = RUN,
        caused_by: str | None = None,
        **data: Any,
    ) -> Event:
        number = len(self.events) + 1
        event = Event(
            event_id=f"evt-{number}",
            event_type=kind,
            timestamp=stamp_time(self.wall),
            actor="shopfloor" if stamped else "somebody",
            correlation_id=of_run,
            data={**({"work_order_id": order} if order else {}), **data},
            caused_by=caused_by,
            sf=Stamp(self.controller, number) if stamped else None,
        )
        self.events.append(event)
        return event

    def create(self, order: Order, **more: Any) -> Event:
        data = creation(order) | more
        return self.write(E.CREATED, **data, of_run=order.run or None)


def order(name: str, **fields: Any) -> Order:
    """A work order of the test's run; its id is ``wo-<name>``."""
    needs = tuple(f"wo-{n}" for n in fields.pop("needs", ()))
    known: dict[str, Any] = {"title": name, "run": RUN, "created_at": START_S, "depends_on": needs}
    return Order(id=f"wo-{name}", name=name, **(known | fields))


def begun(*orders: Order, settings: Mapping[str, Any] | None = None, policy: Policy | None = None) -> "Desk":
    """A floor on which a run of these orders is open."""
    desk = Desk(policy)
    desk.write(E.CONTROLLER_STARTED, generation=1, of_run=None)
    desk.write(E.RUN_STARTED, run_id=RUN, **(settings or {}))
    for one in orders:
        desk.take(desk.log.create(one))
    desk.floor.open(RUN, desk.log.now)
    return desk


class Desk:
    """A floor and the log that it follows."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.log = Log()
        self.floor = Floor(policy)

    @property
    def board(self) -> Board:
        return self.floor.board

    def take(self, event: Event) -> None:
        self.floor.apply(event, self.log.now)

    def write(self, kind: str, name: str = "", /, **data: Any) -> Event:
        event = self.log.write(kind, f"wo-{name}" if name else "", **data)
        self.take(event)
        return event

    def claim(self, name: str, generation: int = 1, **data: Any) -> None:
        claim = {"attempt": f"wo-{name}.a{generation}", "agent": "a", "base": "b0", "branch": f"shopfloor/{name}"}
        self.write(E.ASSIGNED, name, generation=generation, **(claim | data))
        self.write(E.AGENT_STARTED, name, generation=generation)

    def end(self, name: str, generation: int = 1, **data: Any) -> None:
        """The attempt ends, well and with a change unless said otherwise."""
        end = {"outcome": "completed", "commit": f"c-{name}-{generation}", "tree": "t", "base": "b0"}
        self.write(E.AGENT_STOPPED, name, generation=generation, **(end | data))

    def check(self, name: str, verdict: str = "PASS", generation: int = 1, **data: Any) -> None:
        self.write(E.VERIFY_STARTED, name, generation=generation)
        found = {"verdict": verdict, "commit": f"c-{name}-{generation}", "reasoning": "", "duration_s": 1.0}
        self.write(E.VERIFY_VERDICT, name, generation=generation, **(found | data))

    def land(self, name: str, generation: int = 1) -> None:
        self.write(E.LANDING_STARTED, name, generation=generation)
        self.write(E.LANDING_LANDED, name, commit=f"m-{name}", observed=f"m-{name}")

    def verified(self, name: str, generation: int = 1) -> None:
        self.claim(name, generation)
        self.end(name, generation)
        self.check(name, generation=generation)

    def settle(self, name: str, outcome: str = "done", **data: Any) -> None:
        self.write(E.SETTLED, name, outcome=outcome, **data)


ROOM = Capacity(starts=100, checks=100, landing=True)


def decided(desk: Desk, capacity: Capacity = ROOM) -> list[object]:
    return list(desk.floor.decide(desk.log.now, capacity))


def started(desk: Desk) -> list[str]:
    return [d.order for d in decided(desk) if isinstance(d, Start)]


def is_over(desk: Desk) -> bool:
    return desk.floor.finished


def state_of(board: Board) -> bytes:
    return msgspec.json.encode([board.records, board.runs, board.requests, board.paused, board.controller])
