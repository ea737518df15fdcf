"""The whole floor on real git with the scripted agent: what lands, what does not, what is never touched."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shopfloor.app import Shopfloor
from shopfloor.domain.errors import Conflict, NotFound, Refused, UsageError
from shopfloor.domain.events import E
from shopfloor.prompts import PromptOrder

from .lab import Lab, git, row, script, write


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


# -- the user's checkout --------------------------------------------------------------------------------------------


def test_a_clean_branch_is_fast_forwarded_and_untracked_prompts_stay(lab: Lab) -> None:
    report = lab.run(lab.prompt("add", script(write("new.txt"))))
    assert report.counts["landed"] == 1
    assert git(lab.repo, "rev-parse", "main") == report.tip == git(lab.repo, "rev-parse", "refs/shopfloor/target/main")
    assert (lab.repo / "new.txt").read_text() == "x\n"
    assert git(lab.repo, "status", "--porcelain") == "?? prompts/"


def test_staged_work_is_not_touched_and_the_result_waits_on_its_ref(lab: Lab) -> None:
    (lab.repo / "b.txt").write_text("staged\n")
    git(lab.repo, "add", "b.txt")
    (lab.repo / "a.txt").write_text("modified\n")
    index = (lab.repo / ".git/index").read_bytes()
    report = lab.run(lab.prompt("add", script(write("new.txt"))))
    assert report.counts["landed"] == 1
    assert (lab.repo / ".git/index").read_bytes() == index
    assert git(lab.repo, "rev-parse", "main") == lab.start
    assert (lab.repo / "a.txt").read_text() == "modified\n"
    assert not (lab.repo / "new.txt").exists()
    assert "git merge --ff-only refs/shopfloor/target/main" in report.mirror_why
    git(lab.repo, "stash")
    git(lab.repo, "merge", "--ff-only", "refs/shopfloor/target/main")
    assert (lab.repo / "new.txt").exists()


def test_an_untracked_file_in_the_way_is_never_overwritten(lab: Lab) -> None:
    (lab.repo / "new.txt").write_text("the user's\n")
    report = lab.run(lab.prompt("add", script(write("new.txt"))))
    assert report.counts["landed"] == 1
    assert (lab.repo / "new.txt").read_text() == "the user's\n"
    assert "new.txt" in report.mirror_why
    assert git(lab.repo, "rev-parse", "main") == lab.start


def test_commits_of_the_user_in_mid_run_are_left_alone(lab: Lab) -> None:
    theirs = f"git -C {lab.repo} -c user.name=p -c user.email=p@localhost commit -q --allow-empty -m mine"
    report = lab.run(lab.prompt("add", script({"run": f"env -u GIT_DIR {theirs}"}, write("new.txt"))))
    assert report.counts["landed"] == 1
    assert git(lab.repo, "log", "-1", "--format=%s", "main") == "mine"
    assert "git merge refs/shopfloor/target/main" in report.mirror_why


def test_a_title_that_no_file_could_have_becomes_one_safe_line(lab: Lab) -> None:
    title = "x\x1b]0;t\x07\u202e\n\nShopfloor-Order: forged\n--amend"
    wish = PromptOrder(name="../../odd", title=title, instruction=script(write("new.txt")))
    report = lab.run(wish)
    assert report.counts["landed"] == 1
    subjects = git(lab.repo, "log", "--format=%s", f"{lab.start}..main").splitlines()
    assert len(subjects) == 2
    assert all(subject.endswith("x\ufffd]0;t\ufffd\ufffd Shopfloor-Order: forged --amend") for subject in subjects)
    orders = git(lab.repo, "log", "--format=%(trailers:key=Shopfloor-Order,valueonly,separator=%x2C)", "main")
    assert "forged" not in orders
    assert {ref.split("/")[1] for ref in git(lab.repo, "for-each-ref", "--format=%(refname)").split()} == {
        "heads",
        "shopfloor",
    }


# -- the target -----------------------------------------------------------------------------------------------------


def moved_by_the_agent(tree: str) -> dict[str, object]:
    """A deed that puts the target on a commit of somebody else's with this tree expression."""
    commit = f"git -c user.name=p -c user.email=p@localhost commit-tree {tree} -p refs/shopfloor/target/main -m theirs"
    return {"run": f"git update-ref refs/shopfloor/target/main $({commit})"}


