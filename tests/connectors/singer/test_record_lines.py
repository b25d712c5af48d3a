"""Lines that two readers may read differently never pass the parser; all others pass as they are."""

from __future__ import annotations

import json
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.connectors.singer.message_reader import TapOutputError
from streamline.connectors.singer.parser import TapParser
from streamline.connectors.singer.record_lines import FlatRecords, why_ambiguous, without_duplicates
from streamline.flow.items import RawBatch

SCHEMA = b'{"type":"SCHEMA","stream":"orders","schema":{"properties":{}},"key_properties":["id"]}\n'
STATE = b'{"type":"STATE","value":{"bookmarks":{"orders":{"id":1}}}}\n'
STATES = (STATE, b'{"type":"STATE","value":0}\n')
FLAT = b'{"type":"RECORD","stream":"orders","record":{"id":1}}\n'
RECORDS = [
    FLAT,
    b'{"type":"RECORD","stream":"orders","record":{"id":2,"of":{"type":"x","stream":"y"}}}\n',
    b'{"type":"RECORD","stream":"orders","record":{"id":3,"note":"}},\\"type\\":1"}}\n',
    b'{"type":"RECORD","stream":"orders","record":{"id":4},"time_extracted":"2024-01-01T00:00:00Z"}\n',
    b'{"type":"RECORD","stream":"orders","record":{"id":5},"version":7,"time_extracted":"2024-01-01T00:00:00.5Z"}\n',
    b'{"type":"RECORD","stream":"orders","record":{"id":6,"of":{"x":NaN}}}\n',
    b'{"type":"RECORD","stream":"orders","record": {"id":7} , "extra":{"id":1} } \r\n',
    b'{"record":{"id":8},"type":"RECORD","stream":"orders"}\n',
    b'{"type":"RECORD","stream":"orders","record":{"id":9,"deep":' + b"[" * 1500 + b"]" * 1500 + b"}}\n",
]
BEHIND = [
    b',"type":"SCHEMA","stream":"users","schema":{}',
    b',"stream":"users"',
    b',"record":{"id":9}',
    b', "Stream" : "users"',
    b',"str\\u0065am":"users"',
    b',"version":1,"version":2',
    b',"x":{"y":"}"},"type":"ACTIVATE_VERSION"',
    b'}{"type":"STATE","value":{}',
    b'}{"x":{"y":1}',
    b',"record":{"a":1},"time_extracted":"' + b"x" * 40 + b'"',
]
AMBIGUOUS = [
    *[b'{"type":"RECORD","stream":"orders","record":{"id":0}' + behind + b"}\n" for behind in BEHIND],
    *[b'{"type":"RECORD","stream":"orders","record":{"id":0,"of":{"x":[1]}}' + behind + b"}\n" for behind in BEHIND],
    b'{"type":"SCHEMA","stream":"users","type":"RECORD","stream":"orders","record":{"id":0}}\n',
    b'{"type":"STATE","value":{},"type":"SCHEMA","stream":"users","schema":{"properties":{}}}\n',
    b'{"type":"SCHEMA","stream":"a","schema":{"properties":{"a":{}},"properties":{"b":{}}}}\n',
]


def parse(*chunks: bytes) -> bytes:
    """The RECORD lines that leave the parser."""
    parser = TapParser("s", tap="tap-x", log=lambda line: None)
    items = [item for chunk in chunks for item in parser.feed(chunk)]
    return b"".join(bytes(part) for item in items if isinstance(item, RawBatch) for part in item.slices)


@pytest.mark.parametrize("ambiguous", AMBIGUOUS)
@pytest.mark.parametrize("record", [FLAT, RECORDS[1], RECORDS[3]])
@pytest.mark.parametrize("state", [b"", STATE], ids=["", "state"])
def test_an_ambiguous_line_fails_wherever_it_stands(ambiguous: bytes, record: bytes, state: bytes) -> None:
    before = SCHEMA + record
    for chunks in (
        [before, ambiguous],
        [before, ambiguous + record * 2],
        [before, record * 3 + ambiguous + record],
        [before, record + state + ambiguous],
        [before, record + ambiguous + state + record],
        [before, record + b"a line of a log\n" + ambiguous + record],
    ):
        if ambiguous.startswith(b'{"type":"STATE"') and STATE in chunks[1].partition(ambiguous)[2]:
            continue  # replaced by a newer STATE: it goes nowhere
        with pytest.raises(TapOutputError) as failure:
            parse(*chunks)
        assert failure.value.code == "tap.message_ambiguous"


