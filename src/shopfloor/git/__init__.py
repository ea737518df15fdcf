"""The one door to git: no other module runs the program.

Every call has a clean environment, no hooks, no prompts, no signing, and syncs what it writes. All of it blocks:
drivers call it through ``asyncio.to_thread``. Paths inside a repository are ``str`` decoded by ``os.fsdecode``, so any
byte survives; `shown` makes them fit for people, logs and JSON. A commit or tree is named by its full hash.
"""

from shopfloor.git.discover import Repository, discover, folder
from shopfloor.git.files import is_blank, open_lock, sync_file, sync_folder, write_durably
from shopfloor.git.output import Merge, Unreadable, Worktree, differences, is_hash, status
from shopfloor.git.repository import Git, GitError, RefMoved
from shopfloor.git.text import EMAIL, NAME, OWN_FOLDERS, is_ours, shown, split, with_trailers

__all__ = [
    "EMAIL",
    "NAME",
    "OWN_FOLDERS",
    "Git",
    "GitError",
    "Merge",
    "RefMoved",
    "Repository",
    "Unreadable",
    "Worktree",
    "differences",
    "discover",
    "folder",
    "is_blank",
    "is_hash",
    "is_ours",
    "open_lock",
    "shown",
    "split",
    "status",
    "sync_file",
    "sync_folder",
    "with_trailers",
    "write_durably",
]
