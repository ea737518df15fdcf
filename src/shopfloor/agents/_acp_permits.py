"""May it? Answers to an agent's requests for permission: by a rule, or by a person, always by the kind of an option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from acp.schema import PermissionOption, RequestPermissionResponse

from shopfloor.agents import _acp_wire as wire
from shopfloor.agents._answers import yes_or_no

_KINDS = {True: ("allow_once", "allow_always"), False: ("reject_once", "reject_always")}


class Asked(NamedTuple):
    """A request that waits for an answer."""

    key: wire.Id
    tool: str
    title: str
    options: Sequence[PermissionOption]


class Answer(NamedTuple):
    """What a person said to the oldest request; ``rest``: what was said beyond it."""

    asked: Asked
    allowed: bool
    rest: str = ""


class Permits:
    """Decides by the profile's rule, or keeps what a person has to decide."""

    def __init__(self, rule: Literal["allow", "deny", "ask"]) -> None:
        self._rule = rule
        self._open: list[Asked] = []

    def asked(self, asked: Asked) -> bool | None:
        """Whether it may; None: a person has to say."""
        if self._rule != "ask":
            return self._rule == "allow"
        self._open.append(asked)
        return None

    def answered(self, text: str) -> Answer | None:
        """A person's words as the answer to the oldest open request; None when they are no answer."""
        said = yes_or_no(text) if self._open else None
        return None if said is None else Answer(self._open.pop(0), *said)

    def dropped(self) -> list[wire.Id]:
        """The keys of all open requests; they are forgotten."""
        keys = [asked.key for asked in self._open]
        self._open.clear()
        return keys


def response(options: Sequence[PermissionOption], *, allowed: bool) -> RequestPermissionResponse:
    """The option that says this once, else the one that says it for ever, else none."""
    for kind in _KINDS[allowed]:
        for option in options:
            if option.kind == kind:
                return wire.selected(option.option_id)
    return wire.cancelled()
