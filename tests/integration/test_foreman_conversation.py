"""A conversation with the foreman, line by line: words, commands while he speaks, news of the crew, interruptions."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shopfloor import NotFound, Shopfloor
from shopfloor.faces.foreman.background import Background, BackgroundConfig
from shopfloor.faces.foreman.conversation import LONGEST_REST_S, MOST_KEPT, MOST_WAITING, Conversation
from shopfloor.faces.foreman.pools import Pool, Routing
from shopfloor.faces.foreman.signals import EventRouter
from shopfloor.faces.foreman.tasks import Tasks


class Crew:
    """A foreman who answers when he is told to, and the real issues."""

    def __init__(self, floor: Shopfloor) -> None:
        self.tasks = Tasks(floor, "foreman")
        self.coder = Tasks(floor, "coder-0")
        self.spent: Mapping[str, Any] = {}
        self.routing = Routing(pools=(Pool(name="coding"),))
        beside = BackgroundConfig(name="tidy", instruction_template="Tidy up.")
        self.background = Background([beside], turn=self.tidy, router=EventRouter())
        self.tidied = asyncio.Event()
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self.may_answer = asyncio.Event()
        self.ended = 0

    async def execute_user_message(self, message: str) -> str:
        await self.heard.put(message)
        try:
            if message == "fail":
                raise NotFound("no key", hint="set ANTHROPIC_API_KEY")
            await self.may_answer.wait()
        finally:
            self.ended += 1
        return f"I heard: {message}"

    async def tidy(self, _config: BackgroundConfig, words: str) -> str:
        self.tidied.set()
        return words


class Talk:
    """The conversation, and what was said so far."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.lines: list[str] = []
        self.news = asyncio.Event()
        self.paused: asyncio.Queue[float] = asyncio.Queue()
        self.conversation = Conversation(crew, say=self.say, pause=self.paused.put)

    def say(self, text: str) -> None:
        self.lines.append(text)
        self.news.set()

    async def hear(self, line: str) -> str:
        """What a command says."""
        count = len(self.lines)
        assert await self.conversation.hear(line)
        return "\n".join(self.lines[count:])

    async def until(self, words: str) -> str:
        async with asyncio.timeout(20):
            while not (found := [line for line in self.lines if words in line]):
                self.news.clear()
                await self.news.wait()
        return found[0]


@asynccontextmanager
async def talking(folder: Path) -> AsyncIterator[Talk]:
    async with Shopfloor.open(folder, without_git=True) as floor:
        crew = Crew(floor)
        talk = Talk(crew)
        yield talk
        await talk.conversation.close()
        await crew.coder.end()
        await crew.tasks.end()


