"""``agent-servers``: several servers of one command, for `fanout` or a run with agents that are servers."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click
import msgspec

from shopfloor.app.agent_servers import COMMAND, READY_S, News, Wanted, stand
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.stopper import signalled
from shopfloor.cli.words import block
from shopfloor.config import environment
from shopfloor.config.values import words
from shopfloor.domain.errors import UsageError

ENDING = "ending the servers (again: {key} ends them at once)"
_SHOWN = " ".join(COMMAND)


@verb(name="agent-servers", example="shopfloor agent-servers 10 --command 'my-server --port {port}'")
@click.argument("count", metavar="[N]", type=click.IntRange(1, 1000), default=10)
@click.option("--command", metavar="WORDS", default=_SHOWN, help=f"What to start; default: {_SHOWN!r}.")
@click.option("--port", metavar="P", type=click.IntRange(1, 65535), default=8080, help="Of the first one: 8080.")
@click.option("--health", metavar="PATH", default="/health", help="What each is asked until it answers: /health.")
@click.option("--wait", metavar="S", type=click.FloatRange(min=0.1), default=READY_S, help="For how long: 30 s.")
@click.option("--restart", metavar="N", type=click.IntRange(min=0), default=0, help="Start one that ends again: 0.")
def agent_servers(
    edge: Edge, *, count: int, command: str, port: int, health: str, wait: float, restart: int
) -> int:  # fmt: skip
    """Start N agent servers, tell when all answer, and keep them until Ctrl-C.

    When one does not come up, all are ended and the exit code is 1.
    """
    try:
        argv = words(command)
    except ValueError as problem:
        raise UsageError(f"--command {command!r} must be {problem}") from None
    wanted = Wanted(count=count, command=argv, port=port, health=health, ready_s=wait, restarts=restart)
    up: set[int] = set()

    def told(news: News) -> None:
        _tell(edge, news)
        if not news.ended:
            up.add(news.number)
            if len(up) == count and not edge.json:
                up.add(-1)  # told once
                edge.put(f"All {count} agents started!")
        sys.stdout.flush()

    until = partial(signalled, partial(edge.put, err=True), ENDING)
    gone = edge.perform(stand(wanted, environment(), Path.cwd(), told=told, until=until))
    return 1 if gone else 0


def _tell(edge: Edge, news: News) -> None:
    if edge.json:
        edge.put(msgspec.json.encode(news).decode())
    elif news.ended:
        edge.put(block(f"Agent {news.number}: {news.url}: {news.ended}"), err=True)
    else:
        edge.put(f"  Agent {news.number}: {news.url} (PID: {news.pid})")
