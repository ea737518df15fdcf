"""The error tree and its closed set of exit codes."""

import pytest

from shopfloor.domain.errors import Conflict, NotFound, Refused, ShopfloorError, UsageError


@pytest.mark.parametrize(
    ("kind", "code"), [(ShopfloorError, 1), (UsageError, 2), (NotFound, 3), (Refused, 4), (Conflict, 5)]
)
def test_each_kind_has_its_exit_code_and_its_hint(kind: type[ShopfloorError], code: int) -> None:
    error = kind("there is no agent 'x'", hint="name one")
    assert isinstance(error, ShopfloorError)
    assert (error.exit_code, str(error), error.message, error.hint) == (
        code,
        error.message,
        "there is no agent 'x'",
        "name one",
    )
    assert kind("no").hint == ""
