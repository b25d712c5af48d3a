"""R's serialization: what is written reads back; tests/services/test_r_blocks.py has R itself read and write it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.blocks.r.from_r import from_r
from streamline.blocks.r.rds import NotRdsError, decode, encode
from streamline.blocks.r.to_r import NotForRError, data_frame, to_r

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**31) + 1, 2**31 - 1),
    st.floats(allow_nan=False),
    TEXT,
    st.dates(dt.date(1700, 1, 1), dt.date(2200, 1, 1)),
    # R has doubles for times: microseconds are exact for some 285 years around 1970.
    st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)),
)
VALUES = st.recursive(
    st.none() | SCALARS | st.binary(),
    lambda inner: st.dictionaries(TEXT.filter(bool), inner, min_size=1, max_size=4),
    max_leaves=10,
)


def there_and_back(value: Any) -> Any:
    return from_r(decode(b"".join(encode(to_r(value)))))


@given(VALUES)
def test_values_come_back(value: Any) -> None:
    assert there_and_back(value) == value


@given(st.lists(SCALARS | st.none(), min_size=2))
def test_lists_of_scalars_come_back(values: list[Any]) -> None:
    back = there_and_back(values)
    kinds = {type(value) for value in values}
    if kinds <= {int, float} and len(kinds) == 2:  # a vector has one type
        assert back == [float(value) for value in values]
    else:
        assert back == values


@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(-(2**31) + 1, 2**31 - 1),
            st.none() | st.booleans(),
            st.none() | TEXT,
            st.none() | st.floats(allow_nan=False),
            st.none() | st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)),
        ),
        max_size=20,
    )
)
def test_frames_come_back(rows: list[tuple[Any, ...]]) -> None:
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    kinds = [pa.int64(), pa.bool_(), pa.string(), pa.float64(), pa.timestamp("us")]
    table = pa.table(
        {f"c{n}": pa.array(column, kind) for n, (column, kind) in enumerate(zip(columns, kinds, strict=True))}
    )
    back = from_r(decode(b"".join(encode(data_frame(table, pytest.fail)))))
    assert pa.Table.from_pandas(back, preserve_index=False).cast(table.schema).to_pylist() == table.to_pylist()


def test_dtypes_of_a_frame_that_comes_back() -> None:
    frame = pd.DataFrame(
        {
            "whole": [1, 2],
            "missing": pd.array([1, None], dtype="Int64"),
            "flag": pd.array([True, None], dtype="boolean"),
            "grade": pd.Categorical(["b", None], categories=["b", "a"], ordered=True),
            "zoned": pd.to_datetime(["2024-03-31T01:30:00Z", None]).tz_convert("Europe/Berlin"),
            "span": pd.to_timedelta(["1.5s", None]),
        }
    )
    back = from_r(decode(b"".join(encode(data_frame(pa.Table.from_pandas(frame), pytest.fail)))))
    pd.testing.assert_frame_equal(back.astype({"zoned": frame.zoned.dtype, "span": frame.span.dtype}), frame)
    assert str(back.zoned.dtype.tz) == "Europe/Berlin"


def test_integers_beyond_a_double_are_told_of() -> None:
    warnings: list[str] = []
    data_frame(pa.table({"id": [2**60 + 1]}), warnings.append)
    assert warnings == [
        "column 'id': integers beyond 2^53 are rounded: R's widest number is a double; send them as text to keep them"
    ]
    assert there_and_back([2**40, 1]) == [float(2**40), 1.0]


def test_missing_and_not_a_number_are_two_things() -> None:
    back = there_and_back(pa.array([1.0, None, float("nan")]))
    assert back[:2] == [1.0, None]
    assert np.isnan(back[2])


def test_names_make_a_dict_and_repeated_ones_a_list() -> None:
    assert there_and_back({"a": 1, "b": {"c": ["x", None]}}) == {"a": 1, "b": {"c": ["x", None]}}


@pytest.mark.parametrize("value", [object(), {"a": [object()]}])
def test_what_r_has_nothing_like(value: Any) -> None:
    with pytest.raises(NotForRError, match="object"):
        to_r(value)


def test_text_with_nul() -> None:
    with pytest.raises(ValueError, match="the character NUL"):
        encode(to_r("a\0b"))


@pytest.mark.parametrize("data", [b"", b"RDX3", b"X\n\0\0\0\3", b"".join(encode(to_r([1, 2])))[:-2]])
def test_what_is_no_serialization(data: bytes) -> None:
    with pytest.raises(NotRdsError, match="what R wrote"):
        decode(data)
