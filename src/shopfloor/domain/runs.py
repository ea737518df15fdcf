"""Runs: what was asked for, where the target stands, and how busy the floor was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shopfloor.domain import values
from shopfloor.domain.events import E, Event, read_time
from shopfloor.domain.order import Reason

LIMIT_OF_RUN = "run:"
"""How the name of a run's limit begins, in front of its id."""
MOST_RED = 6
"""Red batches in a row that are remembered: so many green ones later all is as before."""


class Run(msgspec.Struct, kw_only=True):
    """One run: what was asked for, fixed when it started. Durations in seconds, money in USD."""

    id: str
    branch: str = ""
    ref: str = ""
    base: str = ""
    land: str = "auto"
    """``auto``, ``review`` (a person accepts) or ``off``"""
    checks: tuple[str, ...] = ()
    passed_on_base: tuple[str, ...] = ()
    """the project's checks that passed where the run began"""
    passed_at: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """the same for every commit that the target stood at since"""
    base_checked: bool = False
    agent: str = ""
    max_parallel: int = 1
    timeout_s: float | None = None
    silence_s: float | None = None
    budget_usd: float | None = None
    attempt_budget_usd: float | None = None
    record: str = ""
    """the file that takes down its model calls; empty: none"""
    replay: str = ""
    """the file that answers them; empty: models do"""
    exhausted: bool = False
    """a call was refused because of ``budget_usd``: what is left of it is too little to go on"""
    accounts: dict[str, str] = msgspec.field(default_factory=dict)
    """who pays for each agent's model calls; an agent that is not named pays for itself"""
    setup: str = ""
    orders: list[str] = msgspec.field(default_factory=list)
    started_at: float = 0.0
    finished_at: float | None = None
    sessions: int = 1
    """how many controllers worked on it"""
    controller: int = 0
    """generation of the newest of them"""
    limit: int = 0
    """orders admitted at once, as last changed; 0: never changed"""
    mirror: str = ""
    """where we last saw the user's branch"""
    mirror_why: str = ""
    """why the user's branch was left where it is"""
    landing_held: str = ""
    """why nothing lands before a person has looked; what was last landed by hand shows that one has"""
    tip: str = ""
    """where the target stood when we last saw it"""
    planned: dict[str, Any] = msgspec.field(default_factory=dict)
    """a landing that was begun: {merges, old, new, tree, ref, passed}"""
    moved_by_others: list[str] = msgspec.field(default_factory=list)
    session_at: float = 0.0
    """when the newest controller took it up"""
    last_at: float = 0.0
    """when that controller last did something for it"""
    earlier_s: float = 0.0
    """wall time of earlier controllers' sessions"""
    agents_at_work: set[str] = msgspec.field(default_factory=set)
    """``order:generation`` of each agent at work now"""
    checks_at_work: set[str] = msgspec.field(default_factory=set)
    """the same for verifications"""
    busy_since: float = 0.0
    busy_s: float = 0.0
    """wall time while at least one agent or verification was at work, up to when it last was idle"""
    check_s: float = 0.0
    """seconds that checks took, all added up"""
    peak: int = 0
    """the most agents at work at once"""
    held: dict[str, str] = msgspec.field(default_factory=dict)
    """agents with which this session starts nothing more, and why"""
    skipped_checks: bool = False
    """started with --no-check"""
    earlier_red: int = 0
    red: bool = False
    """whether the newest batch of landings was red"""
    flaky: dict[str, int] = msgspec.field(default_factory=dict)
    """checks that failed and passed on the same commit, and on how many commits they did"""
    profiles: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """the agents that could be chosen from, by name, without their variables"""

    def passed_on(self, commit: str) -> frozenset[str]:
        """The project's checks that passed on a commit of the target; of any other commit, those of the beginning.

        An order answers for what passed on its own base: what went green later is not its to keep green.
        """
        return frozenset(self.passed_at.get(commit, self.passed_on_base))

    def account_of(self, agent: str) -> str:
        """Who pays for an agent's model calls."""
        return self.accounts.get(agent, agent)

    @property
    def red_batches(self) -> int:
        """How many batches of landings in a row were red; each green one takes one back."""
        return min(MOST_RED, self.earlier_red + 1) if self.red else max(0, self.earlier_red - 1)

    @property
    def busy(self) -> bool:
        """True while an agent or a verification is at work."""
        return bool(self.agents_at_work or self.checks_at_work)


