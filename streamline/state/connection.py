"""One SQLite connection: private files, WAL, migrations, transactions, errors that a user understands."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamline.errors import ConfigError, DiskFull, StreamlineError, is_disk_full
from streamline.state.migrations import APPLICATION_ID, MIGRATIONS

BUSY_SECONDS = 30.0


_LITTLE_SPACE = 128 << 10
"""Bytes; an I/O error with less space is one of a full disk."""

_HEADER_BYTES = 100
_APPLICATION = slice(68, 72)
"""Where a SQLite file has its application id."""


class SQLiteConnection:
    """A connection for one process; calls of several threads take turns.

    Args:
        path: the database file; it and a missing folder are created, readable by their owner only.

    Raises:
        ConfigError: the file belongs to another program, or a newer Streamline wrote it.
        StreamlineError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = threading.RLock()
        self._durable = True
        try:
            make_private(path)
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            if self._is_full(error):
                raise DiskFull(path) from error
            raise StreamlineError(
                f"the state store cannot be opened: {error}",
                where=str(path),
                hint="check that the folder exists, is writable and has free space",
                code="store.not_opened",
            ) from error
        try:
            with self._errors():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        with self._turn:
            self._db.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection, for SELECTs."""
        with self._turn, self._errors():
            yield self._db

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Yield a transaction, committed at the end of the block, undone if it raises.

        Args:
            durable: wait until it is on the disk. False where a power cut may undo it: it is then still whole or
                absent, and never lost by the death of a process.
        """
        with self._turn, self._errors():
            if durable is not self._durable:
                self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _prepare(self) -> None:
        db = self._db
        version = self._version()
        if version < len(MIGRATIONS):
            # Changing to WAL needs the file for itself and does not wait for its turn, so this does.
            deadline = time.monotonic() + BUSY_SECONDS
            while True:
                try:
                    db.execute("PRAGMA journal_mode=WAL")
                    break
                except sqlite3.OperationalError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
            # Nothing is known yet that a power cut could take away.
            with self.write(durable=False):
                for number in range(self._version(), len(MIGRATIONS)):
                    # executescript() would commit first.
                    for statement in _statements(MIGRATIONS[number]):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version={number + 1}")
                db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute("PRAGMA synchronous=FULL")
        self._durable = True

    def _version(self) -> int:
        """Return how many migrations the database has had; refuse a database that is not ours or is newer."""
        # One statement, so that it sees either nothing or all of what another process is just creating.
        version, application, tables = self._db.execute(
            "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master)"
            " FROM pragma_user_version, pragma_application_id"
        ).fetchone()
        if application != APPLICATION_ID and (version or tables):
            raise ConfigError(
                "this SQLite file belongs to another program",
                where=str(self.path),
                hint="name a separate file in `state:` of streamline.yaml",
                code="store.foreign_file",
            )
        if version > len(MIGRATIONS):
            raise ConfigError(
                f"the state store was written by a newer Streamline (its version {version}, "
                f"this program knows {len(MIGRATIONS)})",
                where=str(self.path),
                hint="upgrade Streamline, or name another file in `state:` of streamline.yaml",
                code="store.newer_version",
            )
        return int(version)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if self._is_full(error):
                raise DiskFull(self.path) from error
            hint = "check the disk's free space and the file's permissions"
            if "locked" in str(error):
                hint = "another process holds a transaction open; see what else uses this file"
            elif "not a database" in str(error):
                hint = "name another file in `state:` of streamline.yaml, or restore this one from a backup"
            raise StreamlineError(
                f"the state store failed: {error}", where=str(self.path), hint=hint, code="store.failed"
            ) from error

    def _is_full(self, error: Exception) -> bool:
        """Return whether an error means a full disk, which SQLite tells as an I/O error where it maps a file."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if is_disk_full(error) or code == sqlite3.SQLITE_FULL:
            return True
        if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
            return False
        disk = os.statvfs(self.path.parent)
        return disk.f_bavail * disk.f_frsize < _LITTLE_SPACE or disk.f_favail == 0 < disk.f_files


def make_private(path: Path) -> None:
    """Create `path` as an empty file, mode 0600, in a folder of mode 0700; tighten what exists.

    A folder that existed before keeps its mode, unless it is a project's `.streamline`: it may not be ours. So does a
    file that is no state store; it is refused when it is opened.
    """
    folder = path.parent
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.name == ".streamline" and folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb") as file:
        header = file.read(_HEADER_BYTES)
        ours = not header or header[_APPLICATION] == APPLICATION_ID.to_bytes(4, "big")
        if ours and os.fstat(file.fileno()).st_mode & 0o077:
            os.fchmod(file.fileno(), 0o600)


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script, one by one."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending
