"""Column types: nothing that JSON can say is lost or bent on the way into a column."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.common.arrays import BadValue, TooNarrow, array
from targets.common.columns import (
    BIGINT,
    DOUBLE,
    JSON,
    MAX_DIGITS,
    TYPE_NAMES,
    VARCHAR,
    ColumnType,
    column_type,
    roomy,
    wider,
)
from targets.common.messages import decode_records, exact_float

TYPES = [ColumnType(name, *((38, 6) if name == "DECIMAL" else ())) for name in sorted(TYPE_NAMES)]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer"}, "BIGINT"),
        ({"type": ["null", "integer"], "maximum": 2**64}, "HUGEINT"),
        ({"type": "number"}, "DOUBLE"),
        ({"type": ["integer", "number"]}, "DOUBLE"),
        ({"type": "number", "multipleOf": 0.0001}, "DECIMAL(38,4)"),
        ({"type": "number", "multipleOf": 1e-10}, "DECIMAL(38,10)"),
        ({"type": "number", "multipleOf": 1}, "DECIMAL(38,0)"),
        ({"type": "number", "multipleOf": 0.05}, "DOUBLE"),
        ({"type": "string", "format": "singer.decimal", "precision": 10, "scale": 2}, "DECIMAL(10,2)"),
        ({"type": "string", "format": "uuid"}, "VARCHAR"),
        ({"type": ["string", "boolean"]}, "VARCHAR"),
        ({"type": ["string", "object"]}, "JSON"),
        ({}, "JSON"),
        (True, "JSON"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "BIGINT"),
        ({"anyOf": [{"type": "integer"}, {}]}, "JSON"),
        ({"type": "null"}, "VARCHAR"),
    ],
)
def test_types_of_schemas(schema: Any, expected: str) -> None:
    assert column_type(schema).sql == expected


def stored(column: ColumnType, values: list[Any]) -> tuple[ColumnType, list[Any]]:
    """The values as the column gives them back, the column widened as often as it asks for it."""
    for _ in range(5):
        try:
            return column, array(column, values).to_pylist()
        except TooNarrow as error:
            if error.wider == column:
                break
            column = roomy(error.wider)
    raise AssertionError("it asks for wider types without end")


_NUMBERS = st.one_of(
    st.integers(-(10**60), 10**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False, places=25, min_value=-(10**10), max_value=10**10),
)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), _NUMBERS), min_size=1, max_size=5))
def test_numbers_stay_exact(numbers: list[Any]) -> None:
    text = [json.dumps(n) if not isinstance(n, Decimal) else format(n, "f") for n in numbers]
    records = [msgspec.Raw(f'{{"v":{one}}}'.encode()) for one in text]
    values = [record["v"] for record in decode_records(records, "t", 1)]
    column, found = stored(DOUBLE, values)
    for given_, back in zip(text, found, strict=True):
        if given_ == "null":
            assert back is None
        elif column == DOUBLE:
            assert Decimal(repr(back)) == Decimal(given_)
        else:
            assert Decimal(back) == Decimal(given_)


@settings(deadline=None)
@given(st.lists(st.integers(-(10**50), 10**50), min_size=1, max_size=5))
def test_integers_stay_exact(numbers: list[int]) -> None:
    _, found = stored(BIGINT, list(numbers))
    assert [int(back) for back in found] == numbers


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.lists(_VALUES, min_size=1, max_size=4))
def test_json_columns_give_back_what_they_got(values: list[Any]) -> None:
    _, found = stored(JSON, values)
    assert [None if back is None else json.loads(back) for back in found] == values


@settings(deadline=None)
@given(st.sampled_from(TYPES), st.lists(_VALUES, min_size=1, max_size=3))
def test_any_value_is_stored_or_refused_by_name(column: ColumnType, values: list[Any]) -> None:
    refused: BadValue | None = None
    found: list[Any] = []
    try:
        _, found = stored(column, values)
    except BadValue as error:
        refused = error
    if refused is None:
        assert [back is None for back in found] == [value is None for value in values]
    else:
        assert values[refused.index] is not None
        assert refused.reason


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1),
    st.sampled_from(["DATE", "TIMESTAMP", "TIME", "BLOB"]),
)
def test_texts_of_a_format_that_they_break_stay_texts(values: list[str], name: str) -> None:
    column, found = stored(ColumnType(name), list(values))
    assert column != VARCHAR or found == values


@settings(deadline=None)
@given(st.sampled_from(TYPES), st.sampled_from(TYPES))
def test_widening_comes_to_an_end(one: ColumnType, other: ColumnType) -> None:
    both = wider(one, other)
    assert wider(both, one) == both
    assert wider(both, other) == both
    assert both.precision <= MAX_DIGITS


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_floats_are_decimals_only_where_they_must_be(number: Decimal) -> None:
    found = exact_float(str(number))
    assert Decimal(repr(found) if isinstance(found, float) else found) == number
