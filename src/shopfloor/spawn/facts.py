"""Facts about processes, read from the system."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from shopfloor import guard


def identity() -> tuple[int, int]:
    """This process: its id and start time, as `alive` takes them."""
    return os.getpid(), start_time_of(os.getpid())


def start_time_of(pid: int) -> int:
    """In clock ticks since boot; 0 when it is gone, and where there is no Linux."""
    try:
        return int(guard.stat(pid)[19]) if guard.LINUX else 0
    except OSError:
        return 0


def boot() -> str:
    """Names this boot and the process table that ids count in: elsewhere the same id is another process."""
    try:
        table = Path("/proc/self/ns/pid").stat().st_ino
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{table}"
    except OSError:
        return ""


def alive(pid: int, start_time: int) -> bool:
    """Whether the process with that `Process.start_time` still runs; a zombie does not."""
    if not guard.LINUX:
        import psutil

        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    try:
        fields = guard.stat(pid)
    except OSError:
        return False
    return fields[0] not in {b"Z", b"X"} and int(fields[19]) == start_time


def descendants(pid: int) -> list[int]:
    """The children of a process, their children and so on, parents first; zombies included."""
    if not guard.LINUX:
        import psutil

        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return guard.descendants(pid)


def at_work(name: str, folders: Sequence[Path], before: float) -> bool:
    """Whether a living program whose name begins so, started before a moment (wall time), stands in one of the folders.

    One whose folder may not be looked at counts.
    """
    import psutil

    for process in psutil.process_iter(["name", "create_time", "status", "cwd"]):
        facts = process.info
        # Start times are rounded, and come from another clock than those of files.
        if (
            (facts["name"] or "").startswith(name)
            and facts["status"] != psutil.STATUS_ZOMBIE
            and (facts["create_time"] or 0.0) <= before + 1.0
        ):
            cwd = facts["cwd"]
            if not cwd or any(Path(cwd).is_relative_to(folder) for folder in folders):
                return True
    return False


def with_variable(name: str, value: str) -> list[int]:
    """Processes that were started with this variable; of others' and elsewhere than on Linux nothing is known."""
    wanted = os.fsencode(f"{name}={value}")
    found = []
    for folder in Path("/proc").iterdir() if guard.LINUX else ():
        if folder.name.isdigit():
            with suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def variable_of(pid: int, name: str) -> str:
    """What a process was started with; empty when it had no such variable, or nothing may be known of it."""
    start = os.fsencode(f"{name}=")
    try:
        found = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((os.fsdecode(pair.removeprefix(start)) for pair in found if pair.startswith(start)), "")


def tree_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants, now; shared pages count for each process."""
    return sum(map(resident_bytes, [pid, *descendants(pid)]))


def resident_bytes(pid: int) -> int:
    """Memory of one process; 0 when it is gone."""
    if not guard.LINUX:
        import psutil

        return int(psutil.Process(pid).memory_info().rss)
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0  # it ended meanwhile
