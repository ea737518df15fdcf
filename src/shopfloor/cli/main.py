"""The command ``shopfloor``: verbs by name, each loaded when it is used."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Sequence
from importlib import import_module

import click

from shopfloor._version import __version__
from shopfloor.cli.edge import Edge, guarded

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Start and keep": {
        "init": ("shopfloor.cli.init:init", "write a first .shopfloor.toml"),
        "demo": ("shopfloor.cli.demo:demo", "see it work, without any model"),
        "agents": ("shopfloor.cli.agents:agents", "what each kind of agent can do, and which are here"),
        "agent-servers": ("shopfloor.cli.agent_servers:agent_servers", "start agents that are servers"),
        "doctor": ("shopfloor.cli.house:doctor", "look whether everything is in order"),
        "gc": ("shopfloor.cli.house:gc", "remove what is not needed any more"),
    },
    "Work": {
        "plan": ("shopfloor.cli.plan:plan", "say what a run would do"),
        "run": ("shopfloor.cli.run:run", "work on prompts, or go on with --resume"),
        "chat": ("shopfloor.cli.chat:chat", "talk with one, let many work"),
        "fanout": ("shopfloor.cli.fanout:fanout", "give many specs to agent servers"),
        "pause": ("shopfloor.cli.steer:pause", "start nothing new"),
        "resume": ("shopfloor.cli.steer:resume", "start orders again after pause"),
        "stop": ("shopfloor.cli.steer:stop", "end an order, or the run"),
        "steer": ("shopfloor.cli.steer:steer", "say something to a running agent"),
        "claim": ("shopfloor.cli.claim:claim", "take orders that are ready, to work yourself"),
        "finish": ("shopfloor.cli.claim:finish", "hand in what you made"),
        "release": ("shopfloor.cli.claim:release", "give an order back"),
    },
    "Look": {
        "status": ("shopfloor.cli.status:status", "where everything stands"),
        "watch": ("shopfloor.cli.watch:watch", "the same, live"),
        "show": ("shopfloor.cli.show:show", "everything about one order"),
        "log": ("shopfloor.cli.log:log", "what its agent did"),
        "attach": ("shopfloor.cli.attach:attach", "see the terminal it works in"),
        "diff": ("shopfloor.cli.diff:diff", "what it changed"),
    },
    "Decide": {
        "answer": ("shopfloor.cli.decide:answer", "answer an agent's question"),
        "accept": ("shopfloor.cli.decide:accept", "land a verified order"),
        "reject": ("shopfloor.cli.decide:reject", "send it back, or drop it"),
        "land": ("shopfloor.cli.decide:land", "land everything that is verified"),
        "retry": ("shopfloor.cli.decide:retry", "try a failed order again"),
        "inbox": ("shopfloor.cli.agent:inbox", "read what was written to you"),
        "send": ("shopfloor.cli.agent:send", "write to an agent, or a person"),
    },
}
AGENT_VERBS = {
    **{name: f"shopfloor.cli.agent:{name}" for name in ("assignment", "ready", "progress", "ask", "done", "mcp")},
    "muscle": "shopfloor.cli.muscle:muscle",
    "gateway": "shopfloor.cli.gateway:gateway",
}
"""What an agent calls about its own attempt, and the programs that come along: one line of the help."""
VERBS = {name: place for verbs in SECTIONS.values() for name, (place, _) in verbs.items()} | AGENT_VERBS


class Root(click.Group):
    """Knows its verbs by name and loads one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one verb."""
        place = VERBS.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb. An unknown one is answered with the nearest."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from shopfloor.config.values import closest

            raise click.UsageError(f"there is no verb {args[0]!r}{closest(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs by section."""
        for section, verbs in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(7), about) for name, (_, about) in verbs.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """How to go on."""
        formatter.write_paragraph()
        formatter.write_text(f"For agents: {', '.join(AGENT_VERBS)}")


@click.group(
    cls=Root,
    options_metavar="[-C DIR]",
    subcommand_metavar="VERB …",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("-C", "directory", metavar="DIR", help="Work in the repository at DIR.")
@click.option("--debug", is_flag=True, hidden=True)  # who needs it is told of it
@click.option("--no-color", is_flag=True, help="Use no colours.")
@click.version_option(__version__, message="shopfloor %(version)s")
@click.pass_context
def root(ctx: click.Context, *, directory: str | None, debug: bool, no_color: bool) -> None:
    """Run a crew of coding agents on a git repository; get verified work back."""
    edge = ctx.ensure_object(Edge)
    edge.take(directory=directory, debug=debug, no_color=no_color)


def run(arguments: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    edge = Edge()
    # When it ends, the interpreter would look for circles in all that is left: a fifth of the time of a `status`.
    atexit.register(gc.freeze)

    def body() -> int | None:
        words = list(arguments) or ["--help"]
        code = root.main(words, prog_name="shopfloor", standalone_mode=False, obj=edge)
        return code if isinstance(code, int) else None

    return guarded(body, arguments, edge)
