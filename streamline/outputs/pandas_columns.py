"""pandas columns as Arrow columns, and back with the same dtype.

`arrow_column` says how a column is written: a *spec* (JSON, kept in the file's footer) that names the dtype, the Arrow
type, and a function that converts a slice. `reader` makes what the spec describes out of the chunks of a file. A column
that Arrow, or Parquet, would change has no spec; it is pickled beside the file.
"""

from __future__ import annotations

import datetime as dt
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    import pyarrow as pa

Spec = dict[str, Any]

_MASKED = frozenset(
    {"Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64", "boolean"}
)
# Longer lists of categories would make the footer slow to read for everybody.
_MOST_LABELS = 10_000
# What Arrow raises for values that it does not take. (ArrowInvalid is a ValueError; UnicodeEncodeError, too.)
REFUSALS = (ValueError, TypeError, ArithmeticError, NotImplementedError, KeyError)


class ArrowColumn:
    """How a column is written.

    Args:
        spec: what `reader` needs; JSON.
        kind: the Arrow type in the file.
        part: the rows from `start` to `stop` as Arrow; raises one of `REFUSALS` where a value does not fit.
        plain: other readers of the file see the values as they are meant.
        companion: what has to be pickled beside the file for `reader`, if anything.
    """

    def __init__(
        self,
        spec: Spec,
        kind: pa.DataType,
        part: Callable[[int, int], pa.Array],
        *,
        plain: bool = True,
        companion: Any = None,
    ) -> None:
        self.spec = spec
        self.kind = kind
        self.part = part
        self.plain = plain
        self.companion = companion


class Reader(Protocol):
    """Collects the chunks of one column."""

    def add(self, chunk: pa.Array) -> None:
        """Take the next rows."""
        ...

    def finish(self) -> Any:
        """The column: a NumPy or pandas array of the dtype that was written."""
        ...


def arrow_column(series: Any) -> ArrowColumn | None:
    """How to write a pandas Series, without its index; None if only pickle holds it."""
    try:
        return _arrow_column(series)
    except REFUSALS:  # values that cannot even be compared
        return None


def _arrow_column(series: Any) -> ArrowColumn | None:
    import numpy as np
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        if dtype.kind == "O":
            from streamline.outputs.object_columns import object_column

            return object_column(series.to_numpy(copy=False))
        return _numpy(series.to_numpy(copy=False))
    if isinstance(dtype, pd.StringDtype):
        return _extension({"kind": "string", **_string_spec(dtype)}, series.array)
    if isinstance(dtype, pd.CategoricalDtype):
        return _category(series.array)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return _zoned(series, dtype)
    if isinstance(dtype, pd.ArrowDtype):
        return _arrow(series.array, dtype)
    if str(dtype) in _MASKED and type(dtype).__module__.partition(".")[0] == "pandas":
        return _extension({"kind": "masked", "dtype": str(dtype)}, series.array)
    return None


def reader(spec: Spec, field: pa.Field, rows: int, companion: Any) -> Reader:
    """What turns chunks of a file's column into the column that was written.

    Args:
        spec: from `ArrowColumn`.
        field: of the file.
        rows: how many will come.
        companion: from `ArrowColumn`, where there was one.
    """
    kind = spec["kind"]
    if kind == "numpy":
        return _NumpyReader(spec["dtype"], rows)
    if kind == "object":
        from streamline.outputs.object_columns import ObjectReader

        return ObjectReader(spec, rows)
    if kind == "category":
        return _CategoryReader(spec, field, rows, companion)
    if kind == "zoned":
        return _ZonedReader(spec, rows, companion)
    return _ExtensionReader(spec, field)


# --- NumPy's dtypes ---


def _numpy(values: Any) -> ArrowColumn | None:
    import pyarrow as pa

    dtype = values.dtype
    if dtype.kind not in "iufbMm" or dtype.itemsize > 8 or not dtype.isnative:
        return None
    kind = pa.from_numpy_dtype(dtype)
    if dtype.str == "<M8[s]":
        kind = pa.timestamp("ms")  # Parquet has no seconds
    # NaN and NaT are null for every other reader, as pandas itself writes them.
    nullable = dtype.kind in "fMm"

    def part(start: int, stop: int) -> pa.Array:
        found = pa.array(values[start:stop], from_pandas=nullable)
        return found if found.type == kind else found.cast(kind)

    plain = dtype.kind != "m" and dtype.str != "<f2"
    return ArrowColumn({"kind": "numpy", "dtype": dtype.str}, kind, part, plain=plain)


class _NumpyReader:
    """Fills an array that is there from the beginning: no row is held twice, and the array can be written to."""

    def __init__(self, dtype: str, rows: int) -> None:
        import numpy as np

        self.values = np.empty(rows, dtype)
        self._next = 0

    def add(self, chunk: pa.Array) -> None:
        end = self._next + len(chunk)
        self.values[self._next : end] = chunk.to_numpy(zero_copy_only=False)
        self._next = end

    def finish(self) -> Any:
        return self.values


