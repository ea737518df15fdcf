"""``chat``: the foreman on a terminal. He answers at once, and his crew works meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from shopfloor import UsageError
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.keyboard import Keyboard, Screen, Typed
from shopfloor.cli.stopper import WORDS, exit_code, insist
from shopfloor.cli.words import count, duration
from shopfloor.config import environment
from shopfloor.faces.foreman.background import Background, BackgroundConfig, background_of
from shopfloor.faces.foreman.config import MOST_WORKERS, WorkerConfig
from shopfloor.faces.foreman.conversation import Conversation
from shopfloor.faces.foreman.orchestrator import FOREMAN_FAILED, ForemanWorkerOrchestrator
from shopfloor.faces.foreman.pools import Routing, routing_of
from shopfloor.faces.foreman.tasks import Tasks

WHO = """say who the foreman is, in one of these ways:
  shopfloor chat --model anthropic/MODEL               a foreman and two workers of this model
  shopfloor chat --plans DIR --foreman NAME --worker NAME=2    mount plans: DIR/NAME.json"""
KEYS = ("worker_pools", "routing", "background_sessions")
"""of a crew's file"""
MOST_LINE = 100_000
"""bytes of one line of a pipe; what is longer is cut"""
TOLD_AGAIN_S = 300.0
"""how soon the same trouble of the crew is news again"""
AGAIN_S = 2.0
"""how soon a second Ctrl-C has to follow to be one"""


@verb(example="shopfloor chat --model anthropic/claude-sonnet-4-6 --workers 3")
@click.option("--plans", "folder", metavar="DIR", type=click.Path(path_type=Path), help="Where the mount plans are.")
@click.option("--foreman", metavar="NAME", default="", help="His mount plan.")
@click.option(
    "--worker", "kinds", multiple=True, metavar="NAME[=N]", help="A mount plan and how many of it; may be repeated."
)
@click.option(
    "--crew", "crew_file", metavar="FILE", type=click.Path(path_type=Path), help="Pools, routing, background."
)
@click.option("--model", metavar="PROVIDER/NAME", default="", help="Instead of mount plans: the model of all.")
@click.option("--workers", type=click.IntRange(0, 50), default=2, metavar="N", help="With --model: how many.")
@click.option("--grace", type=click.FloatRange(0), default=10.0, metavar="SECONDS", help="For the crew, at the end.")
def chat(edge: Edge, *, folder: Path | None, foreman: str, kinds: tuple[str, ...], model: str, **more: Any) -> int:
    """Talk with a foreman whose crew works in this folder. What you type is his; /help says what else there is.

    Ctrl-C interrupts his answer; a second one leaves. Work that was under way is open again then.
    """
    config = _config(more["crew_file"])
    routing, background = routing_of(config), background_of(config)
    plans: dict[str, Any]
    if model:
        if folder or foreman or kinds:
            raise UsageError("--model takes the place of mount plans: leave --plans, --foreman and --worker out")
        plans = _plain_crew(model, more["workers"])
    elif folder is None or not foreman:
        raise UsageError("nobody is there to talk with", hint=WHO)
    else:
        plans = {
            "mount_plans_dir": folder, "foreman_profile": foreman, "worker_configs": [_kind(kind) for kind in kinds],
        }  # fmt: skip
    return edge.perform(_talk(edge, plans, routing, background, grace_s=more["grace"]))


