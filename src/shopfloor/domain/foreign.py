"""What another program says in a line of ``work_orders.jsonl``: read, compared with all we published, merged by field.

A line that equals a version that was published at any time is an echo, also when keys were dropped from it. Of any
other line the version that its writer had before him is found (by its seal, else by its ``updated_at``, else by its
status and what differs least), and each field that differs from it is a wish. A key that is not there is no wish, nor
is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from shopfloor.domain import edits
from shopfloor.domain.events import read_ms
from shopfloor.domain.names import ORDER_ID
from shopfloor.domain.order import Order, Record
from shopfloor.domain.records import OWN_KEYS, TITLE_LIMIT

MOST_ID = 100
"""characters of an id: it names folders"""

_EMPTY: tuple[object, ...] = (None, "", [], {})
_META = "metadata."


class Version(NamedTuple):
    """One line in the form in which lines are compared."""

    fields: dict[str, Any]
    updated: int | None
    """``updated_at`` in milliseconds"""
    seal: str
    line: Mapping[str, Any]
    """as it was read"""


class Merge(NamedTuple):
    """What is wanted of a known order: fields and new values, and those that were changed here too meanwhile."""

    changes: dict[str, Any]
    both: dict[str, Any]
    """changed here and there since the version that they had: ours stays"""


def version(line: Mapping[str, Any]) -> Version:
    """An object of the file, ours or theirs, ready to be compared."""
    fields: dict[str, Any] = {}
    for key, value in line.items():
        if value is None or key in ("id", "updated_at"):
            continue
        if key == "metadata" and isinstance(value, dict):
            parts = {name: part for name, part in value.items() if name != "shopfloor" and part is not None}
            fields.update({_META + name: part for name, part in parts.items()})
        elif key == "created_at":
            at = read_ms(value)
            fields[key] = value if at is None else at
        elif key == "title" and isinstance(value, str):
            fields[key] = value[:TITLE_LIMIT]
        elif key == "dependencies" and isinstance(value, list):
            fields[key] = [_need(entry) for entry in value]
        else:
            fields[key] = value
    _canonical(fields)
    metadata = line.get("metadata")
    ours = metadata.get("shopfloor") if isinstance(metadata, dict) else None
    seal = ours.get("seal") if isinstance(ours, dict) else None
    return Version(fields, read_ms(line.get("updated_at")), seal if isinstance(seal, str) else "", line)


def differences(theirs: Version, published: Version) -> list[str]:
    """Fields of theirs that say something else."""
    return [field for field, value in theirs.fields.items() if not _same(field, value, published.fields.get(field))]


def merge(line: Mapping[str, Any], published: Sequence[Version]) -> Merge:
    """The wishes in a line about an order that had these versions, oldest first; the last one stands now."""
    theirs, current = version(line), published[-1]
    base = _base(theirs, published)
    wanted = differences(theirs, base)
    if not wanted and not _known(theirs, base) and _after(theirs, current):
        # Written after what stands now, with an earlier state in it: somebody wants to go back.
        base, wanted = current, differences(theirs, current)
    changes: dict[str, Any] = {}
    both: dict[str, Any] = {}
    for field in wanted:
        now = current.fields.get(field)
        if _same(field, theirs.fields[field], now):
            continue
        _put(changes if _same(field, base.fields.get(field), now) else both, field, _raw(field, theirs, current))
    return Merge(changes, both)


def complaint(line: Mapping[str, Any]) -> tuple[str, object] | None:
    """Why no order can be made of an object, and the value it is about; None when one can."""
    order = line.get("id")
    if not isinstance(order, str) or len(order) > MOST_ID or not ORDER_ID.fullmatch(order):
        return "an id is like wo-abc12", order
    blank = Record(order=Order(id=order, name=order, title=""))
    bad = edits.refusals(blank, {"title": line.get("title"), **_wishes(line)})
    for field, why in bad.items():
        return why, line.get(field)
    for key in ("created_at", "updated_at"):
        if line.get(key) is not None and read_ms(line[key]) is None:
            return f"{key} is a time with its zone, like 2026-01-06T12:00:00.000Z", line[key]
    return None


def creation_of(line: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data of the event that creates an order of another program, and the changes that give it its state."""
    wishes = _wishes(line)
    extra = {key: value for key, value in wishes.items() if key not in OWN_KEYS}
    metadata = wishes.get("metadata")
    if metadata:
        extra["metadata"] = {key: value for key, value in metadata.items() if key != "shopfloor"}
    needs = wishes.get("dependencies")
    ours: dict[str, Any] = {"labels": wishes.get("labels", [])}
    if needs:
        extra["dependencies"] = needs
        ours["depends_on"] = edits.needs_of(needs)
    data = {
        "work_order_id": line["id"],
        "title": line["title"],
        "description": wishes.get("description", ""),
        "issue_type": wishes.get("issue_type", "task"),
        "priority": wishes.get("priority", 2),
        "created_by": line.get("created_by") if isinstance(line.get("created_by"), str) else "",
        "created_at": line.get("created_at"),
        "shopfloor": {**ours, "extra": extra},
    }
    state = {key: wishes[key] for key in ("status", "assignee") if wishes.get(key) not in (None, "", "open")}
    return data, state


