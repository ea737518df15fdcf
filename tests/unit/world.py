"""A scripted world around a floor: agents, checks and landings that end as their script says, in any order in time.

It does what an engine does with decisions (late, and mixed with noise, people, restarts and jumps of the wall clock),
and asserts after each fact what must hold at every moment.
"""

from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

import msgspec

from shopfloor.domain.events import E, Event
from shopfloor.domain.floor import Capacity, Floor
from shopfloor.domain.graph import overlap
from shopfloor.domain.judge import Decision, Hold, Land, Open, Retry, Settle, Start, Stop, Verify
from shopfloor.domain.order import Order, Reason, Record, State
from shopfloor.domain.policy import Policy
from shopfloor.domain.quota import LONGEST_GUESS_S, closing
from shopfloor.domain.situation import situation

from .events_of import RUN, Log

ENDS = ("good", "quota", "same", "error", "spawn", "timeout", "lost", "red", "unsure", "conflict", "again", "stopped")
PAYER = "cli"
"""The only agent of the world, which pays for itself."""
HOURS_6 = 6 * 3600.0


class Plot(msgspec.Struct, kw_only=True):
    """What happens in one world."""

    orders: list[Order]
    script: dict[str, list[str]]
    """how each attempt of an order ends; ``good`` when the list is over"""
    land: str = "auto"
    budget_usd: float | None = None
    seed: int = 0
    people: int = 0
    """how often a person does something"""
    restarts: int = 0
    jumps: int = 0
    late: list[Order] = []
    """orders that are created while the run goes on"""


