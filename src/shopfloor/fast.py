"""The entry point: answers ``--version`` and a plain ``status`` with next to no imports, hands on everything else.

``status`` comes from ``.work/index.sqlite`` when that is exactly as new as the log. In every other case, and whenever
anything is unusual, the full command answers; it says the same in the same words.
"""

import gc
import os
import sys

from shopfloor._version import __version__


def main() -> int:
    """Run the command in ``sys.argv``; returns the exit code."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        return _print(f"shopfloor {__version__}")
    match arguments:
        case ["mcp"]:
            from shopfloor.mcp.server import main as serve

            return serve()
        case ["status"]:
            answer = _status(".")
        case ["-C", folder, "status"]:
            answer = _status(folder)
        case _:
            answer = None
    if answer is not None:
        return _print(answer)
    gc.set_threshold(200_000)  # what is loaded is no garbage: to look for some takes a tenth of the start
    from shopfloor.cli.main import run

    return run(arguments)


def _print(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains when it closes
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr.write(f"shopfloor: {os.strerror(problem.errno or 0).lower()}\n")
        return 1
    except UnicodeError:
        from shopfloor.cli.main import run

        return run(sys.argv[1:])
    return 0


def _status(folder: str) -> str | None:
    """The answer from the index, None where the full command has to find it."""
    work = _work(folder)
    if not work:
        return None
    from shopfloor.cli import peek

    try:
        return peek.answer(work)
    except peek.UNUSUAL:
        return None


def _work(folder: str) -> str:
    """The ``.work`` of the repository that the folder lies in, or where it lies in none its own; empty: ask git."""
    here = place = os.path.abspath(folder)
    while not os.path.lexists(os.path.join(place, ".git")):
        above = os.path.dirname(place)
        if above == place:
            break
        place = above
    else:
        here = place if os.path.isdir(os.path.join(place, ".git")) else ""
    work = os.path.join(here, ".work")
    return work if here and os.path.isfile(os.path.join(work, "index.sqlite")) else ""
