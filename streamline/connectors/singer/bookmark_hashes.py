"""Marks of a STATE: a 64-bit hash of each stream's bookmark."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from streamline.connectors.singer.echo_account import RESERVED, SERIAL, WHOLE
from streamline.connectors.singer.state import SERIAL_MEMBER
from streamline.flow.codecs import jsontext
from streamline.flow.items import REST

_SMALL = 4096


def marks_of(value: bytes) -> dict[str, int]:
    """Return the marks of a state, equal for every spelling of it.

    `currently_syncing` names a stream, not a position, and is left out. A state without `bookmarks` is one mark, under
    `WHOLE`; so is one with a stream whose name is reserved. The number that `numbered` added is a mark of its own.

    Raises:
        JSONTextError: it is not valid JSON.
    """
    try:
        rest = dict(jsontext.members(value))
    except jsontext.NotAnObjectError:
        return {WHOLE: _mark(value)}
    rest.pop("currently_syncing", None)
    bookmarks = rest.pop("bookmarks", None)
    serial = rest.pop(SERIAL_MEMBER, None)
    if bookmarks is None:
        return {WHOLE: _mark(jsontext.join_members(rest))} if rest else {}
    try:
        marks = {stream: _mark(text) for stream, text in jsontext.members(bookmarks).items()}
        if marks.keys() & RESERVED:
            return {WHOLE: _mark(value)}
    except jsontext.NotAnObjectError:
        return {WHOLE: _mark(value)}
    if rest:
        marks[REST] = _mark(jsontext.join_members(rest))
    if serial is not None:
        marks[SERIAL] = _mark(serial)
    return marks


def _mark(text: bytes) -> int:
    return _cached(text) if len(text) <= _SMALL else _hash(text)


# Of many streams one usually moves; the others' texts come again and again.
@lru_cache(maxsize=4096)
def _cached(text: bytes) -> int:
    return _hash(text)


def _hash(text: bytes) -> int:
    return int.from_bytes(blake2b(jsontext.canonical(text), digest_size=8).digest(), "big")
