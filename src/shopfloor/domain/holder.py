"""Who holds an order without being an agent of ours: a session, which is a named process that works by itself.

A script, a person's shell or another tool claims orders for such a process. Its handle in the log names the process for
ever (id and start time, on which machine, since which boot), so that anybody can look whether it still lives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shopfloor.domain import values
from shopfloor.domain.order import Attempt, Order, Record

DRIVER = "session"
"""``handle["driver"]`` of an attempt that a session holds."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A session. Two of them are the same one when everything but the name is the same."""

    name: str
    pid: int
    start_time: int = 0
    """kernel clock ticks, as in the handle of an agent"""
    host: str = ""
    boot: str = ""
    """names the boot of that machine and the process table in which the pid counts"""

    @property
    def identity(self) -> tuple[int, int, str, str]:
        """What makes it the same one."""
        return self.pid, self.start_time, self.host, self.boot

    def handle(self) -> dict[str, Any]:
        """The holder as data of an event."""
        return {"driver": DRIVER, **msgspec.structs.asdict(self)}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which orders a session would take; conditions are joined by *and*, empty ones do not count."""

    orders: tuple[str, ...] = ()
    """ids"""
    types: tuple[str, ...] = ()
    """values of ``issue_type``"""
    agents: tuple[str, ...] = ()
    """profiles that the orders ask for"""
    run: str = ""
    metadata: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """for each key the texts of which the order's metadata has one; the empty text stands for none at all"""
    without: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """the same, of which the order's metadata has none"""

    def fits(self, order: Order) -> bool:
        """True when such an order would be taken."""
        return (
            (not self.orders or order.id in self.orders)
            and (not self.types or order.issue_type in self.types)
            and (not self.agents or order.agent in self.agents)
            and self.run in ("", order.run)
            and all(_told(order, key) in values for key, values in self.metadata.items())
            and not any(_told(order, key) in values for key, values in self.without.items())
        )

    def __bool__(self) -> bool:
        """False: anything will do."""
        return any((self.orders, self.types, self.agents, self.run, self.metadata, self.without))


def _told(order: Order, key: str) -> str:
    value = order.metadata.get(key)
    return "" if value is None else str(value)


def holder_in(data: Mapping[str, Any]) -> Holder | None:
    """The session that an event's ``handle`` names, None when it names none."""
    handle = data.get("handle")
    if not isinstance(handle, dict) or handle.get("driver") != DRIVER:
        return None
    return Holder(
        name=values.text(handle, "name"), pid=values.count(handle, "pid"),
        start_time=values.count(handle, "start_time"), host=values.text(handle, "host"),
        boot=values.text(handle, "boot"),
    )  # fmt: skip


def holder_of(attempt: Attempt | None) -> Holder | None:
    """The session that an attempt belongs to, None when it is an agent's."""
    return holder_in({"handle": attempt.handle}) if attempt is not None and attempt.handle else None


def held(record: Record) -> Holder | None:
    """The session that holds an order now, or None."""
    attempts = record.attempts  # asked for with every event: most orders have no session, and most attempts no handle
    return holder_of(attempts[-1]) if attempts and attempts[-1].handle and not attempts[-1].outcome else None
