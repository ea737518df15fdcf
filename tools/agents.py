"""The agents that tests drive: `python tools/agents.py install [NAME ...]`, `list`, `observe [NAME ...]`.

Each is installed once into a folder of its own outside the repository, `~/.cache/shopfloor/agents` or what
SHOPFLOOR_AGENTS names, by npm or pip as this machine has them set up. No install script is run: what has a native
program carries it in its package. What cannot be installed is named with the reason, and skipped by the tests.
`observe` drives what is installed, without a network, and writes down what each was seen to do.
"""

import argparse
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = "SHOPFLOOR_AGENTS"
OLDEST_NODE = 20
NPM = ("install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--loglevel=error")
LONGEST_S = 900.0


@dataclass(frozen=True)
class Agent:
    """An agent's program, at one version."""

    name: str
    version: str
    title: str
    client: str
    """npm or pip; empty: no registry has it"""
    packages: tuple[str, ...] = ()
    """with their versions; ``{platform}`` is such as linux-x64"""
    programs: tuple[tuple[str, str], ...] = ()
    """what each is called, and where it is in the folder"""
    node: bool = False
    """it runs on Node"""
    hint: str = ""
    """what to do where no registry has it"""

    @property
    def folder(self) -> Path:
        """Where it is, or would be."""
        return cache() / f"{self.name}-{self.version}"

    @property
    def failed(self) -> Path:
        """Says why it could not be installed."""
        return cache() / f"{self.name}-{self.version}.failed"

    @property
    def bin(self) -> Path:
        """A folder for PATH with its programs."""
        return self.folder / "bin" if self.client != "pip" else self.folder / "programs"

    @property
    def installed(self) -> bool:
        """Whether it is there, whole, as this file wants it."""
        ready = self.folder / ".ready"
        return ready.exists() and ready.read_text(encoding="utf-8") == self.wanted

    @property
    def wanted(self) -> str:
        """What its folder was made from."""
        return json.dumps([place(), *self.packages, *self.programs])

    @property
    def missing(self) -> str:
        """Why it is not there, and what to type; empty when it is."""
        if self.installed:
            return ""
        if not self.client:
            return f"{self.title}: {self.hint}"
        why = self.failed.read_text(encoding="utf-8").strip() if self.failed.exists() else "it is not installed"
        return f"{self.title} {self.version}: {why}; type: make agents AGENTS={self.name}"


def cache() -> Path:
    """The folder that all of them are in."""
    named = os.environ.get(CACHE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "shopfloor" / "agents"


def place() -> str:
    """This machine as npm packages name it."""
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine())
    return f"{platform.system().lower()}-{machine}"


def claude(name: str, version: str) -> Agent:
    """The package for a platform is the program itself: no Node, no script, any version."""
    package = "@anthropic-ai/claude-code-{platform}"
    programs = (("claude", f"node_modules/{package}/claude"),)
    return Agent(name, version, "Claude Code", "npm", (f"{package}@{version}",), programs)


AGENTS: tuple[Agent, ...] = (
    claude("claude", "2.1.329"),
    claude("claude-old", "2.1.197"),
    Agent(
        *("codex", "0.169.0", "Codex", "npm"),
        ("@openai/codex@0.169.0", "@agentclientprotocol/codex-acp@2.6.0"),
        (("codex", "node_modules/.bin/codex"), ("codex-acp", "node_modules/.bin/codex-acp")),
        node=True,
    ),
    Agent(
        *("goose", "1.52.0", "goose", "npm"),
        ("@aaif/goose-binary-{platform}@1.52.0",),
        (("goose", "node_modules/@aaif/goose-binary-{platform}/bin/goose"),),
    ),
    Agent(
        *("gemini", "0.61.0", "Gemini CLI", "npm"),
        ("@google/gemini-cli@0.61.0",),
        (("gemini", "node_modules/.bin/gemini"),),
        node=True,
    ),
    Agent(
        *("opencode", "1.18.33", "opencode", "npm"),
        ("opencode-{platform}@1.18.33",),
        (("opencode", "node_modules/opencode-{platform}/bin/opencode"),),
    ),
    Agent(
        *("claude-acp", "0.49.0", "the ACP adapter of Claude Code", "npm"),
        ("@agentclientprotocol/claude-agent-acp@0.49.0",),
        (("claude-agent-acp", "node_modules/.bin/claude-agent-acp"),),
        node=True,
    ),
    # Without mcp, what it is built on does not start.
    Agent(
        *("mini", "2.4.6", "mini-swe-agent", "pip"),
        ("mini-swe-agent==2.4.6", "litellm==1.110.2", "mcp==2.3.0"),
        (("mini", "bin/mini"),),
    ),
    Agent(*("aider", "0.86.2", "aider", "pip"), ("aider-chat==0.86.2",), (("aider", "bin/aider"),)),
    Agent(
        *("gocore", "2.0.0", "GOCore", ""),
        hint="no registry has it: install it from its source and put its program `gocore` on PATH",
    ),
)


def agent(name: str) -> Agent:
    """An agent by name. Raises KeyError."""
    return {known.name: known for known in AGENTS}[name]


