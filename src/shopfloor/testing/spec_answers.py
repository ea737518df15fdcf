"""What imitation agent servers for specs answer, and what may go wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from shopfloor.testing.stack_effect import Effect, Wrong, declared, fits

FAULTS = ("500", "hangup", "hang", "garbage", "invalid", "error", "mismatch")
_FAULT = re.compile(r"([a-z0-9]+)(?:=([^@+]+))?(?:@([0-9,]+))?(?:\+([0-9]+))?")


class Fault(NamedTuple):
    """Something that goes wrong."""

    what: str
    ids: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    behind: int = 0

    @classmethod
    def read(cls, text: str) -> Fault:
        """From ``WHAT[=ID,ID…][@PORT,PORT…][+N]``. Raises ValueError."""
        found = _FAULT.fullmatch(text)
        if found is None or found[1] not in FAULTS:
            raise ValueError(
                f"{text!r} is no fault such as {FAULTS[0]}, {FAULTS[1]}@8081 or {FAULTS[-1]}=spec-3,spec-7"
            )
        ids = frozenset(found[2].split(",") if found[2] else ())
        ports = frozenset(map(int, filter(None, (found[3] or "").split(","))))
        return cls(found[1], ids, ports, int(found[4] or 0))

    def meets(self, port: int, spec: str, seen: int) -> bool:
        """Whether it happens to this spec."""
        return (not self.ids or spec in self.ids) and (not self.ports or port in self.ports) and seen > self.behind


class Knobs(msgspec.Struct, frozen=True, kw_only=True):
    """How the servers behave."""

    latency_ms: float = 0.0
    single: bool = False
    counts: bool = False
    faults: tuple[Fault, ...] = ()
    paths: dict[str, str] = {}
    """steps under other paths: what is asked for, and the usual path of it"""

    def _health(self, told: dict[str, Any], fault: str) -> tuple[int, object]:
        return 200, {"status": "healthy"} | ({"version": "0.0"} if self.counts else {})

    def _validate(self, told: dict[str, Any], fault: str) -> tuple[int, object]:
        try:
            declared(str(told.get("stack_effect")))
        except Wrong as wrong:
            return 200, {"valid": False, "message": str(wrong)}
        return 200, {"valid": bool(told.get("word")) and fault != "invalid"}

    def _generate(self, told: dict[str, Any], fault: str) -> tuple[int, object]:
        if fault == "error":
            return 200, {"error": f"no pattern for {told.get('word')}: 0% of 12 fit"}
        effect = str(told.get("stack_effect"))
        try:
            body = _body(declared(effect)) + (" dup" if fault == "mismatch" else "")
        except Wrong as wrong:
            return 200, {"error": str(wrong)}
        word = str(told.get("word") or "word")
        code = f": {word} {effect} {body} ;"
        cases = [case for case in told.get("test_cases") or () if isinstance(case, dict)]
        return 200, {
            "code": code,
            "tests": [f"T{{ {_cells(c, 'input')} {word} -> {_cells(c, 'output')} }}T" for c in cases],
        }

    def _verify(self, told: dict[str, Any], fault: str) -> tuple[int, object]:
        code, effect = str(told.get("code")), str(told.get("effect"))
        try:
            well, does, said = fits(_counted(code) if self.counts else code, effect)
        except Wrong as wrong:
            return (400, {"error": str(wrong)}) if "no stack effect" in str(wrong) else (200, _no(str(wrong)))
        if not well:
            return 200, _no(f"it does {does}, not {said}") | {"inferred": str(does), "expected": effect}
        return 200, {"valid": True, "inferred": str(does), "expected": effect}


def _no(message: str) -> dict[str, object]:
    return {"valid": False, "message": message}


def _cells(case: dict[str, Any], which: str) -> str:
    return " ".join(map(str, case.get(which) or ()))


def _body(effect: Effect) -> str:
    """Words that take and leave so many cells."""
    takes, leaves = effect
    if takes == leaves == 1:
        return "dup *"
    if not takes:
        return " ".join(map(str, range(leaves)))
    fewer = ["+"] * (takes - leaves) if leaves else ["drop"] * takes
    return " ".join(fewer + ["dup"] * (leaves - takes)) or "swap swap"


def _counted(code: str) -> str:
    """The code with a number for each word of a definition that is no code itself."""
    return " ".join("0" if word in (":", ";", "(", ")", "--") else word for word in code.split())


STEPS: dict[str, Callable[[Knobs, dict[str, Any], str], tuple[int, object]]] = {
    "/health": Knobs._health,
    "/spec/validate": Knobs._validate,
    "/generate": Knobs._generate,
    "/verify": Knobs._verify,
}
"""By the usual path: how what was told is answered, with which fault: the status, and what becomes JSON"""