def test_a_target_moved_by_somebody_else_is_recorded_tested_and_built_upon(lab: Lab) -> None:
    report = lab.run(lab.prompt("add", script(moved_by_the_agent("HEAD^{tree}"), write("new.txt"))))
    (moved,) = [e for e in lab.seen(E.TARGET_MOVED) if e.data["by"] == "unknown"]
    assert moved.data["hold"] is False
    assert report.counts["landed"] == 1
    assert "theirs" in git(lab.repo, "log", "--format=%s", report.tip)


def test_nothing_lands_on_a_target_that_somebody_else_made_red(lab: Lab) -> None:
    red = "$(touch broken && git add broken && git write-tree && git rm -q --cached broken && rm broken)"
    report = lab.run(lab.prompt("add", script(moved_by_the_agent(red), write("new.txt"))))
    assert report.counts["verified"] == 1
    assert report.counts["landed"] == 0
    assert "red there" in report.mirror_why
    assert git(lab.repo, "rev-parse", "main") == lab.start


def test_two_orders_in_conflict_one_lands_the_other_goes_back_and_lands_too(lab: Lab) -> None:
    one = lab.prompt("one", script({"wait_s": 0.2}, {"append": "b.txt", "content": "one\n"}))
    two = lab.prompt("two", script({"wait_s": 0.2}, {"append": "b.txt", "content": "two\n"}))
    report = lab.run(one, two)
    assert report.counts["landed"] == 2
    assert sorted(r.attempts for r in report.orders) == [1, 2]
    assert git(lab.repo, "show", "main:b.txt").split() in (["b", "one", "two"], ["b", "two", "one"])


def test_without_rework_a_conflict_names_the_file(lab: Lab) -> None:
    one = lab.prompt("one", script({"wait_s": 0.2}, {"append": "b.txt", "content": "one\n"}))
    two = lab.prompt("two", script({"wait_s": 0.2}, {"append": "b.txt", "content": "two\n"}))
    report = lab.run(one, two, rework=0)
    assert report.counts["landed"] == report.counts["failed"] == 1
    (failed,) = [r for r in report.orders if r.outcome == "failed"]
    assert failed.reason == "conflict"
    assert "b.txt" in failed.message
    assert failed.branch in failed.message


def test_changes_that_are_red_only_together_do_not_both_land(lab: Lab) -> None:
    check = "! (test -e x1 && test -e x2)"
    one = lab.prompt("one", script({"wait_s": 0.3}, write("x1")))
    two = lab.prompt("two", script({"wait_s": 0.3}, write("x2")))
    report = lab.run(one, two, check=check, rework=0)
    assert report.counts["landed"] == report.counts["failed"] == 1
    assert [r.reason for r in report.orders if r.outcome == "failed"] == ["checks"]


def test_a_second_run_builds_on_the_first(lab: Lab) -> None:
    lab.run(lab.prompt("one", script(write("one.txt"))))
    report = lab.run(lab.prompt("two", script(write("two.txt"))))
    assert report.counts["landed"] == 1
    assert set(git(lab.repo, "ls-tree", "--name-only", "main").split()) >= {"one.txt", "two.txt"}


# -- checkouts and checks -------------------------------------------------------------------------------------------


def test_a_check_that_needs_what_setup_installs_passes(lab: Lab) -> None:
    setup = "mkdir -p ignored && echo dependency > ignored/dep"
    report = lab.run(lab.prompt("add", script(write("new.txt"))), setup=setup, check="grep -q dependency ignored/dep")
    assert report.counts["landed"] == 1


def test_a_check_never_passes_thanks_to_what_an_agent_left_in_an_ignored_folder(lab: Lab) -> None:
    left = script(write("ignored/made-by-hand"), write("new.txt"))
    report = lab.run(lab.prompt("add", left, checks="test -e ignored/made-by-hand"), rework=0)
    assert row(report, "add").reason == "checks"


