"""Everything that can be off, named with its value, its exit code and what to type; never with a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .shop import COMMAND, Said, Shop, until

OK = ("--agent", "scripted", "--no-check")
Case = Callable[[Shop], Said]


def bare(shop: Shop) -> Said:
    shop.git("clone", "-q", "--bare", ".", "../bare.git")
    return shop("run", shop.adds("one"), *OK, cwd=shop.root.parent / "bare.git")


def unborn(shop: Shop) -> Said:
    empty = shop.root.parent / "empty"
    subprocess.run(["git", "init", "-q", str(empty)], check=True)
    return shop("run", shop.adds("one"), *OK, cwd=empty)


def detached(shop: Shop) -> Said:
    shop.git("checkout", "-q", "--detach")
    return shop("run", shop.adds("one"), *OK)


def merging(shop: Shop) -> Said:
    shop.git("checkout", "-qb", "other")
    shop.write("README", "theirs\n")
    shop.commit("theirs")
    shop.git("checkout", "-q", "main")
    shop.write("README", "ours\n")
    shop.commit("ours")
    shop.git("merge", "-q", "other", check=False)
    return shop("run", shop.adds("one"), *OK)


def prompt_of(content: bytes) -> Case:
    def case(shop: Shop) -> Said:
        path = shop.prompts / "odd.md"
        path.write_bytes(content)
        return shop("run", str(path), *OK)

    return case


def given(*words: str) -> Case:
    return lambda shop: shop("run", shop.adds("one"), *words)


def unreadable(shop: Shop) -> Said:
    # A loop of links cannot be read by anybody, root included.
    path = shop.prompts / "loop.md"
    path.symlink_to(path)
    return shop("run", str(path), *OK)


def one_name(shop: Shop) -> Said:
    other = shop.prompts / "more" / "one.md"
    other.parent.mkdir()
    other.write_text("# Another\n\ngo\n")
    return shop("run", shop.adds("one"), str(other), *OK)


def read_only(shop: Shop) -> Said:
    # Root may write anywhere: a file where the folder should be stops it all the same.
    (shop.root / ".work").write_text("in the way")
    return shop("run", shop.adds("one"), *OK)


def off_settings(shop: Shop) -> Said:
    shop.write(".shopfloor.toml", 'max_paralel = 3\ntimeout = "soon"\n')
    return shop("run", shop.adds("one"), *OK)


CASES: list[tuple[str, Case, int, str, str]] = [
    ("no repository", lambda shop: shop("status", cwd=shop.root.parent), 3, "not a git repository", "git init"),
    ("no folder", lambda shop: shop("-C", "nowhere", "status"), 3, "'nowhere'", ""),
    ("bare", bare, 4, "is bare", "git clone"),
    ("unborn", unborn, 4, "has no commit yet", "git commit"),
    ("detached", detached, 4, "is detached", "git switch"),
    ("merging", merging, 4, "a merge is under way", "git merge --abort"),
    ("missing prompt", lambda shop: shop("run", "nix.md", *OK), 2, "nix.md: there is no such file", ""),
    ("unreadable prompt", unreadable, 2, "loop.md: cannot be read", ""),
    ("folder as prompt", lambda shop: shop("run", str(shop.prompts), *OK), 2, "is a folder", ""),
    ("empty prompt", prompt_of(b""), 2, "is empty", ""),
    ("prompt not UTF-8", prompt_of(b"# caf\xe9\n"), 2, "is not UTF-8: byte 5 is 0xe9", ""),
    ("unknown key", prompt_of(b"---\ndepend_on: x\n---\ngo\n"), 2, "odd.md:2: there is no key 'depend_on'", ""),
    ("needs nobody", prompt_of(b"---\ndepends_on: nix\n---\ngo\n"), 2, "waits for 'nix', which is not there", ""),
    ("needs itself", prompt_of(b"---\ndepends_on: odd\n---\ngo\n"), 2, "waits for itself", ""),
    ("given twice", lambda shop: shop("run", shop.adds("a"), shop.adds("a"), *OK), 2, "is given twice", ""),
    ("one name for two", one_name, 2, "one", ""),
    ("no prompt", lambda shop: shop("run", *OK), 2, "no prompt was given", "shopfloor run prompts/*.md"),
    ("no check", given("--agent", "scripted"), 4, "there is no check", "--no-check"),
    ("red base", given("--agent", "scripted", "--check", "exit 7"), 4, "'exit 7' fails on main", "--allow-red-base"),
    ("no agent", given("--no-check"), 2, "no agent is chosen", "--agent"),
    (
        "agent not there",
        given("--no-check", "--agent", "nonesuch-4 -p"),
        3,
        "'nonesuch-4' is not found on PATH",
        "install",
    ),
    ("agent misspelt", given("--no-check", "--agent", "scriptd"), 3, "did you mean 'scripted'?", ""),
    ("agent not quoted well", given("--no-check", "--agent", "a 'b"), 2, "cannot be split into words", ""),
    ("unseen cost", given("--no-check", "--agent", "cat -", "--budget", "5"), 4, "what agent 'cat' spends", "--budget"),
    ("odd budget", given(*OK, "--budget", "much"), 2, "budget = 'much'", ""),
    ("odd number", given(*OK, "--max-parallel", "0"), 2, "max_parallel = '0'", ""),
    ("review and land", given(*OK, "--review", "--no-land"), 2, "--review", ""),
    ("check and none", given(*OK, "--check", "true"), 2, "exclude each other", ""),
    ("resume and prompts", given("--resume"), 2, "leave PROMPTS out", ""),
    ("nothing to resume", lambda shop: shop("run", "--resume"), 3, "there is no unfinished run", ""),
    ("off settings", off_settings, 2, "max_paralel", ""),
    ("no folder for the log", read_only, 4, ".work", ""),
    ("no such option", lambda shop: shop("run", "--nix"), 2, "no such option", "shopfloor run --help"),
    ("no such verb", lambda shop: shop("stauts"), 2, "did you mean 'status'?", "shopfloor --help"),
    ("nothing to show", lambda shop: shop("show", "nix"), 3, "there has been no run here yet", ""),
    ("nothing to watch", lambda shop: shop("watch"), 3, "there has been no run here yet", ""),
    ("nothing to pause", lambda shop: shop("pause"), 4, "no run is going on", ""),
    ("nothing to land", lambda shop: shop("land"), 3, "there has been no run here yet", ""),
]


@pytest.mark.parametrize(("case", "code", "named", "hint"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_off_is_named(shop: Shop, case: Case, code: int, named: str, hint: str) -> None:
    said = case(shop)
    assert said.code == code, said
    first, *rest = said.err.splitlines()
    assert first.startswith("shopfloor: "), said
    assert named in said.err
    assert hint in "\n".join(rest), said
    assert "Traceback" not in said.err
    assert not (shop.root / ".work" / "events.jsonl").exists() or "run.started" not in log_of(shop)


def log_of(shop: Shop) -> str:
    return (shop.root / ".work" / "events.jsonl").read_text()


def test_an_error_in_json_is_an_object_on_stdout(shop: Shop) -> None:
    said = shop("show", "nix", "--json")
    assert said.code == 3
    error = said.json["error"]
    assert error["kind"] == "NotFound"
    assert error["exit_code"] == 3
    assert "'nix'" in error["message"]
    assert error["hint"]
    assert shop("run", "--json").json["error"]["exit_code"] == 2
    assert shop("status", "--json", "--nix").json["error"]["exit_code"] == 2


def test_a_traceback_comes_only_with_debug(shop: Shop) -> None:
    assert "Traceback" not in shop("show", "nix").err
    assert "Traceback" in shop("--debug", "show", "nix").err
    assert "Traceback" in shop("show", "nix", "--debug").err


def test_an_order_is_found_by_a_unique_beginning(shop: Shop) -> None:
    shop.configure()
    assert shop("run", shop.adds("apple"), shop.adds("apricot"), shop.adds("bean")).code == 0
    order = shop("show", "b", "--json").json["record"]["order"]
    assert order["name"] == "bean"
    assert shop("show", order["id"]).code == 0
    several = shop("show", "ap")
    assert several.code == 2
    assert "apple" in several.err
    assert "apricot" in several.err
    near = shop("show", "appel")
    assert near.code == 3
    assert "did you mean 'apple'" in near.err


def test_looking_works_where_a_run_could_not_start(shop: Shop) -> None:
    shop.configure()
    assert shop("run", shop.adds("one")).code == 0
    shop.git("checkout", "-q", "--detach")
    for words in (("status",), ("show", "one"), ("log", "one"), ("diff", "one"), ("watch",), ("doctor",)):
        assert shop(*words).code == (1 if words[0] == "doctor" else 0), words


def test_hooks_and_signing_of_a_person_do_not_block_a_run(shop: Shop) -> None:
    shop.configure()
    for hook in ("pre-commit", "post-checkout", "reference-transaction", "post-merge"):
        path = shop.root / ".git" / "hooks" / hook
        path.write_text("#!/bin/sh\necho blocked >&2\nexit 1\n")
        path.chmod(0o755)
    shop.git("config", "commit.gpgSign", "true")
    shop.git("config", "gpg.program", "false")
    shop.git("config", "core.editor", "false")
    said = shop("run", shop.adds("one"))
    assert said.code == 0, said
    assert shop.git("show", "main:one.txt") == "one"


def test_a_corrupt_line_in_the_log_is_left_out_and_told(shop: Shop) -> None:
    shop.configure()
    assert shop("run", shop.adds("one")).code == 0
    log = shop.root / ".work" / "events.jsonl"
    with log.open("ab") as file:
        file.write(b'{"half": \xff\n[]\n')
    assert "1 landed" in shop("status").out
    assert shop("run", shop.adds("two")).code == 0
    assert "2" in shop("doctor").out
    doctor = shop("doctor", "--json").json
    assert any("line" in finding["what"] for finding in doctor["findings"]), doctor


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_the_answer_is_named(shop: Shop, unbuffered: str) -> None:
    shop.configure()
    assert shop("run", shop.adds("one")).code == 0
    for words in (("status", "--all"), ("--version",)):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*COMMAND, *words], cwd=shop.root, env={**shop.env, "PYTHONUNBUFFERED": unbuffered}, check=False,
                stdout=full, stderr=subprocess.PIPE,
            )  # fmt: skip
        assert done.returncode == 1, words
        assert b"no space left" in done.stderr.lower()
        assert b"Traceback" not in done.stderr


def test_a_full_disk_under_the_log_is_refused(shop: Shop) -> None:
    small = shop.root / ".work"
    small.mkdir()
    (small / "events.jsonl").symlink_to("/dev/full")
    said = shop("run", shop.adds("one"), *OK)
    assert said.code in (1, 4, 5), said
    assert "Traceback" not in said.err
    assert "events.jsonl" in said.err


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """The folder cannot be written, also not by root."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    if subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False).returncode:
        pytest.skip("root may write anywhere, and may not mount here: run as an ordinary user")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder, folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_work_folder_can_still_be_looked_at(shop: Shop) -> None:
    shop.configure()
    assert shop("run", shop.adds("one")).code == 0
    with unwritable(shop.root / ".work"):
        assert shop("status").code == 0
        said = shop("run", shop.adds("two"))
        assert said.code == 4, said
        assert "read-only" in said.err


