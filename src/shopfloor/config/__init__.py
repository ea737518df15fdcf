"""The environment: the one place that reads ours, and the allow-list that makes a worker's.

The settings are in ``config.settings``, ``config.load`` reads them, ``config.proposal`` writes the first file. They are
not imported here, because the fast commands need the environment and nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

ALLOWED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TERM", "TZ", "TMPDIR"),
        *("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "PIP_CERT"),
    }
)
"""What every worker gets, with ``LC_*``: nothing that could be a key."""

ADDRESSES = frozenset(
    {
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"),
        *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
        "UV_CONFIG_FILE",
    }
)
"""Where packages come from. A setup cannot work without them behind a mirror, but an address can carry a
password: one that does (``user@host``, or a query) stays home unless the profile passes it by name."""

_CARRIES_LOGIN = re.compile(r"//[^/\s]*@|\?")
_LOGIN = re.compile(r"//[^/\s:@]*:([^/\s@]+)@")
_KEY_NAME = re.compile(
    r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?(?![A-Z])|(?:^|_)(?:PASS|PWD|PAT|AUTH)$"
)
_NOT_KEYS = frozenset({"PWD", "OLDPWD"})
SHORTEST_SECRET = 8


def environment() -> dict[str, str]:
    """A copy of this process's environment. Everything else gets it, or a part of it, passed."""
    return dict(os.environ)


def is_allowed(name: str, value: str) -> bool:
    """Whether a worker may see this variable without being given it by name."""
    if name in ADDRESSES:
        return not _CARRIES_LOGIN.search(value)
    return name in ALLOWED or name.startswith("LC_")


def worker_environment(
    parent: Mapping[str, str],
    *,
    workspace: str,
    pass_env: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    order: str = "",
    attempt: str = "",
    generation: int = 0,
    directory: str = "",
    agent: str = "",
    token: str = "",
    floor: str = "",
) -> dict[str, str]:
    """The whole environment of a worker in ``workspace``.

    From ``parent`` it takes the allow-list and the names in ``pass_env``; ``env`` of the profile is laid over it;
    who it is and where it works is laid over that. Empty arguments leave their variables out: a setup or a check
    has no order.
    """
    found = {name: value for name, value in parent.items() if is_allowed(name, value)}
    found |= {name: parent[name] for name in pass_env if name in parent}
    found |= env or {}
    identity = {
        "SHOPFLOOR_ORDER": order,
        "SHOPFLOOR_ATTEMPT": attempt,
        "SHOPFLOOR_GENERATION": str(generation) if generation else "",
        "SHOPFLOOR_ATTEMPT_DIR": directory,
        "SHOPFLOOR_WORKSPACE": workspace,
        "SHOPFLOOR_TOKEN": token,
        "SHOPFLOOR_FLOOR": floor,
        "WORK_ORDER_ID": order,
        "AGENT_ID": agent,
    }
    # Some agents take their project from PWD and not from the folder they were started in.
    return found | {name: value for name, value in identity.items() if value} | {"PWD": workspace}


IDENTITY = ("SHOPFLOOR_FLOOR", "SHOPFLOOR_ORDER", "SHOPFLOOR_ATTEMPT", "SHOPFLOOR_GENERATION", "SHOPFLOOR_TOKEN")
"""What tells a worker's programs to whom they speak, and as whom."""


def speaker(variables: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """The ``.work`` folder of the floor that started this worker, and who it is there; None: this is no worker."""
    folder, order, attempt, generation, token = (variables.get(name, "") for name in IDENTITY)
    if not (folder and order and attempt and token):
        return None
    number = int(generation) if generation.isascii() and generation.isdigit() and len(generation) < 10 else 0  # noqa: PLR2004
    return folder, {"order": order, "attempt": attempt, "generation": number, "token": token}


def secrets_in(*environments: Mapping[str, str]) -> tuple[str, ...]:
    """The values that must not be kept anywhere, longest first.

    These are the values of variables that are named like keys, and the passwords inside addresses.
    """
    found: set[str] = set()
    for variables in environments:
        for name, value in variables.items():
            if name not in _NOT_KEYS and _KEY_NAME.search(name.upper()):
                found.add(value.strip())
            found.update(_LOGIN.findall(value))
    kept = [value for value in found if len(value) >= SHORTEST_SECRET]
    return tuple(sorted(kept, key=lambda value: (-len(value), value)))