_ON_RESUME = (
    *("max_parallel", "budget_usd", "attempt_budget_usd", "timeout_s", "silence_s", "land", "agent", "accounts"),
    *("record", "replay"),
)
"""What may be changed when a run is taken up again."""
_AT_START = (
    *_ON_RESUME,
    *("branch", "ref", "base", "checks", "passed_on_base", "base_checked", "setup", "mirror", "tip"),
    *("skipped_checks", "profiles"),
)


def started(runs: dict[str, Run], event: Event) -> bool:
    """Begin a run, or take a known one up again; False when the line is malformed and changed nothing."""
    run_id, at = values.text(event.data, "run_id"), read_time(event.timestamp)
    wanted = {name: event.data[name] for name in _AT_START if name in event.data}
    try:
        fresh = msgspec.convert({**wanted, "id": run_id}, Run)
    except msgspec.ValidationError:
        return False
    if not run_id:
        return False
    run = runs.get(run_id)
    if run is None:
        run = runs[run_id] = fresh
        run.started_at = at
    else:
        _end_session(run)
        run.sessions += 1
        run.finished_at = None
        run.held = {}
        for name in _ON_RESUME:
            if name in wanted:
                setattr(run, name, getattr(fresh, name))
        if "budget_usd" in wanted:
            run.exhausted = False
    run.controller = event.sf.controller if event.sf else 0
    run.session_at = run.last_at = at
    return True


def follow(run: Run, event: Event, at: float, *, changed: bool) -> None:
    """Fold in an event of a controller, of this time; ``changed``: it changed the record of the order it speaks of."""
    kind, stamp = event.event_type, event.sf
    if at > run.last_at and run.finished_at is None and stamp is not None and stamp.controller == run.controller:
        run.last_at = at
    handler = _HANDLERS.get(kind)
    if handler is not None:
        handler(run, event.data, at)
    if kind in _TURNS:
        _take_turn(run, event, at, changed=changed)


def _take_turn(run: Run, event: Event, at: float, *, changed: bool) -> None:
    """Who is at work from now on, and who is not any more."""
    kind = event.event_type
    if kind in _BEGINS:
        if changed or not event.order_id:
            _begin(run, _BEGINS[kind](run), _key(event), at)
    elif kind == _ASSIGNED:
        if changed and event.data.get("call") is True:  # it is at work from its claim on
            _begin(run, run.agents_at_work, _key(event), at)
    elif kind in _ENDS:
        at_work, key = _ENDS[kind](run), _key(event)
        if key in at_work:
            _end(run, at_work, key, at)
            run.check_s += values.amount(event.data, "duration_s") or 0.0
    elif kind in _OVER and (key := _key(event)) in run.agents_at_work:
        _end(run, run.agents_at_work, key, at)  # of a call, told with the end of its order
    elif run.checks_at_work:
        # A verification that was stopped has no verdict: it ended with what was decided about its order.
        for left in [k for k in run.checks_at_work if k.startswith(f"{event.order_id}:")]:
            _end(run, run.checks_at_work, left, at)


def _key(event: Event) -> str:
    return f"{event.order_id}:{values.count(event.data, 'generation')}"


def _end_session(run: Run) -> None:
    """Close the books of a session that was cut off: it lasted until its controller was last heard of."""
    run.earlier_s += max(0.0, run.last_at - run.session_at)
    if run.busy:
        run.busy_s += max(0.0, run.last_at - run.busy_since)
    run.agents_at_work.clear()
    run.checks_at_work.clear()


# -- who is at work ---------------------------------------------------------------------------------------------


def _begin(run: Run, at_work: set[str], key: str, at: float) -> None:
    if not run.busy:
        run.busy_since = at
    at_work.add(key)
    run.peak = max(run.peak, len(run.agents_at_work))


def _end(run: Run, at_work: set[str], key: str, at: float) -> None:
    at_work.remove(key)
    if not run.busy:
        run.busy_s += max(0.0, at - run.busy_since)


def _agents(run: Run) -> set[str]:
    return run.agents_at_work


def _checks(run: Run) -> set[str]:
    return run.checks_at_work


