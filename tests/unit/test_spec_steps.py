"""What the answers of an agent server mean, however odd they are."""

import json
import os
from typing import Any

import pytest

from shopfloor.agents._connections import Reply
from shopfloor.agents._spec_server import takes_bodies
from shopfloor.agents._steps import MOST_CODE, Fault, work

SPEC = {"id": "a", "stack_effect": "( n -- n )"}
DEEP = b"[" * 100_000 + b"]" * 100_000


class Server:
    """Says yes to everything but to the step that a test is about."""

    bodies = False

    def __init__(self, step: str, body: bytes) -> None:
        self._said = {
            "validate": b'{"valid": true}', "generate": b'{"code": ": a ;"}', "verify": b'{"valid": true}', step: body,
        }  # fmt: skip

    async def ask(self, step: str, body: bytes) -> Reply:
        assert json.loads(body)
        return Reply(200, self._said[step])

    def now(self) -> float:
        return 0.0


def as_json(**said: Any) -> bytes:
    return json.dumps(said).encode()


@pytest.mark.parametrize("step", ["validate", "generate", "verify"])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"code": 5, "valid": 5}', b'{"x": NaN}', DEEP, b'{"x":' + DEEP + b"}", os.urandom(99)],
    ids=["empty", "list", "types", "nan", "deep", "deep beside", "binary"],
)  # fmt: skip
async def test_what_is_not_as_agreed_is_a_fault_of_the_server(step: str, body: bytes) -> None:
    with pytest.raises(Fault, match=f"its answer to {step} is not as agreed"):
        await work(Server(step, body), SPEC)


async def test_a_health_that_is_nested_too_deep_is_none() -> None:
    assert not takes_bodies(b'{"status":' + DEEP + b"}")


@pytest.mark.parametrize(("code", "tests"), [("x" * (MOST_CODE + 1), []), ("x", ["t" * 50] * (MOST_CODE // 50))])
async def test_half_an_answer_is_none(code: str, tests: list[str]) -> None:
    answered = await work(Server("generate", as_json(code=code, tests=tests)), SPEC)
    size = len(code) + sum(map(len, tests))
    assert (
        answered.failed == f"its answer to POST /generate has {size} characters, and 60000 are the most that are kept"
    )
    assert answered.final
    assert answered.text == ""


async def test_as_much_as_is_kept_is_kept() -> None:
    answered = await work(Server("generate", as_json(code="x" * 30_000, tests=["t" * 30_000])), SPEC)
    assert len(answered.text) == 30_000
    assert answered.data["tests"] == ["t" * 30_000]
