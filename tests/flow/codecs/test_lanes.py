"""Conversions between the lanes: exact, in order, cut where they must be."""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamline.flow.codecs import lanes
from streamline.flow.codecs.arrow_reader import ArrowReader
from streamline.flow.items import ArrowBatch, JSONObject, RawBatch, RowBatch
from tests.support.failures import fails


def raw(*lines: bytes | str, stream: str = "orders") -> RawBatch:
    pieces = [(line.encode() if isinstance(line, str) else line) + b"\n" for line in lines]
    return RawBatch(stream, list(pieces), len(pieces), sum(map(len, pieces)))


def raw_to_rows(
    batch: RawBatch, schema: JSONObject | None = None, refuse: lanes.Refuse | None = None
) -> list[RowBatch]:
    return lanes.RowReader(schema).read(batch, refuse)


def raw_to_arrow(
    batch: RawBatch, schema: JSONObject | None = None, refuse: lanes.Refuse | None = None
) -> list[ArrowBatch]:
    return ArrowReader(schema).read(batch, refuse)


def record(text: str, rest: str = "") -> str:
    return f'{{"type":"RECORD","stream":"orders","record":{text}{rest}}}'


def text_of(batch: RawBatch) -> bytes:
    return b"".join(bytes(piece) for piece in batch.slices)


def schema(**props: JSONObject) -> JSONObject:
    return {"type": "object", "properties": props}


INTEGER = {"type": ["null", "integer"]}
NUMBER = {"type": ["null", "number"]}
STRING = {"type": ["null", "string"]}
MOMENT = {"type": ["null", "string"], "format": "date-time"}
MONEY = {"type": ["null", "number"], "multipleOf": 0.01}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(alphabet=st.characters(codec=None))
    | st.decimals(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
records = st.dictionaries(st.text(max_size=5), json_values, max_size=6)


def number_equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and all(number_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(number_equal, one, other))
    if isinstance(one, (int, float, Decimal)) and not isinstance(one, bool):
        return not isinstance(other, bool) and Decimal(str(one)) == Decimal(str(other))
    return type(one) is type(other) and bool(one == other)


@given(st.lists(records, min_size=1, max_size=5))
def test_rows_survive_being_written_and_read_again(rows: list[JSONObject]) -> None:
    lines = lanes.rows_to_raw(RowBatch("orders", rows, version=7, time_extracted="2024-05-01T00:00:00Z"))
    (again,) = raw_to_rows(lines)
    assert number_equal(again.rows, rows)
    assert (again.version, again.time_extracted, lines.count) == (7, "2024-05-01T00:00:00Z", len(rows))


@given(st.lists(records, min_size=1, max_size=5))
@settings(deadline=None)
def test_a_table_keeps_every_value_that_no_type_was_declared_for(rows: list[JSONObject]) -> None:
    refused: list[bytes] = []
    lines = lanes.rows_to_raw(RowBatch("orders", rows))
    tables = raw_to_arrow(lines, {}, lambda text, _: refused.append(text))
    again = [row for table in tables for batch in raw_to_rows(lanes.arrow_to_raw(table)) for row in batch.rows]
    # Columns of a table have one order; the fields' order in a record means nothing.
    assert number_equal(
        [dict(sorted(row.items())) for row in again], [dict(sorted(row.items())) for row in rows if row]
    )
    assert len(refused) == sum(not row for row in rows)


@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.none() | st.text(),
            st.none() | st.booleans(),
            st.none() | st.datetimes(min_value=dt.datetime(1, 1, 2)),
            st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=2, max_value=10**12),
            st.none() | st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)),
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(deadline=None)
def test_typed_columns_survive(values: list[tuple[Any, ...]]) -> None:
    names = ("i", "n", "s", "b", "t", "m", "l")
    declared = schema(
        i=INTEGER,
        n=NUMBER,
        s=STRING,
        b={"type": ["null", "boolean"]},
        t=MOMENT,
        m=MONEY,
        l={"type": ["null", "array"], "items": {"type": ["null", "integer"]}},
    )
    rows = [dict(zip(names, row, strict=True)) for row in values]
    for row in rows:
        row["t"] = row["t"] and row["t"].isoformat(timespec="microseconds") + "Z"
    lines = lanes.rows_to_raw(RowBatch("orders", rows))
    (table,) = raw_to_arrow(lines, declared)
    (again,) = raw_to_rows(lanes.arrow_to_raw(table))
    assert number_equal(
        [{**row, "n": None if row["n"] is None else float(row["n"])} for row in again.rows],
        [dict(row) for row in rows],
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"a":123456789012345678901234567890123456789012345678901234567890}',
        '{"a":' + "9" * 100 + "}",
        '{"a":0.12345678901234567890123}',
        '{"a":NaN,"b":[Infinity,-Infinity]}',
        '{"a":"\\ud800","b":{"\\udfff":null}}',
        '{"a":1E+400}',
        '{"b":null,"a":{"z":1,"y":[]}}',
        '{"a":' + "7" * 5000 + "}",
    ],
)
def test_what_other_parsers_refuse_or_round_goes_through_rows_unchanged(text: str) -> None:
    (rows,) = raw_to_rows(raw(record(text)))
    assert text_of(lanes.rows_to_raw(rows)).decode() == record(text) + "\n"


