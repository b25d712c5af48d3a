"""The local copy of a state partition: it saves reading the whole changelog at each start. It may be deleted."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import itemgetter
from pathlib import Path

import msgspec

from streamline.errors import StreamlineError

_FORMAT = 1

ROWS = 200
"""Rows of one statement. After each statement other threads may take their turn, and not give it back for a while."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stand (value TEXT NOT NULL);
"""

_ANY = "SELECT 1 FROM entries WHERE key BETWEEN ? AND ? LIMIT 1"

LONGEST_AGE = 12 * 3600.0
"""Seconds after which a copy is not used any more: compaction removes tombstones after a day (delete.retention.ms), and
a copy that has not seen them would keep deleted keys."""


class Stand(msgspec.Struct, frozen=True):
    """Where a copy stands.

    Args:
        offset: of the changelog; everything before it is in the copy.
        topic_id: of the changelog; None: the cluster gives none.
        time: when it was written, in seconds since 1970.
    """

    offset: int
    topic_id: str | None = None
    time: float = 0.0
    format: int = _FORMAT


class StateCache:
    """Values by key in an SQLite file. One thread uses it. A file that is damaged is made anew."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self.stand: Stand | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open()
            self.stand = self._read_stand()
        except (sqlite3.DatabaseError, msgspec.DecodeError):
            self.clear()

    def _open(self) -> None:
        self._db = sqlite3.connect(self._path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA cache_size = -65536")
        self._db.executescript(_SCHEMA)

    def _read_stand(self) -> Stand | None:
        row = self._db.execute("SELECT value FROM stand").fetchone()
        if row is None:
            return None
        stand = msgspec.json.decode(row[0], type=Stand)
        return stand if stand.format == _FORMAT and self._clock() - stand.time < LONGEST_AGE else None

    def clear(self) -> None:
        """Make it empty; it stands nowhere."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._open()
        self.stand = None

    def get(self, key: bytes) -> bytes | None:
        """Return a value."""
        row = self._db.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
        return row[0] if row is not None else None

    def range(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys from `first` to before `last`, in their order, with their values."""
        rows = self._db.execute("SELECT key, value FROM entries WHERE key >= ? AND key < ? ORDER BY key", (first, last))
        try:
            yield from rows
        finally:
            rows.close()

    def write(self, changes: Iterable[tuple[bytes, bytes | None]], offset: int | None, topic_id: str | None) -> None:
        """Write values (None deletes) and where it stands then, in one transaction.

        Args:
            offset: None: as before.
        """
        new: list[tuple[bytes, bytes]] = []
        gone: list[bytes] = []
        for key, value in changes:
            if value is None:
                gone.append(key)
            else:
                new.append((key, value))
        new.sort(key=itemgetter(0))  # neighbours stand on one page
        gone.sort()
        self._db.execute("BEGIN")
        try:
            for start in range(0, len(new), ROWS):
                rows = new[start : start + ROWS]
                places = ",".join(["(?,?)"] * len(rows))
                self._db.execute(f"INSERT OR REPLACE INTO entries VALUES {places}", [*chain.from_iterable(rows)])
            for start in range(0, len(gone), ROWS):
                keys = gone[start : start + ROWS]
                # Of a window that closes soon, nothing has been written.
                if self._db.execute(_ANY, (keys[0], keys[-1])).fetchone() is not None:
                    self._db.execute(f"DELETE FROM entries WHERE key IN ({','.join('?' * len(keys))})", keys)
            if offset is not None:
                self.stand = Stand(offset, topic_id, self._clock())
                self._db.execute("DELETE FROM stand")
                self._db.execute("INSERT INTO stand VALUES (?)", (msgspec.json.encode(self.stand).decode(),))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise StreamlineError(
                f"the local copy of the state cannot be written: {error}",
                where=str(self._path),
                hint="see that the disk has room; the file may be deleted",
                code="state.cache_unusable",
            ) from error

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self._db.close()
