"""The half of the SQLite store that keeps positions: bookmarks, their history and epochs, consumed overrides."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from streamline.errors import ConfigError
from streamline.state.store import (
    Bookmark,
    BookmarkOverride,
    BookmarkSave,
    Cause,
    DeadLetter,
    HistoryEntry,
    StateChange,
)

if TYPE_CHECKING:
    import sqlite3

    from streamline.state.connection import SQLiteConnection

T = TypeVar("T")

# Of a stream's history these newest rows are kept, and of older ones the last of each run, up to a limit: a run that
# goes on for months saves every second.
HISTORY_NEWEST = 50
HISTORY_LIMIT = 1000

_KEY = "pipeline = ? AND block = ? AND stream = ?"
_HISTORY_COLUMNS = (
    "id, pipeline, block, stream, value, run_id, saved_at, epoch, cause, sinks, replication_method, replication_key"
)


def now() -> str:
    """Return the current time, ISO 8601 in UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def storable(text: str) -> str:
    """Return `text` with lone surrogates, which have no UTF-8, as JSON escapes: any reader sees the same JSON text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


_decode_headers: Callable[[str], Any] = msgspec.json.Decoder(list[tuple[str, bytes | None]]).decode
# Columns that hold JSON text (bytes within it are base64) or 0 and 1.
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "results": msgspec.json.decode,
    "sinks": msgspec.json.decode,
    "summary": msgspec.json.decode,
    "gap": bool,
    "headers": lambda text: None if text is None else _decode_headers(text),
}


def read_rows(kind: Callable[..., T], cursor: sqlite3.Cursor) -> list[T]:
    """Return the rows of a SELECT as structs of a type; the columns are named as its fields."""
    names = [column[0] for column in cursor.description]
    decoders = [_DECODERS.get(name, lambda value: value) for name in names]
    return [
        kind(**{name: decode(value) for name, decode, value in zip(names, decoders, row, strict=True)})
        for row in cursor
    ]


class PositionTables:
    """Implements the methods of `Store` that concern positions."""

    _connection: SQLiteConnection

    def bookmarks(self, pipeline: str, block: str) -> dict[str, Bookmark]:
        with self._connection.read() as db:
            cursor = db.execute(
                "SELECT pipeline, block, stream, value, run_id, saved_at, epoch, sinks, replication_method,"
                " replication_key, gap FROM bookmarks"
                " WHERE pipeline = ? AND block = ? AND value IS NOT NULL ORDER BY stream",
                (pipeline, block),
            )
            return {bookmark.stream: bookmark for bookmark in read_rows(Bookmark, cursor)}

    def bookmark_blocks(self, pipeline: str) -> list[str]:
        with self._connection.read() as db:
            rows = db.execute(
                "SELECT DISTINCT block FROM bookmarks WHERE pipeline = ? ORDER BY block", (pipeline,)
            ).fetchall()
        return [block for (block,) in rows]

    def epochs(self, pipeline: str, block: str) -> dict[str, int]:
        with self._connection.read() as db:
            rows = db.execute(
                "SELECT stream, epoch FROM bookmarks WHERE pipeline = ? AND block = ?", (pipeline, block)
            ).fetchall()
        return dict(rows)

    def save(
        self,
        pipeline: str,
        block: str,
        run_id: str,
        bookmarks: Sequence[BookmarkSave],
        dead_letters: Sequence[DeadLetter] = (),
        consumed_overrides: Sequence[BookmarkOverride] = (),
        dropped: Sequence[str] = (),
        state: Sequence[StateChange] = (),
    ) -> None:
        with self._connection.write() as db:
            time = now()
            for bookmark in bookmarks:
                _put(
                    db,
                    (pipeline, block, bookmark.stream),
                    value=storable(bookmark.value),
                    run_id=run_id,
                    time=time,
                    cause=bookmark.cause,
                    proof=_proof(bookmark),
                    gap=bookmark.gap,
                )
                _put_destinations(db, (pipeline, block, bookmark.stream), bookmark.destinations)
            _take_away(db, pipeline, block, dropped, run_id, "run")
            _add_dead_letters(db, dead_letters, time)
            _change_state(db, pipeline, state)
            db.executemany(
                "INSERT OR IGNORE INTO consumed_overrides VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (pipeline, block, override.stream, override.column, storable(override.value), run_id, time)
                    for override in consumed_overrides
                ],
            )

    def keyed_value(self, pipeline: str, block: str, source: str, key: bytes) -> bytes | None:
        with self._connection.read() as db:
            row = db.execute(
                "SELECT value FROM keyed_state WHERE pipeline = ? AND block = ? AND source = ? AND key = ?",
                (pipeline, block, source, key),
            ).fetchone()
        value: bytes | None = row[0] if row is not None else None
        return value

    def keyed_values(
        self, pipeline: str, block: str, source: str, first: bytes = b"", last: bytes | None = None, limit: int = -1
    ) -> list[tuple[bytes, bytes]]:
        with self._connection.read() as db:
            rows: list[tuple[bytes, bytes]] = db.execute(
                "SELECT key, value FROM keyed_state WHERE pipeline = ?1 AND block = ?2 AND source = ?3"
                " AND key >= ?4 AND (?5 IS NULL OR key < ?5) ORDER BY key LIMIT ?6",
                (pipeline, block, source, first, last, limit),
            ).fetchall()
        return rows

    def set_bookmark(
        self, pipeline: str, block: str, stream: str, value: str, *, run_id: str, cause: Cause = "set"
    ) -> None:
        with self._connection.write() as db:
            _put(db, (pipeline, block, stream), value=storable(value), run_id=run_id, time=now(), cause=cause)

    def reset(self, pipeline: str, block: str, streams: Sequence[str] | None = None, *, run_id: str) -> list[str]:
        with self._connection.write() as db:
            present = _streams_with_value(db, pipeline, block)
            wanted = [stream for stream in present if streams is None or stream in streams]
            _take_away(db, pipeline, block, wanted, run_id, "reset")
            if streams is None:
                db.execute("DELETE FROM keyed_state WHERE pipeline = ? AND source = ?", (pipeline, block))
        return wanted

    def history(
        self, pipeline: str, block: str | None = None, stream: str | None = None, limit: int = 50
    ) -> list[HistoryEntry]:
        where, values = matching({"pipeline": pipeline, "block": block, "stream": stream})
        with self._connection.read() as db:
            return read_rows(
                HistoryEntry,
                db.execute(
                    f"SELECT {_HISTORY_COLUMNS} FROM bookmark_history WHERE {where} ORDER BY id DESC LIMIT ?",
                    (*values, limit),
                ),
            )

    def rollback(
        self,
        pipeline: str,
        block: str,
        stream: str | None = None,
        *,
        to: int | None = None,
        before_run: str | None = None,
        run_id: str,
    ) -> list[str]:
        changed = []
        with self._connection.write() as db:
            where, values = matching({"pipeline": pipeline, "block": block, "stream": stream})
            newest = _rollback_point(db, where, values, to, before_run)
            time = now()
            streams = db.execute(f"SELECT DISTINCT stream FROM bookmark_history WHERE {where}", values).fetchall()
            for (name,) in streams:
                key = (pipeline, block, name)
                then = db.execute(
                    "SELECT value, sinks, replication_method, replication_key, destinations FROM bookmark_history"
                    f" WHERE {_KEY} AND id <= ? ORDER BY id DESC LIMIT 1",
                    (*key, newest),
                ).fetchone() or (None, "[]", None, None, None)
                (value,) = db.execute(f"SELECT value FROM bookmarks WHERE {_KEY}", key).fetchone()
                if value != then[0]:
                    db.execute(f"DELETE FROM bookmark_destinations WHERE {_KEY}", key)
                    _put(db, key, value=then[0], run_id=run_id, time=time, cause="rollback", proof=then[1:4])
                    if then[4] is not None:
                        _put_destinations(db, key, json.loads(then[4]))
                    changed.append(name)
        return sorted(changed)

    def import_state(
        self, pipeline: str, block: str, bookmarks: Sequence[BookmarkSave], *, run_id: str, replace: bool = False
    ) -> list[str]:
        with self._connection.write() as db:
            before: dict[str, str | None] = dict(
                db.execute("SELECT stream, value FROM bookmarks WHERE pipeline = ? AND block = ?", (pipeline, block))
            )
            time = now()
            after = {bookmark.stream: storable(bookmark.value) for bookmark in bookmarks}
            db.executemany(
                f"DELETE FROM bookmark_destinations WHERE {_KEY}",
                [(pipeline, block, bookmark.stream) for bookmark in bookmarks],
            )
            for bookmark in bookmarks:
                _put(
                    db,
                    (pipeline, block, bookmark.stream),
                    value=after[bookmark.stream],
                    run_id=run_id,
                    time=time,
                    cause="import",
                    proof=_proof(bookmark),
                    gap=bookmark.gap,
                )
            changed = {stream for stream, value in after.items() if before.get(stream) != value}
            if replace:
                others = [stream for stream, value in before.items() if value is not None and stream not in after]
                _take_away(db, pipeline, block, others, run_id, "import")
                changed.update(others)
        return sorted(changed)

    def mark_gap(self, pipeline: str, block: str, streams: Sequence[str], *, at_start: bool = False) -> None:
        with self._connection.write() as db:
            db.executemany(
                f"UPDATE bookmarks SET gap = 1 WHERE {_KEY} AND value IS NOT NULL",
                [(pipeline, block, stream) for stream in streams],
            )

    def destinations(self, pipeline: str, block: str) -> dict[str, dict[str, str]]:
        with self._connection.read() as db:
            rows = db.execute(
                "SELECT stream, destinations FROM bookmark_destinations WHERE pipeline = ? AND block = ?",
                (pipeline, block),
            ).fetchall()
        return {stream: json.loads(destinations) for stream, destinations in rows}

    def save_destinations(self, pipeline: str, block: str, stream: str, destinations: Mapping[str, str]) -> None:
        with self._connection.write() as db:
            _put_destinations(db, (pipeline, block, stream), destinations)

    def consumed_overrides(self, pipeline: str, block: str) -> set[BookmarkOverride]:
        with self._connection.read() as db:
            rows = db.execute(
                'SELECT stream, "column", value FROM consumed_overrides WHERE pipeline = ? AND block = ?',
                (pipeline, block),
            ).fetchall()
        return {BookmarkOverride(*row) for row in rows}


def _proof(bookmark: BookmarkSave) -> tuple[str, str | None, str | None]:
    return json.dumps(list(bookmark.sinks)), bookmark.replication_method, bookmark.replication_key


def _put_destinations(db: sqlite3.Connection, key: tuple[str, str, str], destinations: Mapping[str, str]) -> None:
    text = json.dumps(dict(destinations))
    db.execute(
        "INSERT OR REPLACE INTO bookmark_destinations (pipeline, block, stream, destinations) VALUES (?, ?, ?, ?)",
        (*key, text),
    )
    db.execute(
        f"UPDATE bookmark_history SET destinations = ? WHERE id = (SELECT max(id) FROM bookmark_history WHERE {_KEY})",
        (text, *key),
    )


def _put(
    db: sqlite3.Connection,
    key: tuple[str, str, str],
    *,
    value: str | None,
    run_id: str,
    time: str,
    cause: Cause,
    proof: tuple[str, str | None, str | None] | None = None,
    gap: bool | None = None,
) -> None:
    """Replace a stream's bookmark, and write history if that changes anything.

    Args:
        value: JSON text; None takes the bookmark away.
        proof: sinks (JSON), replication method and key; None keeps what is there.
        gap: None keeps what is there.
    """
    old = db.execute(
        "SELECT value, epoch, run_id, cause, gap, changes, sinks, replication_method, replication_key"
        f" FROM bookmarks WHERE {_KEY}",
        key,
    ).fetchone()
    if old is None:
        epoch, old_gap, changes = 0, 0, 0
        old_proof: tuple[str, str | None, str | None] = ("[]", None, None)
    else:
        epoch, old_gap, changes = old[1], old[4], old[5]
        old_proof = old[6:]
    if proof is None:
        proof = old_proof
    # A run that names its cause in every save raises the epoch with the first.
    if cause != "run" and (old is None or (run_id, cause) != (old[2], old[3])):
        epoch += 1
    if old is None or (value, epoch) != (old[0], old[1]):
        changes += 1
        db.execute(
            f"INSERT INTO bookmark_history ({_HISTORY_COLUMNS}, destinations)"
            " VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
            f" (SELECT destinations FROM bookmark_destinations WHERE {_KEY}))",
            (*key, value, run_id, time, epoch, cause, *proof, *key),
        )
    elif proof != old_proof:
        # The same value, now proven by others: not a change to roll back.
        db.execute(
            "UPDATE bookmark_history SET sinks = ?, replication_method = ?, replication_key = ?"
            f" WHERE id = (SELECT max(id) FROM bookmark_history WHERE {_KEY})",
            (*proof, *key),
        )
    db.execute(
        "INSERT OR REPLACE INTO bookmarks (pipeline, block, stream, value, run_id, saved_at, epoch, cause, sinks,"
        " replication_method, replication_key, gap, changes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*key, value, run_id, time, epoch, cause, *proof, old_gap if gap is None else gap, changes),
    )
    if changes % HISTORY_NEWEST == 0:
        _prune(db, key)


def _prune(db: sqlite3.Connection, key: tuple[str, str, str]) -> None:
    db.execute(
        "DELETE FROM bookmark_history WHERE id IN (SELECT id FROM ("
        " SELECT id, row_number() OVER (ORDER BY id DESC) AS age,"
        " row_number() OVER (PARTITION BY run_id ORDER BY id DESC) AS age_in_run"
        f" FROM bookmark_history WHERE {_KEY}) WHERE age > ? AND (age_in_run > 1 OR age > ?))",
        (*key, HISTORY_NEWEST, HISTORY_LIMIT),
    )


def _take_away(
    db: sqlite3.Connection, pipeline: str, block: str, streams: Iterable[str], run_id: str, cause: Cause
) -> None:
    time = now()
    for stream in streams:
        _put(
            db,
            (pipeline, block, stream),
            value=None,
            run_id=run_id,
            time=time,
            cause=cause,
            proof=("[]", None, None),
            gap=False,
        )


def _change_state(db: sqlite3.Connection, pipeline: str, state: Sequence[StateChange]) -> None:
    rows = [(pipeline, each.block, each.source, each.key, each.value) for each in state]
    db.executemany(
        "INSERT OR REPLACE INTO keyed_state VALUES (?, ?, ?, ?, ?)", [row for row in rows if row[-1] is not None]
    )
    db.executemany(
        "DELETE FROM keyed_state WHERE pipeline = ? AND block = ? AND source = ? AND key = ?",
        [row[:-1] for row in rows if row[-1] is None],
    )


def _streams_with_value(db: sqlite3.Connection, pipeline: str, block: str) -> list[str]:
    rows = db.execute(
        "SELECT stream FROM bookmarks WHERE pipeline = ? AND block = ? AND value IS NOT NULL ORDER BY stream",
        (pipeline, block),
    ).fetchall()
    return [stream for (stream,) in rows]


def _rollback_point(
    db: sqlite3.Connection, where: str, values: list[str], to: int | None, before_run: str | None
) -> int:
    """Return the newest history entry that a rollback leaves standing."""
    if to is not None:
        if db.execute(f"SELECT 1 FROM bookmark_history WHERE {where} AND id = ?", (*values, to)).fetchone() is None:
            raise ConfigError(
                f"the history has no change {to}",
                hint="`streamline state history` lists the changes.",
                code="state.no_such_change",
            )
        return to
    if before_run is None:
        newest = db.execute(
            f"SELECT run_id FROM bookmark_history WHERE {where} ORDER BY id DESC LIMIT 1", values
        ).fetchone()
        if newest is None:
            raise ConfigError(
                "no history to roll back", hint="no run has saved a position yet", code="state.no_history"
            )
        (before_run,) = newest
    (first,) = db.execute(
        f"SELECT min(id) FROM bookmark_history WHERE {where} AND run_id = ?", (*values, before_run)
    ).fetchone()
    if first is None:
        raise ConfigError(
            f"the history has no change by run '{before_run}'",
            hint="`streamline state history` lists the runs.",
            code="state.no_such_change",
        )
    return int(first) - 1


_OUTPUT = ">"
_FOR = "@"


def stored_stage(letter: DeadLetter) -> str:
    """Return the text of column `stage`, which identifies the point where a record was refused."""
    if letter.output:
        return letter.stage + _OUTPUT
    return f"{letter.stage}{_FOR}{letter.destination}" if letter.destination is not None else letter.stage


def read_stage(text: str) -> tuple[str, str | None, bool]:
    """Return stage, destination and whether it is a block's output, from the text of `stored_stage`."""
    if text.endswith(_OUTPUT):
        return text[: -len(_OUTPUT)], None, True
    stage, mark, destination = text.partition(_FOR)
    return stage, destination if mark else None, False


