"""Data of messages, written down in a dead letter so that it can be restored.

Bytes stay as they are. All else is JSON text, in which an object with one member whose name begins with `$` stands for
a value that JSON has no word for: `{"$bytes": "AP8="}`, `{"$decimal": "1.50"}`, `{"$datetime": "2026-11-30T12:00:00"}`.
Data of other types (a user's own class) is written as text for people, and cannot be restored.
"""

from __future__ import annotations

import datetime as dt
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from streamline.flow.codecs import jsontext
from streamline.flow.items import DataForm

MAX_TEXT = 10_000
"""Characters that are kept of data that cannot be restored."""

_Read = Callable[[Any], Any]


def dump_data(data: Any) -> tuple[bytes, DataForm]:
    """Return a message's data as it is written in a dead letter, and in which form that is."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data), "bytes"
    try:
        return jsontext.encode(_tagged(data)), "json"
    except (TypeError, ValueError, RecursionError):
        return _as_text(data).encode("utf-8", "backslashreplace"), "text"


def load_data(record: bytes, form: DataForm) -> Any:
    """Return the data of which `dump_data` made `record`.

    Raises:
        ValueError: it cannot be restored.
    """
    if form == "bytes":
        return record
    if form == "text":
        raise ValueError("its data is of a type that cannot be restored")
    data = jsontext.decode(record)
    return _untagged(data) if b'"$' in record else data


def _as_text(data: Any) -> str:
    try:
        return repr(data)[:MAX_TEXT]
    except Exception as error:  # of the user's class
        return f"<{type(data).__qualname__}, whose repr() raised {type(error).__name__}>"


def _tagged(value: Any) -> Any:
    """Return a value of JSON's own types.

    Raises:
        TypeError: a type that has no tag.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and not _is_tag(value):
            return {key: _tagged(member) for key, member in value.items()}
        return {"$object": [[_tagged(key), _tagged(member)] for key, member in value.items()]}
    if isinstance(value, list):
        return [_tagged(member) for member in value]
    if isinstance(value, tuple):
        return {"$tuple": [_tagged(member) for member in value]}
    if isinstance(value, set | frozenset):
        return {"$set": [_tagged(member) for member in value]}
    if isinstance(value, bytes | bytearray):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, dt.timedelta):
        return {"$timedelta": [value.days, value.seconds, value.microseconds]}
    for kind, (name, write, _) in _TEXTS.items():
        if isinstance(value, kind):
            return {name: write(value)}
    if type(value).__module__ == "numpy" and not getattr(value, "shape", (1,)):
        return _tagged(value.item())
    raise TypeError(f"data of type {type(value).__qualname__}")


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_untagged(member) for member in value]
    if not isinstance(value, dict):
        return value
    if _is_tag(value):
        ((name, content),) = value.items()
        if name not in _READERS:
            raise ValueError(f"it has a value of type {name!r}, which this version does not know")
        return _READERS[name](content)
    return {key: _untagged(member) for key, member in value.items()}


def _is_tag(value: Mapping[Any, Any]) -> bool:
    return len(value) == 1 and str(next(iter(value))).startswith("$")


_TEXTS: dict[type, tuple[str, Callable[[Any], str], _Read]] = {
    Decimal: ("$decimal", str, Decimal),
    dt.datetime: ("$datetime", dt.datetime.isoformat, dt.datetime.fromisoformat),  # before date, its base class
    dt.date: ("$date", dt.date.isoformat, dt.date.fromisoformat),
    dt.time: ("$time", dt.time.isoformat, dt.time.fromisoformat),
    UUID: ("$uuid", str, UUID),
}

_READERS: dict[str, _Read] = {
    "$object": lambda pairs: {_untagged(key): _untagged(member) for key, member in pairs},
    "$tuple": lambda members: tuple(map(_untagged, members)),
    "$set": lambda members: set(map(_untagged, members)),
    "$bytes": b64decode,
    "$timedelta": lambda parts: dt.timedelta(*parts),
    **{name: read for name, _, read in _TEXTS.values()},
}