@pytest.mark.parametrize(
    ("text", "prop"),
    [
        ('{"a":' + "9" * 100 + "}", INTEGER),
        ('{"a":123456789012345678901}', INTEGER),
        ('{"a":NaN}', NUMBER),
        ('{"a":"\\ud800"}', STRING),
        ('{"a":"text where a number should be"}', INTEGER),
        ('{"a":true}', INTEGER),
        ('{"a":12.345}', MONEY),
        ('{"a":"2024-02-30T00:00:00Z"}', MOMENT),
        ('{"a":"2024-02-20T00:00:00.000000"}', MOMENT),
        ('{"a":"2024-02-20T00:00:00.123456789Z"}', MOMENT),
        ('{"a":"1.50"}', {"type": ["null", "string"], "format": "singer.decimal", "scale": 2}),
        ('{"a":"1.507"}', {"type": ["null", "string"], "format": "singer.decimal", "scale": 2}),
        ('{"a":"1.50"}', {"type": ["null", "string"], "format": "singer.decimal"}),
        ('{"a":[1.5,2]}', {"type": "array", "items": {"type": "integer"}}),
        ('{"a":{"b":null,"c":[1e5]}}', {"type": "object", "properties": {"c": {"type": "array"}}}),
        ('{"a":"say \\"x\\"\\n\\\\ \\u0001 é"}', STRING),
        ('{"a":18446744073709551615}', {"type": "integer", "minimum": 0, "maximum": 18446744073709551615}),
    ],
)
def test_values_that_do_not_fit_their_type_go_through_a_table_unchanged(text: str, prop: JSONObject) -> None:
    (table,) = raw_to_arrow(raw(record(text)), schema(a=prop))
    (again,) = raw_to_rows(lanes.arrow_to_raw(table))
    (sent,) = raw_to_rows(raw(record(text)))
    assert str(again.rows) == str(sent.rows)


def test_long_fractions_are_decimals_and_short_ones_floats() -> None:
    (rows,) = raw_to_rows(raw(record('{"a":19.90,"b":0.12345678901234567890123,"c":[1.5]}')))
    assert rows.rows == [{"a": 19.9, "b": Decimal("0.12345678901234567890123"), "c": [1.5]}]
    assert type(rows.rows[0]["a"]) is float


def test_decimal_properties_are_decimals_with_their_digits() -> None:
    (rows,) = raw_to_rows(
        raw(record('{"m":19.90,"n":1.5,"o":{"x":2.5}}'), record('{"m":3}')), schema(m=MONEY, n=NUMBER, o={})
    )
    assert repr(rows.rows) == repr([{"m": Decimal("19.90"), "n": 1.5, "o": {"x": 2.5}}, {"m": Decimal(3)}])
    assert text_of(lanes.rows_to_raw(rows)).startswith(record('{"m":19.90,"n":1.5,"o":{"x":2.5}}').encode())