# --- timestamps with a zone ---


def _zoned(series: Any, dtype: Any) -> ArrowColumn | None:
    import pyarrow as pa

    column = _numpy(series.to_numpy(f"M8[{dtype.unit}]"))
    if column is None:
        return None
    zone, name = _zone_spec(dtype.tz)
    kind = pa.timestamp(column.kind.unit, name)
    inner = column.part
    return ArrowColumn(
        {"kind": "zoned", "unit": dtype.unit, "zone": zone},
        kind,
        lambda start, stop: inner(start, stop).cast(kind),
        companion=dtype if zone is None else None,
    )


def _zone_spec(zone: Any) -> tuple[list[Any] | None, str]:
    """How a zone is written down (None: it has to be pickled), and what other readers are told that it is."""
    kind = type(zone)
    if zone is dt.UTC:
        return ["utc"], "UTC"
    if kind is ZoneInfo and zone.key is not None:
        return ["zoneinfo", zone.key], zone.key
    if kind is dt.timezone and repr(zone) == repr(dt.timezone(zone.utcoffset(None))):
        offset = zone.utcoffset(None)
        if offset.seconds % 60 == 0 and not offset.microseconds:
            minutes = offset // dt.timedelta(minutes=1)
            name = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
            return ["offset", minutes], name
    if kind.__module__.partition(".")[0] == "pytz" and getattr(zone, "zone", None):
        return ["pytz", zone.zone], zone.zone
    return None, "UTC"


def _zone(spec: list[Any]) -> dt.tzinfo:
    if spec[0] == "utc":
        return dt.UTC
    if spec[0] == "zoneinfo":
        return ZoneInfo(spec[1])
    if spec[0] == "offset":
        return dt.timezone(dt.timedelta(minutes=spec[1]))
    zone: dt.tzinfo = importlib.import_module("pytz").timezone(spec[1])
    return zone


class _ZonedReader(_NumpyReader):
    def __init__(self, spec: Spec, rows: int, companion: Any) -> None:
        super().__init__(f"M8[{spec['unit']}]", rows)
        self._zone = companion.tz if spec["zone"] is None else _zone(spec["zone"])

    def finish(self) -> Any:
        import pandas as pd

        return pd.DatetimeIndex(self.values).tz_localize("UTC").tz_convert(self._zone).array


# --- extension dtypes that know Arrow themselves ---


def _string_spec(dtype: Any) -> Spec:
    return {"storage": dtype.storage, "na": "nan" if isinstance(dtype.na_value, float) else "NA"}


def string_dtype(spec: Spec) -> Any:
    """The dtype that `_string_spec` described."""
    import pandas as pd

    if spec["na"] == "NA":
        return pd.StringDtype(spec["storage"])
    try:
        return pd.StringDtype(spec["storage"], na_value=float("nan"))
    except TypeError:  # pandas 2.2
        return pd.StringDtype("pyarrow_numpy")


def _extension(spec: Spec, array: Any) -> ArrowColumn:
    import pyarrow as pa

    kind = pa.array(array[:0]).type
    return ArrowColumn(spec, kind, lambda start, stop: pa.array(array[start:stop], type=kind))


def _arrow(array: Any, dtype: Any) -> ArrowColumn | None:
    import pyarrow as pa
    import pyarrow.types as pt

    from streamline.outputs.arrow_tables import survives_parquet

    kind = dtype.pyarrow_dtype
    if not survives_parquet(pa.schema([("column", kind)])):
        return None
    plain = not pt.is_duration(kind) and not pt.is_float16(kind) and not pt.is_decimal256(kind)
    return ArrowColumn({"kind": "arrow"}, kind, lambda start, stop: pa.array(array[start:stop], type=kind), plain=plain)


class _ExtensionReader:
    def __init__(self, spec: Spec, field: pa.Field) -> None:
        self._spec = spec
        self._kind = field.type
        self._chunks: list[pa.Array] = []

    def add(self, chunk: pa.Array) -> None:
        self._chunks.append(chunk)

    def finish(self) -> Any:
        import pandas as pd
        import pyarrow as pa

        column = pa.chunked_array(self._chunks, type=self._kind)
        kind = self._spec["kind"]
        if kind == "arrow":
            return pd.arrays.ArrowExtensionArray(column)
        dtype: Any = string_dtype(self._spec) if kind == "string" else pd.api.types.pandas_dtype(self._spec["dtype"])
        return dtype.__from_arrow__(column)


# --- categories ---


