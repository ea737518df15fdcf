"""What breaks in practice, 17 to 20: money and limits."""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from shopfloor.domain.events import read_time
from shopfloor.testing.model import Model

from .crew import RUN, agents_waiting, data_of, events, starts, watched
from .shop import Running, Shop, agents_alive, until


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


USD_A_CALL = 1000 * 3e-6 + 50 * 15e-6
"""What one answer of the scripted model costs: 1000 tokens in, 50 out, at the price of the model that is asked for."""


def through_the_gateway(shop: Shop, model: Model, **agents: str) -> None:
    """Agents by name with the accounts that pay for them; all accounts are at the scripted model."""
    lines = []
    for name, account in agents.items():
        lines += [f"[agents.{name}]", 'driver = "scripted"', f'account = "{account}"']
        lines += [f"[gateway.accounts.{account}]", 'dialect = "anthropic"', f'url = "{model.url}"']
    shop.write(".shopfloor.toml", "\n".join(lines))
    shop.commit("settings")


def ledger(shop: Shop) -> list[dict[str, Any]]:
    lines = (shop.root / ".work" / "ledger.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_three_endless_agents_stop_at_their_budget(shop: Shop) -> None:
    """Pain 20: three agents that never end under one budget of $0.02, and orders that wait behind them."""
    endless = [shop.prompt(f"endless{n}", f'write = "w{n}.txt"', "model_call = 0") for n in range(3)]
    queued = [shop.adds(f"queued{n}") for n in range(3)]
    with Model() as model:
        through_the_gateway(shop, model, caller="lab")
        said = shop(*RUN, "--agent", "caller", "--budget", "0.02", "--max-parallel", "3", *endless, *queued, "--json")
        forwarded = len(model.requests())
    assert said.code == 1, said
    orders = {row["name"]: row for row in said.json["orders"]}
    assert {row["reason"] for row in orders.values()} == {"budget"}
    assert [orders[f"queued{n}"]["attempts"] for n in range(3)] == [0, 0, 0]
    assert [orders[f"endless{n}"]["attempts"] for n in range(3)] == [1, 1, 1]
    calls = ledger(shop)
    sent = [call for call in calls if not call.get("refused")]
    refused = [call["at"] for call in calls if call.get("refused") == "budget"]
    assert len(sent) == forwarded
    assert refused
    assert not [call for call in sent if call["at"] > min(refused)], "a call was forwarded after the limit"
    assert sum(call["cost_usd"] for call in sent) <= 0.02 + 1e-9
    assert said.json["cost_usd"] == pytest.approx(forwarded * USD_A_CALL)
    for n in range(3):
        assert shop.git("show", f"{orders[f'endless{n}']['branch']}:w{n}.txt") == "", "its work was not kept"


def test_an_agent_on_the_gateway_keeps_no_limit_by_prices_of_its_own(shop: Shop) -> None:
    """Pain 20: an agent that takes its model for a dearer one ends itself, with most of the budget left."""
    agent = shop.tool("claude", 'echo "$@" > $there/argv-$name; exit 1')
    with Model() as model:
        for name, account in (("alone", ""), ("routed", 'account = "lab"\n')):
            shop.write(
                ".shopfloor.toml",
                f'retries = 0\n[agents.{name}]\ndriver = "claude_code"\ncommand = "{agent}"\n{account}'
                f'[gateway.accounts.lab]\ndialect = "anthropic"\nurl = "{model.url}"\n',
            )
            shop.commit("settings")
            never = {} if account else {"SHOPFLOOR_USE_GATEWAY": "never"}
            shop(*RUN, "--agent", name, "--budget", "2", *shop.plain(name), env=never)
    words = {name: (shop.root.parent / f"argv-{name}").read_text() for name in ("alone", "routed")}
    assert {name: "--max-budget-usd" in told for name, told in words.items()} == {"alone": True, "routed": False}


def test_a_used_up_quota_closes_the_account_and_everything_goes_on_at_the_stated_time(shop: Shop) -> None:
    """Pain 18: after the first error that says the quota is used up nothing is started any more; at the stated
    hour all goes on by itself, and what was finished is not done again."""
    names = [f"o{n:02}" for n in range(20)]
    easy = [shop.adds(name) for name in names[:6]]
    asking = [
        shop.prompt(name, f'write = "{name}.txt"', 'model_call = 1\ntext = "[[script quota]]"') for name in names[6:]
    ]
    used_up = {
        "status": 429, "for_s": 6, "message": "You have reached your usage limit",
        "headers": {"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": "{reset}"},
    }  # fmt: skip
    with Model({"quota": [{"text": "ok", "fail": used_up}]}) as model:
        through_the_gateway(shop, model, caller="lab")
        with shop.start(*RUN, "--agent", "caller", "--max-parallel", "4", *easy, *asking) as run:
            run.until("account 'lab' is closed until")
            assert "account 'lab' is closed until" in shop("status").out
            run.end()
    report = shop("status", "--all", "--json").json
    assert [order["state"] for order in report["orders"]] == ["landed"] * 20
    (closed,) = data_of(shop, "account.closed")
    assert len(events(shop, "account.opened")) == 1
    assert closed["why"] == "You have reached your usage limit"
    log = list(map(json.loads, (shop.root / ".work" / "events.jsonl").read_text().splitlines()))
    kinds = [event["event_type"] for event in log]
    first, last = kinds.index("account.closed"), kinds.index("account.opened")
    assert "work_order.assigned" not in kinds[first:last], "something was started on a closed account"
    begun = next(event for event in log[last:] if event["event_type"] == "work_order.assigned")
    assert 0 <= read_time(begun["timestamp"]) - read_time(closed["reset_at"]) <= 5.0
    assert kinds.count("work_order.retried") <= 4, "no more than were at work can have met with it"
    assert {data["kind"] for data in data_of(shop, "work_order.retried")} == {"quota"}
    tries = {order["name"]: order["attempts"] for order in report["orders"]}
    assert [tries[name] for name in names[:6]] == [1] * 6
    assert sum(tries.values()) == 20 + kinds.count("work_order.retried")


def test_work_that_was_cut_off_goes_on_in_its_session_with_what_it_had_done(shop: Shop) -> None:
    """Pain 19: agent or floor is killed in the middle of a command; the next attempt goes on where it was."""
    wait = f'run = "while [ ! -e {shop.gate} ]; do sleep 0.02; done"'
    prompts = []
    for name in ("agent", "floor"):
        path = Path(
            shop.prompt(
                name, f'write = "{name}-1.txt"', wait, f"run = 'printf %s \"$SCRIPTED_SESSION\" > {name}-session.txt'"
            )
        )
        path.write_text(path.read_text().replace("```script\n", '```script\nsession = "known"\n'))
        prompts.append(str(path))
    with shop.start(*RUN, "--agent", "scripted", *prompts) as run:
        until(lambda: len(list(shop.root.glob(".worktrees/*/*-1.txt"))) == 2, "both have written something")
        until(lambda: len({data["session"] for data in data_of(shop, "agent.usage")}) == 2, "both told their session")
        (killed,) = [data for data in data_of(shop, "agent.started") if data["agent"].endswith("/agent")]
        os.kill(killed["handle"]["pid"], signal.SIGKILL)
        run.until("agent", "started (attempt 2)")
        run.process.kill()
        run.end()
    shop.gate.touch()
    again = shop("run", "--plain", "--resume", "--json")
    assert again.code == 0, again
    assert agents_alive(shop) == []
    told = [data for data in data_of(shop, "agent.usage") if data["session"]]
    sessions = {data["agent"].rpartition("/")[2]: data["session"] for data in told}
    for name, attempts in (("agent", 3), ("floor", 2)):
        (row,) = [row for row in again.json["orders"] if row["name"] == name]
        assert (row["outcome"], row["attempts"]) == ("landed", attempts)
        assert shop.git("show", f"main:{name}-session.txt") == sessions[name]
        claims = [data for data in data_of(shop, "work_order.assigned") if data["agent"].endswith(f"/{name}")]
        assert [data.get("session", "") for data in claims] == ["", *[sessions[name]] * (attempts - 1)]
        assert all("onto" in data for data in claims[1:])


def test_a_session_that_is_not_known_any_more_costs_one_start(shop: Shop) -> None:
    """Pain 19: what resumes trusts a session that its agent has forgotten, and fails for it."""
    path = Path(shop.prompt("o", 'crash = "SIGKILL"'))
    path.write_text(path.read_text().replace("```script\n", '```script\nsession = "forgotten"\n'))
    said = shop(*RUN, "--agent", "scripted", str(path), env={"SHOPFLOOR_RETRIES": "1"})
    assert said.code == 1, said
    assert [data["kind"] for data in data_of(shop, "work_order.retried")] == ["transient", "afresh"]
    assert "did not take its session" in said.out
    assert [bool(data.get("session")) for data in data_of(shop, "work_order.assigned")] == [False, True, False]


def gateways(run: Running) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(run.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found += [process] if "shopfloor.gateway" in process.cmdline() else []
    return found


def test_a_gateway_that_dies_is_started_again_and_forgets_no_money(shop: Shop) -> None:
    """Pain 20: a gateway that is killed is there again, no order fails for it, and what was spent still counts."""
    wait = f'run = "while [ ! -e {shop.gate} ]; do sleep 0.02; done"'
    prompt = shop.prompt("o", "model_call = 2", 'write = "o.txt"', wait, "model_call = 1")
    with Model() as model:
        through_the_gateway(shop, model, caller="lab")
        with shop.start(*RUN, "--agent", "caller", "--budget", "1", prompt) as run:
            until(lambda: len(list(shop.root.glob(".worktrees/*/o.txt"))) == 1, "two calls are made")
            until(lambda: len(ledger(shop)) == 2, "they are written down")
            (before,) = gateways(run)
            before.kill()
            until(lambda: before.pid not in {p.pid for p in gateways(run)} and bool(gateways(run)), "it is back")
            shop.gate.touch()
            run.until("o", "landed as")
            assert run.end().code == 0
        made = len(model.requests())
    # An agent that asks again is answered by the next one; one that does not is lost, which costs it none of its tries.
    assert [data["kind"] for data in data_of(shop, "work_order.retried")] in ([], ["lost"])
    (order,) = shop("status", "--all", "--json").json["orders"]
    assert order["cost_usd"] == pytest.approx(made * USD_A_CALL)


def test_what_was_spent_before_a_kill_and_never_reached_the_log_is_found_in_the_ledger(shop: Shop) -> None:
    """Pain 20: the log has what an attempt spends once a second; the calls between that and a kill are not lost."""
    later = shop.gate.with_name("later")
    first, second = (f'run = "while [ ! -e {gate} ]; do sleep 0.02; done"' for gate in (shop.gate, later))
    prompt = shop.prompt("o", first, "model_call = 5", second, 'write = "o.txt"')
    with Model() as model:
        through_the_gateway(shop, model, caller="lab")
        with shop.start(*RUN, "--agent", "caller", "--budget", "1", prompt) as run:
            run.until("o", "started (attempt 1)")
            run.signal(signal.SIGSTOP)  # from here on the floor hears nothing of its gateway
            shop.gate.touch()
            until(lambda: (shop.root / ".work/ledger.jsonl").exists() and len(ledger(shop)) == 5, "five calls are made")
            run.process.kill()
            run.end()
        assert not [data for data in data_of(shop, "agent.usage") if data["cost_usd"]]
        for _ in range(2):  # whoever comes first takes it in, and nobody after that counts it again
            assert shop("accept", "o").code == 4
            (order,) = shop("status", "--all", "--json").json["orders"]
            assert order["cost_usd"] == pytest.approx(5 * USD_A_CALL)
        later.touch()
        again = shop("run", "--plain", "--resume", "--json")
        made = len(model.requests())
    assert again.code == 0, again
    assert again.json["cost_usd"] == pytest.approx(made * USD_A_CALL)
    assert made == 10


def test_the_budgets_of_an_order_and_of_an_attempt_are_kept_by_the_gateway(shop: Shop) -> None:
    """Pain 20: each limit stops the one that it is for, before the call that would pass it, and nobody else."""
    dear = shop.prompt("dear", "model_call = 0", head="budget: 0.005")
    endless = shop.prompt("endless", "model_call = 0")
    cheap = shop.prompt("cheap", "model_call = 1", 'write = "cheap.txt"')
    with Model() as model:
        through_the_gateway(shop, model, caller="lab")
        said = shop(
            *RUN, "--agent", "caller", dear, endless, cheap, "--json", env={"SHOPFLOOR_ATTEMPT_BUDGET": "0.009"}
        )
        forwarded = len(model.requests())
    orders = {row["name"]: row for row in said.json["orders"]}
    assert {name: row["reason"] for name, row in orders.items()} == {
        "dear": "budget",
        "endless": "budget",
        "cheap": "",
    }
    assert {name: row["attempts"] for name, row in orders.items()} == {"dear": 1, "endless": 1, "cheap": 1}
    calls = {"dear": 1, "endless": 2, "cheap": 1}
    for name, made in calls.items():
        assert orders[name]["cost_usd"] == pytest.approx(made * USD_A_CALL)
    assert forwarded == sum(calls.values())
    refused = {call["order"]: call["limit"] for call in ledger(shop) if call.get("refused")}
    ids = {name: orders[name]["order"] for name in ("dear", "endless")}
    assert refused == {ids["dear"]: f"order:{ids['dear']}", ids["endless"]: f"attempt:{ids['endless']}.a1"}


def test_another_account_and_model_take_over_and_nobody_waits(shop: Shop) -> None:
    """Pain 18: where another account is named, a used-up quota is no reason to stop."""
    error = {"status": 402, "message": "Your credit balance is too low"}
    prompts = [
        shop.prompt(f"o{n}", 'model_call = 2\ntext = "[[script asks]]"', f'write = "o{n}.txt"') for n in range(3)
    ]
    used_up, full = {"text": "ok", "fail": {**error, "for_s": 600}}, {"text": "ok"}
    with Model({"asks": [used_up]}) as empty, Model({"asks": [full]}) as spare:
        through_the_gateway(shop, empty, caller="lab")
        more = ['spill = ["spare"]', "[gateway.accounts.spare]", 'dialect = "anthropic"', f'url = "{spare.url}"']
        more += ['models = { "*" = "claude-haiku-4-5" }']
        settings = (shop.root / ".shopfloor.toml").read_text()
        shop.write(".shopfloor.toml", "\n".join([settings, *more]))
        shop.commit("another account")
        said = shop(*RUN, "--agent", "caller", *prompts, "--json")
        asked = len(empty.requests())
    assert said.code == 0, said
    assert said.json["counts"]["landed"] == 3
    assert not events(shop, "account.closed")
    assert 1 <= asked <= 3, "an account that has nothing left is not asked again"
    calls = ledger(shop)
    assert {(call["account"], call["model"]) for call in calls} == {("spare", "claude-haiku-4-5")}
    assert said.json["cost_usd"] == pytest.approx(sum(call["cost_usd"] for call in calls))
