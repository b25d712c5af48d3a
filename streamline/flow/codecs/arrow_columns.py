"""Arrow columns from the JSON values of one property, and the JSON text of Arrow columns.

A column has the type of its schema if its values fit. Otherwise it gets, for this batch, the closest type that
represents them exactly: decimals for integers beyond 64 bits, timestamps without a zone or with nanoseconds, strings
for dates in other formats, and JSON text for everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.flow.codecs import jsontext
from streamline.flow.codecs.arrow_types import NAN_MARK, is_json, is_text, json_field

if TYPE_CHECKING:
    import pyarrow as pa

_ANY_JSON = msgspec.json.Decoder(msgspec.Raw)
_LARGEST_EXACT = 2.0**53
_INFINITE = float("inf")
# What must be escaped in a JSON string: besides the first two, control characters.
_ESCAPES = ((b"\\", "\\", "\\\\"), (b'"', '"', '\\"'), (b"\n", "\n", "\\n"), (b"\r", "\r", "\\r"), (b"\t", "\t", "\\t"))


def value_type(field: pa.Field) -> Any:
    """The msgspec type that decodes exactly the values of `field` (`Raw` for JSON text)."""
    import pyarrow.types as pt

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
    """A column of values that msgspec decoded as `value_type(field)`; None if only JSON text represents them."""
    import pyarrow as pa
    import pyarrow.types as pt

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
        scale = field.type.scale
        candidates = (
            field.type,
            pa.decimal128(38, max(18, scale)) if scale < 38 else field.type,
            pa.decimal256(76, 38),
        )
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
        return field.with_type(kind), array
    return None


def _holds_bare_days(texts: pa.Array) -> bool:
    import pyarrow.compute as pc

    shortest = pc.min(pc.binary_length(texts)).as_py()
    return shortest is not None and shortest <= len("2024-05-01")


def column_from_json(field: pa.Field, texts: Sequence[bytes]) -> tuple[pa.Field, pa.Array]:
    """A column from the JSON text of each value; JSON text itself if no other type represents them."""
    if not is_json(field):
        joined = b"[" + b",".join(texts) + b"]"
        try:
            values: list[Any] | None = msgspec.json.decode(joined, type=list[value_type(field)])  # type: ignore[misc]
        except (msgspec.MsgspecError, ValueError):
            values = _coerced(field, joined)
            if values is not None and any(value != value for value in values):
                field = field.with_metadata(NAN_MARK)
        if values is not None and rounds_integers(field, values) and (exact := _exact_numbers(joined)) is not None:
            return _decimals(field, exact) or (json_field(field.name), _json_text(texts))
        built = None if values is None else column(field, values)
        if built is not None:
            return built
    return json_field(field.name), _json_text(texts)


def misfits_of(field: pa.Field, texts: Sequence[bytes], *, most: int) -> list[int]:
    """The numbers of the values that make a column JSON text; empty if they are more than `most`."""
    found: list[int] = []

    def search(first: int, end: int) -> None:
        if len(found) > most or not is_json(column_from_json(field, texts[first:end])[0]):
            return
        if end - first == 1:
            found.append(first)
            return
        middle = (first + end) // 2
        search(first, middle)
        search(middle, end)

    search(0, len(texts))
    return found if len(found) <= most else []


def rounds_integers(field: pa.Field, values: Sequence[Any]) -> bool:
    """Whether a column of floats has numbers so large that they may have been rounded."""
    import pyarrow.types as pt

    if not pt.is_floating(field.type):
        return False
    return any(value is not None and abs(value) >= _LARGEST_EXACT and value != _INFINITE for value in values)


def _exact_numbers(joined: bytes) -> list[Any] | None:
    """The numbers, if some are integers that a float would change; None if floats represent all of them."""
    values: list[Any] = jsontext.loads(joined, decimals=True)
    if not any(isinstance(value, int) and float(value) != value for value in values):
        return None
    return values


def _decimals(field: pa.Field, values: Sequence[Any]) -> tuple[pa.Field, pa.Array] | None:
    """Numbers as decimals, digit for digit; None if no decimal type represents them as they were written."""
    import pyarrow as pa

    if any(isinstance(value, float) for value in values):  # NaN, infinity
        return None
    if any(isinstance(value, Decimal) and abs(value) >= _LARGEST_EXACT for value in values):
        return None  # 1e300 would be written with 300 digits
    numbers = [None if value is None else Decimal(value) for value in values]
    scale = max((-int(number.as_tuple().exponent) for number in numbers if number is not None), default=0)
    for kind, most in ((pa.decimal128, 38), (pa.decimal256, 76)):
        try:
            return field.with_type(kind(most, max(scale, 0))), pa.array(numbers, kind(most, max(scale, 0)))
        except (pa.ArrowException, ValueError):
            continue
    return None


def _coerced(field: pa.Field, joined: bytes) -> list[Any] | None:
    """Values that msgspec rejects although the column can have them: NaN, and integers written as 1.0."""
    import pyarrow.types as pt

    values: list[Any] = jsontext.loads(joined)
    kinds = set(map(type, values)) - {type(None)}
    if pt.is_floating(field.type) and kinds <= {int, float}:
        return [value if value is None else float(value) for value in values]
    whole = all(type(value) is not float or value.is_integer() for value in values)
    if pt.is_integer(field.type) and kinds <= {int, float} and whole:
        return [value if value is None else int(value) for value in values]
    return None


def _json_text(texts: Sequence[bytes]) -> pa.Array:
    import pyarrow as pa

    return pa.array([None if text == b"null" else text for text in texts], pa.binary()).cast(pa.string())


def text_column(field: pa.Field, array: pa.Array) -> pa.Array:
    """The JSON text of each value of `array`, null for null, as strings.

    Args:
        field: how the values are written: its marks, and whether timestamps without a zone stay without (if its type
            is one) or are UTC.
        array: the values, of any type.

    Raises:
        TypeError: a type that cannot be written as JSON.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    kind = array.type
    if pt.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if pt.is_null(kind):
        return pa.nulls(len(array), pa.string())
    if pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind):
        array = array.cast(pa.string())
        return _checked_json(array) if is_json(field) else _quoted(_escaped(array))
    if pt.is_float16(kind):
        array = array.cast(pa.float32())
    if pt.is_floating(kind):
        text = array.cast(pa.string())
        if pc.all(pc.is_finite(array)).as_py() is False:
            for arrow_word, json_word in (("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity")):
                text = pc.if_else(pc.equal(text, arrow_word), json_word, text)
        return text
    if pt.is_integer(kind) or pt.is_boolean(kind):
        return array.cast(pa.string())
    if pt.is_decimal(kind):
        return _quoted(array.cast(pa.string())) if is_text(field) else array.cast(pa.string())
    if pt.is_timestamp(kind):
        return _timestamps(field, array)
    if pt.is_date(kind):
        return _quoted(array.cast(pa.date32()).cast(pa.string()))
    return _encoded(array.to_pylist())


