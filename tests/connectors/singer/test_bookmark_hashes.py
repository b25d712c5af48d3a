"""A state's marks are the same however it is spelled, and differ when it does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.connectors.singer.bookmark_hashes import marks_of
from streamline.connectors.singer.echo_account import RESERVED, WHOLE
from streamline.flow.codecs.jsontext import JSONTextError
from streamline.flow.items import REST

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name not in RESERVED)
BOOKMARKS = st.dictionaries(NAMES, VALUES, max_size=5)


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(list(value))}
    return [reordered(each) for each in value] if isinstance(value, list) else value


@given(BOOKMARKS, st.dictionaries(st.sampled_from(["lsn", "versions"]), VALUES))
def test_spelling_does_not_matter(bookmarks: dict[str, Any], rest: dict[str, Any]) -> None:
    value = {"bookmarks": bookmarks, **rest}
    marks = marks_of(json.dumps(value).encode())
    assert (
        marks_of(json.dumps(reordered(value), indent=3, ensure_ascii=False).encode("utf-8", "surrogatepass")) == marks
    )
    assert marks.keys() == {*bookmarks, *([REST] if rest else [])}


@given(BOOKMARKS, NAMES, st.integers(), st.integers())
def test_only_the_stream_that_moved_has_another_mark(
    bookmarks: dict[str, Any], stream: str, one: int, two: int
) -> None:
    before = marks_of(json.dumps({"bookmarks": {**bookmarks, stream: one}}).encode())
    after = marks_of(json.dumps({"bookmarks": {**bookmarks, stream: two}}).encode())
    moved = {key for key in before if before[key] != after[key]}
    assert moved == ({stream} if one != two else set())


def test_where_a_tap_is_says_nothing_about_how_far_it_came() -> None:
    assert marks_of(b'{"bookmarks":{"a":1},"currently_syncing":"a"}') == marks_of(b'{"bookmarks":{"a":1}}')


def test_a_state_of_another_shape_is_one_mark() -> None:
    for text in (b'{"a":1}', b'"2024-01-01"', b"[1]", b"7", b'{"bookmarks":3}'):
        assert marks_of(text).keys() == {WHOLE}
    assert marks_of(b"{}") == {}
    assert marks_of(b'{"bookmarks":{}}') == {}


def test_large_and_odd_values_are_exact() -> None:
    def mark(text: str) -> int:
        return marks_of(b'{"bookmarks":{"a":' + text.encode() + b"}}")["a"]

    assert mark("123456789012345678901234567890") != mark("123456789012345678901234567891")
    assert mark("NaN") == mark(" NaN ")
    assert mark('"\\ud800"') != mark('"\\ud801"')
    assert mark('"' + "x" * 100_000 + '"') != mark('"' + "x" * 99_999 + 'y"')
    assert mark('"\\u00e9"') == mark('"é"')


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":', b'{"bookmarks":{"a":1}', b"nonsense", b"\xff"])
def test_what_is_no_json_is_no_state(text: bytes) -> None:
    with pytest.raises(JSONTextError):
        marks_of(text)
