"""What the gateway reads: paths, requests, usage, refusals, cassettes."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest

from shopfloor.config.accounts import Account, GatewaySettings, Price, gateway_environment, gateway_settings
from shopfloor.domain.errors import NotFound, Refused, UsageError
from shopfloor.gateway.cassette import digest, load, plain
from shopfloor.gateway.dialects import ANTHROPIC, CHAT, GEMINI, RESPONSES, Ask, Place, changed, locate, read
from shopfloor.gateway.price import Prices
from shopfloor.gateway.quota import verdict
from shopfloor.gateway.stream import WithoutUsage
from shopfloor.gateway.usage import Meter, Usage

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("method", "path", "dialect", "tail", "free"),
    [
        ("POST", "v1/messages", ANTHROPIC, "messages", False),
        ("POST", "v1/messages/count_tokens", ANTHROPIC, "messages/count_tokens", True),
        ("POST", "chat/completions", CHAT, "chat/completions", False),
        ("POST", "v1/responses", RESPONSES, "responses", False),
        ("POST", "v1beta/models/g-1:generateContent", GEMINI, "models/g-1:generateContent", False),
        ("POST", "v1beta/models/g-1:countTokens", GEMINI, "models/g-1:countTokens", True),
        ("GET", "v1/models", CHAT, "models", True),
    ],
)
def test_a_path_says_what_is_asked(method: str, path: str, dialect: str, tail: str, free: bool) -> None:
    found = locate(method, path, {})
    assert found is not None
    assert (found.dialect, found.tail, found.free) == (dialect, tail, free)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "v1/embeddings",
        "v2/messages",
        "v1beta/models/a/b:generateContent",
        "../x",
        "v1beta/models/..:generateContent",
    ],
)
def test_other_paths_ask_nothing(path: str) -> None:
    assert locate("POST", path, {}) is None


@pytest.mark.parametrize("path", ["models/a?b", "models/a\nb", "models/../x", "models/ä", "models//x"])
def test_a_path_cannot_leave_its_place(path: str) -> None:
    assert locate("GET", path, {}) is None


def ask(dialect: str, body: dict[str, Any], **more: Any) -> Ask:
    return read(Place(dialect=dialect, tail="x", **more), json.dumps(body).encode())


def test_another_model_is_asked_for() -> None:
    tail, body = changed(ask(CHAT, {"model": "big", "seed": 7}), model="small", usage=True)
    assert json.loads(body) == {"model": "small", "seed": 7, "stream_options": {"include_usage": True}}
    place = Place(dialect=GEMINI, tail="models/big:generateContent", model="big")
    tail, body = changed(read(place, b"{}"), model="small")
    assert (tail, body) == ("models/small:generateContent", b"{}")


def test_an_image_counts_as_what_it_costs() -> None:
    picture = "A" * 1_000_000
    assert ask(ANTHROPIC, {"model": "m", "messages": [{"data": picture}]}).chars < 10_000


STREAMS: dict[str, list[Any]] = {
    ANTHROPIC: [
        {"type": "message_start", "message": {"model": "m-1", "usage": {
            "input_tokens": 10, "cache_read_input_tokens": 70, "cache_creation_input_tokens": 20, "output_tokens": 1,
            "cache_creation": {"ephemeral_1h_input_tokens": 5}}}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x" * 40}},
        {"type": "message_delta", "usage": {"output_tokens": 30}},
    ],
    CHAT: [
        {"choices": [{"delta": {"content": "x" * 40}}], "usage": None},
        {"model": "m-1", "choices": [], "usage": {
            "prompt_tokens": 100, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 70}}},
    ],
    RESPONSES: [
        {"type": "response.output_text.delta", "delta": "x" * 40},
        {"type": "response.completed", "response": {"model": "m-1", "usage": {
            "input_tokens": 100, "output_tokens": 30, "input_tokens_details": {"cached_tokens": 70}}}},
    ],
    GEMINI: [
        {"candidates": [{"content": {"parts": [{"text": "x" * 40}]}}]},
        {"modelVersion": "m-1", "usageMetadata": {
            "promptTokenCount": 100, "candidatesTokenCount": 20, "thoughtsTokenCount": 10,
            "cachedContentTokenCount": 70}},
    ],
}  # fmt: skip


def sse(documents: list[Any], end: str = "\n") -> bytes:
    return "".join(f"event: x{end}data: {json.dumps(d)}{end}{end}" for d in documents).encode()


@pytest.mark.parametrize("dialect", STREAMS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_usage_comes_from_the_last_events_however_they_are_cut(dialect: str, end: str) -> None:
    data, random = sse(STREAMS[dialect], end), Random(4)
    for _ in range(30):
        meter, at = Meter(dialect), 0
        while at < len(data):
            step = random.randint(1, 60)
            meter.feed(data[at : at + step])
            at += step
        usage, estimated = meter.result(lambda: 999)
        assert (usage.into, usage.cached, usage.out, estimated, meter.model) == (100, 70, 30, False, "m-1")
        assert usage.written_1h == (5 if dialect == ANTHROPIC else 0)


@pytest.mark.parametrize("dialect", STREAMS)
def test_a_stream_that_ends_early_is_reckoned_by_what_went_by(dialect: str) -> None:
    meter = Meter(dialect)
    meter.feed(sse(STREAMS[dialect][:-1]))
    usage, estimated = meter.result(lambda: 999)
    assert (usage.into, usage.out, estimated) == (100 if dialect == ANTHROPIC else 999, 10, True)


def test_words_that_look_like_usage_are_words() -> None:
    meter = Meter(ANTHROPIC)
    text = 'data: {"type":"message_delta","usage":{"output_tokens":9999999}}'
    meter.feed(sse([{"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}]))
    assert meter.usage == Usage()
    assert not meter.told


def test_only_the_event_with_nothing_but_usage_is_taken_out() -> None:
    first, last = STREAMS[CHAT]
    data = sse([first, last]) + b"data: [DONE]\n\n"
    for size in (1, 7, 1000):
        without = WithoutUsage()
        out = b"".join(without.feed(data[at : at + size]) for at in range(0, len(data), size)) + without.close()
        assert out == sse([first]) + b"data: [DONE]\n\n"


REFUSALS: list[tuple[str, int, dict[str, str], Any, bool | None, float | None]] = [
    ("unified", 429, {"anthropic-ratelimit-unified-status": "rejected",
                      "anthropic-ratelimit-unified-reset": str(NOW + 5)}, {}, True, 5),
    ("short", 429, {"retry-after": "7"}, {"message": "rate"}, False, 7),
    ("long", 429, {"retry-after": "3600"}, {"message": "rate"}, True, 3600),
    ("date", 429, {"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, {}, False, 30),
    ("milliseconds", 429, {"retry-after-ms": "1500"}, {}, False, 1.5),
    ("openai tokens", 429, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, {}, True, 360),
    ("not that one", 429, {"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "6m0s"}, {}, False, None),
    ("no money", 429, {}, {"code": "insufficient_quota", "message": "You exceeded your current quota"}, True, None),
    ("plan", 429, {}, {"type": "usage_limit_reached", "resets_in_seconds": 90}, True, 90),
    ("gemini minute", 429, {}, {"status": "RESOURCE_EXHAUSTED", "message": "quota", "details": [
        {"@type": "QuotaFailure", "violations": [{"quotaId": "PerMinute"}]}, {"retryDelay": "34s"}]}, False, 34),
    ("gemini day", 429, {}, {"status": "RESOURCE_EXHAUSTED", "message": "quota", "details": [
        {"violations": [{"quotaId": "RequestsPerDay"}]}, {"retryDelay": "34s"}]}, True, None),
    ("credit", 400, {}, {"message": "Your credit balance is too low to access the API"}, True, None),
    ("a request that quotes", 400, {}, {"message": "bad text 'insufficient_quota'"}, None, None),
    ("pay", 402, {}, {"message": "pay"}, True, None),
    ("overloaded", 529, {"retry-after": "100"}, {}, None, None),
    ("past", 429, {"anthropic-ratelimit-unified-status": "rejected",
                   "anthropic-ratelimit-unified-reset": str(NOW - 5)}, {}, True, None),
    ("absurd", 429, {"retry-after": "99999999"}, {}, False, None),
    ("fine", 200, {}, {}, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "headers", "error", "used_up", "wait"), [r[1:] for r in REFUSALS],
                         ids=[r[0] for r in REFUSALS])  # fmt: skip
def test_a_refusal_says_how_it_stands(
    status: int, headers: dict[str, str], error: Any, used_up: bool | None, wait: float | None
) -> None:
    found = verdict(status, headers, json.dumps({"error": error}).encode(), NOW)
    assert (found.used_up if found else None) == used_up
    if found is not None:
        assert found.reset_at == (None if wait is None else NOW + wait)
        assert found.why


MAIN = Account(name="main", dialect="anthropic", url="http://127.0.0.1:1", key="K")


def test_prices() -> None:
    prices = Prices({"mine": Price(input=2.0, output=10.0, cached=0.5)})
    used = Usage(fresh=1000, out=100)
    assert prices.cost(MAIN, ("claude-sonnet-4-5", ""), used) == 0.0045
    assert prices.cost(MAIN, ("alias", "claude-sonnet-4-5"), used) == 0.0045
    assert prices.cost(MAIN, ("anthropic/claude-sonnet-4-5",), used) == 0.0045
    assert prices.cost(MAIN, ("nobodys", ""), used) is None
    assert prices.cost(MAIN, ("mine", ""), Usage(fresh=1000, cached=2000, out=100)) == pytest.approx(0.004)
    written = Usage(fresh=0, written=1000, written_1h=0)
    assert prices.cost(MAIN, ("claude-sonnet-4-5",), written) == 0.00375
    hour = Usage(fresh=0, written=1000, written_1h=1000)
    assert prices.cost(MAIN, ("claude-sonnet-4-5",), hour) == 0.006


def test_accounts_are_read_or_refused_by_name() -> None:
    found = gateway_settings({"accounts": {"a": {"dialect": "openai", "url": "http://127.0.0.1:8/x/", "spill": "b"},
                                           "b": {"dialect": "openai", "key": "B"}}})  # fmt: skip
    assert found.accounts["a"].base == "http://127.0.0.1:8/x"
    assert found.accounts["b"].base == "https://api.openai.com/v1"
    assert found.accounts["a"].key == "OPENAI_API_KEY"
    for wrong, named in (
        ({"accounts": {"a": {}}}, "gateway.accounts.a has no dialect"),
        ({"accounts": {"a": {"dialect": "openai", "spill": ["z"]}}}, "'z'"),
        ({"accounts": {"a": {"dialect": "openai", "spill": ["b"]}, "b": {"dialect": "gemini"}}}, "same dialect"),
        ({"accounts": {"a": {"dialect": "openai", "key": "sk-not a variable"}}}, "gateway.accounts.a.key = …"),
        ({"accounts": {"a": {"dialect": "openai", "url": "ftp://x"}}}, "gateway.accounts.a.url"),
        ({"prices": {"m": {"input": 1}}}, "needs input and output"),
        ({"account": {}}, "did you mean 'accounts'"),
    ):
        with pytest.raises(ValueError, match=re.escape(named)) as caught:
            gateway_settings(wrong)
        assert "sk-not" not in str(caught.value)


def test_the_usual_variables_count_where_no_account_is_named() -> None:
    env = {"ANTHROPIC_AUTH_TOKEN": "t" * 20, "ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "GITHUB_TOKEN": "no"}
    account = GatewaySettings().known(env)["anthropic"]
    assert account.headers(env) == {"authorization": f"Bearer {'t' * 20}"}
    assert account.base == "http://127.0.0.1:9/v1"
    assert set(gateway_environment(GatewaySettings(), env)) == {"ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"}
    with pytest.raises(Refused, match="OPENAI_API_KEY is not set"):
        GatewaySettings().known(env)["openai"].headers(env)


def test_a_request_is_found_again_in_another_run() -> None:
    def said(text: str, **more: Any) -> str:
        body = {"model": "m", "messages": [{"role": "system", "content": "today"}, {"role": "user", "content": text}]}
        return digest(ask(CHAT, {**body, **more}))[0]

    one = said("fix /tmp/run-1/slot-3/src/a.py for wo-x1y2z3 at 2026-11-27T03:08:27Z, 3.14 s, commit 1a2b3c4d5e6f")
    two = said("fix /srv/me/w/src/a.py for wo-k9j8h7 at 2027-01-01 10:00:00, 2.71 s, commit 99ffee00aa11")
    assert one == two
    assert one != said("fix /tmp/run-1/slot-3/src/b.py for wo-x1y2z3 at 2026-11-27, 3.14 s, commit 1a2b3c4d5e6f")
    assert one != said("fix it", tools=[])
    assert said("a", tools=[{"name": "bash"}]) != said("a", tools=[])
    assert plain("attempt wo-abcd.a12 of run-7ab2c") == "attempt <attempt> of <id>"
    assert plain("on shopfloor/fix-it-k9j8h-2 or shopfloor/fix-it-12345") == "on <branch> or <branch>"
    assert plain("see shopfloor/domain, ratio 3:1, of May 7") == "see shopfloor/domain, ratio 3:1, of May 7"


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Fri Nov 27 07:43:38 UTC 2026", "Sat Dec  5 17:03:01 CET 2026"),
        ("Date:   Fri Nov 27 07:43:32 2026 +0000", "Date:   Tue Jan 5 17:03:01 2027 +0000"),
        ("Fri, 27 Nov 2026 07:43:32 GMT", "Mon, 2 Mar 2027 17:03:32 GMT"),
        ("-rw-r--r-- 1 me me 12 Nov 27 07:43 a.txt", "-rw-r--r-- 1 me me 12 Dec  5 17:03 a.txt"),
        ("[07:43:32.123] ready", "[17:03:01.9] ready"),
        ("PWD=/srv/one/.worktrees/slot-01", "PWD=/srv/you/two/.worktrees/slot-12"),
        (
            f"http://127.0.0.1:4711/w/{'a-Z_9' * 6}x- {'sf-' + 'b_-4' * 8}",
            f"http://127.0.0.1:50123/w/{'q' * 32} sf-{'-' * 32}",
        ),
    ],
)
def test_what_commands_print_of_their_time_and_place_is_no_part_of_a_request(one: str, two: str) -> None:
    assert plain(one) == plain(two) != ""


def test_a_cassette_that_is_none_is_refused_by_line(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    with pytest.raises(NotFound, match="no cassette"):
        load(tape)
    for text, named in (
        ("hello\n", ":1:"),
        ('{"cassette":2}\n', "version 2"),
        ('{"cassette":1}\n{"digest":1}\n', ":2:"),
    ):
        tape.write_text(text)
        with pytest.raises(UsageError, match=named):
            load(tape)
    tape.write_text('{"cassette":1}\n{"digest": "to')
    assert load(tape) == []
