"""Settings come from the right place, and whatever is off is refused by name."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor import agents
from shopfloor.config import environment, secrets_in, worker_environment
from shopfloor.config import values as v
from shopfloor.config.load import load
from shopfloor.config.proposal import SUBMODULES, findings, proposal
from shopfloor.config.settings import DRIVERS, SETTINGS, Cache, Settings
from shopfloor.domain.errors import NotFound, UsageError
from shopfloor.ports import Profile


def refused(root: Path, **given: Any) -> str:
    with pytest.raises(UsageError) as caught:
        load(root, environment=given.pop("environment", {}), **given)
    return caught.value.message


def write(folder: Path, text: str) -> Path:
    (folder / ".shopfloor.toml").write_text(text, encoding="utf-8")
    return folder


def test_the_settings_name_every_driver_there_is() -> None:
    assert sorted(agents.DRIVERS) == sorted(DRIVERS)


def test_agents_that_are_servers_need_an_address(tmp_path: Path) -> None:
    assert "agents.crew has no urls" in refused(write(tmp_path, '[agents.crew]\ndriver = "http"\n'))


def test_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, environment={})
    assert settings.max_parallel >= 2
    assert (settings.max_checks, settings.retries, settings.rework) == (1, 3, 1)
    assert (settings.land, settings.workspace, settings.worktrees) == ("auto", "worktree", ".worktrees")
    assert (settings.silence_s, settings.budget_usd) == (None, None)
    assert set(settings.sources().values()) == {"default"}
    assert settings.agents["scripted"].driver == "scripted"


def test_precedence(tmp_path: Path) -> None:
    home = tmp_path / "config" / "shopfloor"
    home.mkdir(parents=True)
    (home / "config.toml").write_text("retries = 1\nrework = 1\nmax_checks = 1\nland = 'off'\n")
    root = write(tmp_path, "retries = 2\nrework = 2\nmax_checks = 2\n")
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "SHOPFLOOR_RETRIES": "3", "SHOPFLOOR_REWORK": "3"}
    settings = load(root, environment=env, flags={"retries": 4, "land": None})
    assert (settings.retries, settings.rework, settings.max_checks, settings.land) == (4, 3, 2, "off")
    sources = settings.sources()
    assert sources["retries"] == "--retries"
    assert sources["rework"] == "SHOPFLOOR_REWORK"
    assert sources["max_checks"] == str(root / ".shopfloor.toml")
    assert sources["land"] == str(home / "config.toml")
    assert sources["timeout"] == "default"


def test_everything_in_a_file(tmp_path: Path) -> None:
    text = """
        agent = "claude"
        checks = ["make lint", "make test"]
        setup = "uv sync"
        timeout = "1h30m"
        silence = "10m"
        budget = 2.5
        land = "review"
        target = "release/1.x"
        workspace = "clone"
        worktrees = "../elsewhere"
        copies = [".env.test"]
        caches = [{ path = "./.venv/", key = "uv.lock" }]
        load_per_core = 1
        memory_free = 0.25
        allow_red_base = true
        [agents.claude]
        command = "claude -p --model 'a b'"
        pass_env = ["ANTHROPIC_API_KEY"]
        env = { CI = "true" }
        memory_limit = "2GB"
    """
    settings = load(write(tmp_path, text.replace("../elsewhere", ".elsewhere")), environment={})
    assert settings.checks == ("make lint", "make test")
    assert (settings.timeout_s, settings.silence_s, settings.budget_usd) == (5400.0, 600.0, 2.5)
    assert settings.caches == (Cache(path=".venv", key="uv.lock"),)
    assert settings.profile() == Profile(
        name="claude",
        command=("claude", "-p", "--model", "a b"),
        pass_env=("ANTHROPIC_API_KEY",),
        env={"CI": "true"},
        memory_limit_bytes=2_000_000_000,
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_paralel = 3", "1: there is no setting 'max_paralel'; did you mean 'max_parallel'?"),
        ("\nretries = '3x'", "2: retries = '3x': it must be a whole number from 0 to 100"),
        ("retries = true", "retries = True"),
        ("retries = -1", "retries = -1"),
        ("max_parallel = 0", "from 1 to 1000"),
        ("timeout = '10 parsecs'", "a duration such as '90s', '30m' or '1h30m'"),
        ("timeout = 0", "or 'none'"),
        ("timeout = nan", "timeout = nan"),
        ("budget = inf", "an amount in USD"),
        ("budget = false", "an amount in USD"),
        ("land = 'atuo'", "one of 'auto', 'review', 'off'; did you mean 'auto'?"),
        ("target = '-x'", "the name of a branch"),
        ("target = 'a..b'", "the name of a branch"),
        ("copies = ['../x']", "inside it"),
        ("copies = ['/etc/passwd']", "inside it"),
        ("copies = ['.git/config']", "inside it"),
        ("worktrees = ''", "one line of text"),
        ("checks = 'a'\ncheck = 'b'", "has check and checks"),
        ("check = ''", "a shell command"),
        ("memory_free = 1.5", "from 0 to 0.95"),
        ("caches = ['x']", "an array of tables"),
        ("caches = [{ pth = 'x' }]", "an array of tables"),
        ("agent = 'claud'\n[agents.claude]\ncommand = 'c'", "did you mean 'claude'?"),
        ("[agents.c]\ncomand = 'c'", "agents.c.comand is none; did you mean 'command'?"),
        ('[agents.c]\ncommand = "a \'b"', "cannot be split"),
        ("[agents.c]\ncommand = []", "agents.c.command"),
        ("[agents.c]\ndriver = 'pidgin'\ncommand = 'c'", ", ".join(map(repr, DRIVERS))),
        ("[agents.c]\ndriver = 'command'", "agents.c has no command"),
        ("[agents.c]\ncommand = 'c'\nmemory_limit = 'much'", "a size such as"),
        ("[agents.c]\ncommand = 'c'\npass_env = ['A=B']", "the name of a variable"),
        ("[agents.'a/b']\ncommand = 'c'", "'a/b'"),
        ("agents = 3", "tables such as [agents.claude]"),
        ("x = ", "is not TOML"),
    ],
)
def test_what_is_off_is_named(text: str, told: str, tmp_path: Path) -> None:
    message = refused(write(tmp_path, text))
    assert message.startswith(str(tmp_path / ".shopfloor.toml"))
    assert told in message


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "retries = -1\nnonsense = 2\n")
    env = {"SHOPFLOOR_LAND": "maybe", "SHOPFLOOR_MAX_PARALELL": "2"}
    message = refused(tmp_path, environment=env, flags={"budget": "much", "tiemout": "3m"})
    assert message.startswith("6 settings are off:")
    for part in ("retries = -1", "'nonsense'", "SHOPFLOOR_LAND", "'SHOPFLOOR_MAX_PARALLEL'", "--budget", "'timeout'"):
        assert part in message


def test_a_key_in_a_wrong_table_is_not_told(tmp_path: Path) -> None:
    text = "[agents.c]\ncommand = 'c'\nenv = { KEY = 'sk-0123', N = 5 }"
    assert "sk-0123" not in refused(write(tmp_path, text))


@pytest.mark.parametrize("name", ["ORDER", "ATTEMPT", "GENERATION", "ATTEMPT_DIR", "WORKSPACE", "SOMETHING_ELSE"])
def test_variables_of_a_worker_are_no_settings(name: str, tmp_path: Path) -> None:
    assert load(tmp_path, environment={f"SHOPFLOOR_{name}": "x"}).origins == {}


def test_arrays_in_variables(tmp_path: Path) -> None:
    env = {
        "SHOPFLOOR_CHECKS": "make lint\nmake test\n",
        "SHOPFLOOR_COPIES": os.pathsep.join(["a", "b/c"]),
        "SHOPFLOOR_CACHES": "[{ path = 'x' }]",
        "SHOPFLOOR_WORKSPACE_KIND": "clone",
        "SHOPFLOOR_NO_CHECK": "yes",
        "SHOPFLOOR_SETUP": "",
    }
    settings = load(tmp_path, environment=env)
    assert settings.checks == ("make lint", "make test")
    assert (settings.copies, settings.caches) == (("a", "b/c"), (Cache(path="x"),))
    assert (settings.workspace, settings.no_check, settings.setup) == ("clone", True, "")


def test_an_unreadable_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / ".shopfloor.toml").write_bytes(b"a = '\xff'")
    assert "is not UTF-8 at byte 5" in refused(tmp_path)
    (tmp_path / ".shopfloor.toml").unlink()
    (tmp_path / ".shopfloor.toml").mkdir()
    assert "cannot be read" in refused(tmp_path)


def test_a_profile_by_name() -> None:
    one = Settings(agents={"a": Profile(name="a", command=("a",)), **Settings().agents})
    assert one.profile().name == "a"
    assert one.profile("scripted").driver == "scripted"
    with pytest.raises(NotFound, match="no agent 'scriptd'; did you mean 'scripted'") as caught:
        one.profile("scriptd")
    assert "[agents.scriptd]" in caught.value.hint
    with pytest.raises(UsageError, match="no agent is chosen"):
        Settings().profile()


TOML = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(SETTINGS), TOML)
def test_a_reader_takes_it_or_says_what_is_allowed(setting: Any, value: object) -> None:
    try:
        setting.read(value)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right


@given(st.text(max_size=60))
def test_any_text_is_settings_or_refused(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, ".shopfloor.toml").write_text(text, encoding="utf-8", errors="replace")
        try:
            load(Path(folder), environment={})
        except UsageError as error:
            assert ".shopfloor.toml" in error.message  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1 h 30 m", 5400), ("500ms", 0.5), ("1.5h", 5400),
     ("45", 45), (90, 90), (0.5, 0.5), ("1d", 86400)],
)  # fmt: skip
def test_durations(text: object, seconds: float) -> None:
    assert v.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-5s", "0s", "5 weeks", "1e3", "99999999999d", "5s!", None, True, "٣s"])
def test_no_durations(text: object) -> None:
    with pytest.raises(ValueError, match="a duration"):
        v.duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("2GB", 2_000_000_000), ("2GiB", 2 << 30), ("2g", 2 << 30), ("512 MB", 512_000_000), (1024, 1024), ("1.5K", 1536)],
)
def test_sizes(text: object, count: int) -> None:
    assert v.size(text) == count


# -- the environment of a worker --------------------------------------------------------------------------------


def test_a_worker_gets_the_allow_list_and_what_it_was_given() -> None:
    parent = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "HOME": "/h",
        "OPENAI_API_KEY": "sk-1",
        "GITHUB_TOKEN": "t",
        "SSH_AUTH_SOCK": "/s",
        "VIRTUAL_ENV": "/v",
        "PYTHONPATH": "/p",
        "PWD": "/elsewhere",
        "MINE": "passed",
        "XDG_RUNTIME_DIR": "/run",
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "UV_INDEX_URL": "https://me:pass@mirror.example/simple",
        "UV_PUBLISH_TOKEN": "t",
    }
    found = worker_environment(
        parent, workspace="/w", pass_env=("MINE", "ABSENT"), env={"CI": "1", "HOME": "/other"},
        order="wo-1", attempt="wo-1.a2", generation=2, directory="/d", agent="claude",
    )  # fmt: skip
    assert found == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "HOME": "/other",
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "MINE": "passed",
        "CI": "1",
        "PWD": "/w",
        "SHOPFLOOR_ORDER": "wo-1",
        "SHOPFLOOR_ATTEMPT": "wo-1.a2",
        "SHOPFLOOR_GENERATION": "2",
        "SHOPFLOOR_ATTEMPT_DIR": "/d",
        "SHOPFLOOR_WORKSPACE": "/w",
        "WORK_ORDER_ID": "wo-1",
        "AGENT_ID": "claude",
    }


@given(st.dictionaries(st.sampled_from(["A_KEY", "TOKEN", "X_SECRET", "DB_PASSWORD", "AWS_CREDENTIALS"]), st.text()))
def test_no_key_reaches_a_worker(keys: dict[str, str]) -> None:
    assert not worker_environment({**keys, "PATH": "/bin"}, workspace="/w").keys() & keys.keys()


def test_what_counts_as_a_secret() -> None:
    secret = {
        "ANTHROPIC_API_KEY": "value-of-key",
        "github_token": "value-of-token",
        "AWS_SECRET_ACCESS_KEY": "value-of-secret",
        "DB_PASSWORD": " value-of-password\n",
        "GOOGLE_CREDENTIALS": "value-of-credentials",
        "MYSQL_PWD": "value-of-pwd",
        "GH_PAT": "value-of-pat",
        "APIKEY2": "value-of-second",
        "DATABASE_URL": "postgres://me:value-of-url@host/db",
    }
    plain = {
        "PWD": "/some/folder",
        "OLDPWD": "/other/folder",
        "TOKENIZERS_PARALLELISM": "not-a-secret",
        "KEYBOARD": "not-a-secret",
        "PATH": "/usr/bin:/bin",
        "SHORT_KEY": "1234567",
        "SSH_AUTH_SOCK": "/run/socket",
    }
    found = secrets_in(secret, plain)
    assert sorted(found) == sorted(
        "value-of-" + end
        for end in ("key", "token", "secret", "password", "credentials", "pwd", "pat", "second", "url")
    )


def test_our_environment_is_a_copy() -> None:
    copy = environment()
    copy["SHOPFLOOR_NOT_THERE"] = "1"
    assert "SHOPFLOOR_NOT_THERE" not in environment()


# -- the proposal -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "setup", "check"),
    [
        ({"pyproject.toml": "[tool.pytest.ini_options]", "uv.lock": ""}, "uv sync", "uv run pytest -q"),
        ({"pyproject.toml": "", "poetry.lock": "", "tests/conftest.py": ""}, "poetry install", "poetry run pytest -q"),
        ({"setup.py": "", "tox.ini": ""}, "", "tox"),
        (
            {"requirements.txt": "x", "tests/test_a.py": ""},
            "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt",
            ".venv/bin/python -m unittest discover -s tests",
        ),
        ({"package.json": '{"scripts":{"test":"jest"}}', "package-lock.json": ""}, "npm ci", "npm test"),
        (
            {"package.json": '{"scripts":{"test":"jest"}}', "pnpm-lock.yaml": ""},
            "pnpm install --frozen-lockfile",
            "pnpm test",
        ),
        (
            {"package.json": '{"scripts":{"test":"jest"}}', "yarn.lock": ""},
            "yarn install --frozen-lockfile",
            "yarn test",
        ),
        ({"Cargo.toml": ""}, "", "cargo test"),
        ({"go.mod": ""}, "", "go test ./..."),
        ({"pom.xml": "", "mvnw": ""}, "", "./mvnw --batch-mode test"),
        ({"build.gradle.kts": ""}, "", "gradle test"),
        ({"mix.exs": ""}, "mix deps.get", "mix test"),
        ({"Gemfile": "", ".rspec": ""}, "bundle install", "bundle exec rspec"),
        ({"Makefile": "all:\n\ntest: all\n\t./t\n"}, "", "make test"),
        ({"Makefile": "check:\n\ttrue\n"}, "", "make check"),
        ({"Makefile": "check:\n\ttrue\n", ".gitmodules": ""}, SUBMODULES, "make check"),
        ({"mix.exs": "", ".gitmodules": ""}, f"{SUBMODULES} && mix deps.get", "mix test"),
    ],
)
def test_what_a_project_looks_like(files: dict[str, str], setup: str, check: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    finding, *_ = findings(tmp_path)
    assert (finding.setup, finding.check) == (setup, check)
    settings = load(write(tmp_path, proposal(tmp_path)), environment={})
    assert (settings.setup, settings.checks) == (setup, (check,))


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"package.json": '{"scripts":{"test":"echo \\"Error: no test specified\\" && exit 1"}}'},
        {"package.json": "not json"},
        {"package.json": "[]"},
        {"pyproject.toml": "= broken"},
        {"Makefile": "test := 3\nall:\n"},
    ],
)
def test_no_check_is_invented(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    text = proposal(tmp_path)
    assert load(write(tmp_path, text), environment={}).checks == ()
    assert "nothing can be verified" in text


def test_every_setting_stands_in_the_proposal_and_every_example_is_right(tmp_path: Path) -> None:
    lines = [line[2:] for line in proposal(tmp_path).splitlines() if line.startswith("# ")]
    for setting in SETTINGS:
        if not setting.example:
            continue  # tables, which stand at the end
        (line,) = [line for line in lines if line.startswith(f"{setting.key} = ") and "…" not in line]
        setting.read(tomllib.loads(line)[setting.key])
    start = next(number for number, line in enumerate(lines) if line.startswith("[agents."))
    settings = load(write(tmp_path, "\n".join(lines[start:])), environment={})
    assert settings.profile().pass_env == ("ANTHROPIC_API_KEY",)
    assert settings.gateway.accounts["main"].spill == ("second",)
    assert settings.gateway.prices["my-model"].cached == 0.3


def test_every_field_has_a_setting() -> None:
    assert {setting.field for setting in SETTINGS} == set(Settings.__struct_fields__) - {"origins"}
