"""The verbs that an agent may use, in the same words for its tools and for its shell."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shopfloor.config import speaker
from shopfloor.domain.errors import Refused, UsageError
from shopfloor.wire.plain import ask

MOST_WAIT_S = 600.0
SLICE_S = 10.0
"""A long wait is made of requests of this length, so that nobody holds a connection for a dead one."""

INSTRUCTIONS = (
    "You work on one order of a run. `assignment` says which; `progress` tells people how far you are; `ask` puts a "
    "question to them; `done` asks for your work to be verified, which the checks decide and not you."
)
"""What an agent that has these verbs is told about them."""


class Argument(NamedTuple):
    """One argument of a verb."""

    about: str
    kind: type = str
    needed: bool = False


class Verb(NamedTuple):
    """One thing that an agent may say or ask."""

    about: str
    arguments: Mapping[str, Argument]


_WAIT = Argument(f"wait so many seconds for an answer, at most {MOST_WAIT_S:g}; default: do not wait", float)

VERBS: dict[str, Verb] = {
    "assignment": Verb("What you are to do: your order, its checks, your branch.", {}),
    "ready": Verb("Orders that nobody works on and that may be started now.", {}),
    "claim": Verb(
        "Take one more order that is ready; it is given back when you end without handing it in.",
        {"order": Argument("the order, by name or id; default: the next one")},
    ),
    "show": Verb("Where an order stands.", {"order": Argument("by name or id; default: your own")}),
    "progress": Verb("Say in one line how far you are; people see it.", {"text": Argument("the line", needed=True)}),
    "done": Verb(
        "Ask for your work to be verified, then end your turn. The checks decide whether it is done, not you.",
        {"text": Argument("what you did, and what a person should know")},
    ),
    "ask": Verb(
        "Put a question to a person. Without an answer end your turn: you are started again with it.",
        {"question": Argument("the question", needed=True), "wait_s": _WAIT},
    ),
    "inbox": Verb("What was written to you since you last looked. Each message is shown once.", {"wait_s": _WAIT}),
    "send": Verb(
        "Write to the agent of another order, or to a person.",
        {
            "to": Argument("an order's name or id, or: human", needed=True),
            "body": Argument("the text", needed=True),
            "subject": Argument("what it is about"),
            "priority": Argument("urgent, normal or low"),
        },
    ),
}


def schema(verb: Verb) -> dict[str, Any]:
    """A verb's arguments as a JSON schema."""
    properties = {
        key: {"type": "number" if one.kind is float else "string", "description": one.about}
        for key, one in verb.arguments.items()
    }
    needed = [key for key, one in verb.arguments.items() if one.needed]
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def checked(what: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as they are sent. Raises UsageError naming the one that is off."""
    verb = VERBS[what]
    for name, value in arguments.items():
        known = verb.arguments.get(name)
        if known is None:
            there = ", ".join(verb.arguments) or "none"
            raise UsageError(f"{what!r} has no argument {name!r}", hint=f"there is: {there}")
        right = isinstance(value, int | float) if known.kind is float else isinstance(value, str)
        if not right or isinstance(value, bool):
            raise UsageError(f"{name} = {str(value)[:80]!r} is no {'number' if known.kind is float else 'text'}")
    for name, known in verb.arguments.items():
        if known.needed and not str(arguments.get(name, "")).strip():
            raise UsageError(f"{what!r} needs {name!r}: {known.about}")
    return dict(arguments)


def speak(what: str, arguments: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """Say it as the agent whose environment this is, and the controller's reply: ``text``, and more as data.

    Raises Refused where this is no agent's environment, and what the controller refuses with.
    """
    who = speaker(variables)
    if who is None:
        raise Refused(
            f"{what!r} is for agents that were started by shopfloor: this environment names none",
            hint="people type: shopfloor status",
        )
    folder, speaks = Path(who[0]), who[1]
    sent = checked(what, arguments)
    wait_s = min(max(0.0, float(sent.pop("wait_s", 0.0))), MOST_WAIT_S)
    request = {"verb": "talk", "what": what, "speaker": speaks, **sent}
    if what == "inbox":
        return _inbox(folder, request, wait_s)
    reply = ask(folder, request)
    if what == "ask" and wait_s > 0 and not reply.get("answer"):
        heard = _inbox(folder, {"verb": "talk", "what": "inbox", "speaker": speaks}, wait_s)
        return heard if heard.get("answer") or heard.get("messages") else reply
    return reply


def _inbox(folder: Path, request: Mapping[str, Any], wait_s: float) -> dict[str, Any]:
    limit = time.monotonic() + wait_s
    while True:
        left = max(0.0, limit - time.monotonic())
        reply = ask(folder, {**request, "wait_s": min(SLICE_S, left)}, timeout_s=30.0 + SLICE_S)
        if left <= SLICE_S or reply.get("answer") or reply.get("messages"):
            return reply
