from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.flow.codecs.jsontext import (
    JSONTextError,
    NotAnObjectError,
    decode,
    dump_lines,
    dumps,
    encode,
    exact_fraction,
    is_deeper,
    join_object,
    members,
    scan_object,
    split_object,
)

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(), values, max_size=6)


@given(objects, st.booleans(), st.sampled_from([None, 1]))
def test_members_are_found_and_joined_to_the_same_object(
    value: dict[str, Any], ascii_: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_, indent=indent).encode("utf-8", "surrogatepass")
    members = split_object(text)
    assert list(members) == list(value)
    for key, member in members.items():
        expected = json.dumps(value[key], ensure_ascii=ascii_)
        found = json.dumps(json.loads(bytes(member).decode("utf-8", "surrogatepass")), ensure_ascii=ascii_)
        assert found == expected
    again = json.loads(join_object(members).decode("utf-8", "surrogatepass"))
    assert json.dumps(again) == json.dumps(value)


def test_a_name_may_be_a_lone_surrogate() -> None:
    text = rb'{"\ud800":1,"b":2}'
    assert list(split_object(text)) == ["\ud800", "b"]
    assert join_object(split_object(text)) == text


def test_values_keep_every_byte() -> None:
    text = (
        rb'{"a" : 1.50e+3, "b":NaN,"c":"\ud800\u00e9", "d":{"x":-Infinity , "y":[1 , 2]},"e":12345678901234567890123}'
    )
    assert {k: bytes(v) for k, v in split_object(text).items()} == {
        "a": b"1.50e+3",
        "b": b"NaN",
        "c": rb'"\ud800\u00e9"',
        "d": b'{"x":-Infinity , "y":[1 , 2]}',
        "e": b"12345678901234567890123",
    }


def test_a_number_of_five_thousand_digits_is_only_text() -> None:
    digits = b"1" * 5000
    assert scan_object(b'{"n":' + digits + b"}") == [("n", digits)]


def test_bytes_that_are_not_utf8_pass() -> None:
    assert scan_object(b'{"a":NaN,"n":"caf\xe9"}') == [("a", b"NaN"), ("n", b'"caf\xe9"')]


def test_the_last_of_two_members_of_one_name_counts() -> None:
    assert bytes(split_object(b'{"a":NaN,"a":2}')["a"]) == b"2"


@pytest.mark.parametrize(
    "text", [b"", b"[1]", b"{", b'{"a"}', b'{"a":}', b'{"a":NaN,}', b'{"a":NaN} x', b'{"a":[NaN}', b"NaN"]
)
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_object(text)


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Point(msgspec.Struct):
    x: int


ID = UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([None, True, False, "\u00e9", 1, 1.5], '[null,true,false,"\\u00e9",1,1.5]'),
        ([float("nan"), float("inf"), float("-inf")], "[NaN,Infinity,-Infinity]"),
        ((Color.RED, Level.LOW), '["red",1]'),
        ([Decimal("1.10"), {5}], "[1.10,[5]]"),
        ([10**5000], "[1" + "0" * 5000 + "]"),
        ({None: 1, True: 2, 3: 4, 0.5: 6, Decimal("7"): 8}, '{"null":1,"true":2,"3":4,"0.5":6,"7":8}'),
        ({dt.date(2024, 5, 1): 1, ID: 2}, '{"2024-05-01":1,"12345678-1234-5678-1234-567812345678":2}'),
        ([dt.datetime(2024, 5, 1), dt.time(12)], '["2024-05-01T00:00:00+00:00","12:00:00"]'),
        (dt.datetime(2024, 5, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))), '"2024-05-01T00:00:00+02:00"'),
        ([ID, pd.NaT, pd.NA], '["12345678-1234-5678-1234-567812345678",null,null]'),
        ([np.int64(3), np.float64("nan"), np.bool_(True), np.array([1, 2])], "[3,NaN,true,[1,2]]"),
        ([b"ab", dt.timedelta(seconds=1), Point(3)], '["YWI=","PT1S",{"x":3}]'),
    ],
)
def test_values_of_libraries_have_json_text(value: object, text: str) -> None:
    assert dumps(value) == text.encode()


@pytest.mark.parametrize("value", [object(), {(1, 2): 3}, [1j], np.longdouble(1)])
def test_other_values_have_none(value: object) -> None:
    with pytest.raises(TypeError):
        dumps(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["\u00e9", None], '["\u00e9",null]'),
        (["\u00e9", 2.5], '["\u00e9",2.5]'),
        ([float("nan"), None], "[NaN,null]"),
        ([None, 10**5000], "[null,1" + "0" * 5000 + "]"),
    ],
)
def test_null_is_written_for_no_number(value: list[Any], text: str) -> None:
    assert encode(value) == text.encode()
    assert dump_lines([{"v": value}] * 2) == f'{{"v":{text}}}\n'.encode() * 2


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("19.90", 19.9),
        ("1234567890123.25", 1234567890123.25),
        ("0.12345678901234567890123", Decimal("0.12345678901234567890123")),
        ("1.50000000000000000000", 1.5),
        ("2e2", 200.0),
        ("1e400", Decimal("1e400")),
        ("1E-400", Decimal("1E-400")),
    ],
)
def test_a_fraction_is_a_float_where_that_is_the_same_number(text: str, number: float | Decimal) -> None:
    assert (exact_fraction(text), type(exact_fraction(text))) == (number, type(number))


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        (b"1", 0),
        (b"[[],[],{}]", 2),
        (b'{"a":["[[[[","\\"[[["]}', 2),
        (b'[{"a":[1]},[]]', 3),
        (b"[" * 3000 + b"]" * 3000, 3000),
    ],
)
def test_levels_are_those_of_brackets_outside_of_strings(text: bytes, depth: int) -> None:
    assert [is_deeper(text, levels) for levels in (depth - 1, depth, depth + 1)] == [depth > 0, False, False]


def test_integers_beside_nan_are_exact_while_python_reads_them() -> None:
    assert decode(b"[NaN,%b]" % (b"7" * 4000))[1] == int("7" * 4000)
    assert decode(b"[NaN,%b]" % (b"7" * 5000))[1] == "7" * 5000


def test_a_member_that_is_too_deep_for_the_parser_ends_at_its_last_bracket() -> None:
    deep = b"[" * 3000 + b'"]"' + b"]" * 3000
    assert scan_object(b'{"a":' + deep + b',"b":[2]}') == [("a", deep), ("b", b"[2]")]
    with pytest.raises(ValueError, match="not closed"):
        scan_object(b'{"a":' + deep[:-1])


@pytest.mark.parametrize(
    ("text", "kind"), [(b"[1]", NotAnObjectError), (b"NaN", NotAnObjectError), (b"{1}", JSONTextError)]
)
def test_another_value_is_told_from_what_is_no_json(text: bytes, kind: type[Exception]) -> None:
    with pytest.raises(JSONTextError) as failure:
        members(text)
    assert type(failure.value) is kind