@pytest.mark.parametrize(
    "ambiguous",
    [
        *AMBIGUOUS,
        b'{"type":"RECORD","stream":"users","stream":"orders","record":{"id":0}}\n',
        b'{"type":"RECORD","stream":"orders","Stream":"users","record":{"id":0}}\n',
        b'{"record":1,"type":"RECORD","stream":"orders","record":{"id":0}}\n',
        b'{"type":"RECORD","stream":"orders","record":{},"record":{"id":0}}\n',
    ],
)
def test_an_ambiguous_line_fails_as_the_first_one_of_its_stream(ambiguous: bytes) -> None:
    with pytest.raises(TapOutputError) as failure:
        parse(SCHEMA, ambiguous)
    # Several messages in a line are no JSON text.
    assert failure.value.code == ("tap.invalid_output" if b"}{" in ambiguous else "tap.message_ambiguous")


@pytest.mark.parametrize("record", RECORDS)
def test_any_record_may_be_the_first_one_of_its_stream(record: bytes) -> None:
    assert parse(SCHEMA, record) == record


def test_the_name_that_stands_twice_is_told() -> None:
    assert without_duplicates([("a", 1), ("b", 2)]) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="'b' twice"):
        without_duplicates([("a", 1), ("b", 2), ("b", 3)])


def test_the_lines_before_it_are_kept() -> None:
    parser = TapParser("s", tap="tap-x", log=lambda line: None)
    parser.feed(SCHEMA + FLAT)
    with pytest.raises(TapOutputError) as failure:
        parser.feed(FLAT * 3 + AMBIGUOUS[0] + FLAT)
    [kept] = failure.value.items
    assert isinstance(kept, RawBatch)
    assert (kept.count, b"".join(map(bytes, kept.slices))) == (3, FLAT * 3)
    assert failure.value.message.endswith(AMBIGUOUS[0].decode().strip())


@given(st.lists(st.sampled_from(RECORDS), min_size=1), st.integers(0, 400))
def test_all_other_records_pass_unchanged(records: list[bytes], cut: int) -> None:
    text = b"".join(records)
    assert parse(SCHEMA + FLAT, text[:cut], text[cut:]) == FLAT + text


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.floats() | st.lists(st.none())))
def test_what_a_writer_of_json_writes_is_never_ambiguous(values: dict[str, object]) -> None:
    if len({key.casefold() for key in values}) == len(values):
        for ascii_only in (True, False):
            assert why_ambiguous(json.dumps(values, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")) is None


@given(
    st.lists(
        st.sampled_from([FLAT, RECORDS[1], RECORDS[2], RECORDS[3], *STATES, b"a log line\n", b"}}\n", b"\n"]),
        max_size=8,
    )
)
def test_flat_records_are_proven_only_if_all_other_lines_are_named(lines: list[bytes]) -> None:
    opening = b'{"type":"RECORD","stream":"orders","record":{'
    lines = [FLAT, *lines]
    text = b"".join(lines)
    parts = [(is_state, b"".join(part)) for is_state, part in groupby(lines, STATES.__contains__)]
    runs, states = ([part for is_state, part in parts if is_state is kind] for kind in (False, True))
    flat = FlatRecords(text, 0, len(text), opening)
    others = set(lines) - {FLAT, *STATES}
    assert flat.count_between(runs, states) == (0 if others else lines.count(FLAT))
    assert flat.count() == (0 if states or others else len(lines))
    for line in lines:
        assert FlatRecords(b"\n" + line, 1, len(line) + 1, opening).count() == (line == FLAT)