_BEGINS: dict[str, Callable[[Run], set[str]]] = {E.AGENT_STARTED: _agents, E.VERIFY_STARTED: _checks}
_ENDS: dict[str, Callable[[Run], set[str]]] = {E.AGENT_STOPPED: _agents, E.VERIFY_VERDICT: _checks}
_OVER = frozenset({E.SETTLED, E.CLOSED})
_TURNS = frozenset({*_BEGINS, *_ENDS, E.ASSIGNED, E.RETRIED, *_OVER})
# Named here once: on CPython 3.11 naming a member of an enumeration takes longer than to compare it.
_ASSIGNED = E.ASSIGNED


# -- one function for each type of event ------------------------------------------------------------------------


def _finished(run: Run, _d: values.Data, at: float) -> None:
    if run.busy:
        run.busy_s += max(0.0, at - run.busy_since)
    run.agents_at_work.clear()
    run.checks_at_work.clear()
    run.finished_at = at


def _admission(run: Run, d: values.Data, _at: float) -> None:
    run.limit = values.count(d, "limit")


def _verify_test(run: Run, d: values.Data, _at: float) -> None:
    if d.get("flaky") is True:
        _flaked(run, values.text(d, "criterion"))


def _tested(run: Run, d: values.Data, _at: float) -> None:
    for command in values.texts(d, "flaky"):
        _flaked(run, command)


def _flaked(run: Run, command: str) -> None:
    run.flaky[command] = run.flaky.get(command, 0) + 1


def _landing_held(run: Run, d: values.Data, _at: float) -> None:
    # Nobody's fault that can be found: nothing lands before a person has looked.
    run.land, run.landing_held = "review", values.text(d, "why")


def _batch(run: Run, d: values.Data, _at: float) -> None:
    if not values.count(d, "place"):  # the first of its batch
        run.earlier_red, run.red = run.red_batches, False


def _refused(run: Run, d: values.Data, _at: float) -> None:
    run.red |= not d.get("again") and d.get("reason") == Reason.CHECKS


def _planned(run: Run, d: values.Data, _at: float) -> None:
    run.planned = dict(d)


def _landed(run: Run, d: values.Data, _at: float) -> None:
    run.tip = values.text(d, "observed") or run.tip
    if "passed" in d:
        run.passed_at[run.tip] = values.texts(d, "passed")
    run.planned, run.landing_held = {}, ""


def _target_moved(run: Run, d: values.Data, _at: float) -> None:
    run.tip = values.text(d, "to") or run.tip
    if "passed" in d:
        run.passed_at[run.tip] = values.texts(d, "passed")
    run.planned = {}
    if d.get("hold"):
        # Red through no work of ours: nothing lands on it before a person has looked.
        run.land, run.mirror_why = "review", values.text(d, "why")
    if d.get("by") != "shopfloor":
        run.moved_by_others.append(run.tip)


def _stopped(run: Run, d: values.Data, _at: float) -> None:
    run.exhausted |= d.get("outcome") == Reason.BUDGET and values.text(d, "limit").startswith(LIMIT_OF_RUN)


def _held(run: Run, d: values.Data, _at: float) -> None:
    run.held[values.text(d, "profile")] = values.text(d, "why")


def _mirror_advanced(run: Run, d: values.Data, _at: float) -> None:
    run.mirror, run.mirror_why = values.text(d, "to") or run.mirror, ""


def _mirror_held(run: Run, d: values.Data, _at: float) -> None:
    run.mirror_why = values.text(d, "why")


_HANDLERS: dict[str, Callable[[Run, values.Data, float], None]] = {
    E.RUN_FINISHED: _finished,
    E.ADMISSION: _admission,
    E.VERIFY_TEST: _verify_test,
    E.LANDING_STARTED: _batch,
    E.LANDING_TESTED: _tested,
    E.LANDING_REFUSED: _refused,
    E.LANDING_HELD: _landing_held,
    E.LANDING_PLANNED: _planned,
    E.LANDING_LANDED: _landed,
    E.TARGET_MOVED: _target_moved,
    E.AGENT_STOPPED: _stopped,
    E.AGENT_HELD: _held,
    E.MIRROR_ADVANCED: _mirror_advanced,
    E.MIRROR_HELD: _mirror_held,
}
