"""Singer messages as a target reads them: decoded in chunks, records left as bytes until they are needed."""

from __future__ import annotations

import json
import re
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
    time_extracted: Any = None


class SchemaMessage(msgspec.Struct, tag="SCHEMA", tag_field="type"):
    """The shape and key of the rows that follow."""

    stream: str
    schema: JSONObject
    key_properties: list[str] | None = None


class StateMessage(msgspec.Struct, tag="STATE", tag_field="type"):
    """A position: everything before it was sent."""

    value: Any


class ActivateMessage(msgspec.Struct, tag="ACTIVATE_VERSION", tag_field="type"):
    """Rows of other versions are stale from here on; with `keep_old`, which is Streamline's, they stay."""

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
    """Return the messages of whole lines.

    Raises:
        ConnectorError: a line is no message, or has a key twice, so that another reader may see another message; it is
            named by its number.
    """
    try:
        messages = _DECODER.decode_lines(lines)
    except msgspec.DecodeError:
        return list(_decode_one_by_one(lines, first_line))
    if _has_only_known_keys(lines, messages):
        return messages
    return list(_decode_one_by_one(lines, first_line))


def _has_only_known_keys(lines: bytes, messages: Sequence[Message]) -> bool:
    """Return whether the lines hold no key but those of the messages, each once; False where that is not certain.

    A key that is there twice adds quotes to those that the messages need, whatever its value is.
    """
    needed = 0
    values: list[Any] = []
    for message in messages:
        if type(message) is RawRecordMessage:
            values.append(message.record)
            needed += 10
            if message.version is not None:
                needed += 2
            if message.time_extracted is not None:
                if type(message.time_extracted) is not str or '"' in message.time_extracted:
                    return False
                needed += 4
        elif type(message) is _RawState:
            values.append(message.value)
            needed += 6
        else:
            return False
    streams = {message.stream for message in messages if type(message) is RawRecordMessage}
    if any('"' in stream for stream in streams):
        return False
    return lines.count(b'"') == needed + b"\n".join(values).count(b'"')


_plain: set[tuple[bytes, bytes]] = set()
"""What stands before and after the record in lines that have no key twice."""
_PLAIN = 1000


def _require_each_key_once(line: bytes, number: int, message: Message) -> None:
    around = None
    if isinstance(message, RawRecordMessage):
        before, record, after = line.partition(bytes(message.record))
        # Its quotes tell that it is no part of a text.
        around = (before, after) if record.startswith(b'{"') else None
        if around in _plain or _has_only_known_keys(line, [message]):
            return
    try:
        members = json.loads(line, object_pairs_hook=list, parse_int=str)
    except RecursionError as error:
        raise ConnectorError(f"line {number} of the input is nested too deep: {_shown(line)}") from error
    keys = [name for name, _ in members]
    if len(set(keys)) < len(keys):
        twice = next(name for name in keys if keys.count(name) > 1)
        raise ConnectorError(f"line {number} of the input has the key {twice!r} twice: {_shown(line)}")
    if around is not None and len(_plain) < _PLAIN:
        _plain.add(around)


def _decode_one_by_one(lines: bytes, first_line: int) -> Iterator[Message]:
    for number, line in enumerate(lines.split(b"\n"), first_line):
        if not line.strip():
            continue
        try:
            message: Message = _DECODER.decode(line)
        except msgspec.DecodeError as error:
            message = _decode_leniently(line, number, error)
        _require_each_key_once(line, number, message)
        yield message


def _decode_leniently(line: bytes, number: int, reason: msgspec.DecodeError) -> Message:
    where = f"line {number} of the input"
    try:
        message = json.loads(line, parse_float=exact_float, parse_int=_exact_integer)
        message_type = _TYPES[message["type"]]
    except ValueError as error:
        raise ConnectorError(f"{where} is not valid JSON: {error}: {_shown(line)}") from error
    except (TypeError, KeyError, RecursionError) as error:
        raise ConnectorError(f"{where} is not a message of a known type: {_shown(line)}") from error
    try:
        return msgspec.convert(message, message_type)
    except msgspec.ValidationError:
        raise ConnectorError(f"{where} is not a valid {message['type']} message: {reason}: {_shown(line)}") from reason


def _shown(line: bytes) -> str:
    return line[:120].decode("utf-8", "replace") + ("…" if len(line) > 120 else "")


def exact_float(text: str) -> float | Decimal:
    """Return the number as a float if that is exact, else as a Decimal."""
    number = float(text)
    if repr(number) == text:
        return number
    exact = Decimal(text)
    return number if exact == Decimal(repr(number)) else exact


def _exact_integer(text: str) -> int | Decimal:
    """Return an integer of any size; a Decimal where Python does not convert so many digits."""
    return int(text) if len(text) <= _MAX_DIGITS else Decimal(text)


_MAX_DIGITS = 4300
_RECORDS = msgspec.json.Decoder(dict[str, Any])
_EXACT_RECORDS = msgspec.json.Decoder(dict[str, Any], float_hook=exact_float)
# A number that a float may not hold exactly has 16 digits or more, a decimal point between them or not, or a negative
# exponent of three digits or more. Texts may look like one, which costs time only. Passes in C are six times as fast as
# a regular expression for numbers.
_SIGNS = bytes.maketrans(b"123456789.E,]}\t\r\n", b"0000000000e" + b" " * 6)
_LONG_NUMBER = b"0" * 16
_SMALL_NUMBER = re.compile(rb"0e-000+ ")


def decode_records(records: Sequence[Record], stream: str, first: int) -> list[JSONObject]:
    """Return the records as dicts. Integers are exact; numbers that no float holds exactly are Decimals.

    Args:
        first: the number of the first record, for errors.

    Raises:
        ConnectorError: a record is no object, or nothing that JSON allows.
    """
    if set(map(type, records)) == {msgspec.Raw}:
        text = b"\n".join(records)  # type: ignore[arg-type]  # Raw has the buffer protocol, which its stub hides
        try:
            return (_EXACT_RECORDS if _may_need_decimals(text) else _RECORDS).decode_lines(text)
        except (msgspec.DecodeError, ValueError):
            # The latter: Python does not read an integer of more than 4,300 digits.
            pass
    return [_decode_record(record, stream, number) for number, record in enumerate(records, first)]


def _may_need_decimals(text: bytes) -> bool:
    signs = text.translate(_SIGNS)
    return _LONG_NUMBER in signs or _SMALL_NUMBER.search(signs) is not None


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
    decoded: Any = record
    if isinstance(record, msgspec.Raw):
        decoded = json.loads(bytes(record), parse_float=exact_float, parse_int=_exact_integer)
    if not isinstance(decoded, dict):
        raise ConnectorError(f"stream {stream!r}: record {number} is not an object")
    return decoded
