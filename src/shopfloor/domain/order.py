"""Work orders and what became of them: frozen wishes, and the records that the fold keeps of them.

What is kept by the ten thousand is not looked through for circles of references (``gc=False``): there can be none.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class State(StrEnum):
    """Where an order stands. ``waiting`` and ``ready`` are derived from the plan and never stored."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    ASKING = "asking"
    CHECKING = "checking"
    VERIFIED = "verified"
    LANDING = "landing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({State.DONE, State.FAILED, State.CANCELLED})
FINISHED = frozenset({State.DONE, State.CANCELLED})
"""Nobody is needed for it any more; one that failed waits for a person."""
AT_WORK = frozenset({State.RUNNING, State.ASKING, State.CHECKING, State.LANDING})


class Reason(StrEnum):
    """Why an attempt or an order ended as it did: data on an outcome, not a state."""

    TIMEOUT = "timeout"
    BUDGET = "budget"
    QUOTA = "quota"
    CONFLICT = "conflict"
    CHECKS = "checks"
    NO_CHANGES = "no_changes"
    LOST = "lost"
    SPAWN = "spawn"
    ERROR = "error"
    DEPENDENCY = "dependency"
    STOPPED = "stopped"
    REJECTED = "rejected"
    AUTH = "auth"
    """its agent's login or key was refused: no new try mends that"""
    CLOSED = "closed"
    """another program closed it, without evidence"""


_REASONS: dict[object, Reason] = {reason.value: reason for reason in Reason}


def reason_of(value: object) -> Reason | None:
    """The reason that a logged value names, if any."""
    return _REASONS.get(value) if isinstance(value, str) else None


class Deliverable(StrEnum):
    """What an order hands back: a ``change`` is verified and landed, an ``answer`` is neither."""

    CHANGE = "change"
    ANSWER = "answer"


