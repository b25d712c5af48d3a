"""What decorated functions may return, and what becomes of it."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections import OrderedDict
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from streamline.blocks.connector.returned import Returned
from streamline.errors import ConfigError


class Region(enum.Enum):
    EU = "eu"


class Level(enum.IntEnum):
    HIGH = 3


def config(value: Any) -> Any:
    return Returned({"key": value}, "config", "data_loaders/b.py:3").config()["key"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (1, 1),
        (1.5, 1.5),
        ("x", "x"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC), "2026-01-02T03:04:00+00:00"),
        (dt.time(3, 4), "03:04:00"),
        (pd.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
        (Decimal("5432"), 5432),
        (Decimal("0.1"), 0.1),
        (np.int64(5432), 5432),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (Region.EU, "eu"),
        (Level.HIGH, 3),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("a/b.csv"), "a/b.csv"),
        ((1, (2,)), [1, [2]]),
        (OrderedDict(a=[np.int8(1)]), {"a": [1]}),
    ],
)
def test_values_become_json_values(value: Any, expected: Any) -> None:
    plain = config(value)
    assert plain == expected
    assert type(plain) is type(expected)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (b"x", "['key']"),
        ({1, 2}, "['key']"),
        ([{"a": object()}], "['key'][0]['a']"),
        ({1: "a"}, "['key']"),
        (dt.timedelta(1), "['key']"),
        (float("nan"), "['key']"),
        (Decimal("Infinity"), "['key']"),
        (pd.NaT, "['key']"),
        (pd.NA, "['key']"),
        (np.array([1]), "['key']"),
        (pd.DataFrame({"a": [1]}), "['key']"),
    ],
)
def test_other_values_are_refused_with_their_place(value: Any, place: str) -> None:
    with pytest.raises(ConfigError) as found:
        config(value)
    assert (found.value.code, found.value.where) == ("block.wrong_return", "data_loaders/b.py:3")
    assert f" at {place}," in found.value.message


def test_values_that_contain_themselves() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ConfigError) as found:
        config(value)
    assert found.value.code == "block.wrong_return"


def test_errors_have_no_values() -> None:
    with pytest.raises(ConfigError) as found:
        config({"password": b"hunter2"})
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("name", [None, "", "  ", 5, ["sqlite"]]),
        ("config", [None, "host=h", ["host"], pd.DataFrame()]),
        ("streams", ["orders", {"orders"}, {"orders": {}}, [1], [""], 0]),
        ("catalog", [[], "{}", {}, {"stream": []}]),
    ],
)
def test_wrong_types(what: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError) as found:
            getattr(Returned(value, "f", "b.py:1"), what)()
        assert (found.value.code, found.value.exit_code) == ("block.wrong_return", 2)


def test_right_types() -> None:
    def returned(value: Any) -> Returned:
        return Returned(value, "f", "b.py:1")

    assert returned(" sqlite ").name() == "sqlite"
    assert returned({}).config() == {}
    assert returned(("a", "b", "a")).streams() == ["a", "b"]
    assert returned(None).streams() == returned([]).streams() == []
    assert returned(None).catalog() is None
    assert returned({"streams": ()}).catalog() == {"streams": []}
