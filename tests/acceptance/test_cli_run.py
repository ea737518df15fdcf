"""``run`` and what surrounds it: reports, signals, kill and resume, steering from another process."""

import signal
import subprocess

import pytest

from .shop import COMMAND, Shop, agents_alive, until

RUN = ("run", "--plain", "--agent", "scripted", "--no-check")


def test_a_run_lands_reports_and_exits_by_its_outcome(shop: Shop) -> None:
    good = shop.adds("good")
    after = shop.adds("after", head="depends_on: good")
    bad = shop.adds("bad")
    said = shop("run", good, after, bad, "--agent", "scripted", "--check", "test ! -e bad.txt")
    assert said.code == 1, said
    assert "3 orders: 2 landed, 1 failed" in said.out
    assert "check failed: test ! -e bad.txt" in said.out
    assert "main is there too" in said.out
    assert "shopfloor show bad" in said.out
    assert "\x1b" not in said.out
    assert shop.git("show", "main:after.txt") == "after"
    assert shop("run", shop.adds("more"), "--agent", "scripted", "--no-check").code == 0


def test_a_report_in_json_is_the_whole_answer(shop: Shop) -> None:
    said = shop("run", shop.adds("one"), "--agent", "scripted", "--no-check", "--json")
    assert said.code == 0, said
    report = said.json
    assert report["counts"]["landed"] == 1
    (row,) = report["orders"]
    assert row["name"] == "one"
    assert row["outcome"] == "landed"
    assert report["target"] == "refs/shopfloor/target/main"
    assert report["finished"] is True


def test_a_prompt_may_come_on_stdin(shop: Shop) -> None:
    text = '# From a pipe\n\n```script\n[[do]]\nwrite = "piped.txt"\n```\n'
    said = shop("run", "-", "--agent", "scripted", "--no-check", stdin=text)
    assert said.code == 0, said
    assert shop.git("ls-tree", "--name-only", "main", "piped.txt") == "piped.txt"


def test_a_command_line_becomes_an_agent_named_after_its_program(shop: Shop) -> None:
    said = shop("run", shop.adds("one"), "--agent", "sh -c 'cat > prompt.txt'", "--no-check", "--json")
    assert said.code == 0, said
    assert shop("status", "--json").json["orders"][0]["agent"] == "sh"
    assert "# Do one" in shop.git("show", "main:prompt.txt")


def test_a_run_without_landing_keeps_its_branches(shop: Shop) -> None:
    said = shop("run", shop.adds("one"), "--agent", "scripted", "--no-check", "--no-land")
    assert said.code == 0, said
    assert "1 verified" in said.out
    branch = shop("status", "--json").json["orders"][0]["branch"]
    assert branch in said.out
    assert shop.git("rev-list", "--count", "main") == "1"
    assert shop.git("show", f"{branch}:one.txt") == "one"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_stops_the_run_and_resume_goes_on(shop: Shop, number: signal.Signals, code: int) -> None:
    shop.configure()
    with shop.start("run", "--plain", shop.adds("quick"), shop.waits("slow")) as run:
        run.until("quick", "landed")
        run.until("slow", "started") if not any("slow" in line for line in run.lines) else None
        until(lambda: bool(agents_alive(shop)), "the agent lives")
        run.signal(number)
        run.until("stopping: agents are asked to end, their work is kept")
        said = run.end()
    assert said.code == code, said
    assert "1 landed, 1 waiting" in said.out
    assert "shopfloor run --resume" in said.out
    assert agents_alive(shop) == []
    shop.gate.touch()
    again = shop("run", "--resume", "--json")
    assert again.code == 0, again
    attempts = {row["name"]: row["attempts"] for row in again.json["orders"]}
    assert attempts == {"quick": 1, "slow": 2}


def test_a_second_signal_ends_it_at_once_and_leaves_no_agent(shop: Shop) -> None:
    with shop.start(*RUN, shop.hangs("deaf", stubborn=True)) as run:
        run.until("deaf", "started")
        until(lambda: (shop.root / ".worktrees").exists() and bool(agents_alive(shop)), "the agent lives")
        run.signal(signal.SIGINT)
        run.until("stopping")
        run.signal(signal.SIGINT)
        said = run.end()
    assert said.code == 130, said
    assert "deaf" not in said.out.rpartition("stopping")[2]
    until(lambda: agents_alive(shop) == [], "every agent has ended")


