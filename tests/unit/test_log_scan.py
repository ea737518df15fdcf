"""The scanner: all valid events are found, none is invented, groups count as a whole, whatever lies between them."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.domain.events import Event, Stamp
from shopfloor.stores.codec import CANCEL, LINE_LIMIT, encode
from shopfloor.stores.scan import Scanner

Line = tuple[bytes, list[str]]


def event(name: str, stamp: Stamp | None = None) -> Event:
    return Event(name, "note.taken", "2026-01-06T12:00:00.000Z", "human", None, {"text": "ä\n"}, None, stamp)


def scan(content: bytes, size: int = 1 << 20) -> tuple[list[str], Scanner]:
    scanner = Scanner()
    found = []
    for start in range(0, len(content), size):
        found += scanner.feed(content[start : start + size])
    for place in found:
        line = content[place.start : place.end]
        assert place.event.event_id.encode() in line, "offsets say where it lies"
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
    return [place.event.event_id for place in found], scanner


def change(sequence: int, size: int, controller: int = 1) -> list[bytes]:
    return [encode(event(f"e{sequence}.{n}", Stamp(controller, sequence, n, size))) for n in range(size)]


def is_event(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=Event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


garbage = (
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from(
            [
                b"",
                b"   \t",
                b"null",
                b"[]",
                b'{"event_id":1,"event_type":"x","timestamp":"x","actor":"x","data":{}}',
                b'{"event_id":"x"}',
                b"{" * 5000,
                b"[" * 5000,
                b"\xff\xfe\x00",
                encode(event("torn"))[:-9],
                encode(event("damaged"))[:-1] + b"}",
                encode(event("stamp", Stamp(0, 1, 5, 2)))[:-1],
                encode(event("stamp", Stamp(-1, 1)))[:-1],
                encode(event("stamp", Stamp(1, 1 << 70)))[:-1],
                encode(event("refused"))[:-1] + CANCEL[:1],
            ]
        ),
    )
    .map(lambda raw: raw.replace(b"\n", b" "))
    .filter(lambda raw: not (is_event(raw) and b'"stamp"' not in raw))
)
sizes = st.integers(min_value=1, max_value=700)


@given(st.lists(st.one_of(garbage.map(lambda raw: (raw, False)), st.booleans().map(lambda own: (b"", own)))), sizes)
def test_valid_lines_between_garbage(parts: list[tuple[bytes, bool]], size: int) -> None:
    expected, content = [], b""
    for number, (raw, own) in enumerate(parts, 1):
        if raw or number % 3 == 0:
            content += raw + b"\n"
        else:
            expected.append(f"n{number}")
            content += encode(event(f"n{number}", Stamp(1, number) if own else None))
    found, scanner = scan(content, size)
    assert found == expected
    assert scanner.clean == (len(content), content.count(b"\n"))
    assert len(scanner.problems) == sum(bool(line.strip()) for line in content.split(b"\n")) - len(expected)


@given(st.lists(st.integers(min_value=1, max_value=4), min_size=1, max_size=8), st.data(), sizes)
def test_any_truncation_leaves_whole_changes(groups: list[int], data: st.DataObject, size: int) -> None:
    content, ends = b"", {}
    for number, count in enumerate(groups, 1):
        content += b"".join(change(number, count))
        ends[len(content)] = [f"e{number}.{n}" for n in range(count)]
    cut = data.draw(st.integers(min_value=0, max_value=len(content)))
    found, scanner = scan(content[:cut], size)
    expected = [name for end, names in ends.items() if end <= cut for name in names]
    assert found == expected
    assert scanner.seen == cut
    assert not scanner.settle(), "the rest of a change never counts"
    more = encode(event("after", Stamp(2, 99)))
    later, _ = scan(content[:cut] + b"\n" + more, size)
    # A line that lacked only its newline becomes whole by it; the store closes such a line of ours differently.
    assert later in ([*expected, "after"], [*found_whole(content, cut, ends), "after"])


def found_whole(content: bytes, cut: int, ends: dict[int, list[str]]) -> list[str]:
    return [name for end, names in ends.items() if end - 1 <= cut for name in names]


@given(st.lists(st.sampled_from(["ours", "theirs", "noise"]), max_size=30), sizes)
def test_lines_of_others_inside_a_change(kinds: list[str], size: int) -> None:
    ours = change(7, kinds.count("ours") or 1)
    lines = [ours.pop(0) if kind == "ours" else b"" for kind in kinds]
    names = []
    for place, kind in enumerate(kinds):
        if kind == "theirs":
            lines[place] = encode(event(f"t{place}"))
            names.append(f"t{place}")
        elif kind == "noise":
            lines[place] = b"noise\n"
        else:
            names.append(f"e7.{kinds[:place].count('ours')}")
    assert scan(b"".join(lines), size)[0] == names, "in the order of the file"


def test_a_torn_change_gives_back_what_it_held() -> None:
    first, _second = change(1, 2)
    content = first + encode(event("theirs"))
    found, scanner = scan(content)
    assert found == []
    assert scanner.clean == (0, 0), "a new scanner has to start before it"
    assert [place.event.event_id for place in scanner.settle()] == ["theirs"]
    assert scanner.clean == (len(content), 2)
    [problem] = scanner.problems
    assert (problem.offset, problem.line) == (0, 1)
    assert "2 events of which only 1" in problem.what


def test_the_next_change_ends_a_torn_one() -> None:
    torn = change(1, 3)[:2]
    found, scanner = scan(b"".join([*torn, encode(event("theirs")), *change(2, 2)]))
    assert found == ["theirs", "e2.0", "e2.1"]
    assert len(scanner.problems) == 1


def test_the_end_of_a_change_without_its_beginning() -> None:
    found, scanner = scan(b"".join([*change(1, 3)[1:], *change(2, 1)]))
    assert found == ["e2.0"]
    assert scanner.headless
    assert [problem.line for problem in scanner.problems] == [1, 2]


def test_a_line_beyond_the_limit_is_not_loaded() -> None:
    scanner = Scanner()
    chunk = b"x" * (1 << 20)
    found = scanner.feed(encode(event("before")))
    for _ in range(100):
        found += scanner.feed(chunk)
        assert len(scanner.rest) < LINE_LIMIT
    found += scanner.feed(b"\n" + encode(event("after")))
    assert [place.event.event_id for place in found] == ["before", "after"]
    [problem] = scanner.problems
    assert (problem.line, problem.piece[:3]) == (2, "xxx")
    assert f"{100 << 20} bytes long" in problem.what


def test_problems_are_named_and_printable() -> None:
    _, scanner = scan(encode(event("fine")) + b"\n\x1b[2Jevil\xff\xfe " + b"y" * 500 + b"\n")
    [problem] = scanner.problems
    assert (problem.line, problem.offset) == (3, len(encode(event("fine"))) + 1)
    assert "\x1b" not in problem.piece
    assert "evil" in problem.piece
    assert len(problem.piece) <= 60


def test_what_other_programs_write() -> None:
    lines = [
        b'\xef\xbb\xbf{"event_id":"bom","event_type":"x","timestamp":"","actor":"go","correlation_id":null,"data":{}}',
        b'{"event_id":"null","event_type":"x","timestamp":"","actor":"go","data":null,"caused_by":null,"sf":null}\r',
        b'{"data":{"a":"\\u003c\\u2028"},"zzz":[1],"actor":"go","timestamp":"","event_type":"x","event_id":"order"}',
        b'{"event_id":"bare","event_type":"x","timestamp":"2026-01-06T12:00:00+01:00","actor":"go"}',
    ]
    found, scanner = scan(b"\n".join(lines) + b"\n")
    assert found == ["bom", "null", "order", "bare"]
    assert scanner.problems == []


def test_the_wire_order_of_the_keys() -> None:
    caused = Event("e", "t", "now", "me", None, {"b": 1, "a": 2}, "cause", Stamp(3, 4))
    assert encode(caused) == (
        b'{"event_id":"e","event_type":"t","timestamp":"now","actor":"me","correlation_id":null,'
        b'"caused_by":"cause","data":{"b":1,"a":2},"sf":[3,4,0,1]}\n'
    )
    plain = Event("e", "t", "now", "me", "run", {})
    assert encode(plain) == (
        b'{"event_id":"e","event_type":"t","timestamp":"now","actor":"me","correlation_id":"run","data":{}}\n'
    )
