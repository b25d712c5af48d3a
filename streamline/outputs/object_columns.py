"""Columns of Python objects: one Arrow type where all values are of one Python type, and exactly they come back.

Which kind of null stood where (None, NaN, NA, NaT) is part of the spec. Lists and dicts become Arrow's lists and
structs where every key is in every dict and no number changes its type, else JSON text.
"""

from __future__ import annotations

import base64
import datetime as dt
import itertools
import operator
import zlib
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from streamline.outputs import jsonvalue
from streamline.outputs.pandas_columns import REFUSALS, ArrowColumn, Spec

if TYPE_CHECKING:
    import pyarrow as pa

_NULLS = ("None", "nan", "NA", "NaT")
_VERIFIED_AT_ONCE = 1 << 14
_LARGEST_SCALE = 38


def object_column(values: Any) -> ArrowColumn | None:
    """How to write a NumPy array of objects; None if only pickle holds it."""
    null_types = dict(zip(_NULLS, _null_types(), strict=True))
    found = set(map(type, values))
    nulls = [name for name, kind in null_types.items() if kind in found and kind is not float]
    kinds = found.difference(null_types[name] for name in nulls)
    # Among other values, or alone, a NaN is a null; beside real floats it is one of them.
    if float in kinds and _only_nan(values):
        nulls.append("nan")
        kinds.discard(float)
    if len(kinds) > 1:
        return None
    kind = kinds.pop() if kinds else None
    missing = _mask(values, kind, {null_types[name] for name in nulls}) if nulls else None
    spec: Spec = {"kind": "object", "nulls": nulls}
    if missing is not None and len(nulls) > 1:
        spec["which"] = _which(values[missing])
    if kind is None:
        return _typed({**spec, "of": "null"}, "null", values, missing)
    present = values if missing is None else values[~missing]
    maker = _arrays if kind.__module__ == "numpy" and kind.__name__ == "ndarray" else _MAKERS.get(kind)
    return maker(spec, values, missing, present) if maker is not None else None


def _null_types() -> tuple[type, ...]:
    import pandas as pd

    return type(None), float, type(pd.NA), type(pd.NaT)


def _only_nan(values: Any) -> bool:
    return all(value != value for value in values if type(value) is float)


def _mask(values: Any, kind: type | None, nulls: set[type]) -> Any:
    """Where the nulls are."""
    import numpy as np
    import pandas as pd

    if kind in (float, Decimal):  # they have NaNs of their own, which pandas takes for nulls
        return np.fromiter((type(value) in nulls for value in values), bool, len(values))
    return pd.isna(values)


def _which(nulls: Any) -> str:
    """Which kind of null each null is, in few characters."""
    places = {kind: place for place, kind in enumerate(_null_types())}
    codes = bytes(places[type(value)] for value in nulls)
    return base64.b64encode(zlib.compress(codes, 1)).decode()


def _typed(spec: Spec, kind: Any, values: Any, missing: Any) -> ArrowColumn:
    import pyarrow as pa

    wanted = getattr(pa, kind)() if isinstance(kind, str) else kind

    def part(start: int, stop: int) -> pa.Array:
        mask = missing[start:stop] if missing is not None else None
        return pa.array(values[start:stop], wanted, mask=mask, from_pandas=False)

    plain = spec["of"] != "timedelta"
    return ArrowColumn(spec, wanted, part, plain=plain)


Maker = Callable[[Spec, Any, Any, Any], ArrowColumn | None]


def _simple(name: str, kind: str, fits: Callable[[Any], bool] = lambda _: True) -> Maker:
    def make(spec: Spec, values: Any, missing: Any, present: Any) -> ArrowColumn | None:
        return _typed({**spec, "of": name}, kind, values, missing) if fits(present) else None

    return make


def _naive(values: Iterable[Any]) -> bool:
    """Times without a zone, and without the mark that a clock was set back."""
    return {(None, 0)} >= set(map(operator.attrgetter("tzinfo", "fold"), values))


