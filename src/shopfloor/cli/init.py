"""``init``: a first ``.shopfloor.toml``, proposed from what the project looks like."""

from __future__ import annotations

import os
from pathlib import Path

import click

from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.words import clean
from shopfloor.config.proposal import proposal
from shopfloor.config.settings import FILE
from shopfloor.domain.errors import NotFound, Refused


@verb(example="shopfloor init")
@click.option("--force", is_flag=True, help="Overwrite the file that is there.")
@click.option("--print", "show", is_flag=True, help="Only print it.")
def init(edge: Edge, *, force: bool, show: bool) -> None:
    """Write a first .shopfloor.toml: how the project seems to be prepared and checked, every setting as a comment."""
    path = root(Path.cwd()) / FILE
    text = proposal(path.parent)
    if not show:
        write(path, text, force=force)
    if edge.json:
        edge.put_json({"path": str(path), "written": not show, "text": text})
    elif show:
        edge.put(text.rstrip("\n"))
    else:
        edge.put("\n".join(_told(path, text)))


def root(folder: Path) -> Path:
    """The repository that a folder lies in; found without git, because the settings may be what is off."""
    for place in (folder, *folder.parents):
        if (place / ".git").exists():
            return place
    raise NotFound(f"not a git repository: {str(folder)!r}", hint="git init, or change to a repository")


def write(path: Path, text: str, *, force: bool) -> None:
    """Write a file that is not there yet. Raises Refused."""
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Refused(f"{path.name} is there already", hint="shopfloor init --force overwrites it") from None
    except OSError as problem:
        raise Refused(f"{path} cannot be written: {os.strerror(problem.errno or 0).lower()}") from None


def _told(path: Path, text: str) -> list[str]:
    chosen = [f"  {clean(line)}" for line in text.splitlines() if line.startswith(("setup", "check"))]
    known = ["wrote .shopfloor.toml, with:", *chosen] if chosen else ["wrote .shopfloor.toml; it names no check yet"]
    prompts = "prompts/*.md" if (path.parent / "prompts").is_dir() else "FILE.md"
    return [
        *known,
        "",
        "next:",
        *([] if chosen else [f"  name a check in {FILE}: a command that exits 0 when the work is good"]),
        f"  shopfloor plan {prompts} --agent 'claude -p --permission-mode acceptEdits'",
    ]
