"""Shopfloor runs a crew of coding agents on a git repository and hands back merged, verified work.

    async with Shopfloor.open(".") as floor:
        report = await floor.run([Path("prompts/fix-login.md")])

The names below are loaded when they are first used.
"""

from shopfloor._version import __version__

_WHERE = {
    "Shopfloor": "shopfloor.app",
    "Settings": "shopfloor.config.settings",
    "Talk": "shopfloor.app.talks",
    "Talks": "shopfloor.app.talks",
    "Profile": "shopfloor.ports",
    "Order": "shopfloor.domain.order",
    "Deliverable": "shopfloor.domain.order",
    "Record": "shopfloor.domain.order",
    "State": "shopfloor.domain.order",
    "Ends": "shopfloor.app.orders",
    "stamp_time": "shopfloor.domain.events",
    "Outcome": "shopfloor.app",
    "PromptOrder": "shopfloor.app",
    "Event": "shopfloor.domain.events",
    "Report": "shopfloor.domain.report",
    "ShopfloorError": "shopfloor.domain.errors",
    "UsageError": "shopfloor.domain.errors",
    "NotFound": "shopfloor.domain.errors",
    "Refused": "shopfloor.domain.errors",
    "Conflict": "shopfloor.domain.errors",
}

__all__ = [
    "Conflict",
    "Deliverable",
    "Ends",
    "Event",
    "NotFound",
    "Order",
    "Outcome",
    "Profile",
    "PromptOrder",
    "Record",
    "Refused",
    "Report",
    "Settings",
    "Shopfloor",
    "ShopfloorError",
    "State",
    "Talk",
    "Talks",
    "UsageError",
    "__version__",
    "stamp_time",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
