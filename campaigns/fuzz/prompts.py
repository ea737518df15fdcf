"""What people write: prompt files, their front matter, settings in files and variables, files of a project."""

from __future__ import annotations

import re
import tomllib

import msgspec

from campaigns.fuzz import corpus
from campaigns.fuzz.mutate import NASTY, Mutator
from campaigns.fuzz.target import READ, REFUSED, Target, harmless, holds
from campaigns.fuzz.views import folder, put
from shopfloor.app.intake import make_orders
from shopfloor.config.load import load
from shopfloor.config.proposal import proposal
from shopfloor.config.settings import FILE, SETTINGS, Settings
from shopfloor.domain.board import creation, fold
from shopfloor.domain.errors import UsageError
from shopfloor.domain.events import E, Stamp
from shopfloor.prompts import PromptOrder, order_from_text, read_prompts
from shopfloor.prompts.frontmatter import parse, split
from shopfloor.stores.codec import decode, encode

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")
TOLD = re.compile(r"(?:text|\S*odd\.md)(?::\d+)?: \S")
LONGEST_MESSAGE = 20_000


def _prompt(m: Mutator) -> bytes:
    if m.random.random() < 0.5:
        return m.data(m.random.choice(corpus.PROMPTS), corpus.PROMPTS)
    keys = ("title", "depends_on", "files", "checks", "priority", "agent", "timeout", "allow_no_changes", "deliverable")
    head = []
    for _ in range(m.random.randint(1, 5)):
        value = m.random.choice((m.word(), f'"{m.word()}"', f"[{m.word()}, {m.word()}]", f"\n  - {m.word()}"))
        head.append(f"{m.random.choice((*keys, 'type', m.word()))}: {value}")
    text = "\n".join(["---", *head, "---", f"# {m.word()}", m.word()])
    return text.encode("utf-8", "surrogatepass")


def _check_prompt(data: bytes) -> str:
    """An order that means the same after its way through the log, or an error that names the line."""
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    try:
        order = order_from_text(text)
    except UsageError as error:
        _names_lines(error, "text")
        return REFUSED
    _sound(order)
    holds(order.instruction == _body(text), "the words of a person were changed", order.instruction)
    return _through_the_log(order)


def _body(text: str) -> str:
    parts = split(text)
    return parts[1] if parts is not None else ""


