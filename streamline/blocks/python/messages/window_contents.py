"""What a window holds: its messages, or what `fold` has made of them. Both are kept in the state as JSON."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from streamline.blocks.python.messages.window_settings import Fold
from streamline.errors import StreamlineError
from streamline.flow.codecs.message_data import dump_data, load_data

_EXACTLY = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
SIMPLE = frozenset([int, float, str, bool, type(None)])
FRAME = 64
"""Bytes that an entry of the state may have besides the key of its message and its value."""


def encoded_message(data: Any) -> bytes:
    """Return a message as the state keeps it, with a comma behind it.

    Raises:
        ValueError: JSON cannot express it.
    """
    try:
        text = orjson.dumps(data, None, _EXACTLY)
    except (TypeError, ValueError, RecursionError):
        pass
    else:
        # What `dump_data` marks, and what orjson writes as null.
        if b'{"$' not in text and b"null" not in text:
            return text + b","  # the copy is as small as can be: that of orjson has room for a kilobyte
    text, form = dump_data(data)
    if form != "json":
        raise ValueError("windows keep messages as JSON, which cannot express this one")
    return text + b","


def joined(messages: Sequence[bytes]) -> bytes:
    """Return messages of `encoded_message` as one value of the state."""
    return b"[" + b"".join(messages)[:-1] + b"]"


def split(messages: Sequence[bytes], key: bytes, most: int) -> Iterator[bytes]:
    """Yield messages as values of the state, none with more bytes than its topic takes, as long as `fits` is true of
    each message."""
    start = size = 0
    for number, message in enumerate(messages):
        size += len(message)
        if size + len(key) + FRAME > most and number > start:
            yield joined(messages[start:number])
            start, size = number, len(message)
    yield joined(messages[start:])


def fits(message: bytes, key: bytes, most: int | None) -> bool:
    """Return whether a value of the state can have a message, where its topic takes so many bytes."""
    return most is None or len(message) + len(key) + FRAME < most


def decoded_messages(value: bytes) -> list[Any]:
    """Return the messages of `joined`."""
    messages: list[Any] = load_data(value, "json")
    return messages


class Folding:
    """Adds messages to values.

    Args:
        raised: makes the exception to raise of one that the user's function has raised.
    """

    def __init__(self, fold: Fold, raised: Callable[[BaseException], Exception], block: str) -> None:
        self.add = fold.add
        self._merge = fold.merge
        self.raised = raised
        self._block = block
        self.initial = fold.initial

    def added(self, value: Any, message: Any) -> Any:
        """Return a value with one more message; the one that is given stays as it is.

        Raises:
            Exception: of `raised`.
        """
        if type(value) not in SIMPLE:
            value = copied(value)
        try:
            return self.add(value, message)
        except (Exception, SystemExit) as error:
            raise self.raised(error) from None

    def merged(self, earlier: Any, later: Any) -> Any:
        """Return the value of two sessions that have joined; those that are given stay as they are.

        Raises:
            Exception: of `raised`.
        """
        assert self._merge is not None
        try:
            return self._merge(copied(earlier), copied(later))
        except (Exception, SystemExit) as error:
            raise self.raised(error) from None

    def encoded(self, value: Any, key: bytes, most: int | None) -> bytes:
        """Return a value as the state keeps it.

        Args:
            key: of the messages.
            most: bytes that an entry of the state may have.

        Raises:
            StreamlineError: the state cannot keep it.
        """
        if type(value) is int:
            return b"%d" % value
        text, form = dump_data(value)
        if form != "json":
            raise StreamlineError(
                f"fold has made a value for key {key!r} that JSON cannot express: {text[:200].decode()}",
                where=self._block,
                hint="let fold return numbers, strings, lists, dicts, dates or decimals",
                code="window.value_invalid",
            )
        if most is not None and len(text) + len(key) + FRAME > most:
            raise StreamlineError(
                f"fold has made a value of {len(text):,} bytes for key {key!r}, and the state's topic takes {most:,}",
                where=self._block,
                hint="let fold return a small value; or raise max.message.bytes of the topic",
                code="window.value_too_large",
            )
        return text

    def decoded(self, value: bytes) -> Any:
        """Return the value of `encoded`."""
        return int(value) if value.isdigit() else load_data(value, "json")


def copied(value: Any) -> Any:
    """Return a copy of a value, all the way down."""
    kind = type(value)
    if kind in SIMPLE:
        return value
    if kind is dict:
        return {key: copied(member) for key, member in value.items()}
    if kind is list:
        return [copied(member) for member in value]
    return copy.deepcopy(value)
