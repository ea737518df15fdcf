"""What every verb shares: errors, exit codes, JSON and the options that stand anywhere are dealt with here.

Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 refused, 5 conflict, 130 and 143 after signals.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

import shopfloor
from shopfloor.cli.words import block
from shopfloor.config import environment
from shopfloor.domain.errors import NotFound, ShopfloorError
from shopfloor.domain.names import printable

T = TypeVar("T")
_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")
INTERRUPTED = 130
MOST_CHARS = 1000
"""of one line of an error"""


class Edge:
    """One call of the command: how it answers, and the floor it speaks of."""

    def __init__(self) -> None:
        self.json = False
        self.to_file = False
        """what it says in JSON goes to a file, and its errors are for people alone"""
        self.debug = False
        self.color: bool | None = None
        self.flags: dict[str, object] = {}

    def take(self, *, directory: str | None, debug: bool, no_color: bool, json: bool = False) -> None:
        """Take in the options that stand before or behind the verb."""
        if directory is not None:
            try:
                os.chdir(directory)
            except OSError as problem:
                why = os.strerror(problem.errno or 0).lower()
                raise NotFound(f"cannot go to folder {directory!r}: {why}") from None
        self.debug = self.debug or debug
        self.json = self.json or json
        if no_color or environment().get("NO_COLOR"):
            self.color = False

    def floor(self) -> shopfloor.Shopfloor:
        """The floor of the repository that this process stands in."""
        return shopfloor.Shopfloor.open(Path.cwd(), flags=self.flags)

    def call(self, work: Callable[[shopfloor.Shopfloor], Awaitable[T]]) -> T:
        """Do something with the floor and let go of it again."""

        async def body() -> T:
            async with self.floor() as floor:
                return await work(floor)

        return self.perform(body())

    def perform(self, work: Coroutine[Any, Any, T], *, loop: Callable[[], Any] | None = None) -> T:
        """Run it in a loop of its own. What fails beside it is told in one line, with ``--debug`` in full.

        ``loop`` makes another kind of event loop than the usual one.
        """
        import asyncio

        from shopfloor.cli.stopper import insistent

        def told(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if self.debug:
                loop.default_exception_handler(context)
            elif (problem := context.get("exception")) is not None:
                self.put(f"shopfloor: beside this {type(problem).__name__} happened: {problem}", err=True)

        async def body() -> T:
            asyncio.get_running_loop().set_exception_handler(told)
            with insistent():
                return await work

        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(body())

    def put(self, text: str = "", *, err: bool = False) -> None:
        """Write one or more lines. Whatever they are made of, they cannot do more than be read in colour."""
        click.echo(harmless(text), err=err, color=self.color)

    def put_json(self, value: object) -> None:
        """Write a value as one JSON document."""
        self.put(_json(value))

    def answer(self, text: str) -> None:
        """Write what the controller replied."""
        if self.json:
            self.put_json({"ok": True, "reply": text})
        elif text:
            self.put(block(text))


def _json(value: object) -> str:
    import msgspec

    return escaped(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def escaped(document: str) -> str:
    """The same JSON, with escapes for what a terminal would not just show."""
    if all(line.isprintable() for line in document.split("\n")):
        return document
    odd = (char for char in set(document) if char != "\n" and not char.isprintable())
    return document.translate({ord(char): _escape(char) for char in odd})


def _escape(char: str) -> str:
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def harmless(text: str) -> str:
    """The text with our own colours, and without anything else that a terminal obeys."""
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return "".join(piece if place % 2 else printable(piece) for place, piece in enumerate(_COLOR.split(text)))


class Verb(click.Command):
    """A verb whose help ends in an example."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        if not any("--json" in param.opts for param in self.params):
            self.params.append(click.Option(["--json"], is_flag=True, help="Answer in JSON."))
        self.params += [
            click.Option(["-C", "directory"], metavar="DIR", hidden=True),
            click.Option(["--debug"], is_flag=True, hidden=True),
            click.Option(["--no-color"], is_flag=True, hidden=True),
        ]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example."""
        if self.example:
            with formatter.section("Example"):
                formatter.write_text(self.example)


def verb(*, example: str, name: str = "") -> Callable[[Callable[..., int | None]], Verb]:
    """Make a verb of a function that takes the edge first. It returns the exit code, None for 0."""

    def wrap(function: Callable[..., int | None]) -> Verb:
        @click.pass_context
        @functools.wraps(function)
        def body(ctx: click.Context, /, *args: Any, **options: Any) -> int | None:
            edge = ctx.ensure_object(Edge)
            common = {key: options.pop(key) for key in ("directory", "debug", "no_color")}
            edge.take(**common, json=options.pop("json", False))
            return function(edge, *args, **options)

        return click.command(name or None, cls=Verb, example=example)(body)

    return wrap


def guarded(main: Callable[[], int | None], arguments: Sequence[str], edge: Edge) -> int:
    """Run it, and turn whatever it raises into a message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    try:
        code = _told(main, edge, debug="--debug" in words, json="--json" in words)
        sys.stdout.flush()
    except BrokenPipeError:
        silence()
        return 0
    except OSError as problem:
        # What was still in the buffer could not be written, e.g. to a full disk.
        silence()
        sys.stderr.write(_lines(_error(problem)) + "\n")
        return 1
    return code