def _sound(order: PromptOrder) -> None:
    holds(SLUG.fullmatch(order.name), "a name that is no slug", order.name)
    holds(order.title.strip() and len(order.title) <= 200, "a title that is none", order.title)
    harmless(order.title, "a title that is not one printable line")
    for path in order.files:
        holds(not path.startswith(("/", "~", "-/")) and ".." not in path.split("/"), "a path that leads out", path)
    for words in (order.agent, *order.depends_on, *order.files):
        holds(not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", words), "a control character in a name", words)
    for command in order.checks:
        holds("\0" not in command, "a command that no shell takes", command)


def _names_lines(error: UsageError, name: str) -> None:
    told = error.message.split("\n")
    told = told[1:] if len(told) > 1 and told[0].endswith("started:") else told
    holds(len(error.message) <= LONGEST_MESSAGE, "a message too long to read", len(error.message))
    holds(any(name in one and TOLD.match(one.strip()) for one in told), "an error that names no line", error.message)


def _through_the_log(wish: PromptOrder) -> str:
    """Written as an event, read again and folded, it is the same order."""
    bare = msgspec.structs.replace(wish, depends_on=())
    (order,) = make_orders([bare], run=corpus.RUN, now=corpus.START_S, ids=["wo-x"])
    try:
        line = encode(corpus.event(0, E.CREATED, creation(order), Stamp(1, 1)))
    except ValueError as problem:  # pragma: no cover - a finding
        raise AssertionError("an order that cannot be written") from problem
    record = fold(None, decode(line[:-1]))
    holds(record is not None and record.order == order, "an order that reads as another", record)
    return READ


def _check_file(data: bytes) -> str:
    """The same for a file, which may be no text at all."""
    path = put("odd.md", data)
    try:
        (order,) = read_prompts([path])
    except UsageError as error:
        _names_lines(error, "odd.md")
        return REFUSED
    _sound(order)
    return _through_the_log(order)


def _check_head(data: bytes) -> str:
    """Front matter: entries and problems name lines that are there, keys come once, values are plain text."""
    lines = data.decode("utf-8", "replace").split("\n")
    entries, problems = parse(lines, 2)
    numbers = range(2, 2 + len(lines))
    holds(all(line in numbers and what for line, what in problems), "a problem of no line", problems)
    keys = [entry.key for entry in entries]
    holds(len(keys) == len(set(keys)), "a key that came twice", keys)
    for entry in entries:
        values = entry.value if isinstance(entry.value, list) else [entry.value]
        holds(all(line in numbers for line in (entry.line, *entry.lines)), "an entry of no line", entry)
        holds(len(entry.lines) >= len(values), "an item of no line", entry)
        "".join(values).encode()
    return REFUSED if problems else READ


def _head(m: Mutator) -> bytes:
    seed = b"\n".join(m.random.choice(corpus.PROMPTS).split(b"\n")[1:-3])
    return m.data(seed, corpus.PROMPTS)


def _config(m: Mutator) -> bytes:
    if m.random.random() < 0.6:
        return m.data(m.random.choice(corpus.CONFIGS), corpus.CONFIGS)
    lines = []
    for _ in range(m.random.randint(1, 4)):
        setting = m.random.choice(SETTINGS)
        lines.append(f"{setting.key} = {m.random.choice((setting.example, _toml(m)))}")
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _toml(m: Mutator) -> str:
    word = m.random.choice((m.word(), m.random.choice(NASTY)))
    return m.random.choice(
        (f"'{word}'", f'"{word}"', word, f"['{word}']", f"{{ path = '{word}' }}", "[[1], 2]", "2024-01-01")
    )


def _check_config(data: bytes) -> str:
    """Settings of the right types, or an error that names the file."""
    put(f"project/{FILE}", data)
    return _loaded({}, f"project/{FILE}")


def _loaded(variables: dict[str, str], name: str) -> str:
    try:
        settings = load(folder() / "project", environment=variables)
    except UsageError as error:
        told = error.message.split("\n")
        told = told[1:] if told[0].endswith("settings are off:") else told
        holds(all(name in one for one in told[:1]), "an error that does not name its place", error.message)
        holds(len(error.message) <= LONGEST_MESSAGE, "a message too long to read", len(error.message))
        return REFUSED
    holds(msgspec.convert(msgspec.to_builtins(settings), Settings) == settings, "settings of other types")
    return READ


def _variable(m: Mutator) -> bytes:
    setting = m.random.choice(SETTINGS)
    value = m.random.choice((setting.example, m.word(), _toml(m), m.word() * 50))
    return f"{setting.environment}={value}".encode("utf-8", "surrogatepass").replace(b"\0", b"")


def _check_variable(data: bytes) -> str:
    """The same for a variable."""
    (folder() / "project" / FILE).unlink(missing_ok=True)
    name, _, value = data.decode("utf-8", "surrogateescape").partition("=")
    return _loaded({name: value}, name)


def _project(m: Mutator) -> bytes:
    files = (
        b'pyproject.toml\n[project]\nname = "x"\n[tool.pytest]\ntestpaths = ["tests"]\n[tool.tox]\n',
        b'package.json\n{"name": "x", "scripts": {"test": "jest"}}',
        b"Makefile\nall:\n\ttrue\ntest: all\n\ttrue\ncheck:\n",
    )
    seed = m.random.choice(files)
    name, _, content = seed.partition(b"\n")
    return name + b"\n" + m.data(content, files)


def _check_project(data: bytes) -> str:
    """Whatever a project holds, what is proposed for it can be read again."""
    names = ("pyproject.toml", "package.json", "Makefile")
    name, _, content = data.partition(b"\n")
    root = folder() / "found"
    root.mkdir(exist_ok=True)
    for one in names:
        (root / one).unlink(missing_ok=True)
    if name.decode("utf-8", "replace") not in names:
        return REFUSED
    (root / name.decode()).write_bytes(content)
    text = proposal(root)
    holds(set(tomllib.loads(text)) <= {"setup", "check"}, "it sets more than it says", text)
    return READ


TARGETS = (
    Target("prompt", _prompt, _check_prompt, 10),
    Target("prompt-file", _prompt, _check_file, 4),
    Target("front-matter", _head, _check_head, 10),
    Target("config", _config, _check_config, 6),
    Target("variable", _variable, _check_variable, 4),
    Target("project", _project, _check_project, 4),
)
