"""Messages as the frame that a transformer asks for, and back.

The values of a frame's columns are those of the messages' fields; a field that a message does not have is null. Only
messages that are dicts have a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import chain
from types import NoneType
from typing import TYPE_CHECKING, Any

from streamline.blocks.python.function import Shape
from streamline.blocks.python.live.frames import to_shape, to_table, without_new_nan

if TYPE_CHECKING:
    import pyarrow as pa

_EXACT_IN_FLOAT = 2**53


def to_frame(messages: Sequence[Any], shape: Shape) -> Any:
    """Return messages as a frame.

    Raises:
        ValueError: a message is not a dict, or the values of a field have no common type in a frame of this kind.
    """
    wrong = next((message for message in messages if not isinstance(message, dict)), None)
    if wrong is not None:
        raise ValueError(f"a message that is a {type(wrong).__name__} has no row in a {shape.value} frame")
    names = dict.fromkeys(chain.from_iterable(messages))
    columns = {str(name): [message.get(name) for message in messages] for name in names}
    if shape is Shape.PANDAS:
        return _to_pandas(columns, len(messages))
    import pyarrow as pa

    arrays: dict[str, pa.Array] = {}
    for name, values in columns.items():
        array = _array(values)
        if array is None:
            raise ValueError(f"the values of field {name!r} have no common type for a {shape.value}")
        arrays[name] = array
    table = pa.table(arrays) if arrays else pa.table({"": pa.nulls(len(messages))}).select([])
    return to_shape(table, shape)


def from_frame(result: Any) -> list[Any] | None:
    """Return a frame's rows as messages; None if `result` is not a frame.

    Raises:
        ValueError: two of its columns have one name.
    """
    if type(result).__name__ == "DataFrame" and type(result).__module__.partition(".")[0] == "pandas":
        if result.columns.has_duplicates:
            duplicate = result.columns[result.columns.duplicated()][0]
            raise ValueError(f"a DataFrame with a duplicate column {duplicate}")
        columns = {
            str(name): series.astype(object).where(series.notna(), None).to_list() for name, series in result.items()
        }
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    table = to_table(result, None)
    if table is None or isinstance(table, list):
        return table
    import pyarrow as pa

    rows: list[Any] = without_new_nan(table, pa.schema([])).to_pylist()
    return rows


def _array(values: list[Any]) -> pa.Array | None:
    """Return the values as an Arrow array that has all of them exactly; None if there is no such type."""
    import pyarrow as pa

    kinds = set(map(type, values)) - {NoneType}
    if {int, float} <= kinds and any(isinstance(each, int) and abs(each) > _EXACT_IN_FLOAT for each in values):
        return None
    if int in kinds and bool in kinds:
        return None
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    if kinds == {int}:
        try:
            return pa.array([None if each is None else Decimal(each) for each in values])
        except (pa.ArrowException, TypeError, ValueError):
            pass
    return None


def _to_pandas(columns: dict[str, list[Any]], rows: int) -> Any:
    """Return a frame with pandas' nullable types for numbers and booleans; other mixtures are Python objects."""
    import pandas as pd
    import pyarrow as pa

    arrays: dict[str, pa.Array] = {}
    for name, values in columns.items():
        plain = set(map(type, values)) <= {int, float, bool, str, NoneType}
        array = _array(values) if plain else None
        if array is not None and not pa.types.is_decimal(array.type):
            arrays[name] = array
    frame = to_shape(pa.table(arrays), Shape.PANDAS) if arrays else pd.DataFrame(index=range(rows))
    for place, (name, values) in enumerate(columns.items()):
        if name not in arrays:
            frame.insert(place, name, pd.Series(values, dtype=object, index=frame.index))
    return frame
