"""Local programs that are known by name; what is known of them stands in :mod:`shopfloor.agents.presets`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from shopfloor.agents._process import ProcessAgent
from shopfloor.agents.presets import TASK, Preset, preset_of
from shopfloor.domain.errors import NotFound, Refused, ShopfloorError
from shopfloor.git import Git
from shopfloor.masking import Masker
from shopfloor.ports import Handle, Launch, Probe, Profile

LONGEST_TASK = 100_000
"""bytes of a prompt that is still one word of a command line"""
IN_A_FILE = "Your task is long, so it is in a file. Read all of it, in parts, and then do what it says. The file is"
TRAJECTORY = "trajectory.json"
TASK_FILE = "task.yaml"
"""where a preset that takes settings from a file has a long prompt; deleted at the end"""
MASKED_BYTES = 256 << 20
"""a longer trajectory is deleted at the end rather than read to be masked"""


class PresetAgent(ProcessAgent):
    """Drives a program by the profile's command alone, or as one of its presets says."""

    preset = ""
    """the one that is meant when a profile names none; empty: such a profile's command says it all"""

    def known(self, profile: Profile) -> Preset | None:
        """What is known of this agent; None: nothing. Raises NotFound for a preset that is not there."""
        name = profile.preset or self.preset
        return preset_of(self.driver, name, profile.name) if name else None

    def command(self, profile: Profile) -> tuple[str, ...]:
        """The profile's command, else the preset's program."""
        if profile.command:
            return profile.command
        preset = self.known(profile)
        return (preset.program,) if preset else ()

    async def probe(self, profile: Profile) -> Probe:
        try:
            preset = self.known(profile)
        except NotFound as problem:
            return Probe(found=False, problem=problem.message, hint=problem.hint)
        seen = await super().probe(profile)
        if preset is None:
            return seen
        if seen.found:
            return msgspec.structs.replace(seen, capabilities=preset.capabilities)
        hint = seen.hint if profile.command else f"{preset.install}; or {seen.hint}"
        return msgspec.structs.replace(seen, hint=hint)

    async def start(self, launch: Launch) -> Handle:
        try:
            preset = self.known(launch.profile)
        except NotFound as problem:
            raise Refused(problem.message, hint=problem.hint) from None
        if preset is None:
            return await super().start(launch)
        if preset.ignored:
            await asyncio.to_thread(_ignore, launch, preset.ignored)
        argv = (*self.command(launch.profile), *self._words(preset, launch))
        env = _environment(preset, launch)
        handle = await super().start(msgspec.structs.replace(_with_command(launch, argv), env=env))
        if (run := self._attempts.get(launch.attempt)) is not None:
            run.task.add_done_callback(lambda _: _mask(launch))
        return handle

    def task(self, launch: Launch) -> tuple[str, ...]:
        """The words that carry the prompt. One that is too long stays in its file, and the words say in which."""
        if is_word(launch.prompt):
            return ("--task", "{prompt}")
        return ("--task", f"{IN_A_FILE} {{prompt_file}}")

    def _words(self, preset: Preset, launch: Launch) -> list[str]:
        values = {"trajectory": str(trajectory(launch)), "model": launch.profile.model}
        words = [*(preset.model if launch.profile.model else ())]
        if launch.budget_usd is not None:
            values["usd"] = f"{launch.budget_usd:.6f}".rstrip("0").rstrip(".")
            words += preset.budget
        found: list[str] = []
        for word in (*words, *preset.words):
            found += self.task(launch) if word == TASK else (_filled(word, values),)
        return found


def is_word(prompt: str) -> bool:
    """Whether it can stand on a command line."""
    return len(prompt.encode(errors="replace")) <= LONGEST_TASK


def trajectory(launch: Launch) -> Path:
    """Where the agent writes what it did; outside of the workspace."""
    return Path(launch.directory, TRAJECTORY)


def _with_command(launch: Launch, argv: tuple[str, ...]) -> Launch:
    return msgspec.structs.replace(launch, profile=msgspec.structs.replace(launch.profile, command=argv))


def _environment(preset: Preset, launch: Launch) -> dict[str, str]:
    """The launch's environment with what the preset needs; what the profile sets is left alone."""
    route, own = launch.route, launch.profile.env
    values = {"workspace": launch.workspace, "directory": launch.directory}
    found = {name: value for name, value in launch.env.items() if name not in preset.unseen}
    found |= {name: _filled(text, values) for name, text in preset.env.items() if name not in own}
    if route is not None:
        v1 = "/v1" if launch.profile.model.startswith("openai/") else ""
        values |= {"url": route.url, "url_v1": f"{route.url}{v1}", "token": route.token}
        found |= {name: _filled(text, values) for name, text in preset.routed.items()}
    return found


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _ignore(launch: Launch, patterns: tuple[str, ...]) -> None:
    """Keep what it leaves behind out of commits. A folder that is no repository has none."""
    workspace = Path(launch.workspace)
    if not Path(workspace, ".git").exists():
        return
    try:
        Git(workspace, base_env=launch.env).exclude(patterns)
    except ShopfloorError as error:
        what = f"cannot keep {patterns[0]!r} out of commits: {error.message}"
        raise Refused(f"agent {launch.profile.name!r} was not started: {what}", hint=error.hint) from None


def _mask(launch: Launch) -> None:
    """Its own record of the attempt, once it has ended, without secrets."""
    path = trajectory(launch)
    Path(launch.directory, TASK_FILE).unlink(missing_ok=True)
    secrets = (*launch.secrets, *((launch.route.token,) if launch.route else ()))
    try:
        if path.stat().st_size > MASKED_BYTES:
            path.unlink()
            return
        path.chmod(0o600)
        data = path.read_bytes()
        masked = Masker(secrets).data(data)
        if masked is not data:
            path.write_bytes(masked)
    except OSError:
        return  # it wrote none
