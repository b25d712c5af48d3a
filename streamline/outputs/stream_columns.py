"""Tables of one stream as one table, and the JSON values of its rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from streamline.flow.codecs import jsontext
from streamline.flow.codecs.arrow_columns import text_column
from streamline.flow.codecs.arrow_types import is_json, is_text, is_textual, json_field, spellings

_decoder = msgspec.json.Decoder(float_hook=jsontext.exact_fraction)
_lenient = json.JSONDecoder(strict=False, parse_float=jsontext.exact_fraction, parse_int=jsontext.exact_integer)


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Join tables of one stream. A column that a table lacks is null there.

    Where the types of a column differ, or a type does not keep its numbers as they were sent, the column becomes JSON
    text, which keeps every value.
    """
    names = list(dict.fromkeys(name for table in tables for name in table.column_names))
    columns = [_joined_column(name, tables) for name in names]
    return pa.Table.from_arrays([column for _, column in columns], schema=pa.schema([field for field, _ in columns]))


def _joined_column(name: str, tables: Sequence[pa.Table]) -> tuple[pa.Field, pa.ChunkedArray]:
    fields = [table.schema.field(name) for table in tables if name in table.column_names]
    first = _stored_field(fields[0])
    same = all(_stored_field(field).equals(first, check_metadata=True) for field in fields)
    as_json = not same or any(spellings(field) for field in fields)
    made = json_field(name) if as_json else first
    chunks: list[pa.Array] = []
    for table in tables:
        if name not in table.column_names:
            chunks.append(pa.nulls(table.num_rows, made.type))
        elif as_json:
            field = table.schema.field(name)
            chunks += [text_column(field, chunk) for chunk in table.column(name).chunks]
        else:
            chunks += table.column(name).chunks
    return made, pa.chunked_array(chunks, made.type)


def _stored_field(field: pa.Field) -> pa.Field:
    """Return a field with those of its marks that hold for the whole file."""
    if is_json(field):
        return json_field(field.name)
    marks = {b"streamline.text": b"1"} if is_text(field) else None
    return pa.field(field.name, field.type, metadata=marks)


def json_rows(table: pa.Table, columns: Sequence[str]) -> list[list[Any]]:
    """Return the rows of a table as lists of JSON values, null in columns that it lacks. Fractions are exact.

    Raises:
        TypeError: a type that JSON has no word for.
    """
    if table.num_rows == 0:
        return []
    values = [
        _values(table.schema.field(name), table.column(name)) if name in table.column_names else [None] * table.num_rows
        for name in columns
    ]
    return list(map(list, zip(*values, strict=True)))


def _values(field: pa.Field, column: pa.ChunkedArray) -> list[Any]:
    """Return the JSON values of a column."""
    kind = field.type
    text = is_textual(kind) and not is_json(field)
    # Not by way of their JSON text, which is "20" for 20.0: the numbers of a column are of one type.
    floating = pt.is_float64(kind) and not spellings(field)
    if text or floating or pt.is_integer(kind) or pt.is_boolean(kind):
        values: list[Any] = column.to_pylist()
        return values
    values = []
    for chunk in column.chunks:
        texts = pc.fill_null(text_column(field, chunk), "null").to_pylist()
        try:
            values += _decoder.decode(f"[{','.join(texts)}]")
        except (msgspec.DecodeError, UnicodeError):
            values += map(_decoded, texts)
    return values


def json_values(texts: pa.ChunkedArray) -> list[Any]:
    """Return the values of JSON texts, None for null. Fractions are exact."""
    return [None if text is None else _decoded(text) for chunk in texts.chunks for text in chunk.to_pylist()]


def _decoded(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError):  # NaN, control characters, lone surrogates
        return _lenient.decode(text)
