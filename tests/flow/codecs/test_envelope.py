from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.flow.codecs.envelope import (
    UNSET,
    map_records,
    record_prefix,
    records,
    rewrite,
    rewrite_files,
    version_of,
    wrap,
)
from streamline.flow.codecs.lanes import record_text
from streamline.flow.items import FileBatch, RawBatch

ODD = rb'{"id":12345678901234567890123, "x":NaN,"s":"\ud800","d":0.10000000000000000000001}'


def batch(*lines: bytes, prefix: bytes | None = None, stream: str = "orders") -> RawBatch:
    text = b"".join(line + b"\n" for line in lines)
    return RawBatch(stream, [text], len(lines), len(text), prefix)


def lines(b: RawBatch) -> list[bytes]:
    text = b"".join(bytes(part) for part in b.slices)
    assert b.nbytes == len(text)
    assert text == b"" or text.endswith(b"\n")
    assert b.prefix is None or all(line.startswith(b.prefix) for line in text.splitlines())
    return text.splitlines()


PREFIX = b'{"type":"RECORD","stream":"orders","record":'
SPACED = b'{"type": "RECORD", "stream": "orders", "version": 7, "record": '


def test_rename_with_a_known_prefix_leaves_the_rest_of_each_line() -> None:
    got = rewrite(batch(PREFIX + b'{"id": 1}}', PREFIX + ODD + b',"time_extracted":"t"}', prefix=PREFIX), stream="o2")
    assert got.stream == "o2"
    assert lines(got) == [
        b'{"type":"RECORD","stream":"o2","record":{"id": 1}}',
        b'{"type":"RECORD","stream":"o2","record":' + ODD + b',"time_extracted":"t"}',
    ]


def test_slices_of_a_bigger_buffer_are_rewritten_one_by_one() -> None:
    chunk = PREFIX + b'{"id":1}}\n' + b"noise\n" + PREFIX + b'{"id":2}}\n'
    first = len(PREFIX) + 10
    parts = [memoryview(chunk)[:first], memoryview(chunk)[first + 6 :]]
    got = rewrite(RawBatch("orders", list(parts), 2, sum(map(len, parts)), PREFIX), stream="a")
    assert lines(got) == [b'{"type":"RECORD","stream":"a","record":{"id":%d}}' % n for n in (1, 2)]


def test_a_prefix_inside_a_record_is_left_alone() -> None:
    inner = PREFIX + b'{"id":1}}'
    got = rewrite(batch(PREFIX + b'{"m":' + inner + b"}}", prefix=PREFIX), stream="o2")
    assert list(records(got)) == [b'{"m":' + inner + b"}"]


def test_a_version_goes_into_the_prefix() -> None:
    got = rewrite(batch(PREFIX + b'{"id":1}}', prefix=PREFIX), version=5)
    assert lines(got) == [b'{"type":"RECORD","stream":"orders","version":5,"record":{"id":1}}']
    assert got.prefix == b'{"type":"RECORD","stream":"orders","version":5,"record":'


def test_a_version_in_the_prefix_is_changed_and_taken_out() -> None:
    old = batch(SPACED + b'{"id":1}}', prefix=SPACED)
    assert [json.loads(line) for line in lines(rewrite(old, version=9))] == [
        {"type": "RECORD", "stream": "orders", "version": 9, "record": {"id": 1}}
    ]
    assert [json.loads(line) for line in lines(rewrite(old, version=None))] == [
        {"type": "RECORD", "stream": "orders", "record": {"id": 1}}
    ]


def test_a_version_behind_the_record_is_found() -> None:
    old = batch(PREFIX + b'{"version":"x"},"version":3}', PREFIX + b'{"id":2}}', prefix=PREFIX)
    assert [json.loads(line) for line in lines(rewrite(old, version=9))] == [
        {"type": "RECORD", "stream": "orders", "version": 9, "record": {"version": "x"}},
        {"type": "RECORD", "stream": "orders", "version": 9, "record": {"id": 2}},
    ]
    assert [json.loads(line).get("version") for line in lines(rewrite(old, version=None))] == [None, None]


def test_without_a_prefix_every_key_order_works_and_records_keep_their_bytes() -> None:
    got = rewrite(
        batch(
            b'{"record":' + ODD + b', "stream" : "orders","type":"RECORD","x-own":[1, 2]}',
            b'{"stream":"orders","record":{"id": 2},"type":"RECORD","version":1}',
        ),
        stream="ö",
        version=2,
    )
    assert list(records(got)) == [ODD, b'{"id": 2}']
    envelopes = [json.loads(line) for line in lines(got)]
    assert [(e["stream"], e["type"], e["version"]) for e in envelopes] == [("ö", "RECORD", 2)] * 2
    assert envelopes[0]["x-own"] == [1, 2]


def test_a_stream_behind_the_record_is_renamed() -> None:
    old = batch(b'{"type":"RECORD","record":{"id":1},"stream":"orders"}', prefix=b'{"type":"RECORD","record":')
    assert lines(rewrite(old, stream="o2")) == [b'{"type":"RECORD","record":{"id":1},"stream":"o2"}']


