"""Prompt files as work orders: Markdown or text, with optional front matter between two lines ``---``.

Nothing in the text is changed. Every problem of every file is found before one error tells them all.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

import msgspec

from shopfloor.config import values as v
from shopfloor.domain.errors import UsageError
from shopfloor.domain.names import one_line, printable, slug
from shopfloor.domain.order import Deliverable
from shopfloor.prompts.frontmatter import Entry, parse, split

LARGEST_BYTES = 10_000_000
MOST_PROBLEMS = 50
"""of one file that are looked for, and told: who made so many will not read more"""
TITLE_CHARS = 200
PRIORITIES = {"critical": 0, "high": 1, "medium": 2, "low": 3, "backlog": 4}
_HALF = re.compile(r"[\ud800-\udfff]")
TYPES = ("task", "bug", "feature", "epic", "merge-request", "chore")


class PromptOrder(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an order needs but its id, its run and its time; ``depends_on`` has names."""

    name: str
    title: str
    instruction: str
    deliverable: Deliverable = Deliverable.CHANGE
    depends_on: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    priority: int = 2
    agent: str = ""
    timeout_s: float | None = None
    budget_usd: float | None = None
    allow_no_changes: bool = False
    issue_type: str = "task"
    source: str = ""
    """the file as given; empty: it came as text"""
    metadata: dict[str, Any] = {}
    """for its agent or for other programs, beside its words: a JSON object"""


class _Draft:
    """One prompt while it is read: where it came from, what it says, what is off, on which line it waits for what."""

    def __init__(self, source: str, stem: str) -> None:
        self.source = source
        self.stem = stem
        self.name = ""
        self.fields: dict[str, object] = {}
        self.waits: list[tuple[str, int]] = []
        self.problems: list[tuple[int, str]] = []

    def problem(self, what: str, line: int = 0) -> None:
        self.problems.append((line, what))

    def told(self) -> list[str]:
        """Its problems as ``file:line: what``, in the order of the lines; line 0 is the whole file."""
        where = _shown(self.source) or "text"
        told = [f"{where}:{line}: {what}" if line else f"{where}: {what}" for line, what in sorted(self.problems)]
        return [*told[:MOST_PROBLEMS], f"{where}: mend these first, there may be more"] if self.hopeless else told

    @property
    def hopeless(self) -> bool:
        """True when there is no sense in looking for more that is off."""
        return len(self.problems) >= MOST_PROBLEMS


def read_prompts(
    paths: Sequence[str | os.PathLike[str]],
    *,
    agents: Collection[str] | None = None,
    known: Collection[str] = (),
) -> list[PromptOrder]:
    """Every file as an order, in the order given.

    ``agents`` are the names an order may choose from (None: any), ``known`` names or ids of orders that are there
    already and may be waited for. Raises UsageError that lists every problem as ``file:line: what``.
    """
    if not paths:
        raise UsageError("no prompt file was given", hint="type shopfloor run FILE.md [FILE.md …]")
    drafts: list[_Draft] = []
    again: list[_Draft] = []
    seen: dict[str, str] = {}
    for given in paths:
        path = os.fspath(given)
        draft = _Draft(path, PurePath(path).stem)
        place = path if "\0" in path else os.path.realpath(path)
        if place in seen:
            draft.problem(f"is given twice (as {_shown(seen[place])} before)")
            again.append(draft)
            continue
        seen[place] = path
        drafts.append(draft)  # also when it is unreadable: others may wait for it
        text = _read(draft)
        if text is not None:
            _understand(draft, text, agents)
    _name(drafts)
    _resolve(drafts, known)
    problems = [told for draft in (*drafts, *again) for told in draft.told()]
    if problems:
        files = "prompt file" if len(paths) == 1 else "prompt files"
        what = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UsageError(f"{what} in {len(paths)} {files}; nothing was started:{listed}")
    return [_order(draft) for draft in drafts]


