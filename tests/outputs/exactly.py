"""Equality that looks at types: 1 is not 1.0, None is not NaN, a tuple is no list."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd


def same(left: Any, right: Any) -> bool:
    """Whether two values are the same in type and content, all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, (int, set, frozenset)):
        return bool(left == right)
    if isinstance(left, (float, Decimal)):  # NaN is NaN
        return repr(left) == repr(right)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and bool(np.array_equal(left, right, equal_nan=left.dtype.kind in "fc"))
    if left is pd.NA or left is pd.NaT:
        return left is right
    return bool(left == right) and str(left) == str(right)


def assert_same_frame(left: pd.DataFrame, right: pd.DataFrame) -> None:
    """pandas' own comparison at its strictest, and every object of object columns by its type."""
    assert type(left) is type(right)
    assert left.shape == right.shape
    assert left.attrs == right.attrs
    for place in range(left.shape[1]):
        assert_same_column(left.iloc[:, place], right.iloc[:, place])
    assert_same_index(left.columns, right.columns)
    assert_same_index(left.index, right.index)
    assert left.flags == right.flags


def assert_same_series(left: pd.Series, right: pd.Series) -> None:
    """The same for Series."""
    assert type(left) is type(right)
    assert same(left.name, right.name)
    assert left.attrs == right.attrs
    assert_same_column(left, right)
    assert_same_index(left.index, right.index)


def assert_same_column(left: pd.Series, right: pd.Series) -> None:
    """Values and dtype; the index is not looked at."""
    assert left.dtype == right.dtype
    if left.dtype == object:  # pandas cannot compare every object
        assert same(list(left), list(right)), f"{list(left)} != {list(right)}"
    else:
        pd.testing.assert_extension_array_equal(left.array, right.array, check_exact=True)


def assert_same_index(left: pd.Index, right: pd.Index, *, frequency: bool = True) -> None:
    """Values, type, names and frequency."""
    assert type(left) is type(right)
    pd.testing.assert_index_equal(left, right, exact=True, check_exact=True)
    assert left.dtype == right.dtype
    assert all(map(same, left.names, right.names))
    if frequency:
        assert getattr(left, "freq", None) == getattr(right, "freq", None)
