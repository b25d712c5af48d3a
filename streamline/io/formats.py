"""DataFrames in files: CSV, JSON, JSON Lines, Parquet, Excel, XML, HDF5; local, or open on any file system."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from streamline.errors import ConfigError
from streamline.project.extras import need

if TYPE_CHECKING:
    import pandas as pd


class FileFormat(StrEnum):
    """Formats that `load` and `export` know."""

    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    PARQUET = "parquet"
    HDF5 = "hdf5"
    XML = "xml"
    EXCEL = "excel"

    @classmethod
    def from_extension(cls, extension: str) -> FileFormat:
        """The format of files that end so (`csv`, `.parquet`).

        Raises:
            FormatError: no format is known by it.
        """
        known = _EXTENSIONS.get(extension.lstrip(".").lower())
        if known is None:
            raise FormatError(
                f"no format is known for files that end in '.{extension.lstrip('.')}'"
                if extension
                else "a file without an extension does not tell its format",
                hint=f"give format=, one of {', '.join(cls)}",
            )
        return known


_EXTENSIONS = {
    "csv": FileFormat.CSV,
    "json": FileFormat.JSON,
    "jsonl": FileFormat.JSONL,
    "ndjson": FileFormat.JSONL,
    "parquet": FileFormat.PARQUET,
    "pq": FileFormat.PARQUET,
    "hdf5": FileFormat.HDF5,
    "hdf": FileFormat.HDF5,
    "h5": FileFormat.HDF5,
    "xml": FileFormat.XML,
    "excel": FileFormat.EXCEL,
    "xlsx": FileFormat.EXCEL,
    "xlsm": FileFormat.EXCEL,
    "xls": FileFormat.EXCEL,
}
# pandas itself would cut numbers after ten digits.
_JSON: dict[str, Any] = {"date_format": "iso", "force_ascii": False, "double_precision": 15}
_COMPRESSIONS = {"gz": "gzip", "bz2": "bz2", "xz": "xz", "zip": "zip", "zst": "zstd"}


class FormatError(ConfigError, ValueError):
    """A format that is not known, or that cannot be had here."""

    code = "file.format_unknown"

    __str__ = ConfigError.__str__


def format_of(path: str, given: str | None = None) -> FileFormat:
    """The format that was given, by its name or an extension, else the one that the path's extension means.

    Raises:
        FormatError: no such format, or none is known by the extension.
    """
    if given is not None:
        name = str(given).lower()
        if name in _EXTENSIONS:
            return _EXTENSIONS[name]
        raise FormatError(f"there is no format '{given}'", hint=f"formats: {', '.join(FileFormat)}")
    parts = PurePosixPath(path).name.split(".")
    if len(parts) > 2 and parts[-1].lower() in _COMPRESSIONS:
        parts.pop()
    return FileFormat.from_extension(parts[-1] if len(parts) > 1 else "")


def compression_of(path: str) -> str | None:
    """How a file is compressed, by its extension (`.csv.gz`)."""
    return _COMPRESSIONS.get(path.rpartition(".")[2].lower())


def read_frame(
    source: str | IO[bytes], kind: FileFormat, *, limit: int | None = None, name: str = "", **options: Any
) -> pd.DataFrame:
    """The DataFrame that a file holds.

    Args:
        source: a path, or a file open for reading bytes.
        kind: its format.
        limit: no more rows than these, from the top; the rest is not read where the format allows.
        name: the file's name, where `source` has none; tells its compression.
        options: arguments of pandas' reader.

    Raises:
        FormatError: the package that reads the format is not installed.
    """
    import pandas

    pd: Any = pandas  # its readers are typed by overloads that say nothing about keyword arguments passed on
    path = name or (source if isinstance(source, str) else "")
    if not isinstance(source, str) and kind in (FileFormat.CSV, FileFormat.JSON, FileFormat.JSONL, FileFormat.XML):
        options.setdefault("compression", compression_of(path))
    if kind is FileFormat.CSV:
        rows: pandas.DataFrame = pd.read_csv(source, **({"nrows": limit} if limit is not None else {}) | options)
        return rows
    if kind is FileFormat.PARQUET:
        return _read_parquet(source, limit, options)
    reader: Callable[..., Any]
    if kind in (FileFormat.JSON, FileFormat.JSONL):
        reader = pd.read_json
        if kind is FileFormat.JSONL:
            options = {"lines": True} | options
        if limit is not None and options.get("lines"):
            options = {"nrows": max(limit, 1)} | options  # of no lines at all pandas knows no columns
    elif kind is FileFormat.XML:
        reader, options = pd.read_xml, _xml(options)
    elif kind is FileFormat.EXCEL:
        reader = pd.read_excel
        _need_excel(path, options)
    else:
        reader = pd.read_hdf
        _need_hdf5()
    frame: pandas.DataFrame = reader(source, **options)
    return frame.head(limit) if limit is not None and hasattr(frame, "head") else frame


def write_frame(data: Any, target: str | IO[bytes], kind: FileFormat, *, name: str = "", **options: Any) -> None:
    """Write a DataFrame (pandas, Polars, an Arrow table, a dict or list of records) to a file.

    The index is written where pandas keeps it apart from the columns (Parquet, JSON); to CSV, Excel and XML only
    if it has a name. `index=` decides otherwise.

    Args:
        data: what to write.
        target: a path, or a file open for writing bytes.
        kind: the format.
        name: the file's name, where `target` has none; tells its compression.
        options: arguments of pandas' writer.

    Raises:
        FormatError: the package that writes the format is not installed.
    """
    from streamline.io.frames import as_pandas

    path = name or (target if isinstance(target, str) else "")
    if not isinstance(target, str) and kind in (FileFormat.CSV, FileFormat.JSON, FileFormat.JSONL, FileFormat.XML):
        options.setdefault("compression", compression_of(path))
    frame: Any = as_pandas(data)
    if kind in (FileFormat.CSV, FileFormat.EXCEL, FileFormat.XML):
        options.setdefault("index", any(level is not None for level in frame.index.names))
    if kind is FileFormat.CSV:
        frame.to_csv(target, **options)
    elif kind is FileFormat.PARQUET:
        frame.to_parquet(target, **options)
    elif kind is FileFormat.JSON:
        frame.to_json(target, **_JSON | options)
    elif kind is FileFormat.JSONL:
        frame.to_json(target, **_JSON | {"orient": "records", "lines": True} | options)
    elif kind is FileFormat.XML:
        frame.to_xml(target, **_xml(options))
    elif kind is FileFormat.EXCEL:
        _need_excel(path, options)
        frame.to_excel(target, **options)
    else:
        _need_hdf5()
        if not isinstance(target, str):
            raise FormatError("HDF5 is written to files of its own, not into open ones")
        options.setdefault("key", PurePosixPath(path).name.partition(".")[0])
        frame.to_hdf(target, **options)


def _read_parquet(source: str | IO[bytes], limit: int | None, options: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    if limit is None:
        return pd.read_parquet(source, **options)
    if options or (isinstance(source, str) and "://" in source):
        return pd.read_parquet(source, **options).head(limit)
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        batches, rows = [], 0
        for batch in file.iter_batches(batch_size=max(1, min(limit, 65_536))):
            if rows >= limit:
                break
            batches.append(batch.slice(0, limit - rows))
            rows += batches[-1].num_rows
        table = pa.Table.from_batches(batches, schema=file.schema_arrow)
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _xml(options: dict[str, Any]) -> dict[str, Any]:
    """lxml is pandas' own choice, and no dependency of ours; Python's parser reads all but XPath 1.0's finer points."""
    if "parser" in options:
        return options
    import importlib.util

    return options if importlib.util.find_spec("lxml") is not None else {"parser": "etree", **options}


def _need_excel(path: str, options: dict[str, Any]) -> None:
    if "engine" not in options:
        if path.lower().endswith(".xls"):
            need("xlrd", "pip:xlrd", "reading .xls files")
        else:
            need("openpyxl", "excel", "the format excel")


def _need_hdf5() -> None:
    need("tables", "pip:tables", "the format hdf5")
