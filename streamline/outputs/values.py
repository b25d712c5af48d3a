"""Write what a block returned (nothing, a value, a tuple's values, an iterator's chunks) in forms that restore it."""

from __future__ import annotations

import datetime as dt
import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import IOBase
from pathlib import Path
from typing import Any

import msgspec

from streamline.errors import DiskFull, is_disk_full
from streamline.outputs import jsonvalue, pickled
from streamline.outputs.errors import OutputError
from streamline.outputs.manifest import Form, Manifest, StoredValue
from streamline.outputs.storage import FolderStorage, Storage, damaged


class ParquetFile:
    """An output that is a Parquet file already. It is moved to its place, and read back as a pandas DataFrame.

    Args:
        rows: how many there are, where whoever wrote the file knows.
        columns: name and type of each column, likewise; the types' names are the writer's. With both, nobody has to
            load a library to look into the file.
    """

    def __init__(
        self, path: Path | str, *, rows: int | None = None, columns: Sequence[tuple[str, str]] | None = None
    ) -> None:
        self.path = Path(path)
        self.rows = rows
        self.columns = columns


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


def write_values(storage: Storage, value: Any, run_id: str) -> Manifest:
    """Write what a block returned. Return the manifest, which is not written.

    Raises:
        OutputError: a value that cannot be stored, or a disk that is full or failing.
        Exception: whatever an iterator raises, unchanged.
    """
    outputs: list[StoredValue] = []
    form: Form = "single"
    if value is None:
        form = "none"
    elif _is_tuple(value):
        form = "tuple"
        for number, element in enumerate(value):
            outputs.append(_write_numbered(storage, number, element))
    elif _is_iterator(value):
        form = "chunks"
        # The user's code runs between the chunks: what it raises is its own, and nothing may hold the last chunk while
        # it makes the next (`enumerate` would).
        for chunk in value:
            outputs.append(_write_numbered(storage, len(outputs), chunk))
            del chunk
    else:
        outputs.append(_write_numbered(storage, 0, value))
    written_at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    return Manifest(run_id=run_id, form=form, outputs=outputs, written_at=written_at)


def _write_numbered(storage: Storage, number: int, value: Any) -> StoredValue:
    with disk_errors(storage):
        return write_value(storage, f"output_{number}", value)


@contextmanager
def disk_errors(storage: Storage, *, every: bool = False) -> Iterator[None]:
    """Translate errors of the disk; with `every`, all errors of the operating system."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            # The output's own folder is a temporary one.
            raise DiskFull(storage.folder.parent if isinstance(storage, FolderStorage) else None) from error
        if every or error.errno in _DISK:
            raise OutputError(
                f"the output cannot be stored: {error.strerror or error}",
                where=error.filename and str(error.filename),
                code="output.not_written",
            ) from error
        raise


def _is_tuple(value: Any) -> bool:
    # Named tuples, too; but a time.struct_time is one value.
    return type(value) is tuple or (isinstance(value, tuple) and hasattr(type(value), "_fields"))


def _is_iterator(value: Any) -> bool:
    if not hasattr(type(value), "__next__") or not hasattr(type(value), "__iter__"):
        return False
    # An open file is no data; a RecordBatchReader is one table.
    return not isinstance(value, IOBase) and type(value).__module__.partition(".")[0] != "pyarrow"


def write_value(storage: Storage, name: str, value: Any) -> StoredValue:
    """Store one value in files whose names begin with `name`.

    Raises:
        OutputError: it cannot be stored; the message says which part of it and why.
    """
    data = jsonvalue.dumps(value)
    if data is not None:
        rows = len(value) if type(value) is list else None
        if storage.inline(len(data)) and jsonvalue.is_standard(data):
            return StoredValue(codec="json", rows=rows, value=msgspec.Raw(data))
        file = f"{name}.json"
        storage.put(file, data)
        return StoredValue(file=file, codec="json", rows=rows)
    stored = _write_table(storage, name, value) or _write_tables(storage, name, value)
    if stored is not None:
        return stored
    file = f"{name}.pkl"
    try:
        pickled.write(storage, file, value)
    except pickled.Unpicklable as error:
        raise _unserialisable(name, value, error) from None
    rows = len(value) if is_table(value) and hasattr(type(value), "__len__") else None
    return StoredValue(file=file, codec="pickle", rows=rows)


def read_value(storage: Storage, stored: StoredValue) -> Any:
    """Read what `write_value` stored.

    Raises:
        OutputError: it cannot be read.
    """
    codec = stored.codec
    if codec == "json":
        try:
            return jsonvalue.loads(storage.read(stored.file) if stored.file else stored.value)
        except ValueError as error:
            raise damaged(storage, stored.file, error) from error
    if codec == "pickle":
        return pickled.read(storage, stored.file, stored.file)
    if codec == "list":
        return [read_value(storage, part) for part in stored.parts]
    if codec == "dict":
        return dict(zip(stored.keys or [], [read_value(storage, part) for part in stored.parts], strict=True))
    if codec.startswith("pandas"):
        from streamline.outputs import pandas_frames

        return pandas_frames.read(storage, stored)
    if codec.startswith("polars"):
        from streamline.outputs import polars_frames

        return polars_frames.read(storage, stored)
    if codec.startswith("arrow"):
        from streamline.outputs import arrow_tables

        return arrow_tables.read(storage, stored)
    if codec == "streams":
        from streamline.outputs import streams

        return streams.read(storage, stored)
    raise OutputError(
        f"the output is stored in an unknown form '{codec}'",
        where=stored.file,
        hint="run the block again that stored it",
        code="output.damaged",
    )


def _write_table(storage: Storage, name: str, value: Any) -> StoredValue | None:
    """Store a table of any library; None where it is none, or is one that only pickle holds."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    if library == "pandas":
        from streamline.outputs import pandas_frames

        return pandas_frames.write(storage, name, value)
    if library == "polars":
        from streamline.outputs import polars_frames

        return polars_frames.write(storage, name, value)
    if library == "pyarrow":
        from streamline.outputs import arrow_tables

        return arrow_tables.write(storage, name, value)
    if kind is ParquetFile:
        return _take(storage, name, value)
    if library == "streamline" and kind.__name__ == "Streams":
        from streamline.outputs import streams

        return streams.write(storage, name, value)
    return None


