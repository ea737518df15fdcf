"""One round's place: a small repository, prompts whose agents leave traces, and how the command is started in it.

Everything an agent writes is noted outside of the repository too, after it was written: what stands in the notes must
be found again, whatever happens. Nothing here knows of faults.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")
CHECK = "test ! -e bad.txt"
SETTINGS = f"""agent = "scripted"
check = "{CHECK}"
max_parallel = 3
load_per_core = 100
memory_free = 0
"""
LEAVE = """# leave PATH: write there what nobody else writes, then note outside that it was written.
token="$SHOPFLOOR_ATTEMPT $1 $$"
mkdir -p "$(dirname "$1")" && echo "$token" > "$1" && [ -s "$1" ] && echo "wrote $token" >> "$HOME/notes"
"""
MINE = "the user's own, untracked\n"
LIMIT_S = 60.0

GOOD = ("first", "second", "orphan", "untidy", "left", "right")
PROMPTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "first": ("", ("leave first.txt", "commit")),
    "second": ("depends_on: first", ("leave second.txt",)),
    "orphan": ("", ("orphan", "leave orphan.txt", "commit", "leave later.txt")),
    "untidy": (
        "",
        (
            "leave untidy/notes.txt",
            "git init -q nested",
            "leave nested/kept.txt",
            "nested commit",
            "leave nested/x.txt",
        ),
    ),
    "left": ("", ("leave shared.txt", "commit")),
    "right": ("", ("leave shared.txt",)),
    "bad": ("", ("leave bad.txt",)),
}
"""Order -> its front matter and deeds. ``left`` and ``right`` write the same file; ``bad`` breaks the check."""


def _deed(words: str) -> str:
    if words == "commit":
        return 'commit = "work"'
    if words == "orphan":
        return "spawn_orphan = true"
    if words == "nested commit":
        who = "-c user.name=agent -c user.email=agent@localhost"
        return f'run = "cd nested && git add -A && git {who} commit -q -m inner"'
    if words.startswith("leave "):
        return f'run = "sh $HOME/leave {words.removeprefix("leave ")}"'
    return f'run = "{words}"'


def make_template(folder: Path) -> Path:
    """What each round starts from: ``repo``, ``home`` and ``prompts``."""
    repo, home, prompts = folder / "repo", folder / "home", folder / "prompts"
    for path in (repo, home, prompts):
        path.mkdir(parents=True)
    (home / "leave").write_text(LEAVE)
    (home / "notes").touch()
    for name, (front, deeds) in PROMPTS.items():
        head = f"---\n{front}\n---\n" if front else ""
        start = 'run = "echo started $SHOPFLOOR_ATTEMPT >> $HOME/notes"'
        script = "\n".join(f"[[do]]\n{line}" for line in (start, *map(_deed, deeds)))
        (prompts / f"{name}.md").write_text(f"{head}# Do {name}\n\n```script\n{script}\n```\n")
    scene = Scene(folder)
    scene.git("init", "-q", "-b", "main", "--template=")
    (repo / ".shopfloor.toml").write_text(SETTINGS)
    (repo / "README").write_text("hello\n")
    scene.git("add", "-A")
    scene.git("commit", "-q", "-m", "start")
    (repo / "mine.txt").write_text(MINE)
    (folder / "base").write_text(scene.git("rev-parse", "HEAD"))
    return folder


class Scene:
    """A round's folder. ``disk``: where the repository lies, if not in the folder itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = folder / "repo"
        self.home = folder / "home"
        self.acknowledged = folder / "acknowledged"
        self.clock = folder / "clock"
        self.strangers: list[str] = []
        """commits that somebody else put on the target or the branch"""
        self.edited = ""
        """what the user has written into README since"""
        self.known_after_s = 0.0
        """seconds from an agent's death to its line in the log, where one was killed"""
        self.set_back = False
        """somebody else has taken from the target what had landed there"""
        path = os.environ.get("PATH", os.defpath)
        self.env = {
            "PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder),
        }  # fmt: skip

    @property
    def base(self) -> str:
        """The commit that the repository began with."""
        return (self.folder / "base").read_text()

    @property
    def log(self) -> Path:
        """The log of the round's repository."""
        return self.repo / ".work" / "events.jsonl"

    def git(self, *words: str, check: bool = True) -> str:
        """What git prints, called as the user calls it."""
        who = ("-c", "user.name=person", "-c", "user.email=person@localhost")
        done = subprocess.run(
            ["git", *who, *words], cwd=self.repo, env=self.env, check=False, capture_output=True, text=True
        )
        if check and done.returncode:
            raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
        return done.stdout.rstrip("\n")

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Begin a command of shopfloor; what it says goes to files in the folder."""
        number = len(list(self.folder.glob("said.*.err")))
        with (
            (self.folder / f"said.{number}.out").open("wb") as out,
            (self.folder / f"said.{number}.err").open("wb") as err,
        ):
            err.write(f"$ shopfloor {' '.join(words)}\n".encode())
            err.flush()
            return subprocess.Popen(
                [sys.executable, "-I", str(CHILD), str(self.folder), *words], cwd=self.repo, env=self.env,
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip

    def prompts(self, orders: Sequence[str]) -> list[str]:
        """Their files, as they are typed."""
        return [str(self.folder / "prompts" / f"{name}.md") for name in orders]


def copy(template: Path, folder: Path) -> Scene:
    """A new round from the template."""
    shutil.copytree(template, folder, symlinks=True)
    return Scene(folder)
