"""R's own serialization (XDR, version 2), the format of `saveRDS(compress = FALSE)`, for vectors and lists.

It is how data passes between Streamline and R: exact where CSV is not (NA beside NaN and beside the text "NA", the
last bit of a double, factors, quotes and newlines in text), quick, and read by R itself without any package.
The format: https://cran.r-project.org/doc/manuals/r-release/R-ints.html#Serialization-Formats
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
import numpy as np

Kind = Literal["logical", "integer", "double", "string", "list", "raw"]

NA_INTEGER = -(2**31)
"""R's missing integer, and missing logical."""
NA_REAL_BITS = 0x7FF00000000007A2
"""R's missing double: a NaN with 1954 in its lower half."""

_HEADER = b"X\n" + struct.pack(">iii", 2, 0x00040000, 0x00020300)
_NULL = 254
_SYMBOL, _PAIRLIST, _CHARS = 1, 2, 9
_NA_STRING = struct.pack(">ii", _CHARS, -1)
_TYPES: dict[Kind, int] = {"logical": 10, "integer": 13, "double": 14, "string": 16, "list": 19, "raw": 24}
_KINDS: dict[int, Kind] = {number: kind for kind, number in _TYPES.items()}
_IS_OBJECT, _HAS_ATTRIBUTES, _HAS_TAG = 1 << 8, 1 << 9, 1 << 10
_ASCII, _UTF8, _LATIN1 = 1 << 6, 1 << 3, 1 << 2


class RVector(msgspec.Struct):
    """A vector or list of R.

    Args:
        kind: what its elements are.
        values: `logical` and `integer`: an int32 array, `double`: a float64 array, `raw`: bytes, `string`: a list of
            str (None: missing), `list`: a list of RVectors (None: NULL).
        attributes: such as `names` and `class`.
    """

    kind: Kind
    values: Any
    attributes: dict[str, RVector] = {}

    def words(self, attribute: str) -> list[str]:
        """Return a text attribute's values; empty if there is none."""
        vector = self.attributes.get(attribute)
        return [text or "" for text in vector.values] if vector is not None and vector.kind == "string" else []

    @property
    def classes(self) -> list[str]:
        """Return its S3 classes."""
        return self.words("class")


class NotRdsError(ValueError):
    """The bytes hold what this module does not read."""


def strings(*values: str | None) -> RVector:
    """Return a character vector."""
    return RVector("string", list(values))


def encode(value: RVector | None) -> list[bytes]:
    """Return the bytes that `readRDS` reads, in pieces.

    Raises:
        ValueError: a text holds the character NUL, which R's texts cannot.
    """
    pieces = [_HEADER]
    _write(value, pieces, {})
    return pieces


def decode(data: bytes | memoryview) -> RVector | None:
    """Read what `saveRDS(version = 2, compress = FALSE)` wrote.

    Raises:
        NotRdsError: it has another format, ends too early, or holds more than vectors and lists.
    """
    try:
        return _RDSReader(memoryview(data)).value()
    except (struct.error, IndexError, ValueError) as error:
        raise NotRdsError(f"what R wrote cannot be read: {error}") from error


def _write(value: RVector | None, pieces: list[bytes], symbols: dict[str, int]) -> None:
    if value is None:
        pieces.append(struct.pack(">i", _NULL))
        return
    flags = _TYPES[value.kind]
    if value.attributes:
        flags |= _HAS_ATTRIBUTES | (_IS_OBJECT if "class" in value.attributes else 0)
    pieces.append(struct.pack(">i", flags) + _length(len(value.values)))
    match value.kind:
        case "list":
            for element in value.values:
                _write(element, pieces, symbols)
        case "string":
            pieces.append(_packed(value.values))
        case "raw":
            pieces.append(bytes(value.values))
        case "double":
            pieces.append(value.values.astype(">f8").tobytes())
        case _:
            pieces.append(value.values.astype(">i4").tobytes())
    if value.attributes:
        for name, attribute in value.attributes.items():
            pieces.append(struct.pack(">i", _PAIRLIST | _HAS_TAG))
            if name in symbols:
                pieces.append(struct.pack(">i", (symbols[name] << 8) | 255))
            else:
                symbols[name] = len(symbols) + 1
                pieces.append(struct.pack(">i", _SYMBOL) + _text(name))
            _write(attribute, pieces, symbols)
        pieces.append(struct.pack(">i", _NULL))