def test_a_signal_while_the_base_is_checked_starts_nothing(shop: Shop) -> None:
    check = f"touch {shop.gate}; sleep 100"
    with shop.start("run", "--plain", shop.adds("one"), "--agent", "scripted", "--check", check) as run:
        until(shop.gate.exists, "the check of the base runs")
        run.signal(signal.SIGINT)
        said = run.end()
    assert said.code == 130, said
    assert "stopped before anything was started" in said.out
    assert shop("status", "--json").json["run"] is None
    until(lambda: agents_alive(shop) == [], "the check has ended")


def test_a_killed_run_is_told_as_interrupted_and_resumed(shop: Shop) -> None:
    shop.configure()
    with shop.start("run", "--plain", shop.adds("quick"), shop.waits("slow")) as run:
        run.until("quick", "landed")
        until(lambda: shop.state("slow") == "running", "slow is at work")
        run.process.kill()
        assert run.end().code == 137
    assert shop.state("slow") == "interrupted"
    status = shop("status")
    assert "no controller is alive" in status.out
    assert "interrupted  slow" in status.out
    assert "next: shopfloor run --resume" in status.out
    assert "interrupted" in shop("show", "slow").out
    watching = shop("watch")
    assert watching.code == 1
    assert "go on with: shopfloor run --resume" in watching.err
    refused = shop("run", shop.adds("other"))
    assert refused.code == 4
    assert "shopfloor run --resume" in refused.err
    shop.gate.touch()
    again = shop("run", "--resume")
    assert again.code == 0, again
    assert "2 landed" in again.out
    assert shop("run", "--resume").code == 3


def test_a_run_is_steered_from_another_process(shop: Shop) -> None:
    shop.configure()
    prompts = [shop.waits("first"), shop.adds("second", head="depends_on: first"), shop.hangs("stuck")]
    with shop.start("run", "--plain", "--max-parallel", "2", *prompts) as run:
        until(lambda: shop("status").out.count("running  ") == 2, "two agents are at work")
        assert shop.state("second") == "waiting"
        assert "waits for first" in shop("status").out
        other = shop("run", shop.adds("other"))
        assert other.code == 5, other
        assert shop("pause").code == 0
        assert "paused" in shop("status").out
        shop.gate.touch()
        run.until("first", "landed")
        assert shop.state("second") == "ready"
        assert shop("resume").code == 0
        run.until("second", "landed")
        stopped = shop("stop", "stuck")
        assert stopped.code == 0, stopped
        assert "'stuck' is stopped" in stopped.out
        said = run.end()
    assert said.code == 1, said
    assert "2 landed, 1 cancelled" in said.out


def test_stop_ends_the_whole_run_and_cancel_gives_it_up(shop: Shop) -> None:
    shop.configure()
    with shop.start("run", "--plain", shop.hangs("one"), shop.hangs("two")) as run:
        until(lambda: shop("status").out.count("running  ") == 2, "two agents are at work")
        said = shop("stop", "--json")
        assert said.json["ok"] is True
        assert run.end().code == 1
    assert shop("stop", "--cancel").code == 0
    assert shop.state("one") == shop.state("two") == "cancelled"
    refused = shop("stop")
    assert refused.code == 4, refused


def test_retry_without_a_controller_goes_on_in_the_foreground(shop: Shop) -> None:
    shop.configure('check = "test -e README"')
    flaky = shop.prompt("flaky", f'run = "test -e {shop.gate} && echo x > flaky.txt"')
    follower = shop.adds("follower", head="depends_on: flaky")
    assert shop("run", flaky, follower).code == 1
    assert shop.state("follower") == "failed"
    shop.gate.touch()
    again = shop("retry", "flaky")
    assert again.code == 0, again
    assert "to be tried again: flaky, follower" in again.out
    assert "2 landed" in again.out


