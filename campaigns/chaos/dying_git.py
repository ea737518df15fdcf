"""A git that is killed in the middle of one of Shopfloor's calls, as a machine out of memory would do it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from shopfloor.config import environment

When = Literal["before", "during", "after", "locked"]

# Only our own calls begin with --no-pager. The hook runs while git holds its locks.
_WRAPPER = """#!/bin/sh
case "$1 $*" in
"--no-pager "*" {verb} "*)
    echo >> "{folder}/count"
    if [ "$(wc -l < "{folder}/count")" -eq {nth} ]; then
        echo "$*" > "{folder}/struck"
        case {when} in
        before) kill -9 $$ ;;
        after) {git} "$@" <&0; kill -9 $$ ;;
        during) {git} "$@" <&0 & pid=$!; sleep {delay_s}; kill -9 $pid; wait $pid; kill -9 $$ ;;
        locked)
            for word do
                shift
                [ "$word" = core.hooksPath=/dev/null ] && word=core.hooksPath={folder}/hooks
                set -- "$@" "$word"
            done ;;
        esac
    fi ;;
esac
exec {git} "$@"
"""
_HOOK = '#!/bin/sh\n[ "$1" = prepared ] && kill -9 $PPID\nexit 0\n'


def dying_git(folder: Path, *, verb: str, when: When, nth: int = 1, delay_s: float = 0.002) -> str:
    """Make such a git in a new folder; returns what has to stand first on the PATH.

    It dies in the ``nth`` call of ``verb``: before or after it did its work, ``delay_s`` seconds after its start, or
    (commands that move refs) while it holds its locks.
    """
    programs, hooks = folder / "bin", folder / "hooks"
    real = shutil.which("git", path=environment().get("PATH"))
    text = _WRAPPER.format(folder=folder, verb=verb, when=when, nth=nth, delay_s=delay_s, git=real)
    for path, content in ((programs / "git", text), (hooks / "reference-transaction", _HOOK)):
        path.parent.mkdir(parents=True)
        path.write_text(content)
        path.chmod(0o755)
    return str(programs)


def struck(folder: Path) -> bool:
    """Whether it has died by now."""
    return (folder / "struck").exists()
