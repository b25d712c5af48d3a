"""Copies are equal to what they are copies of, and share nothing that can change."""

from __future__ import annotations

import datetime as dt
import threading
from collections import OrderedDict
from decimal import Decimal
from typing import Any
from uuid import UUID

import anyio
import pytest

from streamline.flow.items import MessageBatch, Origin, Position
from streamline.flow.stages.copies import CopyStage, Snapshot, copies_of

DEEP: list[Any] = []
for _ in range(3_000):
    DEEP = [DEEP]

VALUES: list[Any] = [
    None,
    b"bytes",
    "text",
    10**40,
    1.5,
    True,
    Decimal("1.10"),
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    UUID(int=5),
    {"a": 1, "b": {"c": [1, 2, {"d": None}]}},
    [1, [2, [3]]],
    {"metadata": {"headers": [("h", b"v")]}},
    ("a", [1]),
    {1: "not a string"},
    bytearray(b"x"),
    {1, 2},
    OrderedDict(a=[1]),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_copy_is_equal_and_of_the_same_type(value: Any) -> None:
    (copied,) = copies_of([value])
    assert copied == value
    assert type(copied) is type(value)
    (restored,) = Snapshot([value]).part(0, 1)
    assert restored == value
    assert type(restored) is type(value)


def test_nothing_that_can_change_is_shared() -> None:
    message = {"a": {"b": [1, {"c": {2}}]}, "t": ([1],), "o": OrderedDict(x=[1]), "y": bytearray(b"1")}
    (copied,) = copies_of([message])
    copied["a"]["b"][1]["c"].add(3)
    copied["a"]["b"].append(4)
    copied["t"][0].append(2)
    copied["o"]["x"].append(2)
    copied["y"] += b"2"
    assert message == {"a": {"b": [1, {"c": {2}}]}, "t": ([1],), "o": OrderedDict(x=[1]), "y": bytearray(b"1")}


def test_messages_that_are_nested_deeply_or_contain_themselves_are_copied() -> None:
    around: dict[str, Any] = {}
    around["self"] = around
    (copied,) = copies_of([around])
    assert copied is not around
    assert copied["self"] is copied


def test_the_stage_copies_data_and_shares_origins() -> None:
    given = MessageBatch("t", [{"a": [1]}, None], [Origin("t", 0, 0, b"k", b"v"), None], sink="out")
    (out,) = anyio.run(CopyStage().process, given)
    assert out == given
    assert isinstance(out, MessageBatch)
    assert out.data[0] is not given.data[0]
    position = Position("s", 1, {})
    assert anyio.run(CopyStage().process, position) == [position]


def test_a_snapshot_is_not_changed_with_the_messages() -> None:
    messages = [{"n": 1}, {"n": 2}, {"n": 3}]
    snapshot = Snapshot(messages)
    for message in messages:
        message["n"] = 0
    first = snapshot.part(1, 3)
    assert first == [{"n": 2}, {"n": 3}]
    first[0]["n"] = 9
    assert snapshot.part(1, 2) == [{"n": 2}]


def test_what_cannot_be_copied_is_the_object_itself() -> None:
    lock = threading.Lock()
    assert Snapshot([{"lock": lock}]).part(0, 1) == [{"lock": lock}]


class Odd:
    """Its text cannot be read back."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_what_cannot_be_restored_is_the_object_itself() -> None:
    odd = Odd()
    assert Snapshot([{"odd": odd}]).part(0, 1)[0]["odd"] is not None
    assert len(Snapshot([{"odd": odd}, {"n": 1}]).part(0, 2)) == 2
