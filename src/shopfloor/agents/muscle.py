"""The worker that comes along (``shopfloor muscle``): a model behind an Anthropic- or OpenAI-compatible address."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec

from shopfloor.agents.jsonlines import JsonLinesAgent
from shopfloor.ports import Capabilities, Launch, Probe, Profile


class MuscleAgent(JsonLinesAgent):
    """Runs the worker and reads its events; its model is the profile's ``model``."""

    driver = "muscle"
    capabilities = Capabilities(cost=True, tokens=True, gateway=True)

    def command(self, profile: Profile) -> tuple[str, ...]:
        """The interpreter that runs us: what lies in the workspace cannot take the place of a module (``-P``)."""
        return profile.command or (
            sys.executable, "-P", "-m", "shopfloor", "muscle", "--headless", "--model", profile.model,
            "--task-file", "{prompt_file}",
        )  # fmt: skip

    def arguments(self, launch: Launch) -> tuple[str, ...]:
        """A limit of its own, beside ours."""
        return () if launch.budget_usd is None else ("--cost-limit", f"{launch.budget_usd:g}")

    def environment(self, launch: Launch) -> Mapping[str, str]:
        """The way to the model: through the gateway, where there is one."""
        if launch.route is None:
            return launch.env
        base = launch.route.url + ("" if launch.profile.model.startswith("anthropic/") else "/v1")
        return {**launch.env, "MINI_API_BASE": base, "MINI_API_KEY": launch.route.token}

    async def probe(self, profile: Profile) -> Probe:
        """Look for what it needs; nothing is run."""
        where = f"[agents.{profile.name}]"
        if not profile.command and not profile.model:
            what = f"agent {profile.name!r} has no model"
            return Probe(found=False, problem=what, hint=f'write model = "anthropic/…" or "openai/…" under {where}')
        if not profile.command and (find_spec("pydantic_ai") is None or find_spec("genai_prices") is None):
            what = f"agent {profile.name!r} needs more than the base of shopfloor"
            return Probe(found=False, problem=what, hint="type: pip install 'shopfloor[muscle]'")
        return await super().probe(profile)
