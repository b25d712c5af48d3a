"""Writers of one file each, by format."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, Protocol

import msgspec

from ..common.arrays import BadValue, TooNarrow, array, json_text
from ..common.columns import ColumnType
from ..common.messages import JSONObject, Record

if TYPE_CHECKING:
    import pyarrow as pa


class Writer(Protocol):
    """Writes records into one open file."""

    def write(self, records: Sequence[Record], rows: Callable[[], list[JSONObject]]) -> None:
        """Append records.

        Args:
            records: as they came.
            rows: decodes them, for formats that need it.

        Raises:
            BadValue: a record cannot be written; nothing of the batch may count.
            TooNarrow: a column's type cannot hold the batch; nothing was written, another file must begin.
        """

    def close(self) -> None:
        """End the content; the file itself stays open."""


def _compressed(file: IO[bytes], compression: str | None) -> IO[bytes]:
    if compression != "gzip":
        return file
    return gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0)  # type: ignore[return-value]


class JSONLWriter:
    """One record per line, its bytes untouched."""

    def __init__(self, file: IO[bytes], compression: str | None) -> None:
        self._file = file
        self._out = _compressed(file, compression)

    def write(self, records: Sequence[Record], rows: Callable[[], list[JSONObject]]) -> None:
        """See `Writer.write`."""
        for index, record in enumerate(records):
            if not isinstance(record, msgspec.Raw):
                # Only what no strict parser reads is decoded already.
                raise BadValue(index, "it contains NaN, an infinity or a lone surrogate, which JSON cannot represent")
            if bytes(record)[:1] != b"{":
                raise BadValue(index, "it is not an object")
        self._out.write(b"\n".join(records) + b"\n")  # type: ignore[arg-type]  # it has the buffer protocol

    def close(self) -> None:
        """See `Writer.close`."""
        if self._out is not self._file:
            self._out.close()


_SPECIAL = re.compile(r'[",\r\n]')


class CSVWriter:
    """A header, and a row per record. Nested values are JSON texts; null is an empty cell, an empty text is quoted."""

    def __init__(self, file: IO[bytes], compression: str | None, columns: Sequence[str]) -> None:
        self._file = file
        self._columns = columns
        self._out = _compressed(file, compression)
        self._out.write((",".join(map(_cell, columns)) + "\r\n").encode())

    def write(self, records: Sequence[Record], rows: Callable[[], list[JSONObject]]) -> None:
        """See `Writer.write`."""
        columns = self._columns
        lines: list[bytes] = []
        for index, row in enumerate(rows()):
            try:
                lines.append(",".join([_cell(row.get(column)) for column in columns]).encode())
            except UnicodeEncodeError:
                raise BadValue(index, "a text of it has a lone surrogate, which UTF-8 cannot represent") from None
            except ValueError as error:
                raise BadValue(index, str(error)) from None
        self._out.write(b"\r\n".join(lines) + b"\r\n")

    def close(self) -> None:
        """See `Writer.close`."""
        if self._out is not self._file:
            self._out.close()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if type(value) is str:
        if not value or _SPECIAL.search(value):
            return '"' + value.replace('"', '""') + '"'
        return value
    if type(value) in (int, float, Decimal):
        return str(value) if type(value) is Decimal else repr(value)
    if type(value) is bool:
        return "true" if value else "false"
    return _cell(json_text(value))


class ParquetWriter:
    """Typed columns; the types are those that the file began with."""

    def __init__(self, file: IO[bytes], compression: str | None, types: dict[str, ColumnType]) -> None:
        self._file = file
        self._compression = compression or "snappy"
        self._types = dict(types)
        self._writer: Any = None

    def write(self, records: Sequence[Record], rows: Callable[[], list[JSONObject]]) -> None:
        """See `Writer.write`."""
        import pyarrow.parquet as pq

        table = self.table(rows())
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema, compression=self._compression)
        self._writer.write_table(table)

    def table(self, rows: Sequence[JSONObject]) -> pa.Table:
        """Return the rows as an Arrow table.

        Raises:
            BadValue: a value breaks its column's schema.
            WiderColumn: a column needs a wider type.
        """
        import pyarrow as pa

        arrays = {}
        for name, type_ in self._types.items():
            try:
                values = array(type_, [row.get(name) for row in rows])
            except TooNarrow as error:
                raise WiderColumn(name, error.wider) from None
            except BadValue as error:
                raise BadValue(error.index, f"column {name!r}: {error.reason}") from None
            if pa.types.is_timestamp(values.type):
                values = values.cast(pa.timestamp("us", "UTC"))
            arrays[name] = values
        return pa.table(arrays)

    def close(self) -> None:
        """See `Writer.close`."""
        if self._writer is not None:
            self._writer.close()


class WiderColumn(TooNarrow):
    """A column of a Parquet file must become wider; `column` names it."""

    def __init__(self, column: str, wider: ColumnType) -> None:
        super().__init__(wider)
        self.column = column
