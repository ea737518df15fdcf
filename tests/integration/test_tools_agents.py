"""The agents that tests drive are installed once, by a package client, and what cannot be is named with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools import agents
from tools.agents import Agent, cache, install

GOOD = """#!/bin/sh
echo "$@" >> "$CALLS"
while [ "$1" != --prefix ]; do shift; done
mkdir -p "$2/node_modules/tool-here/bin" && echo '#!/bin/sh' > "$2/node_modules/tool-here/bin/tool"
"""
TOOL = Agent(
    *("tool", "1.2.3", "The Tool", "npm"),
    ("tool-{platform}@1.2.3",),
    (("tool", "node_modules/tool-{platform}/bin/tool"),),
)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package client that notes how it was called; where the cache is, and what this machine is called."""
    client = tmp_path / "bin" / "npm"
    client.parent.mkdir()
    client.write_text(GOOD)
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv(agents.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(agents, "place", lambda: "here")
    return tmp_path / "calls"


def test_an_agent_is_installed_once_without_scripts_and_found_in_one_folder(calls: Path) -> None:
    assert TOOL.missing == "The Tool 1.2.3: it is not installed; type: make agents AGENTS=tool"
    assert install(TOOL) == ""
    assert install(TOOL) == ""
    (call,) = calls.read_text().splitlines()
    assert "--ignore-scripts" in call
    assert call.endswith("tool-here@1.2.3")
    assert TOOL.missing == ""
    assert os.access(TOOL.bin / "tool", os.X_OK)
    assert TOOL.folder == cache() / "tool-1.2.3"


def test_what_cannot_be_installed_is_named_with_the_reason(calls: Path, tmp_path: Path) -> None:
    client = tmp_path / "bin" / "npm"
    client.write_text("#!/bin/sh\necho 'no such package' >&2\nexit 1\n")
    assert install(TOOL) == "it could not be installed: no such package"
    assert not TOOL.folder.exists()
    assert TOOL.missing == ("The Tool 1.2.3: it could not be installed: no such package; type: make agents AGENTS=tool")
    client.write_text(GOOD)
    assert install(TOOL) == ""
    assert TOOL.missing == ""
    assert not TOOL.failed.exists()


def test_half_an_installation_is_made_anew(calls: Path) -> None:
    (TOOL.folder / "node_modules").mkdir(parents=True)
    assert not TOOL.installed
    assert install(TOOL) == ""
    assert TOOL.installed


def test_a_package_without_its_program_is_no_installation(calls: Path) -> None:
    moved = Agent("moved", "1", "Moved", "npm", TOOL.packages, (("tool", "node_modules/elsewhere"),))
    assert install(moved) == "its packages have no node_modules/elsewhere: not for here, or moved"
    assert not moved.folder.exists()


def test_what_no_registry_has_says_what_to_do(calls: Path) -> None:
    nowhere = Agent("nowhere", "1", "Nowhere", "", hint="install it from its source")
    assert install(nowhere) == "install it from its source"
    assert nowhere.missing == "Nowhere: install it from its source"
    assert not calls.exists()


def test_every_agent_of_the_list_is_pinned() -> None:
    for known in agents.AGENTS:
        pins = [package.rpartition("@" if known.client == "npm" else "==") for package in known.packages]
        assert all(name and version[0].isdigit() for name, _, version in pins), known.name
        assert known.hint or known.programs
