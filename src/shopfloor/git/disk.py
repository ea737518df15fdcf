"""Why git could not write: its many words as the one number of the system's."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
from pathlib import Path

FULL_BYTES = 1 << 18
"""With less free space than this, git can fail without a word about why."""

_REASONS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_SAID = {os.strerror(number).encode(): number for number in _REASONS}
_AT_THE_END = re.compile(b": (%b)$" % b"|".join(map(re.escape, _SAID)), re.MULTILINE)


def unwritable(code: int, stderr: bytes, folder: Path) -> OSError | None:
    """What keeps anybody from writing to the disk of ``folder``, where that is why a command of git's failed."""
    said = _AT_THE_END.search(stderr)
    if said:
        number = _SAID[said[1]]
    elif code == -signal.SIGXFSZ:
        number = errno.EFBIG
    elif folder.is_dir() and shutil.disk_usage(folder).free <= FULL_BYTES:
        number = errno.ENOSPC
    else:
        return None
    return OSError(number, os.strerror(number), str(folder))