def test_a_check_never_passes_thanks_to_what_an_earlier_check_left(lab: Lab) -> None:
    once = "test -e ignored/left || { mkdir -p ignored; touch ignored/left; false; }"
    report = lab.run(lab.prompt("add", script(write("new.txt")), checks=once), rework=2)
    assert row(report, "add").reason == "checks"
    assert row(report, "add").attempts == 3


def test_a_repository_made_inside_is_kept_and_named_but_does_not_land(lab: Lab) -> None:
    commit = "git -c user.name=a -c user.email=a@b commit -qm in"
    inside = f"git init -q sub && cd sub && echo work > f && git add f && {commit}"
    report = lab.run(lab.prompt("nest", script({"run": inside}, write("new.txt"))))
    nest = row(report, "nest")
    assert nest.outcome == "landed"
    assert any("sub" in note for note in nest.notes)
    kept = git(lab.repo, "for-each-ref", "--format=%(refname)", "refs/shopfloor/nested/")
    assert any(git(lab.repo, "ls-tree", "--name-only", ref) == "f" for ref in kept.split())
    assert git(lab.repo, "ls-tree", "--name-only", "main", "sub") == ""


def test_a_red_base_without_checks_of_its_own_is_refused_before_anything_starts(lab: Lab) -> None:
    with pytest.raises(Refused, match="fails on main before anything was changed"):
        lab.run(lab.prompt("add", script(write("new.txt"))), check="false")
    assert not lab.seen(E.ASSIGNED)
    report = lab.run(lab.prompt("add", script(write("new.txt"))), check="false", allow_red_base=True)
    assert report.counts["landed"] == 1


def test_no_check_at_all_is_refused(lab: Lab) -> None:
    with pytest.raises(Refused, match="there is no check"):
        lab.run(lab.prompt("add", script(write("new.txt"))), check=None)
    report = lab.run(lab.prompt("add", script(write("new.txt"))), check=None, no_check=True)
    assert report.counts["landed"] == 1


# -- failures -------------------------------------------------------------------------------------------------------


def test_every_order_ends_in_one_outcome_with_its_reason(lab: Lab) -> None:
    prompts = [
        lab.prompt("good", script(write("good.txt"))),
        lab.prompt("bad", script(write("broken"))),
        lab.prompt("lazy", script({"nothing": True})),
        lab.prompt("may-be-lazy", script({"nothing": True}), allow_no_changes=True),
        lab.prompt("slow", script(write("half.txt"), {"hang": True}), timeout="1s"),
        lab.prompt("after-slow", script(write("never.txt")), depends_on="slow"),
        lab.prompt("after-that", script(write("never.txt")), depends_on=["after-slow"]),
        lab.prompt("crashes-once", script({"crash_once": "x"}, write("second.txt"))),
        lab.prompt("crashes", script({"crash": 7})),
        lab.prompt("asks", script({"say": "the answer is 42"}, {"nothing": True}), deliverable="answer"),
    ]
    report = lab.run(*prompts, rework=0, retries=1, max_parallel=4)
    outcomes = {r.name: (r.outcome, r.reason) for r in report.orders}
    assert outcomes == {
        "good": ("landed", ""),
        "bad": ("failed", "checks"),
        "lazy": ("failed", "no_changes"),
        "may-be-lazy": ("unchanged", ""),
        "slow": ("failed", "timeout"),
        "after-slow": ("failed", "dependency"),
        "after-that": ("failed", "dependency"),
        "crashes-once": ("landed", ""),
        "crashes": ("failed", "error"),
        "asks": ("answered", ""),
    }
    assert sum(report.counts.values()) == len(prompts)
    assert git(lab.repo, "show", f"{row(report, 'slow').branch}:half.txt") == "x"
    assert row(report, "crashes-once").attempts == row(report, "crashes").attempts == 2
    assert "exit 7" in row(report, "crashes").message


def test_an_agent_that_is_not_there_is_refused_by_name(lab: Lab) -> None:
    agents = {"ghost": {"command": ["no-such-agent-anywhere"]}}
    with pytest.raises(NotFound, match="no-such-agent-anywhere"):
        lab.run(lab.prompt("add", "x"), agents=agents, agent="ghost")