def test_a_batch_of_files_is_renamed_and_gets_a_version_if_its_dialect_has_one() -> None:
    def files(dialect: str) -> FileBatch:
        raw = b'{"type":"BATCH","stream":"orders","version":3}'
        return FileBatch("orders", dialect, ["f"], "jsonl", None, 3, raw, 7)

    assert rewrite_files(files("sdk"), version=5) == FileBatch(
        "orders", "sdk", ["f"], "jsonl", None, 5, b'{"type":"BATCH","stream":"orders","version":5}\n', 7
    )
    for dialect in ("sdk", "pipelinewise"):
        renamed = rewrite_files(files(dialect), stream="o2")
        assert (renamed.stream, renamed.version) == ("o2", 3)
        assert json.loads(renamed.raw) == {"type": "BATCH", "stream": "o2", "version": 3}
        bare = rewrite_files(files(dialect), version=None)
        assert (bare.version, json.loads(bare.raw)) == (None, {"type": "BATCH", "stream": "orders"})
    with pytest.raises(ValueError, match="pipelinewise"):
        rewrite_files(files("pipelinewise"), version=5)


def test_nothing_to_change_gives_the_same_batch() -> None:
    old = batch(PREFIX + b'{"id":1}}', prefix=PREFIX)
    assert rewrite(old) is old


def test_a_carriage_return_between_parts_does_not_split_a_line() -> None:
    got = rewrite(batch(b'{"stream":"orders",\r"type":"RECORD","record":{"id":1}}\r'), stream="b")
    assert list(records(got)) == [b'{"id":1}']
    assert len(lines(got)) == 1


def test_map_records_changes_drops_and_keeps() -> None:
    old = batch(PREFIX + b'{"id":1}}', PREFIX + b'{"id":2}}', PREFIX + b'{"id":3},"time_extracted":"t"}', prefix=PREFIX)
    changes = {b'{"id":1}': None, b'{"id":3}': b'{"id":"three"}'}
    got = map_records(old, lambda text: changes.get(text, text))
    assert got.count == 2
    assert lines(got) == [PREFIX + b'{"id":2}}', PREFIX + b'{"id":"three"},"time_extracted":"t"}']


def test_map_records_where_the_text_stands_twice_in_the_line() -> None:
    line = b'{"type":"RECORD","stream":"orders","note":{"id":1},"record":{"id":1}}'
    got = map_records(batch(line), lambda _: b"{}")
    assert [json.loads(x) for x in lines(got)] == [
        {"type": "RECORD", "stream": "orders", "note": {"id": 1}, "record": {}}
    ]


def test_version_of_a_batch() -> None:
    assert version_of(batch(PREFIX + b"{}}", prefix=PREFIX)) is None
    assert version_of(batch(PREFIX + b"{}}", PREFIX + b'{},"version":12}', prefix=PREFIX)) == 12
    assert version_of(batch(b'{"record":{"x":NaN},"version":null}')) is None


def test_version_of_long_lines() -> None:
    line = b'{"version":12,"record":{"x":"' + b"y" * 100_000 + b'"}}'
    assert version_of(batch(line)) == 12
    assert version_of(batch(PREFIX + b"{}}", line)) == 12
    assert version_of(RawBatch("orders", [], 0, 0)) is None


def test_wrap_makes_lines_that_a_target_reads() -> None:
    got = wrap("o", [b'{"id":1}', b'{"id":2}'], version=3, time_extracted="t")
    assert [json.loads(x) for x in lines(got)] == [
        {"type": "RECORD", "stream": "o", "version": 3, "time_extracted": "t", "record": {"id": n}} for n in (1, 2)
    ]
    assert got.prefix == record_prefix("o", version=3, time_extracted="t")
    assert lines(wrap("o", [])) == []


def test_a_line_that_is_no_message_is_an_error() -> None:
    with pytest.raises(ValueError, match="record"):
        list(records(batch(b'{"type":"RECORD"}')))


texts = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.floats() | st.text(max_size=9), max_size=4)
envelopes = st.fixed_dictionaries(
    {"type": st.just("RECORD"), "stream": st.just("orders"), "record": texts},
    optional={"version": st.integers(0, 9), "time_extracted": st.text(max_size=5), 'a"b': st.booleans()},
)


@given(
    st.lists(st.tuples(envelopes, st.randoms(), st.booleans()), min_size=1, max_size=5),
    st.sampled_from([None, "new", 'qu"ote', "ö"]),
    st.sampled_from([UNSET, None, 3]),
)
def test_rewriting_is_the_same_as_changing_the_decoded_message(
    made: list[tuple[dict[str, Any], Any, bool]], stream: str | None, version: Any
) -> None:
    texts_ = []
    for message, random, spaced in made:
        keys = list(message)
        random.shuffle(keys)
        separators = (", ", ": ") if spaced else (",", ":")
        texts_.append(json.dumps({k: message[k] for k in keys}, separators=separators).encode())
    prefix: bytes | None = texts_[0][: texts_[0].index(b'"record":') + 9] if b'"record":' in texts_[0] else None
    if prefix is None or not all(t.startswith(prefix) for t in texts_):
        prefix = None
    got = rewrite(batch(*texts_, prefix=prefix), stream=stream, version=version)
    expected = []
    for message, _, _ in made:
        want = dict(message)
        if stream is not None:
            want["stream"] = stream
        if version is None:
            want.pop("version", None)
        elif version is not UNSET:
            want["version"] = version
        expected.append(want)
    decoded = [json.loads(line) for line in lines(got)]
    assert [json.dumps(d, sort_keys=True) for d in decoded] == [json.dumps(e, sort_keys=True) for e in expected]
    assert [json.dumps(json.loads(t)) for t in records(got)] == [json.dumps(m["record"]) for m, _, _ in made]


def test_records_that_are_nested_deeply_are_found_and_changed() -> None:
    deep = b'{"id":1,"v":' + b"[" * 1500 + b"]" * 1500 + b"}"
    line = PREFIX + deep + b"}"
    assert list(records(batch(line))) == [deep]
    assert record_text(line) == deep
    assert lines(map_records(batch(line), lambda _: b"{}")) == [PREFIX + b"{}}"]
