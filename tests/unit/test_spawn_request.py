"""What the engine asks the guard to execute, and the words for what could not be started."""

import errno
from pathlib import Path

import pytest

from shopfloor import guard
from shopfloor.domain.errors import ShopfloorError
from shopfloor.spawn import CommandTimeout, SpawnError
from shopfloor.spawn.errors import refusal

ARGV = [b"sh", b"-c", b"echo $A", b"", b"\xff\n"]
ENV = {b"A": b"x=y", b"EMPTY": b"", b"LINES": b"1\n2"}


def test_a_request_survives_the_way_to_the_guard() -> None:
    request = guard.encode_request(b"/a dir", ARGV, ENV)
    size, body = int.from_bytes(request[:8], "big"), request[8:]
    assert size == len(body)
    assert guard.decode_request(body) == (b"/a dir", ARGV, ENV)


def test_a_request_without_environment_survives_too() -> None:
    assert guard.decode_request(guard.encode_request(b"/", [b"true"], {})[8:]) == (b"/", [b"true"], {})


@pytest.mark.parametrize(
    ("cwd", "argv", "env"),
    [
        (b"/a\0b", [b"true"], {}),
        (b"/", [b"echo", b"a\0b"], {}),
        (b"/", [b"true"], {b"A\0B": b""}),
        (b"/", [b"true"], {b"A": b"a\0b"}),
    ],
    ids=["cwd", "argv", "name", "value"],
)
def test_a_nul_byte_is_refused(cwd: bytes, argv: list[bytes], env: dict[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="NUL"):
        guard.encode_request(cwd, argv, env)


@pytest.mark.parametrize(
    ("stage", "number", "reason", "said", "hint"),
    [
        ("cwd", errno.ENOENT, "cwd", "no such file or directory", "create the directory"),
        ("cwd", errno.ENOTDIR, "cwd", "not a directory", "create the directory"),
        ("cwd", errno.EACCES, "cwd", "permission denied", "create the directory"),
        ("program", errno.ENOENT, "not_found", "no such program", "install 'codex'"),
        ("program", errno.EACCES, "not_executable", "permission denied", "chmod +x codex"),
        ("program", errno.ENOEXEC, "not_executable", "exec format error", "first line"),
        ("program", errno.E2BIG, "other", "argument list too long", ""),
        ("fork", errno.EAGAIN, "other", "resource temporarily unavailable", ""),
    ],
)
def test_a_refusal_names_program_directory_and_cause(
    stage: str, number: int, reason: str, said: str, hint: str
) -> None:
    error = refusal(["codex", "exec"], Path("no/where"), stage=stage, number=number)
    assert isinstance(error, ShopfloorError)
    assert error.reason == reason
    assert (error.program, error.cwd) == ("codex", Path("no/where"))
    assert str(error).startswith("cannot start 'codex' in 'no/where': ")
    assert said in str(error)
    assert hint in error.hint


def test_a_script_without_its_interpreter_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/no/such/interpreter\n")
    error = refusal(["./tool"], tmp_path, stage="program", number=errno.ENOENT)
    assert error.reason == "not_found"
    assert "interpreter" in str(error)


def test_an_error_needs_no_program() -> None:
    assert SpawnError([], Path("/"), "nothing to start").program == ""


def test_a_time_limit_is_caught_as_either_kind() -> None:
    error = CommandTimeout(["git", "fetch"], timeout_s=1.5, stdout=b"a", stderr=b"b")
    assert isinstance(error, ShopfloorError)
    assert isinstance(error, TimeoutError)
    assert str(error) == "'git' took longer than 1.5 s and was killed"
    assert (error.argv, error.timeout_s, error.stdout, error.stderr) == (("git", "fetch"), 1.5, b"a", b"b")
