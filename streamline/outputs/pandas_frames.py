"""pandas DataFrames and Series as Parquet files that any reader understands, and that come back as they were.

The footer's key `streamline` says what Parquet does not know (`pandas_columns.py`). Values that Parquet does not hold
are pickled in a file beside it; so are unusual labels. An index without names is a file of its own, so that the main
file has the frame's columns and nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.outputs import jsonvalue, pickled
from streamline.outputs.errors import OutputError
from streamline.outputs.manifest import Stored
from streamline.outputs.pandas_columns import (
    REFUSALS,
    ArrowColumn,
    Reader,
    Spec,
    arrow_column,
    index_of,
    index_spec,
    is_text,
    reader,
)
from streamline.outputs.parquet import shown, slices, write_parquet
from streamline.outputs.sql_frames import as_pandas
from streamline.outputs.storage import Place

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_KEY = b"streamline"
_VERSION = 1
# Below it a frame is put together in one piece per dtype, which pandas computes with faster; above it that copy
# would cost more than it brings.
_SMALL = 1 << 24
_NAMES = (str, int, bool, type(None))


def write(place: Place, name: str, value: Any) -> Stored | None:
    """Store a DataFrame or Series; None for what only pickle holds (subclasses, an Index, frames of odd columns)."""
    import pandas as pd

    if type(value) is pd.Series:
        frame, codec = value.to_frame(0), "pandas_series"
        spec: Spec = {"name": value.name} if type(value.name) in (str, int, type(None)) else {}
        frame.attrs = {}
    elif type(value) is pd.DataFrame:
        frame, codec, spec = value, "pandas", {}
    else:
        return None
    beside: dict[str, Any] = {}
    if codec == "pandas_series":
        labels: list[Any] = ["value" if value.name is None else value.name]
        if not spec or not is_text(value.name):
            spec["name"] = None
            beside["name"] = value.name
    else:
        labels = list(frame.columns)
        spec["labels"] = index_spec(frame.columns)
        if spec["labels"] is None:
            beside["labels"] = frame.columns
    if value.attrs:
        if jsonvalue.is_plain(value.attrs) and (data := jsonvalue.dumps(value.attrs)) and jsonvalue.is_standard(data):
            spec["attrs"] = value.attrs
        else:
            beside["attrs"] = value.attrs
    if not value.flags.allows_duplicate_labels:
        spec["unique"] = True
    writer = _Writer(place, name, frame, labels, spec, beside)
    return writer.write(codec)


class _Writer:
    """Writes one frame."""

    def __init__(
        self, place: Place, name: str, frame: Any, labels: Sequence[Any], spec: Spec, beside: dict[str, Any]
    ) -> None:
        self.place = place
        self.name = name
        self.frame = frame
        self.labels = labels
        self.spec: Spec = {"version": _VERSION, **spec}
        self.beside = beside
        self.parts: list[Stored] = []
        # Whether the index has names (others would have them as columns) and is not among the file's columns.
        self.hidden = False

    def write(self, codec: str) -> Stored | None:
        series = [self.frame.iloc[:, place] for place in range(len(self.labels))]
        columns = [arrow_column(one) for one in series]
        names = column_names(self.labels)
        extra = self._index(names)
        for attempt in (1, 2):
            if not any(columns) and not extra:
                break
            try:
                return self._write(codec, columns, names, extra)
            except pickled.Unpicklable:
                break  # pickling the whole frame says where in it
            except REFUSALS:
                if attempt == 2:
                    break
                # A value that its column's type does not hold, such as text that is no UTF-8.
                columns = [column if column and _fits(column, len(self.frame)) else None for column in columns]
        for file in (f"{self.name}.parquet", *(part.file for part in self.parts)):
            self.place.remove(file)
        return None

    def _write(
        self, codec: str, columns: list[ArrowColumn | None], names: list[str], extra: list[tuple[str, ArrowColumn]]
    ) -> Stored:
        import pyarrow as pa

        beside = dict(self.beside)
        pickled_columns = {
            place: self.frame.iloc[:, place].array for place, column in enumerate(columns) if column is None
        }
        if pickled_columns:
            beside["columns"] = pickled_columns
        written = [(name, column) for name, column in zip(names, columns, strict=True) if column is not None] + extra
        companions = {name: column.companion for name, column in written if column.companion is not None}
        if companions:
            beside["companions"] = companions
        spec = {
            **self.spec,
            "rows": len(self.frame),
            "columns": [None if column is None else column.spec for column in columns],
            "beside": bool(beside),
        }
        file = f"{self.name}.parquet"
        schema = pa.schema(
            [(name, column.kind) for name, column in written],
            metadata=self._metadata(spec, names, columns, [name for name, _ in extra]),
        )
        arrow = [column for _, column in written]
        write_parquet(self.place, file, schema, _tables(schema, arrow, len(self.frame)))
        parts = list(self.parts)
        if beside:
            objects = f"{self.name}.objects.pkl"
            pickled.write(self.place, objects, beside)
            parts.append(Stored(file=objects, codec="pickle"))
        plain = not self.hidden and not pickled_columns and all(column.plain for _, column in written)
        return Stored(
            file=file,
            codec=codec,
            rows=len(self.frame),
            columns=names,
            types=[str(column.kind) for _, column in written] if plain and written else None,
            parts=parts,
        )

    def _index(self, names: list[str]) -> list[tuple[str, ArrowColumn]]:
        """See to the index: in the footer, as further columns, in a file of its own, or pickled."""
        import pandas as pd

        index = self.frame.index
        if type(index) is pd.RangeIndex:
            self.spec["index"] = index_spec(index)
            if self.spec["index"] is not None:
                self.hidden = index.name is not None
                return []
        named = list(index.names)
        columns = _level_columns(index)
        if columns is not None and all(type(name) in _NAMES and is_text(name) for name in named):
            spec = self.spec["index"] = {
                "kind": "multi" if index.nlevels > 1 else "levels",
                "names": named,
                "levels": [column.spec for column in columns],
                "freq": _frequency(index),
                "file": None,
            }
            if all(type(name) is str and name for name in named) and _unique([*names, *named]):
                return list(zip(named, columns, strict=True))
            spec["file"] = f"{self.name}.index.parquet"
            try:
                self._write_index([f"level_{place}" for place in range(len(columns))], columns)
            except REFUSALS:
                self.place.remove(spec["file"])
            else:
                self.hidden = any(name is not None for name in named)
                return []
        self.spec["index"] = None
        self.hidden = any(name is not None for name in named)
        self.beside["index"] = index
        return []

    def _write_index(self, names: list[str], columns: list[ArrowColumn]) -> None:
        import pyarrow as pa

        file = f"{self.name}.index.parquet"
        rows = len(self.frame)
        schema = pa.schema([(name, column.kind) for name, column in zip(names, columns, strict=True)])
        write_parquet(self.place, file, schema, _tables(schema, columns, rows))
        self.parts.append(Stored(file=file, codec="index", rows=rows))

    def _metadata(
        self, spec: Spec, names: list[str], columns: list[ArrowColumn | None], index: list[str]
    ) -> dict[bytes, bytes]:
        """The footer: ours, and pandas' own for others who read the file with pandas."""
        import pyarrow as pa

        found = {_KEY: msgspec.json.encode(spec)}
        try:
            kept = [place for place, column in enumerate(columns) if column is not None]
            flat = self.frame.iloc[:0, kept]
            flat.columns = [names[place] for place in kept]
            own = pa.Schema.from_pandas(flat, preserve_index=bool(index)).metadata
        except REFUSALS:
            return found
        return {b"pandas": own[b"pandas"], **found} if own and b"pandas" in own else found


