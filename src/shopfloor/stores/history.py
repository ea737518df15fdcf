"""What an order was published as, told from the log: every state that it was in, published or not."""

from __future__ import annotations

from typing import Any

from shopfloor.domain.fold import fold
from shopfloor.domain.order import Record
from shopfloor.domain.records import work_order
from shopfloor.ports import Query
from shopfloor.stores.codec import decode
from shopfloor.stores.index import Index
from shopfloor.stores.log import Log


def versions(log: Log, index: Index, order: str) -> list[dict[str, Any]]:
    """The objects of ``work_orders.jsonl`` that this order may have stood as, oldest first; folds all of its events."""
    found: list[dict[str, Any]] = []
    record: Record | None = None
    for start, size in index.events(Query(order=order)):
        record = fold(record, decode(log.read(start, size)))
        line = work_order(record) if record is not None else None
        if line is not None and (not found or line != found[-1]):
            found.append(line)
    return found
