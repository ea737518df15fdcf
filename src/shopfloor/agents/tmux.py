"""Interactive agents in tmux: one session for each attempt on a private socket, which people can attach to.

A session outlives the controller that started it. Its handle in the log says where it is, and ``follow`` takes it up
where the last one left it. Any program may run there; the preset ``claude`` says by hooks what it does.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.agents import _claude_screen as claude
from shopfloor.agents._attempts import Attempts, not_started
from shopfloor.agents._process import ProcessAgent, write_private
from shopfloor.agents._run import _NOTE, KEPT_BYTES
from shopfloor.agents._screen import HookedScreen, PlainScreen, Screen
from shopfloor.agents._sessions import INSTALL, server
from shopfloor.agents._terminal import GIVEN, ROUTE, Ladder, Terminal
from shopfloor.agents._tmux import TERM, Tmux, session_name
from shopfloor.config import secrets_in
from shopfloor.domain.errors import Refused
from shopfloor.masking import Masker
from shopfloor.ports import Delivery, Handle, Launch, Probe, Profile, Report, Route
from shopfloor.spawn import Guard, alive, start_time_of
from shopfloor.spawn.errors import refusal

KEEPER = Path(__file__).parents[1] / "spawn" / "pane.py"
NOTE = Path(__file__).with_name("_note.py")
START_S = 15.0
OLDEST = (3, 2)
PRESETS = ("claude",)


class TmuxAgent(ProcessAgent):
    """Drives programs in terminals that people can attach to, and that outlive the controller."""

    driver = "tmux"

    def __init__(
        self, guard: Guard, *, environment: Mapping[str, str] | None = None, root: Path | None = None,
        tmux_ladder: Ladder | None = None, **more: Any,
    ) -> None:  # fmt: skip
        """``environment`` is where tmux itself is looked for; its own variables reach no worker."""
        super().__init__(guard, environment=environment, root=root, **more)
        self._environment = dict(environment or {})
        self._secrets = secrets_in(environment or {})
        self._steps = tmux_ladder or Ladder()
        self._terminals: Attempts[Terminal] = Attempts("nothing is left of it")

    def command(self, profile: Profile) -> tuple[str, ...]:
        """The profile's command, else the program of its preset."""
        return profile.command or ((claude.PROGRAM,) if profile.preset == "claude" else ())

    def arguments(self, launch: Launch) -> tuple[str, ...]:
        return claude.arguments(launch) if launch.profile.preset == "claude" else ()

    def environment(self, launch: Launch) -> Mapping[str, str]:
        """The given one. What describes the screen describes ours."""
        env = claude.environment(launch) if launch.profile.preset == "claude" else dict(launch.env)
        return {**env, "TERM": TERM}

    def reader(self, launch: Launch) -> Screen:
        """What understands it: by its hooks where it has them."""
        return _screen(launch.profile.preset, launch.profile.name, launch.secrets)

    # -- the port ---------------------------------------------------------------------------------------------------

    async def probe(self, profile: Profile) -> Probe:
        """Look for tmux and the program."""
        if profile.preset not in ("", *PRESETS):
            problem = f"driver 'tmux' knows no preset {profile.preset!r}"
            return Probe(found=False, problem=problem, hint=f"choose one of {', '.join(PRESETS)}, or write a command")
        try:
            version = await self._tmux(self._root).version()
        except Refused as problem:
            return Probe(found=False, problem=problem.message, hint=problem.hint)
        if _number(version) < OLDEST:
            return Probe(found=False, problem=f"tmux {version or '?'} is too old", hint=INSTALL)
        seen = await super().probe(profile)
        if not seen.found:
            return seen
        capable = HookedScreen.capabilities if profile.preset else PlainScreen.capabilities
        return msgspec.structs.replace(seen, capabilities=capable)

    async def start(self, launch: Launch) -> Handle:
        """Start its session. Raises Refused when it cannot be started, or when the attempt runs already."""
        name = session_name(launch.attempt)
        tmux = self._tmux(Path(launch.directory).parents[1])
        terminal = await self._terminals.start(launch.attempt, partial(self._open, launch, tmux, name))
        return terminal.handle

    async def follow(self, handle: Handle) -> AsyncIterator[Report]:
        """Everything it reports; of one that an earlier controller started, what nobody has reported yet."""
        attempts = self._terminals
        living = attempts.get(handle.attempt) is None and await self.living(handle)
        if living and attempts.get(handle.attempt) is None:  # nor taken up while we looked
            attempts.take_up(handle.attempt, self._adopt(handle))
        async with aclosing(attempts.follow(handle.attempt)) as reports:
            async for report in reports:
                yield report

    async def send(self, handle: Handle, text: str) -> Delivery:
        """Type it. Raises Refused when it does not run here."""
        terminal = self._terminals.get(handle.attempt)
        if terminal is None:
            raise Refused(f"attempt {handle.attempt!r} has no session", hint="shopfloor status")
        return await terminal.send(text)

    async def stop(self, handle: Handle) -> None:
        """Interrupt, tell it to end, terminate, kill; also one of an earlier controller. Harmless when it has ended."""
        terminal, known = self._terminals.get(handle.attempt), self._terminals.known(handle.attempt)
        if not known and _is_ours(handle) and alive(*_keeper(handle)):
            terminal = self._terminals.take_up(handle.attempt, self._adopt(handle))
        if terminal is not None:
            await terminal.stop()
        elif _is_ours(handle) and not known:
            await self._tmux(_place(handle)).end(handle.detail["session"])

    # -- beyond the port --------------------------------------------------------------------------------------------

    async def living(self, handle: Handle) -> bool:
        """Whether it can be followed although its controller has died: it has its prompt, or its end was noted."""
        if not _is_ours(handle):
            return False
        folder = Path(handle.detail["folder"])
        if (folder / "exit.json").exists():
            return True
        return alive(*_keeper(handle)) and (not handle.detail.get("paste") or await asyncio.to_thread(_given, handle))

    async def route(self, handle: Handle) -> Route | None:
        """From a file of the attempt's folder that only its owner may read: the log has no tokens."""
        folder = Path(handle.detail["folder"])
        if not handle.detail.get("gateway") or (folder / "exit.json").exists():
            return None
        path = folder / ROUTE
        try:
            return msgspec.json.decode(await asyncio.to_thread(path.read_bytes), type=Route)
        except (OSError, msgspec.DecodeError) as problem:
            raise Refused(f"cannot read {str(path)!r}: {problem}") from problem

    # -- starting ---------------------------------------------------------------------------------------------------

    def _tmux(self, place: Path) -> Tmux:
        return server(place, self._environment, self._root)

    async def _open(self, launch: Launch, tmux: Tmux, name: str) -> Terminal:
        folder = Path(launch.directory)
        prompt_file = folder / "prompt.md"
        argv, given = self._argv(launch, prompt_file)
        mark = f"\x1b]7717;{secrets.token_hex(16)}\x07"
        masked = Masker(launch.secrets).text(launch.prompt)
        preset = launch.profile.preset
        keeper, recorder = folder / "keeper.json", folder / "recorder.json"
        env = self.environment(launch)
        try:
            folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a few small writes once an attempt
            if await tmux.there(name):
                raise Refused(f"session {name!r} is there already", hint="shopfloor gc")
            write_private(prompt_file, launch.prompt if "prompt_file" in given else masked)
            if preset == "claude":
                claude.prepare(launch, [sys.executable, "-I", "-S", str(NOTE), "hook", str(folder / "hooks.jsonl")])
            spec: dict[str, Any] = {"argv": argv, "cwd": launch.workspace, "env": env, "folder": str(folder)}
            write_private(keeper, json.dumps({**spec, "mark": mark}))
            if launch.route is not None:
                write_private(folder / ROUTE, msgspec.json.encode(launch.route).decode())
            spec = {"log": str(folder / "stdout.log"), "end": str(folder / "stdout.end"), "mark": mark}
            spec |= {"limit": KEPT_BYTES, "note": _NOTE.decode(), "secrets": launch.secrets}
            write_private(recorder, json.dumps(spec))
            run = [sys.executable, "-I", "-S"]
            pane = await tmux.new(name, [*run, str(KEEPER), str(keeper)], [*run, str(NOTE), "record", str(recorder)])
            told = await _told(folder / "pane.json", pane)
        except OSError as error:
            raise not_started(launch.profile.name, error) from None
        finally:
            keeper.unlink(missing_ok=True)
        if not told.get("pid"):
            await tmux.end(name)
            recorder.unlink(missing_ok=True)
            stage, number = told.get("stage", "program"), int(told.get("errno", 0))
            problem = refusal(argv, Path(launch.workspace), stage=stage, number=number)
            raise Refused(problem.message, hint=problem.hint)
        paste = not given & {"prompt", "prompt_file"}
        detail = {
            "program": self.command(launch.profile)[0], "session": name, "folder": str(folder), "preset": preset,
            "keeper": str(pane), "keeper_start": str(start_time_of(pane)), "paste": "1" if paste else "",
            "name": launch.profile.name, "gateway": "1" if launch.route is not None else "",
        }  # fmt: skip
        handle = Handle(
            driver=self.driver, attempt=launch.attempt, pid=told["pid"], start_time=told["start_time"], detail=detail
        )  # fmt: skip
        screen = self.reader(launch)
        terminal = Terminal(
            handle, tmux, screen, wall=self._wall, ladder=self._steps, prompt=launch.prompt if paste else ""
        )  # fmt: skip
        if "prompt_file" in given and masked != launch.prompt:
            terminal.task.add_done_callback(lambda _: write_private(prompt_file, masked))
        return terminal

    def _adopt(self, handle: Handle) -> Terminal:
        screen = _screen(handle.detail["preset"], handle.detail["name"], self._secrets)
        tmux = self._tmux(_place(handle))
        return Terminal(handle, tmux, screen, wall=self._wall, ladder=self._steps, adopted=True)


