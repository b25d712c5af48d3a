"""Copies of messages: where branches of a graph would share data that one of them may change."""

from __future__ import annotations

import copy
import datetime as dt
import io
import pickle
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from streamline.flow.items import Item, MessageBatch
from streamline.flow.protocols import ImmediateStage

UNCHANGING = frozenset(
    {str, int, float, bool, type(None), bytes, complex, Decimal, dt.datetime, dt.date, dt.time, dt.timedelta, UUID}
)
"""Types of values that nobody can change, so that a copy may share them."""


class CopyStage(ImmediateStage):
    """Gives what comes after it data of its own. Origins are shared: nothing changes them."""

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if not isinstance(item, MessageBatch):
            return [item]
        return [msgspec.structs.replace(item, data=copies_of(item.data))]


def copies_of(data: Sequence[Any]) -> list[Any]:
    """Return exact copies of messages: Python values of any kind."""
    if UNCHANGING.issuperset(map(type, data)):
        return list(data)
    return [_copy_of(message) for message in data]


def _copy_of(message: Any) -> Any:
    try:
        return _copied(message)
    except RecursionError:  # it is nested very deeply, or contains itself
        return copy.deepcopy(message)


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind in UNCHANGING:
        return value
    if kind is dict:
        if UNCHANGING.issuperset(map(type, value.values())):
            return value.copy()
        return {name: each if type(each) in UNCHANGING else _copied(each) for name, each in value.items()}
    if kind is list:
        if UNCHANGING.issuperset(map(type, value)):
            return value.copy()
        return [_copied(each) for each in value]
    if kind is tuple:
        return value if UNCHANGING.issuperset(map(type, value)) else tuple(map(_copied, value))
    return copy.deepcopy(value)


class Snapshot:
    """Messages as they are now. User code that raises in the middle may have changed some of them before.

    Making it is cheap, and restoring is not.
    """

    def __init__(self, data: Sequence[Any]) -> None:
        self._data = list(data)
        self._pickled: bytes | None = None
        if UNCHANGING.issuperset(map(type, self._data)):
            return
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, 5)
        pickler.fast = True  # without a memo: messages are trees
        try:
            pickler.dump(self._data)
        except Exception:  # whatever the values' own code raises; ValueError: one contains itself
            self._data = _deep_copies(self._data)
        else:
            self._pickled = buffer.getvalue()

    def part(self, start: int, stop: int) -> list[Any]:
        """Return some of the messages as they were; each call returns objects of its own."""
        if self._pickled is not None:
            pickled, self._pickled = self._pickled, None
            with suppress(Exception):  # of the values' own code; then the objects themselves, as they are now
                self._data = pickle.loads(pickled)
        return _deep_copies(self._data[start:stop])


def _deep_copies(data: Sequence[Any]) -> list[Any]:
    copied: list[Any] = []
    for message in data:
        try:
            copied.append(_copy_of(message))
        except Exception:  # nothing can copy it (an open connection): the object itself
            copied.append(message)
    return copied
