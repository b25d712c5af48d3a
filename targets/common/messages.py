"""Singer messages as a target reads them: decoded in chunks, records left as bytes until they are needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from kit.connector import ConnectorError

JSONObject = dict[str, Any]
Record = msgspec.Raw | JSONObject
"""A record's bytes; decoded where its line holds what only a lenient parser reads (`NaN`, lone surrogates)."""


class RecordMessage(msgspec.Struct, tag="RECORD", tag_field="type", gc=False):
    """One row of a stream."""

    stream: str
    record: Any
    version: int | None = None


class SchemaMessage(msgspec.Struct, tag="SCHEMA", tag_field="type"):
    """The shape and key of the rows that follow."""

    stream: str
    schema: JSONObject
    key_properties: list[str] | None = None


class StateMessage(msgspec.Struct, tag="STATE", tag_field="type"):
    """A position: everything before it was sent."""

    value: Any


class ActivateMessage(msgspec.Struct, tag="ACTIVATE_VERSION", tag_field="type"):
    """Rows of lower versions are stale from here on; with `keep_old`, which is Streamline's, they stay."""

    stream: str
    version: int
    keep_old: bool = False


class RawRecordMessage(RecordMessage, tag="RECORD", tag_field="type", gc=False):
    """One row of a stream, as it mostly comes: not decoded yet."""

    record: msgspec.Raw


class _RawState(StateMessage, tag="STATE", tag_field="type"):
    value: msgspec.Raw


Message = RecordMessage | SchemaMessage | StateMessage | ActivateMessage

_DECODER = msgspec.json.Decoder(RawRecordMessage | SchemaMessage | _RawState | ActivateMessage)
_TYPES: dict[str, type[Message]] = {
    "RECORD": RecordMessage,
    "SCHEMA": SchemaMessage,
    "STATE": StateMessage,
    "ACTIVATE_VERSION": ActivateMessage,
}


def decode_lines(lines: bytes, first_line: int) -> Sequence[Message]:
    """The messages of whole lines.

    Raises:
        ConnectorError: a line is no message; it is named by its number.
    """
    try:
        return _DECODER.decode_lines(lines)
    except msgspec.DecodeError:
        return list(_decode_one_by_one(lines, first_line))


def _decode_one_by_one(lines: bytes, first_line: int) -> Iterator[Message]:
    for number, line in enumerate(lines.split(b"\n"), first_line):
        if not line.strip():
            continue
        try:
            yield _DECODER.decode(line)
        except msgspec.DecodeError as error:
            yield _decode_leniently(line, number, error)


def _decode_leniently(line: bytes, number: int, reason: msgspec.DecodeError) -> Message:
    where = f"line {number} of the input"
    try:
        message = json.loads(line, parse_float=exact_float)
        found = _TYPES[message["type"]]
    except ValueError as error:
        raise ConnectorError(f"{where} is not valid JSON: {error}: {_shown(line)}") from error
    except (TypeError, KeyError, RecursionError) as error:
        raise ConnectorError(f"{where} is not a message of a known type: {_shown(line)}") from error
    try:
        return msgspec.convert(message, found)
    except msgspec.ValidationError:
        raise ConnectorError(f"{where} is not a valid {message['type']} message: {reason}: {_shown(line)}") from reason


def _shown(line: bytes) -> str:
    return line[:120].decode("utf-8", "replace") + ("…" if len(line) > 120 else "")


def exact_float(text: str) -> float | Decimal:
    """The number as a float where that says the same, else as a Decimal."""
    number = float(text)
    if repr(number) == text:
        return number
    exact = Decimal(text)
    return number if exact == Decimal(repr(number)) else exact


_RECORDS = msgspec.json.Decoder(dict[str, Any])
_EXACT_RECORDS = msgspec.json.Decoder(dict[str, Any], float_hook=exact_float)
# Every number that a float may not hold exactly has 16 digits or more, a decimal point between them or not. Texts may
# look like one, which costs time only. Two passes in C are six times as fast as a regular expression.
_DIGITS = bytes(ord("0") if chr(code) in "0123456789." else ord(" ") for code in range(256))
_LONG_NUMBER = b"0" * 16


def decode_records(records: Sequence[Record], stream: str, first: int) -> list[JSONObject]:
    """The records as dicts. Integers are exact; numbers that no float holds exactly are Decimals.

    Args:
        first: the number of the first record, for errors.

    Raises:
        ConnectorError: a record is no object, or nothing that JSON allows.
    """
    if set(map(type, records)) == {msgspec.Raw}:
        text = b"\n".join(records)  # type: ignore[arg-type]  # Raw has the buffer protocol, which its stub hides
        try:
            return (_EXACT_RECORDS if _LONG_NUMBER in text.translate(_DIGITS) else _RECORDS).decode_lines(text)
        except msgspec.DecodeError:
            pass
    return [_decode_record(record, stream, number) for number, record in enumerate(records, first)]


class KeyCheck:
    """Checks that records have their key, without decoding the rest of them.

    Args:
        keys: the key's columns.
    """

    def __init__(self, stream: str, keys: Sequence[str]) -> None:
        self._stream = stream
        self._keys = list(keys)
        self._decoder: msgspec.json.Decoder[Any] | None = None
        # Other names cannot be those of a struct's fields.
        if all(key and key.isprintable() and '"' not in key and "\\" not in key for key in keys):
            fields = [(f"key_{number}", msgspec.Raw) for number in range(len(self._keys))]
            names = {f"key_{number}": key for number, key in enumerate(self._keys)}
            self._decoder = msgspec.json.Decoder(msgspec.defstruct("Key", fields, rename=names))

    def check(self, records: Sequence[Record], first: int) -> None:
        """Check records, of which the first one has this number.

        Raises:
            ConnectorError: one has no value for a column of the key.
        """
        if not self._keys:
            return
        if self._decoder is not None and set(map(type, records)) == {msgspec.Raw}:
            try:
                self._decoder.decode_lines(b"\n".join(records))  # type: ignore[arg-type]  # see `decode_records`
                return
            except msgspec.DecodeError:
                pass
        require_key(
            [_decode_record(record, self._stream, number) for number, record in enumerate(records, first)],
            self._keys,
            self._stream,
            first,
        )


def require_key(records: Sequence[JSONObject], keys: Sequence[str], stream: str, first: int) -> None:
    """Check that decoded records have their key; see `KeyCheck.check`."""
    for number, record in enumerate(records, first):
        for key in keys:
            if key not in record:
                raise ConnectorError(f"stream {stream!r}, record {number}: the key {key!r} is missing")


def _decode_record(record: Record, stream: str, number: int) -> JSONObject:
    found: Any = record
    if isinstance(record, msgspec.Raw):
        found = json.loads(bytes(record), parse_float=exact_float)
    if not isinstance(found, dict):
        raise ConnectorError(f"stream {stream!r}: record {number} is not an object")
    return found
