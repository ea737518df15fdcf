"""Make the cassette of ``shopfloor demo --agent muscle`` anew: ``python tools/cassette.py``.

The built-in worker does the demonstration's orders with the scripted model server behind a real gateway, which takes
down what was said. What the model says stands here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from shopfloor import Report, Shopfloor
from shopfloor.config import environment
from shopfloor.demo import muscle, orders, sample
from shopfloor.domain.errors import ShopfloorError
from shopfloor.testing.model import Model
from shopfloor.testing.model.script import Chosen
from shopfloor.testing.model.talk import Ask

KEY = "the-key-that-stands-in-no-cassette"
AGAIN = "An earlier attempt was not accepted"

Step = dict[str, Any]


def writes(path: str, text: str, say: str = "") -> Step:
    call: Step = {"call": {"name": "edit", "input": {"path": path, "old": "", "new": text}}}
    return {"say": say, **call} if say else call


def tries(name: str) -> Step:
    """Its test, by its last line: the others are worded by the version of Python."""
    return {"bash": f"python3 -m unittest -q tests.test_{name} 2>&1 | tail -n 1"}


def function(name: str, code: str) -> list[Step]:
    """Reads the test, writes the function, runs the test."""
    return [
        {"say": "I read its test first.", "bash": f"cat tests/test_{name}.py"},
        writes(f"textkit/{name}.py", code),
        tries(name),
        {"text": f"`{name}` does what its test says."},
    ]


FORGETFUL = orders.TRUNCATE.replace(' + "…"', "")
COMMIT = "git -c user.name=muscle -c user.email=muscle@localhost commit -qam 'Write initials()' && git status --short"
SCRIPTS: dict[str, list[Step]] = {
    "slugify": [
        {"call": {"name": "progress", "input": {"text": "reads the test"}}}, *function("slugify", orders.SLUGIFY),
    ],
    "word-count": function("word_count", orders.WORD_COUNT),
    "truncate": [writes("textkit/truncate.py", FORGETFUL, "That is easy."), {"text": "`truncate` is written."}],
    "truncate-again": function("truncate", orders.TRUNCATE),
    "headline": function("headline", orders.HEADLINE),
    "summary": function("summary", orders.SUMMARY),
    "initials": [*function("initials", orders.INITIALS)[:-1], {"bash": COMMIT}, {"text": "Written, and committed."}],
    "overloaded": [
        {
            **writes("textkit/__init__.py", "# Small helpers for text.\n"),
            "fail": {"status": 503, "times": 3, "message": "The server is overloaded", "type": "server_error"},
        },
        {"call": {"name": "done", "input": {"text": "A line says what the package is for."}}},
        {"text": "A line says what the package is for."},
    ],
    "faster-median": [writes("textkit/median.py", orders.FAST_MEDIAN), {"text": "It is faster now."}],
    "faster-median-again": [writes("textkit/median.py", orders.FAST_MEDIAN), {"text": "It is as fast as it can be."}],
    "hangs": [writes("textkit/notes.txt", "half of a thought\n"), {"bash": "sleep 600"}],
    "lazy": [{"bash": "git status --short"}, {"text": "There is nothing that nobody uses."}],
}  # fmt: skip


class Told(Model):
    """The scripted model; which script it follows is told by the title of the order, so the orders need no marks."""

    titles: ClassVar = {text.split("\n# ", 1)[1].split("\n", 1)[0]: name for name, text in muscle.prompts().items()}

    def chosen(self, ask: Ask) -> Chosen:
        """The step that answers."""
        at = next(at for at, turn in enumerate(ask.turns) if turn.role == "user")
        text = ask.turns[at].text
        name = next((name for title, name in self.titles.items() if title in text), "none")
        marked = f"{text}\n[[script {name}{'-again' if AGAIN in text else ''}]]"
        turns = [dataclasses.replace(turn, text=marked) if n == at else turn for n, turn in enumerate(ask.turns)]
        return super().chosen(dataclasses.replace(ask, turns=tuple(turns)))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Told(SCRIPTS) as model:
        tape = Path(folder) / "tape"
        own = {name: value for name, value in environment().items() if not name.startswith("SHOPFLOOR_")}
        env = {**own, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{model.url}/v1"}
        root = sample.make(Path(folder) / "demo", muscle.prompts(), env)
        # One after the other, so that the takes stand in the order of the orders.
        flags = {**muscle.FLAGS, "max_parallel": 1, "record": str(tape)}
        report = asyncio.run(perform(Shopfloor.open(root, flags=flags, environment=env)))
        found = {row.name: row.outcome for row in report.orders}
        wrong = {name: end for name, end in found.items() if name not in muscle.EXPECTED.get(end, ())}
        text = tape.read_text()
        told = [word for word in (KEY, folder, str(Path.home()), "127.0.0.1", model.url) if word in text]
        if wrong or told:
            sys.exit(f"this is no cassette for the demonstration: {wrong or told}")
        muscle.CASSETTE.write_text(text)
        print(f"{muscle.CASSETTE}: {len(text.splitlines()) - 1} calls, {len(text)} characters")


async def perform(floor: Shopfloor) -> Report:
    async with floor:
        floor.say = print
        floor.observers.append(lambda event: print(event.event_type, event.data.get("work_order_id", "")))
        return await floor.run([floor.root / "prompts" / f"{name}.md" for name in muscle.prompts()])


if __name__ == "__main__":
    try:
        main()
    except ShopfloorError as problem:
        sys.exit(f"{problem.message}\n  {problem.hint}")