def _config(path: Path | None) -> dict[str, Any]:
    """The crew's file, JSON or TOML. Raises UsageError."""
    if path is None:
        return {}
    try:
        text = path.read_bytes()
        decode = msgspec.toml.decode if path.suffix == ".toml" else msgspec.json.decode
        found = decode(text)
    except OSError as problem:
        raise UsageError(f"cannot read {str(path)!r}: {os.strerror(problem.errno or 0).lower()}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"{str(path)!r} is malformed: {problem}", hint="it is one JSON object, or TOML") from None
    if not isinstance(found, dict):
        raise UsageError(f"{str(path)!r} is no object", hint='e.g. {"worker_pools": [{"name": "coding"}]}')
    if odd := [key for key in found if key not in KEYS]:
        raise UsageError(f"{str(path)!r} has a key {odd[0]!r}", hint=f"there are {', '.join(KEYS)}")
    return found


def _kind(text: str) -> WorkerConfig:
    name, _, count = text.partition("=")
    if not name or not (count or "1").isdecimal():
        raise UsageError(f"--worker {text!r}", hint="it is like: --worker coding-worker=2")
    if len(count) > len(str(MOST_WORKERS)) or int(count or "1") > MOST_WORKERS:
        raise UsageError(f"--worker {text!r}", hint=f"{MOST_WORKERS} of one kind are the most")
    return WorkerConfig(profile=name, count=int(count or "1"))


def _plain_crew(model: str, workers: int) -> dict[str, Any]:
    provider, _, name = model.partition("/")
    if not provider or not name:
        raise UsageError(f"--model {model!r}", hint="it is like: --model anthropic/claude-sonnet-4-6")

    def mounts(*tools: str) -> dict[str, Any]:
        return {"mounts": {"provider": provider, "model": name, "tools": list(tools)}}

    crew = [WorkerConfig(name="worker", config=mounts("bash", "edit", "issue"), count=workers)] if workers else []
    return {"foreman_config": mounts("issue", "read"), "worker_configs": crew}


async def _talk(
    edge: Edge, plans: dict[str, Any], routing: Routing, background: Sequence[BackgroundConfig], *, grace_s: float
) -> int:
    """The whole conversation; returns the exit code."""
    crew = ForemanWorkerOrchestrator(
        workspace_root=Path.cwd(), routing=routing, background=background, grace_s=grace_s, **plans
    )
    dumb = environment().get("TERM", "dumb") == "dumb"
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and not dumb
    screen = Screen(edge.put, prompts=terminal)
    async with crew:
        conversation = Conversation(_Spoken(crew), say=screen.say)
        watch = asyncio.create_task(conversation.watch(), name="news")
        if not edge.debug:  # which shows what is logged as it is, with where it comes from
            logging.getLogger("shopfloor").addHandler(_Told(conversation.tell, asyncio.get_running_loop().time))
        screen.say(f"{_crew_line(crew)}; /help says what you can type" if terminal else _crew_line(crew))
        try:
            code = await _listen(conversation, screen, Keyboard() if terminal else None)
        finally:
            watch.cancel()
            await conversation.close()
            await asyncio.wait({watch})
        busy = crew.at_work
        if terminal and busy:
            screen.say(f"the crew has {duration(grace_s)} to finish {count(busy, 'issue')}; Ctrl-C ends it at once")
    if terminal:
        screen.say("the crew has stopped" + ("; what it did not finish is open again" if busy else ""))
    return code


async def _listen(conversation: Conversation, screen: Screen, keyboard: Keyboard | None) -> int:
    """Lines and Ctrl-C, until one of them means the end."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[str | _Signal] = asyncio.Queue()
    ears = _Ears(loop.time, heard.put_nowait)
    if keyboard is None:
        insist(WORDS, ears.hear, lambda: None)
        _Reader(loop, _lines(heard.put_nowait)).start()
        return await _until_the_end(conversation, screen, heard, ears)
    insist(WORDS, ears.hear, keyboard.give_back)
    keyboard.take()

    def resumed() -> None:
        keyboard.take()
        screen.again()

    loop.add_signal_handler(signal.SIGCONT, resumed)
    try:
        _Reader(loop, _keys(screen, heard.put_nowait)).start()
        return await _until_the_end(conversation, screen, heard, ears)
    finally:
        screen.close()
        keyboard.give_back()


async def _until_the_end(
    conversation: Conversation, screen: Screen, heard: asyncio.Queue[str | _Signal], ears: _Ears
) -> int:
    screen.prompt()
    while True:
        what = await heard.get()
        if isinstance(what, _Signal):
            if what.ends:
                return exit_code(what.number)
            if not conversation.interrupt():
                screen.say("Ctrl-C again leaves")
            continue
        if not what:  # nobody can type any more: what was said is answered first
            return await _last_answers(conversation, heard, ears)
        if not await conversation.hear(what):
            ears.leaving = True
            return 0
        screen.prompt()


async def _last_answers(conversation: Conversation, heard: asyncio.Queue[str | _Signal], ears: _Ears) -> int:
    """Until all is answered, or a signal comes; 1 when there was no answer to the newest words."""
    ears.leaving = True
    answered = asyncio.ensure_future(conversation.answered())
    signalled = asyncio.ensure_future(heard.get())
    try:
        await asyncio.wait({answered, signalled}, return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            answered.result()
            return 1 if conversation.unanswered else 0
        what = signalled.result()
        return exit_code(what.number) if isinstance(what, _Signal) else 0
    finally:
        answered.cancel()
        signalled.cancel()
        await asyncio.wait({answered, signalled})


class _Signal(NamedTuple):
    """One that came."""

    number: int
    ends: bool
    """it is to be the end of the conversation"""


class _Ears:
    """Tells Ctrl-C that interrupts from one that leaves."""

    def __init__(self, clock: Callable[[], float], tell: Callable[[_Signal], None]) -> None:
        self.leaving = False
        """the conversation is over, and what is left of it is ended"""
        self._clock = clock
        self._tell = tell
        self._pressed = -AGAIN_S

    def hear(self, number: signal.Signals) -> bool:
        """Hand it on; whether the conversation goes on after it."""
        now = self._clock()
        again, self._pressed = now - self._pressed < AGAIN_S, now
        ends = again or self.leaving or number != signal.SIGINT
        self.leaving = ends
        self._tell(_Signal(number, ends))
        return not ends


def _lines(tell: Callable[[str], None]) -> Callable[[bytes], None]:
    """Takes pieces of a text and hands on each line with its end; an empty one is the end of all."""
    left = b""

    def take(piece: bytes) -> None:
        nonlocal left
        *lines, left = (left + piece).split(b"\n")
        if not piece and left:
            lines.append(left)
        for line in lines:
            tell(line[:MOST_LINE].decode(errors="replace") + "\n")
        left = left[:MOST_LINE]
        if not piece:
            tell("")

    return take


def _keys(screen: Screen, tell: Callable[[str], None]) -> Callable[[bytes], None]:
    """The same for what a keyboard sends; the screen shows it."""
    typed = Typed()

    def take(piece: bytes) -> None:
        for line in typed.take(piece) if piece else [""]:
            if line:
                screen.entered(line.rstrip("\n"))
            tell(line)
        screen.typed(typed.text)

    return take


class _Reader(threading.Thread):
    """Reads standard input, whatever it is; a daemon, so that nobody waits for it at the end. Empty: its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[bytes], None]) -> None:
        super().__init__(name="shopfloor-input", daemon=True)
        self._loop = loop
        self._tell = tell

    def run(self) -> None:
        """Hand on each piece as it comes."""
        while piece := self._read():
            self._hand_on(piece)
        self._hand_on(b"")

    def _read(self) -> bytes:
        try:
            return os.read(0, 1 << 16)
        except OSError:
            return b""

    def _hand_on(self, piece: bytes) -> None:
        with suppress(RuntimeError):  # the conversation has ended meanwhile
            self._loop.call_soon_threadsafe(self._tell, piece)


