"""The worker as a program: what it is given, what it prints, with which code it ends.

Exit codes: 0 only for success, 1 for everything else that was worked on, 2 for usage, 130 and 143 after signals.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import msgspec

from shopfloor.domain.errors import NotFound, ShopfloorError, UsageError
from shopfloor.muscle.events import Speaker
from shopfloor.muscle.tools import Tools
from shopfloor.spawn import Guard

PROVIDERS = {"anthropic": "ANTHROPIC", "openai": "OPENAI"}
"""Which way a model is spoken to, and how the variables of its address and key begin."""

COMMAND_S = 120.0


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, with which model, within which limits."""

    text: str
    model: str
    folder: Path
    cost_limit: float | None = None
    step_limit: int = 0
    command_s: float = COMMAND_S


def provider_of(model: str) -> tuple[str, str]:
    """Provider and name of a model. Raises UsageError for a provider that is not known."""
    provider, slash, name = model.partition("/")
    if not slash:
        provider, name = ("anthropic" if model.startswith("claude") else "openai"), model
    if provider not in PROVIDERS or not name:
        known = ", ".join(PROVIDERS)
        raise UsageError(
            f"model {model!r} is of no provider that is known", hint=f"write PROVIDER/NAME; providers: {known}"
        )
    return provider, name


def load(model: str) -> None:
    """Import what a talk with this model needs, which takes seconds: to be called in a thread.

    Raises UsageError for a provider that is not known, NotFound without the extra ``muscle``.
    """
    provider, _ = provider_of(model)
    gc.disable()  # very many modules and no garbage: to look for some would take a sixth of the time
    try:
        models, *_ = (import_module(f"shopfloor.muscle.{name}") for name in ("models", "worker", "conversation"))
        models.client(provider)
    except ImportError as problem:
        what = f"a talk with a model needs {problem.name!r}"
        raise NotFound(what, hint="type: pip install 'shopfloor[muscle]'") from None
    finally:
        gc.enable()


def endpoint_of(model: str, env: Mapping[str, str]) -> dict[str, str]:
    """Provider, name, url and key for a model such as ``anthropic/claude-sonnet-4-6``.

    ``MINI_API_BASE`` and ``MINI_API_KEY`` go before the provider's own variables. Raises UsageError for another
    provider, NotFound without a key.
    """
    provider, name = provider_of(model)
    prefix = PROVIDERS[provider]
    url = env.get("MINI_API_BASE") or env.get(f"{prefix}_BASE_URL") or ""
    key = env.get("MINI_API_KEY") or env.get(f"{prefix}_API_KEY") or ""
    if not key and not url:
        hint = f"set {prefix}_API_KEY, or MINI_API_BASE and MINI_API_KEY for a server of your own"
        raise NotFound(f"there is no key for {provider!r}", hint=hint)
    return {"provider": provider, "name": name, "url": url, "key": key or "none"}


Ask = Callable[[signal.Signals], object]


async def perform(
    task: Task,
    env: Mapping[str, str],
    write: Callable[[bytes], None],
    listen: Callable[[Ask], None] = lambda _ask: None,
) -> int:
    """Work on it; returns the exit code. Everything is said through ``write``, one line at a time.

    ``listen`` gets what is to be called, in the running loop, with a signal that asks for the end.
    """
    speaker = Speaker(write, run_id=env.get("SHOPFLOOR_ATTEMPT") or secrets.token_hex(6), wall=time.time)
    received: list[signal.Signals] = []
    work = asyncio.create_task(_work(task, env, speaker))

    def stop(number: signal.Signals) -> None:
        received.append(number)
        work.cancel()

    listen(stop)
    speaker.start(task.text, task.model, str(task.folder.resolve()))
    try:
        return 0 if await work == "success" else 1
    except asyncio.CancelledError:
        number = received[0] if received else signal.SIGINT
        speaker.error(f"ended by {number.name}", "Interrupted")
        return 130 if number is signal.SIGINT else 143
    except ShopfloorError as problem:
        speaker.error(f"{problem.message}; {problem.hint}".rstrip("; "), type(problem).__name__)
        return 1
    finally:
        # Dropped where it has said how it ended; nothing that happens in a model's client may keep the last words back.
        speaker.error("it ended without saying how: see its standard error", "Unexpected")


async def _work(task: Task, env: Mapping[str, str], speaker: Speaker) -> str:
    if not task.text.strip():
        raise UsageError("there is no task", hint="give one with --task TEXT, or --task-file FILE")
    known = endpoint_of(task.model, env)
    await asyncio.to_thread(load, task.model)
    from shopfloor.muscle.models import Endpoint
    from shopfloor.muscle.worker import Limits, Worker

    limits = Limits(cost_usd=task.cost_limit, steps=task.step_limit)
    async with Guard() as guard:
        tools = Tools(guard, task.folder, _for_commands(env), timeout_s=task.command_s)
        return await Worker(Endpoint(**known), tools, speaker, limits).work(task.text, str(task.folder.resolve()))


def _for_commands(env: Mapping[str, str]) -> dict[str, str]:
    """What the commands see: not the key of the model."""
    own = {"MINI_API_KEY", *(f"{prefix}_API_KEY" for prefix in PROVIDERS.values())}
    return {name: value for name, value in env.items() if name not in own}


def alone_on_stdout() -> Callable[[bytes], None]:
    """What writes to standard output; whatever else the program prints goes to standard error from now on."""
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)

    def write(line: bytes) -> None:
        while line:
            line = line[os.write(ours, line) :]

    return write


def in_words(write: Callable[[str], None]) -> Callable[[bytes], None]:
    """The same events for a person's eyes."""

    def tell(line: bytes) -> None:
        event = msgspec.json.decode(line)
        data = event["data"]
        match event["type"]:
            case "start":
                write(f"{data['model']} works in {data['workdir']}")
            case "thought" | "log":
                write(data["content"])
            case "step":
                code = "" if data["returncode"] in (0, None) else f"  (exit {data['returncode']})"
                write(f"{data['step']}. {data['action']}{code}\n{_indented(data['output'])}")
            case "finish":
                write(f"{data['status']}: {data['result']}")
            case "error":
                write(f"{data['type']}: {data['error']}")
            case "cost":
                cost = "unpriced" if data["total"] is None else f"{data['total']:.4f} USD"
                write(f"{data['calls']} model calls, {data['tokens_in']} + {data['tokens_out']} tokens, {cost}")

    return tell


MOST_LINES = 12


def _indented(output: str) -> str:
    lines = output.rstrip().splitlines()
    more = [f"… {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
    return "\n".join(f"   {line}" for line in [*lines[:MOST_LINES], *more])