async def _told(file: Path, pane: int) -> dict[str, Any]:
    """What the keeper says of its command; empty when it ended before it could say anything."""
    deadline = asyncio.get_running_loop().time() + START_S
    start_time = start_time_of(pane)
    while not file.exists():  # noqa: ASYNC240
        if asyncio.get_running_loop().time() > deadline or not alive(pane, start_time):
            break
        await asyncio.sleep(0.01)
    try:
        found: dict[str, Any] = json.loads(file.read_text())  # noqa: ASYNC240
    except FileNotFoundError:
        return {}
    return found


def _screen(preset: str, name: str, known: Sequence[str]) -> Screen:
    return HookedScreen(Masker(known)) if preset == "claude" else PlainScreen(name)


def _is_ours(handle: Handle) -> bool:
    return handle.driver == TmuxAgent.driver and {"session", "folder", "keeper"} <= handle.detail.keys()


def _place(handle: Handle) -> Path:
    return Path(handle.detail["folder"]).parents[1]


def _keeper(handle: Handle) -> tuple[int, int]:
    return int(handle.detail["keeper"]), int(handle.detail["keeper_start"])


def _given(handle: Handle) -> bool:
    """Whether it has its prompt: said by its hook, or else pasted for sure."""
    folder = Path(handle.detail["folder"])
    if not handle.detail["preset"]:
        return (folder / GIVEN).exists()
    try:
        return b'"UserPromptSubmit"' in (folder / "hooks.jsonl").read_bytes()
    except OSError:
        return False


def _number(version: str) -> tuple[int, ...]:
    words = version.removeprefix("next-").partition("-")[0].rstrip("abcdefghijklmnopqrstuvwxyz").split(".")
    return tuple(int(word) for word in words if word.isdigit())