def test_an_endless_word_does_not_fill_the_screen(shop: Shop) -> None:
    for verb in ("show", "run", "status"):
        said = shop(verb, "y" * 50_000)
        assert said.code in (2, 3), said.code
        assert "yyy … yyy" in said.err
        assert len(said.err) < 3000


def test_workspaces_removed_under_a_run_are_named_and_made_anew(shop: Shop) -> None:
    shop.configure()
    with shop.start("run", "--plain", shop.waits("one")) as run:
        run.until("one", "started")
        shutil.rmtree(shop.root / ".worktrees")
        shop.gate.touch()
        said = run.end()
    assert said.code == 0, said
    assert "was removed by somebody while it was in use" in said.out
    assert ".worktrees/slot-01" in said.out
    assert "started (attempt 2)" in said.out
    assert shop.git("ls-tree", "--name-only", "main", "one.txt") == "one.txt"


def test_a_work_folder_removed_under_a_run_says_where_the_work_is(shop: Shop) -> None:
    shop.configure()
    wait = f'run = "while [ ! -e {shop.gate} ]; do sleep 0.02; done"'
    with shop.start("run", "--plain", shop.prompt("one", 'write = "half.txt"', wait)) as run:
        until(lambda: any(shop.root.glob(".worktrees/*/half.txt")), "the agent has done the half of it")
        # In one step: a folder that somebody writes into may never be seen empty.
        (shop.root / ".work").rename(shop.root.parent / "removed")
        shutil.rmtree(shop.root.parent / "removed", ignore_errors=True)
        said = run.end()
    assert said.code == 5, said
    assert "git branch --list 'shopfloor/*'" in said.out
    (branch,) = shop.git("branch", "--list", "--format=%(refname)", "shopfloor/*").split()
    assert shop.git("show", f"{branch}:half.txt") == ""
    assert shop("run", shop.adds("two")).code == 0


def test_a_branch_left_alone_is_told_until_it_has_the_result(shop: Shop) -> None:
    shop.configure()
    shop.write("README", "a person is at work here\n")
    said = shop("run", shop.adds("one"))
    assert "1 tracked file is modified" in said.out
    assert "main was left alone" in shop("status").out
    shop.git("stash", "-q")
    shop.git("merge", "-q", "--ff-only", "refs/shopfloor/target/main")
    assert "left alone" not in shop("status").out
    assert "left alone" not in shop("status", "--all").out
