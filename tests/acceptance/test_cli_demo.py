"""``shopfloor demo --agent muscle``: our own worker on a bundled cassette, with no key and no network."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shopfloor.demo.muscle import CASSETTE, EXPECTED

from .shop import Shop

MOST_BYTES = 100_000
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(180)
def test_the_built_in_worker_does_the_demonstration_offline(shop: Shop) -> None:
    shop.longest_s = 170
    # Every way out ends nowhere: what the demonstration needs is on this machine.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    keys = [name for name in shop.env if name.startswith(("ANTHROPIC_", "OPENAI_", "GEMINI_", "GOOGLE_"))]
    for name in keys:
        del shop.env[name]
    place = shop.root.parent / "demo"
    said = shop("demo", "--agent", "muscle", str(place), "--plain", env=nowhere)
    assert said.code == 0, said
    assert "7 landed, 4 failed" in said.out
    assert "cost: 0.00 USD, model calls were answered from 'muscle.cassette', which costs nothing" in said.out
    assert "The project's own tests, run in the checkout: pass" in said.out
    shop.root = place / "textkit"
    orders = {order["name"]: order for order in shop("status", "--all", "--json").json["orders"]}
    assert {name for name, order in orders.items() if order["state"] == "landed"} == EXPECTED["landed"]
    reasons = {name: orders[name]["reason"] for name in EXPECTED["failed"]}
    assert reasons == {
        "faster-median": "checks", "hangs": "timeout", "needs-the-hanging-one": "dependency", "lazy": "no_changes",
    }  # fmt: skip
    again = {name for name, order in orders.items() if order["attempts"] > 1}
    assert again == {"truncate", "overloaded", "faster-median"}
    calls = [json.loads(line) for line in (shop.root / ".work/ledger.jsonl").read_text().splitlines()]
    assert {call["cost_usd"] for call in calls} == {0}
    assert not [call for call in calls if call["refused"]]
    assert "reads the test" in (shop.root / ".work/events.jsonl").read_text()


def test_the_cassette_is_small_and_knows_no_machine() -> None:
    text = CASSETTE.read_text()
    assert len(text) < MOST_BYTES
    found = re.findall(
        r"/(?:home|root|tmp|Users|var|opt|srv)/[^\s\"]*|\d+\.\d+\.\d+\.\d+|sk-[\w-]{8,}|sf-[\w-]{32}", text
    )
    assert not found
    assert socket.gethostname() not in text


@pytest.mark.parametrize(
    ("absent", "told"), [("aiohttp", "[gateway]"), ("pydantic_ai", "[muscle]"), ("genai_prices", "[gateway,muscle]")]
)
def test_a_missing_extra_is_named_with_what_to_type(absent: str, told: str, tmp_path: Path) -> None:
    # Nothing is found in a package that is None, as if it were not installed.
    start = "import sys, importlib.util as u; real = u.find_spec\n"
    start += f"u.find_spec = lambda name, *a: None if name == {absent!r} else real(name, *a)\n"
    start += "from shopfloor.fast import main; sys.argv[1:] = ['demo', '--agent', 'muscle', 'demo']; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 4
    assert f"type: pip install 'shopfloor{told}'" in done.stderr
    assert not (tmp_path / "demo").exists()


def test_make_hands_the_agent_on_only_when_it_is_typed() -> None:
    for words, env, told in (
        (["AGENT=muscle"], {}, "demo --agent muscle"), ([], {}, "demo "), ([], {"AGENT": "other"}, "demo "),
    ):  # fmt: skip
        done = subprocess.run(
            ["make", "-n", "demo", *words], cwd=ROOT, env={"PATH": "/usr/bin:/bin", **env}, capture_output=True,
            text=True, timeout=30, check=True,
        )  # fmt: skip
        assert any(line.rstrip().endswith(f"shopfloor {told}".rstrip()) for line in done.stdout.splitlines()), done
