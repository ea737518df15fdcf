"""Scripts: what they may say, and which step answers a request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shopfloor.testing.model.talk import JSON, Answer, Ask, Turn, Usage
from shopfloor.testing.model.tools import calls_of

Scripts = Mapping[str, Sequence[JSON]]

_MARKER = re.compile(r"\[\[script\s+([\w.-]+)((?:\s+[\w-]+=[^\s\]]+)*)\s*\]\]")
_FOLDER = re.compile(
    r"(?:<cwd>|[Ww]orking directory:?\s*|[Ww]orking in the directory:?\s*|[Dd]irectory:\s*)[`'\"]?(/[^\s<\"'`]+)"
)
_PLACEHOLDER = re.compile(r"\{([\w-]+)\}")

_NUMBER = (int, float)
_KEYS: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "write": dict,
    "bash": str,
    "call": dict,
    "calls": list,
    "say": str,
    "usage": dict,
    "stop": str,
    "delay": _NUMBER,
    "hang": _NUMBER,
    "slow": _NUMBER,
    "drop": bool,
    "fail": dict,
}
_VERBS = ("text", "write", "bash", "call", "calls")
_PARTS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "write": {"path": str, "content": str},
    "call": {"name": str, "input": (dict, str)},
    "usage": {"in": int, "out": int, "cached": int, "written": int, "thought": int},
    "fail": {
        "status": int,
        "times": int,
        "for_s": _NUMBER,
        "headers": dict,
        "message": str,
        "type": str,
        "code": str,
    },
}


def check_scripts(scripts: Scripts) -> None:
    """Raise ValueError that names the script and the step where something is off."""
    for name, steps in scripts.items():
        for number, step in enumerate(steps, 1):
            if wrong := next(_wrong(step), None):
                raise ValueError(f"script {name!r}, step {number}: {wrong}")


def _wrong(step: Any) -> Iterator[str]:
    if not isinstance(step, dict):
        yield f"{step!r} is no step"
        return
    if unknown := sorted(step.keys() - _KEYS.keys()):
        yield f"unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}"
    verbs = [verb for verb in _VERBS if verb in step]
    if len(verbs) > 1 or not (verbs or "fail" in step):
        yield f"it needs exactly one of {', '.join(_VERBS)}; it has {', '.join(verbs) or 'none'}"
    for key, value in step.items():
        if not _fits(value, _KEYS[key]):
            yield f"{key} = {value!r} has the wrong type"
        elif key in _PARTS:
            yield from _wrong_part(key, value)
    for inner in step.get("calls", ()):
        yield from _wrong(inner)


def _wrong_part(key: str, value: JSON) -> Iterator[str]:
    known = _PARTS[key]
    if unknown := sorted(value.keys() - known.keys()):
        yield f"{key} has an unknown key {unknown[0]!r}; known are {', '.join(known)}"
        return
    needed = {"write": ("path", "content"), "call": ("name",)}.get(key, ())
    if missing := [name for name in needed if name not in value]:
        yield f"{key} needs {missing[0]!r}"
    for name, inner in value.items():
        if not _fits(inner, known[name]):
            yield f"{key}.{name} = {inner!r} has the wrong type"


def _fits(value: Any, right: type | tuple[type, ...]) -> bool:
    return isinstance(value, right) and (right is bool or not isinstance(value, bool))


@dataclass(frozen=True)
class Chosen:
    """The step that answers a request. ``script`` is empty and ``index`` -1 for a request without a marker."""

    step: JSON
    script: str = ""
    index: int = -1
    params: JSON = field(default_factory=dict)

    def answer(self, ask: Ask) -> Answer:
        """The turn that the step makes, with the tools that were offered.

        Who offers none gets words only: agents ask on the side for a title of what they were told, marker and all.
        """
        calls = tuple(calls_of(self.step, ask.tools)) if ask.tools else ()
        words = self.step.get("say") or self.step.get("text") or ""
        given = self.step.get("usage", {})
        usage = Usage(**{"fresh" if name == "in" else name: count for name, count in given.items()})
        return Answer(words or ("" if calls else "ok"), calls, usage, self.step.get("stop", ""))


def choose(scripts: Scripts, ask: Ask, *, idle: str) -> Chosen:
    """The step for a request; a script that is not known, or at its end, says so as a text."""
    marked: tuple[int, re.Match[str]] | None = None
    for at, turn in enumerate(ask.turns):
        if turn.role in ("user", "system"):
            for found in _MARKER.finditer(turn.text):
                marked = at, found
    if marked is None:
        marked = next(((-1, found) for found in _MARKER.finditer(ask.system)), None)
    if marked is None:
        return Chosen({"text": idle})
    at, marker = marked
    name = marker[1]
    params = dict(pair.split("=", 1) for pair in marker[2].split())
    params.setdefault("cwd", _folder(ask))
    index = _turns_of_the_model(ask.turns[at + 1 :])
    steps = scripts.get(name)
    if steps is None:
        step: JSON = {"text": f"there is no script {name!r}; known are {', '.join(scripts) or 'none'}"}
    elif index >= len(steps):
        step = {"text": f"script {name!r} is at its end"}
    else:
        step = _filled(steps[index], params)
    return Chosen(step, name, index, params)


def _folder(ask: Ask) -> str:
    for text in (ask.system, *(turn.text for turn in ask.turns)):
        if found := _FOLDER.search(text):
            return found[1].rstrip(".,")
    return "."


def _turns_of_the_model(turns: Sequence[Turn]) -> int:
    """A turn may be told in several messages: words, then a call for each tool."""
    before = ("", *(turn.role for turn in turns))
    return sum(turn.role == "assistant" != last for last, turn in zip(before, turns, strict=False))


def _filled(node: Any, params: Mapping[str, str]) -> Any:
    if isinstance(node, str):
        return _PLACEHOLDER.sub(lambda found: params.get(found[1], found[0]), node)
    if isinstance(node, list):
        return [_filled(item, params) for item in node]
    if isinstance(node, dict):
        return {key: _filled(value, params) for key, value in node.items()}
    return node
