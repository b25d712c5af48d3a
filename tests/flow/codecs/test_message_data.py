"""Data of messages in dead letters."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.flow.codecs.message_data import dump_data, load_data

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.none() | st.just(dt.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
)
hashable = st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.just("$bytes"), inner)
        | st.dictionaries(hashable, inner)
        | st.tuples(inner, inner)
        | st.sets(hashable)
    ),
    max_leaves=8,
)


@given(values)
def test_data_is_restored(data: Any) -> None:
    restored = load_data(*dump_data(data))
    assert restored == data
    assert type(restored) is type(data)


def test_plain_data_is_plain_json() -> None:
    assert dump_data({"id": 12345678901234567890123, "price": 1.5}) == (
        b'{"id":12345678901234567890123,"price":1.5}',
        "json",
    )
    assert dump_data(b"\xff\x00") == (b"\xff\x00", "bytes")


def test_values_that_json_has_no_word_for() -> None:
    record, form = dump_data({"key": b"\xff", "at": dt.date(2026, 11, 30), "id": UUID(int=1), "price": Decimal("1.50")})
    assert form == "json"
    assert b'{"$bytes":"/w=="}' in record
    assert math.isnan(load_data(*dump_data([math.nan]))[0])


def test_a_users_own_class_is_text_for_people() -> None:
    class Order:
        def __repr__(self) -> str:
            return "Order(7)"

    record, form = dump_data({"order": Order()})
    assert (record, form) == (b"{'order': Order(7)}", "text")
    with pytest.raises(ValueError, match="cannot be restored"):
        load_data(record, form)


def test_a_type_of_another_version_is_not_taken_for_data() -> None:
    with pytest.raises(ValueError, match=r"\$complex"):
        load_data(b'{"$complex": [1, 2]}', "json")
