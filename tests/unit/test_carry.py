"""What goes on with a run that is taken up again: its cassette, too."""

from __future__ import annotations

from shopfloor.app.carry import carried, changes
from shopfloor.config.settings import Settings
from shopfloor.domain.runs import Run


def test_a_run_goes_on_with_its_cassette_and_asks_no_model() -> None:
    found = carried(Settings(), Run(id="run-1", agent="scripted", replay="/tapes/one"))
    assert (found.record, found.replay) == ("", "/tapes/one")
    found = carried(Settings(), Run(id="run-1", agent="scripted", record="/tapes/one"))
    assert (found.record, found.replay) == ("/tapes/one", "")


def test_the_cassette_that_is_given_now_takes_the_place_of_the_other() -> None:
    now = Settings(record="/tapes/two", origins={"record": "--record"})
    found = carried(now, Run(id="run-1", agent="scripted", replay="/tapes/one"))
    assert (found.record, found.replay) == ("/tapes/two", "")
    told = changes(now)
    assert (told["record"], told["replay"]) == ("/tapes/two", "")
    assert "replay" not in changes(Settings())
