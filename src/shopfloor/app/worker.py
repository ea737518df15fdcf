"""How an agent may speak to the floor: what it is offered, and what it is told."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import msgspec

from shopfloor.config import IDENTITY
from shopfloor.ports import Agent, Capabilities, Profile, Server

COMMAND = (sys.executable, "-P", "-m", "shopfloor")
"""The command as it is found from any folder, whatever package of that name lies there."""

_APPENDIX = """
---

While you work you can talk to the people who gave you this, from your shell:

- `{shopfloor} progress "WORDS"` says in one line how far you are.
- `{shopfloor} ask "QUESTION"` asks a person. End your turn then: you are started again with the answer.
- `{shopfloor} inbox` shows what was written to you, `{shopfloor} send ORDER "WORDS"` writes to another order's agent.
- `{shopfloor} done "WORDS"` asks for your work to be verified; whether it is done, the checks decide.
"""


def offered(talk: str, env: Mapping[str, str]) -> tuple[Server, ...]:
    """The MCP server of this floor, for an agent with this environment; ``talk`` is the setting."""
    if talk == "off":
        return ()
    own = {name: env[name] for name in IDENTITY if name in env}
    return (Server(name="shopfloor", command=(*COMMAND, "mcp"), env=own),)


def appendix(talk: str, agent: Agent | None) -> str:
    """What the prompt of an agent that takes no MCP server says about our commands; empty unless it is asked for."""
    takes_servers = getattr(agent, "capabilities", Capabilities()).mcp
    return "" if talk != "all" or takes_servers else _APPENDIX.format(shopfloor=" ".join(COMMAND))


def permitted(profile: Profile, on_question: str) -> Profile:
    """The profile as it is used: where nobody answers, what would have to be asked for is denied."""
    if on_question == "decline" and profile.permissions == "ask":
        return msgspec.structs.replace(profile, permissions="deny")
    return profile
