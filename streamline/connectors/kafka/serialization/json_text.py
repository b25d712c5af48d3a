"""JSON values: integers of any size and fractions with all their digits, at the speed of the plain parser.

A fraction is a float where the float means the same number, else a `Decimal`. Only a text with sixteen digits and
points in a row can hold a number that a float or a machine integer cannot; such texts are rare, and found by one
translation and one search for all values of a batch.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from json.encoder import encode_basestring_ascii
from typing import Any

import msgspec

from streamline.connectors.kafka.serialization.base import (
    BaseDecoder,
    BaseSerializer,
    UndecodableError,
    UnwritableError,
)
from streamline.flow.codecs import jsontext
from streamline.flow.items import Origin

_DIGITS = bytes(ord("0") if chr(byte) in "0123456789." else ord(" ") for byte in range(256))
_LONG = b"0" * 16
_decode = msgspec.json.Decoder().decode
_decode_exactly = msgspec.json.Decoder(float_hook=jsontext.exact_fraction).decode

# How msgpack begins NaN and the infinities; a false match costs time only.
_NON_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")


class JsonDecoder(BaseDecoder):
    """Reads what Python's own `json` reads, `NaN` included."""

    def decode(self, value: bytes, origin: Origin) -> Any:
        """See `Decoder.decode`."""
        return decode_json(value)

    def decode_batch(self, values: Sequence[bytes | None], origins: Sequence[Origin]) -> list[Any]:
        """See `Decoder.decode_batch`."""
        try:
            if _LONG not in b" ".join(filter(None, values)).translate(_DIGITS):
                return [None if value is None else _decode(value) for value in values]
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            pass
        return [None if value is None else decode_json(value) for value in values]


class JsonSerializer(BaseSerializer):
    """Writes JSON values, and dates, times, decimals, UUIDs, enumerations and NumPy's and pandas' scalars."""

    def encode_data(self, data: Any, topic: str, stream: str, origin: Origin | None) -> bytes:
        """See `BaseSerializer.encode_data`."""
        return encode_json(data)

    def encode_batch(
        self, data: Sequence[Any], topic: str, stream: str, origins: Sequence[Origin | None] | None = None
    ) -> list[bytes | None]:
        """See `Serializer.encode_batch`."""
        try:
            texts: list[bytes | None] = list(map(_encode, data))
        except _UNWRITABLE:
            return [self.encode(item, topic, stream) for item in data]
        for number, text in enumerate(texts):
            item = data[number]
            if type(item) is not dict or (text is not None and b"null" in text and _may_hold_non_finite(item)):
                texts[number] = self.encode(item, topic, stream)
        return texts


def decode_json(value: bytes) -> Any:
    """Return the data of a JSON text.

    Raises:
        UndecodableError: it is not JSON.
    """
    try:
        if _LONG in value.translate(_DIGITS):
            return _decode_exactly(value)
        return _decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    try:
        return jsontext.loads(value)
    except UnicodeDecodeError as error:
        raise UndecodableError(f"it is not JSON: not UTF-8 ({error.reason} at byte {error.start})") from None
    except ValueError as error:
        raise UndecodableError("it is empty" if not value.strip() else f"it is not JSON: {error}") from None
    except RecursionError:
        raise UndecodableError("it is nested too deeply") from None


def encode_json(data: Any) -> bytes:
    """Return the JSON text of data.

    Datetimes are ISO 8601, with the offset that they have.

    Raises:
        UnwritableError: JSON has no word for a value in it: NaN, an infinity, an object of a class.
    """
    try:
        text = _encode(data)
    except _UNWRITABLE:
        return _exactly(data)
    return _exactly(data) if b"null" in text and _may_hold_non_finite(data) else text


def _scalar(value: Any) -> Any:
    """Convert what the encoder does not know: values of NumPy and pandas, mappings and sequences of other classes."""
    kind = type(value)
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if kind.__module__.partition(".")[0] == "numpy":
        converted = value.item() if not getattr(value, "shape", ()) else value.tolist()
        if type(converted) is not kind:
            return converted
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, dt.date | dt.time):  # subclasses, such as pandas.Timestamp
        return re.sub(r"\+00:00$", "Z", value.isoformat())
    raise TypeError(f"a value of type {kind.__module__}.{kind.__qualname__} cannot be represented in JSON")


_encode = msgspec.json.Encoder(decimal_format="number", enc_hook=_scalar).encode
_pack = msgspec.msgpack.Encoder(enc_hook=_scalar).encode
_UNWRITABLE = (TypeError, ValueError, RecursionError, OverflowError)


def _may_hold_non_finite(data: Any) -> bool:
    # msgspec writes NaN and the infinities as null; packing is the fastest look at every float.
    try:
        packed = _pack(data)
    except _UNWRITABLE:
        return True
    return _NON_FINITE.search(packed) is not None


def _exactly(data: Any) -> bytes:
    try:
        return _text(data).encode()
    except TypeError as error:
        raise UnwritableError(str(error)) from None
    except RecursionError:
        raise UnwritableError("it is nested too deeply, or contains itself") from None


def _text(value: Any) -> str:
    """As the encoder writes it, where it can; integers of any size, and lone surrogates, too."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return encode_basestring_ascii(str.__str__(value))
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return format(Decimal(value), "f") if value.bit_length() > 1 << 13 else int.__repr__(value)
    if not (math.isfinite(value) if isinstance(value, float) else not isinstance(value, Decimal) or value.is_finite()):
        raise UnwritableError(f"{value} cannot be represented in JSON")
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, Mapping):
        return "{" + ",".join([f"{_key(key)}:{_text(item)}" for key, item in value.items()]) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, dt.datetime) and value != value:  # pandas.NaT
        return "null"
    try:
        return _encode(value).decode()
    except TypeError:
        converted = _scalar(value)
        return _text(converted)


def _key(key: Any) -> str:
    if isinstance(key, str) and not isinstance(key, Enum):
        return encode_basestring_ascii(key)
    if key is None or isinstance(key, bool):
        return f'"{_text(key)}"'
    text = _encode({key: 0}).decode()
    return text[1:-3]