def order_from_text(
    text: str, *, name: str = "", known: Collection[str] = (), agents: Collection[str] | None = None
) -> PromptOrder:
    """One order from a text, which may have front matter. Raises UsageError that names each line that is off."""
    if not isinstance(text, str):
        raise UsageError(f"an order is a text, not {type(text).__name__}")
    if len(text) > LARGEST_BYTES:
        raise UsageError(f"the text has {len(text)} characters; at most {LARGEST_BYTES} are taken")
    if (half := _HALF.search(text)) is not None:
        line = text.count("\n", 0, half.start()) + 1
        raise UsageError(f"text:{line}: has half of a character, U+{ord(half[0]):04X}: it cannot be written as UTF-8")
    draft = _Draft("", "")
    _understand(draft, text, agents)
    body = str(draft.fields.get("instruction", ""))
    title = str(draft.fields.get("title", "")) or one_line(name, TITLE_CHARS) or _first_words(body)
    draft.fields["title"] = title
    draft.name = slug(name or title)
    _resolve([draft], known)
    if draft.problems:
        raise UsageError("\n".join(draft.told()))
    return _order(draft)


def _order(draft: _Draft) -> PromptOrder:
    fields = {"title": one_line(draft.stem, TITLE_CHARS), **draft.fields}
    return msgspec.convert({**fields, "name": draft.name, "source": draft.source}, PromptOrder)


def _first_words(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "order")
    return one_line(line, 60)


def _shown(path: str) -> str:
    """A path in a message: as it is, or quoted where it could forge a line or its own name."""
    return path if path.isprintable() else repr(path)


# -- one file -----------------------------------------------------------------------------------------------------


def _read(draft: _Draft) -> str | None:
    """The text of a file, or None and a problem."""
    try:
        problem = _unfit(draft.source)
        if problem is None:
            raw = Path(draft.source).read_bytes()
            if len(raw) <= LARGEST_BYTES:
                return raw.decode("utf-8-sig")
            problem = f"has more than {LARGEST_BYTES // 1_000_000} MB"  # it grew meanwhile
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}; save it as UTF-8"
    except OSError as error:
        problem = f"cannot be read: {os.strerror(error.errno or 0).lower()}"
    draft.problem(problem)
    return None


def _unfit(path: str) -> str | None:
    """Why this is no prompt file, found without reading it. Raises OSError."""
    if v.has_controls(path):
        return "the name contains a control character; rename it"
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        near = _near(path)
        return f"there is no such file{near}"
    if stat.S_ISDIR(status.st_mode):
        return f"is a folder; name the files in it, e.g. {path.rstrip('/')}/*.md"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_size > LARGEST_BYTES:
        return f"has {status.st_size} bytes; more than {LARGEST_BYTES // 1_000_000} MB is no prompt"
    return None


def _near(path: str) -> str:
    """``; did you mean …?`` for a file beside it that has a similar name."""
    folder = PurePath(path).parent
    try:
        names = [path.name for path in Path(folder).iterdir() if not v.has_controls(path.name)]
    except OSError:
        return ""
    return v.closest(PurePath(path).name, names)


def _understand(draft: _Draft, text: str, agents: Collection[str] | None) -> None:
    """Fill the draft from the text; what is off becomes a problem."""
    parts = split(text)
    if parts is None:
        draft.problem("the front matter is not closed: end it with a line that is only ---", 1)
        return
    head, body = parts
    entries, problems = parse(head)
    draft.problems += problems
    for entry in entries:
        if draft.hopeless:
            break
        _take(draft, entry, agents)
    if not body.strip():
        draft.problem("is empty: write what is to be done", text.count("\n") + 1)
    draft.fields["instruction"] = body
    heading = _heading(body)
    if "title" not in draft.fields and heading:
        draft.fields["title"] = heading


def _take(draft: _Draft, entry: Entry, agents: Collection[str] | None) -> None:
    """Read one line of front matter."""
    if entry.key not in KEYS:
        listed = ", ".join(sorted(KEYS))
        near = v.closest(entry.key, KEYS)
        draft.problem(f"there is no key {printable(entry.key, 60)!r}{near} (there are {listed})", entry.line)
        return
    field, read = KEYS[entry.key]
    try:
        value = read(entry)
        if field == "agent" and agents is not None:
            v.choice(*sorted(agents))(value)
    except ValueError as error:
        shown = printable(repr(entry.value), 80)
        draft.problem(f"{entry.key} = {shown}: it must be {error}", entry.line)
        return
    if field == "depends_on":
        names = [value] if isinstance(value, str) else value if isinstance(value, tuple) else ()
        draft.waits = list(zip(names, entry.lines, strict=False))
    else:
        draft.fields[field] = value


def _heading(body: str) -> str:
    """The text of the first ``# `` heading that is not in a fenced block, or an empty string."""
    fence = ""
    for line in body.splitlines():
        found = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if found and not fence:
            fence = found[1]
        elif found and found[1].startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
        elif not fence and (title := _title_in(line)):
            return one_line(title, TITLE_CHARS)
    return ""