def install(wanted: Agent) -> str:
    """Make sure that it is there; the reason when it cannot be, empty when it is. Nothing is fetched twice."""
    if not wanted.client:
        return wanted.hint
    cache().mkdir(parents=True, exist_ok=True)
    failed = wanted.failed
    with (cache() / f".{wanted.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if wanted.installed:
            failed.unlink(missing_ok=True)
            return ""
        if wanted.folder.exists():
            shutil.rmtree(wanted.folder)
        wanted.folder.mkdir()
        print(f"installing {wanted.title} {wanted.version} into {wanted.folder}", file=sys.stderr)
        problem = (by_npm if wanted.client == "npm" else by_pip)(wanted) or link(wanted)
        if problem:
            shutil.rmtree(wanted.folder)
            failed.write_text(problem + "\n", encoding="utf-8")
        else:
            failed.unlink(missing_ok=True)
            (wanted.folder / ".ready").write_text(wanted.wanted, encoding="utf-8")
        return problem


def by_npm(wanted: Agent) -> str:
    """By npm, without install scripts."""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not on PATH; install Node (Debian, Ubuntu: apt install nodejs npm; macOS: brew install node)"
    if wanted.node and (problem := old_node()):
        return problem
    packages = [package.replace("{platform}", place()) for package in wanted.packages]
    return run([npm, *NPM, "--prefix", str(wanted.folder), *packages], wanted.folder)


def old_node() -> str:
    """Why Node is not good enough; empty when it is."""
    node = shutil.which("node")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout if node else ""
    major = said.strip().removeprefix("v").partition(".")[0]
    if major.isdigit() and int(major) >= OLDEST_NODE:
        return ""
    return f"Node {OLDEST_NODE} or newer is needed, found {said.strip() or 'none'}"


def by_pip(wanted: Agent) -> str:
    """By pip, in an environment of its own."""
    venv.create(wanted.folder, symlinks=True, with_pip=True)
    python = str(wanted.folder / "bin" / "python")
    return run(
        [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-compile", *wanted.packages],
        wanted.folder,
    )


def run(command: Sequence[str], folder: Path) -> str:
    """What a package client says when it fails; empty when it does not."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False,
            stdin=subprocess.DEVNULL, timeout=LONGEST_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it was not installed within {LONGEST_S:.0f} s"
    said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return f"it could not be installed: {'; '.join(said[-3:])}" if done.returncode else ""


def link(wanted: Agent) -> str:
    """Its programs in one folder for PATH; the reason when one is not where it should be."""
    wanted.bin.mkdir(exist_ok=True)
    for name, where in wanted.programs:
        program = wanted.folder / where.replace("{platform}", place())
        if not program.exists():
            return f"its packages have no {where}: not for {place()}, or moved"
        program.resolve().chmod(0o755)
        # The name of a program in an environment of Python's must stay beside its interpreter.
        (wanted.bin / name).symlink_to(program)
    return ""


def observe(chosen: Sequence[str]) -> int:
    """Write `observed.toml` anew for those chosen, or all that are installed; 1 when one claims what was not seen."""
    sys.path.insert(0, str(ROOT))
    from shopfloor.agents.observed import FILE, read_observed, written
    from tests.agents.lab import Lab, why_not
    from tests.agents.observing import ALL, PAGE, SCRIPTS, observe, page

    if reason := why_not():
        sys.exit(reason)
    names = {one.agent or one.driver for one in ALL}
    if unknown := sorted(set(chosen) - names):
        sys.exit(f"there is nothing to observe of {unknown[0]!r}; there are {', '.join(sorted(names))}")
    current = {one.key for one in ALL}
    wrong = 0
    for one in ALL:
        if (chosen and (one.agent or one.driver) not in chosen) or (one.agent and not agent(one.agent).installed):
            continue
        with tempfile.TemporaryDirectory() as folder, Lab(Path(folder), SCRIPTS, bodies=True) as lab:
            seen = observe(lab, one)
        # Read anew each time: another run may have written meanwhile.
        rows = {(row.driver, row.preset, row.program, row.version): row for row in read_observed()}
        rows = {key: row for key, row in rows.items() if key in current}
        rows[one.key] = one.row(seen, time.strftime("%Y-%m-%d", time.gmtime()))
        claims = sorted(set(seen.declared) - set(seen.observed))
        wrong |= bool(claims)
        more = f"; claimed, but not seen: {', '.join(claims)}" if claims else ""
        print(f"{one.name}: {', '.join(seen.observed) or 'nothing'}{more}", flush=True)
        for look, note in seen.notes.items():
            print(f"    {look}: {note}")
        FILE.write_text(written(rows.values()), encoding="utf-8")
        PAGE.write_text(page(read_observed()), encoding="utf-8")
    return int(wrong)


def main() -> None:
    """What is typed."""
    parser = argparse.ArgumentParser(prog="python tools/agents.py", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("install", help="install those named, or all")
    one.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known.name for known in AGENTS))
    verbs.add_parser("list", help="what is there, and where")
    two = verbs.add_parser("observe", help="write down what those named, or all, are seen to do")
    two.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    if options.verb == "list":
        for known in AGENTS:
            print(f"{known.name:11} {known.version:9} {known.missing or known.bin}")
        return
    if options.verb == "observe":
        sys.exit(observe(options.names))
    known_names = [known.name for known in AGENTS]
    if unknown := sorted(set(options.names) - set(known_names)):
        parser.error(f"there is no agent {unknown[0]!r}; there are {', '.join(known_names)}")
    for name in options.names or known_names:
        problem = install(agent(name))
        print(f"{name}: {problem or 'ready'}", file=sys.stderr)


if __name__ == "__main__":
    main()