def newest(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Lines of one id, the one that counts most last: the greatest ``updated_at``, of equal ones the last."""
    return sorted(lines, key=lambda line: read_ms(line.get("updated_at")) or 0)


def _wishes(line: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in line.items() if value is not None and key not in edits.FIXED}
    _canonical(found)
    return found


def _canonical(fields: dict[str, Any]) -> None:
    if "type" in fields and "issue_type" not in fields:
        fields["issue_type"] = fields.pop("type")


def _base(theirs: Version, published: Sequence[Version]) -> Version:
    def nearness(place: int) -> tuple[bool, bool, bool, int, int]:
        one = published[place]
        sealed = bool(theirs.seal) and theirs.seal == one.seal
        # States move on while somebody has an old line: one that was published is seldom a wish.
        status = theirs.fields.get("status") == one.fields.get("status")
        return sealed, theirs.updated == one.updated, status, -len(differences(theirs, one)), place

    return published[max(range(len(published)), key=nearness)]


def _known(theirs: Version, base: Version) -> bool:
    return bool(theirs.seal) and theirs.seal == base.seal


def _after(theirs: Version, current: Version) -> bool:
    return theirs.updated is not None and current.updated is not None and theirs.updated > current.updated


def _same(field: str, theirs: Any, ours: Any) -> bool:
    if field == "dependencies" and isinstance(theirs, list) and isinstance(ours, list):
        pairs = zip(theirs, ours, strict=False)
        return len(theirs) == len(ours) and all(_contained(one, other) for one, other in pairs)
    return bool(theirs == ours) or (theirs in _EMPTY and ours in _EMPTY)


def _contained(entry: Any, whole: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(whole, dict):
        return bool(entry == whole)
    return all(whole.get(key) == value for key, value in entry.items())


def _need(entry: Any) -> Any:
    if isinstance(entry, str):
        return {"depends_on_id": entry, "type": "blocks"}
    if not isinstance(entry, dict):
        return entry
    plain = {key: value for key, value in entry.items() if value is not None}
    at = read_ms(plain.get("created_at"))
    return {"type": "blocks", **plain, **({} if at is None else {"created_at": at})}


def _raw(field: str, theirs: Version, current: Version) -> Any:
    """The value as they wrote it; what they dropped from a dependency that stays is kept."""
    line = theirs.line
    if field.startswith(_META):
        return line["metadata"][field.removeprefix(_META)]
    if field == "issue_type":
        return line.get(field, line.get("type"))
    known = current.line.get("dependencies")
    if field != "dependencies" or not isinstance(known, list) or not isinstance(line[field], list):
        return line[field]
    before = {entry["depends_on_id"]: entry for entry in known if isinstance(entry, dict) and _needs(entry)}
    return [{**before.get(_needs(entry), {}), **entry} if isinstance(entry, dict) else entry for entry in line[field]]


def _needs(entry: Mapping[str, Any]) -> str:
    """The id that a dependency names; empty for anything that is no id."""
    value = entry.get("depends_on_id")
    return value if isinstance(value, str) else ""


def _put(changes: dict[str, Any], field: str, value: Any) -> None:
    if field.startswith(_META):
        changes.setdefault("metadata", {})[field.removeprefix(_META)] = value
    else:
        changes[field] = value