def _title_in(line: str) -> str:
    """The text of a ``# heading #``, or an empty string."""
    begin = re.match(r" {0,3}#[ \t]", line)
    text = line[begin.end() :].strip() if begin else ""
    bare = text.rstrip("#")
    return bare.strip() if bare.endswith((" ", "\t")) else text


# -- the keys -----------------------------------------------------------------------------------------------------


def _scalar(read: Callable[[object], object]) -> Callable[[Entry], object]:
    def reader(entry: Entry) -> object:
        if isinstance(entry.value, list):
            raise ValueError("one value, not a list")  # noqa: TRY004 - a reader raises nothing else
        return read(entry.value)

    return reader


def _list(read: Callable[[object], str]) -> Callable[[Entry], object]:
    """A list; one value counts as a list of one."""

    def reader(entry: Entry) -> object:
        items = entry.value if isinstance(entry.value, list) else [entry.value]
        return tuple(read(item) for item in items)

    return reader


def _priority(value: object) -> int:
    word = str(value).lower()
    if word in PRIORITIES:
        return PRIORITIES[word]
    if re.fullmatch(r"p?[0-4]", word):
        return int(word[-1])
    raise ValueError(f"0 to 4, P0 to P4, or one of {', '.join(PRIORITIES)}{v.closest(word, PRIORITIES)}")


def _truth(value: object) -> bool:
    word = str(value).lower()
    if word in ("true", "false"):
        return word == "true"
    raise ValueError("true or false")


def _title(value: object) -> str:
    text = one_line(str(value), TITLE_CHARS)
    if not text:
        raise ValueError("a text that is not empty")
    return text


KEYS: dict[str, tuple[str, Callable[[Entry], object]]] = {
    "title": ("title", _scalar(_title)),
    "depends_on": ("depends_on", _list(v.line)),
    "files": ("files", _list(v.inside)),
    "checks": ("checks", _list(v.shell)),
    "priority": ("priority", _scalar(_priority)),
    "agent": ("agent", _scalar(v.line)),
    "timeout": ("timeout_s", _scalar(v.duration)),
    "budget": ("budget_usd", _scalar(v.money)),
    "allow_no_changes": ("allow_no_changes", _scalar(_truth)),
    "deliverable": ("deliverable", _scalar(v.choice(*(kind.value for kind in Deliverable)))),
    "type": ("issue_type", _scalar(v.choice(*TYPES))),
}


# -- all files together -------------------------------------------------------------------------------------------


def _name(drafts: Iterable[_Draft]) -> None:
    """Give each draft the slug of its stem, which people call the order by; two files of one stem are refused.

    Different stems may come to the same slug (all of its letters may be none of ours): those are numbered.
    """
    stems: dict[str, _Draft] = {}
    taken: set[str] = set()
    for draft in drafts:
        first = stems.setdefault(draft.stem.casefold(), draft)
        if first is not draft:
            draft.problem(f"has the same name as {_shown(first.source)}: rename one of them")
        base = slug(draft.stem)
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name)
        draft.name = name


def _resolve(drafts: list[_Draft], known: Collection[str]) -> None:
    """Turn what each draft waits for into names."""
    index: dict[str, list[_Draft]] = {}
    for draft in drafts:
        for word in {
            _key(text) for text in (draft.name, draft.stem, PurePath(draft.source).name, draft.source) if text
        }:
            index.setdefault(word, []).append(draft)
    for draft in drafts:
        found: dict[str, None] = {}
        for word, line in draft.waits:
            if draft.hopeless:
                break
            matches = index.get(_key(word), [])
            if not matches and word in known:
                found[word] = None
            elif not matches:
                near = v.closest(word, {other.stem for other in drafts if other is not draft} | set(known))
                draft.problem(f"waits for {printable(word, 60)!r}, which is not there{near}", line)
            elif matches == [draft]:
                draft.problem(f"waits for itself ({printable(word, 60)!r})", line)
            elif len(matches) > 1:
                several = ", ".join(_shown(match.source) for match in matches)
                draft.problem(f"waits for {printable(word, 60)!r}, which may be {several}; write the path", line)
            else:
                found[matches[0].name] = None
        draft.fields["depends_on"] = tuple(found)


def _key(word: str) -> str:
    """A name or a path as it is compared: case does not count, nor ``./``."""
    return os.path.normpath(word).casefold()
