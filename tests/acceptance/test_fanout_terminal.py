"""A fan-out in a real terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shopfloor.testing.spec_servers import Servers, serving

from .shop import Shop
from .test_cli_terminal import Terminal, run, terminal
from .test_fanout import agents, specs

__all__ = ["terminal"]


@pytest.fixture
def servers() -> Iterator[Servers]:
    with serving(2, latency_ms=20) as found:
        yield found


def command(shop: Shop, servers: Servers, count: int = 400) -> str:
    return run("fanout", specs(shop.root, count), *agents(servers), "--in-flight", "1")


def test_a_bar_is_drawn_and_gone_when_it_is_stopped(shop: Shop, terminal: Terminal, servers: Servers) -> None:
    terminal.open(command(shop, servers))
    seen = terminal.until("Processing 400 specs with 2 agents", "━", "/400")
    assert "Progress:" not in seen
    terminal.press("C-c")
    seen = terminal.until("ended with 130")
    lines = [line.rstrip() for line in seen.splitlines()]
    assert "stopping: what is finished is kept (again: Ctrl-C ends it at once)" in lines, seen
    assert "stopped; go on with: shopfloor fanout --resume" in lines
    assert "━" not in seen
    assert terminal.cursor_shown()


def test_a_narrow_terminal_gets_the_numbers_alone(shop: Shop, terminal: Terminal, servers: Servers) -> None:
    terminal.open(command(shop, servers, 60), columns=45)
    seen = terminal.until("% ", "/60")
    assert "…" not in seen
    assert "━" not in seen
    terminal.until("ended with 0")


def test_a_dumb_terminal_gets_lines(shop: Shop, terminal: Terminal, servers: Servers) -> None:
    terminal.open(f"TERM=dumb {command(shop, servers, 20)}")
    seen = terminal.until("ended with 0")
    assert "Progress: 10/20 completed\nProgress: 20/20 completed\n" in seen
