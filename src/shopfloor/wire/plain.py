"""The other end for programs that must start at once: one request, one reply, the standard library alone."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shopfloor.domain.errors import Conflict, NotFound, Refused, ShopfloorError, UsageError
from shopfloor.wire._place import LINE_LIMIT, address

_ERRORS = {kind.__name__: kind for kind in (ShopfloorError, UsageError, NotFound, Refused, Conflict)}
_LISTENS_S, _PAUSE_S = 1.0, 0.05
_REPLY_LIMIT = 1 << 26
NOBODY = "no controller is at work here, so nobody listens"
HINT = "a run is gone on with by: shopfloor run --resume"


def ask(folder: Path, request: Mapping[str, Any], *, timeout_s: float = 30.0) -> dict[str, Any]:
    """The reply of the controller of a ``.work`` folder.

    Raises what it refuses with, and Refused when none listens or none replies within ``timeout_s``.
    """
    line = json.dumps(request, ensure_ascii=False).encode(errors="replace") + b"\n"
    if len(line) > LINE_LIMIT:
        raise UsageError(f"a request is {len(line)} bytes long, at most {LINE_LIMIT} are taken")
    try:
        with _connected(folder, timeout_s) as link:
            link.sendall(line)
            reply = _line(link)
    except TimeoutError:
        raise Refused(f"the controller did not reply within {timeout_s:g} s", hint="try again") from None
    except (FileNotFoundError, NotADirectoryError, ConnectionError):
        raise Refused(NOBODY, hint=HINT) from None
    error = reply.get("error")
    if isinstance(error, dict):
        kind = _ERRORS.get(str(error.get("kind")), ShopfloorError)
        raise kind(str(error.get("message", "")), hint=str(error.get("hint", "")))
    return reply


def _connected(folder: Path, timeout_s: float) -> socket.socket:
    """A connection; one that has just started may still be about to listen."""
    limit = time.monotonic() + _LISTENS_S
    while True:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(timeout_s)
        try:
            with address(folder) as place:
                link.connect(place)
        except OSError as problem:
            link.close()
            if time.monotonic() > limit or not isinstance(problem, FileNotFoundError | ConnectionRefusedError):
                raise
            time.sleep(_PAUSE_S)
        else:
            return link


def _line(link: socket.socket) -> dict[str, Any]:
    held = bytearray()
    while not held.endswith(b"\n"):
        piece = link.recv(1 << 16)
        held += piece
        if not piece or len(held) > _REPLY_LIMIT:
            raise ConnectionResetError("the controller has hung up")
    try:
        found = json.loads(held)
    except (ValueError, RecursionError):
        raise ConnectionResetError("the reply is no JSON") from None
    return found if isinstance(found, dict) else {}
