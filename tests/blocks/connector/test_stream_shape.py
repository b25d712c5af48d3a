"""Streams in the shape `{stream, columns, rows}` that blocks have changed, or made."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from streamline.blocks.connector.stream_shape import stream_of
from streamline.errors import ConfigError

DAY = {"type": ["null", "string"], "format": "date"}
SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}, "day": DAY, "any": {}}}


def read(columns: list[str], *rows: list[Any], schema: Any = SCHEMA) -> tuple[dict[str, Any], list[Any]]:
    """Return the properties of the schema, and the rows that are written."""
    entry, table = stream_of({"stream": {"stream": "orders", "schema": schema}, "columns": columns, "rows": list(rows)})
    return entry["schema"]["properties"], table.to_pylist()


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("day", ["2026-01-02", None], DAY),
        ("day", [dt.date(2026, 1, 2)], DAY),
        ("day", [None], DAY),
        ("day", [2026], {"type": ["null", "integer"]}),
        ("id", [1.0, None], {"type": "integer"}),
        ("id", [1.5], {"type": ["null", "number"]}),
        ("id", ["a"], {"type": ["null", "string"]}),
        ("any", [1.5], {}),
        ("new", [1.5], {"type": ["null", "number"]}),
    ],
)
def test_the_schema_has_the_types_of_the_values(column: str, values: list[Any], expected: Any) -> None:
    properties, rows = read([column], *([value] for value in values))
    assert properties == {column: expected}
    assert [row[column] for row in rows] == values


def test_columns_without_rows_are_as_declared() -> None:
    assert read(["id", "day", "new"]) == ({"id": {"type": "integer"}, "day": DAY}, [])


def test_objects_and_values_of_several_types_stay_what_they_are() -> None:
    values = [{"a": 1}, {"b": {}}, [1, "x"], "text", 1, None]
    properties, rows = read(["any"], *([value] for value in values))
    assert properties == {"any": {}}
    assert [row["any"] and json.loads(row["any"]) for row in rows] == values


@pytest.mark.parametrize(
    ("columns", "rows"),
    [(["id", "id"], [[1, 2]]), (["id", "day"], [[1]]), (["a", "b"], ["xy"]), (["id"], 5), ("id", [[1, 2]])],
)
def test_rows_and_columns_that_do_not_fit_each_other(columns: Any, rows: Any) -> None:
    with pytest.raises(ConfigError) as error:
        stream_of({"stream": "orders", "columns": columns, "rows": rows})
    assert error.value.code == "output.not_a_stream"
