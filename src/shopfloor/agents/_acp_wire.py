"""The words of the Agent Client Protocol: messages as lines, with the types of its official package.

Importing this needs the extra ``acp`` and takes half a second, so the driver does it only when it is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from acp import schema
from acp.meta import AGENT_METHODS, CLIENT_METHODS, PROTOCOL_VERSION
from pydantic import BaseModel, ValidationError

from shopfloor._version import __version__
from shopfloor.agents._tidy import json_object
from shopfloor.ports import Server

INITIALIZE, NEW, LOAD = (AGENT_METHODS[name] for name in ("initialize", "session_new", "session_load"))
RESUME, SET_MODE, SET_OPTION = (
    AGENT_METHODS[name] for name in ("session_resume", "session_set_mode", "session_set_config_option")
)
PROMPT, CANCEL, AUTHENTICATE = (AGENT_METHODS[name] for name in ("session_prompt", "session_cancel", "authenticate"))
UPDATE, PERMISSION = (CLIENT_METHODS[name] for name in ("session_update", "session_request_permission"))
READ, WRITE = (CLIENT_METHODS[name] for name in ("fs_read_text_file", "fs_write_text_file"))

VERSION: int = PROTOCOL_VERSION
NOT_FOUND, INVALID, UNKNOWN_METHOD, INTERNAL, AUTH_REQUIRED = -32002, -32602, -32601, -32603, -32000

Id = int | str
T = TypeVar("T", bound=BaseModel)


class Message(NamedTuple):
    """A request or notification (with ``method``), or an answer (with ``result`` or ``error``)."""

    id: Id | None
    method: str
    params: Any
    result: Any
    error: dict[str, Any] | None


def decode(line: bytes) -> Message | None:
    """A line as a message; None for anything that is not one."""
    found = json_object(line)
    if found is None:
        return None
    method, key, error = found.get("method", ""), found.get("id"), found.get("error")
    if isinstance(key, bool) or not isinstance(key, int | str | None) or not isinstance(method, str):
        return None
    if not method and (key is None or not ({"result", "error"} & found.keys())):
        return None
    return Message(key, method, found.get("params"), found.get("result"), error if isinstance(error, dict) else None)


def _line(fields: Mapping[str, Any]) -> bytes:
    # ASCII alone: a lone surrogate of the agent's goes back to it as it came.
    return json.dumps({"jsonrpc": "2.0", **fields}, separators=(",", ":")).encode() + b"\n"


def _plain(body: BaseModel) -> dict[str, Any]:
    made: dict[str, Any] = body.model_dump(mode="json", by_alias=True, exclude_none=True)
    return made


def request(key: int, method: str, body: BaseModel) -> bytes:
    return _line({"id": key, "method": method, "params": _plain(body)})


def notification(method: str, body: BaseModel) -> bytes:
    return _line({"method": method, "params": _plain(body)})


def answer(key: Id, body: BaseModel) -> bytes:
    return _line({"id": key, "result": _plain(body)})


def refusal(key: Id, code: int, message: str) -> bytes:
    return _line({"id": key, "error": {"code": code, "message": message}})


def read(kind: type[T], value: Any) -> T | None:
    """What a message carries; None when it is not such a thing."""
    try:
        return kind.model_validate(value)
    except (ValidationError, RecursionError):
        return None


# -- what we say ------------------------------------------------------------------------------------------------------


def hello(*, files: bool) -> schema.InitializeRequest:
    """Who we are, and whether we read and write files for it; terminals we do not."""
    served = schema.FileSystemCapabilities(read_text_file=files, write_text_file=files)
    return schema.InitializeRequest(
        protocol_version=PROTOCOL_VERSION,
        client_info=schema.Implementation(name="shopfloor", version=__version__),
        client_capabilities=schema.ClientCapabilities(fs=served, terminal=False),
    )


Servers = list[schema.HttpMcpServer | schema.SseMcpServer | schema.AcpMcpServer | schema.McpServerStdio]


def servers(offered: Sequence[Server]) -> Servers:
    """MCP servers as the protocol writes them."""
    made: Servers = []
    for server in offered:
        env = [schema.EnvVariable(name=name, value=value) for name, value in server.env.items()]
        command, *args = server.command
        made.append(schema.McpServerStdio(name=server.name, command=command, args=args, env=env))
    return made


def prompt(session: str, text: str) -> schema.PromptRequest:
    return schema.PromptRequest(session_id=session, prompt=[schema.TextContentBlock(type="text", text=text)])


def selected(option: str) -> schema.RequestPermissionResponse:
    return schema.RequestPermissionResponse(outcome=schema.AllowedOutcome(outcome="selected", option_id=option))


def cancelled() -> schema.RequestPermissionResponse:
    return schema.RequestPermissionResponse(outcome=schema.DeniedOutcome(outcome="cancelled"))
