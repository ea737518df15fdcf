"""The conformance suite of the Lander port. Whoever writes a lander runs it against theirs.

SUBJECT = Subject(make=MyLander)

@pytest.mark.parametrize("case", CASES)
async def test_my_lander(case, tmp_path):
    await run_case(case, SUBJECT, tmp_path)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction
from pathlib import Path

from shopfloor.domain.errors import Refused
from shopfloor.git import Git
from shopfloor.ports import Lander, Mirrored, Target
from shopfloor.testing.repository import Repository, write

TRAILERS = {"Shopfloor-Order": "wo-1", "Shopfloor-Attempt": "wo-1.a1"}
TARGET = Target(branch="main", ref="refs/shopfloor/target/main")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """``make(git)`` opens the lander under test on a repository."""

    make: Callable[[Git], Lander]


class Bench:
    """What a case works with."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.repository = Repository(folder / "repo")
        self.git = self.repository.git
        self.lander = subject.make(self.git)
        self.first = self.repository.first

    def made(self, files: Mapping[str, str | None] | None = None, *, parent: str = "") -> str:
        """A commit of an agent's, as objects only."""
        return self.repository.commit_on(parent or self.first, files or {"new.txt": "new\n"})

    async def landed(self, files: Mapping[str, str | None] | None = None) -> str:
        """A commit on the target, which the user's branch does not have yet."""
        await self.lander.tip(TARGET, start=self.first)
        new = self.made(files)
        assert (await self.lander.land(TARGET, old=self.first, new=new)).moved
        return new

    async def mirror(self, new: str) -> Mirrored:
        return await self.lander.mirror(TARGET, old=self.first, new=new)

    async def refused(self, new: str) -> str:
        """Mirror, which must leave everything as it is; why it did."""
        before = self.repository.look()
        result = await self.mirror(new)
        assert not result.moved, "the branch was moved"
        assert self.repository.look() == before, "something of the user's was touched"
        assert result.head == self.git.read_ref("refs/heads/main")
        assert TARGET.ref in result.why, "it does not say how to take the result"
        return result.why


async def without_start_there_is_no_tip(bench: Bench) -> None:
    assert await bench.lander.tip(TARGET) == ""
    assert bench.git.read_ref(TARGET.ref) == ""


async def start_creates_the_tip(bench: Bench) -> None:
    assert await bench.lander.tip(TARGET, start=bench.first) == bench.first
    assert bench.git.read_ref(TARGET.ref) == bench.first


async def start_does_not_take_back_what_landed(bench: Bench) -> None:
    new = await bench.landed()
    assert await bench.lander.tip(TARGET, start=bench.first) == new


async def start_follows_a_branch_that_went_on(bench: Bench) -> None:
    await bench.lander.tip(TARGET, start=bench.first)
    later = bench.repository.commit({"mine.txt": "x"})
    assert await bench.lander.tip(TARGET, start=later) == later


async def start_refuses_where_both_went_on(bench: Bench) -> None:
    new = await bench.landed()
    later = bench.repository.commit({"mine.txt": "x"})
    try:
        await bench.lander.tip(TARGET, start=later)
    except Refused as refused:
        hint = refused.hint
    assert TARGET.ref in hint
    assert await bench.lander.tip(TARGET) == new


async def a_proposal_is_a_merge_with_two_parents(bench: Bench) -> None:
    onto, commit = bench.made({"one.txt": "1"}), bench.made({"two.txt": "2"})
    before = bench.repository.look()
    proposal = await bench.lander.propose(onto, commit, message="Land it", trailers=TRAILERS)
    assert not proposal.conflicts
    assert bench.git.text("show", "-s", "--format=%P", proposal.commit).split() == [onto, commit]
    assert bench.git.tree_of(proposal.commit) == proposal.tree
    assert {"one.txt", "two.txt"} <= bench.repository.paths(proposal.commit)
    assert bench.repository.look() == before
    assert proposal.onto == onto


async def a_bundle_is_one_step_to_the_top_of_a_stack(bench: Bench) -> None:
    first = await bench.lander.propose(bench.first, bench.made({"one.txt": "1"}), message="One", trailers={})
    top = await bench.lander.propose(first.commit, bench.made({"two.txt": "2"}), message="Two", trailers={})
    before = bench.repository.look()
    step = await bench.lander.bundle(bench.first, top, message="Both", trailers={"Shopfloor-Orders": "wo-1, wo-2"})
    assert bench.git.text("show", "-s", "--format=%P", step.commit).split() == [bench.first, top.commit]
    assert (bench.git.tree_of(step.commit), step.tree) == (top.tree, top.tree)
    told = bench.git.text("show", "-s", "--format=%s %(trailers:key=Shopfloor-Orders,valueonly)", step.commit)
    assert told.split() == ["Both", "wo-1,", "wo-2"]
    assert bench.repository.look() == before


