"""Singer STATE taken apart, put together and compared, in every shape that taps write."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.connectors.singer import state
from streamline.connectors.singer.bookmark_hashes import marks_of
from streamline.connectors.singer.echo_account import RESERVED, WHOLE
from streamline.flow.codecs import jsontext
from streamline.flow.codecs.jsontext import JSONTextError
from streamline.flow.items import FORGOTTEN

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
names = st.text(max_size=8).filter(lambda name: name != "*")
bookmarks_states = st.builds(
    lambda bookmarks, rest: {**rest, "bookmarks": bookmarks},
    st.dictionaries(names, values, max_size=4),
    st.dictionaries(st.sampled_from(["currently_syncing", "versions", "job", ""]), values, max_size=3),
)
flat_states = st.dictionaries(names.filter(lambda name: name not in ("bookmarks", "currently_syncing")), scalars)
spellings = st.booleans()


def spell(value: object, seed: int) -> bytes:
    """The value's JSON with its keys shuffled, and spaced and escaped in some way."""
    chance = random.Random(seed)

    def shuffled(inner: object) -> object:
        if isinstance(inner, dict):
            items = list(inner.items())
            chance.shuffle(items)
            return {key: shuffled(found) for key, found in items}
        return [shuffled(one) for one in inner] if isinstance(inner, list) else inner

    separators = chance.choice([(",", ":"), (", ", ": "), (" ,\n", "  :")])
    text = json.dumps(shuffled(value), separators=separators, ensure_ascii=chance.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


@given(bookmarks_states)
def test_joining_the_rows_of_a_state_gives_the_state_back(value: dict) -> None:
    text = spell(value, 1)
    rows = state.split_state(text)
    assert json.loads(state.join_state(rows)) == value
    if value["bookmarks"]:
        assert set(rows) - {"*"} == set(value["bookmarks"])


@given(flat_states | st.lists(scalars, max_size=2) | scalars)
def test_a_state_of_another_shape_is_one_row(value: object) -> None:
    text = spell(value, 1)
    assert state.split_state(text) == {"*": text}
    if value != {}:
        assert json.loads(state.join_state({"*": text})) == value
        assert not state.rows_have_bookmarks({"*": text})


@given(st.one_of(bookmarks_states, flat_states, values), st.integers(), st.integers())
def test_every_spelling_of_a_state_is_the_same_state(value: object, one: int, other: int) -> None:
    first, second = spell(value, one), spell(value, other)
    assert jsontext.canonical(first) == jsontext.canonical(second)
    assert marks_of(first) == marks_of(second)


@given(bookmarks_states, bookmarks_states)
def test_different_bookmarks_have_different_marks(one: dict, other: dict) -> None:
    marks, others = marks_of(spell(one, 1)), marks_of(spell(other, 2))
    if (one["bookmarks"].keys() | other["bookmarks"].keys()) & RESERVED:
        return  # then the whole state is one mark
    assert set(one["bookmarks"]) <= set(marks)
    for stream in one["bookmarks"].keys() & other["bookmarks"].keys():
        equal = jsontext.canonical(spell(one["bookmarks"][stream], 1)) == jsontext.canonical(
            spell(other["bookmarks"][stream], 1)
        )
        assert (marks[stream] == others[stream]) == equal


@pytest.mark.parametrize("name", ["*", "#", ""])
def test_a_stream_that_bears_a_name_of_the_ledgers_makes_the_state_one_mark(name: str) -> None:
    first = marks_of(spell({"bookmarks": {name: 1, "a": 1}}, 1))
    assert set(first) == {WHOLE}
    assert first != marks_of(spell({"bookmarks": {name: 2, "a": 1}}, 1))


def test_a_bookmark_keeps_the_bytes_that_the_tap_wrote() -> None:
    text = b'{"bookmarks": {"a": {"z": 1.10, "b":  123456789012345678901234567890}, "b": {"v": 1e400}}}'
    assert state.split_state(text) == {
        "a": b'{"z": 1.10, "b":  123456789012345678901234567890}',
        "b": b'{"v": 1e400}',
    }


def test_what_json_does_not_allow_passes_unchanged() -> None:
    text = b'{"bookmarks": {"a": NaN, "b": {"x": "\\ud800", "y": -Infinity}}, "currently_syncing": "\\udfff"}'
    rows = state.split_state(text)
    assert rows == {"a": b"NaN", "b": b'{"x": "\\ud800", "y": -Infinity}', "*": b'{"currently_syncing":"\\udfff"}'}
    joined = state.join_state(rows)
    assert state.split_state(joined) == rows
    assert marks_of(joined) == marks_of(text)


def test_a_state_starts_with_bookmarks() -> None:
    assert state.join_state({}) == b'{"bookmarks":{}}' == state.START
    assert state.join_state({"*": b"{}"}) == state.START


def test_what_stands_outside_of_bookmarks_is_a_row_of_its_own() -> None:
    rows = state.split_state(b'{"currently_syncing": "a", "bookmarks": {"a": {"id": 1}}}')
    assert rows == {"a": b'{"id": 1}', "*": b'{"currently_syncing":"a"}'}


def test_the_rest_of_a_state_whose_last_stream_was_reset_is_no_flat_state() -> None:
    rows = {"*": b'{"currently_syncing":null}'}
    assert json.loads(state.join_state(rows)) == {"bookmarks": {}, "currently_syncing": None}
    assert state.rows_have_bookmarks(rows)


def test_a_shard_is_not_told_where_the_whole_tap_was() -> None:
    assert state.without_currently_syncing(b'{"currently_syncing": "a"}') is None
    assert state.without_currently_syncing(b'{"currently_syncing":"a","versions":{"a": 1}}') == b'{"versions":{"a": 1}}'
    assert state.without_currently_syncing(b"[1]") == b"[1]"


def test_numbers_are_compared_as_targets_echo_them() -> None:
    big = b'{"a": 123456789012345678901234567890}'
    assert jsontext.canonical(big) != jsontext.canonical(b'{"a": 123456789012345678901234567891}')
    # A target in Python reads the long decimal as a float and echoes that.
    assert jsontext.canonical(b'{"a": 0.12345678901234567890}') == jsontext.canonical(b'{"a": 0.12345678901234568}')
    assert jsontext.canonical(b'{"a": 1e3}') == jsontext.canonical(b'{"a": 1000.0}')
    assert jsontext.canonical(b'{"a": 1e400}') == jsontext.canonical(b'{"a": Infinity}')


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"a":}', b'{"a" 1}', b'{"a":1,}', b'{"a":1}}', b"\xff", b"{a:1}", b'{"a":NaN', b"{1:NaN}"]
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(JSONTextError):
        state.split_state(text)
    with pytest.raises(JSONTextError):
        marks_of(text)


def test_numbers_and_texts_beyond_what_parsers_take() -> None:
    digits = b"9" * 5000
    text = b'{"bookmarks": {"a": {"n": ' + digits + b'}, "b": "tab\there", "c": "\xff"}}'
    rows = state.split_state(text)
    assert rows == {"a": b'{"n": ' + digits + b"}", "b": b'"tab\there"', "c": b'"\xff"'}
    assert marks_of(text) == marks_of(state.join_state(rows))
    assert jsontext.canonical(rows["a"]) != jsontext.canonical(rows["a"].replace(b"99}", b"98}"))


def test_parts_are_those_of_the_text_and_the_keys_that_the_tap_no_longer_has() -> None:
    text = b'{"bookmarks": {"a": {"id": 1}}, "currently_syncing": "a"}'
    parts = state.StateParts(text)
    assert dict(parts) == state.split_state(text)
    assert (len(parts), state.state_of(parts), parts.nbytes) == (2, text, len(text))
    forgotten = state.StateParts(text, ["b"])
    assert dict(forgotten) == {**state.split_state(text), "b": FORGOTTEN}
    assert dict(forgotten) == {**state.split_state(text), "b": FORGOTTEN}, "also when it is read again"


def test_a_tap_process_saves_the_bookmarks_that_it_owns() -> None:
    parts = {"a": b"1", "b": b"2", "*": b'{"currently_syncing":"a","versions":{"a":1}}'}
    assert state.owned_parts(parts, "a".__eq__, shared=False) == {"a": b"1", "*": parts["*"]}
    assert state.owned_parts(parts, "a".__eq__, shared=True) == {"a": b"1", "*": b'{"versions":{"a":1}}'}
    alone = {"a": b"1", "*": b'{"currently_syncing":"a"}'}
    assert state.owned_parts(alone, "a".__eq__, shared=True) == {"a": b"1"}
    assert state.owned_parts({"a": b"1"}, "a".__eq__, shared=True) == {"a": b"1"}


@pytest.mark.parametrize(
    ("prefix", "repeats"),
    [
        (b'{"type":"STATE","value":{"bookmarks":{', False),
        (b'{"type":"STATE","value":{"bookmarks":{"a":', True),
        (b'{"type":"STATE","value":{', False),
        (b'{"type":"STATE","value":{"a":', True),
    ],
)
def test_states_that_begin_alike_up_to_a_bookmark_share_it(prefix: bytes, repeats: bool) -> None:
    assert state.repeats_keys(prefix) is repeats
