"""Records held to their SCHEMA: good lines pass byte for byte, bad ones are set aside alone."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.errors import StreamlineError
from streamline.flow.items import BadRecord, Item, JSONObject, Position, RawBatch, RowBatch, Schema
from streamline.flow.stages.lenient import lenient
from streamline.flow.stages.validate import BadRecordLimit, ValidateStage
from tests.support.failures import fails

ORDERS = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "total": {"type": ["null", "number"], "multipleOf": 0.01},
        "at": {"type": ["null", "string"], "format": "date-time"},
        "state": {"enum": ["new", "paid", None]},
    },
    "required": ["id"],
}

DATES = [
    *("2024-02-29", "20240229", "0044-03-15 BC", "+12024-01-01", "-0044-02-29", "infinity", None),
    *("2024-12-31", "2024-01-31", "2024-11-30"),
    *("2024-01-01T00:00:00", "2024-01-01 23:59:59.5+00:00", "2024-01-01T00:00:00.000000Z"),
]
NO_DATES = [
    *("banana", "", "2023-02-29", "2024-13-01", "2024-00-10", "2024-01-00", "2024-12-32", "2024-01-01 or so"),
    *("01/02/2024", 20240229),
]


def line(text: str, stream: str = "orders") -> bytes:
    return f'{{"type": "RECORD", "stream": "{stream}", "record": {text}, "version": 3}}\n'.encode()


def batch(*slices: bytes, stream: str = "orders") -> RawBatch:
    return RawBatch(stream, list(slices), sum(s.count(b"\n") for s in slices), sum(map(len, slices)))


def run(stage: ValidateStage, items: Iterable[Item]) -> list[Item]:
    async def go() -> list[Item]:
        out: list[Item] = []
        for item in items:
            out += await stage.process(item)
        return [*out, *await stage.finish()]

    return anyio.run(go)


def validate(schema: JSONObject, *items: Item, **options: Any) -> list[Item]:
    return run(ValidateStage(**options), [Schema("orders", schema), *items])[1:]


def text_of(item: Item) -> bytes:
    assert isinstance(item, RawBatch)
    assert item.nbytes == sum(map(len, item.slices))
    return b"".join(bytes(piece) for piece in item.slices)


GOOD = [
    '{"id": 1}',
    '{"id": 2, "total": 19.99, "at": "yesterday", "state": null}',
    '{"id": 123456789012345678901234567890}',
]
BAD = {
    '{"total": 1}': '"id" is a required property',
    '{"id": "x"}': 'id: "x" is not of type "integer"',
    '{"id": 1, "total": "1.5"}': 'total: "1.5" is not of types "null", "number"',
    '{"id": 1, "state": "lost"}': 'state: "lost" is not one of',
    '{"id": 1, "total": NaN}': "total: nan is not a JSON number",
    '{"id": 1, "deep": {"list": [0, -Infinity]}}': "deep.list.1: -inf is not a JSON number",
    "[1]": "the record is not a JSON object",
    "{": "not valid JSON",
}  # fmt: skip


def test_a_batch_without_bad_records_is_the_same_batch() -> None:
    whole = batch(b"".join(line(text) for text in GOOD), line(GOOD[0]))
    assert validate(ORDERS, whole, Position("shop", 1, {}))[0] is whole


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_record_is_set_aside_with_its_text_and_its_error(bad: str) -> None:
    out = validate(ORDERS, batch(line(GOOD[0]) + line(bad) + line(GOOD[1]) + line(GOOD[2])))
    assert text_of(out[0]) == line(GOOD[0]) + line(GOOD[1]) + line(GOOD[2])
    assert isinstance(out[0], RawBatch)
    assert (out[0].count, len(out[0].slices)) == (3, 2)
    (refused,) = out[1:]
    assert isinstance(refused, BadRecord)
    assert (refused.stream, refused.stage) == ("orders", "validate")
    assert refused.error.startswith(BAD[bad])
    if bad.endswith("}"):
        assert refused.record == bad.encode() or "Infinity" in bad or "NaN" in bad


def test_a_batch_of_bad_records_leaves_nothing_else() -> None:
    out = validate(ORDERS, batch(line('{"id": 1.5}')))
    assert [type(item) for item in out] == [BadRecord]


@pytest.mark.parametrize("text", ['{"id": 1, "total": 1e400}', '{"id":1.0}'])
def test_what_other_parsers_refuse_passes_if_it_fits(text: str) -> None:
    whole = batch(line(text) + line(GOOD[0]))
    assert text_of(*validate(ORDERS, whole)) == text_of(whole)


def test_a_line_in_no_encoding_is_set_aside_alone() -> None:
    out = validate(ORDERS, batch(line(GOOD[0]) + b'{"type":"RECORD","stream":"orders","record":{"id":"\xff"}}\n'))
    assert text_of(out[0]) == line(GOOD[0])
    assert isinstance(out[1], BadRecord)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_every_line_comes_out_once_and_in_order(picture: list[tuple[bool, bool]]) -> None:
    lines = [line(f'{{"id": {n if good else "null"}, "n": {n}}}') for n, (good, _) in enumerate(picture)]
    slices: list[bytes] = [b""]
    for text, (_, cut) in zip(lines, picture, strict=True):
        slices[-1] += text
        if cut:
            slices.append(b"")
    out = validate(ORDERS, batch(*(piece for piece in slices if piece)), max_bad_records=100)
    assert all(bytes(piece) for item in out if isinstance(item, RawBatch) for piece in item.slices)
    passed = b"".join(text_of(item) for item in out if isinstance(item, RawBatch))
    assert passed == b"".join(text for text, (good, _) in zip(lines, picture, strict=True) if good)
    assert [json.loads(item.record)["n"] for item in out if isinstance(item, BadRecord)] == [
        n for n, (good, _) in enumerate(picture) if not good
    ]


def test_a_null_key_is_named_as_that() -> None:
    nullable: JSONObject = {"properties": {"id": {"type": ["null", "integer"]}}}
    items = [Schema("orders", nullable, ["id"]), batch(line('{"id": null}'))]
    (bad,) = [item for item in run(ValidateStage(), items) if isinstance(item, BadRecord)]
    assert bad.error == "id: the key is null"


def test_rows_are_validated_too() -> None:
    out = validate(ORDERS, RowBatch("orders", [{"id": 1, "total": Decimal("1.10")}, {"id": None}]))
    assert text_of(out[0]) == b'{"type":"RECORD","stream":"orders","record":{"id":1,"total":1.10}}\n'
    assert isinstance(out[1], BadRecord)


def test_a_later_schema_counts_from_there() -> None:
    stage = ValidateStage()
    text = batch(line('{"id": "x"}'))
    out = run(stage, [Schema("orders", {"properties": {}}), text, Schema("orders", ORDERS), text])
    assert [type(item) for item in out] == [Schema, RawBatch, Schema, BadRecord]
    assert (stage.counts["orders"].records, stage.counts["orders"].bad) == (2, 1)


def test_records_of_a_stream_without_schema_pass() -> None:
    other = batch(line("{}", "other"), stream="other")
    assert validate(ORDERS, other) == [other]


def test_too_many_bad_records_name_the_stream_the_count_and_the_first_errors() -> None:
    bad = batch(line('{"id": "a"}'), line('{"id": "b"}'), line('{"id": 1}'))
    assert validate(ORDERS, bad, max_bad_records=2)
    with pytest.raises(StreamlineError) as caught:
        validate(ORDERS, bad, bad, max_bad_records=2)
    text = str(caught.value)
    assert text.startswith("stream orders: 4 of 6 records do not fit its SCHEMA, more than max_bad_records (2) allows")
    assert 'id: "a" is not of type "integer"' in text


def test_one_in_a_hundred_is_allowed_beyond_the_first_thousand() -> None:
    limit = BadRecordLimit()
    limit.add("orders", 1_000, ["x"] * 1_000)
    with pytest.raises(StreamlineError):
        limit.add("orders", 1, ["x"])
    many = BadRecordLimit()
    many.add("orders", 500_000, ["x"] * 1_000)
    many.add("orders", 0, ["x"] * 4_000)
    with fails("record.too_many_invalid", "5,001", "500,000"):
        many.add("orders", 0, ["x"])


def test_fail_stops_at_the_first() -> None:
    with fails("record.invalid", "orders", 'id: "x"'):
        validate(ORDERS, batch(line('{"id": "x"}')), fail=True)


@pytest.mark.parametrize(
    ("prop", "good", "bad"),
    [
        ({"type": ["null", "string"], "format": "date-time"}, ["never", None], [5]),
        ({"type": ["null", "string"], "format": "date"}, DATES, NO_DATES),
        ({"type": "string", "format": "email"}, ["nobody"], [5]),
        ({"type": ["string", "null"], "format": "singer.decimal"}, ["1.50", "-.5e3", 7, 1.5, None], ["x", "", True]),
        ({"type": "number", "multipleOf": 0.01, "maximum": 10, "exclusiveMaximum": True}, [9.999], [10, 11]),
        ({"type": "integer", "exclusiveMinimum": 0}, [1, 2**70], [0]),
        ({"type": ["null", "null", "integer"]}, [None, 1], ["x"]),
        ({"type": "date-time"}, ["x", 1], []),
        ({"type": "string", "maxLength": 10.0, "minLength": -1}, ["x" * 10], ["x" * 11]),
        ({"type": "string", "maxLength": 0}, [""], ["x"]),
        ({"type": "string", "pattern": "(?P<year>x)"}, ["y"], [1]),
        ({"type": "string", "pattern": "^x"}, ["xy"], ["y"]),
        ({"anyOf": [{"type": "string", "format": "date-time"}, {"type": ["null", "object"]}]}, ["x", None, {}], [1]),
        ({"type": "array", "items": {"$ref": "#/definitions/item"}}, [[{"a": 1}]], [[{"a": "x"}], {}]),
        ({"required": True, "type": "integer"}, [1], ["x"]),
        ({"type": "object", "properties": {"format": {"type": "integer"}}}, [{"format": 1}], [{"format": "x"}]),
        ({"type": "object", "properties": {}, "additionalProperties": False}, [{}], [{"a": 1}]),
        (True, [1, "x"], []),
    ],
)
def test_schemas_as_taps_write_them(prop: Any, good: list[Any], bad: list[Any]) -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "definitions": {"item": {"properties": {"a": {"type": "integer"}}}},
        "properties": {"a": prop},
    }
    for value in good:
        assert isinstance(validate(schema, batch(line(json.dumps({"a": value}))))[0], RawBatch), value
    for value in bad:
        assert isinstance(validate(schema, batch(line(json.dumps({"a": value}))))[0], BadRecord), value


def test_a_schema_that_is_none_is_an_error_of_its_stream() -> None:
    with fails("stream.schema_invalid", "orders"):
        validate({"properties": {"a": {"$ref": "#/definitions/nothing"}}})


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_no_other_document_is_fetched(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text('{"type": "string"}')
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/" if scheme == "http" else f"file://{tmp_path}/text.json"
        with pytest.raises(StreamlineError) as failure:
            validate({"properties": {"a": {"items": {"$ref": f"{address}#"}}}})
        assert failure.value.code == "stream.schema_invalid"
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_lenient_keeps_what_forbids() -> None:
    assert lenient(
        {"type": "object", "title": "x", "properties": {"a": {"enum": [1], "default": 1, "minimum": "5"}}}
    ) == {
        "type": "object",
        "properties": {"a": {"enum": [1]}},
    }


@pytest.mark.parametrize("surrogate", ["\\ud800", "\\udfff"])
def test_text_that_is_no_unicode_is_bad(surrogate: str) -> None:
    good, odd = line('{"id": 1}'), line(f'{{"id": 2, "note": "{surrogate}"}}')
    kept, refused = validate(ORDERS, batch(good, odd))
    assert text_of(kept) == good
    assert isinstance(refused, BadRecord)
    assert "note" in refused.error
    assert "surrogate" in refused.error


def test_letters_beside_the_surrogates_are_text() -> None:
    # The number makes it a line for the lenient parser, which looks for surrogates.
    text = line('{"id": 1, "total": 1e400, "note": "\\ud7ff\\ue000"}')
    assert text_of(*validate(ORDERS, batch(text))) == text


def test_a_long_error_is_cut() -> None:
    def error(length: int) -> str:
        (refused,) = validate(ORDERS, batch(line(json.dumps({"id": "x" * length}))))
        assert isinstance(refused, BadRecord)
        return refused.error

    rest = len(error(1)) - 1
    assert len(error(400 - rest)) == 400
    assert not error(400 - rest).endswith("…")
    assert len(error(401 - rest)) == 400
    assert error(401 - rest).endswith("…")


FREE = {"type": "object", "properties": {"id": {"type": ["null", "integer"]}}}


@pytest.mark.parametrize("odd", ['{"note": "no id"}', '{"id": null}'])
def test_a_record_without_its_key_is_bad(odd: str) -> None:
    good = line('{"id": 1}')
    (_, kept, refused) = run(ValidateStage(), [Schema("orders", FREE, ["id"]), batch(good, line(odd))])
    assert text_of(kept) == good
    assert isinstance(refused, BadRecord)
    without = ValidateStage(keys_of=lambda item: [])
    assert len(run(without, [Schema("orders", FREE, ["id"]), batch(good, line(odd))])) == 2


def test_a_required_column_that_is_no_property_is_not_asked_for() -> None:
    schema = {**FREE, "required": ["id", "not_selected"]}
    whole = batch(line('{"id": 1}'))
    assert validate(schema, whole) == [whole]


def test_a_record_that_is_nested_too_deeply_is_bad_alone() -> None:
    good, deep = line('{"id": 1}'), line('{"id": 2, "a": ' + "[" * 1500 + "]" * 1500 + "}")
    kept, refused = validate(FREE, batch(good, deep))
    assert text_of(kept) == good
    assert isinstance(refused, BadRecord)


def test_keys_leave_references_whole() -> None:
    schema = {"definitions": {"number": {"type": "integer"}}, "properties": {"id": {"$ref": "#/definitions/number"}}}
    out = run(ValidateStage(), [Schema("orders", schema, ["id"]), batch(line('{"id": 1}'), line('{"id": "x"}'))])
    assert [type(item) for item in out] == [Schema, RawBatch, BadRecord]