async def test_words_are_answered_and_commands_do_not_wait_for_the_answer(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        await talk.conversation.hear("Build me a scraper\n")
        await talk.crew.heard.get()
        assert "the foreman is speaking" in await talk.hear("/status")
        assert "added wo-" in await talk.hear("/add look at the docs")
        talk.crew.may_answer.set()
        assert await talk.until("I heard") == "I heard: Build me a scraper"
        await talk.conversation.answered()
        assert "speaking" not in await talk.hear("/status")


async def test_more_words_wait_their_turn(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        talk.crew.may_answer.set()
        for word in ("one", "two", "three"):
            await talk.conversation.hear(word)
        await talk.conversation.answered()
        assert talk.lines == [f"I heard: {word}" for word in ("one", "two", "three")]


async def test_not_more_wait_than_can_be_answered(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        await talk.conversation.hear("first")
        await talk.crew.heard.get()
        for number in range(MOST_WAITING):
            assert await talk.hear(f"{number}") == ""
        assert "wait for the foreman already" in await talk.hear("one too many")


async def test_an_interruption_ends_his_turn_and_forgets_what_waits(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        assert not talk.conversation.interrupt()
        await talk.conversation.hear("one")
        await talk.conversation.hear("two")
        await talk.crew.heard.get()
        assert talk.conversation.interrupt()
        await talk.conversation.answered()
        assert talk.lines == ["[crew] interrupted; the crew works on"]
        assert talk.crew.ended == 1
        talk.crew.may_answer.set()
        await talk.conversation.hear("three")
        await talk.conversation.answered()
        assert talk.lines[-1] == "I heard: three"


async def test_an_error_is_told_and_the_conversation_goes_on(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        talk.crew.may_answer.set()
        await talk.conversation.hear("fail")
        await talk.conversation.hear("again")
        await talk.conversation.answered()
        assert talk.lines == ["[crew] no answer: no key (set ANTHROPIC_API_KEY)", "I heard: again"]


async def test_the_commands(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        crew = talk.crew
        assert await talk.hear("   ") == ""
        assert "/answer ID WORDS" in await talk.hear("/help")
        assert "no command /dance" in await talk.hear("/dance now")
        assert await talk.hear("/status") == "there are no issues yet"
        assert await talk.hear("/tasks") == "there are none"
        assert await talk.hear("/add") == "type: /add WORDS"
        await talk.hear("/add paint the door")
        (task,) = await crew.tasks.all()
        assert (task.title, task.metadata["pool"]) == ("paint the door", "coding")
        await talk.hear(f"/add {'long ' * 100}")
        assert (await crew.tasks.all())[1].description.startswith("long long")
        await crew.coder.claim(task.id)
        assert f"coder-0: {task.id} paint the door" in await talk.hear("/status")
        assert "nobody asks" in await talk.hear("/answer")
        await crew.coder.ask(task.id, "which colour?")
        assert "which colour?" in await talk.hear("/answer")
        assert "which colour?" in await talk.hear("/status")
        assert "goes on with your answer" in await talk.hear(f"/answer {task.id[:7]} deep green")
        assert "deep green" in (await crew.tasks.get(task.id)).description
        assert "no issue 'wo-nothing'" in await talk.hear("/answer wo-nothing green")
        await crew.coder.complete(task.id, "painted")
        listed = (await talk.hear("/tasks")).split("\n")
        assert ["open" in listed[0], "completed" in listed[1]] == [True, True], "what is to be done comes first"
        assert "paint the door" in await talk.hear("/tasks completed")
        assert "no status 'ready'" in await talk.hear("/tasks ready")
        assert "nothing is known" in await talk.hear("/cost")
        crew.spent = {"usd": 0.5, "tokens_in": 1200, "tokens_out": 34}
        assert await talk.hear("/cost") == "$0.5000; 1,200 tokens in, 34 tokens out"
        crew.spent = {"usd": None, "tokens_in": 1, "tokens_out": 2}
        assert "price is not known" in await talk.hear("/cost")
        for word in ("/quit", "/exit"):
            assert not await talk.conversation.hear(word)


async def test_what_becomes_of_issues_is_told_as_it_happens_and_once(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        crew = talk.crew
        old = await crew.tasks.create("old")
        await crew.coder.complete(old.id, "before")
        watch = asyncio.create_task(talk.conversation.watch())
        await talk.paused.get()  # it has looked once
        one, two = await crew.tasks.create("one"), await crew.tasks.create("two")
        await crew.coder.claim(two.id)
        await crew.coder.ask(two.id, "which colour?")
        await crew.coder.complete(one.id, "it works")
        assert f"{one.id} one: it works" in await talk.until("completed")
        assert f"/answer {two.id} WORDS" in await talk.until("which colour?")
        await crew.coder.block((await crew.tasks.create("three")).id, "no key")
        assert "three: no key" in await talk.until("stuck")
        assert not any("old" in line for line in talk.lines)
        assert len(talk.lines) == 3
        watch.cancel()
        await asyncio.wait([watch])


async def test_no_more_is_remembered_than_some_lines(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        for number in range(MOST_KEPT + 50):
            await talk.conversation.hear(f"/help {number}")
        assert len(talk.conversation.history) == MOST_KEPT
        assert talk.conversation.history[-1] == ("you", f"/help {MOST_KEPT + 49}")


async def test_sessions_beside_the_crew_are_named_and_woken(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        assert "begin with your first message" in await talk.hear("/background")
        assert "there is no background session 'tidy'\n  none has begun yet" in await talk.hear("/background tidy")
        talk.crew.background.start()
        assert await talk.hear("/background") == "  tidy (manual), 0 turns"
        assert await talk.hear("/background tidy") == "tidy has a turn now"
        async with asyncio.timeout(20):
            await talk.crew.tidied.wait()
        assert "there are tidy" in await talk.hear("/background nobody")
        await talk.crew.background.close()


async def test_who_goes_to_others_is_told(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        made = await talk.crew.tasks.create("Fragile", metadata={"pool": "coding"})
        watch = asyncio.ensure_future(talk.conversation.watch())
        await talk.crew.tasks.changed(0, 0.0)
        async with asyncio.timeout(20):
            await talk.paused.get()
        await talk.crew.tasks.update(made.id, metadata={"pool": "senior"})
        assert await talk.until("goes to") == f"[crew] {made.id} Fragile goes to senior"
        await talk.crew.tasks.block(made.id, "no key")
        assert await talk.until("stuck") == f"[crew] stuck: {made.id} Fragile: no key\n  type: /answer {made.id} WORDS"
        assert f"{made.id} Fragile is stuck: no key" in await talk.hear("/status")
        watch.cancel()


async def test_news_that_cannot_be_heard_are_told_of_once_and_tried_again(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        pauses: asyncio.Queue[float] = asyncio.Queue(1)
        conversation = Conversation(talk.crew, say=talk.say, pause=pauses.put)
        await talk.crew.tasks.create("One")
        watch = asyncio.ensure_future(conversation.watch())
        async with asyncio.timeout(20):
            await pauses.get()
            await talk.crew.tasks.floor.store.close()
            async with Shopfloor.open(tmp_path, without_git=True) as other:
                await Tasks(other, "somebody").create("Two")
            assert [await pauses.get() for _ in range(3)] == [LONGEST_REST_S] * 3
        assert len([line for line in talk.lines if "news cannot be heard" in line]) == 1
        assert not watch.done()
        watch.cancel()
