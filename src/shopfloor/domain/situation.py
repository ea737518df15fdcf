"""Where an order stands, in words that say what it waits for."""

from __future__ import annotations

from shopfloor.domain.floor import Floor
from shopfloor.domain.order import Record, State


def situation(floor: Floor, record: Record) -> tuple[State, str]:
    """The exact state with the derived ones told apart, and what it waits for in words."""
    if record.state is not State.READY:
        return record.state, ""
    if record.taken:
        return State.WAITING, f"is worked on in another program: {record.assignee or record.elsewhere}"
    needs = floor.plan.waits_for(record.order.id)
    if needs:
        names = sorted(floor.board.records[n].order.name if n in floor.board.records else n for n in needs)
        return State.WAITING, "waits for " + ", ".join(names)
    if agent := floor.entry.held(record):
        return State.WAITING, f"nothing more is started with agent {agent!r}"
    if floor.entry.doubtful(record):
        return State.WAITING, "waits until its agent is seen to work"
    if account := floor.entry.kept_out(record):
        how = "has nothing left for now" if account.closed else "is tried with another order first"
        return State.WAITING, f"waits for account {account.name!r}, which {how}"
    if floor.timers.is_asleep(record.order.id):
        return State.WAITING, "waits before it is tried again"
    holder = floor.plan.held_by(record.order.id)
    if holder is not None:
        return State.WAITING, f"waits for a file that {floor.board.records[holder].order.name} works on"
    return State.READY, ""
