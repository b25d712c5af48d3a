"""JSON values: what is read is what was written, to the last digit; what JSON has no word for is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import uuid
from collections import defaultdict
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamline.connectors.kafka.serialization.base import UndecodableError, UnwritableError
from streamline.connectors.kafka.serialization.json_text import JsonDecoder, JsonSerializer
from streamline.flow.items import Origin

NOON = dt.datetime(2026, 1, 2, 12, 0, 0, 5000, tzinfo=dt.UTC)


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int


def origin(value: bytes | None = None, topic: str = "orders") -> Origin:
    return Origin(topic, 0, 0, None, value)


def encode(data: Any) -> bytes | None:
    """One by one and together give the same."""
    serializer = JsonSerializer()
    text = serializer.encode(data, "t", "s")
    assert serializer.encode_batch([data, data], "t", "s") == [text, text]
    return text


def decode(value: bytes) -> Any:
    decoder = JsonDecoder()
    data = decoder.decode(value, origin())
    assert decoder.decode_batch([value, None, value], [origin()] * 3) == [data, None, data]
    return data


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.decimals(allow_nan=False, allow_infinity=False, places=30)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, Decimal) and isinstance(right, float):  # the float means the same number
        return Decimal(repr(right)) == left
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


@given(json_values)
@example({"n": 2**64, "d": Decimal("0.12345678901234567890")})
def test_what_is_written_is_read(data: Any) -> None:
    text = encode(data)
    assert (text is None) == (data is None)
    if text is not None:
        assert same(data, decode(text))


@given(json_values)
def test_what_the_standard_library_writes_is_read_and_written_again(data: Any) -> None:
    text = json.dumps(data, default=float).encode()
    decoded = decode(text)
    assert same(decoded, json.loads(text))
    if decoded is not None:
        assert json.loads(encode(decoded) or b"") == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "18446744073709551616",
        "-170141183460469231731687303715884105729",
        "1234567890.1234567890123",
        "0.1234567890123456789",
        "[1,20000000000000000000000000000000000000001]",
    ],
)
def test_no_digit_is_lost(text: str) -> None:
    assert encode(decode(text.encode())) == text.encode()


def test_more_digits_than_python_converts() -> None:
    text = b"1" * 5000
    assert encode({"n": decode(text)}) == b'{"n":' + text + b"}"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (NOON, '"2026-01-02T12:00:00.005000Z"'),
        (NOON.replace(tzinfo=None), '"2026-01-02T12:00:00.005000"'),
        (NOON.astimezone(dt.timezone(dt.timedelta(hours=5))), '"2026-01-02T17:00:00.005000+05:00"'),
        (dt.date(2026, 1, 2), '"2026-01-02"'),
        (dt.time(1, 2), '"01:02:00"'),
        (Decimal("1.10"), "1.10"),
        (Decimal("1E+400"), "1E+400"),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Color.RED, '"red"'),
        (Level.HIGH, "3"),
        (Point(1), '{"x":1}'),
        ((1, {2}), "[1,[2]]"),
        (b"\x00\x01", '"AAE="'),
        (defaultdict(int, a=1), '{"a":1}'),
        (np.int64(5), "5"),
        (np.float64(1.5), "1.5"),
        (np.bool_(True), "true"),
        (np.array([1, 2]), "[1,2]"),
        (np.datetime64("2026-01-02T00:00:00"), '"2026-01-02T00:00:00"'),
        (pd.Timestamp("2026-01-02", tz="UTC"), '"2026-01-02T00:00:00Z"'),
        (pd.NaT, "null"),
        (pd.NA, "null"),
        ("\ud800", '"\\ud800"'),
        ({None: 3, True: 4}, '{"null":3,"true":4}'),
        ({1.5: 2, dt.date(2026, 1, 2): 3}, '{"1.5":2,"2026-01-02":3}'),
    ],
)
@pytest.mark.parametrize("beside", ["small", 2**70])
def test_values_that_are_not_json(data: Any, text: str, beside: Any) -> None:
    """The same with and without a number that takes the longer way."""
    assert encode({"beside": beside, "v": data}) == f'{{"beside":{json.dumps(beside)},"v":{text}}}'.encode()


@pytest.mark.parametrize(
    "data", [float("nan"), float("inf"), np.float64("nan"), Decimal("NaN"), object(), {"a": {(1, 2): 3}}, {"b": object}]
)
def test_what_json_has_no_word_for_is_refused(data: Any) -> None:
    for refused in (data, {"v": data, "big": 2**70}, [None, {"v": [data]}]):
        with pytest.raises(UnwritableError):
            JsonSerializer().encode(refused, "t", "s")
        with pytest.raises(UnwritableError):
            JsonSerializer().encode_batch([{"a": 1}, refused], "t", "s")


def test_data_that_contains_itself_is_refused() -> None:
    data: dict[str, Any] = {}
    data["self"] = data
    with pytest.raises(UnwritableError):
        JsonSerializer().encode(data, "t", "s")


@pytest.mark.parametrize(
    "value", [b"", b" ", b"{", b"{'a': 1}", b"\xff\x00", b'{"a":1}{"b":2}', b"\x00\x00\x00\x00\x07x"]
)
def test_what_is_not_json_is_undecodable(value: bytes) -> None:
    with pytest.raises(UndecodableError):
        JsonDecoder().decode(value, origin())
    with pytest.raises(UndecodableError):
        JsonDecoder().decode_batch([b"{}", value], [origin()] * 2)


def test_what_python_programs_write_is_read() -> None:
    assert decode(b'{"a": NaN, "b": "\\ud800"}')["b"] == "\ud800"
    assert decode(b'{"a": 1e400}') == {"a": Decimal("1e400")}


def test_deep_nesting_is_undecodable() -> None:
    with pytest.raises(UndecodableError):
        JsonDecoder().decode(b"[" * 100_000, origin())


def test_tombstones_and_ready_bytes_pass() -> None:
    assert JsonSerializer().encode_batch([None, b'{"a" : 1}', {"b": 2}], "t", "s") == [None, b'{"a" : 1}', b'{"b":2}']
