"""Sessions beside the crew: woken by a timer, a signal or by hand; started once, restarted a few times, ended soon."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shopfloor import NotFound, UsageError
from shopfloor.faces.foreman.background import Background, BackgroundConfig, background_of
from shopfloor.faces.foreman.signals import EventRouter, Name, Signal


class Clock:
    """Time passes when the test says so."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []
        self.asked = asyncio.Event()

    async def pause(self, seconds: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((seconds, done))
        self.asked.set()
        await done

    async def tick(self) -> list[float]:
        await self.asked.wait()
        self.asked.clear()
        waited, self._waiting = self._waiting, []
        for _, done in waited:
            done.set_result(None)
        return [seconds for seconds, _ in waited]


class Bench:
    """What the turns were told, and a way to make them fail."""

    def __init__(self, *configs: BackgroundConfig) -> None:
        self.clock, self.router = Clock(), EventRouter()
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self.work: Callable[[str], Awaitable[str]] = self.answer
        self.troubles: list[str] = []
        self.sessions = Background(
            configs, turn=self.turn, router=self.router, pause=self.clock.pause, trouble=self.trouble
        )

    def trouble(self, _who: str, why: str) -> bool:
        self.troubles.append(why)
        return True

    async def turn(self, _config: BackgroundConfig, text: str) -> str:
        await self.told.put(text)
        return await self.work(text)

    async def answer(self, text: str) -> str:
        return f"did {text}"

    async def fail(self, text: str) -> str:
        raise RuntimeError(f"no {text}")


async def within(work: Awaitable[Any]) -> Any:
    async with asyncio.timeout(10):
        return await work


async def test_a_timer_gives_a_turn_each_interval() -> None:
    bench = Bench(BackgroundConfig(name="tidy", trigger="timer", interval_seconds=30, instruction_template="{name}"))
    bench.sessions.start()
    assert await within(bench.clock.tick()) == [30]
    assert await within(bench.told.get()) == "tidy"
    assert await within(bench.clock.tick()) == [30]
    assert await within(bench.told.get()) == "tidy"
    await bench.sessions.close()


async def test_an_immediate_one_does_not_wait_for_its_first_turn() -> None:
    bench = Bench(BackgroundConfig(name="tidy", trigger="timer", immediate=True))
    bench.sessions.start()
    assert await within(bench.told.get()) == "timer"
    await bench.sessions.close()


async def test_a_signal_wakes_those_that_wait_for_it_and_tells_what_came_with_it() -> None:
    config = BackgroundConfig(
        name="mend", trigger="session_event", event_names=("tests:red",), instruction_template="{event} {data} {name}",
        on_complete_emit="mend:done",
    )  # fmt: skip
    bench = Bench(config)
    bench.sessions.start()
    bench.router.emit("tests:green")
    done = asyncio.ensure_future(bench.router.wait_for_event("mend:done", 10))
    await asyncio.sleep(0)
    bench.router.emit("tests:red", {"file": "a.py"})
    assert await within(bench.told.get()) == 'tests:red {"file":"a.py"} mend'
    signal = await within(done)
    assert signal == Signal("mend:done", {"session": "mend", "result": 'did tests:red {"file":"a.py"} mend'})
    assert bench.told.empty(), "the other signal was not for it"
    await bench.sessions.close()


async def test_they_are_started_once_however_often_it_is_said() -> None:
    timer = BackgroundConfig(name="timer", trigger="timer", immediate=True)
    bench = Bench(BackgroundConfig(name="hand"), timer)
    bench.sessions.start()
    bench.sessions.start()
    assert await within(bench.told.get()) == "timer"
    bench.sessions.trigger("hand")
    assert await within(bench.told.get()) == "manual"
    await bench.sessions.close()
    assert bench.told.empty()
    with pytest.raises(NotFound, match="hand"):
        bench.sessions.trigger("hand")


async def test_one_that_fails_is_started_again_three_times_and_then_left_alone() -> None:
    woken: dict[str, Any] = {
        "trigger": "session_event", "event_names": ("wake",), "on_error_emit": "hand:failed",
        "on_complete_emit": "hand:done",
    }  # fmt: skip
    bench = Bench(BackgroundConfig(name="hand", max_restarts=3, **woken))
    bench.work = bench.fail
    bench.sessions.start()
    for _ in range(4):
        failed = asyncio.ensure_future(bench.router.wait_for_event("hand:failed", 10))
        await asyncio.sleep(0)
        bench.router.emit("wake")
        assert (await within(failed)).data == {"session": "hand", "error": "no wake"}
    state = {"trigger": "session_event", "turns": 0, "at_work": 0, "failures": 4, "waiting": 0, "given_up": True}
    assert bench.sessions.status()["hand"] == state
    assert bench.troubles == ["no wake", "no wake", "no wake", "no wake; it is left alone from now on"]
    while not bench.told.empty():
        bench.told.get_nowait()
    bench.router.emit("wake")
    bench.work = bench.answer
    done = asyncio.ensure_future(bench.router.wait_for_event("hand:done", 10))
    await asyncio.sleep(0)
    bench.sessions.trigger("hand")
    assert await within(bench.told.get()) == "manual", "it was left alone, and goes on when it is asked to"
    await within(done)
    bench.router.emit("wake")
    assert await within(bench.told.get()) == "wake"
    assert bench.troubles[-1] == ""
    await bench.sessions.close()


async def test_a_turn_that_ends_well_forgets_the_failures_before_it() -> None:
    bench = Bench(BackgroundConfig(name="hand", on_error_emit="no", on_complete_emit="yes", restart_on_failure=True))
    bench.sessions.start()
    for name, work in (("no", bench.fail), ("yes", bench.answer)):
        bench.work = work
        told = asyncio.ensure_future(bench.router.wait_for_event(name, 10))
        await asyncio.sleep(0)
        bench.sessions.trigger("hand")
        await within(told)
    assert bench.sessions.status()["hand"]["failures"] == 0
    await bench.sessions.close()


async def test_so_many_turns_at_once_as_its_pool_has() -> None:
    bench = Bench(BackgroundConfig(name="hand", pool_size=2))
    gate = asyncio.Event()

    async def wait(_text: str) -> str:
        await gate.wait()
        return ""

    bench.work = wait
    bench.sessions.start()
    for _ in range(3):
        bench.sessions.trigger("hand")
    await within(bench.told.get())
    await within(bench.told.get())
    assert bench.sessions.status()["hand"]["waiting"] == 1
    gate.set()
    await within(bench.told.get())
    await bench.sessions.close()


async def test_closing_ends_what_hangs() -> None:
    bench = Bench(BackgroundConfig(name="hand"))
    ended = asyncio.Event()

    async def hang(_text: str) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    bench.work = hang
    bench.sessions.start()
    bench.sessions.trigger("hand")
    await within(bench.told.get())
    await within(bench.sessions.close())
    await within(ended.wait())
    await bench.sessions.close()


async def test_the_router_tells_who_asked_and_remembers_a_little() -> None:
    router, seen = EventRouter(), []
    end = router.subscribe("*", lambda signal: seen.append(signal.name))
    router.emit(Name.TASK_STARTED, {"task": "wo-a"})
    end()
    router.emit("other")
    assert seen == ["foreman:worker:task_started"]
    assert [signal.name for signal in router.recent] == ["foreman:worker:task_started", "other"]
    assert await router.wait_for_event("never", 0.0) is None


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"name": "a", "trigger": "moon"}, "moon"),
        ({"trigger": "timer"}, "name"),
        ({"name": "a", "trigger": "session_event"}, "'a' waits for no event"),
        ({"name": "a", "trigger": "timer", "interval_seconds": 0}, "interval_seconds 0"),
        ({"name": "a", "pool_size": 0}, "pool_size 0"),
        ({"name": "a", "max_restarts": -1}, "max_restarts -1"),
        ({"name": "a", "trigger": "timer", "interval_seconds": 1e300}, "interval_seconds 1e"),
        ({"name": "a", "interval": 5}, "has a key 'interval'"),
        ({"name": ""}, "name is empty"),
        ("a", "has 'a'"),
    ],
)
def test_a_configuration_that_is_off_is_named(entry: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        background_of({"background_sessions": [entry]})


@pytest.mark.parametrize(
    ("sessions", "named"),
    [(5, "background_sessions is 5"), ({"name": "a"}, "is a list"), ([{"name": "a"}] * 2, "one name: a, a")],
)
def test_so_is_what_is_no_list_of_them(sessions: Any, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        background_of({"background_sessions": sessions})
    assert named in f"{caught.value.message} {caught.value.hint}"


def test_a_configuration_that_is_right() -> None:
    entry = {"name": "a", "trigger": "timer", "interval_seconds": 5, "immediate": True, "max_restarts": 1}
    assert background_of({"background_sessions": [entry]})[0].interval_seconds == 5
    assert background_of({}) == ()
