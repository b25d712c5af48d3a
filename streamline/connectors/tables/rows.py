"""Messages as rows: which message is the last of its key, and what it does to that row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from streamline.connectors.refusals import Message
from streamline.connectors.tables.settings import TableSettings
from streamline.connectors.tables.values import MisfitError


class Row(msgspec.Struct):
    """A message as a row.

    Args:
        key: values of the key's columns; none: the row replaces no other.
        fields: None: the row of this key is deleted.
    """

    message: Message
    key: tuple[Any, ...]
    fields: dict[str, Any] | None


def row_of(message: Message, settings: TableSettings) -> Row:
    """Return what a message does.

    Raises:
        ValueError: it cannot be a row: it is no object, has no key, or is a tombstone where rows are only added.
    """
    data = message.data
    if data is None:
        if settings.append:
            raise MisfitError("a tombstone deletes a row, and with `mode: append` rows are only added")
        return Row(message, _message_key(message, settings), None)
    if not isinstance(data, dict):
        raise MisfitError(f"a row is made of an object, and this is {type(data).__name__}")
    if not all(isinstance(name, str) for name in data):
        raise MisfitError("its fields must have names")
    fields = {name: value for name, value in data.items() if not settings.columns or name in settings.columns}
    if settings.append:
        return Row(message, (), fields)
    if not settings.key:
        (key,) = _message_key(message, settings)
        return Row(message, (key,), {**fields, settings.key_column: key})
    missing = [name for name in settings.key if fields.get(name) is None]
    if missing:
        raise MisfitError(f"it has no value for {', '.join(missing)} of its key")
    values = tuple(fields[name] for name in settings.key)
    if any(isinstance(value, dict | list) for value in values):
        raise MisfitError("a value of its key is an object or a list")
    return Row(message, values, fields)


def last_of_each_key(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without those that a later one replaces."""
    last = {row.key: number for number, row in enumerate(rows) if row.key}
    return [row for number, row in enumerate(rows) if not row.key or last[row.key] == number]


def _message_key(message: Message, settings: TableSettings) -> tuple[Any, ...]:
    """Return the values of the key's columns that the key of a message holds.

    It is the text of one column, a JSON array of several (as taps write it), or a JSON object with these columns.
    """
    text = message.key
    if text is None:
        hint = "" if settings.key else "; set `key` to columns, or `mode: append`"
        raise MisfitError(f"it has no key{hint}")
    columns = settings.key
    if not columns:
        return (text,)
    value: Any = text
    if text[:1] in ('"', "[", "{"):
        try:
            value = json.loads(text)
        except ValueError:
            value = text
    if isinstance(value, dict) and all(value.get(name) is not None for name in columns):
        return tuple(value[name] for name in columns)
    if len(columns) == 1 and not isinstance(value, dict | list):
        return (value,)
    if isinstance(value, list) and len(value) == len(columns):
        return tuple(value)
    raise MisfitError(f"its key {text!r:.100} does not hold the columns {', '.join(columns)}")