def _timestamps(field: pa.Field, array: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    kind = array.type
    if kind.unit == "s":
        array = array.cast(pa.timestamp("ms", kind.tz))
    if kind.tz is not None:  # the same instants in UTC; casting zoned timestamps to text is forty times slower
        array = array.cast(pa.timestamp(array.type.unit))
    text = pc.binary_replace_slice(array.cast(pa.string()), 10, 11, "T")
    stays_without_zone = pt.is_timestamp(field.type) and field.type.tz is None
    closing = '"' if kind.tz is None and stays_without_zone else 'Z"'
    return pc.binary_join_element_wise('"', text, closing, "")


def _quoted(array: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.binary_join_element_wise('"', array, '"', "")


def _escaped(array: pa.Array) -> pa.Array:
    """Strings escaped for JSON, without the quotes."""
    import pyarrow as pa
    import pyarrow.compute as pc

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
    """JSON text of each Python value; null for None."""
    import pyarrow as pa

    texts = [None if value is None else jsontext.dumps(value) for value in values]
    return pa.array(texts, pa.binary()).cast(pa.string())


def _checked_json(array: pa.Array) -> pa.Array:
    """JSON text unchanged; text that is not JSON (a block may have written anything) as a JSON string."""
    import pyarrow as pa

    values = array.to_pylist()
    try:
        for value in values:
            if value is not None:
                _ANY_JSON.decode(value)
    except (msgspec.MsgspecError, ValueError):
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