def _take(storage: Storage, name: str, value: ParquetFile) -> StoredValue:
    if value.rows is None or value.columns is None:
        from streamline.outputs import arrow_tables

        return arrow_tables.take(storage, name, value.path)
    file = f"{name}.parquet"
    storage.take(file, value.path)
    return StoredValue(
        file=file,
        codec="pandas",
        rows=value.rows,
        columns=[column for column, _ in value.columns],
        types=[kind for _, kind in value.columns],
    )


_TABLES = {
    ("pandas", "DataFrame"),
    ("pandas", "Series"),
    ("polars", "DataFrame"),
    ("polars", "LazyFrame"),
    ("polars", "Series"),
    ("pyarrow", "Table"),
    ("pyarrow", "RecordBatch"),
}


def is_table(value: Any) -> bool:
    """Return whether a value is a table (or a column) of one of the libraries whose tables are stored as Parquet."""
    kind = type(value)
    return kind is ParquetFile or (kind.__module__.partition(".")[0], kind.__name__) in _TABLES


def _write_tables(storage: Storage, name: str, value: Any) -> StoredValue | None:
    """Store a list or dict of nothing but tables, each in files of its own."""
    keys: list[str] | None = None
    elements: list[Any]
    if type(value) is list:
        elements = value
    elif type(value) is dict and all(type(key) is str for key in value):
        keys, elements = list(value), list(value.values())
    else:
        return None
    if not elements or not all(map(is_table, elements)):
        return None
    parts = [write_value(storage, f"{name}_{number}", element) for number, element in enumerate(elements)]
    return StoredValue(codec="list" if keys is None else "dict", rows=len(parts), parts=parts, keys=keys)


def kind_of(value: Any) -> str:
    """Return the name of a value's type for messages: `a dict`, `a sklearn.LinearRegression`."""
    kind = type(value)
    module = kind.__module__.partition(".")[0] if kind.__module__ != "builtins" else ""
    shown = f"{module}.{kind.__qualname__}" if module else kind.__qualname__
    return f"{'an' if shown[0].lower() in 'aeiou' else 'a'} {shown}"


def _unserialisable(name: str, value: Any, error: pickled.Unpicklable) -> OutputError:
    shown = name.replace("_", " ", 1)
    place = f"; at {error.path}" if error.path else ""
    hint = "return data: tables, lists, dicts, numbers, text, or objects that pickle takes"
    if "attribute lookup" in error.reason or "local object" in error.reason:
        hint = "move the class or function to a module of its own in the project, and import it from there"
    return OutputError(f"{shown}: {kind_of(value)}{place}: {error.reason}", hint=hint, code="output.not_serializable")
