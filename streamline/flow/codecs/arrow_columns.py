"""Arrow columns from the JSON values of one property, and the JSON text of Arrow columns.

A column has the type of its schema if its values fit. Otherwise it gets the closest type that represents them: decimals
for integers beyond 64 bits or more digits, timestamps without a zone or with nanoseconds; where there is none of the
same kind, strings for dates in other formats, and JSON text for everything else. Values of the other kind are
`misfits_of` a column, and never in one table with those that fit.

A number that the column's type does not keep as it was sent (a float has 15 to 17 digits) has its text in the field's
metadata, and gets it back when the column is written, unless the block changed it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from streamline.flow.codecs import jsontext
from streamline.flow.codecs.arrow_types import (
    is_json,
    is_text,
    is_textual,
    json_field,
    spellings,
    with_nan,
    with_spellings,
)
from streamline.flow.items import Buffer

_ANY_JSON = msgspec.json.Decoder(msgspec.Raw)
_MANY_DIGITS = 16
"""A float keeps all numbers with fewer digits."""
_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_POINT, _POINT_TO_NINE, _FOUR = ord("."), 12, 0x01010101
_ZERO, _DIGITS, _MINUS, _E, _LOWER = ord("0"), 10, ord("-"), ord("e"), 0x20
_CACHED = 1 << 16
# What Arrow reads; only the calendar can still be wrong.
_DAY = r"^\d{4}-\d\d-\d\d$"
_MOMENT = r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)$"
_TIMESTAMP_LENGTHS = {"ms": 23, "us": 26, "ns": 29}
_YEAR_0, _YEAR_10000 = -62_167_219_200_000_000, 253_402_300_800_000_000  # in microseconds
_INFINITE = float("inf")
_SMALL = 1e-290
"""Floats from here to zero have fewer digits than others, or none."""
_SMALL_NUMBER = re.compile(rb"\d[eE]-\d{3,}[\s,\]}]")
# What must be escaped in a JSON string: besides the first two, control characters.
_ESCAPES = ((b"\\", "\\", "\\\\"), (b'"', '"', '\\"'), (b"\n", "\n", "\\n"), (b"\r", "\r", "\\r"), (b"\t", "\t", "\\t"))


def value_type(field: pa.Field) -> Any:
    """Return the msgspec type that decodes exactly the values of `field` (`Raw` for JSON text)."""
    kind = field.type
    if is_json(field):
        return msgspec.Raw
    if pt.is_boolean(kind):
        return bool | None
    if pt.is_integer(kind):
        return int | None
    if pt.is_floating(kind):
        return float | None
    if pt.is_decimal(kind):
        return str | None if is_text(field) else Decimal | None
    if pt.is_list(kind):
        return list[value_type(kind.value_field)] | None  # type: ignore[misc]
    return str | None


def column(field: pa.Field, values: Sequence[Any]) -> tuple[pa.Field, pa.Array] | None:
    """Return a column of values that msgspec decoded as `value_type(field)`; None if only JSON text represents them."""
    if is_json(field):
        try:
            return field, _json_text([bytes(value) for value in values])
        except pa.ArrowException:  # msgspec does not check that skipped values are UTF-8
            return None
    candidates: Iterable[pa.DataType] = (field.type,)
    from_text = is_text(field)
    source: Any = values
    if pt.is_timestamp(field.type):
        from_text = True
        candidates = (field.type, pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.timestamp("ns"), pa.string())
    elif pt.is_date(field.type):
        from_text = True
        candidates = (field.type, pa.string())
    elif pt.is_integer(field.type):
        candidates = (field.type, pa.decimal128(38, 0), pa.decimal256(76, 0))
    elif pt.is_decimal(field.type):
        candidates = chain((field.type,), _wider_decimals(values))
        if from_text:
            candidates = (field.type, pa.string())
    if from_text:
        try:
            source = pa.array(values, pa.string())
        except (pa.ArrowException, ValueError):  # a lone surrogate
            return None
    for kind in candidates:
        if pt.is_timestamp(kind) and kind.tz is None and _holds_bare_days(source):
            continue  # a day is not a timestamp; it stays text
        try:
            array = source.cast(kind) if from_text else pa.array(source, kind)
        except (pa.ArrowException, OverflowError, ValueError):
            continue
        if pt.is_timestamp(kind) and not _has_years_of_four_digits(array):
            continue  # JSON has no text for it in UTC; it stays as it was sent
        built = field.with_type(kind)
        if pt.is_decimal(kind) and is_text(field):
            respelled = source.filter(pc.not_equal(array.cast(pa.string()), source))
            built = with_spellings(built, respelled.unique().to_pylist()) if len(respelled) else built
        return built, array
    return None


def _holds_bare_days(texts: pa.Array) -> bool:
    shortest = pc.min(pc.binary_length(texts)).as_py()
    return shortest is not None and shortest <= len("2024-05-01")


def _has_years_of_four_digits(moments: pa.Array) -> bool:
    if moments.type.unit != "us":
        return True  # nanoseconds end in 2262
    extremes = pc.min_max(moments.cast(pa.int64())).as_py()
    return extremes["min"] is None or (extremes["min"] >= _YEAR_0 and extremes["max"] < _YEAR_10000)


def column_from_json(field: pa.Field, texts: Sequence[bytes]) -> tuple[pa.Field, pa.Array]:
    """Return a column from the JSON text of each value; JSON text itself if no other type represents them."""
    if is_json(field):
        return field, _json_text(texts)
    joined = b"[" + b",".join(texts) + b"]"
    try:
        values: list[Any] | None = msgspec.json.decode(joined, type=list[value_type(field)])  # type: ignore[misc]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        values = _coerced(field, joined)
        if values is not None and any(value != value for value in values):
            field = with_nan(field)
    long = values is not None and holds_floats(field) and (has_long_numbers(joined) or has_small_numbers(joined))
    built = None if values is None or (long and is_list(field) and _rounds(joined)) else column(field, values)
    if built is None:
        return json_field(field.name), _json_text(texts)
    if long and not is_list(field):
        rounded = [text.decode() for text, value in zip(texts, values or (), strict=True) if _is_rounded(text, value)]
        built = (with_spellings(built[0], dict.fromkeys(rounded)), built[1]) if rounded else built
    return built


def clashes_of(built: pa.Field, array: pa.Array, texts: Sequence[str | None]) -> dict[int, str]:
    """Return numbers, by index, whose text differs from earlier ones that their type considers equal."""
    clashes: dict[int, str] = {}
    if not spellings(built):
        return clashes
    read: Callable[[str], Any] = str if is_text(built) else Decimal
    first: dict[str, Any] = {}
    for place, (stored, text) in enumerate(zip(array.cast(pa.string()).to_pylist(), texts, strict=True)):
        if stored is not None and text is not None:
            sent = read(text)
            if first.setdefault(stored, sent) != sent:
                clashes[place] = str(sent)
    return clashes


def holds_floats(field: pa.Field) -> bool:
    """Return whether the column's values are floats, or lists of them."""
    return bool(pt.is_floating(field.type) or (is_list(field) and pt.is_floating(field.type.value_type)))