class World:
    def __init__(self, plot: Plot) -> None:
        self.plot = plot
        self.random = Random(plot.seed)
        self.policy = Policy(backoff_s=8.0, backoff_cap_s=30.0, lost_retries=2, barren=2, batch=4)
        self.floor = Floor(self.policy)
        self.log = Log()
        self.people, self.restarts, self.jumps, self.late = plot.people, plot.restarts, plot.jumps, list(plot.late)
        self.todo: list[Decision] = []
        self.agents: dict[str, str] = {}
        """order -> how it will end"""
        self.checks: dict[str, int] = {}
        """order -> generation"""
        self.landing: tuple[str, ...] = ()
        self.under_way: dict[str, type[Decision]] = {}
        self.generations: dict[str, int] = {}
        self.ends: dict[str, int] = {}

    # -- the log ----------------------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        self.floor.apply(event, self.log.now)
        self.check_invariants()

    def say(self, kind: str, order: str = "", /, **data: Any) -> None:
        self.take(self.log.write(kind, order, **data))

    def record(self, order: str) -> Record:
        return self.floor.board.records[order]

    # -- the story --------------------------------------------------------------------------------------------------

    def play(self) -> Floor:
        self.take(self.log.write(E.CONTROLLER_STARTED, generation=1, of_run=None))
        self.say(
            E.RUN_STARTED, run_id=RUN, agent=PAYER, land=self.plot.land, budget_usd=self.plot.budget_usd, max_parallel=3
        )
        for order in self.plot.orders:
            self.take(self.log.create(order))
        self.floor.open(RUN, self.log.now)
        for _ in range(3000):
            if not self.move():
                return self.floor
        raise AssertionError("the run does not end")

    def move(self) -> bool:
        self.decide(self.random.randrange(4))
        choices: list[Callable[[], None]] = []
        if self.todo:
            choices += [self.perform] * 4
        if self.agents:
            choices += [self.agent_ends, self.agent_ends, self.agent_reports]
        if self.checks:
            choices += [self.check_ends] * 2
        if self.landing:
            choices += [self.landing_ends] * 2
        for left, act in ((self.people, self.person), (self.jumps, self.jump), (len(self.late), self.come_late)):
            choices += [act] * bool(left)
        if self.restarts and self.random.random() < 0.1:
            choices = [self.restart]
        elif not choices:
            return self.wait_or_end()
        elif self.random.random() < 0.2:
            choices = [self.noise]
        self.log.pass_time(self.random.choice([0.0, 0.001, 1.0, 5.0]))
        self.random.choice(choices)()
        return True

    def wait_or_end(self) -> bool:
        """Nothing happens by itself any more: the floor must be waiting for a time, for a person, or be finished."""
        self.same_after_replay()
        self.decide(3)
        if self.todo:
            return True
        due = self.floor.next_timer()
        if due is not None:
            assert not self.floor.finished or self.floor.board.accounts
            self.log.pass_time(max(0.0, due - self.log.awake) + 0.001)
            return True
        if self.floor.board.paused and not self.floor.finished:
            self.say(E.HANDLED, verb="resume", result="ok")
            return True
        asking = [o for o, r in self.floor.board.records.items() if r.state is State.ASKING]
        if asking:
            assert self.floor.finished
            self.say(E.RETRIED, self.random.choice(asking), kind="manual", findings="the answer")
            return True
        if self.floor.board.runs[RUN].held:
            assert self.floor.finished
            self.restart()  # a person has mended the agent, and goes on
            return True
        assert self.floor.finished, [situation(self.floor, r) for r in self.floor.board.records.values()]
        return False

    def decide(self, starts: int) -> None:
        room = Capacity(
            starts=starts,
            checks=max(0, 2 - len(self.checks) - sum(isinstance(d, Verify) for d in self.todo)),
            landing=not self.floor.landing,
        )
        over = self.floor.over_budget
        found = self.floor.decide(self.log.now, room)
        begun = [d for d in found if isinstance(d, Start)]
        assert len(begun) <= room.starts
        assert not (begun and (over or self.floor.board.paused))
        payer = self.floor.board.accounts.get(PAYER)
        assert not (begun and payer is not None and payer.closed), "started on a closed account"
        assert sum(isinstance(d, Verify) for d in found) <= room.checks
        for decision in found:
            for order in _orders(decision):
                self.handed_out(order, decision)
            self.todo.append(decision)
        self.check_invariants()

    def handed_out(self, order: str, decision: Decision) -> None:
        kind, record = self.under_way.get(order), self.record(order)
        assert kind is None or (kind is Verify and isinstance(decision, Settle) and record.stopping), (order, decision)
        self.under_way[order] = type(decision)
        if isinstance(decision, Start):
            assert record.state is State.READY
            assert not record.live
            assert decision.generation > self.generations.get(order, 0)
            assert decision.generation > record.generation
            assert all(self.delivered(need) for need in record.order.depends_on)
        if isinstance(decision, Stop):
            assert record.live

    def delivered(self, need: str) -> bool:
        record = self.floor.board.records.get(need)
        off = self.plot.land == "off"
        return record is None or record.state is State.DONE or (off and record.state is State.VERIFIED)

    # -- performing -------------------------------------------------------------------------------------------------

    def perform(self) -> None:
        decision = self.todo.pop(self.random.randrange(len(self.todo)))
        match decision:
            case Start(order, generation):
                self.start(order, generation)
            case Stop(order, reason):
                if order in self.agents and self.random.random() < 0.8:
                    self.agents[order] = reason.value
            case Verify(order):
                generation = self.record(order).generation
                self.say(E.VERIFY_STARTED, order, generation=generation)
                self.checks[order] = generation
            case Land(orders):
                for place, order in enumerate(orders):
                    self.say(E.LANDING_STARTED, order, generation=self.record(order).generation, place=place)
                self.landing = orders
            case Retry(order, kind, delay_s, _, findings):
                self.under_way.pop(order, None)
                more = {"generation": self.record(order).generation, "findings": findings}
                self.say(E.RETRIED, order, kind=kind, delay_s=delay_s, **more)
            case Open(account):
                self.say(E.ACCOUNT_OPENED, account=account)
            case Hold(agent, why):
                self.say(E.AGENT_HELD, profile=agent, why=why)
            case Settle(order, outcome, reason, message):
                self.under_way.pop(order, None)
                self.ends[order] = self.ends.get(order, 0) + 1
                self.say(E.SETTLED, order, outcome=outcome, reason=reason, message=message)

    def start(self, order: str, generation: int) -> None:
        self.under_way.pop(order, None)
        self.generations[order] = generation
        self.say(E.ASSIGNED, order, generation=generation, attempt=f"{order}.a{generation}", base="b0", branch="br")
        self.say(E.AGENT_STARTED, order, generation=generation)
        script = self.plot.script.get(order, [])
        self.agents[order] = script.pop(0) if script else "good"

    def agent_reports(self) -> None:
        order = self.random.choice(list(self.agents))
        kind = self.random.choice([E.AGENT_USAGE, E.AGENT_ASKED, E.AGENT_WORKING, E.AGENT_IDLE, E.WORKSPACE])
        cost = self.random.choice([None, 0.1, 0.2])
        self.say(kind, order, generation=self.record(order).generation, cost_usd=cost, steps=1, question="?")

    def agent_ends(self) -> None:
        order = self.random.choice(list(self.agents))
        how = self.agents.pop(order)
        outcome = how if how in set(Reason) - {Reason.CONFLICT} else "completed"
        data = {"outcome": outcome, "base": "b0", "transient": how in ("error", "spawn"), "cost_usd": 0.1}
        if how != "spawn":
            data["commit"] = "b0" if how == "same" else f"c{self.record(order).generation}"
        if self.under_way.get(order) is Stop:
            self.under_way.pop(order)
        closes = closing(
            self.floor.board.accounts.get(PAYER), claimed_at=self.record(order).attempts[-1].claimed_at,
            reset_at=self.log.wall + self.random.choice([20.0, 90.0]) if self.random.random() < 0.7 else None,
            wall=self.log.wall,
        ) if how == "quota" else None  # fmt: skip
        if how in ("red", "unsure", "conflict", "again"):
            self.plot.script.setdefault(order, []).insert(0, how)
        self.say(E.AGENT_STOPPED, order, generation=self.record(order).generation, **data)
        if closes is not None:
            self.say(E.ACCOUNT_CLOSED, account=PAYER, why="nothing left", **closes)

    def next_word(self, order: str, words: tuple[str, ...]) -> str:
        """What the script says next, if it is one of these."""
        script = self.plot.script.get(order, [])
        return script.pop(0) if script and script[0] in words else ""

    def check_ends(self) -> None:
        order = self.random.choice(list(self.checks))
        generation = self.checks.pop(order)
        word = {"red": "FAIL", "unsure": "UNSURE"}.get(self.next_word(order, ("red", "unsure")), "PASS")
        if self.under_way.get(order) is Verify:
            self.under_way.pop(order)
        data = {"verdict": word, "commit": f"c{generation}", "duration_s": 1.0, "reasoning": "what was found"}
        self.say(E.VERIFY_VERDICT, order, generation=generation, **data)

    def landing_ends(self) -> None:
        orders, self.landing = self.landing, ()
        for order in orders:
            if self.under_way.get(order) is Land:
                self.under_way.pop(order)
            data: dict[str, Any] = {"generation": self.record(order).generation}
            match self.next_word(order, ("conflict", "again")):
                case "conflict":
                    reason = self.random.choice(["conflict", "checks"])
                    self.say(E.LANDING_REFUSED, order, reason=reason, message="not on top of the others", **data)
                case "again":
                    self.say(E.LANDING_REFUSED, order, again=True, **data)
                case _:
                    self.say(E.LANDING_LANDED, order, commit=f"m-{order}", observed=f"m-{order}", **data)

    # -- what others do ---------------------------------------------------------------------------------------------

    def person(self) -> None:
        self.people -= 1
        order = self.random.choice(list(self.floor.board.records))
        record = self.record(order)
        at_rest = self.floor.board.open_orders
        run = self.floor.run
        assert run is not None
        match self.random.choice(["pause", "resume", "stop", "stop", "retry", "accept", "reject"]):
            case "retry" if record.state in (State.FAILED, State.CANCELLED):
                self.ends[order] = 0
                self.say(E.RETRIED, order, generation=record.generation, kind="manual", delay_s=0.0)
            case "reject" if record.state is State.VERIFIED and record not in at_rest(run):
                self.say(E.RETRIED, order, generation=record.generation, kind="manual", findings="no")
            case "accept" if record.state is State.VERIFIED and record not in at_rest(run):
                self.say(E.HANDLED, order, verb="accept", result="ok")
            case "stop":
                self.say(E.HANDLED, order, verb="stop", result="ok")
            case "pause" | "resume" as verb:
                self.say(E.HANDLED, verb=verb, result="ok")

    def jump(self) -> None:
        """Somebody sets the wall clock; a sleeping machine wakes up."""
        self.jumps -= 1
        self.log.wall += self.random.choice([HOURS_6, -HOURS_6])
        self.check_invariants()

    def come_late(self) -> None:
        self.take(self.log.create(self.late.pop(0)))

    def noise(self) -> None:
        """Lines that change nothing."""
        order = self.random.choice(list(self.floor.board.records))
        record = self.record(order)
        before = msgspec.json.encode(record)
        kind = self.random.choice(
            [E.SETTLED, E.VERIFY_VERDICT, E.AGENT_STOPPED, E.RETRIED, E.LANDING_LANDED, E.ASSIGNED]
        )
        data = {"outcome": "done", "verdict": "PASS", "kind": "manual", "commit": "x"}
        match self.random.randrange(4):
            case 0:
                self.take(self.log.write(kind, order, stamped=False, generation=record.generation, **data))
            case 1:
                self.say(kind, order, generation=record.generation - 1, **data)
            case 2:
                self.say("somebody.elses", order, **data)
            case 3:
                self.say(E.REQUEST, order, verb="stop")
        assert msgspec.json.encode(record) == before

    def restart(self) -> None:
        """The controller was killed; the next one knows only the log."""
        self.restarts = max(0, self.restarts - 1)
        self.todo.clear()
        self.agents.clear()
        self.checks.clear()
        self.under_way.clear()
        self.log.controller += 1
        self.log.awake = self.random.choice([0.0, 1e6])
        self.floor = Floor(self.policy)
        self.floor.load(self.log.events)
        self.say(E.CONTROLLER_STARTED, generation=self.log.controller, of_run=None)
        self.say(E.RUN_STARTED, run_id=RUN)
        self.floor.open(RUN, self.log.now)
        for order in self.plot.orders + self.plot.late:
            record = self.floor.board.records.get(order.id)
            if record is not None and record.live:
                self.say(E.AGENT_STOPPED, order.id, generation=record.generation, outcome="lost", message="killed")
        orders, self.landing = self.landing, ()
        if self.random.random() < 0.5:
            for name in orders:
                self.say(E.LANDING_LANDED, name, commit=f"m-{name}", observed=f"m-{name}")

    # -- what must hold ---------------------------------------------------------------------------------------------

    def check_invariants(self) -> None:
        records = self.floor.board.records
        for order, record in records.items():
            assert sum(not a.outcome for a in record.attempts) == record.live
            generations = [a.generation for a in record.attempts]
            assert generations == sorted(set(generations))
            assert self.ends.get(order, 0) <= 1
        starting = {d.order for d in self.todo if isinstance(d, Start)}
        running = [r.order for o, r in records.items() if r.live or o in starting]
        for n, one in enumerate(running):
            for other in running[:n]:
                assert not any(overlap(f, g) for f in one.files for g in other.files), (one.id, other.id)
        if self.floor.run is not None:
            assert self.floor.live == {o for o, r in records.items() if r.live}
        due = self.floor.next_timer()
        longest = LONGEST_GUESS_S if self.floor.board.accounts else self.policy.backoff_cap_s
        assert due is None or due <= self.log.awake + longest

    def same_after_replay(self) -> None:
        """A floor that knows only the log sees the same, and decides the same where no clock plays a part."""
        if self.under_way:
            return
        again = Floor(self.policy)
        again.load(self.log.events)
        again.open(RUN, self.log.now)
        assert again.board.records == self.floor.board.records
        assert again.board.runs == self.floor.board.runs
        assert again.board.requests == self.floor.board.requests
        assert again.spent_usd == self.floor.spent_usd
        doubtful = any("seen to work" in situation(self.floor, r)[1] for r in again.board.records.values())
        if not doubtful and self.floor.next_timer() is None and again.next_timer() is None:
            room = Capacity(starts=1000, checks=1000, landing=True)
            copy = deepcopy(self.floor)
            ours, theirs = (f.decide(self.log.now, room) for f in (copy, again))
            if self.plot.late:  # who is created late stands elsewhere among those born in the same millisecond
                ours.sort(key=repr)
                theirs.sort(key=repr)
            assert ours == theirs
            assert again.finished == copy.finished
            for record in self.floor.board.records.values():
                assert situation(again, record) == situation(copy, record)


def _orders(decision: Decision) -> tuple[str, ...]:
    if isinstance(decision, Hold | Open):
        return ()
    return decision.orders if isinstance(decision, Land) else (decision.order,)