def _tables(schema: pa.Schema, columns: Sequence[ArrowColumn], rows: int) -> Iterator[pa.Table]:
    """The row groups, each made when it is written."""
    import pyarrow as pa

    for start, stop in slices(rows):
        yield pa.Table.from_arrays([column.part(start, stop) for column in columns], schema=schema)


def column_names(labels: Sequence[Any]) -> list[str]:
    """What the columns are called in the file: as they are called, where that is text and unique."""
    names: list[str] = []
    taken: set[str] = set()
    for place, label in enumerate(labels):
        name = label if type(label) is str else str(label)
        if not is_text(name) or not name:
            name = f"column_{place}"
        if name in taken:
            number = 2
            while f"{name}_{number}" in taken:
                number += 1
            name = f"{name}_{number}"
        taken.add(name)
        names.append(name)
    return names


def _unique(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names)


def _level_columns(index: Any) -> list[ArrowColumn] | None:
    """The levels of an index; None if one of them, or the index itself, has to be pickled."""
    import pandas as pd

    if type(index) is pd.MultiIndex and not any(isinstance(kind, pd.CategoricalDtype) for kind in index.dtypes):
        # By their codes: the levels keep their dtypes, even where a value is missing.
        levels = [
            pd.Series(pd.Categorical.from_codes(codes, categories=level))
            for codes, level in zip(index.codes, index.levels, strict=True)
        ]
    elif type(index) in (pd.Index, pd.RangeIndex, pd.DatetimeIndex, pd.TimedeltaIndex, pd.CategoricalIndex):
        levels = [pd.Series(index.array, dtype=index.dtype, copy=False)]
    else:
        return None
    columns = [arrow_column(level) for level in levels]
    found = [column for column in columns if column is not None and column.companion is None]
    return found if len(found) == len(columns) else None


