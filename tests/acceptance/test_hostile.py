"""Names and words that try to be paths, options, refs, control characters or markup: refused by name, or carried."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from .shop import COMMAND, LONGEST_S, Shop

TRICKS = "\x1b]0;TITLE\x07\x1b]52;c;aGk=\x07\x1b[2J\x1b[10;10H\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\x9b31m\x7f\x08"
BIDI = "\u202egnp.exe\u2066\u200b\ufeff"
PLAIN = "%s %n {0} {prompt} $(touch pwned) `touch pwned` [red]x[/] <b>&amp; ![x](y) 'q' \"Q\" \\ ; rm -rf x"
STEMS = (
    *("-rf", "--upload-pack=touch pwned", "refs:heads:main", "HEAD", "x.lock", "@{-1}", "a..b", "~^:?*[\\", ".git"),
    *(
        "trailing. ",
        "$(touch pwned)",
        "`touch pwned`;x",
        "%s{0}",
        "[red]x[\u2044]",
        "<b>&",
        "e\u0301\u0327",
        "日本",
        "🐛",
    ),
    *("n" * 240, BIDI),
)
FORMS = re.compile(r"\x1b\[[0-9;]*m")


def raw(text: str) -> list[str]:
    """What in a text could make a terminal do something, or turn the writing round."""
    bare = FORMS.sub("", text)
    return [char for char in bare if char not in "\n\r\t" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")]


def on_a_terminal(shop: Shop, *words: str) -> str:
    """What a command writes to a terminal, byte for byte."""
    ours, theirs = pty.openpty()
    env = {**shop.env, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen([*COMMAND, *words], cwd=shop.root, env=env, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        said = b""
        while select.select([ours], [], [], LONGEST_S)[0]:
            try:
                said += os.read(ours, 1 << 16)
            except OSError:
                break
    os.close(ours)
    return said.decode()


BODY = re.compile(r"\n(?:(?:- [a-z0-9-]+ \([0-9a-f]{12}\)\n)+\n)?(?:Shopfloor-\w+: [\w./-]+(?:, [\w./-]+)*\n?)+")
"""Behind the first line of a commit of ours: what a step of several merges holds, and trailers."""


def nothing_outside(shop: Shop) -> None:
    """No ref but ours, no file that a name has asked for."""
    refs = shop.git("for-each-ref", "--format=%(refname)").splitlines()
    assert [
        ref for ref in refs if not ref.startswith(("refs/heads/main", "refs/heads/shopfloor/", "refs/shopfloor/"))
    ] == []
    assert re.sub(r"[\w/.-]", "", "".join(refs)) == ""
    assert list(shop.root.parent.rglob("pwned")) == []
    around = {path.name for path in shop.root.parent.iterdir()}
    assert around <= {"repo", "prompts", "home", "gate", "tmux", "agent"}


def messages(shop: Shop, ref: str = "main") -> list[str]:
    return shop.git("log", "-z", "--format=%B", ref).split("\0")


def one_safe_line(text: str) -> bool:
    return "\n" not in text and raw(text) == []


def test_names_of_files_are_carried(shop: Shop) -> None:
    shop.configure()
    prompts = []
    for number, stem in enumerate(STEMS):
        path = shop.prompts / f"{stem}.md"
        path.write_text(f'```script\n[[do]]\nwrite = "{number}.txt"\n```\n')
        prompts.append(os.path.relpath(path, shop.root))
    said = shop("run", "--plain", "--max-parallel", "2", "--", *prompts)
    assert said.code == 0, said
    assert f"{len(STEMS)} orders: {len(STEMS)} landed" in said.out
    assert raw(said.out + said.err) == []
    nothing_outside(shop)
    for message in messages(shop):
        first, _, rest = message.rstrip("\n").partition("\n")
        assert one_safe_line(first)
        assert rest == "" or BODY.fullmatch(rest), message
    names = [order["name"] for order in shop("status", "--json", "--all").json["orders"]]
    assert len(set(names)) == len(STEMS)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)


@pytest.mark.parametrize("name", [b"a\nb.md", b"\x1b]0;x\x07.md", b"caf\xe9.md", b"\x7f.md"])
def test_names_of_files_that_no_terminal_can_show_are_refused(shop: Shop, name: bytes) -> None:
    path = os.fsencode(shop.prompts) + b"/" + name
    Path(os.fsdecode(path)).write_text("# Go\n\ngo\n")
    for words in ((), ("--json",)):
        said = shop("run", os.fsdecode(path), "--agent", "scripted", "--no-check", *words)
        assert said.code == 2
        assert "control character; rename it" in said.err
        assert raw(said.err + said.out) == []
    assert said.json["error"]["kind"] == "UsageError"


def test_titles_and_words_of_front_matter(shop: Shop) -> None:
    shop.configure()
    titles = [TRICKS, BIDI, PLAIN, "x\n\nShopfloor-Order: forged\nSigned-off-by: x", "t" * 10_000, "--amend", "- x"]
    prompts = []
    for number, title in enumerate(titles):
        text = json.dumps(title)
        path = shop.prompts / f"t{number}.md"
        path.write_text(f'---\ntitle: {text}\n---\n```script\n[[do]]\nwrite = "{number}.txt"\n```\n')
        prompts.append(str(path))
    said = shop("run", "--plain", *prompts)
    assert said.code == 0, said
    assert raw(said.out) == []
    nothing_outside(shop)
    subjects = [message.split("\n")[0] for message in messages(shop)]
    assert all(map(one_safe_line, subjects))
    assert any(PLAIN in subject for subject in subjects), "what is harmless stays as it is"
    forged = shop.git("log", "--format=%(trailers:key=Shopfloor-Order,valueonly)", "main").split()
    assert "forged" not in forged
    assert shop.git("log", "--format=%(trailers:key=Signed-off-by)", "main").strip() == ""
    orders = {order["name"]: order["title"] for order in shop("status", "--json", "--all").json["orders"]}
    assert orders["t2"] == PLAIN
    for name in orders:
        assert raw(on_a_terminal(shop, "show", name)) == []
    assert raw(on_a_terminal(shop, "status", "--all")) == []


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ('files: "../../x"', "odd.md:2: files = '../../x'"),
        ('files: ["ok", /etc/passwd]', "odd.md:2: files"),
        ("files: .git/config", "odd.md:2: files = '.git/config'"),
        ("files: ~root/x", "odd.md:2: files"),
        ("depends_on: ../../x", "odd.md:2: waits for '../../x', which is not there"),
        ("depends_on: -rf", "odd.md:2: waits for '-rf'"),
        (r'depends_on: "\u001b]0;x\u0007"', r"odd.md:2: depends_on = '\x1b]0;x\x07'"),
        ("agent: ../../x", "there is no agent '../../x'"),
        ("agent: --help", "there is no agent '--help'"),
        (r'title: "\n"', "odd.md:2: title"),
        ("\x1b]0;x\x07: y", "odd.md:2: there is no key '\ufffd]0;x\ufffd'"),
    ],
)
def test_words_of_front_matter_that_are_refused(shop: Shop, head: str, told: str) -> None:
    path = shop.prompts / "odd.md"
    path.write_text(f"---\n{head}\n---\ngo\n")
    said = shop("run", str(path), "--agent", "scripted", "--no-check")
    assert said.code in (2, 3)
    assert told in said.err, said
    assert raw(said.err) == []


def agent_that_prints(shop: Shop, content: bytes) -> str:
    """A program beside the repository that prints these bytes and changes something."""
    folder = shop.root.parent / "agent"
    folder.mkdir()
    (folder / "says").write_bytes(content)
    program = folder / "agent"
    program.write_text(f'#!/bin/sh\ncat "{folder}/says"\ncat "{folder}/says" >&2\ndate > made.txt\n')
    program.chmod(0o755)
    return str(program)


def test_what_an_agent_and_a_check_print(shop: Shop) -> None:
    words = f"{TRICKS} {BIDI} {PLAIN}"
    agent = agent_that_prints(shop, words.encode() + b"\xff\xfe\0\n" + b"no newline at the end")
    check = f"cat {shop.root.parent / 'agent' / 'says'}; test ! -e made.txt"
    path = shop.prompts / "noisy.md"
    path.write_text("# Noisy\n\ngo\n")
    (shop.root / ".shopfloor.toml").write_text(f"rework = 0\ncheck = {json.dumps(check)}\n")
    shop.commit("settings")
    said = shop("run", "--plain", str(path), "--agent", agent)
    assert said.code == 1, said
    assert raw(said.out + said.err) == []
    assert PLAIN in said.out or PLAIN in shop("show", "noisy").out, "what is harmless stays as it is"
    for verb in (("show", "noisy"), ("log", "noisy"), ("log", "noisy", "--raw"), ("status",), ("diff", "noisy")):
        assert raw(on_a_terminal(shop, *verb)) == [], verb
        answer = shop(*verb, "--json")
        assert answer.code == 0
        assert raw(answer.out) == [], verb
    heard = json.dumps(shop("log", "noisy", "--json").json, ensure_ascii=False)
    assert json.dumps(PLAIN, ensure_ascii=False)[1:-1] in heard
    nothing_outside(shop)


def test_what_an_agent_asks(shop: Shop) -> None:
    question = f"{TRICKS}{BIDI}\nor {PLAIN}?"
    event = json.dumps({"type": "ask", "data": {"question": question}})
    done = json.dumps({"type": "finish", "data": {"status": "success", "result": TRICKS}})
    agent = agent_that_prints(shop, f"{event}\n{done}\n".encode())
    shop.configure()
    (shop.prompts / "asks.md").write_text("# Asks\n\ngo\n")
    said = shop("run", "--plain", str(shop.prompts / "asks.md"), "--agent", agent, "--driver", "jsonlines")
    assert raw(said.out + said.err) == []
    for verb in (("show", "asks"), ("log", "asks"), ("status",)):
        assert raw(on_a_terminal(shop, *verb)) == [], verb
    record = shop("show", "asks", "--json").json["record"]
    assert record["question"] == question, "JSON says what was asked, whatever it is"
    assert raw(shop("show", "asks", "--json").out) == []


@pytest.mark.parametrize(
    "words",
    [
        ("show", "../../x"),
        ("show", "--", "-rf"),
        ("log", TRICKS),
        ("diff", BIDI),
        ("retry", "refs/heads/main"),
        ("accept", "HEAD"),
        ("stop", "@{-1}"),
        ("answer", "a..b", TRICKS),
        ("status", "--run", TRICKS),
        ("show", "\udcff"),
        ("-C", TRICKS, "status"),
        ("run", "--agent", TRICKS, "--no-check", "x.md"),
        ("run", f"--{TRICKS}"),
        (TRICKS,),
        ("run", "--target", "--upload-pack=x", "x.md"),
        ("run", "--target", "a..b", "x.md"),
        ("run", "--target", "\u202ex", "x.md"),
    ],
    ids=ascii,
)
def test_names_on_the_command_line(shop: Shop, words: tuple[str, ...]) -> None:
    if "x.md" in words:
        words = (*words[:-1], shop.adds("one"))
    told = shop(*words)
    assert told.code in (2, 3, 4), told
    assert raw(told.out + told.err) == []
    assert "unexpected" not in told.err
    nothing_outside(shop)


@pytest.mark.parametrize("words", [("show", TRICKS), ("show", "\udcff"), (f"--{TRICKS}\udcff",)], ids=ascii)
def test_an_error_about_any_word_is_json(shop: Shop, words: tuple[str, ...]) -> None:
    told = shop(*words, "--json")
    assert told.json["error"]["exit_code"] == told.code
    assert told.code in (2, 3)
    assert raw(told.out) == []


def test_lines_that_others_write_into_the_log_while_a_run_goes_on(shop: Shop) -> None:
    """Requests and orders of any words and types: answered or left alone, and the run goes on."""
    shop.configure()
    log = shop.root / ".work" / "events.jsonl"
    ids: list[Any] = ["../../x", "-rf", "HEAD", TRICKS, BIDI, "", "n" * 10_000, None, {}, 7]
    lines = [b"garbage \xff\xfe\x1b]0;x\x07", b"[" * 100_000, b"{}", b"null", b"\0" * 100]
    for number, order in enumerate(ids):
        known = {"event_id": f"evt-{number}", "timestamp": "0001-01-01T00:00:00+23:59", "actor": TRICKS}
        data = {"work_order_id": order, "title": TRICKS, "priority": 10**30, "shopfloor": {"files": ["../.."]}}
        lines.append(json.dumps({**known, "event_type": "work_order.created", "data": data}).encode())
        verbs: tuple[Any, ...] = ("stop", "retry", TRICKS, {})
        for verb in verbs:
            asked = {"verb": verb, "work_order_id": order, "text": TRICKS if verb != "stop" else order}
            if verb != "stop" or order:  # stop without an order ends the run, whoever asks
                lines.append(json.dumps({**known, "event_type": "request.made", "data": asked}).encode())
        forged = {"work_order_id": order, "outcome": "done", "generation": 1}
        lines.append(json.dumps({**known, "event_type": "work_order.settled", "data": forged}).encode())
    written = b"\n".join(lines) + b"\n"
    with shop.start("run", "--plain", shop.waits("one"), shop.adds("two")) as running:
        running.until("one", "started")
        with log.open("ab") as file:
            file.write(written)
        running.until("there is no request")
        shop.gate.touch()
        said = running.end()
    assert said.code == 0, said
    assert raw(said.out) == []
    assert written in log.read_bytes(), "what others wrote stays as it is"
    nothing_outside(shop)
    assert set(shop.git("ls-tree", "--name-only", "main").split()) >= {"one.txt", "two.txt"}
    assert list(shop.root.rglob("x.a*")) == [], "nobody has worked on an order of somebody else's"
    told = shop("doctor")
    assert "lines of the log claim what only the controller may say" in told.out
    assert raw(told.out) == []
    for order in ("../../x", TRICKS):
        assert raw(on_a_terminal(shop, "show", "--", order)) == []
    assert raw(on_a_terminal(shop, "status", "--all")) == []
    assert shop("run", "--plain", shop.adds("three")).code == 0
    nothing_outside(shop)


@pytest.mark.parametrize("branch", ["-x", "$(touch${IFS}pwned)", "a;b|c&d", "feat/ünï", "%s{0}<red>", "x'y\"z", "HEAD"])
def test_a_branch_of_any_name_takes_the_work(shop: Shop, branch: str) -> None:
    shop.configure()
    shop.git("update-ref", f"refs/heads/{branch}", "HEAD")
    shop.git("symbolic-ref", "HEAD", f"refs/heads/{branch}")
    said = shop("run", "--plain", shop.adds("one"))
    assert said.code == 0, said
    assert "one.txt" in shop.git("ls-tree", "--name-only", f"refs/heads/{branch}")
    assert list(shop.root.parent.rglob("pwned")) == []


@pytest.mark.parametrize("branch", [b"caf\xe9", "\u202emain".encode(), "a\u2028b".encode(), "\x9bm".encode()])
def test_a_branch_that_no_terminal_can_show_is_refused(shop: Shop, branch: bytes) -> None:
    shop.configure()
    ref = os.fsdecode(b"refs/heads/" + branch)
    shop.git("update-ref", ref, "HEAD")
    shop.git("symbolic-ref", "HEAD", ref)
    said = shop("run", "--plain", shop.adds("one"))
    assert said.code == 4, said
    assert "signs in its name" in said.err
    assert "git branch -m" in said.err
    assert raw(said.err) == []


def test_a_repository_in_a_folder_that_git_cannot_tell(tmp_path: Path) -> None:
    folder = tmp_path / "two\nlines"
    folder.mkdir()
    shop = Shop(folder)
    said = shop("run", shop.adds("one"), "--agent", "scripted", "--no-check")
    assert said.code == 4, said
    assert "line break" in said.err


def test_a_repository_in_a_folder_of_odd_name(tmp_path: Path) -> None:
    folder = tmp_path / f"-x $(touch pwned) 'q' \"Q\" \\ {BIDI}\x1b[2J %s [red] ü"
    folder.mkdir()
    shop = Shop(folder)
    shop.configure()
    said = shop("run", "--plain", os.path.relpath(shop.adds("one"), shop.root))
    assert said.code == 0, said
    assert raw(said.out + said.err + on_a_terminal(shop, "show", "one")) == []
    assert list(tmp_path.rglob("pwned")) == []


def test_paths_that_an_agent_makes_are_carried(shop: Shop) -> None:
    """Names that a file can have and a line or a terminal cannot: the change is whole and the report readable."""
    shop.configure()
    names = [
        b"-rf",
        b"a\nb",
        b"caf\xe9",
        TRICKS.replace("/", "_").encode(),
        BIDI.encode(),
        b'"q"\\',
        b" lead",
        b"trail ",
    ]
    made = "\n".join(f"open({name!r}, 'wb').write(b'caf\\xe9\\n')" for name in names)
    (shop.prompts / "maker.py").write_text(made)
    said = shop("run", "--plain", shop.prompt("odd", f'run = "python3 {shop.prompts}/maker.py"'))
    assert said.code == 0, said
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "-z", "--name-only", "main"], cwd=shop.root, check=True, capture_output=True
    )
    assert set(names) <= set(listed.stdout.split(b"\0"))
    assert raw(said.out) == []
    for verb in (("show", "odd"), ("diff", "odd"), ("diff", "odd", "--stat")):
        assert raw(on_a_terminal(shop, *verb)) == [], verb
        assert raw(shop(*verb, "--json").out) == []
    assert len(shop("diff", "odd", "--json").json["files"]) == len(names)
    patch = subprocess.run(
        [*COMMAND, "diff", "odd"], cwd=shop.root, env=shop.env, check=True, capture_output=True
    ).stdout
    shop.git("checkout", "-q", "main~1")
    subprocess.run(["git", "apply", "--index", "-"], input=patch, cwd=shop.root, check=True)
    assert shop.git("write-tree") == shop.git("rev-parse", "main^{tree}"), "not a byte of a patch is changed"
