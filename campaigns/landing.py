"""Landing at volume: hundreds of branches, some bad, some in conflict, under checks that are sometimes red for nothing.

Every order is a real agent process, a real checkout and a real verdict; then all that is verified is landed, what came
back is worked on again, and the history of the target is walked and checked commit by commit.
"""

from __future__ import annotations

import asyncio
import math
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.figures import Figure
from benchmarks.landing import Shop, figures, git, make_repository, wish
from campaigns.outcome import Options, Outcome
from shopfloor.domain.events import E
from shopfloor.domain.report import Report, Row

ORDERS = 300
BATCH, POSITIONS = 20, (1, 2, 10, 19)
"""a batch with one bad order, and how many good ones stand below it"""
FLAKES = 0.05
"""part of the tested commits on which the check is red the first time"""
SLOTS = 2000

CHECK_SH = """\
# Green alone is not green together: at most one file in crowd/, and what is used must be there.
flakes=$1
head=$(git rev-parse HEAD)
if [ -d "$flakes" ] && mkdir "$flakes/$head" 2>/dev/null; then
    number=$(ls "$flakes" | wc -l)
    if grep -qx "$number" "$flakes.numbers"; then echo "red for nothing"; exit 1; fi
fi
crowd=0
for file in crowd/*; do if [ -e "$file" ]; then crowd=$((crowd + 1)); fi; done
if [ "$crowd" -gt 1 ]; then echo "crowd/ has $crowd files"; exit 1; fi
for file in use/*; do
    name=${file#use/}
    if [ -e "$file" ] && [ ! -e "lib/$name" ] && [ ! -e "compat/$name" ]; then echo "$file needs lib/$name"; exit 1; fi
done
"""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """One order, and what must become of it. Of the orders of one ``group`` exactly ``of_group`` may land."""

    name: str
    kind: str
    prompt: str
    path: str = ""
    """a file that is in the target exactly when it has landed"""
    group: str = ""
    of_group: int = 1


def run(options: Options) -> Outcome:
    """The whole story once, and batches with one bad order; every figure with its bar."""
    with tempfile.TemporaryDirectory() as place:
        found, costs = asyncio.run(_volume(Path(place, "volume"), options))
    extra = []
    for below in POSITIONS[: round(len(POSITIONS) * options.size)]:
        with tempfile.TemporaryDirectory() as place:
            extra.append(asyncio.run(_one_bad(Path(place), below)))
            say(f"one bad of {BATCH}, {below} good below it: {extra[-1]} extra checks")
    found += costs
    if extra:
        worst, log2, most = max(extra), math.log2(BATCH), math.ceil(math.log2(BATCH)) + 2
        name = f"extra tests of a batch of {BATCH} with one bad order, at the most, against log₂ {BATCH}"
        found.append(
            Figure(name=name, value=worst, bar=f"≤ {most}", ok=worst <= most, baseline=log2, ratio=worst / log2)
        )
    return Outcome(figures=found, untested=UNTESTED)


UNTESTED = [
    "Checks that are red for nothing more often than once on the same commit: the order is then blamed, and sent back.",
    "Agents that mend what they are sent back with by thinking; these do the same again, or what their prompt says.",
    "Orders' own checks after later batches: only the project's checks are run again for what has landed earlier.",
]


def say(text: str) -> None:
    """Progress, a line."""
    print(f"landing: {text}", file=sys.stderr, flush=True)


# -- the orders -------------------------------------------------------------------------------------------------------