def _frequency(index: Any) -> str | None:
    """The frequency of a DatetimeIndex or TimedeltaIndex, where its name alone says all of it."""
    import pandas as pd

    own = getattr(index, "freq", None)
    if own is None or not isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)):
        return None
    try:
        return str(own.freqstr) if pd.tseries.frequencies.to_offset(own.freqstr) == own else None
    except ValueError:
        return None


def _fits(column: ArrowColumn, rows: int) -> bool:
    try:
        for start, stop in slices(rows):
            column.part(start, stop)
    except REFUSALS:
        return False
    return True


# --- reading ---


def read(place: Place, stored: Stored, rows: tuple[int, int] | None = None) -> Any:
    """What `write` stored.

    Args:
        place: where.
        stored: what.
        rows: only those from the first to before the second; None: all.

    Raises:
        OutputError: the file is damaged, or of another version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(place.source(stored.file)) as file:
            text = (file.schema_arrow.metadata or {}).get(_KEY)
            if text is None:
                return _foreign(file, rows)
            spec = msgspec.json.decode(text)
            if spec["version"] != _VERSION:
                raise OutputError(f"{stored.file} was written by a newer version", where=shown(place, stored.file))
            if rows is not None and b'"which":' in text:  # which kind of null is known by counting all of them
                return _read(place, stored, file, spec, None).iloc[rows[0] : rows[1]]
            return _read(place, stored, file, spec, rows)
    except pa.ArrowException as error:
        raise OutputError(f"{stored.file} cannot be read: {error}", where=shown(place, stored.file)) from error


def _foreign(file: pq.ParquetFile, rows: tuple[int, int] | None) -> Any:
    """A file that is not ours, as pandas would read it."""
    table = file.read()
    if rows is not None:
        table = table.slice(rows[0], rows[1] - rows[0])
    return as_pandas(table)


def _read(place: Place, stored: Stored, file: pq.ParquetFile, spec: Spec, rows: tuple[int, int] | None) -> Any:
    import pandas as pd

    beside: dict[str, Any] = {}
    if spec["beside"]:
        objects = stored.parts[-1].file
        beside = pickled.read(place, objects, f"what belongs to {stored.file}")
    start, stop = rows or (0, spec["rows"])
    specs: list[Spec | None] = spec["columns"]
    inside = spec["index"] if spec["index"] and spec["index"].get("file", "") is None else None
    wanted = [one for one in specs if one is not None] + (inside["levels"] if inside else [])
    arrays = iter(_columns(file, wanted, beside.get("companions", {}), start, stop))
    columns = [
        next(arrays) if one is not None else beside["columns"][number][start:stop] for number, one in enumerate(specs)
    ]
    index = _index_back(place, spec["index"], list(arrays), beside, start, stop)
    found: Any
    if stored.codec == "pandas_series":
        found = pd.Series(columns[0], dtype=columns[0].dtype, copy=False, name=beside.get("name", spec["name"]))
        found.index = index
    else:
        found = _frame(columns, index)
        found.columns = index_of(spec["labels"]) if spec["labels"] is not None else beside["labels"]
    attrs = spec.get("attrs") or beside.get("attrs")
    if attrs:
        found.attrs = attrs
    return found.set_flags(copy=False, allows_duplicate_labels=False) if spec.get("unique") else found


def _frame(columns: list[Any], index: Any) -> Any:
    import pandas as pd

    # With their dtypes: pandas would make strings of objects that all are strings.
    series = {
        number: pd.Series(column, dtype=column.dtype, copy=False, index=index) for number, column in enumerate(columns)
    }
    small = sum(column.nbytes for column in columns) < _SMALL
    return pd.DataFrame(series, index=index, copy=small)


def _columns(file: pq.ParquetFile, specs: list[Spec], companions: dict[str, Any], start: int, stop: int) -> list[Any]:
    """The columns of a file, row group by row group: nothing is in memory twice."""
    schema = file.schema_arrow
    readers: list[Reader] = [
        reader(spec, schema.field(number), stop - start, companions.get(schema.names[number]))
        for number, spec in enumerate(specs)
    ]
    for table in _row_groups(file, start, stop):
        for number, one in enumerate(readers):
            for chunk in table.column(number).chunks:
                one.add(chunk)
    return [one.finish() for one in readers]


def _row_groups(file: pq.ParquetFile, start: int, stop: int) -> Iterator[pa.Table]:
    """The rows from `start` to before `stop`, by row groups; the next is read while one is looked at."""
    wanted: list[tuple[int, int, int]] = []
    first = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first < stop and first + rows > start:
            wanted.append((group, max(start - first, 0), min(stop - first, rows)))
        first += rows

    def read(group: int, begin: int, end: int) -> pa.Table:
        return file.read_row_group(group).slice(begin, end - begin)

    if len(wanted) < 2:
        yield from itertools.starmap(read, wanted)
        return
    with ThreadPoolExecutor(1) as ahead:
        following = ahead.submit(read, *wanted[0])
        for place in wanted[1:]:
            table = following.result()
            following = ahead.submit(read, *place)
            yield table
            del table
        yield following.result()


def _index_back(
    place: Place, spec: Spec | None, arrays: list[Any], beside: dict[str, Any], start: int, stop: int
) -> Any:
    import pandas as pd
    import pyarrow.parquet as pq

    if spec is None:
        return beside["index"][start:stop]
    if spec["kind"] == "range":
        return index_of(spec)[start:stop]
    if spec["file"] is not None:
        with pq.ParquetFile(place.source(spec["file"])) as file:
            arrays = _columns(file, spec["levels"], {}, start, stop)
    if spec["kind"] == "multi":
        return pd.MultiIndex(
            [array.categories for array in arrays],
            [array.codes for array in arrays],
            names=spec["names"],
            verify_integrity=False,
        )
    index = pd.Index(arrays[0], dtype=arrays[0].dtype, name=spec["names"][0], copy=False)
    if spec["freq"] is not None:
        index = type(index)(index, freq=spec["freq"])
    return index
