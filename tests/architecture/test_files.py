"""What is committed works on any machine: no path of the one it was written on, no host in a lock file."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .source import REPOSITORY, refuse

# Where checkouts and homes usually stand, and not in the middle of a longer path or an address.
MACHINE_PATH = re.compile(r"(?<![\w.~$*)}\]>-])/(?:work|farm|root|(?:home|Users)/[A-Za-z_][\w.-]*)(?:/|(?![\w.-]))")
LOCK_FILE = re.compile(r"(?:.*\.lock|.*requirements[^/]*\.txt|package-lock\.json|npm-shrinkwrap\.json)")
HOST = re.compile(r"https?://|--(?:extra-)?index-url|--find-links|--trusted-host")


def text_files(root: Path, need: Callable[[str, str], str]) -> Iterator[tuple[str, list[str]]]:
    """Every text file that is, or would be, committed."""
    git = need("git", "apt install git")
    command = [git, "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=False, capture_output=True)
    if listed.returncode:
        pytest.fail(
            f"{root} is no git checkout: {listed.stderr.decode().strip()}; run the tests in a clone",
            pytrace=False,
        )
    for name in sorted(filter(None, listed.stdout.decode().split("\0"))):
        path = root / name
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        if b"\0" not in content:
            yield name, content.decode(errors="replace").splitlines()


def machine_paths(files: Iterator[tuple[str, list[str]]]) -> Iterator[str]:
    for name, lines in files:
        for number, line in enumerate(lines, 1):
            if found := MACHINE_PATH.search(line):
                what = f"{found[0]!r} exists on one machine only; write a relative path, ~ or a temporary folder"
                yield f"{name}:{number}: {what}"


def hosts_in_locks(files: Iterator[tuple[str, list[str]]]) -> Iterator[str]:
    for name, lines in files:
        if not LOCK_FILE.fullmatch(name):
            continue
        for number, line in enumerate(lines, 1):
            if found := HOST.search(line):
                what = f"{found[0]!r}: a lock that names a host works only where that host does; type: make lock"
                yield f"{name}:{number}: {what}"


def test_no_machine_path(need: Callable[[str, str], str]) -> None:
    refuse(machine_paths(text_files(REPOSITORY, need)))


def test_no_host_in_a_lock_file(need: Callable[[str, str], str]) -> None:
    refuse(hosts_in_locks(text_files(REPOSITORY, need)))


def test_a_new_file_is_searched_and_an_ignored_one_is_not(need: Callable[[str, str], str], tmp_path: Path) -> None:
    subprocess.run([need("git", "apt install git"), "init", "-q", str(tmp_path)], check=True)
    path = str(Path("/", "home", "ada", "x"))
    for name, text in {".gitignore": "made.txt\n", "made.txt": path, "notes.md": f"ok\nsee {path}"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "picture").write_bytes(b"\0" + path.encode())
    (violation,) = machine_paths(text_files(tmp_path, need))
    assert violation.startswith("notes.md:2: ")
    assert "/ada" in violation


@pytest.mark.parametrize("parts", [["", "root", ".cache"], ["", "work"], ["'", "farm", "x"], ["", "Users", "ada"]])
def test_a_machine_path_is_found(parts: list[str]) -> None:
    (violation,) = machine_paths(iter([("a.md", ["/".join(parts)])]))
    assert violation.startswith("a.md:1: ")


@pytest.mark.parametrize(
    "line",
    [
        "repo/.work/events.jsonl",
        "src/work/x",
        "~/work/x",
        "https://example.org/work/x",
        "{root}/work/",
        "/home",
        "/workers",
    ],
)
def test_other_paths_are_not(line: str) -> None:
    assert list(machine_paths(iter([("a.md", [line])]))) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("requirements.lock", "--index-url https://index.example/simple"),
        ("bench/requirements-go.txt", "--find-links wheels"),
        ("web/uv.lock", 'source = { registry = "https://index.example/simple" }'),
    ],
)
def test_a_host_in_a_lock_file_is_found(name: str, line: str) -> None:
    (violation,) = hosts_in_locks(iter([(name, ["click==8.3.0", line])]))
    assert violation.startswith(f"{name}:2: ")
