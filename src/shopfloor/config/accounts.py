"""Who pays for model calls: ``[gateway.accounts.NAME]`` and ``[gateway.prices.MODEL]`` of the settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from shopfloor.config import is_allowed
from shopfloor.config import values as v
from shopfloor.domain.errors import Refused

DIALECTS = ("anthropic", "openai", "gemini")
URLS = {
    "anthropic": "https://api.anthropic.com/v1",
    "openai": "https://api.openai.com/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta",
}
# Where no account is named: the variables that everybody's tools read, the first that is set.
_USUAL_KEYS = {
    "anthropic": (("ANTHROPIC_API_KEY", "x-api-key"), ("ANTHROPIC_AUTH_TOKEN", "bearer")),
    "openai": (("OPENAI_API_KEY", "bearer"),),
    "gemini": (("GEMINI_API_KEY", "x-goog-api-key"), ("GOOGLE_API_KEY", "x-goog-api-key")),
}
_USUAL_URLS = {
    "anthropic": ("ANTHROPIC_BASE_URL",),
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "gemini": ("GOOGLE_GEMINI_BASE_URL",),
}
_AUTH = {"anthropic": "x-api-key", "openai": "bearer", "gemini": "x-goog-api-key"}
_PROXIES = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")
_LOCAL = re.compile(r"localhost|127(?:\.[0-9]+){3}|::1")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST_PRICE = 1e6
_LARGEST_KEY_FILE = 100_000


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who pays: where calls go, with which key, and where they go when nothing is left."""

    name: str
    dialect: Literal["anthropic", "openai", "gemini"]
    url: str = ""
    """with the version's part, e.g. ``https://api.openai.com/v1``; without any path the dialect's own is added"""
    key: str = ""
    """the variable that holds the key, in the environment that Shopfloor was started in"""
    key_file: str = ""
    """or a file that holds nothing else"""
    auth: Literal["", "x-api-key", "bearer", "x-goog-api-key"] = ""
    """the header that takes the key; empty: the dialect's own"""
    spill: tuple[str, ...] = ()
    """accounts of the same dialect that take over while this one has nothing left, in this order"""
    models: dict[str, str] = msgspec.field(default_factory=dict)
    """another model than the agent names, by the name it uses; ``*``: for every other one"""

    @property
    def base(self) -> str:
        """The address before ``/messages``, ``/chat/completions`` and so on."""
        url = (self.url or URLS[self.dialect]).rstrip("/")
        return url if urlsplit(url).path else url + urlsplit(URLS[self.dialect]).path

    @property
    def local(self) -> bool:
        """Whether it is a server of this machine, which needs neither key nor proxy."""
        return bool(_LOCAL.fullmatch(urlsplit(self.base).hostname or ""))

    def headers(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The header with the key. Raises Refused when there is none, but for a local server."""
        secret = self.secret(environment)
        if not secret:
            return {}
        auth = self.auth or _AUTH[self.dialect]
        return {"authorization": f"Bearer {secret}"} if auth == "bearer" else {auth: secret}

    def secret(self, environment: Mapping[str, str]) -> str:
        """The key itself. Raises Refused as `headers` does."""
        if self.key_file:
            try:
                with Path(self.key_file).expanduser().open(encoding="utf-8") as file:
                    secret = file.read(_LARGEST_KEY_FILE).strip()
            except (OSError, UnicodeDecodeError) as problem:
                raise Refused(
                    f"cannot read the key of account {self.name!r} from {self.key_file!r}: {problem}"
                ) from problem
        else:
            secret = environment.get(self.key, "").strip()
        if "\n" in secret or not secret.isascii() or not secret.isprintable():
            raise Refused(f"the key of account {self.name!r} is more than one line of plain characters")
        if not secret and not self.local:
            where = f"the file {self.key_file!r} is empty" if self.key_file else f"the variable {self.key} is not set"
            raise Refused(f"account {self.name!r} has no key: {where}", hint=f"export {self.key or 'KEY'}=… first")
        return secret


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """USD for a million tokens."""

    input: float
    output: float
    cached: float | None = None
    """input that came from the cache; None: as other input"""


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The table ``[gateway]``."""

    accounts: dict[str, Account] = msgspec.field(default_factory=dict)
    prices: dict[str, Price] = msgspec.field(default_factory=dict)
    """of models whose price is not known, or is another for you"""

    def known(self, environment: Mapping[str, str]) -> dict[str, Account]:
        """The accounts, and for each dialect that has none the usual one: ``anthropic``, ``openai``, ``gemini``."""
        found = dict(self.accounts)
        for dialect in DIALECTS:
            if all(account.dialect != dialect for account in self.accounts.values()):
                found.setdefault(dialect, usual_account(dialect, environment))
        return found


def usual_account(dialect: str, environment: Mapping[str, str]) -> Account:
    """What everybody's tools would use here."""
    keys = _USUAL_KEYS[dialect]
    key, auth = next(((name, auth) for name, auth in keys if environment.get(name)), keys[0])
    url = next((environment[name] for name in _USUAL_URLS[dialect] if environment.get(name)), "")
    return msgspec.convert({"name": dialect, "dialect": dialect, "url": url, "key": key, "auth": auth}, Account)


def gateway_environment(settings: GatewaySettings, environment: Mapping[str, str]) -> dict[str, str]:
    """What the gateway's process gets: what a worker may see, the way out, and the keys of its accounts."""
    known = settings.known(environment)
    names = {account.key for account in known.values() if account.key} | set(_PROXIES)
    names |= {name for usual in _USUAL_URLS.values() for name in usual}
    return {name: value for name, value in environment.items() if name in names or is_allowed(name, value)}


# -- reading ------------------------------------------------------------------------------------------------------


def _url(value: object) -> str:
    text = v.line(value)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError("an address such as 'https://api.example.com/v1', without a name, a password or a query")
    return text.rstrip("/")


def _models(value: object) -> dict[str, str]:
    if isinstance(value, dict):
        return {v.line(name): v.line(text) for name, text in value.items()}
    raise ValueError("a table such as { 'large-model' = 'small-model' }")


ACCOUNT_KEYS: dict[str, Callable[[object], object]] = {
    "dialect": v.choice(*DIALECTS),
    "url": _url,
    "key": v.variable,
    "key_file": v.line,
    "auth": v.choice("x-api-key", "bearer", "x-goog-api-key"),
    "spill": v.many(v.line),
    "models": _models,
}
PRICE_KEYS = {name: v.number(0, _MOST_PRICE) for name in ("input", "output", "cached")}


def gateway_settings(value: object) -> GatewaySettings:
    """The table ``[gateway]``, read."""
    if not isinstance(value, dict):
        raise ValueError("a table [gateway]")  # noqa: TRY004 - a reader raises nothing else
    _only(value, ("accounts", "prices"), "gateway")
    accounts = {
        name: _account(name, fields) for name, fields in _tables(value.get("accounts", {}), "gateway.accounts").items()
    }
    for account in accounts.values():
        for other in account.spill:
            there = accounts.get(other)
            where = f"gateway.accounts.{account.name}.spill"
            if there is None:
                raise ValueError(f"made of accounts that are there; {where} names {other[:60]!r}")
            if there.dialect != account.dialect or other == account.name:
                raise ValueError(f"other accounts of the same dialect; {where} names {other!r}")
    prices = {}
    for model, fields in _tables(value.get("prices", {}), "gateway.prices").items():
        found = _fields(fields, PRICE_KEYS, f"gateway.prices.{model[:60]}")
        if not {"input", "output"} <= found.keys():
            raise ValueError(f"complete; gateway.prices.{model[:60]} needs input and output, USD for a million tokens")
        prices[model] = msgspec.convert(found, Price)
    return GatewaySettings(accounts=accounts, prices=prices)


def _account(name: str, fields: object) -> Account:
    where = f"gateway.accounts.{name[:60]}"
    if not _NAME.fullmatch(name):
        raise ValueError(f"tables whose names are letters, digits, '.', '_' and '-'; {name[:60]!r} is not")
    found = _fields(fields, ACCOUNT_KEYS, where)
    if "dialect" not in found:
        raise ValueError(f"complete; {where} has no dialect: write one of {', '.join(map(repr, DIALECTS))}")
    if "key" in found and "key_file" in found:
        raise ValueError(f"plain; {where} has key and key_file: write one of them")
    if "key" not in found and "key_file" not in found:
        usual, auth = _USUAL_KEYS[str(found["dialect"])][0]
        found = {"auth": auth, **found, "key": usual}
    return msgspec.convert({"name": name, **found}, Account)


def _tables(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"tables such as [{where}.NAME]")  # noqa: TRY004
    return value


def _only(fields: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for key in fields:
        if key not in known:
            near = v.closest(key, known)
            raise ValueError(f"made of {', '.join(map(repr, known))}; {where}.{key[:60]} is none{near}")


def _fields(fields: object, readers: Mapping[str, Callable[[object], object]], where: str) -> dict[str, object]:
    if not isinstance(fields, dict):
        raise ValueError(f"a table [{where}]")  # noqa: TRY004
    _only(fields, tuple(readers), where)
    found: dict[str, object] = {}
    for key, value in fields.items():
        try:
            found[key] = readers[key](value)
        except ValueError as error:
            told = "…" if key == "key" else repr(value)[:80]  # somebody may have put the key itself there
            raise ValueError(f"right everywhere; {where}.{key} = {told} must be {error}") from None
    return found
