"""The tap parser against a naive reader of the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamline.connectors.singer.message_reader import TapOutputError
from streamline.connectors.singer.parser import TapParser
from streamline.connectors.singer.state import state_of
from streamline.flow.codecs.envelope import rewrite
from streamline.flow.items import ActivateVersion, FileBatch, Item, Position, RawBatch, Schema
from tests.support.failures import fails


def parse(data: bytes, sizes: list[int] | None = None, **options: Any) -> tuple[list[Item], list[str]]:
    logged: list[str] = []
    parser = TapParser("group", tap="tap-x", log=logged.append, **options)
    items: list[Item] = []
    start = 0
    for size in sizes or []:
        items += parser.feed(data[start : start + size])
        start += size
    items += parser.feed(data[start:])
    items += parser.finish()
    return items, logged


def lines_of(batch: RawBatch) -> list[bytes]:
    return b"".join(bytes(part) for part in batch.slices).splitlines(keepends=True)


def schema(stream: str) -> bytes:
    return json.dumps({"type": "SCHEMA", "stream": stream, "schema": {"properties": {}}, "key_properties": []}).encode()


def record(stream: str, value: object, *, spaced: bool = False) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    return json.dumps({"type": "RECORD", "stream": stream, "record": {"v": value}}, separators=separators).encode()


def state(value: object, *, spaced: bool = False) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    return json.dumps({"type": "STATE", "value": value}, separators=separators).encode()


MESSAGES = st.lists(
    st.one_of(
        st.tuples(
            st.just("record"),
            st.sampled_from(["a", "b", 'odd"name\n']),
            st.integers() | st.text(max_size=5) | st.just({"x": [{}]}),
        ),
        st.tuples(st.just("state"), st.just(""), st.integers(0, 9)),
        st.tuples(st.just("noise"), st.just(""), st.sampled_from(["INFO hello", "", "  ", "[1]"])),
        st.tuples(st.just("schema"), st.sampled_from(["a", "b"]), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(MESSAGES, st.lists(st.integers(1, 60), max_size=20), st.booleans())
def test_agrees_with_a_naive_reader(messages: list[tuple[str, str, Any]], sizes: list[int], spaced: bool) -> None:
    lines = [schema(stream) for stream in ("a", "b", 'odd"name\n')]
    for kind, stream, value in messages:
        if kind == "record":
            lines.append(record(stream, value, spaced=spaced))
        elif kind == "state":
            lines.append(state({"bookmarks": {"a": value}}, spaced=spaced))
        elif kind == "schema":
            lines.append(schema(stream))
        else:
            lines.append(str(value).encode())
    data = b"\n".join(lines) + b"\n"

    items, logged = parse(data, sizes)

    # Every record line, byte for byte and in the order of its stream.
    expected: dict[str, list[bytes]] = {}
    for line in lines:
        if line.startswith((b'{"type":"RECORD"', b'{"type": "RECORD"')):
            expected.setdefault(json.loads(line)["stream"], []).append(line + b"\n")
    got: dict[str, list[bytes]] = {}
    for item in items:
        if isinstance(item, RawBatch):
            assert item.count == len(lines_of(item))
            assert item.nbytes == sum(map(len, item.slices))
            if item.prefix is not None:
                assert all(line.startswith(item.prefix) for line in lines_of(item))
            got.setdefault(item.stream, []).extend(lines_of(item))
    assert got == expected
    assert logged == [str(value) for kind, _, value in messages if kind == "noise" and str(value).strip()]

    # Before each position stand exactly the records that stood before its STATE.
    states = [index for index, line in enumerate(lines) if b'"STATE"' in line[:20]]
    places: dict[tuple[int, bytes], None] = {}
    for index in states:
        records = sum(b'"RECORD"' in line[:20] for line in lines[:index])
        places[records, json.dumps(json.loads(lines[index])["value"]).encode()] = None
    seen = 0
    numbers = []
    for item in items:
        if isinstance(item, RawBatch):
            seen += item.count
        elif isinstance(item, Position):
            assert (seen, json.dumps(json.loads(state_of(item.parts))).encode()) in places
            numbers.append(item.number)
    assert numbers == sorted(set(numbers))
    if states:
        # The last STATE is always given.
        last = [item for item in items if isinstance(item, Position)][-1]
        assert json.loads(state_of(last.parts)) == json.loads(lines[states[-1]])["value"]


def test_only_the_last_state_of_a_chunk_is_given_and_the_others_are_cut_out() -> None:
    lines = [schema("a"), record("a", 0), state(0)]
    for number in range(1, 50):
        lines += (
            [record("a", number), state(number)] if number % 3 else [state("x"), state(number), record("a", number)]
        )
    data = b"\n".join(lines) + b"\n"
    head = len(lines[0]) + len(lines[1]) + len(lines[2]) + 3

    items, _ = parse(data, [head])

    positions = [state_of(item.parts) for item in items if isinstance(item, Position)]
    assert positions == [b"0", b"49"]
    text = b"".join(bytes(part) for item in items if isinstance(item, RawBatch) for part in item.slices)
    assert text.count(b"RECORD") == 50
    assert b"STATE" not in text


def test_versions_batches_and_schemas_keep_their_place() -> None:
    sdk = {
        "type": "BATCH",
        "stream": "a",
        "encoding": {"format": "jsonl", "compression": "gzip"},
        "manifest": ["file:///x"],
    }
    wise = {"type": "BATCH", "stream": "a", "filepath": "/y", "format": "csv", "batch_size": 3}
    version = {"type": "ACTIVATE_VERSION", "stream": "a", "version": 7}
    data = b"\n".join(
        [schema("a"), record("a", 1), *(json.dumps(m).encode() for m in (version, sdk, wise)), record("a", 2)]
    )

    items, _ = parse(data)

    kinds = [type(item) for item in items]
    assert kinds == [Schema, RawBatch, ActivateVersion, FileBatch, FileBatch, RawBatch]
    assert items[3] == FileBatch("a", "sdk", ["file:///x"], "jsonl", "gzip", None, items[3].raw)  # type: ignore[union-attr]
    assert items[4].dialect == "pipelinewise"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "record_text",
    ['{"v":NaN}', '{"v":"\\ud800"}', '{"v":1e400}', '{"v":123456789012345678901234567890}', '{"v":-Infinity}'],
)
def test_odd_values_pass_as_they_are(record_text: str) -> None:
    line = f'{{"stream":"a","type":"RECORD","record":{record_text}}}\n'.encode()
    items, _ = parse(schema("a") + b"\n" + line * 3)
    assert isinstance(items[1], RawBatch)
    assert items[1].count == 3
    assert b"".join(bytes(part) for part in items[1].slices) == line * 3


@pytest.mark.parametrize(
    ("text", "code", "name"),
    [
        (b'{"level":"info"}\n', "tap.invalid_output", "level"),
        (b'{"type":"NEWS","stream":"a"}\n', "tap.invalid_output", "'NEWS'"),
        (b'{"type":"RECORD","stream":"b","record":{}}\n', "stream.schema_missing", "'b'"),
        (b'{"type":"RECORD","stream":"a"}\n', "tap.invalid_output", "RECORD"),
        (b'{"type":"STATE"}\n', "tap.invalid_output", "STATE"),
        (b'{"type":"RECORD","record":{}}\n', "tap.invalid_output", "a RECORD without a stream"),
        (b'{"type":"NEWS"}\n', "tap.invalid_output", "type 'NEWS'"),
        (b'{"type":"RECORD","stream":"a","record":{"v"', "tap.output_truncated", ""),
        (b'{"type":"SCHEMA","stream":"c"}\n', "tap.invalid_output", "SCHEMA"),
        (b"{broken}\n", "tap.invalid_output", "{broken}"),
    ],
)
def test_what_is_no_message_fails_the_tap_after_what_came_before(text: bytes, code: str, name: str) -> None:
    parser = TapParser("group", tap="tap-x", log=lambda line: None)
    before = schema("a") + b"\n" + record("a", 1) + b"\n"
    items: list[Item] = []
    with pytest.raises(TapOutputError) as caught:
        items += parser.feed(before + text)
        items += parser.finish()
    assert caught.value.code == code
    assert name in caught.value.message
    items += caught.value.items
    assert [type(item) for item in items] == [Schema, RawBatch]


def test_a_line_that_is_too_long_names_its_stream() -> None:
    parser = TapParser("group", tap="tap-x", log=lambda line: None, max_record_bytes=10_000)
    parser.feed(schema("a") + b"\n" + record("a", 1) + b"\n")
    with fails("tap.line_too_long", "'a'"):
        for _ in range(20):
            parser.feed(b'{"type":"RECORD","stream":"a","record":{"v":"' + b"x" * 1000)


def test_a_line_of_the_longest_size_is_not_too_long() -> None:
    parser = TapParser("group", tap="tap-x", log=lambda line: None, max_record_bytes=10_000)
    parser.feed(schema("a") + b"\n" + record("a", 1) + b"\n")
    line = record("a", "x" * (10_000 - len(record("a", ""))))
    assert len(line) == 10_000
    parser.feed(line)
    with fails("tap.line_too_long"):
        parser.feed(b" ")


def test_a_long_line_in_many_chunks_passes() -> None:
    line = record("a", "x" * 3_000_000) + b"\n"
    items, _ = parse(schema("a") + b"\n" + record("a", 1) + b"\n" + line + record("a", 2) + b"\n", [70_000] * 40)
    assert (
        b"".join(bytes(part) for item in items if isinstance(item, RawBatch) for part in item.slices).count(line) == 1
    )


def test_records_of_several_streams_are_batches_of_their_prefixes_around_the_last_state() -> None:
    streams = ("a", "b", "c")
    head = [*map(schema, streams), *(record(stream, 0) for stream in streams), state({"bookmarks": {"a": 0}})]
    lines = [record(stream, number) for number in range(1, 7) for stream in streams]
    for place, number in ((14, 3), (10, 2), (6, 1)):
        lines.insert(place, state({"bookmarks": {"a": number}}))
    text = b"\n".join(head) + b"\n"

    items, _ = parse(text + b"\n".join(lines) + b"\n", [len(text)])

    new = items[-7:]
    assert [item.stream if isinstance(item, RawBatch) else type(item) for item in new] == [*"abc", Position, *"cab"]
    assert isinstance(new[3], Position)
    assert state_of(new[3].parts) == b'{"bookmarks":{"a":3}}'
    batches = [item for item in new if isinstance(item, RawBatch)]
    assert [batch.count for batch in batches] == [5, 5, 4, 2, 1, 1]
    for batch in batches:
        assert batch.prefix == b'{"type":"RECORD","stream":"%b","record":' % batch.stream.encode()
        assert all(line.startswith(batch.prefix) for line in lines_of(batch))


@pytest.mark.parametrize("place", range(6))
def test_a_line_of_another_kind_may_stand_among_records_of_several_streams(place: int) -> None:
    head = [schema("a"), schema("b"), record("a", 0), record("b", 0), state({"bookmarks": {"a": 0}})]
    lines = [record("a", 1), record("b", 1), state({"bookmarks": {"a": 1}}), record("a", 2), record("b", 2)]
    lines.insert(place, b"INFO")
    text = b"\n".join(head) + b"\n"

    items, logged = parse(text + b"\n".join(lines) + b"\n", [len(text)])

    new = [item.stream if isinstance(item, RawBatch) else type(item) for item in items[-5:]]
    assert (new, logged) == (["a", "b", Position, "a", "b"], ["INFO"])


@pytest.mark.parametrize(
    "invalid",
    [
        b'{"type":"STATE","value":{"bookmarks":{"a":{"id":1}}},"value":{}}\n',
        b'{"type":"STATE","value":{"bookmarks":{"a":{"id":1}}\n',
        b'{"type":"RECORD","stream":"a","record":{"v":1},"stream":"b"}\n'
        + state({"bookmarks": {"a": {"id": 3}}})
        + b"\n",
    ],
)
@pytest.mark.parametrize("streams", ["aaa", "aba"])
def test_records_and_states_before_an_invalid_line_are_kept(invalid: bytes, streams: str) -> None:
    parser = TapParser("group", tap="tap-x", log=lambda line: None)
    bookmarks = [{"bookmarks": {"a": {"id": number}}} for number in range(3)]
    parser.feed(b"\n".join([schema("a"), schema("b"), record("b", 0), record("a", 0), state(bookmarks[0]), b""]))
    lines = [
        line for stream, value in zip(streams, bookmarks, strict=True) for line in (record(stream, 1), state(value))
    ]
    with pytest.raises(TapOutputError) as caught:
        parser.feed(b"\n".join([*lines, invalid]))
    kept = [item for item in caught.value.items if isinstance(item, RawBatch)]
    assert sum(batch.count for batch in kept) == 3
    last = caught.value.items[-1]
    assert isinstance(last, Position)
    assert json.loads(state_of(last.parts)) == bookmarks[2]


@pytest.mark.parametrize("empty", [{}, None])
@pytest.mark.parametrize("records", [0, 3])
def test_an_empty_state_does_not_replace_the_position_before_it(empty: object, records: int) -> None:
    rows = [record("a", number) for number in range(records)]
    lines = [schema("a"), *rows, state({"bookmarks": {"a": 1}}), *rows, state(empty), b""]

    items, _ = parse(b"\n".join(lines), [])

    assert [state_of(item.parts) for item in items if isinstance(item, Position)] == [
        json.dumps({"bookmarks": {"a": 1}}, separators=(",", ":")).encode()
    ]


def test_a_last_line_without_a_newline_may_be_nested_deeply() -> None:
    deep = b'{"type":"RECORD","stream":"a","record":{"v":' + b"[" * 1500 + b"]" * 1500 + b"}}"
    items, _ = parse(schema("a") + b"\n" + deep)
    batch = items[-1]
    assert isinstance(batch, RawBatch)
    assert lines_of(batch) == [deep + b"\n"]


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_byte_order_mark_before_a_message_hides_no_record(size: int) -> None:
    mark = b"\xef\xbb\xbf"
    lines = [schema("a"), record("a", 1), record("a", 2), record("a", 3), state({"bookmarks": {"a": 3}})]
    data = b"".join((mark if number != 2 else b"") + line + b"\n" for number, line in enumerate(lines))

    items, text = parse(data, [size] * (len(data) // size + 1))

    assert text == []
    sent = [line.strip() for item in items if isinstance(item, RawBatch) for line in lines_of(item)]
    assert (sent, type(items[-1])) == (lines[1:4], Position)


def test_records_before_their_stream_in_a_line_can_get_a_version() -> None:
    lines = [b'{"record":{"v":%d},"stream":"a","type":"RECORD"}\n' % number for number in (1, 2)]

    items, _ = parse(schema("a") + b"\n" + b"".join(lines))

    (batch,) = [item for item in items if isinstance(item, RawBatch)]
    assert [json.loads(line)["version"] for line in lines_of(rewrite(batch, version=7))] == [7, 7]


NESTED = b'{"type":"RECORD","stream":"a","record":{"v":{"x":1}}}'


@pytest.mark.parametrize("rows", [[record("a", 1)] * 3, [NESTED] * 3, [record("b", 1), record("a", 1), NESTED]])
def test_a_state_that_a_newer_one_in_the_chunk_replaces_is_not_decoded(rows: list[bytes]) -> None:
    unfinished = b'{"type":"STATE","value":{"bookmarks":{"a":{"id":1,'
    states = [state({"bookmarks": {"a": {"id": number}}}) for number in range(3)]
    head = b"\n".join([schema("a"), schema("b"), record("b", 0), record("a", 0), *states[:2], b""])
    first, second, third = rows
    for lines in (
        [first, unfinished, second, states[2]],
        [first, unfinished, states[2], second],
        [first, unfinished, second, unfinished, states[2], third],
    ):
        items, _ = parse(head + b"\n".join(lines) + b"\n", [len(head)])
        assert [state_of(item.parts) for item in items if isinstance(item, Position)][1:] == [
            b'{"bookmarks":{"a":{"id":2}}}'
        ]
        place = next(index for index, item in enumerate(items) if isinstance(item, Position) and item.number == 2)
        after = [line for item in items[place:] if isinstance(item, RawBatch) for line in lines_of(item)]
        assert after == [line + b"\n" for line in lines[lines.index(states[2]) + 1 :]]


@pytest.mark.parametrize("between", [[], [record("a", 2)]])
def test_a_state_with_a_bookmark_that_the_newer_one_lacks_is_given(between: list[bytes]) -> None:
    states = [state({"bookmarks": {stream: 1}}) for stream in ("a", "b")]
    head = b"\n".join([schema("a"), record("a", 0), *states, b""])
    items, _ = parse(head + b"\n".join([record("a", 1), states[0], *between, states[1], b""]), [len(head)])
    positions = [state_of(item.parts) for item in items if isinstance(item, Position)]
    assert positions == [b'{"bookmarks":{"a":1}}', b'{"bookmarks":{"b":1}}'] * 2


@pytest.mark.parametrize("line", [state({"bookmarks": {"a": 1}}), record("a", 1)])
def test_a_chunk_may_end_anywhere_in_a_line(line: bytes) -> None:
    head = b"\n".join([schema("a"), record("a", 0), state({"bookmarks": {"a": 0}}), b""])
    for before in ([], [line], [record("a", 2)]):
        text = b"".join(each + b"\n" for each in before)
        for size in range(len(line) + 1):
            items, _ = parse(head + text + line + b"\n", [len(head), len(text) + size])
            lines = [each for item in items if isinstance(item, RawBatch) for each in lines_of(item)]
            assert len(lines) == 1 + sum(b"RECORD" in each for each in [*before, line])
            last = [item for item in items if isinstance(item, Position)][-1]
            assert json.loads(state_of(last.parts)) == {"bookmarks": {"a": int(b"STATE" in line)}}


def test_only_lines_that_begin_with_a_brace_are_messages() -> None:
    items, logged = parse(b'  \nINFO "record":\n\t{"type":"STATE","value":{"bookmarks":{"a":1}}}\n"{}"\n')
    assert logged == ['INFO "record":', '"{}"']
    assert [type(item) for item in items] == [Position]
