"""Rows of Python values to Arrow and back, as database drivers need it."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import pyarrow as pa

T = TypeVar("T")
Reading = tuple[pa.DataType | None, Callable[[Any], Any] | None]
"""How a column is read: its type (None: what its values are), and what makes values of that type of the driver's."""

INT64 = range(-(2**63), 2**63)
CHUNK = 50_000
"""Rows that are converted at a time."""


def json_type() -> pa.DataType:
    """Arrow's type for JSON text; plain text where this pyarrow has none."""
    return pa.json_() if hasattr(pa, "json_") else pa.string()


def uuid_type() -> pa.DataType:
    """Arrow's type for UUIDs; text where this pyarrow has none."""
    return pa.uuid() if hasattr(pa, "uuid") else pa.string()


def is_json(kind: pa.DataType) -> bool:
    """Return whether it is Arrow's type for JSON text."""
    return getattr(kind, "extension_name", None) == "arrow.json"


def is_uuid(kind: pa.DataType) -> bool:
    """Return whether it is Arrow's type for UUIDs."""
    return getattr(kind, "extension_name", None) == "arrow.uuid"


def is_text(kind: pa.DataType) -> bool:
    """Return whether it is any of Arrow's types for text."""
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or (hasattr(pa.types, "is_string_view") and pa.types.is_string_view(kind))
    )


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether it is any of Arrow's types for bytes."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or (hasattr(pa.types, "is_binary_view") and pa.types.is_binary_view(kind))
    )


def is_list(kind: pa.DataType) -> bool:
    """Return whether it is any of Arrow's types for lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def first_fit(kind: pa.DataType, choices: Iterable[tuple[T, Callable[[pa.DataType], bool]]], default: T) -> T:
    """Return the first choice whose test accepts the type."""
    return next((choice for choice, fits in choices if fits(kind)), default)


def column_of(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    """Return a column of Python values.

    Args:
        kind: its type; None, or one that a value does not fit: what all of the values fit, text at last.
    """
    if kind is not None:
        try:
            if is_uuid(kind):
                return pa.array(
                    [None if value is None else _uuid_bytes(value) for value in values], pa.binary(16)
                ).cast(kind)
            if is_json(kind):
                return pa.array(values, pa.string()).cast(kind)
            return pa.array(values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, ValueError):
            pass
    return _inferred(values)


def _uuid_bytes(value: Any) -> bytes:
    return value.bytes if isinstance(value, uuid.UUID) else uuid.UUID(str(value)).bytes


def _inferred(values: Sequence[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    try:
        if kinds == {decimal.Decimal} or kinds == {decimal.Decimal, int}:
            return _decimals(values)
        if kinds == {int} and any(value is not None and value not in INT64 for value in values):
            return _integers(values)
        if kinds == {uuid.UUID}:
            return column_of(values, uuid_type())
        if kinds == {int, float}:
            return pa.array([None if value is None else float(value) for value in values], pa.float64())
        if kinds and kinds <= {bytes, bytearray, memoryview}:
            return pa.array([None if value is None else bytes(value) for value in values], pa.binary())
        if len(kinds) <= 1:
            return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, ValueError):
        pass
    return pa.array([None if value is None else as_text(value) for value in values], pa.string())


def _integers(values: Sequence[Any]) -> pa.Array:
    if all(value is None or 0 <= value < 2**64 for value in values):
        return pa.array(values, pa.uint64())
    return _decimals([None if value is None else decimal.Decimal(value) for value in values])


def _decimals(values: Sequence[Any]) -> pa.Array:
    """Return decimals as narrow as the values allow; floats if one is NaN or infinite, which decimals cannot be."""
    if any(value is not None and not decimal.Decimal(value).is_finite() for value in values):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    digits = scale = 0
    for value in values:
        if value is None:
            continue
        _, number, exponent = decimal.Decimal(value).as_tuple()
        assert isinstance(exponent, int)
        scale = max(scale, -exponent)
        digits = max(digits, len(number) + exponent)
    precision = max(1, digits + scale)
    if precision > 76:
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    with decimal.localcontext() as context:
        context.prec = 100
        kind = pa.decimal128(max(precision, 18), scale) if precision <= 38 else pa.decimal256(precision, scale)
        return pa.array([None if value is None else decimal.Decimal(value) for value in values], kind)


def as_text(value: Any) -> str:
    """Return a value that has no type of its own in Arrow, as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list | tuple):
        return json_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode(errors="replace")
    return str(value)