_LETTER_COLUMNS = (
    *("pipeline", "block", "stream", "stage", "digest", "record", "error", "run_id", "time"),
    *("form", "topic", "partition", "offset", "key", "value", "headers", "message_time", "trace"),
)
_ADD_LETTER = (
    "INSERT INTO dead_letters ({}) VALUES ({}) ON CONFLICT (pipeline, block, stream, stage, digest) DO UPDATE SET"
    " record = excluded.record, form = excluded.form, error = excluded.error, trace = excluded.trace,"
    " run_id = excluded.run_id, time = excluded.time, times = times + 1"
).format(", ".join(f'"{name}"' for name in _LETTER_COLUMNS), ", ".join("?" * len(_LETTER_COLUMNS)))


def _add_dead_letters(db: sqlite3.Connection, letters: Sequence[DeadLetter], time: str) -> None:
    if not letters:
        return
    import hashlib

    known = [letter for letter in letters if letter.id]
    db.executemany(
        "UPDATE dead_letters SET error = ?, trace = ?, run_id = ?, time = ?, times = times + 1 WHERE id = ?",
        [(storable(letter.error), _storable(letter.trace), letter.run_id, time, letter.id) for letter in known],
    )
    rows = []
    for letter in letters:
        if letter.id:
            continue
        record = storable(letter.record)
        identity = record.encode() if letter.topic is None else letter.message_identity()
        row = {
            **{name: getattr(letter, name) for name in _LETTER_COLUMNS if name != "digest"},
            "stage": stored_stage(letter),
            "digest": hashlib.sha256(identity + letter.copy.encode()).digest(),
            "record": record,
            "error": storable(letter.error),
            "time": time,
            "headers": None if letter.headers is None else _encode_headers(letter.headers),
            "trace": _storable(letter.trace),
        }
        rows.append(tuple(row[name] for name in _LETTER_COLUMNS))
    db.executemany(_ADD_LETTER, rows)


def _storable(text: str | None) -> str | None:
    return None if text is None else storable(text)


def _encode_headers(headers: Sequence[tuple[str, bytes | None]]) -> str:
    return msgspec.json.encode([(storable(name), value) for name, value in headers]).decode()


def matching(columns: dict[str, str | None]) -> tuple[str, list[str]]:
    """Return a WHERE clause for the values that are not None. Column names come only from this package."""
    conditions = {name: value for name, value in columns.items() if value is not None}
    return " AND ".join(f"{name} = ?" for name in conditions), list(conditions.values())
