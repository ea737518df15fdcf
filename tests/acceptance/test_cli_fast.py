"""The two answers that must come at once: with next to no imports, and the same as from the full command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from shopfloor.testing.spec_servers import serving

from .shop import Said, Shop

HEAVY = {"asyncio", "click", "msgspec", "psutil", "rich", "pathlib", "re", "typing", "json", "shopfloor.cli.main"}
_SHOW = """
import json, sys
from shopfloor.fast import main
code = main()
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def loaded_by(shop: Shop, *words: str, cwd: Path | None = None) -> tuple[str, set[str]]:
    """What it said, and every module it loaded; ``json`` is ours, loaded after it."""
    probe = _SHOW.replace("import json, sys", "import sys").replace(
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)",
        "known = sorted(sys.modules); import json; print(json.dumps(known), file=sys.stderr)",
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", probe, *words], cwd=cwd or shop.root, env=shop.env, check=True, capture_output=True
    )
    return done.stdout.decode(), set(json.loads(done.stderr))


def without_ages(text: str) -> str:
    """The time that passes between two answers does not count."""
    return "\n".join(line.split(": finished ")[0].split("; last heard")[0] for line in text.splitlines())


def full(shop: Shop) -> Said:
    """The same question, asked such that the full command answers it."""
    return shop("--no-color", "status")


def test_the_version_loads_nothing(shop: Shop) -> None:
    text, loaded = loaded_by(shop, "--version")
    assert text == shop("--no-color", "--version").out
    assert not HEAVY & loaded
    assert not any(name.startswith("shopfloor.cli") or name == "sqlite3" for name in loaded)


def test_status_comes_from_the_index_with_few_imports(shop: Shop) -> None:
    shop.configure()
    bad = shop.prompt("bad", 'write = "bad.txt"', "cost = 0.5")
    shop(
        "run", shop.adds("good"), bad, shop.adds("later", head="depends_on: bad"), shop.prompt("none", "nothing = true")
    )
    text, loaded = loaded_by(shop, "status")
    assert not HEAVY & loaded
    assert "sqlite3" in loaded
    assert without_ages(text) == without_ages(full(shop).out)
    below = shop.write("deep/er/x", "").parent
    assert without_ages(shop("status", cwd=below).out) == without_ages(text)
    assert without_ages(shop("-C", "deep", "status").out) == without_ages(text)


def test_a_floor_without_a_repository_answers_as_soon(shop: Shop) -> None:
    plain = shop.root.parent / "plain"
    plain.mkdir()
    (plain / "specs.json").write_text(json.dumps([{"word": f"w{n}", "stack_effect": "( n -- n )"} for n in range(5)]))
    with serving(1) as servers:
        shop("fanout", "specs.json", "--agents", *servers.urls, cwd=plain)
    whole = shop("--no-color", "status", cwd=plain).out  # which brings the index up to what was written in a hurry
    assert "5 orders" in whole
    text, loaded = loaded_by(shop, "status", cwd=plain)
    assert not HEAVY & loaded
    assert without_ages(text) == without_ages(whole)
    assert "not a git repository" in shop("status", cwd=shop.prompts).err


def test_both_say_the_same_of_every_state(shop: Shop) -> None:
    shop.configure()
    prompts = [
        shop.prompt("asks", 'ask = "Why?"'),
        shop.adds("good"),
        shop.hangs("stuck"),
        shop.adds("waits", head="depends_on: stuck"),
        shop.prompt("says", 'say = "42"', head="deliverable: answer"),
    ]
    with shop.start("run", "--plain", "--review", *prompts) as run:
        waiting = {"good", "asks", "says"}
        while waiting:
            line = run.until("")
            waiting -= {name for name in waiting if f"  {name} " in line and line.endswith(_SETTLED)}
        run.process.kill()
        run.end()
    want = without_ages(full(shop).out)  # it brings the index up to date, which the killed run did not
    text, loaded = loaded_by(shop, "status")
    assert "sqlite3" in loaded
    assert "click" not in loaded
    for word in ("asking", "verified", "interrupted", "waiting", "answered"):
        assert word in text, text
    assert without_ages(text) == want


_SETTLED = ("verified", '(shopfloor answer asks "…")', "  done")


def test_what_is_unusual_is_left_to_the_full_command(shop: Shop) -> None:
    shop.configure()
    assert "no run yet" in shop("status").out
    assert shop("run", shop.adds("one")).code == 0
    want = without_ages(full(shop).out)
    index = shop.root / ".work" / "index.sqlite"
    whole = index.read_bytes()
    index.write_bytes(whole[:1000])
    assert without_ages(shop("status").out) == want
    index.unlink()
    assert without_ages(shop("status").out) == want
    with (shop.root / ".work" / "events.jsonl").open("ab") as log:
        log.write(b"not an event\n")
    text, loaded = loaded_by(shop, "status")
    assert "click" in loaded, "an index that is older than the log must not answer"
    assert without_ages(text) == want


def test_an_older_run_that_is_not_finished_is_the_one_to_show(shop: Shop) -> None:
    shop.configure()
    assert shop("run", "--review", shop.adds("older")).code == 0
    assert shop("run", shop.adds("newer")).code == 0
    assert shop("reject", "older", "-m", "again").code == 0
    want = without_ages(full(shop).out)
    assert "older" in want
    assert "run --resume" in want
    assert without_ages(shop("status").out) == want


def test_the_package_gives_its_names_when_they_are_used(shop: Shop) -> None:
    import shopfloor

    for name in shopfloor.__all__:
        assert getattr(shopfloor, name) is not None
    assert set(shopfloor.__all__) <= set(dir(shopfloor))
    assert issubclass(shopfloor.Refused, shopfloor.ShopfloorError)
