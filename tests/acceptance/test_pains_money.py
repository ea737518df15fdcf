"""What breaks in practice, 17 to 20: money and limits."""

import json

from .crew import RUN, agents_waiting, starts, watched
from .shop import Shop, until


def test_an_idle_floor_starts_nothing_and_spends_nothing(shop: Shop) -> None:
    """Pain 17: left alone for a night, an orchestrator spends hundreds of millions of tokens on watching itself."""
    with agents_waiting(shop, 20, side_by_side=2) as run:
        assert shop("pause").code == 0
        cost = shop("status", "--json").json["spent_usd"]
        before, after = watched(run, 4)
        assert starts(shop) == starts(shop)[:2]
        assert after.family == before.family
        assert after.ended == before.ended, "it started a process"
        assert after.cpu_s - before.cpu_s < 0.2, "a twentieth of a processor; the benchmark holds a hundredth"
        assert shop("status", "--json").json["spent_usd"] == cost


def test_a_terminal_error_is_not_paid_for_with_every_order(shop: Shop) -> None:
    """Pain 18: after the first error that says the quota is used up, 133 more agents start, and all is "completed"."""
    agent = shop.tool(
        "agent",
        """echo $name >> $there/called
        [ -e $there/gate ] && date > "$name.txt" && exit 0
        echo 'You have reached your usage limit. It resets at 3 am.' >&2; exit 1""",
    )
    names = [f"o{n:03}" for n in range(134)]
    said = shop(*RUN, "--agent", agent, "--max-parallel", "4", *shop.plain(*names))
    assert said.code == 1, said
    assert len(starts(shop)) <= 8, starts(shop)
    assert "134 orders: 134 waiting" in said.out
    assert "It resets at 3 am." in said.out.partition("134 orders")[2]
    assert "nothing more is started with agent" in shop("status").out
    shop.gate.touch()
    with shop.start("run", "--plain", "--resume") as again:
        for _ in range(3):
            again.until("landed as")
        assert shop("stop", "--cancel").code == 0
        again.end()


def test_resume_goes_on_with_what_is_left_and_repeats_nothing(shop: Shop) -> None:
    """Pain 19: a run that was cut off has lost a third of its finished tasks when it is resumed, and redoes them."""
    agent = shop.tool(
        "agent",
        """echo $name >> $there/called
        case $name in w*) while [ ! -e $there/gate ]; do sleep 0.02; done;; esac
        date > "$name.txt" """,
    )
    finished, waiting = [f"f{n}" for n in range(8)], [f"w{n}" for n in range(4)]
    with shop.start(*RUN, "--agent", agent, "--max-parallel", "4", *shop.plain(*finished, *waiting)) as run:
        for _ in finished:
            run.until("landed as")
        until(lambda: len(starts(shop)) == 12, "the others are at work")
        run.process.kill()
        run.end()
    shop.gate.touch()
    again = shop("run", "--plain", "--resume", "--json")
    assert again.code == 0, again
    assert again.json["counts"]["landed"] == 12
    assert {row["name"]: row["attempts"] for row in again.json["orders"]} == {
        **dict.fromkeys(finished, 1), **dict.fromkeys(waiting, 2)
    }  # fmt: skip
    assert sorted(starts(shop)) == sorted([*finished, *waiting, *waiting])


def test_a_budget_ends_what_runs_and_starts_nothing_more(shop: Shop) -> None:
    """Pain 20: budgets that are shown and stop nothing."""
    body = f'run = "while [ ! -e {shop.gate} ]; do sleep 0.02; done"'
    spender = shop.prompt("spender", "cost = 3.0", "hang = true")
    prompts = [shop.prompt(f"o{n}", body) for n in range(6)]
    said = shop(
        *RUN, "--agent", "scripted", "--budget", "2", "--max-parallel", "2", spender, *prompts,
    )  # fmt: skip
    assert said.code == 1, said
    assert "7 orders: 7 failed" in said.out
    assert said.out.count("started (attempt") == 2
    assert "the budget of 2 USD is spent" in said.out
    (cost,) = [line for line in said.out.splitlines() if line.startswith("cost: ")]
    assert "3.00" in cost


def test_a_budget_that_cannot_be_kept_is_refused(shop: Shop) -> None:
    """Pain 20: a budget for an agent whose spending cannot be seen is a promise that nobody keeps."""
    agent = shop.tool("agent", "echo $name >> $there/called")
    said = shop(*RUN, "--agent", agent, "--budget", "2", *shop.plain("one"), "--json")
    assert said.code == 4, said
    assert "cannot be seen" in json.dumps(said.json)
    assert starts(shop) == []
