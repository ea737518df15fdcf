"""What a floor and its gateway say to each other, as lines of JSON."""

from __future__ import annotations

import msgspec

from shopfloor.config.accounts import GatewaySettings
from shopfloor.ports import Limit, ModelCall, Quota

LONGEST_LINE = 16 << 20


class Open(msgspec.Struct, kw_only=True, tag="open", tag_field="do"):
    """Open a way. Its secret and its token are the floor's to choose, so that it can be opened again elsewhere."""

    id: int
    secret: str
    token: str
    attempt: str
    order: str
    run: str
    account: str
    limits: tuple[Limit, ...] = ()
    secrets: tuple[str, ...] = ()
    """that its agent may tell its model, and that are recorded nowhere"""


class Start(msgspec.Struct, kw_only=True):
    """What the gateway is to be. Keys are not in it: they come by the environment, or from files."""

    settings: GatewaySettings
    ledger: str = ""
    record: str = ""
    replay: str = ""
    port: int = 0
    ways: tuple[Open, ...] = ()
    """open from the first moment: those that an earlier gateway had"""


class Shut(msgspec.Struct, kw_only=True, tag="shut", tag_field="do"):
    """Shut a way. It is answered when its last call is written down."""

    id: int
    attempt: str


class Said(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A line from the gateway: an answer, a fact, or where it listens."""

    id: int = 0
    address: str = ""
    error: str = ""
    hint: str = ""
    call: ModelCall | None = None
    quota: Quota | None = None
