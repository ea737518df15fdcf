"""A repository of its own for a test, and the installed command driven in it as people drive it."""

from __future__ import annotations

import json
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

COMMAND = (sys.executable, "-m", "shopfloor")
CALM = {"SHOPFLOOR_LOAD_PER_CORE": "100", "SHOPFLOOR_MEMORY_FREE": "0", "SHOPFLOOR_BACKOFF": "0.05"}
"""A busy test machine must not make a run start fewer agents, and nobody waits for a retry."""
LONGEST_S = 40.0


class Said:
    """What a command came to."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


class Running:
    """A command that goes on; its lines are waited for, never slept for."""

    def __init__(self, process: subprocess.Popen[str], *, longest_s: float = LONGEST_S) -> None:
        self.process = process
        self.longest_s = longest_s
        self.lines: list[str] = []
        self._arriving: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._arriving.put(line.rstrip("\n"))
        self._arriving.put(None)

    def until(self, *words: str) -> str:
        """The first line from here on that has all of these words."""
        while (line := self._arriving.get(timeout=self.longest_s)) is not None:
            self.lines.append(line)
            if all(word in line for word in words):
                return line
        raise AssertionError(f"it ended without saying {words}:\n" + "\n".join(self.lines))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> Said:
        """Wait for its end; the exit code of a shell where a signal ended it."""
        while (line := self._arriving.get(timeout=self.longest_s)) is not None:
            self.lines.append(line)
        code = self.process.wait(self.longest_s)
        return Said(code if code >= 0 else 128 - code, "\n".join(self.lines), "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(self.longest_s)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Shop:
    """A git repository with one commit on ``main``, and a folder of prompts beside it."""

    command: tuple[str, ...] = COMMAND
    longest_s = LONGEST_S

    def __init__(self, folder: Path) -> None:
        self.root = folder / "repo"
        self.prompts = folder / "prompts"
        self.gate = folder / "gate"
        self.prompts.mkdir(parents=True)
        self.root.mkdir()
        home = folder / "home"
        home.mkdir()
        # Git must not find a person: the machine that runs this may have none.
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "SHOPFLOOR_"))},
            **CALM,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p.endswith("src")),
        }
        self.git("init", "-q", "-b", "main")
        self.write("README", "hello\n")
        self.commit("start")

    def git(self, *words: str, check: bool = True) -> str:
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        done = subprocess.run(
            ["git", *who, *words], cwd=self.root, env=self.env, check=False, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", message)

    def configure(self, check: str = 'check = "test ! -e bad.txt"') -> None:
        """The scripted agent and a check, by file: so ``--resume`` needs no options."""
        self.write(".shopfloor.toml", f'agent = "scripted"\n{check}\n')
        self.commit("settings")

    def prompt(self, name: str, *deeds: str, head: str = "") -> str:
        """A prompt file with a script; ``deeds`` are the lines of each table. The path as it is typed."""
        script = "\n".join(f"[[do]]\n{deed}" for deed in deeds)
        front = f"---\n{head}\n---\n" if head else ""
        path = self.prompts / f"{name}.md"
        path.write_text(f"{front}# Do {name}\n\n```script\n{script}\n```\n")
        return str(path)

    def adds(self, name: str, *, head: str = "", file: str = "") -> str:
        """A prompt whose agent adds a file."""
        return self.prompt(name, f'write = "{file or name}.txt"\ncontent = "{name}\\n"', head=head)

    def waits(self, name: str, *, head: str = "") -> str:
        """A prompt whose agent adds a file, once ``gate`` is there."""
        wait = f'run = "while [ ! -e {self.gate} ]; do sleep 0.02; done"'
        return self.prompt(name, wait, f'write = "{name}.txt"', head=head)

    def hangs(self, name: str, *, stubborn: bool = False) -> str:
        """A prompt whose agent writes something and then never ends by itself."""
        more = "\nstubborn = true" if stubborn else ""
        return self.prompt(name, f'write = "{name}.txt"', f"hang = true{more}")

    def plain(self, *names: str, text: str = "", head: str = "") -> list[str]:
        """Prompt files without a script, for agents that are programs of the test. The paths as they are typed."""
        front = f"---\n{head}\n---\n" if head else ""
        for name in names:
            (self.prompts / f"{name}.md").write_text(f"{front}# Do {name}\n\n{text or 'Please.'}\n")
        return [str(self.prompts / f"{name}.md") for name in names]

    def tool(self, name: str, body: str) -> str:
        """A shell script of this name as a program; its path.

        It knows the order's ``$name``, and in ``$there`` the folder that the repository lies in.
        """
        path = self.root.parent / "tools" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\nthere={shlex.quote(str(self.root.parent))}\nname=${{AGENT_ID##*/}}\n{body}\n")
        path.chmod(0o755)
        return str(path)

    def __call__(
        self, *words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: str = ""
    ) -> Said:
        done = subprocess.run(
            [*self.command, *words], cwd=cwd or self.root, env={**self.env, **(env or {})}, check=False,
            capture_output=True, text=True, input=stdin, timeout=self.longest_s,
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> Running:
        """Begin a command in a session of its own and follow what it says."""
        env = {**self.env, "PYTHONUNBUFFERED": "1"}
        return Running(
            subprocess.Popen(
                [*self.command, *words], cwd=self.root, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, start_new_session=True,
            ),
            longest_s=self.longest_s,
        )  # fmt: skip

    def state(self, name: str) -> str:
        """The state of an order as ``status --json`` tells it."""
        orders = {order["name"]: order for order in self("status", "--json").json["orders"]}
        return str(orders[name]["state"])


def until(true: Callable[[], bool], what: str, *, longest_s: float = LONGEST_S) -> None:
    """Wait until a condition holds that announces itself to nobody."""
    pause = threading.Event()
    for _ in range(int(longest_s / 0.05)):
        if true():
            return
        pause.wait(0.05)
    raise AssertionError(f"it never came true: {what}")


def agents_alive(shop: Shop) -> list[int]:
    """Processes whose working folder is one of the shop's workspaces."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                place = str((entry / "cwd").readlink())
            except OSError:
                continue
            if place.startswith(str(shop.root / ".worktrees")):
                found.append(int(entry.name))
    return found