def test_python_values_that_users_return_are_written_as_json() -> None:
    numpy = pytest.importorskip("numpy")
    pandas = pytest.importorskip("pandas")
    row = {
        "decimal": Decimal("1.10"),
        "uuid": uuid.UUID(int=5),
        "date": dt.date(2024, 5, 1),
        "aware": dt.datetime(2024, 5, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        "naive": dt.datetime(2024, 5, 1),
        "numpy": [numpy.float64(1.5), numpy.int64(2), numpy.bool_(True), numpy.array([1, 2])],
        "missing": [pandas.NA, pandas.NaT],
        "big": 2**70,
        "nan": math.nan,
        "tuple": (1, "x"),
    }
    assert text_of(lanes.rows_to_raw(RowBatch("orders", [row]))).decode() == (
        record(
            '{"decimal":1.10,"uuid":"00000000-0000-0000-0000-000000000005","date":"2024-05-01",'
            '"aware":"2024-05-01T00:00:00+02:00","naive":"2024-05-01T00:00:00+00:00",'
            '"numpy":[1.5,2,true,[1,2]],"missing":[null,null],"big":1180591620717411303424,"nan":NaN,"tuple":[1,"x"]}'
        )
        + "\n"
    )


def test_a_value_without_a_json_form_names_stream_and_type() -> None:
    with fails("record.not_json", "orders", "builtins.object"):
        lanes.rows_to_raw(RowBatch("orders", [{"a": object()}]))


def test_batches_are_cut_where_the_version_changes() -> None:
    lines = raw(*(record(f'{{"id":{n}}}', f',"version":{v}') for n, v in ((1, 5), (2, 5), (3, 6), (4, 5))))
    assert [(b.version, [r["id"] for r in b.rows]) for b in raw_to_rows(lines)] == [
        (5, [1, 2]),
        (6, [3]),
        (5, [4]),
    ]
    tables = raw_to_arrow(lines, schema(id=INTEGER))
    assert [(b.version, b.table.column("id").to_pylist()) for b in tables] == [(5, [1, 2]), (6, [3]), (5, [4])]


def test_tables_are_cut_where_the_set_of_fields_changes() -> None:
    lines = raw(*map(record, ('{"id":1,"a":null}', '{"a":"x","id":2}', '{"id":3}', '{"id":4,"a":"y","new":{"b": 1}}')))
    tables = raw_to_arrow(lines, schema(id=INTEGER, a=STRING))
    assert [t.table.to_pylist() for t in tables] == [
        [{"id": 1, "a": None}, {"id": 2, "a": "x"}],
        [{"id": 3}],
        [{"id": 4, "a": "y", "new": '{"b": 1}'}],
    ]
    assert [text_of(lanes.arrow_to_raw(t)) for t in tables][1:] == [
        (record('{"id":3}') + "\n").encode(),
        (record('{"id":4,"a":"y","new":{"b": 1}}') + "\n").encode(),
    ]


def test_any_order_of_the_envelopes_keys_and_blank_lines() -> None:
    lines = raw(
        '{"record": {"id": 1}, "time_extracted": "T", "stream": "orders", "x": [1], "type": "RECORD", "version": 2}', ""
    )
    (rows,) = raw_to_rows(lines)
    assert (rows.rows, rows.version, rows.time_extracted) == ([{"id": 1}], 2, "T")
    (table,) = raw_to_arrow(lines, schema(id=INTEGER))
    assert (table.table.to_pylist(), table.version, table.time_extracted) == ([{"id": 1}], 2, "T")


@pytest.mark.parametrize(
    "line", [b'{"type":"RECORD","record":{"id":"\xff"}}', b'{"record":[1]}', b"{", b'{"type":"RECORD"}']
)
def test_a_line_that_is_no_record_is_refused_alone(line: bytes) -> None:
    lines = raw(record('{"id":1}'), line, record('{"id":2}'))
    with fails("record.invalid", "orders"):
        raw_to_rows(lines)
    for read in (raw_to_rows, raw_to_arrow):
        refused: list[bytes] = []
        batches = read(lines, schema(id=INTEGER), lambda text, _, into=refused: into.append(text))  # type: ignore[misc]
        assert refused == [line]
        assert sum(batch.count for batch in batches) == 2


def test_slices_of_a_larger_buffer_are_read_in_place() -> None:
    chunk = memoryview((record('{"id":1}') + "\n" + record('{"id":2}') + "\n").encode())
    half = len(chunk) // 2
    batch = RawBatch("orders", [chunk[:half], chunk[half:]], 2, len(chunk))
    assert [row["id"] for row in raw_to_rows(batch)[0].rows] == [1, 2]


def test_tables_of_any_arrow_types_can_be_written() -> None:
    pa = pytest.importorskip("pyarrow")
    moment = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
    table = pa.table(
        {
            "small": pa.array([1], pa.int8()),
            "half": pa.array([1.5], pa.float32()),
            "category": pa.array(["x"]).dictionary_encode(),
            "large": pa.array(['"q"'], pa.large_string()),
            "berlin": pa.array([moment], pa.timestamp("ns", "Europe/Berlin")),
            "naive": pa.array([moment.replace(tzinfo=None)], pa.timestamp("s")),
            "day": pa.array([moment.date()], pa.date64()),
            "time": pa.array([dt.time(1, 2, 3)], pa.time64("us")),
            "exact": pa.array([1], pa.time64("ns")),
            "nothing": pa.nulls(1),
            "nested": pa.array([{"a": [1, None], "b": Decimal("1.5")}]),
            "infinite": pa.array([-math.inf]),
        }
    )
    written = text_of(lanes.arrow_to_raw(ArrowBatch("orders", table)))
    assert written.decode() == (
        record(
            '{"small":1,"half":1.5,"category":"x","large":"\\"q\\"","berlin":"2024-05-01T12:00:00.000000000Z",'
            '"naive":"2024-05-01T12:00:00.000","day":"2024-05-01","time":"01:02:03","exact":"00:00:00.000000001","nothing":null,'
            '"nested":{"a":[1,null],"b":1.5},"infinite":-Infinity}'
        )
        + "\n"
    )


def test_a_table_sliced_or_in_chunks_is_written_whole() -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.concat_tables([pa.table({"a": [1, 2]}), pa.table({"a": [3, 4]})]).slice(1, 2)
    batch = lanes.arrow_to_raw(ArrowBatch("orders", table))
    assert (text_of(batch).decode(), batch.count) == (record('{"a":2}') + "\n" + record('{"a":3}') + "\n", 2)


def test_text_in_a_json_column_that_is_no_json_becomes_a_string() -> None:
    pa = pytest.importorskip("pyarrow")
    like = raw_to_arrow(raw(record('{"a":{"b":1}}')), schema(a={"type": "object"}))[0].table.schema
    table = pa.table({"a": ['{"b": 2}', "unknown", '[1],{"x":1', '{\n"c":3}', None]})
    written = [
        json.loads(line)["record"]["a"]
        for line in text_of(lanes.arrow_to_raw(ArrowBatch("orders", table), like)).splitlines()
    ]
    assert written == [{"b": 2}, "unknown", '[1],{"x":1', {"c": 3}, None]


def test_types_of_a_json_schema_and_back() -> None:
    pa = pytest.importorskip("pyarrow")
    from streamline.flow.codecs.arrow_types import arrow_field, is_json, property_of

    declared = schema(
        id={"type": "integer"},
        big={"type": ["null", "integer"], "minimum": 0, "maximum": 18446744073709551615},
        price=MONEY,
        exact={"type": ["null", "number"], "multipleOf": 1e-38},
        ratio=NUMBER,
        on={"type": ["null", "boolean"]},
        at={"anyOf": [{"type": "string", "format": "date-time"}, {"type": ["null", "string"]}]},
        day={"type": ["string", "null"], "format": "date"},
        tags={"type": "array", "items": {"type": ["null", "string"]}},
        doc={"type": ["null", "object"], "properties": {"a": INTEGER}},
        mixed={"type": ["string", "integer"]},
        free={},
    )
    found = [arrow_field(name, prop) for name, prop in declared["properties"].items()]
    assert [str(field.type) for field in found] == [
        "int64", "uint64", "decimal128(38, 2)", "decimal256(76, 38)", "double", "bool", "timestamp[us, tz=UTC]",
        "date32[day]", "list<item: string>", "string", "string", "string",
    ]  # fmt: skip
    assert [field.name for field in found if is_json(field)] == ["doc", "mixed", "free"]
    fields = [*found, pa.field("s", pa.struct([("x", pa.int8())])), pa.field("t", pa.time32("s"))]
    back = {field.name: property_of(field) for field in fields}
    assert back["price"] == {"type": ["null", "number"], "multipleOf": 0.01}
    assert back["at"] == {"type": ["null", "string"], "format": "date-time"}
    assert back["tags"] == {"type": ["null", "array"], "items": {"type": ["null", "string"]}}
    assert back["s"] == {"type": ["null", "object"], "properties": {"x": {"type": ["null", "integer"]}}}
    assert back["t"] == {"type": ["null", "string"], "format": "time"}
    assert back["doc"] == {}


def test_the_rows_lane_needs_neither_pandas_nor_pyarrow() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from streamline.flow.codecs import lanes; from streamline.flow.items import RawBatch\n"
        "lanes.rows_to_raw(lanes.RowReader().read(RawBatch('s', [b'{\"record\":{}}\\n'], 1, 14))[0])\n"
        "print([name for name in ('pandas', 'pyarrow', 'numpy', 'polars') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_batches_are_joined_in_their_order() -> None:
    first, second = lanes.rows_to_raw(RowBatch("orders", [{"id": 1}])), raw(record('{"id":2}'), record('{"id":3}'))
    joined = lanes.join_raw([first, second])
    assert (joined.count, joined.nbytes, joined.prefix) == (3, first.nbytes + second.nbytes, None)
    assert text_of(joined) == text_of(first) + text_of(second)
    assert lanes.join_raw([first]) is first
    assert lanes.join_raw([first, first]).prefix == first.prefix


def test_a_table_whose_text_is_too_long_for_one_is_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": number, "note": "x" * 100} for number in range(9)]
    table = ArrowBatch("orders", pa.Table.from_pylist(rows), 7)
    whole = lanes.arrow_to_raw(table)
    monkeypatch.setattr(lanes, "_MAX_TEXT", 100)
    parts = lanes.arrow_to_raw(table)
    assert (len(whole.slices), len(parts.slices)) == (1, 9)  # a row is not divided
    assert (text_of(parts), parts.count, parts.nbytes, parts.prefix) == (
        text_of(whole),
        whole.count,
        whole.nbytes,
        whole.prefix,
    )