async def a_proposal_says_who_did_it(bench: Bench) -> None:
    proposal = await bench.lander.propose(
        bench.made({"a": "1"}), bench.made({"b": "1"}), message="Land it\n\nSigned-off-by: Ada", trailers=TRAILERS
    )
    told = bench.git.text("show", "-s", "--format=%an%n%(trailers:key=Shopfloor-Order,valueonly)%s", proposal.commit)
    assert told.split("\n") == ["Ada", "wo-1", "Land it"]


async def what_is_there_already_is_no_merge(bench: Bench) -> None:
    later = bench.made()
    proposal = await bench.lander.propose(later, bench.first, message="m", trailers={})
    assert (proposal.commit, proposal.tree) == (later, bench.git.tree_of(later))


async def a_conflict_names_the_paths(bench: Bench) -> None:
    onto = bench.made({"README.md": "one\n", "src/main.py": None})
    commit = bench.made({"README.md": "two\n", "src/main.py": "changed\n", "fine.txt": "x"})
    proposal = await bench.lander.propose(onto, commit, message="m", trailers={})
    assert set(proposal.conflicts) == {"README.md", "src/main.py"}
    assert (proposal.commit, proposal.tree) == ("", "")


async def land_moves_the_target(bench: Bench) -> None:
    await bench.lander.tip(TARGET, start=bench.first)
    new = bench.made()
    landed = await bench.lander.land(TARGET, old=bench.first, new=new)
    assert (landed.moved, landed.observed, landed.by_others) == (True, new, False)
    assert bench.git.read_ref(TARGET.ref) == new
    assert bench.git.read_ref("refs/heads/main") == bench.first


async def landing_twice_is_landing_once(bench: Bench) -> None:
    new = await bench.landed()
    again = await bench.lander.land(TARGET, old=bench.first, new=new)
    assert (again.moved, again.observed, again.by_others) == (True, new, False)


async def a_move_by_others_is_seen(bench: Bench) -> None:
    await bench.lander.tip(TARGET, start=bench.first)
    theirs, new = bench.made({"theirs": "x"}), bench.made({"ours": "x"})
    bench.git.call("update-ref", TARGET.ref, theirs)
    landed = await bench.lander.land(TARGET, old=bench.first, new=new)
    assert (landed.moved, landed.observed, landed.by_others) == (False, theirs, True)
    assert bench.git.read_ref(TARGET.ref) == theirs


async def a_removed_target_is_seen(bench: Bench) -> None:
    await bench.lander.tip(TARGET, start=bench.first)
    bench.git.call("update-ref", "-d", TARGET.ref)
    landed = await bench.lander.land(TARGET, old=bench.first, new=bench.made())
    assert (landed.moved, landed.observed, landed.by_others) == (False, "", True)


async def only_one_of_many_lands(bench: Bench) -> None:
    await bench.lander.tip(TARGET, start=bench.first)
    news = [bench.made({f"{n}.txt": "x"}) for n in range(8)]
    landed = await asyncio.gather(*(bench.lander.land(TARGET, old=bench.first, new=new) for new in news))
    (winner,) = [new for new, result in zip(news, landed, strict=True) if result.moved]
    assert bench.git.read_ref(TARGET.ref) == winner


async def a_clean_checkout_comes_along(bench: Bench) -> None:
    files = {"new/deep.txt": "new\n", "README.md": "changed\n", "src/deep/er/data.txt": None}
    write(bench.repository.root, {"untracked.txt": "mine", "noise.log": "ignored", "src/deep/mine.txt": "mine"})
    new = await bench.landed(files)
    result = await bench.mirror(new)
    assert (result.moved, result.head, result.why) == (True, new, "")
    root = bench.repository.root
    assert bench.git.text("symbolic-ref", "HEAD") == "refs/heads/main"
    assert bench.git.rev_parse("HEAD") == new
    assert (root / "new/deep.txt").read_text() == "new\n"
    assert (root / "README.md").read_text() == "changed\n"
    assert not (root / "src/deep/er").exists()
    assert [(root / p).read_text() for p in ("untracked.txt", "noise.log", "src/deep/mine.txt")][1] == "ignored"
    assert bench.git.text("status", "--porcelain", "-uno") == ""
    assert not (root / ".git/index.lock").exists()


