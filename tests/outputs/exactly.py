"""Equality that looks at types: 1 is not 1.0, None is not NaN, a tuple is no list."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same in type and content, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (int, set, frozenset)):
        return bool(one == other)
    if isinstance(one, (float, Decimal)):  # NaN is NaN
        return repr(one) == repr(other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and bool(np.array_equal(one, other, equal_nan=one.dtype.kind in "fc"))
    if one is pd.NA or one is pd.NaT:
        return one is other
    return bool(one == other) and str(one) == str(other)


def assert_same_frame(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """pandas' own comparison at its strictest, and every object of object columns by its type."""
    assert type(one) is type(other)
    assert one.shape == other.shape
    assert one.attrs == other.attrs
    for place in range(one.shape[1]):
        assert_same_column(one.iloc[:, place], other.iloc[:, place])
    assert_same_index(one.columns, other.columns)
    assert_same_index(one.index, other.index)
    assert one.flags == other.flags


def assert_same_series(one: pd.Series, other: pd.Series) -> None:
    """The same for Series."""
    assert type(one) is type(other)
    assert same(one.name, other.name)
    assert one.attrs == other.attrs
    assert_same_column(one, other)
    assert_same_index(one.index, other.index)


def assert_same_column(one: pd.Series, other: pd.Series) -> None:
    """Values and dtype; the index is not looked at."""
    assert one.dtype == other.dtype
    if one.dtype == object:  # pandas cannot compare every object
        assert same(list(one), list(other)), f"{list(one)} != {list(other)}"
    else:
        pd.testing.assert_extension_array_equal(one.array, other.array, check_exact=True)


def assert_same_index(one: pd.Index, other: pd.Index, *, frequency: bool = True) -> None:
    """Values, type, names and frequency."""
    assert type(one) is type(other)
    pd.testing.assert_index_equal(one, other, exact=True, check_exact=True)
    assert one.dtype == other.dtype
    assert all(map(same, one.names, other.names))
    if frequency:
        assert getattr(one, "freq", None) == getattr(other, "freq", None)
