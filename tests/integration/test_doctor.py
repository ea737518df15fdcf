"""What ``doctor`` finds, on real repositories."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from shopfloor.app import Finding, Shopfloor

from .lab import Lab, git, script, write


def findings(repo: Path, **flags: object) -> list[Finding]:
    async def body() -> list[Finding]:
        async with Shopfloor.open(repo, flags=flags) as floor:
            return await floor.doctor()

    return asyncio.run(body())


def said(found: list[Finding], level: str) -> str:
    return "\n".join(f"{f.what} [{f.hint}]" for f in found if f.level == level)


def test_a_good_place_has_nothing_bad(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    found = findings(lab.repo, check="true")
    assert not said(found, "bad")
    assert "branch main" in said(found, "ok")


def test_what_is_off_is_named_with_what_to_type(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    (lab.repo / "a.txt").write_text("modified\n")
    git(lab.repo, "config", "commit.gpgSign", "true")
    (lab.repo / ".gitmodules").write_text('[submodule "lib"]\n\tpath = lib\n\turl = ../lib\n')
    found = findings(lab.repo, agents={"ghost": {"command": ["no-such-agent-anywhere"]}})
    assert "no-such-agent-anywhere" in said(found, "bad")
    warned = said(found, "warn")
    assert "a.txt" in warned
    assert "commit.gpgSign" in warned
    assert "there is no check" in warned
    assert "1 tracked file is modified" in warned
    assert "submodules" in warned
    assert "git submodule update --init" in warned


def test_damage_to_the_log_and_an_unfinished_run_are_told(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.run(lab.prompt("asks", script({"ask": "which?"}, write("x.txt"))))
    with (lab.repo / ".work/events.jsonl").open("ab") as log:
        log.write(b"{this is no event}\n")
    found = findings(lab.repo, check="true")
    assert "this is no event" in said(found, "bad")
    assert "run --resume" in said(found, "warn")


def test_a_read_only_work_folder_is_told(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.run(lab.prompt("add", script(write("x.txt"))))
    work = lab.repo / ".work"
    if os.geteuid() != 0:
        work.chmod(0o500)
        assert "read-only" in said(findings(lab.repo, check="true"), "bad")
        return
    if subprocess.run(["mount", "--bind", work, work], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here: run as root with CAP_SYS_ADMIN, or as an ordinary user")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", work, work], check=True)
        assert "read-only" in said(findings(lab.repo, check="true"), "bad")
    finally:
        subprocess.run(["umount", work], check=True)
