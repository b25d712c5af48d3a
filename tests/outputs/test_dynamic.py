"""What the children of a dynamic block are given, for every shape in which its parent says it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from streamline.errors import ConfigError
from streamline.outputs.dynamic import items_of
from streamline.outputs.store import pack, unpack
from tests.outputs.conftest import Shelf

FRAME = pd.DataFrame({"region": ["US", "EU"], "n": [1, 2]})

SHAPES = {
    "flat": ([{"a": 1}, {"a": 2}, "x"], [{"a": 1}, {"a": 2}, "x"], [{}, {}, {}]),
    "empty": ([], [], []),
    "items and metadata": ([["a", "b"], [{"k": 1}, {"k": 2}]], ["a", "b"], [{"k": 1}, {"k": 2}]),
    "less metadata": ([["a", "b"], [{"k": 1}]], ["a", "b"], [{"k": 1}, {}]),
    "no metadata": ([["a", "b"], []], ["a", "b"], [{}, {}]),
    "items alone": ([["a", "b", "c"]], ["a", "b", "c"], [{}, {}, {}]),
    "no items": ([[]], [], []),
    "two lists of numbers": ([[1, 2], [3, 4]], [[1, 2], [3, 4]], [{}, {}]),
    "three lists": ([[1], [2], [3]], [[1], [2], [3]], [{}, {}, {}]),
    "tuple": ((["a", "b"], [{"k": 1}, {"k": 2}]), ["a", "b"], [{"k": 1}, {"k": 2}]),
    "tuple of one": ((["a", "b"],), ["a", "b"], [{}, {}]),
    "odd items": ([(1, 2), {3}], [(1, 2), {3}], [{}, {}]),
}


@pytest.mark.parametrize(("value", "items", "metadata"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("stored", [True, False])
def test_shapes(value: Any, items: list[Any], metadata: list[Any], stored: bool) -> None:
    read = items_of(unpack(pack(value)) if stored else value)

    assert len(read) == len(items)
    assert [read.get(number) for number in range(len(read))] == items
    assert [read.metadata(number) for number in range(len(read))] == metadata


@pytest.mark.parametrize("value", [FRAME, (FRAME, [{"k": 1}]), [FRAME, [{"k": 1}]]], ids=["frame", "tuple", "list"])
def test_rows_of_a_frame_are_series(value: Any) -> None:
    items = items_of(unpack(pack(value)))

    assert len(items) == 2
    pd.testing.assert_series_equal(items.get(1), FRAME.iloc[1])
    if value is not FRAME:
        assert (items.metadata(0), items.metadata(1)) == ({"k": 1}, {})


@pytest.mark.parametrize("value", [pl.DataFrame(FRAME.to_dict("list")), pa.table(FRAME.to_dict("list"))])
def test_rows_of_polars_and_arrow_are_dicts(value: Any) -> None:
    items = items_of(unpack(pack(value)))

    assert [items.get(number) for number in range(len(items))] == [{"region": "US", "n": 1}, {"region": "EU", "n": 2}]


def test_chunks_of_a_generator_are_items(shelf: Shelf) -> None:
    def chunks() -> Iterator[Any]:
        yield FRAME
        yield {"a": 1}

    items = items_of(shelf.write(chunks()))

    assert len(items) == 2
    pd.testing.assert_frame_equal(items.get(0), FRAME)
    assert items.get(1) == {"a": 1}


def test_frames_in_a_list_are_items(shelf: Shelf) -> None:
    items = items_of(shelf.write([FRAME, FRAME.iloc[:1]]))

    assert [len(items.get(number)) for number in range(2)] == [2, 1]


@pytest.mark.parametrize(
    "value", [[{"a": [1]}], pd.DataFrame({"a": [[1], [2]], "b": [1, 2]})], ids=["list", "objects of a frame"]
)
def test_every_item_is_new(value: Any) -> None:
    items = items_of(unpack(pack(value)))

    items.get(0)["a"].append(9)

    assert items.get(0)["a"] == [1]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "None"),
        ({"a": 1}, "a dict"),
        ("abc", "a str"),
        (3, "an int"),
        (pd.Series([1]), "a pandas.Series"),
        (({"a": 1}, {"b": 2}), "tuple of a dict, a dict"),
        ((["a"], ["b"]), "tuple of a list, a list"),
        ((1, 2, 3), "tuple of an int, an int, an int"),
        ((), "an empty tuple"),
    ],
)
def test_anything_else_is_named(value: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=f"a dynamic block returned .*{named}, which cannot be split"):
        items_of(unpack(pack(value)))


def test_an_item_that_is_not_there() -> None:
    with pytest.raises(IndexError, match="2 items, no number 2"):
        items_of([1, 2]).get(2)
