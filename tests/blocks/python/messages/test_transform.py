"""What a transformer of a streaming pipeline is given, and what becomes of what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from streamline.errors import ConfigError, PipelineFailed
from streamline.flow.items import BadRecord, Item, MessageBatch, Origin, Position
from streamline.flow.stages.park import PARKED_ERROR
from tests.blocks.python.messages.conftest import Run


def origin(number: int) -> Origin:
    return Origin("orders", 0, number, b"k%d" % number, b"")


def batch(*data: Any, first: int = 0) -> MessageBatch:
    return MessageBatch("orders", list(data), [origin(first + number) for number in range(len(data))])


def numbers(count: int) -> MessageBatch:
    return batch(*({"n": number} for number in range(count)))


def data_of(items: Sequence[Item]) -> list[Any]:
    return [message for item in items if isinstance(item, MessageBatch) for message in item.data]


def offsets_of(items: Sequence[Item]) -> list[int | None]:
    return [
        each.offset if each is not None else None
        for item in items
        if isinstance(item, MessageBatch)
        for each in item.origins or [None] * len(item.data)
    ]


def bad_of(items: Sequence[Item]) -> list[BadRecord]:
    return [item for item in items if isinstance(item, BadRecord)]


def test_messages_that_are_returned_keep_their_origins(transform: Run) -> None:
    given = numbers(3)
    (out,) = transform("return messages", [given])
    assert out == given


@pytest.mark.parametrize(
    ("body", "data", "offsets"),
    [
        ("return messages[1:]", [1, 2], [1, 2]),
        ("return messages[::-1]", [2, 1, 0], [2, 1, 0]),
        ("return [messages[1], messages[1]]", [1, 1], [1, 1]),
        ("return [dict(m) for m in messages]", [0, 1, 2], [None, None, None]),
        ("return [messages[0], {'n': 9}, messages[2]]", [0, 9, 2], [0, None, 2]),
        ("return messages[2]", [2], [2]),
        ("return tuple(messages)", [0, 1, 2], [0, 1, 2]),
        ("yield from messages", [0, 1, 2], [0, 1, 2]),
        ("messages.pop(0)\nreturn messages", [1, 2], [1, 2]),
        ("return None", [], []),
        ("return []", [], []),
    ],
)
def test_what_is_returned_becomes_messages(transform: Run, body: str, data: list[int], offsets: list[Any]) -> None:
    out = transform(body, [numbers(3)])
    assert [message["n"] for message in data_of(out)] == data
    assert offsets_of(out) == offsets


def test_a_coroutine_is_awaited(transform: Run) -> None:
    body = "import asyncio\nasync def later():\n    await asyncio.sleep(0)\n    return messages\nreturn later()"
    assert data_of(transform(body, [numbers(2)])) == [{"n": 0}, {"n": 1}]


def test_a_call_gets_batch_size_messages_at_most_and_the_file_is_loaded_once(transform: Run) -> None:
    body = "calls.append(len(messages))\nreturn [{'calls': list(calls)}]"
    out = transform(body, [numbers(5), numbers(2)], head="calls = []", batch_size=2)
    assert data_of(out)[-1] == {"calls": [2, 2, 1, 2]}


def test_it_is_given_keywords_and_the_stream(transform: Run) -> None:
    body = "return {'stream': kwargs['stream'], 'env': kwargs['env'], 'logger': kwargs['logger'].name}"
    out = transform(body, [numbers(1)], keywords={"env": "test"})
    assert data_of(out) == [{"stream": "orders", "env": "test", "logger": "streamline.blocks.enrich"}]


def test_positions_stay_behind_the_messages_before_them(transform: Run) -> None:
    items: list[Item] = []
    for number in range(6):
        items += [batch({"n": number}, first=number), Position("s", number + 1, {})]
    out = transform("return messages", items)
    assert out == items


def test_one_bad_message_is_refused_and_the_others_go_on_in_order(transform: Run) -> None:
    body = "for m in messages:\n    m['half'] = 10 / m['n']\nreturn messages"
    given = [batch(*({"n": number} for number in range(-50, 50))), Position("s", 1, {})]
    out = transform(body, given)
    assert [message["n"] for message in data_of(out)] == [number for number in range(-50, 50) if number]
    assert offsets_of(out) == [number for number in range(100) if number != 50]
    (bad,) = bad_of(out)
    assert (bad.stage, bad.origin, bad.record) == ("enrich", origin(50), b'{"n":0}')
    assert "ZeroDivisionError" in (bad.trace or "")
    assert out[-1] == given[-1]


def test_messages_that_were_changed_before_it_raised_are_given_as_they_were(transform: Run) -> None:
    body = "for m in messages:\n    m['name'] = m.pop('Name').upper()\nreturn messages"
    out = transform(body, [batch(*({"Name": name} for name in ("a", "b", None, "d")))])
    assert data_of(out) == [{"name": "A"}, {"name": "B"}, {"name": "D"}]
    assert [each.record for each in bad_of(out)] == [b'{"Name":null}']


def test_what_is_no_message_is_refused(transform: Run) -> None:
    out = transform("return 5", [numbers(2)])
    assert [each.record for each in bad_of(out)] == [b'{"n":0}', b'{"n":1}']
    assert " int; it must" in bad_of(out)[0].error


def test_a_generator_that_raises_in_the_middle_gives_nothing_of_that_call(transform: Run) -> None:
    out = transform("for m in messages:\n    yield {'x': 1 / m['n']}", [numbers(3)])
    assert data_of(out) == [{"x": 1.0}, {"x": 0.5}]
    assert [each.record for each in bad_of(out)] == [b'{"n":0}']


def test_a_tombstone_is_given_as_none_and_keeps_its_key(transform: Run) -> None:
    given = batch({"n": 0}, None, {"n": 2}, None)
    (out,) = transform("return messages", [given])
    assert out == given
    out_of = transform("return [m for m in messages if m is None]", [given])
    assert (data_of(out_of), offsets_of(out_of)) == ([None, None], [1, 3])
    assert data_of(transform("return [m for m in messages if m is not None]", [given])) == [{"n": 0}, {"n": 2}]


def test_a_tombstone_that_the_function_raises_on_passes_unchanged(transform: Run) -> None:
    out = transform("return [{'n': m['n'] + 1} for m in messages]", [batch({"n": 0}, None, {"n": 2}, {"m": 3}, None)])
    assert data_of(out) == [{"n": 1}, None, {"n": 3}, None]
    assert offsets_of(out) == [None, 1, None, 4]
    assert [each.record for each in bad_of(out)] == [b'{"m":3}']


def test_messages_of_one_object_keep_their_order(transform: Run) -> None:
    given = batch("a", "a", "b")
    assert offsets_of(transform("return messages[:-1]", [given])) == [0, 1]


def test_nothing_is_set_aside_where_the_first_error_ends_it(transform: Run) -> None:
    with pytest.raises(PipelineFailed) as failed:
        transform("return [1 / m['n'] for m in messages]", [batch({"n": 1}, {"n": 0}, {"n": 2})], set_aside=False)
    assert failed.value.code == "transformer.failed"
    assert "orders, partition 0, offset 1" in failed.value.message


def test_a_function_that_raises_on_everything_ends_the_run(transform: Run) -> None:
    down = "raise OSError('the service is down')"
    with pytest.raises(PipelineFailed) as failed:
        transform(down, [numbers(1_000)], max_raised=1_000)
    assert failed.value.code == "dead_letter.too_many"
    assert len(bad_of(transform(down, [numbers(999)], max_raised=1_000))) == 999
    assert len(bad_of(transform(down, [numbers(1_001)]))) == 1_001


def test_a_message_that_it_takes_starts_the_count_again(transform: Run) -> None:
    body = "if any(m['n'] != 700 for m in messages):\n    raise ValueError\nreturn messages"
    assert len(bad_of(transform(body, [numbers(1_500)], max_raised=1_000))) == 1_499


def test_a_call_that_takes_too_long_ends_the_attempt(transform: Run) -> None:
    with pytest.raises(PipelineFailed) as failed:
        transform("import time\ntime.sleep(60)", [numbers(1)], timeout=0.05)
    assert failed.value.code == "block.timeout"


def test_a_file_that_raises_ends_it_before_anything_is_read(transform: Run) -> None:
    def nothing() -> Any:
        raise AssertionError("something was read")
        yield

    with pytest.raises(PipelineFailed):
        transform("return messages", nothing(), head="1 / 0")


PANDAS = {"head": "import pandas as pd", "signature": "df: pd.DataFrame"}
POLARS = {"head": "import polars as pl", "signature": "df: pl.DataFrame"}
ARROW = {"head": "import pyarrow as pa", "signature": "df: pa.Table"}
ROWS = ({"n": 1, "s": "a"}, {"n": 2**53 + 1, "s": None, "x": 1.5}, {"n": None, "s": "c", "deep": {"a": [1]}})
WHOLE = [
    {"n": 1, "s": "a", "x": None, "deep": None},
    {"n": 2**53 + 1, "s": None, "x": 1.5, "deep": None},
    {"n": None, "s": "c", "x": None, "deep": {"a": [1]}},
]


@pytest.mark.parametrize("kind", [PANDAS, POLARS, ARROW], ids=["pandas", "polars", "arrow"])
def test_a_table_has_the_fields_of_the_messages(transform: Run, kind: dict[str, str]) -> None:
    body = "return df.slice(0)" if kind is ARROW else "return df.copy()" if kind is PANDAS else "return df.clone()"
    out = transform(body, [batch(*ROWS)], **kind)
    assert data_of(out) == WHOLE
    assert offsets_of(out) == [None, None, None]


@pytest.mark.parametrize("kind", [PANDAS, POLARS, ARROW], ids=["pandas", "polars", "arrow"])
def test_integers_of_any_size_pass_tables(transform: Run, kind: dict[str, str]) -> None:
    body = "return df.slice(0)" if kind is ARROW else "return df.copy()" if kind is PANDAS else "return df.clone()"
    out = transform(body, [batch({"n": 10**30}, {"n": 5})], **kind)
    assert data_of(out) == [{"n": 10**30}, {"n": 5}]


def test_a_table_that_was_not_changed_keeps_messages_as_they_are(transform: Run) -> None:
    given = batch(*ROWS)
    (out,) = transform("return df", [given], **ARROW)
    assert out == given


def test_tombstones_pass_tables_in_order(transform: Run) -> None:
    out = transform("return df.copy()", [batch({"n": 1}, None, {"n": 2})], **PANDAS)
    assert (data_of(out), offsets_of(out)) == ([{"n": 1}, None, {"n": 2}], [None, 1, None])


def test_a_message_that_has_no_row_in_a_table_is_refused(transform: Run) -> None:
    out = transform("return df", [batch({"n": 1}, "text", {"n": 2})], **ARROW)
    assert data_of(out) == [{"n": 1}, {"n": 2}]
    assert [each.record for each in bad_of(out)] == [b'"text"']


def test_missing_values_of_a_table_are_null(transform: Run) -> None:
    body = "df['half'] = df['n'] / 2\nreturn df[['n', 'half']]"
    assert data_of(transform(body, [batch({"n": 1}, {"n": None})], **PANDAS)) == [
        {"n": 1, "half": 0.5},
        {"n": None, "half": None},
    ]


def test_metadata_has_no_place_in_a_table(transform: Run) -> None:
    with pytest.raises(ConfigError) as refused:
        transform("return df", [], include_metadata=True, **PANDAS)
    assert refused.value.code == "transformer.metadata_in_table"


def test_messages_with_metadata_keep_their_origins_too(transform: Run) -> None:
    given = batch({"data": {"n": 1}, "metadata": {"key": "a"}}, {"data": None, "metadata": {"key": "b"}})
    (out,) = transform("return messages", [given], include_metadata=True)
    assert out == given


def lineage_of(items: Sequence[Item]) -> list[int | None]:
    """Return the offset of the message that each is made of."""
    return [
        made_of.offset if (made_of := item.made_of(number)[0]) is not None else None
        for item in items
        if isinstance(item, MessageBatch)
        for number in range(item.count)
    ]


@pytest.mark.parametrize(
    ("body", "offsets"),
    [
        ("return [dict(m) for m in messages]", [0, 1, 2]),
        ("return [messages[0], {'n': 9}, messages[2]]", [0, 1, 2]),
        ("return [{'n': 9}, messages[0], messages[2]]", [None, 0, 2]),
        ("return [{'n': 9}, messages[1]]", [None, 1]),
        ("return {'n': 9}", [None]),
    ],
)
def test_new_messages_are_made_of_those_in_their_places(transform: Run, body: str, offsets: list[Any]) -> None:
    out = transform(body, [numbers(3)])
    assert lineage_of(out) == offsets
    assert [[each.made_of(n)[1] for n in range(each.count)] for each in out if isinstance(each, MessageBatch)] == [
        [lineage != origin for lineage, origin in zip(offsets, offsets_of(out), strict=True)]
    ]


def test_all_that_is_made_of_one_message_has_its_origin(transform: Run) -> None:
    out = transform("return [{'part': 1}, {'part': 2}]", [numbers(1)])
    assert (offsets_of(out), lineage_of(out)) == ([None, None], [0, 0])


def test_a_new_message_that_the_next_block_refuses_names_the_first_one(transform: Run) -> None:
    (made,) = transform("return [dict(m) for m in messages]", [numbers(4)])
    out = transform("return [{'x': 1 / (m['n'] - 2)} for m in messages]", [made])
    (bad,) = bad_of(out)
    assert (bad.origin, bad.inferred, bad.record) == (origin(2), True, b'{"n":2}')
    assert lineage_of(out) == [0, 1, 3]


def keyed(first: int, *values: int) -> MessageBatch:
    """Return messages whose values are their keys and, if negative, bad."""
    origins: list[Origin | None] = [
        Origin("orders", 0, first + number, b"k%d" % abs(value), b"") for number, value in enumerate(values)
    ]
    return MessageBatch("orders", [{"n": value} for value in values], origins)


def test_messages_of_a_refused_key_are_parked_behind_it(transform: Run) -> None:
    body = "if any(m['n'] < 0 for m in messages):\n    raise ValueError('below 0')\nreturn [dict(m) for m in messages]"
    given = [keyed(0, 1, -2, 3, 2, 1), keyed(5, 2, -3, 3, 4)]
    out = transform(body, given, park=True)
    assert [message["n"] for message in data_of(out)] == [1, 3, 1, 4]
    refused = [(each.origin.offset, each.error == PARKED_ERROR) for each in bad_of(out) if each.origin is not None]
    assert sorted(refused) == [(1, False), (3, True), (5, True), (6, False), (7, True)]
    assert {each.stage for each in bad_of(out)} == {"enrich"}
    assert [message["n"] for message in data_of(transform(body, given))] == [1, 3, 2, 1, 2, 3, 4]
