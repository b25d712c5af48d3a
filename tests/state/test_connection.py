"""A SQLite connection whose file is locked, or whose disk is full."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamline.state import connection
from streamline.state.connection import SQLiteConnection
from tests.support.failures import fails

ROOMY = {"f_bavail": 1000, "f_frsize": 4096, "f_favail": 1000, "f_files": 1000}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def opened(file: Path) -> Iterator[SQLiteConnection]:
    with closing(SQLiteConnection(file)) as opened:
        yield opened


@pytest.fixture
def holder(file: Path) -> Iterator[sqlite3.Connection]:
    """A new database that another program is writing to."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield db


def clock(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], object]) -> None:
    """Make waiting for the file take no time."""
    now = iter(range(0, 1_000_000, 10))
    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: next(now), sleep=sleep))


def test_a_new_database_is_prepared_once_the_file_is_free(
    holder: sqlite3.Connection, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, lambda seconds: holder.rollback())
    with closing(SQLiteConnection(file)) as opened, opened.read() as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_stays_locked_is_given_up(
    holder: sqlite3.Connection, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, lambda seconds: None)
    with fails("store.failed", str(file)) as caught:
        SQLiteConnection(file)
    assert "another process holds a transaction open" in str(caught.value.hint)


def test_a_prepared_database_is_opened_while_another_process_writes(
    opened: SQLiteConnection, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0)
    with opened.write(), closing(SQLiteConnection(file)) as other, other.read() as db:
        assert db.execute("SELECT count(*) FROM bookmarks").fetchone() == (0,)


def test_a_write_waits_for_the_disk_unless_a_power_cut_may_undo_it(opened: SQLiteConnection) -> None:
    normal, full = 1, 2
    for durable in (False, True, True, False):
        with opened.write(durable=durable) as db:
            assert db.execute("PRAGMA synchronous").fetchone() == (full if durable else normal,)


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "disk", "code"),
    [
        (sqlite_error(sqlite3.SQLITE_FULL), {}, "disk.full"),
        (OSError(errno.ENOSPC, "full"), {}, "disk.full"),
        (OSError(errno.EACCES, "denied"), {}, "store.not_opened"),
        (sqlite_error(sqlite3.SQLITE_IOERR), {}, "store.not_opened"),
        (sqlite_error(sqlite3.SQLITE_IOERR), {"f_bavail": 31}, "disk.full"),
        (sqlite_error(sqlite3.SQLITE_IOERR_WRITE), {"f_bavail": 31}, "disk.full"),
        (sqlite_error(sqlite3.SQLITE_CANTOPEN), {"f_bavail": 31}, "disk.full"),
        (sqlite_error(sqlite3.SQLITE_CANTOPEN), {"f_bavail": 32}, "store.not_opened"),
        (sqlite_error(sqlite3.SQLITE_BUSY), {"f_bavail": 31}, "store.not_opened"),
        (sqlite_error(sqlite3.SQLITE_IOERR), {"f_favail": 0}, "disk.full"),
        # A file system that makes inodes as they are needed.
        (sqlite_error(sqlite3.SQLITE_IOERR), {"f_favail": 0, "f_files": 0}, "store.not_opened"),
    ],
)
def test_a_full_disk_is_told_from_other_errors(
    file: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, disk: dict[str, int], code: str
) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr(connection, "make_private", fail)
    monkeypatch.setattr(connection.os, "statvfs", lambda path: SimpleNamespace(**{**ROOMY, **disk}))
    with fails(code, str(file)):
        SQLiteConnection(file)


def test_a_store_that_cannot_grow_has_a_full_disk(opened: SQLiteConnection) -> None:
    with fails("disk.full"), opened.write() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count={pages}")
        db.execute("CREATE TABLE more AS SELECT zeroblob(100000)")


def test_a_database_that_fails_is_told_with_what_to_look_at(opened: SQLiteConnection) -> None:
    with fails("store.failed", "no such table") as caught, opened.read() as db:
        db.execute("SELECT * FROM absent")
    assert "permissions" in str(caught.value.hint)


def test_a_file_that_is_no_database_is_told_with_the_setting(file: Path) -> None:
    file.write_text("remember the milk\n" * 100)
    with fails("store.failed") as caught:
        SQLiteConnection(file)
    assert "streamline.yaml" in str(caught.value.hint)