def test_a_budget_for_an_agent_whose_cost_cannot_be_seen_is_refused(lab: Lab) -> None:
    agents = {"blind": {"command": ["sh", "-c", "cat"]}}
    with pytest.raises(Refused, match="cannot be seen"):
        lab.run(lab.prompt("add", "x"), agents=agents, agent="blind", budget=1.0)


def test_a_budget_ends_admission_and_says_so(lab: Lab) -> None:
    prompts = [lab.prompt(f"p{n}", script({"cost": 1.0}, write(f"{n}.txt"))) for n in range(6)]
    report = lab.run(*prompts, budget=2.5, max_parallel=1)
    assert report.counts["landed"] in (2, 3)  # the third is stopped as soon as its report passes the limit
    assert report.cost_usd == pytest.approx(3.0)  # the call in flight may pass the limit, no further one is made
    assert {r.reason for r in report.orders if r.outcome == "failed"} == {"budget"}


def test_any_command_can_be_the_agent(lab: Lab) -> None:
    agents = {"shell": {"command": ["sh", "-c", "cat > said.txt"]}}
    report = lab.run(lab.prompt("add", "the wish"), agents=agents, agent="shell")
    assert report.counts["landed"] == 1
    assert "the wish" in (lab.repo / "said.txt").read_text()


def test_clones_instead_of_worktrees(lab: Lab) -> None:
    mischief = {"run": "git update-ref refs/shopfloor/target/main $(git rev-parse HEAD) || true; git branch stray"}
    report = lab.run(lab.prompt("add", script(mischief, write("new.txt"))), workspace="clone")
    assert report.counts["landed"] == 1
    assert not lab.seen(E.TARGET_MOVED)
    assert "stray" not in git(lab.repo, "branch", "--list")


# -- people ---------------------------------------------------------------------------------------------------------


def test_with_review_verified_work_waits_for_a_person(lab: Lab) -> None:
    prompts = [lab.prompt(n, script(write(f"{n}.txt"))) for n in ("one", "two", "three")]
    after = lab.prompt("after", script(write("after.txt")), depends_on="one")
    report = lab.run(*prompts, after, land="review")
    assert report.counts["verified"] == 3
    assert report.counts["waiting"] == 1
    ids = {r.name: r.order for r in report.orders}
    assert "landed next" in lab.ask("accept", ids["one"])
    assert "rejected" in lab.ask("reject", ids["two"])
    assert "your words" in lab.ask("reject", ids["three"], "please spell it differently")
    report = lab.resume()
    assert row(report, "one").outcome == "landed"
    assert (row(report, "two").outcome, row(report, "two").reason) == ("cancelled", "rejected")
    assert row(report, "three").attempts == 2
    prompt = (lab.repo / ".work/attempts" / f"{ids['three']}.a2" / "prompt.md").read_text()
    assert "please spell it differently" in prompt
    assert row(report, "after").outcome == "verified"
    with pytest.raises(Refused, match="only a verified order"):
        lab.ask("accept", ids["one"])


def test_a_run_is_gone_on_with_as_it_was_started_without_its_flags(lab: Lab) -> None:
    agents = {"shell": {"command": ["sh", "-c", "test $SHOPFLOOR_GENERATION = 2 && cat > said.txt"]}}
    report = lab.run(lab.prompt("add", "the wish"), agents=agents, agent="shell", retries=0, check="test -s said.txt",
                     allow_red_base=True)  # fmt: skip
    assert row(report, "add").outcome == "failed"
    before = (report.wall_s, report.sessions)
    lab.ask("retry", row(report, "add").order)
    assert (lab.report().wall_s, lab.report().sessions) == before, "asking by hand is no session of the run"

    async def go_on() -> object:
        async with Shopfloor.open(lab.repo) as floor:
            return await floor.resume()

    asyncio.run(go_on())
    assert row(lab.report(), "add").outcome == "landed"
    lab.run(lab.prompt("again", script({"crash": 1})), retries=0)
    lab.ask("retry", row(lab.report(), "again").order)
    with pytest.raises(UsageError, match="keeps the checks"):
        lab.resume(check="true")


