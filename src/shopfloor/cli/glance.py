"""What ``status`` says, made from plain values, so that the index and the log give the same words.

Imports nothing heavy: the fast start answers with it in a few milliseconds.
"""

from shopfloor.cli.words import clean, count, duration, few, fit, money, table

SHOWN = 20
"""Orders that are listed one by one."""
MOST_WISHES = 5
"""Wishes of other programs that are listed."""

RANK = ("asking", "failed", "running", "checking", "landing", "verified", "ready", "cancelled", "done")
"""Stored states, what needs a person first."""

COUNTED = (
    *("landed", "answered", "unchanged", "verified", "running", "asking", "checking", "landing"),
    *("interrupted", "ready", "waiting", "failed", "cancelled"),
)
AT_WORK = ("running", "asking", "checking", "landing")
FINAL = ("done", "failed", "cancelled")
NO_RUN = "no run yet; start one with: shopfloor run prompts/*.md"


class Seen:
    """One order as plain values; times are wall seconds, ``needs`` names what it waits for."""

    def __init__(self, name: str, state: str) -> None:
        self.name = name
        self.state = state
        self.reason = ""
        self.message = ""
        self.question = ""
        self.progress = ""
        """what its running agent said last about how far it is"""
        self.merge = ""
        self.answer = False
        self.attempts = 0
        self.since: float | None = None
        self.idle_since: float | None = None
        self.session = ""
        """name and pid of the session that holds it: a process that is no agent of ours"""
        self.session_lives = True
        self.goes_on = False
        """its agent works in a terminal of its own, which needs no controller"""
        self.gateway = False
        """that one reaches its models through the gateway, which needs one"""
        self.outcome = ""
        """of its newest attempt; empty while that runs"""
        self.wakes_in_s = 0.0
        """how long it still waits before it is tried again"""
        self.needs: list[str] = []
        self.held = ""
        """its agent, when nothing more is started with that"""
        self.account = ""
        """its account, when that has nothing left, or is tried with another order first"""
        self.holder = ""
        """what works on a file that it needs"""
        self.title = ""
        self.aside = ""
        """the status with which an order of no run was set aside"""
        self.taken = ""
        """who has it in another program, or the status that it has there"""
        self.wishes: list[tuple[str, str]] = []
        """field and value of what other programs wanted and did not get"""


class Glance:
    """One run as plain values; ``rows`` are the first ones by rank, ``counts`` all of them by the state shown."""

    def __init__(self) -> None:
        self.run = ""
        self.branch = ""
        self.land = "auto"
        self.alive = False
        self.pid = 0
        self.paused = False
        self.finished_at: float | None = None
        self.started_at = 0.0
        self.last_at = 0.0
        self.open = 0
        """orders that are not at rest"""
        self.mail = 0
        """messages that wait for a person"""
        self.spent: float | None = None
        self.budget: float | None = None
        self.mirror_why = ""
        self.closed: list[tuple[str, float, str, bool]] = []
        """accounts with nothing left: name, when they open (0.0: are tried now), why, and whether that was told"""
        self.held: list[str] = []
        """why nothing more is started with an agent, or landed"""
        self.counts: dict[str, int] = {}
        self.rows: list[Seen] = []
        self.loose: list[Seen] = []
        """orders of no run that have not ended"""


def session_word(name: str, pid: int) -> str:
    """How a session is named to people."""
    return f"{name} (pid {pid})"


def shown(seen: Seen, *, alive: bool) -> str:
    """The state as people read it: no agent works on an order whose controller is gone, a session may."""
    if seen.state == "asking" and seen.outcome:
        return "asking"  # its agent has ended with the question, so that the answer starts a new attempt
    if seen.state in AT_WORK and not (seen.session_lives if seen.session else alive or seen.goes_on):
        return "interrupted"
    if seen.aside:
        return seen.aside
    if seen.state == "ready" and (
        seen.taken or seen.needs or seen.held or seen.account or seen.holder or seen.wakes_in_s > 0
    ):
        return "waiting"
    if seen.state == "done":
        return "landed" if seen.merge else "answered" if seen.answer else "unchanged"
    return seen.state


