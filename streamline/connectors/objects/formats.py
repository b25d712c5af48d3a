"""Files of messages: lines of JSON, or Parquet with columns of the types that a file's messages need."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from streamline.connectors.kafka.serialization.json_text import decode_json, encode_json
from streamline.connectors.tables.values import Family, family_of, widest

GROUP_ROWS = 50_000
"""Rows of a row group; so many are in memory at a time."""

_COMPRESSED = {"gzip": "gzip", "zstd": "zstd"}
_TYPES: Mapping[Family, pa.DataType] = {
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "decimal": pa.float64(),
    "moment": pa.timestamp("us", "UTC"),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
}
"""All others are text."""


class MessageFile(Protocol):
    """A file that is being written."""

    def add(self, lines: Sequence[bytes], data: Sequence[Any]) -> None:
        """Add messages: their JSON texts, each with the end of its line, and their data."""
        ...

    def close(self) -> None:
        """Complete it."""
        ...


class LinesFile:
    """Implements `MessageFile`: a JSON text per line."""

    def __init__(self, path: Path, compression: str) -> None:
        self._file: Any = (
            pa.CompressedOutputStream(str(path), _COMPRESSED[compression])
            if compression in _COMPRESSED
            else path.open("wb")
        )

    def add(self, lines: Sequence[bytes], data: Sequence[Any]) -> None:
        """See `MessageFile.add`."""
        self._file.write(b"".join(lines))

    def close(self) -> None:
        """See `MessageFile.close`."""
        self._file.close()


class ParquetFile:
    """Implements `MessageFile`. Lines wait in a file beside it until it is known what its columns are.

    Args:
        known: families of columns of earlier files of the same stream; this one's are noted there, so that a column
            keeps its type from one file to the next, unless a value needs a wider one.
    """

    def __init__(self, path: Path, compression: str, known: MutableMapping[str, Family]) -> None:
        self._path = path
        self._compression = compression
        self._known = known
        self._columns: dict[str, Family | None] = {}
        self._lines_path = path.with_name(path.name + ".lines")
        self._lines: IO[bytes] = self._lines_path.open("wb")

    def add(self, lines: Sequence[bytes], data: Sequence[Any]) -> None:
        """See `MessageFile.add`."""
        self._lines.write(b"".join(lines))
        for name in dict.fromkeys(name for row in data for name in row):
            family = family_of([row.get(name) for row in data])
            families = (self._columns.get(name), self._known.get(name), family)
            self._columns[name] = merged = widest({each for each in families if each is not None})
            if merged is not None:
                self._known[name] = merged

    def close(self) -> None:
        """See `MessageFile.close`."""
        self._lines.close()
        schema = pa.schema([pa.field(name, self._type(name)) for name in self._columns])
        with (
            self._lines_path.open("rb") as lines,
            pq.ParquetWriter(self._path, schema, compression=self._compression) as writer,
        ):
            for rows in _groups(lines):
                arrays = [self._array(field, [row.get(field.name) for row in rows]) for field in schema]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        self._lines_path.unlink()

    def _type(self, name: str) -> pa.DataType:
        family = self._columns[name]
        return _TYPES.get(family, pa.string()) if family is not None else pa.string()

    def _array(self, field: pa.Field, values: list[Any]) -> pa.Array:
        family = self._columns[field.name]
        if family in ("moment", "timestamp"):
            return pa.array([value and dt.datetime.fromisoformat(value) for value in values], field.type)
        if family == "date":
            return pa.array([value and dt.date.fromisoformat(value) for value in values], field.type)
        if family in ("number", "decimal"):
            return pa.array([None if value is None else float(value) for value in values], field.type)
        if field.type == pa.string():
            return pa.array([_text(value, as_json=family == "json") for value in values], field.type)
        return pa.array(values, field.type)


def _text(value: Any, *, as_json: bool) -> str | None:
    if value is None or (isinstance(value, str) and not as_json):
        return value
    return encode_json(value).decode()


def _groups(lines: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    while rows := [decode_json(line) for line in islice(lines, GROUP_ROWS)]:
        yield rows
