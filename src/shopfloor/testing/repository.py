"""Real repositories for tests: made in a moment, looked at from outside."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path

from shopfloor.config import environment
from shopfloor.git import Git

FILES: Mapping[str, str] = {
    "README.md": "# sample\n",
    "src/main.py": "print('hello')\n",
    "src/deep/er/data.txt": "data\n",
    ".gitignore": "*.log\nbuild/\nnode_modules/\n",
}


def plain_env(home: Path) -> dict[str, str]:
    """PATH and an empty home: no configuration of whoever runs the tests."""
    return {"PATH": environment()["PATH"], "HOME": str(home)}


def write(root: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files below a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


async def appears(folder: Path, pattern: str) -> Path:
    """Wait for a file of a command that runs meanwhile."""
    while True:
        found = await asyncio.to_thread(lambda: list(folder.glob(pattern)))
        if found:
            return found[0]
        await asyncio.sleep(0.01)


class Repository:
    """A repository with a working tree, as its user sees it: ``git`` is plain, nothing is overridden for a slot."""

    def __init__(self, root: Path, *, files: Mapping[str, str | bytes] = FILES) -> None:
        """Make it in an empty folder, on branch ``main`` with one commit."""
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.env = plain_env(root.parent)
        self.git = Git(root, base_env=self.env)
        self.git.call("init", "-q", "-b", "main")
        self.first = self.commit(files)

    def commit(self, files: Mapping[str, str | bytes], *, message: str = "change") -> str:
        """Commit files on what is checked out."""
        write(self.root, files)
        self.git.call("add", "-A")
        self.git.call("commit", "-q", "-m", message)
        return self.git.rev_parse("HEAD")

    def commit_on(self, parent: str, files: Mapping[str, str | None], *, message: str = "change") -> str:
        """A commit that exists as objects only; None deletes a file."""
        index = self.root / ".git" / "test.index"
        self.git.call("read-tree", parent, index=index)
        for name, content in files.items():
            if content is None:
                self.git.call("update-index", "--force-remove", "--", name, index=index)
            else:
                blob = self.git.text("hash-object", "-w", "--stdin", input=content.encode())
                self.git.call("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", index=index)
        tree = self.git.text("write-tree", index=index)
        index.unlink()
        return self.git.commit_tree(tree, [parent], message, author="Ada <ada@localhost>")

    def show(self, commit: str, path: str) -> bytes:
        """A file's content in a commit."""
        return self.git.call("show", f"{commit}:{path}").stdout

    def paths(self, commit: str) -> set[str]:
        """All paths in a commit."""
        return set(self.git.names("ls-tree", "-r", "-z", "--name-only", commit))

    def look(self) -> dict[str, str]:
        """All that is the user's: HEAD, branches, index and files, by content; compare before and after."""
        seen = {"HEAD": (self.root / ".git" / "HEAD").read_text()}
        seen |= {
            k: v for k, v in self.git.refs("refs/heads", "refs/tags", "refs/stash").items() if "shopfloor" not in k
        }
        ours = (self.root / ".git", self.root / ".worktrees")
        theirs = [path for path in self.root.rglob("*") if not any(path.is_relative_to(folder) for folder in ours)]
        for path in sorted([self.root / ".git" / "index", *theirs]):
            if path.is_symlink():
                seen[str(path)] = f"-> {path.readlink()}"
            elif path.is_file():
                seen[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() + oct(path.stat().st_mode)
        return seen