async def mirroring_twice_is_mirroring_once(bench: Bench) -> None:
    new = await bench.landed()
    await bench.mirror(new)
    before = bench.repository.look()
    result = await bench.mirror(new)
    assert (result.moved, result.head) == (True, new)
    assert bench.repository.look() == before


async def modified_files_hold_it(bench: Bench) -> None:
    write(bench.repository.root, {"src/main.py": "mine"})
    assert "src/main.py" in await bench.refused(await bench.landed())


async def staged_files_hold_it(bench: Bench) -> None:
    write(bench.repository.root, {"src/main.py": "mine"})
    bench.git.call("add", "src/main.py")
    assert "src/main.py" in await bench.refused(await bench.landed())


async def an_untracked_file_in_the_way_holds_it(bench: Bench) -> None:
    write(bench.repository.root, {"new.txt": "mine"})
    assert "new.txt" in await bench.refused(await bench.landed())


async def an_ignored_file_in_the_way_holds_it(bench: Bench) -> None:
    write(bench.repository.root, {"build/out": "mine"})
    assert "build" in await bench.refused(await bench.landed({"build/out": "theirs"}))


async def a_file_where_a_folder_goes_holds_it(bench: Bench) -> None:
    write(bench.repository.root, {"place": "mine"})
    assert "place" in await bench.refused(await bench.landed({"place/file": "theirs"}))


async def a_link_where_a_folder_goes_holds_it(bench: Bench) -> None:
    (bench.repository.root / "place").symlink_to("src")
    assert "place" in await bench.refused(await bench.landed({"place/file": "theirs"}))


async def a_folder_where_a_file_goes_holds_it(bench: Bench) -> None:
    write(bench.repository.root, {"place/mine.log": "mine"})
    assert "place" in await bench.refused(await bench.landed({"place": "theirs"}))


async def a_branch_that_moved_on_holds_it(bench: Bench) -> None:
    new = await bench.landed()
    bench.repository.commit({"mine.txt": "x"})
    assert "main" in await bench.refused(new)


async def a_branch_that_is_gone_holds_it(bench: Bench) -> None:
    new = await bench.landed()
    bench.git.call("checkout", "-q", "-b", "other")
    bench.git.call("branch", "-D", "main")
    assert "main" in await bench.refused(new)


async def what_does_not_descend_holds_it(bench: Bench) -> None:
    bench.repository.commit({"mine.txt": "x"})
    later = bench.git.rev_parse("HEAD")
    new = bench.made()
    result = await bench.lander.mirror(TARGET, old=later, new=new)
    assert (result.moved, bench.git.rev_parse("main")) == (False, later)


async def a_merge_under_way_holds_it(bench: Bench) -> None:
    new = await bench.landed()
    bench.git.update_ref("refs/heads/other", bench.made({"other": "x"}))
    bench.git.call("merge", "-q", "--no-ff", "--no-commit", "-s", "ours", "other")  # nothing looks modified
    assert "under way" in await bench.refused(new)


async def a_rebase_under_way_holds_it(bench: Bench) -> None:
    new = await bench.landed()
    bench.git.update_ref("refs/heads/other", bench.made({"README.md": "other"}))
    bench.git.call("checkout", "-q", "-b", "mine")
    bench.repository.commit({"README.md": "mine"})
    mine = bench.git.rev_parse("HEAD")
    bench.git.call("branch", "-f", "main", mine)
    bench.git.call("checkout", "-q", "main")
    assert bench.git.call("rebase", "-q", "other", ok=(0, 1)).code == 1
    head = bench.git.read_ref("refs/heads/main")
    bench.git.call("worktree", "add", "-q", "--detach", str(bench.repository.root.with_name("elsewhere")), mine)
    other = bench.repository.root / ".git/worktrees/elsewhere/rebase-merge"
    other.mkdir()
    (other / "head-name").write_bytes(b"refs/heads/caf\xe9\n")  # a branch need not be named in UTF-8
    result = await bench.lander.mirror(TARGET, old=head, new=bench.made({"new": "x"}, parent=head))
    assert not result.moved
    assert "rebase" in result.why
    assert new