class Order(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One wish. Times are wall seconds since the epoch, durations are seconds, money is USD."""

    id: str
    name: str
    title: str
    instruction: str = ""
    deliverable: Deliverable = Deliverable.CHANGE
    depends_on: tuple[str, ...] = ()
    """ids of orders that must be delivered first"""
    files: tuple[str, ...] = ()
    """paths or folders it expects to touch; two orders that share one never run side by side"""
    checks: tuple[str, ...] = ()
    """shell commands of its own; each must exit 0 in a clean checkout"""
    priority: int = 2
    """0 critical … 4 backlog"""
    agent: str = ""
    """profile name; empty: the run's default"""
    timeout_s: float | None = None
    budget_usd: float | None = None
    """what all of its attempts together may cost; None: no limit but the run's"""
    allow_no_changes: bool = False
    issue_type: str = "task"
    source: str = ""
    """the prompt file it came from, as given"""
    run: str = ""
    created_at: float = 0.0
    created_by: str = "human"
    labels: tuple[str, ...] = ()
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    """what other programs wrote beside all this, as they wrote it: unknown keys, ``metadata``, ``dependencies``"""

    @property
    def metadata(self) -> dict[str, Any]:
        """What it was given beside its words, for its agent or for other programs; not to be changed."""
        found = self.extra.get("metadata")
        return found if isinstance(found, dict) else {}


class Attempt(msgspec.Struct, kw_only=True, gc=False):
    """One try of one order by one agent in one workspace."""

    id: str
    generation: int
    agent: str
    claimed_at: float
    claimed_seq: int = 0
    """sequence of the change that claimed it: who was first, whatever the clocks say"""
    started_at: float | None = None
    ended_at: float | None = None
    workspace: str = ""
    branch: str = ""
    base: str = ""
    handle: dict[str, object] = msgspec.field(default_factory=dict)
    profile: str = ""
    """the agent that works on it"""
    account: str = ""
    """who pays for its model calls"""
    session: str = ""
    """the agent's own, once it has told it"""
    resumed: str = ""
    """the session it was to go on with; empty: it began afresh"""
    onto: str = ""
    """the commit whose work it goes on from; empty: its base"""
    outcome: str = ""
    """empty while it runs; then ``completed`` or a :class:`Reason`"""
    message: str = ""
    transient: bool = False
    """it failed in a way that another try may mend"""
    exit_code: int | None = None
    commit: str = ""
    tree: str = ""
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """what a person should know: kept nested repositories, ignored files that are not kept …"""
    cost_usd: float | None = None
    """None: unpriced, which is not the same as 0"""
    said_usd: float | None = None
    """what the agent itself said, where the gateway has seen what it cost"""
    tokens_in: int = 0
    tokens_out: int = 0
    steps: int = 0
    idle_since: float | None = None
    progress: str = ""
    """the newest line that its agent said about how far it is"""
    call: bool = False
    """it is a call: no process, no workspace, nothing that could go on without its controller"""
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    """small facts that came with its end: which server, how long each step took"""
    done: str | None = None
    """what its agent said when it asked for verification; None: it has not. It makes nothing done"""

    @property
    def worked(self) -> bool:
        """True when it ended with more than it began with."""
        return self.commit not in ("", self.onto or self.base)

    @property
    def begun_at(self) -> float | None:
        """Since when it is at work: a call from its claim on, everything else from the start of its agent."""
        return self.claimed_at if self.call else self.started_at


class Said(msgspec.Struct, frozen=True, gc=False):
    """One piece of what was said between people and an order's agents. ``kind``: asked, answered, steered or mail."""

    at: float
    kind: str
    who: str
    text: str


class Collision(msgspec.Struct, frozen=True, gc=False):
    """A wish of another program that was not followed: which field, and the value it wanted, as JSON."""

    field: str
    theirs: str


class Record(msgspec.Struct, kw_only=True, gc=False):
    """What became of an order: the fold of its events."""

    order: Order
    state: State = State.READY
    """stored as READY until claimed; the plan tells waiting from ready"""
    generation: int = 0
    attempts: list[Attempt] = msgspec.field(default_factory=list)
    reason: Reason | None = None
    message: str = ""
    question: str = ""
    permission: bool = False
    """the question is whether its agent may do something: answered by yes or no"""
    answer: str = ""
    """to the question, as long as its agent has not got it"""
    talk: list[Said] = msgspec.field(default_factory=list)
    """the newest of what was said, the oldest first"""
    findings: str = ""
    """what the next attempt is told about the last one"""
    reworks: int = 0
    """how often it went back with findings (checks, conflict, a person's words)"""
    failures: int = 0
    """how often it was retried after a transient failure"""
    lost: int = 0
    """how often an attempt was lost with its controller or guard"""
    sent_back: str = ""
    """how it became ready again: the kind of its newest retry; empty once it is claimed"""
    retry_at: float | None = None
    """wall time at which it was sent back; it is not started again before ``retry_delay_s`` have passed"""
    retry_delay_s: float = 0.0
    commit: str = ""
    """the verified commit"""
    tree: str = ""
    base: str = ""
    """what the verified commit was made on"""
    verdict: str = ""
    evidence: str = ""
    passed: tuple[str, ...] = ()
    """every check that passed on the verified commit"""
    verifications: int = 0
    """how often its newest commit was verified"""
    accepted: bool = False
    stopping: bool = False
    """a person wants it to end"""
    merge: str = ""
    """the commit that landed it"""
    created_seq: int = 0
    updated_at: float = 0.0
    settled_at: float | None = None
    elsewhere: str = ""
    """the status that another program gave it when it took it: ``assigned``, ``in_progress`` or a word of its own"""
    assignee: str = ""
    """whom another program assigned it to"""
    collisions: list[Collision] = msgspec.field(default_factory=list)
    """what other programs wanted and did not get, each told once"""

    @property
    def taken(self) -> bool:
        """True while another program has it: it is not started here."""
        return bool(self.elsewhere or self.assignee)

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt, or None."""
        return self.attempts[-1] if self.attempts else None

    @property
    def live(self) -> bool:
        """True while an attempt of it is claimed and not ended."""
        return bool(self.attempts) and not self.attempts[-1].outcome

    @property
    def cost_usd(self) -> float | None:
        """Sum over all attempts in USD; None when no attempt reported a price."""
        if not self.attempts:
            return None
        known = [a.cost_usd for a in self.attempts if a.cost_usd is not None]
        return sum(known) if known else None
