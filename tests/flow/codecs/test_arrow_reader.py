"""Tables of records whose values have many spellings, of which some do not fit the schema."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamline.flow.codecs import lanes
from streamline.flow.codecs.arrow_reader import ArrowReader
from streamline.flow.items import ArrowBatch, RawBatch

NUMBER = {"type": ["null", "number"]}
DECIMAL_TEXT = {"type": ["null", "string"], "format": "singer.decimal"}
SPELLINGS: list[tuple[dict[str, Any], list[str]]] = [
    (
        NUMBER,
        [
            "null",
            "1",
            "1.0",
            "1.0000000000000000001",
            "0.1",
            "0.10000000000000000555",
            "0.0",
            "1e-400",
            "5e-324",
            "NaN",
            "1e5",
        ],
    ),
    (NUMBER, ["null", "0.5", "0.0", "0E-400", "1E-400", "12345678901234567890", "Infinity"]),
    ({"type": ["null", "integer"]}, ["null", "1", "2", "123456789012345678901", "9" * 80, "true", '"x"']),
    (
        {"type": ["array", "null"], "items": NUMBER},
        ["null", "[]", "[1.5,null]", "[0.1,1e-400]", "[1.00000000000000001]"],
    ),
    (DECIMAL_TEXT, ["null", '"1.5"', '"1.50"', '"1.500"', '"x"', '"1e2"', "5"]),
    ({}, ["null", "1", "1.00000000000000000001", '{"b":[NaN]}', '"x"']),
]


def line(text: str, rest: str = "") -> bytes:
    return f'{{"type":"RECORD","stream":"orders","record":{{"id":1,"v":{text}}}{rest}}}\n'.encode()


def read(reader: ArrowReader, *lines: bytes) -> list[ArrowBatch]:
    return reader.read(RawBatch("orders", [b"".join(lines)], len(lines), sum(map(len, lines))))


def reader_of(prop: dict[str, Any]) -> ArrowReader:
    return ArrowReader({"properties": {"id": {"type": "integer"}, "v": prop}})


def values_of(lines: bytes) -> list[Any]:
    """Return the values of `v`; numbers are exact, and equal if only their spelling differs."""
    exact = {"parse_int": Decimal, "parse_float": Decimal, "parse_constant": str}
    return [json.loads(text, **exact)["record"]["v"] for text in lines.splitlines()]


@pytest.mark.parametrize(("prop", "spellings"), SPELLINGS, ids=str)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_value_comes_back_whatever_stands_beside_it(
    prop: dict[str, Any], spellings: list[str], data: st.DataObject
) -> None:
    reader = reader_of(prop)
    for texts in data.draw(st.lists(st.lists(st.sampled_from(spellings), min_size=1, max_size=5), max_size=3)):
        lines = list(map(line, texts))
        tables = read(reader, *lines)
        assert sum(table.count for table in tables) == len(lines)
        again = b"".join(bytes(piece) for table in tables for piece in lanes.arrow_to_raw(table).slices)
        assert values_of(again) == values_of(b"".join(lines))


@pytest.mark.parametrize(
    ("prop", "texts", "tables"),
    [
        (NUMBER, ["1.5", '"x"', '"y"', "2.5"], [1, 2, 1]),
        (NUMBER, ["null", '"x"', "null"], [3]),
        (NUMBER, ["1.0", "1.00000000000000000001", "1.0"], [1, 1, 1]),
        (NUMBER, ["1.00000000000000000001"] * 3, [3]),
        (NUMBER, ["0.5", "null", "1e-400", "0.0"], [3, 1]),
        (DECIMAL_TEXT, ['"1.50"', '"1.5"', "null"], [3]),
        ({"type": "array", "items": NUMBER}, ["[1]", "[2.5]", "null"], [3]),
    ],
)
def test_records_that_do_not_fit_have_tables_of_their_own(
    prop: dict[str, Any], texts: list[str], tables: list[int]
) -> None:
    assert [table.count for table in read(reader_of(prop), *map(line, texts))] == tables


def test_columns_that_do_not_fit_their_schema_are_misfits() -> None:
    reader = reader_of(NUMBER)
    fits, other = read(reader, line("1.5"), line('"x"'))
    assert (reader.misfits(fits.table), reader.misfits(other.table)) == ([], ["v"])


def test_any_number_of_sets_of_fields_is_read() -> None:
    count = 300
    reader = ArrowReader({"properties": {"f1": {"type": "integer"}}})
    for _ in range(2):
        lines = [b'{"type":"RECORD","stream":"orders","record":{"f%d":%d}}\n' % (at, at) for at in range(count)]
        tables = read(reader, *lines)
        assert [table.table.to_pylist() for table in tables] == [
            [{f"f{at}": at if at == 1 else str(at)}] for at in range(count)
        ]
        assert tables[1].table.schema.field("f1").type == pa.int64()


def test_names_with_quotes_and_control_characters_are_fields() -> None:
    text = b'{"type":"RECORD","stream":"orders","record":{"a\\"b":1,"c\\n":2}}\n'
    for batch in (read(ArrowReader(), text), read(ArrowReader(), text, text)):
        assert batch[0].table.column_names == ['a"b', "c\n"]


def test_versions_and_times_of_a_batch_are_those_of_its_first_records() -> None:
    reader = reader_of(NUMBER)
    lines = [
        line(text, f',"version":{version},"time_extracted":"{text}"')
        for text, version in (("1", 5), ("2", 5), ("3", 6))
    ]
    for _ in range(2):
        tables = read(reader, *lines)
        assert [(table.version, table.time_extracted, table.count) for table in tables] == [(5, "1", 2), (6, "3", 1)]


def test_blank_lines_are_no_records() -> None:
    reader = reader_of(NUMBER)
    assert read(reader, b"\n", b"\n") == []
    read(reader, line("1"))
    assert read(reader, b"\n", b"\n") == []
    assert reader.read(RawBatch("orders", [], 0, 0)) == []
