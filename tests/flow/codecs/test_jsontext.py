from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.flow.codecs.jsontext import join_object, scan_object, split_object

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
