"""The agents that are known by name: what is typed for them, what they find in their environment, what they leave.

Data in one place. A driver looks its presets up here; a profile's ``command`` takes the place of a preset's program,
and its ``args`` stand behind the preset's words.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shopfloor.domain.errors import NotFound
from shopfloor.ports import Capabilities

TASK = "{task}"
"""The words that carry the prompt: itself, or, when it is too long for one word, the file that it is in."""


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """One agent.

    In ``words``, ``{task}`` stands for the words that carry the prompt, ``{trajectory}`` for a file outside of the
    workspace; further placeholders are those of a profile's command.
    """

    program: str
    words: tuple[str, ...]
    model: tuple[str, ...] = ()
    """words that name ``{model}``; left out when the profile names none"""
    budget: tuple[str, ...] = ()
    """words that limit what it spends to ``{usd}``; left out without a budget"""
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    """variables, where the profile does not set them; ``{workspace}`` and ``{directory}`` are replaced"""
    routed: Mapping[str, str] = msgspec.field(default_factory=dict)
    """how it is sent through the gateway: variables with ``{token}``, ``{url}``, or ``{url_v1}``, which ends in ``/v1``
    for models of the provider ``openai``"""
    unseen: frozenset[str] = frozenset()
    """variables that it must not see"""
    ignored: tuple[str, ...] = ()
    """what it leaves in the workspace and must not be committed, as lines of an exclude file"""
    capabilities: Capabilities = Capabilities()
    install: str = ""
    """what to type when its program is missing"""


AIDER = Preset(
    program="aider",
    words=(
        *("--yes-always", "--no-check-update", "--analytics-disable", "--no-show-model-warnings", "--no-stream"),
        *("--no-pretty", "--no-gitignore", "--no-show-release-notes", "--no-detect-urls"),
        *("--message-file", "{prompt_file}"),
    ),
    model=("--model", "{model}"),
    env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "AIDER_ANALYTICS": "false"},
    routed={
        "OPENAI_API_BASE": "{url}/v1",
        "OPENAI_API_KEY": "{token}",
        "ANTHROPIC_API_BASE": "{url}",
        "ANTHROPIC_API_KEY": "{token}",
    },
    ignored=(".aider*",),
    capabilities=Capabilities(commits=True, gateway=True),
    install="pip install aider-chat",
)

GOCORE = Preset(
    program="mini",
    words=("--headless", TASK, "--output", "{trajectory}"),
    model=("--model", "{model}"),
    budget=("--cost-limit", "{usd}"),
    env={
        "MINI_WORKDIR": "{workspace}",
        "MINI_HEADLESS": "true",
        "MSWEA_SILENT_STARTUP": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    },
    routed={
        "MINI_API_BASE": "{url_v1}",
        "MINI_API_KEY": "{token}",
        "ANTHROPIC_API_KEY": "sk-dummy",  # satisfies a check; the token is what is sent
        "MINI_COST_TRACKING": "ignore_errors",  # the gateway prices; an unknown model must not end the run
    },
    unseen=frozenset({"task", "output"}),  # its prompt templates take the whole environment, and break on these
    ignored=(".miniswe/",),
    capabilities=Capabilities(cost=True, gateway=True),
    install="install Mini-SWE-GOCore, or write its program into command",
)

MINI = Preset(
    program="mini",
    words=(
        *("--agent-class", "default", "--output", "{trajectory}", "--config", "mini.yaml"),
        # Some versions of its model library cannot call tools without one more package, unless they are told to.
        *("--config", "model.model_kwargs._skip_mcp_handler=true"),
        TASK,
    ),
    model=("--model", "{model}"),
    budget=("--cost-limit", "{usd}"),
    env={
        "MSWEA_CONFIGURED": "true",
        "MSWEA_SILENT_STARTUP": "1",
        "MSWEA_GLOBAL_CONFIG_DIR": "{directory}/mini",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    },
    routed={
        "OPENAI_API_BASE": "{url}/v1",
        "OPENAI_API_KEY": "{token}",
        "ANTHROPIC_API_BASE": "{url}",
        "ANTHROPIC_API_KEY": "{token}",
        "MSWEA_COST_TRACKING": "ignore_errors",
    },
    capabilities=Capabilities(cost=True, tokens=True, gateway=True),
    install="pip install mini-swe-agent mcp",
)

PRESETS: dict[str, dict[str, Preset]] = {
    "command": {"aider": AIDER},
    "jsonlines": {"gocore": GOCORE},
    "mini": {"mini": MINI},
}
"""By driver, then by name."""


def preset_of(driver: str, name: str, agent: str) -> Preset:
    """Raises NotFound for a name that this driver does not know; ``agent`` is the profile's name."""
    known = PRESETS.get(driver, {})
    if name in known:
        return known[name]
    there = ", ".join(map(repr, sorted(known))) or "none"
    elsewhere = [other for other, presets in PRESETS.items() if name in presets]
    hint = f'write driver = "{elsewhere[0]}" under [agents.{agent}]' if elsewhere else f"choose one of {there}"
    raise NotFound(
        f"agent {agent!r}: preset {name!r} is not one of those that driver {driver!r} has: {there}", hint=hint
    )
