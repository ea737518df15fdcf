"""What the words of a failure tell of its reason, and that the name of a folder tells nothing."""

import pytest

from shopfloor.agents._faults import classify


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("cannot start under /srv/quota-service/.agent: database is locked", "error"),
        ('no such file: "/srv/api-key-rotation/log in/x"', "error"),
        ("cannot read ~/budget-app/notes.md, ../billing/a.md or ./budget/b.md", "error"),
        ("cannot read /srv/quota/x: your usage limit is reached", "quota"),
        ("usage limit reached, see https://example.com/settings/billing", "quota"),
        ("429 Too Many Requests", "quota"),
        ("budget_exceeded: the budget of 'run:r' does not allow this call", "budget"),
        ("Please log in: /login", "auth"),
        ("it broke", "error"),
    ],
)
def test_a_failure_is_known_by_its_words(text: str, status: str) -> None:
    assert classify(text).status == status
