"""What R gives back, as Python values and pandas frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from streamline.blocks.r.rds import NA_INTEGER, RVector

_UNITS = {"secs": 1, "mins": 60, "hours": 3600, "days": 86400, "weeks": 604800}
_NO_INTEGER64 = -(2**63)


def from_r(value: RVector | None) -> Any:
    """Convert a value of R: a data.frame to a DataFrame, a named list to a dict, another list to a list, a vector to a
    list (a dict if all its elements are named, a scalar if it has one element).
    """
    if value is None:
        return None
    if value.kind == "raw":
        return value.values
    if "data.frame" in value.classes:
        return frame(value)
    elements = [from_r(element) for element in value.values] if value.kind == "list" else scalars(value)
    names = value.words("names")
    if names and all(names) and len(set(names)) == len(names):
        return dict(zip(names, elements, strict=True))
    if value.kind != "list" and len(elements) == 1:
        return elements[0]
    return elements


def frame(value: RVector) -> pd.DataFrame:
    """Convert a data.frame: integers and logicals with NA to `Int64` and `boolean`, Dates to `datetime.date`."""
    names = value.words("names")
    columns = [_series(column) for column in value.values]
    rows = len(columns[0]) if columns else _row_count(value)
    result = pd.DataFrame(dict(enumerate(columns)), index=pd.RangeIndex(rows))
    result.columns = pd.Index(names, dtype=None if names else "str")
    return result


def array(value: RVector) -> pa.Array:
    """Convert a vector to Arrow."""
    classes, values = value.classes, value.values
    if value.kind == "string":
        return pa.array(values, pa.string())
    if value.kind == "raw":
        return pa.array([values], pa.binary())
    if "factor" in classes:
        codes = pa.array(np.where(values == NA_INTEGER, 0, values) - 1, mask=values == NA_INTEGER)
        levels = value.attributes["levels"].values if "levels" in value.attributes else []
        return pa.DictionaryArray.from_arrays(codes, pa.array(levels, pa.string()), ordered="ordered" in classes)
    if "integer64" in classes:
        wide = values.view(np.int64)
        return pa.array(wide, mask=wide == _NO_INTEGER64)
    missing = values == NA_INTEGER if value.kind != "double" else np.isnan(values)
    if "Date" in classes:
        return pa.array(np.floor(_filled(values, missing)).astype(np.int32), pa.date32(), mask=missing)
    if "POSIXct" in classes:
        zone = (value.words("tzone") or [""])[0]
        # Without a zone it is R's local time, here a time without a zone.
        return _microseconds(values, missing, pa.timestamp("us", {"": None, "GMT": "UTC"}.get(zone, zone)))
    if "difftime" in classes:
        unit = _UNITS.get((value.words("units") or ["secs"])[0], 1)
        return _microseconds(_filled(values, missing) * float(unit), missing, pa.duration("us"))
    if value.kind == "logical":
        return pa.array(values != 0, pa.bool_(), mask=missing)
    if value.kind == "integer":
        return pa.array(values.astype(np.int64), mask=missing)
    return pa.array(values, pa.float64())


def scalars(value: RVector) -> list[Any]:
    """Return a vector's elements; NA is None."""
    if value.kind == "string":
        return list(value.values)
    if value.kind == "double" and not value.classes:
        from streamline.blocks.r.rds import NA_REAL_BITS

        # Only the lower half marks it: arithmetic may make the NaN a quiet one.
        bits = value.values.view(np.uint64)
        missing = np.isnan(value.values) & ((bits & 0xFFFFFFFF) == (NA_REAL_BITS & 0xFFFFFFFF))
        return [
            None if is_missing else element
            for element, is_missing in zip(value.values.tolist(), missing.tolist(), strict=True)
        ]
    column: list[Any] = array(value).to_pylist()
    return column


def _series(value: RVector | None) -> pd.Series[Any]:
    if value is None:
        return pd.Series([], dtype=object)
    if value.kind == "list":
        return pd.Series([from_r(element) for element in value.values], dtype=object)
    column = array(value)
    if column.null_count and value.kind in ("integer", "double", "logical") and not value.classes:
        names = {"integer": "Int64", "logical": "boolean"}
        if value.kind in names:
            return pd.Series(column.to_pandas(types_mapper=_nullable().get))
    if "integer64" in value.classes and column.null_count:
        return pd.Series(column.to_pandas(types_mapper=_nullable().get))
    result: pd.Series[Any] = column.to_pandas()
    return result


def _nullable() -> dict[pa.DataType, Any]:
    return {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


def _row_count(value: RVector) -> int:
    """Return the number of rows of a data.frame without columns."""
    names = value.attributes.get("row.names")
    if names is None:
        return 0
    if names.kind == "integer" and len(names.values) == 2 and names.values[0] == NA_INTEGER:
        return abs(int(names.values[1]))
    return len(names.values)


def _microseconds(values: Any, missing: Any, kind: pa.DataType) -> pa.Array:
    whole = np.round(_filled(values, missing) * 1e6).astype(np.int64)
    return pa.array(whole, mask=missing).cast(kind)


def _filled(values: Any, missing: Any) -> Any:
    """Return the values with 0 for missing ones: the array has a mask."""
    return np.where(missing, 0, values)