def _microseconds(name: str, unit: str) -> Maker:
    def make(spec: Spec, values: Any, missing: Any, present: Any) -> ArrowColumn | None:
        import pyarrow as pa

        if name != "timedelta" and not _naive(present):
            return None
        kind = {"datetime": pa.timestamp, "timedelta": pa.duration, "time": pa.time64}[name](unit)
        return _typed({**spec, "of": name}, kind, values, missing)

    return make


def _decimals(spec: Spec, values: Any, missing: Any, present: Any) -> ArrowColumn | None:
    """Decimals that all have the same number of places: Arrow knows one for a whole column."""
    import pyarrow as pa

    first = present[0]
    if not first.is_finite() or not all(map(first.same_quantum, present)):
        return None
    places = -first.as_tuple().exponent
    digits = max(value.adjusted() for value in present) + 1 + places
    if places < 0 or digits > _LARGEST_SCALE or places > _LARGEST_SCALE:
        return None
    if any(value.is_signed() for value in present if not value):
        return None
    return _typed({**spec, "of": "decimal"}, pa.decimal128(max(digits, places, 1), places), values, missing)


def _uuids(spec: Spec, values: Any, missing: Any, present: Any) -> ArrowColumn | None:
    import numpy as np

    texts = np.fromiter((str(value) if type(value) is UUID else None for value in values), object, len(values))
    return _typed({**spec, "of": "uuid"}, "string", texts, missing)


def _arrays(spec: Spec, values: Any, missing: Any, present: Any) -> ArrowColumn | None:
    """One-dimensional NumPy arrays of one numeric dtype, such as embeddings."""
    import numpy as np
    import pyarrow as pa

    kinds = set(map(operator.attrgetter("dtype", "ndim"), present))
    if len(kinds) != 1:
        return None
    dtype, dimensions = kinds.pop()
    if dimensions != 1 or dtype.kind not in "iufb" or dtype.itemsize > 8 or not dtype.isnative or dtype.str == "<f2":
        return None
    kind = pa.large_list(pa.from_numpy_dtype(dtype))

    def part(start: int, stop: int) -> pa.Array:
        rows = values[start:stop]
        mask = missing[start:stop] if missing is not None else np.zeros(len(rows), bool)
        there = [row for row, absent in zip(rows, mask, strict=True) if not absent]
        lengths = np.fromiter((0 if absent else len(row) for row, absent in zip(rows, mask, strict=True)), np.int64)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        inner = pa.array(np.concatenate(there) if there else np.empty(0, dtype), from_pandas=False)
        return pa.LargeListArray.from_arrays(pa.array(offsets), inner, mask=pa.array(mask))

    return ArrowColumn({**spec, "of": "ndarray", "dtype": dtype.str}, kind, part)


def _nested(spec: Spec, values: Any, missing: Any, present: Any) -> ArrowColumn | None:
    """Lists or dicts."""
    import pyarrow as pa

    from streamline.outputs.arrow_tables import survives_parquet

    # As one list: what has no exact JSON as a part has none as a whole.
    rows = [None] * len(values) if missing is not None else values.tolist()
    if missing is not None:
        for place in (~missing).nonzero()[0]:
            rows[place] = values[place]
    if not jsonvalue.is_plain(rows):
        return None
    try:
        array = pa.array(rows, from_pandas=False)
        exact = survives_parquet(pa.schema([("column", array.type)])) and _same(array, rows)
    except REFUSALS:
        exact = False
    if exact:
        return ArrowColumn({**spec, "of": "nested"}, array.type, lambda start, stop: array[start:stop])
    texts = [None if row is None else jsonvalue.dumps(row) for row in rows]
    try:
        text = pa.array(texts, pa.large_binary()).cast(pa.large_string())
    except REFUSALS:  # lone surrogates
        return None
    return ArrowColumn({**spec, "of": "json"}, text.type, lambda start, stop: text[start:stop], plain=False)


def _same(array: pa.Array, rows: list[Any]) -> bool:
    """Whether exactly `rows` would be read: JSON text tells 1 from 1.0, and shows the order of keys."""
    encode = msgspec.json.Encoder().encode
    for start in range(0, len(rows), _VERIFIED_AT_ONCE):
        stop = start + _VERIFIED_AT_ONCE
        text = encode(rows[start:stop])
        if text != encode(array[start:stop].to_pylist()):
            return False
        # It shows NaN as null.
        if b"null" in text and not jsonvalue.is_standard(jsonvalue.dumps(rows[start:stop]) or b""):
            return False
    return True


