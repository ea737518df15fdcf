"""What a benchmark hands back."""

from __future__ import annotations

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured number, beside its bar and what it is compared with."""

    name: str
    value: float
    unit: str = ""
    bar: str = ""
    """what it is held to, in words; empty: it is only shown"""
    ok: bool | None = None
    """None: there is no bar"""
    baseline: float | None = None
    """the same by other means, measured in the same run"""
    ratio: float | None = None
