"""One file that is read as it grows, and the part of the source's position that says how far."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import zlib
from collections import deque
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from streamline.connectors.files.records import Record, Splitter
from streamline.connectors.files.settings import FileSettings
from streamline.errors import StreamlineError

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 1_024
"""So many bytes of its beginning tell whether a file is still the one that was read."""


class FilePart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a file was read.

    Args:
        path: relative to the project, or absolute; for people, and to find a file that was renamed.
        offset: of the next byte; of a compressed file: of its content.
        head: number of bytes at its beginning, and their hash.
        whole: size of a compressed file that was read to its end.
    """

    path: str
    offset: int
    head: tuple[int, str] = (0, "")
    whole: int | None = None


class TrackedFile:
    """A file and what was read of it.

    Args:
        part: how far it was read earlier.
        shown: its path for people.
        inode: its number and its device's.

    Raises:
        OSError: from methods that read.
    """

    def __init__(
        self, path: Path, shown: str, inode: tuple[int, int], settings: FileSettings, part: FilePart | None = None
    ) -> None:
        self.path = path
        self.shown = shown
        self.inode = inode
        self.compressed = path.suffix == ".gz"
        self.pending: deque[Record] = deque()
        """Records that were read and not given."""
        self.columns: bytes | None = None
        """The first row of a CSV file."""
        self.listed = True
        """Whether its path is still among those that are read."""
        self.whole: int | None = part.whole if part is not None else None
        self.given = part.offset if part is not None else 0
        self._head = part.head if part is not None else (0, "")
        self._settings = settings
        self._file: BinaryIO | None = None
        self._raw: BinaryIO | None = None
        self._splitter = self._splitter_at(self.given)
        self._first_row_wanted = settings.records.format == "csv" and settings.records.columns is None

    @property
    def read_to(self) -> int:
        """The offset behind what was read."""
        return self._splitter.offset + self._splitter.waiting

    @property
    def incomplete(self) -> bool:
        """Whether a last line waits for its end."""
        return self._splitter.waiting > 0

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._file is not None

    def part(self) -> bytes:
        """Return how far its records were given."""
        if self._head[0] < min(self.given or 0, HEAD_BYTES) or (self.compressed and not self._head[0]):
            with contextlib.suppress(OSError):  # gone, after it was read
                self._head = self._read_head(HEAD_BYTES if self.compressed else min(self.given, HEAD_BYTES))
        whole = None if self.pending else self.whole
        return msgspec.json.encode(FilePart(path=self.shown, offset=self.given, head=self._head, whole=whole))

    def changed(self, size: int) -> bool:
        """Return whether what was read is no longer there: it was cut off, or replaced by other content."""
        if self.compressed:
            return self.whole is not None and self.whole != size
        if size < self.read_to:
            return True
        with contextlib.suppress(OSError):
            return self._head[0] > 0 and self._read_head(self._head[0]) != self._head
        return False

    def status(self) -> os.stat_result:
        """Return its size and times, also of one that was removed and is open."""
        return self.path.stat() if self._raw is None else os.fstat(self._raw.fileno())

    def start_anew(self) -> None:
        """Read from the beginning: it is another file by now."""
        self.close()
        self.pending.clear()
        self.given, self.whole, self.columns, self._head = 0, None, None, (0, "")
        self._splitter = self._splitter_at(0)

    def skip_to_end(self, size: int) -> None:
        """Go to the end of its last whole line, of so many bytes."""
        if self.compressed:
            self.whole = size
            return
        file = self._open()
        end = size
        while end > 0:
            begin = max(0, end - CHUNK_BYTES)
            place = os.pread(file.fileno(), end - begin, begin).rfind(b"\n")
            if place >= 0:
                end = begin + place + 1
                break
            end = begin
        file.seek(end)
        self.given = end
        self._splitter = self._splitter_at(end)

    def load(self, limit: int | None) -> bool:
        """Read the next records into `pending`; False: there are no more bytes.

        Args:
            limit: read no further than this offset.

        Raises:
            StreamlineError: a compressed file is broken, or a record too long.
        """
        try:
            file = self._open()
            if self._first_row_wanted and self.columns is None:
                self._read_first_row()
            size = CHUNK_BYTES if limit is None else min(CHUNK_BYTES, limit - self.read_to)
            chunk = file.read(size) if size > 0 else b""
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise StreamlineError(
                f"the compressed file is broken or not complete: {error}",
                where=self.shown,
                hint="write it under another name, and rename it when it is complete",
                code="files.unreadable",
            ) from None
        self._take(self._splitter.feed(chunk))
        return bool(chunk)

    def finish(self) -> None:
        """Take a last line without an end for a record."""
        self._take(self._splitter.finish())

    def close(self) -> None:
        """Close the file; it is opened again when it is read. What was read and not given stays."""
        for file in (self._file, self._raw):
            if file is not None:
                file.close()
        self._file = self._raw = None

    def _take(self, records: list[Record]) -> None:
        for record in records:
            if self._first_row_wanted and record.start == 0:
                self.columns = record.value
            else:
                self.pending.append(record)
        if not self.pending:
            self.given = self._splitter.offset  # empty lines, and the first row

    def _open(self) -> BinaryIO:
        if self._file is None:
            raw = self.path.open("rb", buffering=0)
            status = os.fstat(raw.fileno())
            if (status.st_ino, status.st_dev) != self.inode:
                raw.close()
                raise FileNotFoundError(f"{self.shown} is another file by now")
            self._raw = raw
            self._file = cast(BinaryIO, gzip.GzipFile(fileobj=self._raw)) if self.compressed else self._raw
            self._file.seek(self.read_to)
        return self._file

    def _read_first_row(self) -> None:
        if self.given == 0:
            return  # it comes by itself
        splitter = self._splitter_at(0)
        with self.path.open("rb") as raw:
            file = gzip.GzipFile(fileobj=raw) if self.compressed else raw
            while chunk := file.read(CHUNK_BYTES):
                rows = splitter.feed(chunk)
                if rows:
                    self.columns = rows[0].value
                    return

    def _read_head(self, length: int) -> tuple[int, str]:
        if self._raw is not None:
            head = os.pread(self._raw.fileno(), length, 0)
        else:
            with self.path.open("rb") as file:
                head = file.read(length)
        return len(head), hashlib.sha256(head).hexdigest()[:16]

    def _splitter_at(self, offset: int) -> Splitter:
        records = self._settings.records
        return Splitter(records.format, offset, max_bytes=records.max_record_bytes, name=self.shown)
