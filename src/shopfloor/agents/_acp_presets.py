"""What is known of the agents that speak the Agent Client Protocol: how each is started, routed, and where it lies.

This is the one place that names them. Words in braces are replaced: ``{url}`` and ``{token}`` of the attempt's route,
``{model}`` of its profile. A value that is a table becomes one line of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    exit_s: float = EXIT_S
    """how long it may take to end once its stdin is closed"""


_CLAUDE_QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
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
        success_has_usage=True,
    ),
    "gemini": Preset(
        command=("gemini", "--acp"),
        install="npm install -g @google/gemini-cli",
        modes={"allow": "yolo", "deny": "default", "ask": "default"},
        model_args=("-m", "{model}"),
        env={"GEMINI_CLI_NO_RELAUNCH": "true", "GEMINI_CLI_TRUST_WORKSPACE": "true"},
        route_env={"GOOGLE_GEMINI_BASE_URL": "{url}", "GEMINI_API_KEY": "{token}"},
        auth="gemini-api-key",
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
        failure_begins="Ran into this error",
        usage_is_last_step=True,
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
        last_tool_decides=True,
        usage_is_last_step=True,
    ),
}
"""By the name that a profile's ``preset`` has; the empty one knows nothing beyond the protocol."""
