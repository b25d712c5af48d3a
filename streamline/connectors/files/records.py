"""Cuts bytes into records, lines of text or rows of CSV, and decodes them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

from streamline.connectors.kafka.serialization.base import BaseDecoder, UndecodableError
from streamline.connectors.kafka.serialization.json_text import JsonDecoder
from streamline.connectors.kafka.serialization.plain import TextDecoder
from streamline.connectors.stream_connector import Decoder
from streamline.errors import StreamlineError
from streamline.flow.items import Origin

Format: TypeAlias = Literal["json", "text", "csv"]
FORMATS: tuple[Format, ...] = ("json", "text", "csv")

COLUMNS = "csv.columns"
"""Header of an origin with the first row of its file, which names the columns."""

_BOM = b"\xef\xbb\xbf"


class Record(NamedTuple):
    """Bytes of one record without the end of its line, and the offsets of its first byte and behind its last."""

    value: bytes
    start: int
    end: int


class RecordTooLong(StreamlineError):
    """A record is longer than `max_record_bytes`."""

    code = "files.record_too_long"


class Splitter:
    """Cuts bytes into records. A last line without an end waits for more.

    Args:
        format: rows of CSV may have line breaks within quotes; empty lines are records of text only.
        offset: of the first byte that it is fed.
        max_bytes: of one record.
        name: of what is read, for messages.
    """

    def __init__(self, format: Format, offset: int, *, max_bytes: int, name: str) -> None:
        self.offset = offset
        """Of the first byte that is in no record yet."""
        self._quotes = format == "csv"
        self._keep_empty = format == "text"
        self._max = max_bytes
        self._name = name
        self._rest = b""
        self._too_long: RecordTooLong | None = None

    @property
    def waiting(self) -> int:
        """Bytes of the record that is not complete."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> list[Record]:
        """Return the records that are complete now.

        Raises:
            RecordTooLong: one is longer than it may be; raised when the ones before it were returned.
        """
        if self._too_long is not None:
            raise self._too_long
        lines = (self._rest + chunk).split(b"\n")
        rest = lines.pop()
        records: list[Record] = []
        row: list[bytes] = []
        for line in lines:
            if self._quotes:
                row.append(line)
                if sum(part.count(b'"') for part in row) % 2:
                    continue
                line, row = b"\n".join(row), []
            if len(line) > self._max:
                return self._failed(records)
            self._add(line, len(line) + 1, records)
        self._rest = b"\n".join([*row, rest])
        return self._failed(records) if len(self._rest) > self._max else records

    def finish(self) -> list[Record]:
        """Return the last record, whose line has no end; raises as `feed`."""
        if self._too_long is not None:
            raise self._too_long
        rest, self._rest = self._rest, b""
        records: list[Record] = []
        if rest:
            self._add(rest, len(rest), records)
        return records

    def _add(self, line: bytes, length: int, records: list[Record]) -> None:
        start, self.offset = self.offset, self.offset + length
        value = line.removesuffix(b"\r")
        if start == 0:
            value = value.removeprefix(_BOM)
        if value or self._keep_empty:
            records.append(Record(value, start, self.offset))

    def _failed(self, records: list[Record]) -> list[Record]:
        self._too_long = RecordTooLong(
            f"the record at byte {self.offset:,} is longer than {self._max:,} bytes",
            where=self._name,
            hint="is it the right `format`? Otherwise raise `max_record_bytes`",
        )
        if not records:
            raise self._too_long
        return records


class CsvDecoder(BaseDecoder):
    """Makes a dict of a row; the names of the columns are set, or stand in the header COLUMNS of its origin."""

    def __init__(self, delimiter: str, columns: tuple[str, ...] | None) -> None:
        self._delimiter = delimiter
        self._columns = columns
        self._known: dict[bytes, tuple[str, ...]] = {}

    def decode(self, value: bytes, origin: Origin) -> dict[str, str]:
        """See `Decoder.decode`."""
        columns = self._columns or self._columns_of(origin)
        cells = self._cells(value)
        if len(cells) != len(columns):
            raise UndecodableError(f"the row has {len(cells)} values, and there are {len(columns)} columns")
        return dict(zip(columns, cells, strict=True))

    def _columns_of(self, origin: Origin) -> tuple[str, ...]:
        line = next((text for name, text in origin.headers or () if name == COLUMNS), None)
        if line is None:
            raise UndecodableError("the names of the columns are not known")
        if line not in self._known:
            self._known[line] = self._cells(line)
        return self._known[line]

    def _cells(self, line: bytes) -> tuple[str, ...]:
        try:
            rows = list(csv.reader([line.decode()], delimiter=self._delimiter, strict=True))
        except UnicodeDecodeError as error:
            raise UndecodableError(f"it is not UTF-8 text ({error.reason} at byte {error.start})") from None
        except csv.Error as error:
            raise UndecodableError(f"it is no row of CSV ({error})") from None
        return tuple(rows[0]) if rows else ()


def decoder_of(format: Format, delimiter: str, columns: tuple[str, ...] | None) -> Callable[[], Decoder]:
    """Return what makes the decoder of a format."""
    if format == "csv":
        return partial(CsvDecoder, delimiter, columns)
    return JsonDecoder if format == "json" else TextDecoder


PASSED_ON: dict[Format, str] = {"json": "JSON", "text": "STRING"}
"""Names of the formats whose values sinks may take as they are (see `Serde.format`)."""
