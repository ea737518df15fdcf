"""What is known of the agents that speak the Agent Client Protocol: how each is started, routed, and where it lies.

This is the one place that names them. Words in braces are replaced: ``{url}`` and ``{token}`` of the attempt's route,
``{model}`` of its profile. A value that is a table becomes one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.ports import Capabilities, Launch

EXIT_S = 5.0


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of agent."""

    command: tuple[str, ...] = ()
    install: str = ""
    """what to type to get it"""
    modes: Mapping[str, str] = {}
    """the mode to set for each answer to permission requests (``allow``, ``deny``, ``ask``)"""
    model_args: tuple[str, ...] = ()
    env: Mapping[str, Any] = {}
    """what it gets unless its environment has it already"""
    model_env: Mapping[str, Any] = {}
    """on top of it when a model is named"""
    permission_env: Mapping[str, Mapping[str, Any]] = {}
    """what it gets for each answer to permission requests, where it has no modes"""
    route_env: Mapping[str, Any] = {}
    """on top of everything when it has a route"""
    routed_model: str = ""
    """the model named on a route when the profile names none"""
    auth: str = ""
    """the method to authenticate with, where it asks for that"""
    capabilities: Capabilities = Capabilities()

    success_has_usage: bool = False
    """a turn without usage has failed, whatever its stop reason says"""
    failure_begins: str = ""
    """a last message that begins so tells a failure"""
    last_tool_decides: bool = False
    """it ends its turn as if nothing were wrong when its last tool was refused or failed"""
    usage_is_last_step: bool = False
    """the tokens of a turn are those of its last model call alone, so they are no sum"""
    files: bool = True
    """whether it is offered to read and write through us"""
    exit_s: float = EXIT_S
    """how long it may take to end once its stdin is closed"""


def _can(*, permissions: bool = True, resume: bool = False, cost: bool = False, tokens: bool = False) -> Capabilities:
    """What the known agents have in common, and what they differ in."""
    return Capabilities(
        interrupt=True,
        steer=True,
        permissions=permissions,
        mcp=True,
        gateway=True,
        commits=True,
        resume=resume,
        cost=cost,
        tokens=tokens,
    )


_CLAUDE_QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
}

_OPENCODE_MAY = {
    rule: {"OPENCODE_CONFIG_CONTENT": {"permission": {"edit": rule, "bash": rule, "webfetch": rule}}}
    for rule in ("allow", "ask")
}