def why(seen: Seen, glance: Glance, now: float) -> str:
    """What is to be said about it in one line, without its state."""
    state = shown(seen, alive=glance.alive)
    if state == "interrupted":
        if seen.session:
            return f"attempt {seen.attempts} was held by {clean(seen.session)}, which has ended"
        doing = {"checking": "being checked", "landing": "being landed"}.get(seen.state, seen.state)
        return f"attempt {seen.attempts} was {doing}; its controller is gone"
    if state == "asking":
        return f'"{clean(seen.question)}"'
    if state == "running":
        return _running(seen, now, alive=glance.alive)
    if state in ("checking", "landing"):
        return f"attempt {seen.attempts}"
    if state == "waiting":
        return _waiting(seen)
    if state == "verified":
        return {"review": "waits to be accepted", "off": "is not landed by this run"}.get(glance.land, "")
    if state in ("failed", "cancelled"):
        return clean(seen.message or seen.reason)
    return clean(seen.question or seen.message) if seen.aside else ""


def _running(seen: Seen, now: float, *, alive: bool) -> str:
    words = [f"attempt {seen.attempts}"]
    if seen.outcome:
        return f"{words[0]} has ended, waits to be checked"
    words.append("starting" if seen.since is None else duration(now - seen.since))
    if seen.goes_on:
        words.append("in its terminal")
        if seen.gateway and not alive:
            words.append("cut off from its models until a controller is back")
    if seen.session:
        words.append(f"held by {clean(seen.session)}")
    if seen.idle_since is not None:
        words.append(f"silent since {duration(now - seen.idle_since)}")
    if seen.progress:
        words.append(clean(seen.progress))
    return ", ".join(words)


def advice(name: str, state: str) -> str:
    """What to type when another program wants something of an order that it does not get."""
    return {
        "ready": f"shopfloor show {clean(name)}",
        "verified": f"shopfloor accept {clean(name)}, or shopfloor reject {clean(name)}",
        "failed": f"shopfloor retry {clean(name)}",
        "cancelled": f"shopfloor retry {clean(name)}",
        "done": f"shopfloor show {clean(name)}",
    }.get(state, f"shopfloor stop {clean(name)}, if it is to end")


def _collided(rows: list[Seen]) -> list[str]:
    """What other programs want of the orders that have not ended."""
    found = [
        f"another program wants {clean(field)} = {clean(value, 40)} of {clean(seen.name)}, which was not followed: "
        f"{advice(seen.name, seen.state)}"
        for seen in rows
        for field, value in seen.wishes
    ]
    more = [f"and {len(found) - MOST_WISHES} more: shopfloor doctor"] if len(found) > MOST_WISHES else []
    return ["", *found[:MOST_WISHES], *more] if found else []


def _waiting(seen: Seen) -> str:
    if seen.taken:
        return f"is worked on in another program: {clean(seen.taken)}"
    if seen.needs:
        return f"waits for {few([clean(name) for name in sorted(seen.needs)], 5)}"
    if seen.held:
        return f"nothing more is started with {clean(seen.held)}"
    if seen.account:
        return f"waits for account {clean(seen.account)}"
    if seen.wakes_in_s > 0:
        return f"is tried again in {duration(seen.wakes_in_s)}"
    return f"waits for a file that {clean(seen.holder)} works on"


def text(glance: Glance, *, now: float, width: int = 0, limit: int = SHOWN) -> str:
    """The whole answer. ``width`` in columns, 0: nothing is cut; ``limit`` of 0 lists every order there is a row of."""
    cut = (lambda line: fit(line, width)) if width else str
    if not glance.run:
        starting = f"a controller is at work (pid {glance.pid}), and has not begun a run yet"
        lines = [starting] if glance.alive else [] if glance.loose else [NO_RUN]
        return "\n".join(cut(line) for line in [*lines, *_beside(glance, now, limit)])
    total = sum(glance.counts.values())
    counted = ", ".join(f"{glance.counts[name]} {name}" for name in COUNTED if glance.counts.get(name))
    lines = [_headline(glance, now), f"{count(total, 'order')}: {counted}" + _spent(glance)]
    listed = [seen for seen in glance.rows if seen.state != "done" or not limit]
    rows = [
        (shown(seen, alive=glance.alive), clean(seen.name), why(seen, glance, now))
        for seen in (listed[:limit] if limit else listed)
    ]
    left = total - len(rows) - (glance.counts.get("landed", 0) if limit else 0)
    left -= (glance.counts.get("answered", 0) + glance.counts.get("unchanged", 0)) if limit else 0
    lines += ["", *table(rows)] if rows else []
    lines += [f"  and {left} more: shopfloor status --all"] if left > 0 else []
    if glance.open:
        lines += ["", *(closed_word(*one, now=now) for one in glance.closed)] if glance.closed else []
    for reason in glance.held:
        lines += ["", clean(reason)]
    if glance.mirror_why and not glance.alive:
        lines += ["", f"{clean(glance.branch)} was left alone: {clean(glance.mirror_why)}"]
    lines += ["", *_beside(glance, now, limit)] if glance.loose else []
    lines += _collided(glance.rows)
    if glance.mail:
        lines += ["", f"{count(glance.mail, 'message')} for you: shopfloor inbox"]
    following = _following(glance)
    lines += ["", f"next: {following}"] if following else []
    return "\n".join(cut(line) for line in lines)


