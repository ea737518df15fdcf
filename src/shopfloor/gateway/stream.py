"""What a client did not ask for is taken out of its stream again, event by event and without holding any back."""

from __future__ import annotations

from shopfloor.gateway.usage import LONGEST_EVENT, is_usage_alone

_USAGE = b'"usage"'


class WithoutUsage:
    """Takes the event that only tells the usage out of a chat stream."""

    def __init__(self) -> None:
        self._event = bytearray()
        self._passing = False
        """an event that is too long to be ours is on its way out"""

    def feed(self, piece: bytes) -> bytes:
        """Whole events, as soon as they are whole."""
        self._event += piece
        out = bytearray()
        while end := _end(self._event):
            event = bytes(self._event[:end])
            del self._event[:end]
            if self._passing or not _ours(event):
                out += event
            self._passing = False
        if self._passing or len(self._event) > LONGEST_EVENT:
            self._passing = True
            keep = 3  # an end may be cut in two
            out += self._event[:-keep]
            del self._event[:-keep]
        return bytes(out)

    def close(self) -> bytes:
        """What is left when the stream has ended."""
        rest = bytes(self._event)
        self._event.clear()
        return rest


def _end(event: bytearray) -> int:
    """Where the first event ends, 0 when it has not."""
    ends = [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := event.find(mark)) >= 0]
    return min(ends, default=0)


def _ours(event: bytes) -> bool:
    if _USAGE not in event:
        return False
    data = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    return len(data) == 1 and is_usage_alone(data[0])
