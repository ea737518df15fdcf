"""A file of orders brought up to date line by line gives the bytes that a sheet of all its lines gives."""

import os
import random
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from shopfloor.domain.order import Order, Record
from shopfloor.stores import revision
from shopfloor.stores.revision import Left, Revision, revision_of
from shopfloor.stores.sheet import Sheet, render

STRANGERS = (
    b'{"id":"wo-strange","title":"mine"}',
    b"no JSON at all " * 40,
    b'{"id":"wo-\\u0061","note":"escaped"}',
)


def record(order: str, title: str) -> Record:
    return Record(order=Order(id=order, name=order, title=title, instruction="x" * (len(title) % 90)))


class File:
    """Lines of some orders and of strangers, as one of our programs left them."""

    def __init__(self, path: Path, orders: Sequence[str], titles: dict[str, str]) -> None:
        self.titles = titles
        lines = [render(record(order, "before")) for order in orders]
        for place, line in enumerate(STRANGERS):
            lines.insert(len(lines) * place // 2, line)
        self.content = b"".join(line + b"\n" for line in lines)
        path.write_bytes(self.content)
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY)
        self.left = Left(len(self.content), zlib.crc32(self.content))

    def lines(self, ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        return ((order, render(record(order, self.titles[order]))) for order in ids)

    def revision(self, left: Left | None = None) -> Revision | None:
        return revision_of(self.descriptor, left or self.left, self.titles, self.lines)

    def by_sheet(self) -> bytes:
        sheet = Sheet(self.content, ours=len(self.content))
        sheet.put(self.lines([*self.titles]))
        return b"".join(sheet.pieces())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revision, "CHUNK", 61)  # lines begin and end anywhere in a piece
    monkeypatch.setattr(revision, "PIECE", 2)


@pytest.mark.parametrize("seed", range(20))
def test_what_changed_is_written_and_nothing_else(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    orders = [f"wo-{n}" for n in range(chance.randrange(1, 30))]
    known = chance.sample(orders, chance.randrange(len(orders) + 1))
    new = [f"wo-new{n}" for n in range(chance.randrange(6))]
    titles = {order: chance.choice(["before", "after", "after " * 30]) for order in [*known, *new]}
    file = File(tmp_path / "file", orders, titles)
    found = file.revision()
    assert found is not None
    assert bool(found) == (file.by_sheet() != file.content)
    content = b"".join(found.pieces())
    assert content == file.by_sheet()
    assert found.given == (len(content), zlib.crc32(content))
    os.close(file.descriptor)


def test_a_file_that_is_not_as_it_was_left_is_not_touched(tmp_path: Path) -> None:
    file = File(tmp_path / "file", ["wo-1", "wo-2"], {"wo-2": "after"})
    length, digest = file.left
    assert file.revision(Left(length, digest ^ 1)) is None
    assert file.revision(Left(length + 1, digest)) is None
    first = file.content.index(b"\n") - 3
    assert file.revision(Left(first, zlib.crc32(file.content[:first]))) is None, "it ends in the middle of a line"
    os.close(file.descriptor)


def test_a_line_that_only_begins_as_ours_is_for_a_sheet(tmp_path: Path) -> None:
    file = File(tmp_path / "file", ["wo-1", "wo-2"], {"wo-2": "after"})
    file.path.write_bytes(file.content.replace(b'{"id":"wo-2",', b'{"id":"wo-2","id":"wo-7",'))
    content = file.path.read_bytes()
    assert file.revision(Left(len(content), zlib.crc32(content))) is None
    os.close(file.descriptor)


def test_who_writes_to_it_meanwhile_is_noticed(tmp_path: Path) -> None:
    file = File(tmp_path / "file", [f"wo-{n}" for n in range(9)], {"wo-1": "after", "wo-8": "after"})
    found = file.revision()
    assert found is not None
    pieces = found.pieces()
    next(pieces)
    with file.path.open("r+b") as peer:
        peer.seek(-5, os.SEEK_END)
        peer.write(b"!")
    with pytest.raises(FileExistsError):
        list(pieces)
    os.close(file.descriptor)