def _category(array: Any) -> ArrowColumn | None:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.types as pt

    categories = array.categories
    labels = index_spec(categories)
    inner = arrow_column(pd.Series(categories.array, dtype=categories.dtype, copy=False))
    if inner is None:
        return None
    values = inner.part(0, len(categories))
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    text = pt.is_string(values.type) or pt.is_large_string(values.type)
    codes = array.codes
    kind = pa.dictionary(pa.from_numpy_dtype(codes.dtype), values.type, array.ordered) if text else values.type

    def part(start: int, stop: int) -> pa.Array:
        own = codes[start:stop]
        found = pa.DictionaryArray.from_arrays(pa.array(own, mask=own < 0), values, ordered=array.ordered, safe=False)
        return found if text else found.dictionary_decode()

    spec = {"kind": "category", "codes": codes.dtype.str, "ordered": bool(array.ordered), "labels": labels}
    spec["values"] = inner.spec
    companion = (categories if labels is None else None, inner.companion)
    needed = any(one is not None for one in companion)
    return ArrowColumn(spec, kind, part, plain=inner.plain, companion=companion if needed else None)


class _CategoryReader:
    def __init__(self, spec: Spec, field: pa.Field, rows: int, companion: Any) -> None:
        import numpy as np
        import pandas as pd
        import pyarrow as pa

        pickled: tuple[Any, Any] = companion or (None, None)
        self._spec = spec
        self._categories = pickled[0] if pickled[0] is not None else index_of(spec["labels"])
        self._companion = pickled[1]
        self._dtype: Any = pd.CategoricalDtype(self._categories, ordered=spec["ordered"])
        self._codes: Any = np.empty(rows, spec["codes"])
        self._next = 0
        self._kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        self._known: tuple[pa.Array, Any] | None = None

    def add(self, chunk: pa.Array) -> None:
        import pyarrow as pa

        end = self._next + len(chunk)
        if not len(chunk):
            return
        if isinstance(chunk, pa.DictionaryArray):
            places = self._places(chunk.dictionary)
            codes = chunk.indices.fill_null(len(places) - 1).to_numpy(zero_copy_only=False)
            self._codes[self._next : end] = places[codes]
        else:
            self._codes[self._next : end] = self._indexer(chunk)
        self._next = end

    def _places(self, dictionary: pa.Array) -> Any:
        """Where each word of a chunk's dictionary stands among the categories; at the end -1, for null."""
        import numpy as np

        if self._known is None or not self._known[0].equals(dictionary):
            found = np.append(self._indexer(dictionary), -1).astype(self._codes.dtype)
            self._known = dictionary, found
        return self._known[1]

    def _indexer(self, values: pa.Array) -> Any:
        import numpy as np
        import pandas as pd
        import pyarrow as pa

        if values.null_count:
            found = np.full(len(values), -1, self._codes.dtype)
            found[values.is_valid().to_numpy(zero_copy_only=False)] = self._indexer(values.drop_null())
            return found
        inner = reader(self._spec["values"], pa.field("values", self._kind), len(values), self._companion)
        inner.add(values)
        return self._categories.get_indexer(pd.Index(inner.finish(), dtype=self._categories.dtype))

    def finish(self) -> Any:
        import pandas as pd

        return pd.Categorical.from_codes(self._codes, dtype=self._dtype, validate=False)


# --- labels: of columns, of categories ---


def index_spec(index: Any) -> Spec | None:
    """An Index as JSON: a RangeIndex, or not too many strings or integers; None for any other."""
    import numpy as np
    import pandas as pd

    name = index.name
    if type(name) not in (str, int, bool, type(None)):
        return None
    if type(index) is pd.RangeIndex:
        return {"kind": "range", "start": index.start, "stop": index.stop, "step": index.step, "name": name}
    if type(index) is not pd.Index or len(index) > _MOST_LABELS:
        return None
    dtype = index.dtype
    shown: Any
    allowed: set[type]
    if isinstance(dtype, pd.StringDtype):
        shown, allowed = _string_spec(dtype), {str}
    elif isinstance(dtype, np.dtype) and dtype.kind in "iu":
        shown, allowed = dtype.str, {int}
    elif isinstance(dtype, np.dtype) and dtype.kind == "O":
        shown, allowed = "O", {str, int, bool, type(None)}
    else:
        return None
    values = index.tolist()
    if not allowed.issuperset(map(type, values)) or not all(map(is_text, values)):
        return None
    return {"kind": "list", "values": values, "dtype": shown, "name": name}


def index_of(spec: Spec) -> Any:
    """The Index that `index_spec` described."""
    import pandas as pd

    if spec["kind"] == "range":
        return pd.RangeIndex(spec["start"], spec["stop"], spec["step"], name=spec["name"])
    dtype = spec["dtype"]
    shown = string_dtype(dtype) if isinstance(dtype, dict) else dtype
    return pd.Index(spec["values"], dtype=shown, name=spec["name"])


def is_text(value: Any) -> bool:
    """Whether a label can be written as UTF-8, and an integer in 64 bits."""
    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    return type(value) is not int or -(2**63) <= value < 2**64
