"""Fan-out: specifications over HTTP agent servers, with a queue in Redis and results in PostgreSQL or SQLite.

from shopfloor.faces.fanout import Coordinator, read

results = await Coordinator(["http://127.0.0.1:8080-8089"]).process(read(Path("specs.json").read_bytes(), "specs.json"))
"""

from shopfloor.faces.fanout import lines
from shopfloor.faces.fanout.away import shown
from shopfloor.faces.fanout.coordinator import POLICIES, Coordinator, FastForthAgent
from shopfloor.faces.fanout.earlier import Earlier, earlier
from shopfloor.faces.fanout.queue import RedisQueue
from shopfloor.faces.fanout.results import FanoutReport, Finished, Result
from shopfloor.faces.fanout.source import Source, source
from shopfloor.faces.fanout.specs import (
    Specification,
    StackEffect,
    TestCase,
    parse_effect,
    read,
    refuse,
    specification,
    story,
)
from shopfloor.faces.fanout.stores import MemoryResults, PostgresResults, ResultStore, SqliteResults
from shopfloor.faces.fanout.validator import all_problems, problems

__all__ = [
    "POLICIES",
    "Coordinator",
    "Earlier",
    "FanoutReport",
    "FastForthAgent",
    "Finished",
    "MemoryResults",
    "PostgresResults",
    "RedisQueue",
    "Result",
    "ResultStore",
    "Source",
    "Specification",
    "SqliteResults",
    "StackEffect",
    "TestCase",
    "all_problems",
    "earlier",
    "lines",
    "parse_effect",
    "problems",
    "read",
    "refuse",
    "shown",
    "source",
    "specification",
    "story",
]
