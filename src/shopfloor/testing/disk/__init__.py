"""A disk that forgets what was not synced: a real program runs, and its folder is shown as power loss may leave it.

    recording = record([sys.executable, "program.py", str(folder)], folder, cwd=tmp_path, env=env)
    for at in range(len(recording) + 1):
        recording.lose_power(at, Random(at), into=tmp_path / str(at))

Nothing is replaced in the program: ``strace`` writes down what it and all that it starts (git, SQLite) ask the system
to do with the folder. From that, the folder is built as it may look when the power went between any two of the calls.

What is kept for certain is what POSIX promises: a file's content as of its last ``fsync`` or ``fdatasync``, the names
in a folder as of the last ``fsync`` of that folder. Anything else may have reached the disk or not: bytes of a file up
to any length, or page by page with zeros between them; names in the order they were given, or any of them. A rename
comes whole or not at all. Only Linux has ``strace``.
"""

from shopfloor.testing.disk.calls import SYSCALLS, Trace, Unsupported, record
from shopfloor.testing.disk.image import Recording, Style

__all__ = ["SYSCALLS", "Recording", "Style", "Trace", "Unsupported", "record"]
