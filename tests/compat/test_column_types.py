"""What columns are taken for; the results are those of Mage."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from streamline.compat.actions.column_types import infer_column_types, parse_list

N = 40


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("id", list(range(N)), "number"),
        ("two", [1, 2] * 20, "true_or_false"),
        ("whole", [1.0, None, 3.0, 5.0] * 10, "number"),
        ("part", [1.5, None, 3.0, 5.0] * 10, "number_with_decimals"),
        ("nothing", [None] * N, "true_or_false"),
        ("flag", [True, False] * 20, "true_or_false"),
        ("letter", ["a", "b"] * 20, "true_or_false"),
        ("letters", ["a", "b", None, "c"] * 10, "category"),
        ("name", [f"Person {i}" for i in range(N)], "text"),
        ("email", [f"p{i}@x.com" if i % 5 else "broken" for i in range(N)], "email"),
        ("phone", [f"555-123-{i:04d}" for i in range(N)], "phone_number"),
        ("phone", [5551234567 + i for i in range(N)], "phone_number"),
        ("zip", [10000 + i for i in range(N)], "zip_code"),
        ("zipcode", [str(10000 + i) for i in range(N)], "zip_code"),
        ("day", [f"2024-01-{i % 28 + 1:02d}" for i in range(N)], "datetime"),
        ("moment", [f"2024-01-{i % 28 + 1:02d}T10:00:00.000Z" for i in range(N)], "datetime"),
        ("us", [f"1/{i % 28 + 1}/2024" for i in range(N)], "datetime"),
        ("words", [f"Jan {i % 28 + 1}, 2024" for i in range(N)], "datetime"),
        ("stamp", list(pd.date_range("2024", periods=N)), "datetime"),
        ("code", [str(i * 3) for i in range(N)], "number"),
        ("share", [f"{i}.5%" for i in range(N)], "number_with_decimals"),
        ("thousands", [f"{i},000.5" for i in range(N)], "number_with_decimals"),
        ("long", [str(10**25 + i) for i in range(N)], "category"),
        ("tags", [f"[{i}, {i + 1}]" for i in range(N)], "list"),
        ("lists", [[1, 2], [3], [4], [5]] * 10, "list"),
        ("essay", ["word " * 50 + str(i % 3) for i in range(N)], "text"),
    ],
)
def test_types(name: str, values: list[Any], expected: str) -> None:
    frame = pd.DataFrame({name: values})
    assert infer_column_types(frame)[name] == expected


@pytest.mark.parametrize("dtype", ["object", "string", "string[pyarrow]", "category"])
def test_text_is_text_in_every_dtype(dtype: str) -> None:
    column = pd.Series(["a", "b", None, "c"] * 10, dtype=dtype)
    assert infer_column_types(pd.DataFrame({"x": column}))["x"] == "category"


@pytest.mark.parametrize("dtype", ["Int64", "int64[pyarrow]", "int8"])
def test_whole_numbers_in_every_dtype(dtype: str) -> None:
    assert infer_column_types(pd.DataFrame({"x": pd.Series([1, 2, 3], dtype=dtype)}))["x"] == "number"


def test_known_types_are_kept() -> None:
    assert infer_column_types(pd.DataFrame({"x": [1, 2, 3]}), column_types={"x": "category"})["x"] == "category"


def test_lists_written_as_text() -> None:
    assert parse_list("[1, 2.5, 'a', True]") == [1, 2.5, "a", True]
    assert parse_list("()") == []
    assert parse_list("no list") == "no list"