def _beside(glance: Glance, now: float, limit: int) -> list[str]:
    """Orders of no run that have not ended: how many stand where, and the first of them."""
    words = [shown(seen, alive=glance.alive) for seen in glance.loose]
    if not words:
        return []
    counted = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    rows = [
        (word, clean(seen.name), clean(seen.title, 60), why(seen, glance, now))
        for word, seen in zip(words, glance.loose, strict=True)
    ][: limit or None]
    left = len(words) - len(rows)
    more = [f"  and {left} more: shopfloor status --all"] if left else []
    return [f"{count(len(words), 'order')} of no run: {counted}", *table(rows), *more]


def closed_word(name: str, opens_at: float, why: str, told: bool, *, now: float) -> str:  # noqa: FBT001 - plain values
    """That nothing is started on an account, until when, and what its answer said."""
    if not opens_at:
        return f"account {name!r} is tried again with one order: {clean(why)}"
    about = "" if told else "about "
    when = clock(opens_at) + (f" (in {about}{duration(opens_at - now)})" if opens_at > now else "")
    return f"account {clean(name)!r} is closed until {about}{when}: {clean(why)}"


def clock(at: float) -> str:
    """Local time of day, with the date where that is another day; dashes for what is no time."""
    import time  # the fast start has it already

    try:
        there, today = time.localtime(at), time.localtime()
        return time.strftime("%H:%M:%S" if there[:3] == today[:3] else "%Y-%m-%d %H:%M", there)
    except (OverflowError, ValueError, OSError):
        return "--:--:--"


def _headline(glance: Glance, now: float) -> str:
    who = clean(glance.run) + (f" on {clean(glance.branch)}" if glance.branch else "")
    if not glance.alive and glance.open and glance.open == glance.counts.get("asking"):
        return f"{who}: waits for an answer, no controller is alive"
    if glance.finished_at is not None and not glance.open:
        return f"{who}: finished {duration(now - glance.finished_at)} ago"
    if not glance.open and not glance.alive:
        return f"{who}: ended {duration(now - glance.last_at)} ago"
    if glance.alive:
        paused = ", paused: nothing new is started" if glance.paused else ""
        return f"{who}: at work for {duration(now - glance.started_at)} (pid {glance.pid}){paused}"
    how = "interrupted" if glance.counts.get("interrupted") else "stopped"
    return f"{who}: {how}, no controller is alive; last heard of {duration(now - glance.last_at)} ago"


def _spent(glance: Glance) -> str:
    if glance.spent is None:
        return ""
    return f"; {money(glance.spent)}" + (f" of {money(glance.budget)}" if glance.budget is not None else "")


def _following(glance: Glance) -> str:
    states: dict[str, str] = {}
    for seen in glance.rows:
        states.setdefault(shown(seen, alive=glance.alive), clean(seen.name))
    if "asking" in states:
        return f'shopfloor answer {states["asking"]} "…"'
    if glance.open and not glance.alive:
        return "shopfloor run --resume"
    if "failed" in states:
        return f"shopfloor show {states['failed']}"
    if "verified" in states and glance.land == "review":
        return f"shopfloor diff {states['verified']}, then shopfloor accept {states['verified']}, or shopfloor land"
    if glance.alive:
        return "shopfloor watch"
    return ""
