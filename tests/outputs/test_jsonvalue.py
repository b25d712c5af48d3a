"""Plain values: as JSON where the same comes back, else pickled."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, defaultdict
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.outputs import jsonvalue
from streamline.outputs.store import pack, unpack
from tests.outputs.conftest import Shelf
from tests.outputs.exactly import same

texts = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
plain = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
)
others = st.binary(max_size=4) | st.complex_numbers(allow_nan=False) | st.frozensets(st.integers(), max_size=3)
mixed = st.recursive(
    scalars | others,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(texts | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(plain)
def test_json_says_exactly_the_same(value: Any) -> None:
    data = jsonvalue.dumps(value)

    assert data is not None
    assert same(jsonvalue.loads(data), value)


@given(mixed)
def test_what_comes_back_is_what_went(value: Any) -> None:
    expected = list(value) if isinstance(value, tuple) else value

    assert same(unpack(pack(value)).value(), expected)


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


@pytest.mark.parametrize(
    "value",
    [
        10**4000,
        [10**4299, -(10**5000)],
        Colour.RED,
        [Colour.RED],
        {1: 2},
        {"a": (1, 2)},
        [(1,)],
        [Point(1, 2)],
        OrderedDict(a=1),
        defaultdict(int, a=1),
        np.float64(1.5),
        [np.int64(3)],
        [True, 1, 1.0],
        "\ud83d\ude00",
        {"\ud800": ["\udfff"]},
        [float("nan"), None, float("-inf"), -0.0],
        b"\x00\xff",
        2 + 3j,
        {1, 2},
        range(3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_types_survive(shelf: Shelf, value: Any) -> None:
    assert same(shelf.write(value).value(), value)


def test_numpy_arrays(shelf: Shelf) -> None:
    value = np.arange(6, dtype="int16").reshape(2, 3)

    assert same(shelf.write(value).value(), value)


def test_a_value_in_itself(shelf: Shelf) -> None:
    value: list[Any] = [1]
    value.append(value)

    back = shelf.write(value).value()

    assert back[1] is back


def test_deep_values(shelf: Shelf) -> None:
    value: Any = 1
    for _ in range(400):
        value = [value]

    back = shelf.write(value).value()

    depth = 0
    while isinstance(back, list):
        back, depth = back[0], depth + 1
    assert (back, depth) == (1, 400)


def test_a_large_value_is_a_json_file_that_anybody_reads(shelf: Shelf) -> None:
    value = [{"id": number, "name": "x" * 20} for number in range(1000)]

    output = shelf.write(value)

    assert json.loads((shelf.folder / "output_0.json").read_text()) == value
    assert output.value() == value
    assert output.manifest.outputs[0].rows == 1000


def test_each_reading_is_new(shelf: Shelf) -> None:
    output = shelf.write({"a": [1]})

    output.value()["a"].append(2)

    assert output.value() == {"a": [1]}