PRESETS: dict[str, Preset] = {
    "": Preset(),
    "claude": Preset(
        command=("claude-agent-acp",),
        install="npm install -g @agentclientprotocol/claude-agent-acp",
        modes=dict.fromkeys(("allow", "deny", "ask"), "default"),
        env=_CLAUDE_QUIET,
        model_env={"ANTHROPIC_MODEL": "{model}"},
        route_env={"ANTHROPIC_BASE_URL": "{url}", "ANTHROPIC_AUTH_TOKEN": "{token}", "ANTHROPIC_API_KEY": None},
        capabilities=_can(resume=True, cost=True, tokens=True),
    ),
    "codex": Preset(
        command=("codex-acp",),
        install="npm install -g @agentclientprotocol/codex-acp",
        # Its other modes keep .git read-only, or let a second model decide.
        modes={"allow": "agent-full-access", "deny": "read-only", "ask": "read-only"},
        env={"NO_BROWSER": "1", "CODEX_CONFIG": {"check_for_update_on_startup": False}},
        model_env={"CODEX_CONFIG": {"model": "{model}"}},
        route_env={
            "MODEL_PROVIDER": "shopfloor",
            "SHOPFLOOR_ROUTE_TOKEN": "{token}",
            "CODEX_CONFIG": {
                "model_provider": "shopfloor",
                "model_providers": {
                    "shopfloor": {
                        "name": "shopfloor",
                        "base_url": "{url}/v1",
                        "env_key": "SHOPFLOOR_ROUTE_TOKEN",
                        "wire_api": "responses",
                    }
                },
            },
        },
        capabilities=_can(permissions=False, resume=True, tokens=True),  # its sandbox refuses and asks nobody
        success_has_usage=True,
        exit_s=1.0,
    ),
    "gemini": Preset(
        command=("gemini", "--acp"),
        install="npm install -g @google/gemini-cli",
        modes={"allow": "yolo", "deny": "default", "ask": "default"},
        model_args=("-m", "{model}"),
        env={"GEMINI_CLI_NO_RELAUNCH": "true", "GEMINI_CLI_TRUST_WORKSPACE": "true"},
        route_env={"GOOGLE_GEMINI_BASE_URL": "{url}", "GEMINI_API_KEY": "{token}"},
        auth="gemini-api-key",
        capabilities=_can(tokens=True),
        files=False,  # it takes a file that is not there for one that cannot be read
        exit_s=0.5,
    ),
    "goose": Preset(
        command=("goose", "acp", "--with-builtin", "developer"),
        install="https://github.com/block/goose, or npm install -g @aaif/goose-binary-linux-x64",
        modes={"allow": "auto", "deny": "approve", "ask": "approve"},
        env={
            "GOOSE_TELEMETRY_ENABLED": "false",
            "GOOSE_DISABLE_KEYRING": "1",
            "GOOSE_DISABLE_SESSION_NAMING": "true",
        },
        model_env={"GOOSE_MODEL": "{model}"},
        route_env={
            "GOOSE_PROVIDER": "openai",
            "OPENAI_HOST": "{url}",
            "OPENAI_API_KEY": "{token}",
            "GOOSE_MODEL": "{model}",
        },
        routed_model="gpt-5",
        capabilities=_can(resume=True),
        failure_begins="Ran into this error",
        usage_is_last_step=True,
    ),
    "scripted": Preset(
        command=(sys.executable, "-I", str(Path(__file__).parents[1] / "testing" / "scripted_acp.py")),
        capabilities=Capabilities(
            resume=True, interrupt=True, steer=True, permissions=True, mcp=True, cost=True, tokens=True
        ),
        exit_s=2.0,
    ),
    "opencode": Preset(
        command=("opencode", "acp"),
        install="npm install -g opencode-ai",
        env={
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
            "OPENCODE_CONFIG_CONTENT": {"autoupdate": False, "share": "disabled"},
        },
        permission_env={
            "allow": _OPENCODE_MAY["allow"],
            "deny": _OPENCODE_MAY["ask"],
            "ask": _OPENCODE_MAY["ask"],
        },
        model_env={"OPENCODE_CONFIG_CONTENT": {"model": "{model}", "small_model": "{model}"}},
        route_env={
            "OPENCODE_CONFIG_CONTENT": {
                "model": "shopfloor/{model}",
                "small_model": "shopfloor/{model}",
                "provider": {
                    "shopfloor": {
                        "npm": "@ai-sdk/openai-compatible",
                        "name": "shopfloor",
                        "options": {"baseURL": "{url}/v1", "apiKey": "{token}"},
                        "models": {"{model}": {"name": "{model}", "tool_call": True}},
                    }
                },
            }
        },
        routed_model="gpt-5",
        # Not resume: wherever it is resumed, it works on in the folder in which the session began, which by then is
        # another order's.
        capabilities=_can(),
        last_tool_decides=True,
        usage_is_last_step=True,
    ),
}
"""By the name that a profile's ``preset`` has; the empty one knows nothing beyond the protocol."""


def environment(preset: Preset, launch: Launch) -> dict[str, str]:
    """The whole environment of an attempt: what the launch has, what the preset adds, and what leads to the route."""
    profile, route = launch.profile, launch.route
    model = profile.model or (preset.routed_model if route else "")
    words = {"url": route.url if route else "", "token": route.token if route else "", "model": model}
    found: dict[str, Any] = dict(launch.env)
    layers: list[Mapping[str, Any]] = [
        {name: value for name, value in preset.env.items() if isinstance(value, dict) or name not in found}
    ]
    layers.append(preset.permission_env.get(profile.permissions, {}))
    layers += [preset.model_env] if profile.model else []
    layers += [preset.route_env] if route else []
    for layer in layers:
        for name, value in _filled(layer, words).items():
            found[name] = _merged(_table(found.get(name)), value) if isinstance(value, dict) else value
    return {
        name: json.dumps(value) if isinstance(value, dict) else value
        for name, value in found.items()
        if value is not None
    }


def _filled(value: Any, words: Mapping[str, str]) -> Any:
    """The value with its words replaced; a table loses what needs a word that is empty."""
    if isinstance(value, str):
        for name, word in words.items():
            value = value.replace(f"{{{name}}}", word)
        return value
    if not isinstance(value, Mapping):
        return value
    lacking = [f"{{{name}}}" for name, word in words.items() if not word]
    return {
        _filled(key, words): _filled(item, words)
        for key, item in value.items()
        if not any(lack in text for lack in lacking for text in (key, item) if isinstance(text, str))
    }


def _table(text: Any) -> dict[str, Any]:
    """What a variable holds already, when that is a table too."""
    if isinstance(text, dict):
        return text
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(below)
    for key, value in above.items():
        held = made.get(key)
        made[key] = _merged(held, value) if isinstance(held, dict) and isinstance(value, Mapping) else value
    return made