def test_what_waits_for_a_person_is_accepted_rejected_and_landed(shop: Shop) -> None:
    shop.configure()
    prompts = [shop.adds(name) for name in ("one", "two", "three", "four")]
    said = shop("run", "--review", *prompts)
    assert said.code == 0, said
    assert "4 verified" in said.out
    assert shop.git("ls-tree", "--name-only", "main", "one.txt") == ""
    assert shop("accept", "one").code == 0
    assert shop.git("show", "main:one.txt") == "one"
    assert shop("reject", "two").code == 0
    assert shop.state("two") == "cancelled"
    back = shop("reject", "three", "-m", "use another name")
    assert back.code == 0, back
    assert "go on with: shopfloor run --resume" in back.out
    assert shop.state("three") == "ready"
    assert shop("land").code == 0
    assert shop.state("four") == "landed"
    assert shop("accept", "four").code == 4


def test_a_question_is_shown_and_answered(shop: Shop) -> None:
    shop.configure()
    asks = shop.prompt("asks", 'ask = "Which port?"', 'write = "port.txt"')
    said = shop("run", asks)
    assert said.code == 1, said
    assert "asks: Which port?" in said.out.partition("1 order:")[2]
    assert 'shopfloor answer asks "…"' in said.out
    status = shop("status")
    assert '"Which port?"' in status.out
    assert "waits for an answer" in status.out
    answered = shop("answer", "asks", "80")
    assert answered.code == 0, answered
    again = shop("run", "--resume")
    assert again.code == 0, again
    assert "1 landed" in again.out
    assert shop("answer", "asks", "80").code == 4


@pytest.mark.parametrize("words", [("run",), ("status", "--all"), ("--help",), ("--version",), ("show", "one")])
def test_a_closed_pipe_is_silent_and_ends_no_run(shop: Shop, words: tuple[str, ...]) -> None:
    shop.configure()
    if words[0] == "run":
        words = (*words, shop.adds("one"), shop.adds("two"))
    else:
        assert shop("run", shop.adds("one")).code == 0
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=shop.root, env=shop.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(40) == 0
    if words[0] == "run":
        assert shop.state("one") == shop.state("two") == "landed"


def test_watch_follows_a_run_to_its_end(shop: Shop) -> None:
    shop.configure()
    with shop.start("run", "--plain", shop.waits("one"), shop.waits("two")) as run:
        run.until("started")
        with shop.start("watch", "--plain") as watch:
            watch.until("2 orders", "running")
            shop.gate.touch()
            watch.until("one", "landed")
            assert watch.end().code == 0
        assert run.end().code == 0
    assert "2 orders: 2 landed" in "\n".join(watch.lines)
    with shop.start("watch", "--json") as later:
        assert later.end().code == 0


def test_log_follows_an_agent_to_its_end(shop: Shop) -> None:
    shop.configure()
    talks = shop.prompt(
        "talks", 'say = "hello \\u001b[31mred"', f'run = "while [ ! -e {shop.gate} ]; do sleep 0.02; done"'
    )
    with shop.start("run", "--plain", talks) as run:
        run.until("talks", "started")
        with shop.start("log", "talks", "--follow") as log:
            line = log.until("hello")
            assert "\x1b" not in line
            shop.gate.touch()
            log.until("ended: completed")
            assert log.end().code == 0
        run.end()
    assert '"type": "thought"' in shop("log", "talks", "--raw").out
    entries = shop("log", "talks", "--json").json["entries"]
    assert entries[-1]["kind"] == "exited"
    assert shop("log", "talks", "--attempt", "7").code == 3


def test_a_retry_of_what_has_not_failed_says_what_to_type(shop: Shop) -> None:
    shop.configure()
    with shop.start("run", shop.waits("first"), shop.adds("second"), "--max-parallel", "1", "--plain") as run:
        run.until("first", "started")
        asked = {name: shop("retry", name) for name in ("first", "second")}
        assert shop("stop").code == 0
        run.end()
    asked["at rest"] = shop("retry", "second")
    assert {said.code for said in asked.values()} == {4}
    assert "it is running\n  see where it stands with: shopfloor show first\n" in asked["first"].err
    for case in ("second", "at rest"):
        said = "it is ready\n  it is started as soon as it can be; see where it stands with: shopfloor show second\n"
        assert said in asked[case].err, case
    assert "shopfloor run --resume" in shop("show", "second").out