def wishes(count: int, chance: random.Random) -> list[Wish]:
    """A tenth is bad, a tenth in conflict, the rest good, in random order."""
    tenth = max(4, count // 10)
    rows = [[one] for one in (*_bad(tenth), *_conflicting(max(1, tenth // 2), chance))]
    rows += [_trio(number) for number in range(max(1, count // 50))]
    rows += [[_good(number, chance)] for number in range(count - sum(map(len, rows)))]
    chance.shuffle(rows)
    return [one for row in rows for one in row]


def _trio(number: int) -> list[Wish]:
    """The second is red on the first until the third is there: merges inside of a batch need not be green."""
    name, lib = f"trio-{number}", f"trio-{number}"
    steps = (
        (f"git rm -q lib/{lib}",),
        ("mkdir -p use", f"echo x > use/{lib}"),
        ("mkdir -p compat", f"echo x > compat/{lib}"),
    )
    found = enumerate(steps, 1)
    return [Wish(name=f"{name}-{n}", kind="trio", prompt=wish(f"{name}-{n}", *words)) for n, words in found]


def _good(number: int, chance: random.Random) -> Wish:
    name, area = f"good-{number}", chance.randrange(10)
    path = f"area{area}/{name}.txt"
    checks = [f"test -e {path}"] if chance.random() < 0.25 else []
    prompt = wish(name, f"mkdir -p area{area}", f"echo {name} > {path}", checks=checks)
    return Wish(name=name, kind="good", prompt=prompt, path=path)


def _bad(count: int) -> Iterator[Wish]:
    """Fails alone, or is green alone and red with another one, so that one of its group can land and no more."""
    for number in range(count):
        name = f"bad-{number}"
        if number % 4 == 0:
            prompt = wish(name, f"echo x > {name}.txt", checks=["test -e never"])
            yield Wish(name=name, kind="bad", prompt=prompt, path=f"{name}.txt", group=name, of_group=0)
        elif number % 4 == 1 and number + 2 < count:
            commands = (f"git rm -q lib/{number}",), ("mkdir -p use", f"echo x > use/{number}")
            for step, words in zip((0, 2), commands, strict=True):
                other = f"bad-{number + step}"
                yield Wish(name=other, kind="bad", prompt=wish(other, *words), group=f"lib-{number}")
        elif number % 4 != 3 or number - 2 < 0:
            prompt = wish(name, "mkdir -p crowd", f"echo x > crowd/{name}")
            yield Wish(name=name, kind="bad", prompt=prompt, path=f"crowd/{name}", group="crowd")


def _conflicting(pairs: int, chance: random.Random) -> Iterator[Wish]:
    """Pairs that cannot both be merged as they are; the second of a pair starts anew from what the first has done."""
    for number in range(pairs):
        path = f"shared/{number}.txt"
        removes = chance.random() < 0.3
        for side in (0, 1):
            name = f"conflict-{number}-{side}"
            words = f"if [ -e {path} ]; then echo {name} >> {path}; fi"
            if removes and side == 0:
                words = f"git rm -q {path}"
            yield Wish(name=name, kind="conflict", prompt=wish(name, words))


def _repository(place: Path, count: int, chance: random.Random) -> tuple[Path, Path]:
    """The repository, and the folder by which its check knows which commits it has seen."""
    flakes = place / "flakes"
    flakes.mkdir(parents=True)
    numbers = sorted(chance.sample(range(1, SLOTS), int(SLOTS * FLAKES)))
    flakes.with_name("flakes.numbers").write_text("".join(f"{n}\n" for n in numbers if n > 1))
    files = {"README.md": "# sample\n", "check.sh": CHECK_SH}
    for number in range(count):
        files[f"shared/{number}.txt"] = "start\n"
        files[f"lib/{number}"] = files[f"lib/trio-{number}"] = "lib\n"
    return make_repository(place / "repo", files), flakes


# -- the story --------------------------------------------------------------------------------------------------------


async def _volume(place: Path, options: Options) -> tuple[list[Figure], list[Figure]]:
    chance = random.Random(options.seed)
    count = max(12, round(ORDERS * options.size))
    wanted = wishes(count, chance)
    repo, flakes = _repository(place, count, chance)
    shop = Shop(repo, f"sh check.sh {flakes}")
    report = await shop.work(w.prompt for w in wanted)
    say(f"{report.counts['verified']} of {count} orders are verified")
    costs = await shop.land()
    say(f"{costs.landed} landed from the queue in {costs.wall_s:.1f} s with {costs.tests} tests of merged work")
    report = await shop.go_on()
    say(f"{report.counts['landed']} landed, {report.counts['failed']} failed")
    walked = walk(repo, place / "walk")
    return [*judge(wanted, report, shop), *_history(repo, wanted, report, walked)], figures(costs)


def judge(wanted: list[Wish], report: Report, shop: Shop) -> list[Figure]:
    """What landed and failed, against what had to."""
    rows = {row.name: row for row in report.orders}
    landed = {name for name, row in rows.items() if row.outcome == "landed"}
    quota = {w.group: w.of_group for w in wanted if w.group}
    by_group = Counter(w.group for w in wanted if w.group and w.name in landed)
    false = sum(max(0, by_group[group] - most) for group, most in quota.items())
    lost = sum(max(0, most - by_group[group]) for group, most in quota.items())
    lost += sum(w.name not in landed for w in wanted if w.kind in ("good", "trio"))
    lost += sum(not _explained(rows[w.name]) for w in wanted if w.kind == "conflict" and w.name not in landed)
    names = {row.order: row.name for row in report.orders}
    refused = [e.data for e in shop.watch.of(E.LANDING_REFUSED) if not e.data.get("again")]
    blamed = [names[d["work_order_id"]] for d in refused if d.get("reason") == "checks"]
    blamed += [names[e.order_id] for e in shop.watch.of(E.VERIFY_VERDICT) if e.data["verdict"] == "FAIL"]
    returned = {names[d["work_order_id"]] for d in refused if d.get("reason") == "conflict"}
    kinds = Counter(w.kind for w in wanted)
    good = kinds["good"] + kinds["trio"]
    wronged = sum(name.startswith(("good-", "conflict-")) for name in blamed)
    return [
        Figure(name=f"orders: {good} good, {kinds['bad']} bad, {kinds['conflict']} conflicting", value=len(wanted)),
        Figure(name="landed", value=len(landed)),
        Figure(name="false landings", value=false, bar="0", ok=false == 0),
        Figure(name="good orders lost", value=lost, bar="0", ok=lost == 0),
        Figure(name="conflicts sent back, then landed or failed with their reason", value=len(returned)),
        Figure(name="commits on which a check was red for nothing", value=sum(report.flaky.values())),
        Figure(name="good orders blamed for it", value=wronged, bar="0", ok=wronged == 0),
    ]  # fmt: skip


def _explained(row: Row) -> bool:
    """A conflicting order that came too late: there was nothing left for it to change."""
    return row.outcome == "failed" and row.reason == "no_changes"


def walk(repo: Path, place: Path) -> tuple[int, int]:
    """Check every first-parent commit of the target since the start; how many there are, and how many are red."""
    commits = git(repo, "rev-list", "--first-parent", "--reverse", "refs/shopfloor/target/main").splitlines()
    git(repo, "worktree", "add", "-q", "--detach", str(place), commits[0])
    red = 0
    for commit in commits:
        git(place, "checkout", "-q", "--detach", commit)
        red += (
            subprocess.run(["sh", "check.sh", "no-flakes"], cwd=place, check=False, capture_output=True).returncode != 0
        )
    return len(commits) - 1, red


def _history(repo: Path, wanted: list[Wish], report: Report, walked: tuple[int, int]) -> list[Figure]:
    target = "refs/shopfloor/target/main"
    trailers = "--format=%(trailers:key=Shopfloor-Order,valueonly,separator=%x2C)"
    found = Counter(line for line in git(repo, "log", "--merges", trailers, target).splitlines() if line)
    landed = {row.order for row in report.orders if row.outcome == "landed"}
    odd = sum(found[order] != 1 for order in landed) + len(found.keys() - landed)
    files = set(git(repo, "ls-tree", "-r", "--name-only", target).splitlines())
    outcomes = {row.name: row.outcome == "landed" for row in report.orders}
    odd += sum((w.path in files) != outcomes[w.name] for w in wanted if w.path)
    behind = int(git(repo, "rev-list", "--count", f"main..{target}"))
    steps, red = walked
    return [
        Figure(name="steps of the target (first parents), each checked afterwards", value=steps),
        Figure(name="red steps of the target", value=red, bar="0", ok=red == 0),
        Figure(name="orders whose merge and file are not where their outcome says", value=odd, bar="0", ok=odd == 0),
        Figure(name="commits by which the user's branch is behind", value=behind, bar="0", ok=behind == 0),
    ]


async def _one_bad(place: Path, below: int) -> int:
    """Extra tests of a batch of 20 in which one order, above so many good ones, is red with the first of them."""
    repo = make_repository(place / "repo", {"README.md": "# sample\n"})
    names = [f"order {number}" for number in range(BATCH)]
    prompts = [wish(name, f"echo x > file{number}.txt") for number, name in enumerate(names)]
    prompts[below] = wish(names[below], "echo x > bad.txt")
    shop = Shop(repo, "test ! -e bad.txt || test ! -e file0.txt")
    report = await shop.work(prompts)
    if report.counts["verified"] != BATCH:
        raise RuntimeError(f"not all of them were verified: {report.counts}")
    costs = await shop.land()
    if costs.landed != BATCH - 1:
        raise RuntimeError(f"{costs.landed} of {BATCH - 1} good orders landed")
    return _runs(shop) - 1


def _runs(shop: Shop) -> int:
    """How often merged work was tested; a test that was run again counts twice."""
    return len(shop.watch.of(E.LANDING_TESTED))