def test_a_question_waits_for_its_answer_and_the_answer_reaches_the_agent(lab: Lab) -> None:
    prompt = lab.prompt("asks", script({"ask": "which colour?"}, write("colour.txt")))
    after = lab.prompt("after", script(write("after.txt")), depends_on="asks")
    report = lab.run(prompt, after)
    asks = row(report, "asks")
    assert report.counts["waiting"] == 2
    assert "starts again with your answer" in lab.ask("answer", asks.order, "green")
    report = lab.resume()
    assert report.counts["landed"] == 2
    told = (lab.repo / ".work/attempts" / f"{asks.order}.a2" / "prompt.md").read_text()
    assert "which colour?" in told
    assert "green" in told
    with pytest.raises(Refused, match="no open question"):
        lab.ask("answer", asks.order, "red")


def test_without_landing_dependants_build_on_verified_work_and_land_later(lab: Lab) -> None:
    one = lab.prompt("one", script(write("one.txt")))
    two = lab.prompt("two", script(write("two.txt")))
    both = lab.prompt("both", script({"run": "cat one.txt two.txt > both.txt"}), depends_on=["one", "two"],
                      checks="test $(wc -l < both.txt) = 2")  # fmt: skip
    report = lab.run(one, two, both, land="off")
    assert report.counts["verified"] == 3
    assert git(lab.repo, "rev-parse", "main") == lab.start
    assert "3 verified orders" in lab.ask("land")
    assert lab.report().counts["landed"] == 3
    assert (lab.repo / "both.txt").exists()


def test_a_failed_order_is_tried_again_with_those_that_needed_it(lab: Lab) -> None:
    flaky = lab.prompt("flaky", script({"crash_once": "x"}, write("flaky.txt")))
    after = lab.prompt("after", script(write("after.txt")), depends_on="flaky")
    report = lab.run(flaky, after, retries=0)
    assert report.counts["failed"] == 2
    assert "flaky, after" in lab.ask("retry", row(report, "flaky").order)
    report = lab.resume()
    assert report.counts["landed"] == 2
    with pytest.raises(Refused, match="has not failed"):
        lab.ask("retry", row(report, "flaky").order)


async def test_requests_reach_a_living_controller(lab: Lab) -> None:
    slow = lab.prompt("slow", script(write("half.txt"), {"hang": True}))
    second = lab.prompt("second", script(write("second.txt")))
    floor, other = lab.floor(max_parallel=1), lab.floor()
    async with floor, other:
        running = asyncio.create_task(floor.run([slow, second]))
        await lab.agents_started(1)
        assert other.controller() is not None
        assert "nothing new" in await other.ask("pause")
        with pytest.raises(Conflict, match="already at work"):
            await other.run([second])
        (order,) = [r.order.id for r in (await other.board()).records.values() if r.order.name == "slow"]
        assert "is stopped" in await other.ask("stop", order)
        assert "started again" in await other.ask("resume")
        with pytest.raises(Refused, match="there is no order"):
            await other.ask("stop", "wo-nobody")
        report = await asyncio.wait_for(running, 30)
    assert (row(report, "slow").outcome, row(report, "slow").reason) == ("cancelled", "stopped")
    assert git(lab.repo, "show", f"{row(report, 'slow').branch}:half.txt") == "x"
    assert row(report, "second").outcome == "landed"


async def test_stop_keeps_what_runs_and_resume_goes_on(lab: Lab) -> None:
    done = lab.prompt("done", script(write("done.txt")), priority=0)
    slow = lab.prompt("slow", script(write("half.txt"), {"wait_s": 30}))
    floor = lab.floor(max_parallel=1)
    async with floor:
        running = asyncio.create_task(floor.run([done, slow]))
        await lab.agents_started(2)
        floor.stop("Ctrl-C")
        report = await asyncio.wait_for(running, 30)
    assert row(report, "slow").outcome == "waiting"
    assert row(report, "done").outcome in ("landed", "waiting")
    lab.prompt("slow", "unused")
    assert len(lab.seen(E.ASSIGNED)) == 2
    async with lab.floor(max_parallel=1) as again:
        resumed = asyncio.create_task(again.resume())
        await lab.agents_started(3)
        again.stop("enough")
        await asyncio.wait_for(resumed, 30)
    first = [e.data["work_order_id"] for e in lab.seen(E.ASSIGNED)]
    assert first.count(row(report, "done").order) == 1, "finished work was run again"
