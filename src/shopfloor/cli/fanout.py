"""``fanout``: give many specifications to agent servers, and say what came back."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from shopfloor import Shopfloor
from shopfloor.cli.edge import Edge, harmless, silence, verb
from shopfloor.cli.stopper import Stopper
from shopfloor.config import environment
from shopfloor.domain.errors import NotFound, Refused, ShopfloorError, UsageError
from shopfloor.faces.fanout import (
    POLICIES,
    Coordinator,
    FanoutReport,
    Source,
    all_problems,
    earlier,
    lines,
    refuse,
    shown,
    source,
    story,
)

STOPPING = "stopping: what is finished is kept (again: {key} ends it at once)"
STDIN = "-"
FEWEST_COLUMNS = 60
"""for a bar; where there are fewer, there is only its number"""
SECONDS = click.FloatRange(min=0, min_open=True)


@verb(example="shopfloor fanout specs.jsonl --agents http://127.0.0.1:8080-8089 --results sqlite:results.db")
@click.argument("specs", required=False, metavar="[SPECS]")
@click.option(
    "--agents", multiple=True, metavar="URL", help="Agent servers, e.g. http://127.0.0.1:8080-8089; repeatable."
)
@click.option("--queue", metavar="URL", help="Take them from this queue: redis://…; SPECS are appended to it.")
@click.option("--drain", is_flag=True, help="End when the queue is empty, also without SPECS.")
@click.option("--results", metavar="URL", help="Keep results: postgresql://… or sqlite:FILE.")
@click.option("--policy", type=click.Choice(POLICIES), help="Who gets which (default: round-robin).")
@click.option("--in-flight", metavar="N|auto", help="Requests under way at each agent (default: auto).")
@click.option("--timeout", type=SECONDS, metavar="S", help="Seconds for one request (default: 30).")
@click.option("--path", multiple=True, metavar="STEP=PATH", help="Where agents are asked, e.g. validate=/validate.")
@click.option(
    "--validate", type=click.Choice(["basic", "strict"]), help="Look at SPECS here first; refuse what is off."
)
@click.option(
    "--json", "report", is_flag=False, flag_value=STDIN, metavar="[FILE]", help="Write the report, with all results."
)
@click.option("--resume", is_flag=True, help="Go on with what was stopped or killed; nothing finished is done again.")
@click.option("--plain", is_flag=True, help="Lines instead of a bar, also in a terminal.")
def fanout(edge: Edge, *, specs: str | None, report: str | None, **options: Any) -> int:
    """Give SPECS (a file of JSON or JSON Lines, '-' for stdin) to agent servers; without, 100 generated ones.

    Ctrl-C stops and keeps what is finished; --resume goes on with it.
    """
    edge.json, edge.to_file = report == STDIN, report not in (None, STDIN)
    return _perform(edge, _Wanted(specs=specs, report=None if edge.json else report, **options))


async def is_fanout(floor: Shopfloor) -> bool:
    """Whether the run to go on with is one."""
    try:
        return bool((await earlier(floor)).orders)
    except NotFound:
        return False


def resume_fanout(edge: Edge, *, plain: bool) -> int:
    """Go on with the unfinished fan-out of this folder; returns the exit code."""
    return _perform(edge, _Wanted(resume=True, plain=plain))


def _perform(edge: Edge, wanted: _Wanted) -> int:
    wanted.refuse()
    coordinator, asked = wanted.coordinator(), wanted.source()
    show = _Show(edge, coordinator, plain=wanted.plain)
    stopper = Stopper(show.stop, give_back=show.close, killed=f"killed; go on with: {wanted.again()}")

    async def body() -> FanoutReport:
        stopper.answer_signals()
        waits = wanted.queue is not None and not (wanted.specs or wanted.drain)
        return await coordinator.run(
            asked, resume=wanted.resume, wait=waits, keep=edge.json or wanted.report is not None
        )

    try:
        found = edge.perform(body(), loop=_loop())
    finally:
        show.close()
    if edge.json:
        edge.put_json(msgspec.to_builtins(found))
    else:
        edge.put("\n".join(lines.closing(found)))
    if wanted.report:
        _write(Path(wanted.report), found)
    if found.waiting:
        edge.put(f"stopped; go on with: {wanted.again()}", err=True)
    if stopper.code:
        return stopper.code
    return 1 if found.failed or found.waiting else 0


def _loop() -> Callable[[], Any] | None:
    """The faster event loop that the extra brings, where this platform has it."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The words of the call."""

    specs: str | None = None
    report: str | None = None
    agents: tuple[str, ...] = ()
    queue: str | None = None
    drain: bool = False
    results: str | None = None
    policy: str | None = None
    in_flight: str | None = None
    timeout: float | None = None
    path: tuple[str, ...] = ()
    validate: str | None = None
    resume: bool = False
    plain: bool = False

    def refuse(self) -> None:
        """Raise UsageError, NotFound or Refused for what cannot be."""
        if self.timeout is not None and not math.isfinite(self.timeout):
            raise UsageError(f"--timeout {self.timeout} is no number of seconds")
        if self.drain and not self.queue:
            raise UsageError("--drain is about a queue: give --queue redis://…, or leave it out")
        if self.specs not in (None, STDIN) and (path := Path(str(self.specs))).is_dir() | (not path.exists()):
            what = f"{self.specs!r} is a folder" if path.is_dir() else f"there is no file {self.specs!r}"
            raise NotFound(what, hint="give a file of JSON or JSON Lines, or '-' for stdin")
        if self.report:
            _refuse_place(Path(self.report))

    def coordinator(self) -> Coordinator:
        """Raises UsageError, Refused."""
        in_flight = self.in_flight
        if in_flight not in (None, "auto") and not str(in_flight).isdecimal():
            raise UsageError(f"--in-flight {in_flight!r} is neither a number nor 'auto'")
        return Coordinator(
            self.agents or None, folder=Path.cwd(), queue=self.queue, results=self.results, policy=self.policy,
            in_flight=None if in_flight is None else 0 if in_flight == "auto" else int(in_flight),
            timeout_s=self.timeout, paths=dict(_path(one) for one in self.path) or None,
        )  # fmt: skip

    def source(self) -> Source:
        """What is wanted; empty where that is in the queue, or what the run was started with that is resumed."""
        if self.specs is None:
            found = Source() if self.queue or self.resume else Source(specs=list(story()))
        else:
            # A pipe cannot be read twice, and these names are of something else in another process.
            passing = self.specs == STDIN or self.specs.startswith(("/dev/", "/proc/"))
            name = self.specs if not passing and Path(self.specs).is_file() else ""
            found = source(_bytes(self.specs), _named(self.specs), name=name)
        if self.validate:
            refuse(all_problems(found.specs, strict=self.validate == "strict"), _named(self.specs))
        return found

    def again(self) -> str:
        """What to type to go on."""
        words: Sequence[str] = []
        if self.queue:
            waits = not (self.specs or self.drain)
            words = [*words, "--queue", shown(self.queue), *([] if waits else ["--drain"])]
        if self.results:
            words = [*words, "--results", shown(self.results)]
        return shlex.join(["shopfloor", "fanout", *words, "--resume"])


