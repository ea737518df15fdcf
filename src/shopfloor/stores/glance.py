"""What lines of a log say without being decoded: whom they speak of, and how far the sequence is."""

from __future__ import annotations

import re

from shopfloor.domain.events import E
from shopfloor.stores.codec import decode

_CONTROLLER = E.CONTROLLER_STARTED.encode()
_ORDERS = re.compile(rb'"work_order_id"\s*:\s*"([^"]*)"')


def spoken_of(unread: bytes) -> tuple[set[str], int] | None:
    """The orders that lines speak of, and the sequence of the last one.

    None: the last change is not whole, or a controller has started, and all of it has to be followed.
    """
    try:
        stamp = decode(unread[unread.rfind(b"\n", 0, -1) + 1 : -1]).sf
    except ValueError:
        return None
    whole = unread[-1:] == b"\n" and stamp is not None and stamp.index == stamp.size - 1
    if not whole or stamp is None or _CONTROLLER in unread:
        return None
    return {order.decode("utf-8", "replace") for order in _ORDERS.findall(unread)}, stamp.sequence
