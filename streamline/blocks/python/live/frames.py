"""The frames that a transformer's function gets and returns, and the Arrow tables that they are made of."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from streamline.blocks.python.function import Shape
from streamline.flow.codecs.jsontext import loads
from streamline.flow.items import JSONObject

if TYPE_CHECKING:
    import pyarrow as pa

_FLOAT_NOISE = 2.0**-50
_USUAL_DIGITS, _MOST_DIGITS = 18, 76


def to_shape(table: pa.Table, shape: Shape) -> Any:
    if shape is Shape.PANDAS:
        return _to_pandas(table)
    if shape is Shape.POLARS:
        import polars as pl

        return pl.from_arrow(table)
    if shape is Shape.RECORD_BATCH:
        return table.combine_chunks().to_batches()[0]
    return table


def _to_pandas(table: pa.Table) -> Any:
    """Return a frame of pandas' nullable types for numbers and booleans, which have all operators, else of Arrow's.

    Decimals get room for products and sums: an operation on two of them wants a type for all digits that may result.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    for number, field in enumerate(table.schema):
        if pt.is_decimal(field.type):
            column = table.column(number)
            largest = pc.max(pc.abs(column)).as_py()
            whole = max(_USUAL_DIGITS, largest.adjusted() + 1 if largest else 0)
            roomy = pa.decimal256(min(whole + field.type.scale, _MOST_DIGITS), field.type.scale)
            table = table.set_column(number, field.with_type(roomy), column.cast(roomy))
    nullable: dict[pa.DataType, Any] = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype()}
    nullable[pa.bool_()] = pd.BooleanDtype()
    floats = [column for column in table.columns if pt.is_floating(column.type)]
    if not any(pc.any(pc.is_nan(column)).as_py() for column in floats):  # pandas 3 takes NaN for a missing value
        nullable[pa.float64()] = pd.Float64Dtype()
    return table.to_pandas(types_mapper=lambda kind: nullable.get(kind) or pd.ArrowDtype(kind))


def to_table(result: Any, given: pa.Table | None) -> pa.Table | list[JSONObject] | None:
    """Convert a frame of any known kind to an Arrow table; a pandas frame with a column of mixed types, to its rows.

    None if it is not a frame.

    Args:
        result: what the function returned.
        given: the table that it was given.

    Raises:
        ValueError: two of its columns have one name.
    """
    import pyarrow as pa

    package = type(result).__module__.partition(".")[0]
    if isinstance(result, pa.Table):
        return result
    if isinstance(result, pa.RecordBatch):
        return pa.Table.from_batches([result])
    if type(result).__name__ == "DataFrame" and package == "pandas":
        frame = result if all(type(name) is str for name in result.columns) else result.rename(columns=str)
        try:
            return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        except (pa.ArrowException, TypeError, ValueError):
            if frame.columns.has_duplicates:
                duplicate = frame.columns[frame.columns.duplicated()][0]
                raise ValueError(f"a DataFrame with a duplicate column {duplicate}") from None
            return _rows_of(frame, given)
    if type(result).__name__ == "LazyFrame" and package == "polars":
        result = result.collect()
    if type(result).__name__ == "DataFrame" and package == "polars":
        return result.to_arrow()
    return None


def _rows_of(frame: Any, given: pa.Table | None) -> list[JSONObject]:
    """The frame's rows; columns that the function was given, and copies of them, have the values that the tap sent."""
    import pyarrow as pa

    from streamline.flow.codecs.arrow_columns import text_column
    from streamline.flow.codecs.arrow_types import is_json

    columns: dict[str, list[Any]] = {name: frame[name].to_list() for name in frame.columns}
    arrays: dict[str, pa.Array] = {}
    for name in frame.columns if given is not None else ():
        with contextlib.suppress(pa.ArrowException, TypeError, ValueError):
            arrays[name] = pa.table({name: pa.Array.from_pandas(frame[name])}).column(0).combine_chunks()
    if given is not None and arrays:
        for field, chunked in zip((table := with_json(pa.table(arrays), given)).schema, table.columns, strict=True):
            if field.name in given.schema.names or is_json(field):
                like = given.schema.field(field.name) if field.name in given.schema.names else field
                texts = text_column(like, chunked.combine_chunks()).to_pylist()
                columns[field.name] = [None if text is None else loads(text, decimals=True) for text in texts]
    # In a frame, a missing value may be NaN.
    rows = zip(*columns.values(), strict=True)
    return [
        {
            name: None if isinstance(value, float) and value != value else value
            for name, value in zip(columns, row, strict=True)
        }
        for row in rows
    ]


def with_json(table: pa.Table, given: pa.Table) -> pa.Table:
    """Mark texts that are copies of JSON text under another name: a frame does not keep what its texts are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from streamline.flow.codecs.arrow_types import copied_json, is_json, is_textual

    sources = [field.name for field in given.schema if is_json(field)]
    for number, field in enumerate(table.schema):
        if not sources or field.name in given.schema.names or not is_textual(field.type):
            continue
        texts = table.column(number).cast(pa.string())
        if texts.null_count == len(texts):
            continue
        nested = pc.all(pc.match_substring_regex(texts, r'^[\[{"]')).as_py()
        for source in sources:
            known = pc.or_(pc.is_null(texts), pc.is_in(texts, value_set=given.column(source).combine_chunks()))
            # `5` may be a text by itself; where the column has gone, it was renamed.
            if pc.all(known).as_py() and (nested or source not in table.column_names):
                table = table.set_column(number, copied_json(field.name, source), texts)
                break
    return table


def without_new_nan(table: pa.Table, given: pa.Schema) -> pa.Table:
    """Replace NaN that the block computed with null: JSON has no NaN, and in frames it means missing."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    from streamline.flow.codecs.arrow_types import holds_nan

    for number, field in enumerate(table.schema):
        if not pt.is_floating(field.type) or (field.name in given.names and holds_nan(given.field(field.name))):
            continue
        column = table.column(number)
        if pc.any(pc.is_nan(column)).as_py():
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, field.type), column)
            table = table.set_column(number, field, column)
    return table


def as_before(column: pa.ChunkedArray, source: pa.Field) -> pa.ChunkedArray:
    """The column in the type that it had before the block, if only its representation changed.

    Frames return other string widths, other time units, and floats for integers with nulls.
    """
    import pyarrow as pa
    import pyarrow.types as pt

    from streamline.flow.codecs.arrow_types import is_textual

    kind, earlier = column.type, source.type
    if kind == earlier:
        return column
    if pt.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type

    def numeric(each: pa.DataType) -> bool:
        return bool(pt.is_integer(each) or pt.is_floating(each) or pt.is_decimal(each))

    same = any(
        test(kind) and test(earlier) for test in (is_textual, numeric, pt.is_timestamp, pt.is_date, pt.is_nested)
    )
    if not same and not pt.is_null(kind):
        return column
    try:
        cast = column.cast(earlier)
    except pa.ArrowException:
        return column
    return column if pt.is_decimal(earlier) and pt.is_floating(kind) and _is_rounded(cast, column) else cast


def _is_rounded(decimals: pa.ChunkedArray, floats: pa.ChunkedArray) -> bool:
    """Whether the decimals lack digits that the floats have: Arrow rounds to the scale."""
    import pyarrow.compute as pc

    # Arrow's own conversions are wrong by the last bits.
    lost = pc.greater(
        pc.abs(pc.subtract(decimals.cast(floats.type), floats)), pc.multiply(pc.abs(floats), _FLOAT_NOISE)
    )
    return bool(pc.any(lost).as_py())