def is_list(field: pa.Field) -> bool:
    """Return whether the column's values are lists."""
    return bool(pt.is_list(field.type))


def has_long_numbers(text: Buffer) -> bool:
    """Return whether a JSON text may have a number with so many digits that a float changes it."""
    signs = np.frombuffer(text, np.uint8)
    for start in range(0, len(text), _CACHED):
        part = signs[start : start + _CACHED + _MANY_DIGITS]
        digits = (part[: len(part) // 4 * 4] - _POINT < _POINT_TO_NINE).view(np.uint32) == _FOUR
        # Sixteen digits and a point have three whole words in them.
        if (digits[:-2] & digits[1:-1] & digits[2:]).any():
            return b"0" * _MANY_DIGITS in bytes(text).translate(_TO_ZERO, b".")
    return False


def is_near_zero(array: pa.Array) -> bool:
    """Return whether a float of the column, or of its lists, is zero or so small that it may have lost digits."""
    floats = array.flatten() if pt.is_list(array.type) else array
    smallest = pc.min(pc.abs(floats)).as_py() if pt.is_floating(floats.type) else None
    return smallest is not None and smallest < _SMALL


def has_small_numbers(text: Buffer) -> bool:
    """Return whether a JSON text may have a number that is too small for a float."""
    data: bytes | None = None
    signs = np.frombuffer(text, np.uint8)
    for start in range(0, len(text), _CACHED):
        part = signs[start : start + _CACHED + 2]
        # A digit, an e and a minus. `bytes.find` would stop at every e of the text.
        exponents = (part[2:] == _MINUS) & ((part[1:-1] | _LOWER) == _E)
        if not exponents.any():
            continue
        places = np.flatnonzero(exponents)
        places = places[part[places] - _ZERO < _DIGITS]
        if places.size:
            data = bytes(text) if data is None else data
            if any(_SMALL_NUMBER.match(data, start + place) for place in places.tolist()):
                return True
    return False


def _rounds(joined: bytes) -> bool:
    """Return whether floats change a number of this JSON array."""
    return _has_decimal(jsontext.loads(joined))


def _has_decimal(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_decimal, value))
    return isinstance(value, Decimal) or (isinstance(value, int) and float(value) != value)


def _is_rounded(text: bytes, value: float | None) -> bool:
    if value is None or value != value or abs(value) == _INFINITE:
        return False
    if len(text) < _MANY_DIGITS and abs(value) >= _SMALL:
        return False
    return Decimal(repr(value)) != Decimal(text.decode())


def same_kind(built: pa.Field, declared: pa.Field) -> bool:
    """Return whether a column's type is the declared one, or a wider one of the same kind."""
    if built.type == declared.type:
        return is_json(built) == is_json(declared)
    if pt.is_decimal(built.type):
        return True
    return bool(pt.is_timestamp(built.type))  # without a zone: no other value has one


def is_mixed(built: pa.Field, array: pa.Array, declared: pa.Field) -> bool:
    """Return whether a column has values that fit its declared type beside those that gave it one of another kind."""
    if same_kind(built, declared):
        return False
    spelling = _spelling_of(declared)
    if spelling is None or is_json(built):
        return True
    return bool(pc.any(pc.match_substring_regex(array, spelling)).as_py())


def _spelling_of(field: pa.Field) -> str | None:
    if pt.is_timestamp(field.type):
        return _MOMENT
    return _DAY if pt.is_date(field.type) else None


def misfits_of(field: pa.Field, texts: Sequence[bytes]) -> set[int]:
    """Return the places of the values that the column's type does not hold."""
    decoder = msgspec.json.Decoder(value_type(field))
    spelling = re.compile(_spelling_of(field) or "")
    misfits: set[int] = set()
    places: list[int] = []
    for place, text in enumerate(texts):
        try:
            value = decoder.decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            fits = _coerced(field, b"[" + text + b"]") is not None
        else:
            fits = not isinstance(value, str) or spelling.search(value) is not None
        if fits:
            places.append(place)
        else:
            misfits.add(place)

    def search(part: Sequence[int]) -> None:
        if not part or same_kind(column_from_json(field, [texts[place] for place in part])[0], field):
            return
        if len(part) == 1:
            misfits.update(part)
            return
        search(part[: len(part) // 2])
        search(part[len(part) // 2 :])

    search(places)
    return misfits


def _coerced(field: pa.Field, joined: bytes) -> list[Any] | None:
    """Return values that msgspec rejects but the column can hold: NaN, and integers written as 1.0."""
    values: list[Any] = jsontext.loads(joined)
    kinds = set(map(type, values)) - {type(None)}
    if pt.is_floating(field.type) and kinds <= {int, float}:
        return [value if value is None else float(value) for value in values]
    whole = all(type(value) is not float or value.is_integer() for value in values)
    if pt.is_integer(field.type) and kinds <= {int, float} and whole:
        return [value if value is None else int(value) for value in values]
    return None


def _json_text(texts: Sequence[bytes]) -> pa.Array:
    return pa.array([None if text == b"null" else text for text in texts], pa.binary()).cast(pa.string())


def text_column(field: pa.Field, array: pa.Array) -> pa.Array:
    """Return the JSON text of each value of `array`, null for null, as strings.

    Args:
        field: how the values are written: its marks, and whether timestamps without a zone stay without (if its type
            is one) or are UTC.
        array: the values, of any type.

    Raises:
        TypeError: a type that cannot be written as JSON.
    """
    kind = array.type
    if pt.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if pt.is_null(kind):
        return pa.nulls(len(array), pa.string())
    if is_textual(kind):
        array = array.cast(pa.string())
        return _checked_json(array) if is_json(field) else _quoted(_escaped(array))
    if pt.is_float16(kind):
        array = array.cast(pa.float32())
    if pt.is_floating(kind):
        text = array.cast(pa.string())
        if pc.all(pc.is_finite(array)).as_py() is False:
            for arrow_word, json_word in (("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity")):
                text = pc.if_else(pc.equal(text, arrow_word), json_word, text)
        text = _as_spelled(field, kind, text)
        if pc.any(pc.equal(text, "-0")).as_py():  # which would be read as an integer, without its sign
            text = pc.if_else(pc.equal(text, "-0"), "-0.0", text)
        return text
    if pt.is_integer(kind) or pt.is_boolean(kind):
        return array.cast(pa.string())
    if pt.is_decimal(kind):
        text = array.cast(pa.string())
        return _quoted(_as_spelled(field, kind, text)) if is_text(field) else text
    if pt.is_timestamp(kind):
        return _timestamps(field, array)
    if pt.is_date(kind):
        return _quoted(array.cast(pa.date32()).cast(pa.string()))
    if pt.is_time(kind) and kind.unit == "ns":
        try:
            array = array.cast(pa.time64("us"))
        except pa.ArrowInvalid:  # Python's times have six digits
            return _quoted(array.cast(pa.string()))
    return _encoded(array.to_pylist())


def _wider_decimals(values: Sequence[Decimal | None]) -> Iterator[pa.DataType]:
    exponents = {value.as_tuple().exponent for value in values if value is not None}
    scale = max((-exponent for exponent in exponents if isinstance(exponent, int)), default=0)
    if 0 <= scale <= 38:
        yield pa.decimal128(38, scale)
    if 0 <= scale <= 76:
        yield pa.decimal256(76, scale)


def _as_spelled(field: pa.Field, kind: pa.DataType, text: pa.Array) -> pa.Array:
    """Return numbers with the text that was sent, where their type loses part of it."""
    if kind != field.type or not (sent := spellings(field)):
        return text
    texts = pa.array(sent, pa.string())
    place = pc.index_in(text, value_set=texts.cast(kind).cast(pa.string()))
    return pc.if_else(pc.is_valid(place), texts.take(place), text)


def _timestamps(field: pa.Field, array: pa.Array) -> pa.Array:
    kind = array.type
    if kind.unit == "s":
        array = array.cast(pa.timestamp("ms", kind.tz))
    if kind.tz is not None:  # the same instants in UTC; casting zoned timestamps to text is forty times slower
        array = array.cast(pa.timestamp(array.type.unit))
    text = array.cast(pa.string())
    if pc.max(pc.binary_length(text)).as_py() == _TIMESTAMP_LENGTHS[array.type.unit]:
        text = pc.binary_replace_slice(text, 10, 11, "T")
    else:  # a year with a sign, or of five digits
        text = pc.replace_substring(text, " ", "T", max_replacements=1)
    stays_without_zone = pt.is_timestamp(field.type) and field.type.tz is None
    closing = '"' if kind.tz is None and stays_without_zone else 'Z"'
    return pc.binary_join_element_wise('"', text, closing, "")


def _quoted(array: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('"', array, '"', "")


def _escaped(array: pa.Array) -> pa.Array:
    """Escape strings for JSON, without the quotes."""
    data = array.buffers()[2]
    if data is None or data.size == 0:
        return array
    text = data.to_pybytes()
    lowest = pc.min(pa.Array.from_buffers(pa.uint8(), data.size, [None, data])).as_py()
    if lowest >= 0x20 and b'"' not in text and b"\\" not in text:
        return array
    if lowest < 0x20 and text.translate(None, b"\n\r\t") != text.translate(None, bytes(range(0x20))):
        quoted = _encoded(array.to_pylist())
        return pc.utf8_slice_codeunits(quoted, 1, -1)
    for byte, pattern, replacement in _ESCAPES:
        if byte in text:
            array = pc.replace_substring(array, pattern, replacement)
    return array


def _encoded(values: list[Any]) -> pa.Array:
    """Return the JSON text of each Python value; null for None."""
    texts = [None if value is None else jsontext.dumps(value) for value in values]
    return pa.array(texts, pa.binary()).cast(pa.string())


def _checked_json(array: pa.Array) -> pa.Array:
    """Return JSON text unchanged; text that is not JSON (a block may have written anything) as a JSON string."""
    values = array.to_pylist()
    try:
        for value in values:
            if value is not None:
                _ANY_JSON.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return pa.array([None if value is None else _as_json(value) for value in values], pa.string())
    data = array.buffers()[2]
    if data is not None and b"\n" in data.to_pybytes():
        return pa.array([None if value is None else _as_json(value) for value in values], pa.string())
    return array


def _as_json(text: str) -> str:
    try:
        value = jsontext.loads(text)
    except (ValueError, RecursionError):
        return jsontext.dumps(text).decode()
    # Newlines between its tokens would end the message's line.
    return jsontext.dumps(value).decode() if "\n" in text or "\r" in text else text
