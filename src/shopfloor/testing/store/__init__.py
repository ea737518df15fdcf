"""The conformance suite of the Store port. Whoever writes a store runs it against theirs.

    SUBJECT = Subject(make=lambda folder, clock: MyStore(folder, clock=clock), depose=forget_the_lock)

    @pytest.mark.parametrize("case", CASES)
    async def test_my_store(case, tmp_path):
        await run_case(case, SUBJECT, tmp_path)

``make`` opens one more store on the log of a folder, as another process would; ``depose`` makes the living controller
of that folder lose its claim without knowing it, as when somebody deletes a lock file.
"""

from pathlib import Path

from shopfloor.testing.store import appending, asking, claiming, leading
from shopfloor.testing.store.bench import Bench, Case, FixedClock, OpenStore, Subject

__all__ = ["CASES", "FixedClock", "OpenStore", "Subject", "run_case"]

CASES: dict[str, Case] = {
    function.__name__: function for module in (appending, claiming, leading, asking) for function in module.CASES
}


async def run_case(name: str, subject: Subject, folder: Path) -> None:
    """Run one case in a folder that does not exist yet. Raises AssertionError that says what the store did wrong."""
    bench = Bench(subject, folder)
    try:
        await CASES[name](bench)
    finally:
        for store in bench.stores:
            await store.close()
