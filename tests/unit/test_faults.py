"""What an agent's error means for the next attempt, by the words and numbers of many agents."""

import pytest

from shopfloor.agents._faults import classify


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("API Error: 429 slow down", "quota"),
        ("API Error: Request rejected (429)", "quota"),
        ("exceeded retry limit, last status: 429 Too Many Requests", "quota"),
        ("got status: 429. try again", "quota"),
        ("HTTP/1.1 402 Payment Required", "quota"),
        ("litellm.RateLimitError: AnthropicException", "quota"),
        ("Your credit balance is too low to access the API", "quota"),
        ('{"error": {"type": "insufficient_quota"}}', "quota"),
        ("OpenAIException - error code: 401", "auth"),
        ("AuthenticationError: invalid x-api-key", "auth"),
        ("PermissionDeniedError: no such model for you", "auth"),
        ("Not logged in. Please run /login", "auth"),
        ('litellm.AuthenticationError: {"type": "budget_exceeded"}', "budget"),
        ("API Error: 400 the budget of 'run:run-1' does not allow this call: 1 of 1 USD are spent", "budget"),
        ("Reached maximum budget ($1)", "budget"),
        ("OSError: [Errno 122] Disk quota exceeded: 'a'", "TheirError"),
        ("could not read 429 of 500 files", "TheirError"),
        ("AttributeError: 'Budget' object has no attribute 'limit'", "TheirError"),
        ("test_budget failed", "TheirError"),
        ("took 429.5 s", "TheirError"),
        ("API Error: 500 internal", "TheirError"),
        ("", "TheirError"),
    ],
)
def test_what_an_error_means(text: str, status: str) -> None:
    assert classify(text, name="TheirError").status == status


def test_the_name_of_an_error_counts_as_its_words_do() -> None:
    assert classify("no", data={"type": "RateLimitError"}).status == "quota"
    assert classify("no", data={"type": "AuthenticationError"}).status == "auth"
    assert classify("no", data={"type": "ValueError"}).status == "ValueError"
    assert classify("no", data={"type": ""}, name="").status == ""


def test_a_busy_server_closes_no_account() -> None:
    """It is tried again like anything that passes; 529 is how an account is told of a limit of its own."""
    assert classify("The server is overloaded", code=503, name="server_error").status == "server_error"
    assert classify("Overloaded", code=529).status == "quota"