def _path(text: str) -> tuple[str, str]:
    step, mark, path = text.partition("=")
    if not mark:
        raise UsageError(f"--path {text!r} is not like validate=/validate")
    return step, path


def _bytes(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()


def _named(name: str | None) -> str:
    return {STDIN: "stdin", None: "the generated specifications"}.get(name) or str(name)


class _Show:
    """What is to be seen meanwhile: lines, or a bar in a terminal. Nobody reading any more does not end the run."""

    def __init__(self, edge: Edge, coordinator: Coordinator, *, plain: bool) -> None:
        self._edge = edge
        self._coordinator = coordinator
        self._bar: Any = None
        self._closed = False
        dumb = environment().get("TERM", "dumb") == "dumb"
        self._drawn = not (plain or dumb or edge.json) and sys.stdout.isatty()
        coordinator.when_begun = self._begin
        coordinator.when_told = self._tell
        coordinator.observers.append(self._see)

    def _begin(self) -> None:
        intake, agents = self._coordinator.intake, len(self._coordinator.agents)
        assert intake is not None
        self._put(lines.opening(intake.expected, agents, queue=intake.waits))
        if self._drawn:
            # Loaded only where it is drawn: it costs a third of the start.
            from rich.progress import MofNCompleteColumn, Progress, TaskProgressColumn

            from shopfloor.cli.live import console

            here = console(no_color=self._edge.color is False)
            wide = (*Progress.get_default_columns(), MofNCompleteColumn())
            columns = wide if here.width >= FEWEST_COLUMNS else (TaskProgressColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, console=here, transient=True)
            self._task = self._bar.add_task("specs", total=intake.expected or None)
            self._bar.start()

    def _see(self, _result: object) -> None:
        done, intake = self._coordinator.tally.done, self._coordinator.intake
        known = max(done, intake.known, intake.expected) if intake else done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=known)
        elif not self._closed and (text := lines.progress(done, known)):
            self._put(text)

    def _tell(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(harmless(line), markup=False, highlight=False)  # above the bar
        else:
            self._edge.put(line, err=True)

    def stop(self, why: str, key: str) -> None:
        """A signal came."""
        self.close()  # or it is said in the middle of the bar
        self._edge.put(STOPPING.format(key=key), err=True)
        self._coordinator.stop(why)

    def close(self) -> None:
        """Give the terminal back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._closed = None, True

    def _put(self, text: str) -> None:
        if not self._edge.json:
            try:
                self._edge.put(text)
            except OSError:  # the reader of a pipe, or the terminal, is gone
                silence()


def _refuse_place(path: Path) -> None:
    """Raise Refused where a report cannot be written, before there is one."""
    hint = "name another file, or '-' for stdout"
    if path.is_dir() or (path.is_file() and not _is_report(path)):
        raise Refused(f"--json would write over {str(path)!r}, which is no report", hint=hint)
    try:
        if path.exists():
            path.open("ab").close()
        else:
            _beside(path).touch()
            _beside(path).unlink()
    except OSError as problem:
        why = (problem.strerror or str(problem)).lower()
        raise Refused(f"--json cannot write {str(path)!r}: {why}", hint=hint) from None


def _is_report(path: Path) -> bool:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError):
        return False
    return isinstance(found, dict) and {"total_runs", "success_rate", "results"} <= found.keys()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _write(path: Path, found: FanoutReport) -> None:
    """Whole or not at all; where it is no file, as it comes. Raises ShopfloorError."""
    text = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    beside = _beside(path)
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(text)
            return
        beside.write_bytes(text)
        beside.replace(path)
    except OSError as problem:
        beside.unlink(missing_ok=True)
        why = (problem.strerror or str(problem)).lower()
        hint = "all is in the log: shopfloor fanout --resume --json FILE writes it again"
        raise ShopfloorError(f"the report cannot be written to {str(path)!r}: {why}", hint=hint) from None
