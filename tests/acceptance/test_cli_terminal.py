"""The live picture in a real terminal: a tmux server of its own, looked at as a person sees it."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .shop import COMMAND, Shop, agents_alive, until


class Terminal:
    """One tmux window on a private socket."""

    def __init__(self, tmux: str, shop: Shop, folder: Path) -> None:
        self._tmux = [tmux, "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self._env = {**shop.env, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "COLUMNS": "80", "LINES": "24"}
        self._shop = shop

    def _call(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], env=self._env, check=True, capture_output=True, text=True)
        return done.stdout

    def open(self, command: str, *, columns: int = 80, lines: int = 24) -> None:
        size = ["-x", str(columns), "-y", str(lines)]
        self._call("new-session", "-d", "-s", "t", "-c", str(self._shop.root), *size, "/bin/sh", "-i")
        self._call("set-option", "-g", "history-limit", "5000")
        self.type(f"PS1='% '; clear; {command}; echo ended with $?")

    def type(self, text: str) -> None:
        self._call("send-keys", "-t", "t", "-l", text)
        self._call("send-keys", "-t", "t", "Enter")

    def press(self, key: str) -> None:
        self._call("send-keys", "-t", "t", key)

    def resize(self, columns: int, lines: int) -> None:
        self._call("resize-window", "-t", "t", "-x", str(columns), "-y", str(lines))

    def screen(self, *, history: bool = False) -> str:
        return self._call("capture-pane", "-p", "-t", "t", *(["-S", "-5000"] if history else []))

    def cursor_shown(self) -> bool:
        return self._call("display-message", "-p", "-t", "t", "#{cursor_flag}").strip() == "1"

    def until(self, *words: str) -> str:
        try:
            until(lambda: all(word in self.screen() for word in words), f"{words} on the screen")
        except AssertionError as missing:
            raise AssertionError(f"{missing}; it shows:\n{self.screen(history=True)}") from None
        return self.screen()

    def title(self) -> str:
        return self._call("display-message", "-p", "-t", "t", "#{pane_title}").strip()

    def clipboard(self) -> str:
        return self._call("list-buffers").strip()

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def terminal(shop: Shop, tmp_path: Path, need: Callable[[str, str], str]) -> Iterator[Terminal]:
    found = Terminal(need("tmux", "apt install tmux"), shop, tmp_path)
    yield found
    found.close()


def run(*words: str) -> str:
    return shlex.join([*COMMAND, *words])


def test_a_run_is_drawn_in_place_and_its_report_stays(shop: Shop, terminal: Terminal) -> None:
    shop.configure()
    prompts = [shop.waits("first"), shop.adds("second", head="depends_on: first"), shop.adds("bad")]
    terminal.open(run("run", "--max-parallel", "3", *prompts), columns=100, lines=30)
    seen = terminal.until("running  first", "#1", "slots 1/3", "waiting", "bad")
    assert "3 orders:" in seen
    assert not terminal.cursor_shown()
    terminal.until("bad", "FAILED")
    shop.gate.touch()
    terminal.until("ended with 1")
    whole = terminal.screen(history=True)
    assert "3 orders: 2 landed, 1 failed" in whole
    assert "slots " not in whole, "no picture is left behind"
    assert "running  first" not in whole
    assert terminal.cursor_shown()


def test_ctrl_c_in_a_terminal_stops_and_says_how_to_go_on(shop: Shop, terminal: Terminal) -> None:
    shop.configure()
    terminal.open(run("run", shop.hangs("one"), shop.hangs("two", stubborn=True)))
    terminal.until("running  one", "running  two")
    until(lambda: len(agents_alive(shop)) == 2, "both agents live")
    terminal.press("C-c")
    terminal.until("stopping: agents are asked to end, their work is kept (again: Ctrl-C kills now)")
    terminal.until("ended with 130")
    assert "stopped; go on with: shopfloor run --resume" in terminal.screen()
    assert agents_alive(shop) == []
    assert terminal.cursor_shown()


def test_ctrl_c_twice_gives_the_terminal_back_at_once(shop: Shop, terminal: Terminal) -> None:
    shop.configure()
    terminal.open(run("run", shop.hangs("deaf", stubborn=True)))
    terminal.until("running  deaf")
    until(lambda: len(agents_alive(shop)) == 1, "the agent lives")
    terminal.press("C-c")
    terminal.until("stopping")
    terminal.press("C-c")
    seen = terminal.until("ended with 130")
    assert "killed; work that was under way is kept" in seen
    until(lambda: agents_alive(shop) == [], "the agent has ended")
    assert terminal.cursor_shown()


def resized(terminal: Terminal, columns: int, lines: int) -> None:
    """Just after a picture: one that is on its way while the terminal gets smaller is scrolled away by that."""
    before = terminal.screen()
    until(lambda: terminal.screen() != before, "the next picture is drawn")
    terminal.resize(columns, lines)


def test_a_picture_fits_small_and_resized_terminals(shop: Shop, terminal: Terminal) -> None:
    shop.configure()
    prompts = [shop.hangs(f"an-order-with-quite-a-long-name-{n:02d}") for n in range(12)]
    terminal.open(run("run", "--max-parallel", "12", *prompts), columns=60, lines=10)
    terminal.until("12 orders: 12 running", "more at work")
    assert "ended with" not in terminal.screen()
    first = terminal.screen().splitlines()
    assert all(len(line) <= 60 for line in first)
    resized(terminal, 120, 40)
    terminal.until("name-11")
    resized(terminal, 40, 8)
    small = terminal.until("slots 12/12", "more at work")
    assert sum("slots" in line for line in small.splitlines()) == 1
    resized(terminal, 120, 30)
    large = terminal.until("name-11")
    assert sum("slots" in line for line in large.splitlines()) == 1
    assert sum("running" in line for line in large.splitlines()) == 13
    assert "more at work" not in large
    assert "hangs until it is stopped" in large
    terminal.press("C-c")
    terminal.until("ended with 130")
    whole = terminal.screen(history=True)
    assert "slots" not in whole, whole


def test_watch_draws_the_same_from_a_second_terminal(shop: Shop, terminal: Terminal) -> None:
    shop.configure()
    with shop.start("run", "--plain", shop.waits("one")) as other:
        other.until("started")
        terminal.open(run("watch"))
        terminal.until("running  one", "slots 1/")
        terminal.press("C-c")
        terminal.until("ended with 130")
        assert terminal.cursor_shown()
        terminal.type(f"clear; {run('watch')}; echo watched $?")
        terminal.until("running  one")
        shop.gate.touch()
        terminal.until("1 order: 1 landed", "watched 0")
        assert other.end().code == 0


def test_a_dumb_terminal_gets_plain_lines(shop: Shop, terminal: Terminal) -> None:
    shop.configure()
    terminal.open(f"TERM=dumb {run('run', shop.adds('one'))}")
    seen = terminal.until("ended with 0")
    assert "one  landed as" in seen


def test_what_an_agent_says_is_shown_and_obeyed_by_nobody(shop: Shop, terminal: Terminal) -> None:
    shop.configure()
    tricks = r"\u001b]0;TITLE\u0007\u001b]52;c;aGk=\u0007\u001b[2J\u001b[9;9H\u202e[red]words[/] %s \u009b31m"
    waits = f'run = "while [ ! -e {shop.gate} ]; do sleep 0.02; done"'
    prompt = shop.prompt("loud", f'say = "{tricks}"', waits, 'write = "loud.txt"', head=f'title: "{tricks}"')
    terminal.open(run("run", prompt), columns=120)
    before = terminal.title()
    seen = terminal.until("running  loud", "[red]words[/] %s", "slots 1/")
    assert "ended with" not in seen
    assert "\u202e" not in seen
    assert (terminal.title(), terminal.clipboard()) == (before, "")
    shop.gate.touch()
    terminal.until("1 order: 1 landed", "ended with 0")
    for verb, word in (("show", "loud"), ("log", "[red]words[/]")):
        terminal.type(f"clear; {run(verb, 'loud')}; echo {verb} $?")
        terminal.until(word, f"{verb} 0")
    assert (terminal.title(), terminal.clipboard()) == (before, "")
