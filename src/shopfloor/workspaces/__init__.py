"""Isolated checkouts: pools of linked worktrees (``worktree``) or of independent clones (``clone``)."""
