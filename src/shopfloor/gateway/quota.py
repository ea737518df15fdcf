"""What an answer that refuses says of its account: wait a little, or nothing is left."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from shopfloor.domain.names import one_line

SHORT_S = 60.0
"""A limit that ends within this is the client's to wait for; a longer one closes the account."""
STORM = 5
"""refusals in a row without a word on when they end, after which the account counts as closed"""
FIRST_GUESS_S, LONGEST_GUESS_S = 60.0, 3600.0
LONGEST_S = 32 * 86400.0
BAD, PAY, LIMITED = 400, 402, 429
_REFUSING = frozenset({BAD, PAY, 403, LIMITED})
_EPOCH = 1e9
"""A smaller number of seconds counts from now on."""
_WHY_CHARS = 300
_READ_BYTES = 20_000

_EMPTY = re.compile(
    r"insufficient_quota|billing_hard_limit|billing_not_active|billing_error|usage_limit_reached|quota_exceeded"
    r"|credit balance is too low|usage limit reached",
    re.IGNORECASE,
)
_CREDIT = re.compile(r"your credit balance is too low", re.IGNORECASE)
_DAILY = re.compile(r"PerDay|per day|daily limit", re.IGNORECASE)
_DELAY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")


class Verdict(msgspec.Struct, frozen=True):
    """What to make of an answer."""

    used_up: bool
    """nothing is left; else it is a limit that ends soon"""
    reset_at: float | None
    """wall seconds; None: it did not say"""
    why: str


class _Detail(msgspec.Struct):
    retry_delay: str | None = msgspec.field(default=None, name="retryDelay")


class _Inner(msgspec.Struct):
    type: str | None = None
    code: str | int | None = None
    status: str | None = None
    message: str | None = None
    resets_at: float | None = None
    resets_in_seconds: float | None = None
    details: list[_Detail] | None = None


class _Error(msgspec.Struct):
    error: _Inner | None = None


_error = msgspec.json.Decoder(_Error)
_errors = msgspec.json.Decoder(list[_Error])


def verdict(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Verdict | None:
    """What the answer says of the account; None when it says nothing (529 is the server's trouble, not the account's).

    ``headers`` by lower-case name, ``now`` in wall seconds.
    """
    if status not in _REFUSING:
        return None
    inner, text = _inner(body), body[:_READ_BYTES].decode(errors="replace")
    why = one_line((inner.message or "") if inner else "", _WHY_CHARS) or f"HTTP {status}"
    told = f"{inner.type} {inner.code} {inner.message}" if inner else text
    # What is wrong with a request may quote it, so a plain 400 counts only for how it begins.
    empty = bool(_CREDIT.match(why) if status == BAD else _EMPTY.search(told))
    reset = _reset(headers, inner, now)
    if headers.get("anthropic-ratelimit-unified-status") == "rejected" and status == LIMITED:
        return Verdict(True, reset, why)
    if empty or status == PAY:
        return Verdict(True, reset, why)
    if status != LIMITED:
        return None
    if _DAILY.search(text) and (reset is None or reset - now <= SHORT_S):
        return Verdict(True, None, why)
    if reset is not None and reset - now > SHORT_S:
        return Verdict(True, reset, why)
    return Verdict(False, reset, why)


def guess(closings: int) -> float:
    """Seconds until an account that did not say when is tried again: doubled with each closing in a row."""
    return float(min(LONGEST_GUESS_S, FIRST_GUESS_S * 2.0 ** min(max(0, closings - 1), 16)))


def _inner(body: bytes) -> _Inner | None:
    try:
        if body.lstrip()[:1] == b"[":
            found = _errors.decode(body)
            return found[0].error if found else None
        return _error.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _reset(headers: Mapping[str, str], inner: _Inner | None, now: float) -> float | None:
    """When it ends, by the surest word on it. A moment that is past, or absurd, is no word."""
    unified = [_moment(headers.get(name, ""), now) for name in ("anthropic-ratelimit-unified-reset",)]
    told = [_wait(headers.get("retry-after-ms", ""), now, unit_s=0.001), _wait(headers.get("retry-after", ""), now)]
    if inner is not None:
        told.append(inner.resets_at)
        told.append(now + inner.resets_in_seconds if inner.resets_in_seconds is not None else None)
        told += [_wait(detail.retry_delay or "", now) for detail in inner.details or ()]
    exhausted = [_exhausted(headers, what, now) for what in ("requests", "tokens", "input-tokens", "output-tokens")]
    for group in (unified, told, exhausted):
        found = [moment for moment in group if moment is not None and now < moment <= now + LONGEST_S]
        if found:
            return max(found)
    return None


def _exhausted(headers: Mapping[str, str], what: str, now: float) -> float | None:
    """When a limit resets of which nothing remains: of those with some left the reset says nothing here."""
    for left, reset in (
        (f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}"),
        (f"anthropic-ratelimit-{what}-remaining", f"anthropic-ratelimit-{what}-reset"),
    ):
        if headers.get(left, "0").strip() == "0" and reset in headers:
            return _moment(headers[reset], now)
    return None


def _wait(text: str, now: float, *, unit_s: float = 1.0) -> float | None:
    """``retry-after``: seconds, a duration such as ``1m30s``, or a date."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return now + float(text) * unit_s
    return _moment(text, now)


def _moment(text: str, now: float) -> float | None:
    """Wall seconds from seconds since 1970, a duration from now on, an ISO time or an HTTP date."""
    text = text.strip()[:64]
    if _NUMBER.fullmatch(text):
        return float(text) if float(text) >= _EPOCH else now + float(text)
    if text and re.fullmatch(rf"(?:{_DELAY.pattern})+", text):
        return now + sum(float(number) * _UNIT_S[unit] for number, unit in _DELAY.findall(text))
    for parse in (dt.datetime.fromisoformat, parsedate_to_datetime):
        try:
            found = parse(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        if found.tzinfo is None:
            found = found.replace(tzinfo=dt.UTC)
        return found.timestamp()
    return None