async def a_rebase_in_another_worktree_holds_it(bench: Bench) -> None:
    bench.git.update_ref("refs/heads/other", bench.made({"README.md": "other"}))
    bench.git.call("checkout", "-q", "-b", "mine")
    place = bench.repository.root.with_name("elsewhere")
    bench.git.call("worktree", "add", "-q", str(place), "main")
    there = Git(place, base_env=bench.git.base_env)
    write(place, {"README.md": "mine"})
    there.call("commit", "-q", "-a", "-m", "mine")
    head = there.rev_parse("HEAD")
    assert there.call("rebase", "-q", "other", ok=(0, 1)).code == 1
    result = await bench.lander.mirror(TARGET, old=head, new=bench.made({"new": "x"}, parent=head))
    assert not result.moved
    assert "rebase" in result.why
    assert "elsewhere" in result.why


async def gits_own_lock_holds_it(bench: Bench) -> None:
    new = await bench.landed()
    lock = bench.repository.root / ".git/index.lock"
    lock.write_bytes(b"DIRC\0\0")
    assert "index.lock" in await bench.refused(new)
    assert lock.exists(), "somebody else's lock was removed"


async def a_branch_nobody_looks_at_just_moves(bench: Bench) -> None:
    new = await bench.landed()
    bench.git.call("checkout", "-q", "-b", "other")
    write(bench.repository.root, {"README.md": "mine"})
    files = bench.repository.look()
    assert (await bench.mirror(new)).moved
    assert bench.git.read_ref("refs/heads/main") == new
    assert bench.repository.look() == files | {"refs/heads/main": new}


async def a_branch_in_another_worktree_is_left_alone(bench: Bench) -> None:
    new = await bench.landed()
    bench.git.call("checkout", "-q", "-b", "other")
    place = bench.repository.root.with_name("elsewhere")
    bench.git.call("worktree", "add", "-q", str(place), "main")
    assert "elsewhere" in await bench.refused(new)
    assert not (place / "new.txt").exists()


async def our_own_folder_does_not_count(bench: Bench) -> None:
    # A repository that tracks .work/ sees it modified as long as we run.
    base = bench.repository.commit({".work/events.jsonl": "{}\n"})
    write(bench.repository.root, {".work/events.jsonl": "changed"})
    new = bench.made(parent=base)
    assert (await bench.lander.mirror(TARGET, old=base, new=new)).moved
    assert (bench.repository.root / ".work/events.jsonl").read_text() == "changed"


async def marks_in_the_index_survive(bench: Bench) -> None:
    write(bench.repository.root, {"planned.txt": "soon"})
    bench.git.call("add", "-N", "planned.txt")
    bench.git.call("update-index", "--assume-unchanged", "src/main.py")
    write(bench.repository.root, {"src/main.py": "mine, hidden"})
    assert (await bench.mirror(await bench.landed())).moved
    marks = bench.git.text("ls-files", "-v").split("\n")
    assert "h src/main.py" in marks
    assert bench.git.text("diff", "--name-only", "--diff-filter=A") == "planned.txt"
    assert (bench.repository.root / "src/main.py").read_text() == "mine, hidden"


async def a_hidden_change_where_something_lands_holds_it(bench: Bench) -> None:
    bench.git.call("update-index", "--assume-unchanged", "src/main.py")
    write(bench.repository.root, {"src/main.py": "mine, hidden"})
    await bench.refused(await bench.landed({"src/main.py": "theirs"}))


async def a_sparse_checkout_stays_sparse(bench: Bench) -> None:
    bench.git.call("sparse-checkout", "set", "--no-cone", "/README.md", "/.gitignore")
    new = await bench.landed({"src/main.py": "theirs", "README.md": "new"})
    assert (await bench.mirror(new)).moved
    assert not (bench.repository.root / "src").exists()
    assert (bench.repository.root / "README.md").read_text() == "new"
    assert bench.git.text("status", "--porcelain", "-uno") == ""


async def hooks_do_not_run(bench: Bench) -> None:
    trace = bench.repository.root.with_name("hooks-ran")
    for name in ("reference-transaction", "post-checkout", "post-merge", "post-index-change"):
        hook = bench.repository.root / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\necho {name} >> {trace}\n")
        hook.chmod(0o755)
    assert (await bench.mirror(await bench.landed())).moved
    assert not trace.exists()


Case = Callable[[Bench], Awaitable[None]]
CASES: dict[str, Case] = {
    name: case for name, case in list(globals().items()) if iscoroutinefunction(case) and case.__module__ == __name__
}
"""Every case by its name, which says what must hold."""


async def run_case(name: str, subject: Subject, folder: Path) -> None:
    """Run one case in an empty folder. Raises AssertionError that says what is wrong."""
    await CASES[name](Bench(subject, folder))