def json_text(value: Any) -> str:
    """Return a nested Arrow value as JSON: decimals as numbers, times in ISO 8601, bytes as text."""
    return json.dumps(_jsonable(value), ensure_ascii=False)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return as_text(value)


def in_microseconds(column: pa.Array) -> pa.Array:
    """Return a column without a dictionary; times and durations in microseconds, moments with a zone in UTC."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz and "UTC"), safe=False)
    if pa.types.is_duration(kind):
        return column.cast(pa.duration("us"), safe=False)
    return column.cast(pa.time64("us"), safe=False) if pa.types.is_time(kind) else column


def in_python(column: pa.Array) -> list[Any]:
    """Return the values of a column as most drivers take them: UUIDs as text, nested values as JSON."""
    column = in_microseconds(column)
    values: list[Any] = column.to_pylist()
    if is_uuid(column.type):
        return [None if value is None else str(value) for value in values]
    if pa.types.is_nested(column.type) and not is_json(column.type):
        return [None if value is None else json_text(value) for value in values]
    return values


def table_of_rows(
    names: Sequence[Any], rows: Iterable[Sequence[Any]], readings: Sequence[Reading] | None = None
) -> pa.Table:
    """Convert rows to a table, a chunk at a time, so that the Python values of few are alive at once.

    Args:
        readings: how each column is read. Where chunks differ, a column gets the type that holds all of them; a
            ValueError or TypeError of a converter leaves the values as they are.
    """
    readings = readings or [(None, None)] * len(names)
    columns: list[list[pa.Array]] = [[] for _ in names]
    for some in _chunks(rows, CHUNK):
        for column, values, reading in zip(columns, zip(*some, strict=True), readings, strict=True):
            column.append(_converted(values, *reading))
    arrays = [
        _joined(parts, kind) if parts else pa.chunked_array([], kind or pa.null())
        for parts, (kind, _) in zip(columns, readings, strict=True)
    ]
    return pa.table(arrays, names=unique_names(names))


def _converted(values: Sequence[Any], kind: pa.DataType | None, converter: Callable[[Any], Any] | None) -> pa.Array:
    if converter is None:
        return column_of(values, kind)
    try:
        return column_of([None if value is None else converter(value) for value in values], kind)
    except (ValueError, TypeError, ArithmeticError):
        return column_of(values, None)


def _chunks(rows: Iterable[Sequence[Any]], size: int) -> Iterator[list[Sequence[Any]]]:
    some: list[Sequence[Any]] = []
    for row in rows:
        some.append(row)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def _joined(parts: list[pa.Array], wanted: pa.DataType | None) -> pa.ChunkedArray:
    kinds = {part.type for part in parts if not pa.types.is_null(part.type)}
    if not kinds:
        return pa.chunked_array(parts, wanted if wanted is not None and parts[0].type == wanted else pa.null())
    if len(kinds) == 1:
        kind = kinds.pop()
        return pa.chunked_array([part if part.type == kind else part.cast(kind) for part in parts], kind)
    return _joined([column_of([value for part in parts for value in part.to_pylist()], None)], None)


def retyped(
    data: pa.Table | pa.RecordBatchReader, change: Callable[[pa.DataType], pa.DataType]
) -> pa.Table | pa.RecordBatchReader:
    """Return the data with each column's type changed; itself where none changes."""
    schema = pa.schema([field.with_type(change(field.type)) for field in data.schema])
    if schema.types == data.schema.types:
        return data
    if isinstance(data, pa.Table):
        return data.cast(schema)
    return pa.RecordBatchReader.from_batches(
        schema,
        (
            pa.RecordBatch.from_arrays([c.cast(f.type) for c, f in zip(b.columns, schema, strict=True)], schema=schema)
            for b in data
        ),
    )


def batches_of(data: pa.Table | pa.RecordBatchReader, size: int = CHUNK) -> Iterator[pa.RecordBatch]:
    """Return the data in pieces of at most `size` rows."""
    pieces = data.to_batches(max_chunksize=size) if isinstance(data, pa.Table) else data
    for piece in pieces:
        for start in range(0, piece.num_rows, size):
            yield piece.slice(start, size)


def unique_names(names: Sequence[Any]) -> list[str]:
    """Return `names` with repeated names numbered: a table cannot have two columns of one name."""
    taken: set[str] = {str(name) for name in names}
    seen: set[str] = set()
    result = []
    for original in map(str, names):
        name, number = original, 1
        if name in seen:
            while name in taken:
                name = f"{original}_{number}"
                number += 1
        taken.add(name)
        seen.add(name)
        result.append(name)
    return result
