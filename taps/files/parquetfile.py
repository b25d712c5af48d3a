"""Parquet: the file's own types."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.connector import ConnectorError, log

from .kinds import join
from .reading import BLOCK_ROWS, Block
from .sources import Source

if TYPE_CHECKING:
    import pyarrow as pa


def read(source: Source, path: Path, properties: dict[str, Any], *, everything: bool) -> Iterator[Block]:
    """Yield rows of a file with the columns that the properties name; all columns if `everything` is set.

    Raises:
        ConnectorError: the file is broken, or has none of the columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if everything or name in properties]
            if not any(name in properties for name in names):
                has = ", ".join(file.schema_arrow.names)
                raise ConnectorError(f"{path}: none of the columns {', '.join(properties)}", f"it has {has}")
            line = 1
            lost = 0
            for batch in file.iter_batches(BLOCK_ROWS, columns=names):
                kinds: dict[str, set[str]] = {}
                columns: list[list[Any]] = []
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    values, count = _values(column)
                    lost += count
                    columns.append(values)
                    kinds[name] = {_kind(column.type)} | ({"null"} if column.null_count or count else set())
                rows = [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]
                yield Block(rows, kinds, list(range(line, line + len(rows))))
                line += len(rows)
    except (pa.ArrowException, OSError) as error:
        raise ConnectorError(f"{path}: {error}") from error
    if lost:
        log("WARNING", f"{path}: {lost} values are NaN or infinite, which JSON cannot represent; they are sent as null")


def infer(source: Source, path: Path, limit: int, kinds_by_column: dict[str, set[str]]) -> int:
    """Add the kinds of the file's columns to what was found; all rows have them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for field in file.schema_arrow:
                kinds_by_column.setdefault(field.name, set()).add(_kind(field.type))
            return int(file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise ConnectorError(f"{path}: {error}") from error


def settle(kinds: set[str]) -> set[str]:
    """Return the kinds of a column, from all files."""
    return set(join(kinds))


def _kind(type_: pa.DataType) -> str:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(type_):
        return _kind(type_.value_type)
    tests = (
        (types.is_boolean, "boolean"),
        (types.is_integer, "integer"),
        (types.is_duration, "integer"),
        (types.is_floating, "number"),
        (types.is_decimal, "number"),
        (types.is_date, "date"),
        (types.is_timestamp, "date-time"),
        (types.is_struct, "object"),
        (types.is_list, "array"),
        (types.is_large_list, "array"),
        (types.is_fixed_size_list, "array"),
        (types.is_map, "array"),
        (types.is_binary, "base64"),
        (types.is_large_binary, "base64"),
        (types.is_fixed_size_binary, "base64"),
        (types.is_null, "null"),
    )
    return next((kind for test, kind in tests if test(type_)), "string")


def _values(column: pa.Array) -> tuple[list[Any], int]:
    """Return JSON values, and how many floats JSON cannot represent."""
    import pyarrow as pa
    import pyarrow.compute as pc

    type_ = column.type
    if pa.types.is_dictionary(type_):
        return _values(column.dictionary_decode())
    if pa.types.is_floating(type_):
        good = pc.is_finite(column)
        lost = len(column) - column.null_count - (pc.sum(good).as_py() or 0)
        if lost:
            column = pc.if_else(good, column, pa.scalar(None, type_))
        return column.to_pylist(), lost
    if pa.types.is_timestamp(type_):
        # Text is made here, where nanoseconds survive; a moment without a zone is taken as UTC.
        moments = column.cast(pa.timestamp(type_.unit, "UTC"))
        if type_.unit == "ns":
            # What pandas writes has nine digits, of which three are mostly noughts that many a target refuses.
            with contextlib.suppress(pa.ArrowInvalid):
                moments = moments.cast(pa.timestamp("us", "UTC"))
        return pc.strftime(moments, format="%Y-%m-%dT%H:%M:%SZ").to_pylist(), 0
    if pa.types.is_duration(type_):
        return column.cast(pa.int64()).to_pylist(), 0
    if pa.types.is_time(type_) and type_.unit == "ns":
        return column.cast(pa.string()).to_pylist(), 0
    if pa.types.is_struct(type_) and _is_odd(type_):
        names = [field.name for field in type_]
        inside = [_values(part) for part in column.flatten()]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*(values for values, _ in inside), strict=True)]
        valid = column.is_valid().to_pylist()
        return [row if is_there else None for row, is_there in zip(rows, valid, strict=True)], sum(n for _, n in inside)
    if _is_odd(type_) and pa.types.is_map(type_):
        pairs, lost = _values(pa.StructArray.from_arrays([column.keys, column.items], ["key", "value"]))
        offsets = column.offsets.to_pylist()
        maps = [[[pair["key"], pair["value"]] for pair in pairs[a:b]] for a, b in pairwise(offsets)]
        return [
            value if valid else None for value, valid in zip(maps, column.is_valid().to_pylist(), strict=True)
        ], lost
    if _is_odd(type_):
        items, lost = _values(column.flatten())
        rest = iter(items)
        lengths = pc.list_value_length(column).to_pylist()
        return [None if length is None else list(islice(rest, length)) for length in lengths], lost
    return column.to_pylist(), 0


def _is_odd(type_: pa.DataType) -> bool:
    """Return whether a nested type holds times or durations, for which Python's values are not JSON's."""
    import pyarrow as pa

    if pa.types.is_nested(type_):
        return any(_is_odd(type_.field(place).type) for place in range(type_.num_fields))
    return bool(pa.types.is_timestamp(type_) or pa.types.is_duration(type_) or pa.types.is_time(type_))
