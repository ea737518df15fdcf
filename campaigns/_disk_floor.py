"""Power losses under a whole run: what its log says is so in the repository, and ``run --resume`` ends it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from campaigns._disk_git import whole
from shopfloor.domain.errors import ShopfloorError
from shopfloor.domain.events import E, Event
from shopfloor.stores.workdir import WorkdirStore
from shopfloor.testing.disk import record
from shopfloor.testing.lander import TARGET
from shopfloor.testing.repository import Repository, write
from shopfloor.testing.store import FixedClock

COMMAND = (sys.executable, "-m", "shopfloor", "run")
NAMES = ("one", "two", "three")
PROMPT = '# {0}\n\n```script\n[[do]]\nwrite = "{0}.txt"\ncontent = "done"\n```\n'
RESUMED = 8
"""One loss in so many is gone on from with the installed command."""
LONGEST_S = 90.0


def losses(seed: int, count: int, scratch: Path, env: Mapping[str, str]) -> Counter[str]:
    """Lose the power ``count`` times in one run of three orders. Counts as those of the store."""
    counts: Counter[str] = Counter()
    dice = random.Random(seed)
    scratch.mkdir(parents=True)
    env = {**env, "HOME": str(scratch), "SHOPFLOOR_LOAD_PER_CORE": "100", "SHOPFLOOR_MEMORY_FREE": "0"}
    repository = Repository(scratch / "repo")
    write(repository.root, {f"prompts/{name}.md": PROMPT.format(name) for name in NAMES})
    write(repository.root, {".shopfloor.toml": 'agent = "scripted"\ncheck = "grep -q hello src/main.py"\n'})
    prompts = [f"prompts/{name}.md" for name in NAMES]
    recording = record([*COMMAND, *prompts], repository.root, cwd=repository.root, env=env, timeout_s=LONGEST_S)
    counts["steps"] = len(recording)
    for number in range(count):
        at, moment = dice.randint(0, len(recording)), dice.getrandbits(30)
        shutil.rmtree(repository.root)
        style = recording.lose_power(at, random.Random(moment), repository.root)
        counts["losses"] += 1
        try:
            asyncio.run(_look(repository, recording.said(at), counts))
            if number % RESUMED == 0:
                counts["resumed"] += 1
                _resume(repository, env)
        except (AssertionError, ShopfloorError, OSError) as broken:
            words = str(broken).splitlines()[0].replace(str(repository.root), "")
            counts[f"broken: {words}"] += 1
            print(f"broken: {broken} (step {at} of {len(recording)}, moment {moment}, {style})", file=sys.stderr)
    return counts


async def _look(repository: Repository, said: list[str], counts: Counter[str]) -> None:
    """Hold the repository against the log, and both against what was printed."""
    git = repository.git
    async with WorkdirStore(repository.root / ".work", clock=FixedClock()) as store:
        events = [event async for _, event in store.read()]
    whole(git, "refs/shopfloor", "refs/heads/main")
    target, head = git.read_ref(TARGET.ref), git.read_ref("refs/heads/main")
    landed = [_text(event, "commit") for event in events if event.event_type == E.LANDING_LANDED]
    counts["landed"] += len(landed)
    for commit in landed:
        assert git.is_ancestor(commit, target or repository.first), "an order landed and the target lacks it"
    for event in events:
        if event.event_type == E.AGENT_STOPPED and event.data.get("ref"):
            counts["snapshot"] += 1
            commit, ref = _text(event, "commit"), _text(event, "ref")
            assert commit in (git.read_ref(ref), repository.first), "a snapshot is in the log and its ref is lost"
        elif event.event_type == E.MIRROR_ADVANCED:
            counts["mirrored"] += 1
            assert git.is_ancestor(_text(event, "to"), head), "the user's branch went back"
    for short in re.findall(r"landed as ([0-9a-f]{12})", "\n".join(said)):
        assert any(commit.startswith(short) for commit in landed), "a landing was printed and is not in the log"


def _resume(repository: Repository, env: Mapping[str, str]) -> None:
    """Go on as a person does; before the run was in the log there is nothing to go on with, and they begin again."""
    words = ["--resume"]
    done = _run(repository, env, words)
    if done.returncode:
        done = _run(repository, env, [f"prompts/{name}.md" for name in NAMES])
    assert done.returncode == 0, f"the run cannot be brought to its end\n{done.stdout}\n{done.stderr}"
    paths = repository.paths(TARGET.ref)
    assert {f"{name}.txt" for name in NAMES} <= paths, "an order was lost"
    log = repository.git.text("log", "--first-parent", "--format=%s", TARGET.ref).splitlines()
    merges = [line for line in log if line.startswith("Merge ")]
    assert len(merges) == len(set(merges)), f"an order landed twice\n{log}"


def _run(repository: Repository, env: Mapping[str, str], words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], cwd=repository.root, env=env, check=False, capture_output=True, text=True,
        timeout=LONGEST_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def _text(event: Event, key: str) -> str:
    return json.dumps(event.data.get(key, "")).strip('"')