class _Told(logging.Handler):
    """What is logged of the crew, as news: a line each, the same again no sooner than after some minutes."""

    def __init__(self, tell: Callable[[str], None], clock: Callable[[], float]) -> None:
        super().__init__(logging.WARNING)
        self._news = tell
        self._clock = clock
        self._known: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it; what the foreman's answer says anyway is not told twice."""
        text, now = record.getMessage(), self._clock()
        if record.msg != FOREMAN_FAILED and now - self._known.get(text, -TOLD_AGAIN_S) >= TOLD_AGAIN_S:
            self._known = {known: at for known, at in self._known.items() if now - at < TOLD_AGAIN_S}
            self._known[text] = now
            self._news(text)


class _Spoken:
    """The crew as a conversation needs it."""

    def __init__(self, crew: ForemanWorkerOrchestrator) -> None:
        self._crew = crew

    @property
    def tasks(self) -> Tasks:
        """The crew's issues, also before the first message."""
        return self._crew.look()

    @property
    def spent(self) -> dict[str, Any]:
        """What models have cost."""
        return self._crew.spent

    @property
    def background(self) -> Background:
        """The sessions beside it."""
        return self._crew.background

    @property
    def routing(self) -> Routing:
        """Which pool an issue is for."""
        return self._crew.routing

    async def execute_user_message(self, message: str) -> str:
        """One turn of the foreman."""
        return await self._crew.execute_user_message(message)


def _crew_line(crew: ForemanWorkerOrchestrator) -> str:
    """Who is there, before anybody has begun."""
    kinds = [f"{config.count} x {config.label}" for config in crew.worker_configs]
    kinds += [f"{pool.max_concurrent} x {pool.name}" for pool in crew.routing.pools]
    beside = [f"{config.name} ({config.trigger})" for config in crew.background.configs]
    more = f", beside them {', '.join(beside)}" if beside else ""
    return f"foreman, and a crew of {', '.join(kinds) or 'nobody'}{more}"
