"""``shopfloor demo``: the whole main job on a project made on the spot, in under a minute."""

from __future__ import annotations
