"""Real agents without a network: a namespace that has nothing but loopback, the scripted model in it, a repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shopfloor.testing.model import Request, read_log
from tests.acceptance.shop import COMMAND, Shop, until
from tools.agents import Agent

# An ordinary user gets a namespace of users too, in which he is root.
_ROOT = os.geteuid() == 0
UNSHARE = ("unshare", "--net") if _ROOT else ("unshare", "--map-root-user", "--net")
ENTER = ("nsenter", "--net") if _ROOT else ("nsenter", "--user", "--preserve-credentials", "--net")

LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:  # SIOCSIFFLAGS, IFF_UP
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def why_not() -> str:
    """Why no namespace can be made here; empty when one can."""
    for program in ("unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"{program!r} is not on PATH; type: apt install util-linux (only Linux has network namespaces)"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no network namespace can be made here ({tried.stderr.strip()}); run as root, or allow user namespaces"
    return ""


class Lab(Shop):
    """A shop whose commands, and so every agent, run where there is no way out.

    ``url`` is where the scripted model listens, inside.
    """

    longest_s = 120.0

    def __init__(self, folder: Path, scripts: Mapping[str, list[dict[str, Any]]], *, bodies: bool = False) -> None:
        super().__init__(folder)
        self.folder = folder
        self._bodies = ["--bodies"] if bodies else []
        self.url = ""
        self.log = folder / "requests.jsonl"
        self.tables: list[str] = []
        """of the settings"""
        (folder / "scripts.json").write_text(json.dumps(scripts))
        self.log.touch()

    def __enter__(self) -> Self:
        ready = self.folder / "ready"
        model = ["-m", "shopfloor.testing.model", "--scripts", str(self.folder / "scripts.json"), *self._bodies]
        with (self.folder / "model.err").open("w") as errors:
            self._model = subprocess.Popen(
                [*UNSHARE, sys.executable, "-c", LOOPBACK_UP, *model, "--log", str(self.log), "--ready", str(ready)],
                env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
        until(lambda: ready.exists() or self._model.poll() is not None, "the scripted model listens")
        assert ready.exists(), (self.folder / "model.err").read_text()
        self.url = ready.read_text()
        self.inside = (*ENTER, "--target", str(self._model.pid), "--")
        self.command = (*self.inside, *COMMAND)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model.terminate()
        self._model.wait(self.longest_s)

    def requests(self, script: str | None = None) -> list[Request]:
        """What the model was asked so far; only what one script answered when it is named."""
        return [request for request in read_log(self.log) if script in (None, request.script)]

    def links(self) -> list[str]:
        """The network devices that are inside."""
        show = "import socket; print(*(name for _, name in socket.if_nameindex()))"
        command = [*self.inside, sys.executable, "-c", show]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    def home(self, name: str) -> Path:
        """A home for one agent that nobody else uses."""
        home = self.folder / "homes" / name
        home.mkdir(parents=True, exist_ok=True)
        return home

    def variables(self, name: str, agent: Agent | None) -> dict[str, str]:
        """An agent's program on PATH, if it has one, and a home of its own."""
        home = self.home(name)
        path = os.environ["PATH"]
        return {
            "HOME": str(home),
            "PATH": f"{agent.bin}{os.pathsep}{path}" if agent else path,
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_DATA_HOME": str(home / ".local" / "share"),
            "XDG_STATE_HOME": str(home / ".local" / "state"),
            "XDG_CACHE_HOME": str(home / ".cache"),
        }

    def add(self, name: str, agent: Agent | None, env: Mapping[str, str], /, **profile: Any) -> None:
        """Settings for one agent, with an environment of its own."""
        whole = {**self.variables(name, agent), **env}
        table = [f"[agents.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in profile.items())]
        table += [f"[agents.{name}.env]", *(f"{key} = {json.dumps(value)}" for key, value in whole.items())]
        self.tables.append("\n".join(table))

    def settle(self, *, check: str, more: str = "") -> None:
        """Write and commit the settings."""
        self.write(".shopfloor.toml", "\n".join([f"check = {json.dumps(check)}", more, *self.tables, ""]))
        self.commit("settings")

    def scripted(self, name: str, script: str, *, agent: str = "", **params: str) -> str:
        """A prompt file whose order is done by a script of the model's; the path as it is typed."""
        head = f"---\nagent: {agent}\n---\n" if agent else ""
        words = "".join(f" {key}={value}" for key, value in params.items())
        path = self.prompts / f"{name}.md"
        path.write_text(f"{head}# Do {name}\n\nDo what you are told. [[script {script}{words}]]\n")
        return str(path)

    def processes(self) -> list[str]:
        """What still runs inside, but for the model: the command lines."""
        inside = Path(f"/proc/{self._model.pid}/ns/net").stat().st_ino
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self._model.pid:
                continue
            try:
                if (entry / "ns" / "net").stat().st_ino == inside:
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found += [] if state == "Z" else [f"{entry.name} {words[:120]}"]
            except OSError:
                continue
        return found