def silence() -> None:
    """Nobody reads what we say any more: write to nowhere from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _told(main: Callable[[], int | None], edge: Edge, *, debug: bool, json: bool) -> int:
    try:
        return main() or 0
    except BrokenPipeError:
        raise
    except SystemExit:  # click does so in one case only: nobody reads its output any more
        raise BrokenPipeError from None
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.exceptions.Abort:
        return INTERRUPTED
    except Exception as problem:
        if debug:
            traceback.print_exc()
        told = _error(problem)
        if json and not edge.to_file:
            click.echo(_json({"error": told}))
        click.echo(_lines(told), err=True)
        return int(str(told["exit_code"]))


def _error(problem: Exception) -> Mapping[str, object]:
    """An error as data: kind, message, hint, exit_code."""
    while isinstance(problem, ExceptionGroup) and len(problem.exceptions) == 1:
        problem = problem.exceptions[0]
    if isinstance(problem, ShopfloorError):
        code, message, hint = problem.exit_code, problem.message, problem.hint
    elif isinstance(problem, click.ClickException):
        code, message, hint = 2, _lower(problem.format_message()), ""
        context = getattr(problem, "ctx", None)
        if context is not None:
            hint = f"type {context.command_path} --help"
    elif isinstance(problem, OSError) and problem.strerror:
        code, hint, message = 1, "", problem.strerror.lower()
        message += f": {str(problem.filename)!r}" if problem.filename else ""
    else:
        code, hint = 1, "this is a fault of shopfloor: say it again with --debug, and report what that shows"
        message = f"unexpected {type(problem).__name__}: {problem}"
    told = {"message": message, "hint": hint}
    # A word of the call need not be text: JSON takes half a character as little as a terminal does.
    plain = {name: text.encode(errors="backslashreplace").decode() for name, text in told.items()}
    return {"kind": type(problem).__name__, **plain, "exit_code": code}


def _lower(text: str) -> str:
    """A message of click as ours are written."""
    text = text.strip().removesuffix(".")
    return text[:1].lower() + text[1:]


def _bounded(text: str) -> str:
    """A value that was typed may be of any length; what is said about it is not."""
    half = MOST_CHARS // 2
    return "\n".join(w if len(w) <= MOST_CHARS else f"{w[:half]} … {w[-half:]}" for w in text.split("\n"))


def _lines(told: Mapping[str, object]) -> str:
    message, hint = (block(_bounded(str(told[part]))) for part in ("message", "hint"))
    return f"shopfloor: {message}" + (f"\n  {hint}" if hint else "")
