"""Streams as blocks pass and return them: `{stream, columns, rows}`, the catalog entry or name, and rows by column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from streamline.connectors.outputs.table_source import schema_of
from streamline.errors import ConfigError
from streamline.flow.codecs import jsontext
from streamline.flow.codecs.arrow_types import json_field
from streamline.flow.codecs.schemas import properties
from streamline.flow.items import JSONObject
from streamline.outputs.tables import to_table

SHAPE = ("stream", "columns", "rows")
"""Keys of a stream."""


def is_stream(value: Any) -> bool:
    """Return whether a value has the shape of a stream."""
    return isinstance(value, dict) and set(value) == set(SHAPE)


def stream_name(value: Mapping[str, Any]) -> str:
    """Return the name of a stream in this shape.

    Raises:
        ConfigError: it has none.
    """
    entry = value["stream"]
    name = entry.get("stream") or entry.get("tap_stream_id") if isinstance(entry, dict) else entry
    if not isinstance(name, str) or not name:
        raise ConfigError(
            "a stream has no name", hint="write it as {'stream': {'stream': NAME}, …}", code="output.not_a_stream"
        )
    return name


def stream_of(value: Mapping[str, Any]) -> tuple[dict[str, Any], pa.Table]:
    """Return the catalog entry of a stream in this shape, with a name and a schema, and its rows as a table.

    A block may have changed what a source gave it: the schema has the columns that are there, of the declared types
    where the values are of these, else of their own.

    Raises:
        ConfigError: it has no name, or rows and columns do not fit each other.
    """
    name = stream_name(value)
    entry = value["stream"] if isinstance(value["stream"], dict) else {}
    schema = entry.get("schema")
    schema = schema if isinstance(schema, dict) else {}
    declared = properties(schema)
    columns = _columns(name, value["columns"], value["rows"])
    made = {column: _column(column, values, declared.get(column)) for column, values in columns.items()}
    known = {column: prop for column, (prop, _, _) in made.items() if prop is not None}
    table = pa.Table.from_arrays(
        [array for _, _, array in made.values()], schema=pa.schema([field for _, field, _ in made.values()])
    )
    return {**entry, "stream": name, "schema": {**(schema or {"type": "object"}), "properties": known}}, table


def without_types(schema: pa.Schema, rows: int) -> pa.Schema:
    """Return a schema without the columns that have neither rows nor a type, as those of an empty DataFrame.

    A destination would make columns of some type that later values do not have.
    """
    return schema if rows else pa.schema([field for field in schema if not pt.is_null(field.type)])


def _columns(name: str, columns: Any, rows: Any) -> dict[str, list[Any]]:
    """Return the values of each column."""
    if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
        raise ConfigError(f"the columns of stream '{name}' are no list of names", code="output.not_a_stream")
    twice = next((column for column, count in Counter(columns).items() if count > 1), None)
    if twice is not None:
        raise ConfigError(f"stream '{name}' has two columns named '{twice}'", code="output.not_a_stream")
    if not isinstance(rows, list) or not all(
        isinstance(row, Sequence) and not isinstance(row, str | bytes) and len(row) == len(columns) for row in rows
    ):
        raise ConfigError(
            f"the rows of stream '{name}' do not all have {len(columns)} values, one for each column",
            code="output.not_a_stream",
        )
    return {column: [row[place] for row in rows] for place, column in enumerate(columns)}


def _column(name: str, values: list[Any], declared: JSONObject | None) -> tuple[JSONObject | None, pa.Field, pa.Array]:
    """Return the JSON Schema of a column, None if nothing is known, and the column.

    Objects, and values that have no common type, are JSON text: so they stay what they are.
    """
    if not values:
        return declared, pa.field(name, pa.null()), pa.nulls(0)
    try:
        array = to_table({name: values}).column(0).combine_chunks()
    except ConfigError:
        if declared is None:
            raise
        field, array = _json_text(name, values)
        return declared, field, array
    field = pa.field(name, array.type)
    own = schema_of(pa.schema([field]))["properties"][name]
    prop = declared if declared is not None and _fits(own, declared, array) else own
    if pt.is_nested(array.type):
        field, array = _json_text(name, values)
    return prop, field, array


def _json_text(name: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array]:
    try:
        texts = [None if value is None else jsontext.dumps(value).decode() for value in values]
    except TypeError as error:
        raise ConfigError(f"column '{name}': {error}", code="output.not_a_stream") from error
    return json_field(name), pa.array(texts, pa.string())


def _fits(own: JSONObject, declared: JSONObject, array: pa.Array) -> bool:
    """Return whether values with a schema of their own are of the types that another declares."""
    if "type" not in declared:
        return True
    types, allowed = _types(own) - {"null"}, _types(declared)
    if types == {"number"} and "integer" in allowed and pc.all(pc.equal(pc.floor(array), array)).as_py():
        return True  # 1.0 is an integer
    return types <= allowed or ("number" in allowed and types == {"integer"})


def _types(prop: JSONObject) -> set[str]:
    named = prop.get("type") or ()
    return {named} if isinstance(named, str) else set(named)