def _length(count: int) -> bytes:
    return struct.pack(">i", count) if count < 2**31 else struct.pack(">iII", -1, count >> 32, count & 0xFFFFFFFF)


def _packed(values: Iterable[str | None]) -> bytes:
    known: dict[str | None, bytes] = {None: _NA_STRING}
    parts = []
    for value in values:
        packed = known.get(value)
        if packed is None:
            packed = _text(value or "")
            if len(known) < 100_000:  # enough for what repeats; unbounded it would hold the column twice
                known[value] = packed
        parts.append(packed)
    return b"".join(parts)


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\0" in data:
        raise ValueError("a text holds the character NUL, which R's texts cannot")
    level = _ASCII if value.isascii() else _UTF8
    return struct.pack(">ii", _CHARS | (level << 12), len(data)) + data


class _RDSReader:
    """Reads one value after the other. Symbols that come again are written as references to the first."""

    def __init__(self, data: memoryview) -> None:
        if bytes(data[:2]) != b"X\n":
            raise NotRdsError("what R wrote is not in its binary format")
        version = struct.unpack_from(">i", data, 2)[0]
        if version != 2:
            raise NotRdsError(f"what R wrote has format version {version}")
        self._data = data
        self._at = len(_HEADER)
        self._symbols: list[str] = []

    def value(self) -> RVector | None:
        flags = self._int()
        number = flags & 255
        if number == _NULL:
            return None
        if number not in _KINDS:
            raise NotRdsError(f"what R wrote holds an object of R's internal type {number}")
        kind = _KINDS[number]
        count = self._int()
        if count == -1:
            count = (self._int() << 32) | (self._int() & 0xFFFFFFFF)
        values = self._values(kind, count)
        return RVector(kind, values, self._attributes() if flags & _HAS_ATTRIBUTES else {})

    def _values(self, kind: Kind, count: int) -> Any:
        if kind == "list":
            return [self.value() for _ in range(count)]
        if kind == "string":
            return self._strings(count)
        if kind == "raw":
            return bytes(self._take(count))
        return self._numbers(">f8" if kind == "double" else ">i4", count)

    def _numbers(self, kind: str, count: int) -> np.ndarray[Any, Any]:
        wide = np.dtype(kind)
        return np.frombuffer(self._take(count * wide.itemsize), wide).astype(wide.newbyteorder("="))

    def _strings(self, count: int) -> list[str | None]:
        data, at = self._data, self._at
        known: dict[bytes, str] = {}
        result: list[str | None] = []
        unpack = struct.Struct(">ii").unpack_from
        for _ in range(count):
            flags, length = unpack(data, at)
            at += 8
            if length < 0:
                result.append(None)
                continue
            text = bytes(data[at : at + length])
            at += length
            decoded = known.get(text)
            if decoded is None:
                decoded = text.decode("latin-1" if (flags >> 12) & _LATIN1 else "utf-8", "replace")
                if len(known) < 100_000:
                    known[text] = decoded
            result.append(decoded)
        if at > len(data):
            raise NotRdsError("what R wrote ends too early")
        self._at = at
        return result

    def _attributes(self) -> dict[str, RVector]:
        attributes: dict[str, RVector] = {}
        while (flags := self._int()) & 255 != _NULL:
            if flags & 255 != _PAIRLIST or not flags & _HAS_TAG:
                raise NotRdsError("what R wrote has attributes without names")
            name = self._symbol()
            value = self.value()
            if value is not None:
                attributes[name] = value
        return attributes

    def _symbol(self) -> str:
        flags = self._int()
        if flags & 255 == 255:
            return self._symbols[((flags >> 8) or self._int()) - 1]
        if flags & 255 != _SYMBOL:
            raise NotRdsError("what R wrote has an attribute without a name")
        name = self._strings(1)[0] or ""
        self._symbols.append(name)
        return name

    def _int(self) -> int:
        value: int = struct.unpack_from(">i", self._data, self._at)[0]
        self._at += 4
        return value

    def _take(self, count: int) -> memoryview:
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise NotRdsError("what R wrote ends too early")
        self._at += count
        return part
