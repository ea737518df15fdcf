"""``muscle``: the built-in worker on one task, for a person, a script, or the floor."""

from __future__ import annotations

from pathlib import Path

import click

from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.stopper import WORDS, insist
from shopfloor.config import environment
from shopfloor.domain.errors import NotFound, UsageError
from shopfloor.muscle.program import COMMAND_S, Task, alone_on_stdout, in_words, perform


@verb(example='shopfloor muscle --model anthropic/claude-sonnet-4-6 --task "Make the tests pass."')
@click.option(
    "--model", "-m", required=True, metavar="PROVIDER/NAME", help="anthropic/… or openai/…: who speaks like it."
)
@click.option("--task", "-t", metavar="TEXT", help="What to do.")
@click.option("--task-file", type=click.Path(dir_okay=False, path_type=Path), help="The same, from a file of any size.")
@click.option("--cost-limit", "-l", type=click.FloatRange(min=0), metavar="USD", help="Stop before the call behind it.")
@click.option("--step-limit", type=click.IntRange(min=0), default=0, metavar="N", help="Model calls; 0: any number.")
@click.option(
    "--command-timeout", type=click.FloatRange(min=1), default=COMMAND_S, show_default=True, metavar="SECONDS"
)
@click.option("--headless", is_flag=True, help="Print events as JSON Lines and nothing else.")
def muscle(
    edge: Edge, *, model: str, task: str | None, task_file: Path | None, cost_limit: float | None, step_limit: int,
    command_timeout: float, headless: bool,
) -> int:  # fmt: skip
    """Work on one task in this folder, with a model behind an Anthropic- or OpenAI-compatible address.

    It edits files and runs commands without asking. The key comes from ANTHROPIC_API_KEY or OPENAI_API_KEY;
    MINI_API_BASE and MINI_API_KEY name a server of your own.
    """
    env = environment()
    if task is not None and task_file is not None:
        raise UsageError("the task is given twice", hint="leave --task or --task-file out")
    if task_file is not None:
        try:
            task = task_file.read_text(encoding="utf-8", errors="replace")
        except OSError as problem:
            raise NotFound(f"cannot read {str(task_file)!r}: {(problem.strerror or '').lower()}") from None
    headless = headless or edge.json or env.get("MINI_HEADLESS", "").lower() in ("true", "1", "yes")
    wish = Task(
        text=task or "", model=model, folder=Path.cwd(), cost_limit=cost_limit, step_limit=step_limit,
        command_s=command_timeout,
    )  # fmt: skip
    write = alone_on_stdout() if headless else in_words(edge.put)
    return edge.perform(perform(wish, env, write, lambda ask: insist(WORDS, ask, lambda: None)))