_MAKERS: dict[type, Maker] = {
    str: _simple("str", "large_string"),
    bool: _simple("bool", "bool_"),
    int: _simple("int", "int64"),
    float: _simple("float", "float64"),
    bytes: _simple("bytes", "large_binary"),
    dt.date: _simple("date", "date32"),
    dt.datetime: _microseconds("datetime", "us"),
    dt.time: _microseconds("time", "us"),
    dt.timedelta: _microseconds("timedelta", "us"),
    Decimal: _decimals,
    UUID: _uuids,
    list: _nested,
    dict: _nested,
}


class ObjectReader:
    """Makes Python objects of the chunks of a column."""

    def __init__(self, spec: Spec, rows: int) -> None:
        import numpy as np

        self._spec = spec
        self._values = np.empty(rows, object)
        self._missing = np.zeros(rows, bool) if spec["nulls"] else None
        self._next = 0
        self._read = _READERS.get(spec["of"], _listed)

    def add(self, chunk: pa.Array) -> None:
        import pyarrow as pa

        if isinstance(chunk, pa.DictionaryArray):
            chunk = chunk.dictionary_decode()
        end = self._next + len(chunk)
        self._values[self._next : end] = self._read(chunk, self._spec)
        if self._missing is not None:
            self._missing[self._next : end] = chunk.is_null().to_numpy(zero_copy_only=False)
        self._next = end

    def finish(self) -> Any:
        if self._missing is not None:
            self._put_nulls()
        return self._values

    def _put_nulls(self) -> None:
        import numpy as np
        import pandas as pd

        every = dict(zip(_NULLS, (None, float("nan"), pd.NA, pd.NaT), strict=True))
        if "which" not in self._spec:
            null = every[self._spec["nulls"][0]]
            if null is not None:  # that is what is read
                self._values[self._missing] = null
            return
        codes = zlib.decompress(base64.b64decode(self._spec["which"]))
        kinds = list(every.values())
        self._values[self._missing] = np.fromiter((kinds[code] for code in codes), object, len(codes))


def _listed(chunk: pa.Array, spec: Spec) -> Any:
    return _objects(chunk.to_pylist())


def _objects(values: list[Any]) -> Any:
    import numpy as np

    return np.fromiter(values, object, len(values))


def _strings(chunk: pa.Array, spec: Spec) -> Any:
    """Strings, each once: a column of few different ones takes little memory."""
    coded = chunk.dictionary_encode()
    if len(coded.dictionary) * 2 > len(chunk):
        return chunk.to_numpy(zero_copy_only=False)
    import numpy as np

    words = np.append(coded.dictionary.to_numpy(zero_copy_only=False), [None])
    return words[coded.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False)]


def _arrays_of(chunk: pa.Array, spec: Spec) -> Any:
    import numpy as np

    flat = chunk.values.to_numpy(zero_copy_only=False)
    ends = chunk.offsets.to_numpy()
    pieces = [flat[start:end].astype(spec["dtype"]) for start, end in itertools.pairwise(ends)]
    found = np.empty(len(pieces), object)
    for place, piece in enumerate(pieces):
        found[place] = piece
    if chunk.null_count:
        found[chunk.is_null().to_numpy(zero_copy_only=False)] = None
    return found


def _json_values(chunk: pa.Array, spec: Spec) -> Any:
    return _objects([None if text is None else jsonvalue.loads(text.encode()) for text in chunk.to_pylist()])


def _uuid_values(chunk: pa.Array, spec: Spec) -> Any:
    return _objects([None if text is None else UUID(text) for text in chunk.to_pylist()])


_READERS: dict[str, Callable[[pa.Array, Spec], Any]] = {
    "str": _strings,
    "ndarray": _arrays_of,
    "json": _json_values,
    "uuid": _uuid_values,
}
