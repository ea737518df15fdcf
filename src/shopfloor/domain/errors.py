"""The one error tree.

    ShopfloorError            exit 1   something failed
    ├── UsageError            exit 2   the words of a call are off
    ├── NotFound              exit 3   a name that is not there
    ├── Refused               exit 4   possible, but not allowed as things stand
    └── Conflict              exit 5   somebody else was first
        └── Led               exit 5   a controller decides, or has decided since

Every message says what happened, to which value; ``hint`` says what to type next.
"""

from __future__ import annotations


class ShopfloorError(Exception):
    """Something failed; the base of all errors a caller may catch."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ShopfloorError):
    """The words of a call are off: an unknown option, a value out of range, a malformed file."""

    exit_code = 2


class NotFound(ShopfloorError):
    """A name that is not there: an order, an agent, a file."""

    exit_code = 3


class Refused(ShopfloorError):
    """Possible, but not allowed as things stand; the hint says what would allow it."""

    exit_code = 4


class Conflict(ShopfloorError):
    """Somebody else was first: another controller, a newer generation, a moved ref."""

    exit_code = 5


class Led(Conflict):
    """A controller leads, or has led since: what was decided without it does not count."""
