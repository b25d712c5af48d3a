"""Where an INCREMENTAL read of files begins and how far it is: by modification time, or by columns."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kit.connector import ConnectorError

from ..common.incremental import MANY_ROWS, Bookmark, Tracker
from .kinds import kinds_of

MODIFIED_AT = "_file_modified_at"
"""The column that stands for the file's modification time, in UTC to the microsecond."""


class File(NamedTuple):
    """A file as it was when the run began; one that changes while it is read has another time in the next run."""

    path: Path
    name: str
    modified_ns: int
    size: int

    @property
    def modified_at(self) -> str:
        """RFC 3339, rounded down to microseconds."""
        moment = datetime.fromtimestamp(self.modified_ns // 10**9, UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{self.modified_ns % 10**9 // 1000:06d}Z"


def stat(path: Path) -> File:
    """Return the file as it is now.

    Raises:
        ConnectorError: it is gone.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ConnectorError(f"{path}: {error.strerror or error}") from error
    return File(path, str(path), status.st_mtime_ns, status.st_size)


class FilePosition:
    """By modification time: the bookmark knows every file that was read by name, time and size.

    So a file is read if it is new or changed, however old its time is: copies keep the times of their originals.

        {"_file_modified_at": "2026-01-31T10:00:00.000000Z", "files": {"in/a.csv": [1769853600000000000, 512]}}
    """

    def __init__(self, saved: dict[str, Any]) -> None:
        self._read: dict[str, list[int]] = {}
        self._start: str | None = saved.get(MODIFIED_AT)
        if self._start is None and saved.get("replication_key") == MODIFIED_AT:
            self._start = saved.get("replication_key_value")
        files = saved.get("files")
        if isinstance(files, dict):
            self._read = {name: seen for name, seen in files.items() if isinstance(seen, list)}
        # A time that no file in the list has was set by hand: what was modified since then is read again.
        self._by_hand = self._start is not None and self._start != self._newest()

    def _newest(self) -> str | None:
        times = [seen[0] for seen in self._read.values()]
        return File(Path(), "", max(times), 0).modified_at if times else None

    def pending(self, files: list[File]) -> list[File]:
        """Return files to read, the oldest first; deleted files are forgotten."""
        if self._by_hand:
            start = str(self._start)
            pending = [file for file in files if file.modified_at >= start]
            later = {file.name for file in pending}
            self._read = {file.name: [file.modified_ns, file.size] for file in files if file.name not in later}
        else:
            pending = [file for file in files if self._read.get(file.name) != [file.modified_ns, file.size]]
            names = {file.name for file in files}
            self._read = {name: seen for name, seen in self._read.items() if name in names}
        return sorted(pending, key=lambda file: (file.modified_ns, file.name))

    def done(self, file: File) -> None:
        """Record a file that was read to its end."""
        self._read[file.name] = [file.modified_ns, file.size]

    def bookmark(self) -> dict[str, Any] | None:
        """Return the position now, None where no file was read yet."""
        newest = self._newest()
        return None if newest is None else {MODIFIED_AT: newest, "files": dict(self._read)}


class ColumnPosition:
    """By columns. Files are in no order, so the bookmark moves only when all of them were read.

    Args:
        columns: the bookmark columns.
        properties: their schemas, which say how values compare.
        saved: the stream's bookmark.
    """

    def __init__(self, columns: list[str], properties: dict[str, Any], saved: dict[str, Any]) -> None:
        self._columns = columns
        self._comparers = [_comparer(column, kinds_of(properties[column])) for column in columns]
        bookmark = Bookmark(columns, saved)
        self._tracker = Tracker(bookmark)
        self._start = tuple(compare(value) for compare, value in zip(self._comparers, bookmark.start, strict=False))
        self._highest: tuple[Any, ...] | None = None
        self._value: tuple[Any, ...] = ()
        self._records: list[bytes] = []
        self.without_value = 0

    @property
    def continues(self) -> bool:
        """Whether an earlier run left a position."""
        return bool(self._start)

    def wants(self, row: dict[str, Any], record: bytes) -> bool:
        """Return whether the row is to be sent; notes its position.

        Raises:
            ConnectorError: a bookmark column holds what cannot be compared.
        """
        values = [row.get(column) for column in self._columns]
        key = tuple(None if _is_null(v) else c(v) for c, v in zip(self._comparers, values, strict=True))
        if None in key:
            self.without_value += 1
            return not self._start
        start = self._start
        if start and key[: len(start)] < start:
            return False
        if self._highest is None or key > self._highest:
            self._highest = key
            self._value = tuple(map(_plain, values))
            self._records = []
        if key == self._highest:
            self._records.append(record)
            if len(self._records) >= MANY_ROWS:
                self._note()
        return not (len(start) == len(key) and key == start) or self._tracker.is_new(record)

    def _note(self) -> None:
        self._tracker.at(self._value, self._records)
        self._records = []

    def bookmark(self) -> dict[str, Any] | None:
        """Return the position after all files were read, None where no row has one."""
        if self._highest is not None:
            self._note()
        return self._tracker.bookmark(done=True)


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, msgspec.Raw) and bytes(value) == b"null")


def _plain(value: Any) -> Any:
    """Return a cell as a value that JSON can keep exactly."""
    if isinstance(value, msgspec.Raw):
        value = json.loads(bytes(value), parse_float=Decimal)
    if isinstance(value, Decimal):
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, (int, float, str)):
        return value
    return str(value)


def _comparer(column: str, kinds: set[str]) -> Callable[[Any], Any]:
    """Return a function that makes comparable values of a column's cells, and of bookmark values."""

    def compare(value: Any) -> Any:
        value = _plain(value)
        try:
            if kinds & {"integer", "number"}:
                return Decimal(str(value))
            if kinds & {"date", "date-time"}:
                moment = datetime.fromisoformat(value)
                return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        except (InvalidOperation, ValueError, TypeError):
            raise ConnectorError(
                f"bookmark column {column!r} contains {value!r}, which cannot be compared with its other values"
            ) from None
        return str(value)

    return compare
