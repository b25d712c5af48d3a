"""Random SQLite tables, changed between syncs into DuckDB, with deaths; and what the tables there must hold.

After a sync that completed, a table that is read whole equals its source. Of one that is read by a bookmark, each row
that the source has is there as it is, if its bookmark is not below the highest one of the sync before; what was deleted
may stay. Of a row without a bookmark, the first sync has read what was there.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from kit.sql import quoted
from tests.faults.matrix import FaultError, judged, kill_after
from tests.faults.tables_model import same
from tests.support.project import Completed, Project, tap, target

NAME = "syncs"
Value = Any


def _moment(number: int) -> datetime:
    return datetime(2024, 2, 28, 23, 0, tzinfo=UTC) + timedelta(seconds=number * 1800)


def _spelled(dice: random.Random, number: int) -> str:
    moment = _moment(number)
    form = dice.randrange(5)
    if form == 0:
        return moment.strftime("%Y-%m-%d %H:%M:%S")
    if form == 1:
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    if form == 2:
        return moment.astimezone(timezone(timedelta(hours=dice.choice((2, -5))))).isoformat()
    if form == 3:
        return (moment + timedelta(microseconds=500000)).strftime("%Y-%m-%d %H:%M:%S.%f")
    return moment.strftime("%Y-%m-%d %H:%M")


BOOKMARKS: dict[str, tuple[str, Callable[[random.Random, int], Value]]] = {
    "integer": ("INTEGER", lambda dice, number: number),
    "big integer": ("BIGINT", lambda dice, number: 2**60 + number),
    "real": ("REAL", lambda dice, number: number / 7),
    "integers and reals": ("NUMERIC", lambda dice, number: dice.choice((number, number + 0.5))),
    "negative": ("INT", lambda dice, number: number - 20),
    "timestamp": ("DATETIME", lambda dice, number: _moment(number).strftime("%Y-%m-%d %H:%M:%S")),
    "timestamp with T": ("TIMESTAMP", lambda dice, number: _moment(number).strftime("%Y-%m-%dT%H:%M:%SZ")),
    "spellings": ("DATETIME", _spelled),
    "spellings in text": ("TEXT", lambda dice, number: _moment(number).isoformat()),
    "date": ("DATE", lambda dice, number: _moment(number).strftime("%Y-%m-%d")),
    "date and midnight": (
        "DATE",
        lambda dice, number: _moment(48 * (number // 4)).strftime(dice.choice(("%Y-%m-%d", "%Y-%m-%d 00:00:00"))),
    ),
    "code": ("VARCHAR(10)", lambda dice, number: f"Ü{number:04}"),
    "untyped": ("", lambda dice, number: number),
    "epoch in timestamp": ("TIMESTAMP", lambda dice, number: 1_700_000_000 + number),
    "nocase": ("TEXT COLLATE NOCASE", lambda dice, number: f"{'aB'[number // 40 % 2]}{number:04}"),
}
"""Declared type and values, which rise with the number, of columns that rows are read by."""

COLUMNS: dict[str, tuple[Value, ...]] = {
    "INTEGER": (1, -5, 2**62, "text", 2.5),
    "REAL": (1.5, 7.0, 1e300, -0.1),
    "TEXT": ("", "ü", "1E5", "007", 'q"', "null"),
    "BOOLEAN": (0, 1),
    "DECIMAL(10,2)": (1, 2.5, 10.25),
    "DATE": ("2024-02-29", "0001-01-01", "2024-02-29 00:00:00"),
    "DATETIME": ("2024-02-29 10:00:00", "2024-02-29T10:00:00.123456", "2024-02-29 10:00"),
    "JSON": ('{"a": 1}', "[]"),
    "TIME": ("10:00:00", "23:59:59.5"),
    "": (1, "1", 2.5),
    "BLOB": (b"\x00\xff", b""),
}
KEYS: dict[str, Callable[[int], Value]] = {
    "INTEGER PRIMARY KEY": lambda number: number,
    "TEXT PRIMARY KEY NOT NULL": lambda number: f"k{number}",
    "BIGINT PRIMARY KEY NOT NULL": lambda number: 2**60 + number,
}


@dataclass
class Source:
    """A table. `method` is FULL_TABLE or INCREMENTAL; `bookmark` a key of `BOOKMARKS`."""

    name: str
    key: str
    bookmark: str
    method: str
    columns: dict[str, str]
    clock: int = 0
    rows: dict[Value, dict[str, Value]] = field(default_factory=dict)
    due: set[Value] = field(default_factory=set)
    """Keys of rows that the next sync must bring."""
    synced: dict[Value, dict[str, Value]] = field(default_factory=dict)
    """Rows as they must be in the destination."""
    last: int = -1
    """The number of the newest bookmark."""


@dataclass
class Case:
    """Tables, and how often they are changed and synced."""

    number: int
    sources: list[Source]
    interval: int
    batch: int
    syncs: int
    kills: list[tuple[int, float] | None]
    dice: random.Random

    def __str__(self) -> str:
        tables = ", ".join(f"{each.name} {each.method} by {each.bookmark}, {each.key}" for each in self.sources)
        return f"#{self.number} {tables}; {self.syncs} syncs, kills {self.kills}"


def case(number: int, seed: int) -> Case:
    """Return the case of this number: the same for the same seed."""
    dice = random.Random(f"{NAME} {seed} {number}")
    names = dice.sample(("orders", "Order Items", "select", "_hidden"), dice.choice((1, 2)))
    sources = [
        Source(
            name,
            dice.choice(list(KEYS)),
            dice.choice(list(BOOKMARKS)),
            dice.choice(("FULL_TABLE", "INCREMENTAL", "INCREMENTAL")),
            {f"c{place}": dice.choice(list(COLUMNS)) for place in range(dice.randint(1, 4))},
        )
        for name in names
    ]
    syncs = dice.randint(2, 4)
    kills = [
        (dice.choice((9, 9, 15)), dice.uniform(0.2, 1.5)) if dice.random() < 0.35 else None for _ in range(syncs - 1)
    ]
    return Case(number, sources, dice.choice((1, 2, 100)), dice.choice((1, 3, 100)), syncs, [*kills, None], dice)


def suffer(root: Path, made: Case) -> str:
    """Run the case, compare after each sync; return what became of it.

    Raises:
        FaultError: something was wrong; the message says what.
    """
    project = Project(root)
    streams = {
        each.name: {"replication_method": each.method}
        | ({"bookmark_properties": ["at"]} if each.method == "INCREMENTAL" else {})
        for each in made.sources
    }
    project.pipeline(
        "p",
        tap("sqlite", {"path": "s.db", "state_interval": made.interval}, builtin=True, streams=streams),
        target("duckdb", {"path": "w.duckdb", "batch_rows": made.batch, "flush_seconds": 0.05}, builtin=True),
    )
    died = 0
    with judged(project), contextlib.closing(sqlite3.connect(root / "s.db")) as db:
        for source in made.sources:
            _create(db, source)
        for number in range(made.syncs):
            for source in made.sources:
                _change(made.dice, db, source, first=not number)
            completed, killed = _sync(project, made.kills[number])
            died += killed
            if completed.code and not killed:
                raise FaultError(f"sync {number + 1} ends with {completed.code}\n{completed}")
            if completed.code:
                continue
            for source in made.sources:
                try:
                    _check(root, source)
                except FaultError as error:
                    raise FaultError(f"after sync {number + 1}: {error}\n{completed}") from None
    return f"all right, {'with' if died else 'without'} deaths"


def _sync(project: Project, kill: tuple[int, float] | None) -> tuple[Completed, bool]:
    running = project.start("run", "p")
    killed = kill is not None and kill_after(running, *kill)
    completed = running.finish()
    project.assert_nothing_left(completed)
    return completed, killed


def _create(db: sqlite3.Connection, source: Source) -> None:
    columns = [f"id {source.key}", f"at {BOOKMARKS[source.bookmark][0]}"]
    columns += [f"{name} {declared}" for name, declared in source.columns.items()]
    db.execute(f"CREATE TABLE {quoted(source.name)} ({', '.join(columns)})")
    db.commit()


def _change(dice: random.Random, db: sqlite3.Connection, source: Source, *, first: bool) -> None:
    """Insert, update and delete rows; a bookmark never goes back, and may stay."""
    table = quoted(source.name)
    if not first and dice.random() < 0.15:
        name = f"c{len(source.columns)}"
        source.columns[name] = dice.choice([declared for declared in COLUMNS if declared])
        db.execute(f"ALTER TABLE {table} ADD COLUMN {name} {source.columns[name]}")
    for _ in range(dice.choice((0, 1, 5, 12)) if not first else dice.randint(0, 12)):
        event = dice.random()
        if event < 0.15 and source.rows:
            key = dice.choice(list(source.rows))
            db.execute(f"DELETE FROM {table} WHERE id = ?", [key])
            del source.rows[key]
            source.due.discard(key)
            source.synced.pop(key, None)
            continue
        if event < 0.5 and source.rows:
            key = dice.choice(list(source.rows))
        else:
            source.clock += 1
            key = KEYS[source.key](source.clock)
        if dice.random() < 0.8:
            source.last += 1
        bookmark = None
        if source.last >= 0 and dice.random() < 0.95:
            bookmark = BOOKMARKS[source.bookmark][1](random.Random(f"{source.last}"), source.last)
        names = list(source.columns)
        values = [None if dice.random() < 0.2 else dice.choice(COLUMNS[source.columns[name]]) for name in names]
        holes = ", ".join("?" * (len(names) + 2))
        db.execute(
            f"INSERT OR REPLACE INTO {table} (id, at, {', '.join(names)}) VALUES ({holes})", [key, bookmark, *values]
        )
        source.rows[key] = {"at": bookmark} | dict(zip(names, values, strict=True))
        source.due.discard(key)
        source.synced.pop(key, None)
        if bookmark is not None or (first and source.method == "INCREMENTAL"):
            source.due.add(key)
    db.commit()


def _check(root: Path, source: Source) -> None:
    """Compare a table after a complete sync."""
    import duckdb

    held: dict[Value, dict[str, Value]] = {}
    with duckdb.connect(str(root / "w.duckdb")) as db:
        if db.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [source.name]).fetchone():
            cursor = db.execute(f"SELECT * FROM {quoted(source.name)}")
            names = [column[0] for column in cursor.description or ()]
            for row in cursor.fetchall():
                record = dict(zip(names, row, strict=True))
                if record["id"] in held:
                    raise FaultError(f"{source.name}: key {record['id']} is there twice")
                held[record["id"]] = record
    whole = source.method == "FULL_TABLE"
    wanted = set(source.rows) if whole else source.due
    for key in wanted:
        source.synced[key] = source.rows[key]
    source.due.clear()
    if whole and (more := held.keys() - source.rows.keys()):
        raise FaultError(f"{source.name}: {more} were deleted, and are there")
    for key, row in source.synced.items():
        if key not in held:
            raise FaultError(f"{source.name}: row {key} is not there: {row}")
        for name, value in row.items():
            declared = BOOKMARKS[source.bookmark][0] if name == "at" else source.columns[name]
            if not _same(held[key].get(name), value, declared):
                raise FaultError(f"{source.name}: row {key} has {name} = {held[key].get(name)!r}, not {value!r}")


def _same(got: Value, stored: Value, declared: str) -> bool:
    """Whether a value in DuckDB is one that SQLite has stored."""
    if isinstance(stored, bytes):
        return got == stored
    if declared == "BOOLEAN" and isinstance(got, bool):
        return stored in (0, 1) and got == bool(stored)
    moment = declared.startswith(("DATE", "TIMESTAMP")) and isinstance(stored, str)
    return same(got, stored, "moment" if moment else "plain") or (declared == "" and str(got) == str(stored))
