"""A line of 100 MB where lines are read: memory stays bounded, the line is told or cut, everything else goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .shop import COMMAND, LONGEST_S, Said, Shop

MIB = 1 << 20
LONG = 100 * MIB
MOST_MIB = 200
# A process between: what a child used at most is counted from its parent's memory on.
MEASURE = """
import os, subprocess, sys
done = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(done.pid, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss >> 10))
sys.exit(os.waitstatus_to_exitcode(status))
"""
# So many bytes without a newline, then one.
SHOUT = f"head -c {LONG} /dev/zero | tr '\\0' x; echo"


def measured(shop: Shop, *words: str) -> tuple[Said, int]:
    """What a command came to, and the most memory that it used, in MiB."""
    note = shop.root.parent / "peak"
    command = [sys.executable, "-c", MEASURE, str(note), *COMMAND, *words]
    done = subprocess.run(
        command, cwd=shop.root, env=shop.env, check=False, capture_output=True, text=True, timeout=LONGEST_S
    )
    return Said(done.returncode, done.stdout, done.stderr), int(note.read_text())


def program(shop: Shop, *lines: str) -> str:
    path = shop.root.parent / "agent"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def test_in_the_log(shop: Shop) -> None:
    shop.configure()
    assert shop("run", "--plain", shop.adds("one")).code == 0
    log = shop.root / ".work" / "events.jsonl"
    lines = log.read_bytes().count(b"\n")
    with log.open("ab") as file:
        for _ in range(LONG // MIB):
            file.write(b"x" * MIB)
        file.write(b"\n")
    said, peak = measured(shop, "run", "--plain", shop.adds("two"))
    assert said.code == 0, said
    assert peak < MOST_MIB
    said, peak = measured(shop, "doctor")
    assert f"line {lines + 1}" in said.out.replace("'line': ", "line "), said
    assert f"{LONG} bytes long" in said.out
    assert peak < MOST_MIB
    orders = shop.git("ls-tree", "--name-only", "main").splitlines()
    assert {"one.txt", "two.txt"} <= set(orders)
    assert log.stat().st_size > LONG, "nothing of the log is taken away"


@pytest.mark.parametrize("driver", ["command", "jsonlines"])
def test_of_an_agent(shop: Shop, driver: str) -> None:
    shop.configure()
    finish = json.dumps({"type": "finish", "data": {"status": "success", "result": "well"}})
    agent = program(shop, SHOUT, f"echo '{finish}'", "echo made > made.txt", SHOUT.removesuffix("; echo"))
    said, peak = measured(shop, "run", "--plain", shop.adds("one"), "--agent", agent, "--driver", driver)
    assert said.code == 0, said
    assert peak < MOST_MIB
    assert "made.txt" in shop.git("ls-tree", "--name-only", "main")
    said, peak = measured(shop, "log", "one", "--json")
    entries = said.json["entries"]
    assert peak < MOST_MIB
    assert [entry["data"].get("cut") for entry in entries if entry["text"].startswith("xxx")] == [True, True]
    assert any("success" in json.dumps(entry) for entry in entries), "what came behind it was heard"
    kept = shop.root / ".work" / "attempts"
    assert all(path.stat().st_size < 70 * MIB for path in kept.rglob("*") if path.is_file())


def test_of_a_check(shop: Shop) -> None:
    check = program(shop, SHOUT, "echo the last words", "exit 1")
    (shop.root / ".shopfloor.toml").write_text('agent = "scripted"\nrework = 0\n')
    shop.commit("settings")
    prompt = shop.adds("one", head=f"checks: {check}")
    said, peak = measured(shop, "run", "--plain", prompt)
    assert said.code == 1, said
    assert peak < MOST_MIB
    assert "the last words" in shop("show", "one").out
    assert all(path.stat().st_size < 11 * MIB for path in (shop.root / ".work" / "evidence").rglob("*.log"))


def big(path: Path, content: bytes) -> str:
    with path.open("wb") as file:
        file.write(content)
        file.truncate(LONG)
    return str(path)


def test_in_files_that_people_write(shop: Shop) -> None:
    shop.configure()
    path = big(shop.prompts / "big.md", b"# Big\n")
    said, peak = measured(shop, "run", path)
    assert (said.code, f"big.md: has {LONG} bytes; more than 10 MB is no prompt" in said.err) == (2, True), said
    assert peak < MOST_MIB
    big(shop.root / ".shopfloor.toml", b'agent = "scripted"\n# ')
    said, peak = measured(shop, "run", shop.adds("one"))
    assert (said.code, ".shopfloor.toml: has more than 1 MB" in said.err) == (2, True), said
    assert peak < MOST_MIB
