"""The state store in an SQLite file of the project: the default."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict

from streamline.errors import DiskFull, LeaseHeld, StreamlineError, is_disk_full
from streamline.state.connection import SQLiteConnection
from streamline.state.lease import FileLease, lock_path, try_lock, unlock
from streamline.state.sqlite_positions import PositionTables, matching, now, read_rows, read_stage, storable
from streamline.state.store import BlockRun, DeadLetter, LeaseInfo, LetterKey, PluginSecret, RunInfo

_LETTER_COLUMNS = (
    "id, pipeline, block, stream, run_id, record, error, stage, time, times, form, topic, partition, offset,"
    " key, value, headers, message_time, trace"
)
_SAME_KEY = " AND ".join(f"k.{name} = d.{name}" for name in ("pipeline", "block", "topic", "partition", "key"))
_RUN_COLUMNS = "run_id, pipeline, status, started, finished, seconds, pid, host, summary, error, code"
# How long a lease is waited for while it is unclear who holds it: the last holder has just died, or the new one has
# not said its name yet.
_UNCLEAR_SECONDS = 0.3

_encoder = msgspec.json.Encoder(decimal_format="number")


def _json(value: object) -> str:
    return _encoder.encode(value).decode()


def _insert(db: sqlite3.Connection, table: str, row: Mapping[str, object], *, replace: bool = False) -> None:
    """Insert a row. Column names come from this package, never from outside."""
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    db.execute(f"{verb} INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


class SQLiteStore(PositionTables):
    """A state store in one file, with a folder `locks/` beside it.

    Args:
        path: the database file.

    Raises:
        ConfigError: it belongs to another program, or a newer Streamline wrote it.
        StreamlineError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._connection = SQLiteConnection(path)
        self._locks = path.parent / "locks"

    def close(self) -> None:
        self._connection.close()

    # --- leases

    def acquire_lease(self, pipeline: str, run_id: str) -> FileLease:
        path = lock_path(self._locks, pipeline)
        deadline = time.monotonic() + _UNCLEAR_SECONDS
        while True:
            try:
                descriptor = try_lock(path)
            except OSError as error:
                if is_disk_full(error):
                    raise DiskFull(path) from error
                raise StreamlineError(
                    f"the pipeline's lock file cannot be used: {error}",
                    where=str(path),
                    hint="put it on a file system that supports locks, in a writable folder",
                    code="run.lock_failed",
                ) from error
            if descriptor is not None:
                break
            holder = self._lease_row(pipeline)
            if (holder is not None and _may_live(holder)) or time.monotonic() > deadline:
                raise _held(pipeline, holder)
            time.sleep(0.01)

        lease = {"pipeline": pipeline, "run_id": run_id, "pid": os.getpid(), "host": _host(), "since": now()}
        try:
            with self._connection.write(durable=False) as db:
                _insert(db, "leases", lease, replace=True)
        except BaseException:
            unlock(descriptor)
            raise

        def forget() -> None:
            # The row only informs; a store that was closed before its lease leaves it to the next holder.
            with suppress(StreamlineError), self._connection.write(durable=False) as db:
                db.execute("DELETE FROM leases WHERE pipeline = ?", (pipeline,))

        return FileLease(pipeline, run_id, descriptor, forget)

    def lease_holder(self, pipeline: str) -> LeaseInfo | None:
        path = lock_path(self._locks, pipeline)
        if not path.exists():
            return None
        descriptor = try_lock(path)
        if descriptor is not None:
            unlock(descriptor)
            return None
        return self._lease_row(pipeline)

    def _lease_row(self, pipeline: str) -> LeaseInfo | None:
        with self._connection.read() as db:
            cursor = db.execute("SELECT pipeline, run_id, pid, host, since FROM leases WHERE pipeline = ?", (pipeline,))
            return next(iter(read_rows(LeaseInfo, cursor)), None)

    # --- runs

    def begin_run(self, run: RunInfo) -> None:
        row = {
            **asdict(run),
            "started": run.started or now(),
            "pid": os.getpid() if run.pid is None else run.pid,
            "host": run.host or _host(),
            "summary": _json(run.summary),
        }
        with self._connection.write(durable=False) as db:
            _insert(db, "runs", row)

    def drop_run(self, run_id: str) -> None:
        with self._connection.write(durable=False) as db:
            db.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))

    def continue_run(self, run_id: str) -> None:
        with self._connection.write(durable=False) as db:
            db.execute(
                "UPDATE runs SET status = 'running', finished = NULL, seconds = NULL, error = NULL, code = NULL,"
                " pid = ?, host = ?"
                " WHERE run_id = ?",
                (os.getpid(), _host(), run_id),
            )

    def finish_run(
        self,
        run_id: str,
        status: str,
        summary: Mapping[str, Any],
        error: str | None = None,
        code: str | None = None,
    ) -> None:
        finished = now()
        with self._connection.write() as db:
            row = db.execute("SELECT started FROM runs WHERE run_id = ?", (run_id,)).fetchone()
            seconds = None
            if row is not None and status != "killed":
                took = datetime.fromisoformat(finished) - datetime.fromisoformat(row[0])
                seconds = max(0.0, round(took.total_seconds(), 3))
            db.execute(
                "UPDATE runs SET status = ?, finished = ?, seconds = ?, summary = ?, error = ?, code = ?"
                " WHERE run_id = ?",
                (
                    status,
                    finished,
                    seconds,
                    _json(dict(summary)),
                    None if error is None else storable(error),
                    code,
                    run_id,
                ),
            )

    def runs(self, pipeline: str | None = None, limit: int = 50) -> list[RunInfo]:
        return self._runs("1 = 1" if pipeline is None else "pipeline = ?", [pipeline] if pipeline else [], limit)

    def run(self, run_id: str) -> RunInfo | None:
        runs = self._runs("run_id = ?", [run_id], 1)
        return runs[0] if runs else None

    def unfinished_runs(self, pipeline: str) -> list[RunInfo]:
        return self._runs("pipeline = ? AND status = 'running'", [pipeline], -1)

    def _runs(self, where: str, values: list[str], limit: int) -> list[RunInfo]:
        with self._connection.read() as db:
            cursor = db.execute(
                f"SELECT {_RUN_COLUMNS} FROM runs WHERE {where} ORDER BY started DESC, rowid DESC LIMIT ?",
                (*values, limit),
            )
            return read_rows(RunInfo, cursor)

    def save_block_run(self, run_id: str, block: BlockRun) -> None:
        with self._connection.write(durable=False) as db:
            db.execute(
                "INSERT INTO block_runs (run_id, uuid, status, seconds, attempts, results, error, code)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id, uuid) DO UPDATE SET status = excluded.status,"
                " seconds = excluded.seconds, attempts = excluded.attempts, results = excluded.results,"
                " error = excluded.error, code = excluded.code",
                (
                    run_id,
                    block.uuid,
                    block.status,
                    block.seconds,
                    block.attempts,
                    _json(block.results),
                    None if block.error is None else storable(block.error),
                    block.code,
                ),
            )

    def block_runs(self, run_id: str) -> list[BlockRun]:
        with self._connection.read() as db:
            cursor = db.execute(
                "SELECT uuid, status, seconds, attempts, results, error, code FROM block_runs"
                " WHERE run_id = ? ORDER BY rowid",
                (run_id,),
            )
            return read_rows(BlockRun, cursor)

    # --- schemas; stream settings of earlier versions

    def stored_stream_settings(self, pipeline: str) -> dict[str, dict[str, dict[str, Any]]]:
        with self._connection.read() as db:
            rows = db.execute(
                "SELECT block, stream, key, value FROM unmoved_stream_settings WHERE pipeline = ? ORDER BY id",
                (pipeline,),
            ).fetchall()
        settings: dict[str, dict[str, dict[str, Any]]] = {}
        for block, stream, key, value in rows:
            settings.setdefault(block, {}).setdefault(stream, {})[key] = msgspec.json.decode(value)
        return settings

    def drop_stored_stream_settings(self, pipeline: str, block: str) -> None:
        with self._connection.write() as db:
            db.execute("DELETE FROM unmoved_stream_settings WHERE pipeline = ? AND block = ?", (pipeline, block))

    def last_schemas(self, pipeline: str, block: str) -> dict[str, dict[str, Any]]:
        with self._connection.read() as db:
            rows = db.execute(
                "SELECT stream, schema FROM schemas WHERE pipeline = ? AND block = ?", (pipeline, block)
            ).fetchall()
        return {stream: msgspec.json.decode(schema) for stream, schema in rows}

    def save_schema(self, pipeline: str, block: str, stream: str, schema: Mapping[str, Any]) -> None:
        with self._connection.write(durable=False) as db:
            db.execute(
                "INSERT OR REPLACE INTO schemas (pipeline, block, stream, schema, time) VALUES (?, ?, ?, ?, ?)",
                (pipeline, block, stream, _json(dict(schema)), now()),
            )

    # --- dead letters

    def dead_letters(
        self,
        pipeline: str,
        *,
        block: str | None = None,
        stream: str | None = None,
        ids: Sequence[int] | None = None,
        limit: int | None = None,
    ) -> list[DeadLetter]:
        where, values = matching({"pipeline": pipeline, "block": block, "stream": stream})
        parameters: list[str | int] = [*values]
        if ids is not None:
            where += " AND id IN (SELECT value FROM json_each(?))"
            parameters.append(_json(list(ids)))
        with self._connection.read() as db:
            cursor = db.execute(
                f"SELECT {_LETTER_COLUMNS}, (SELECT max(written) FROM dead_letter_keys k WHERE {_SAME_KEY} AND"
                f" k.written > d.offset) AS written_since FROM dead_letters d WHERE {where} ORDER BY id DESC LIMIT ?",
                (*parameters, -1 if limit is None else limit),
            )
            letters = read_rows(DeadLetter, cursor)
        for letter in letters:
            letter.stage, letter.destination, letter.output = read_stage(letter.stage)
        return letters[::-1]

    def discard_dead_letters(self, pipeline: str, ids: Sequence[int] | None = None) -> int:
        with self._connection.write() as db:
            if ids is None:
                discarded = db.execute("DELETE FROM dead_letters WHERE pipeline = ?", (pipeline,)).rowcount
            else:
                discarded = db.execute(
                    "DELETE FROM dead_letters WHERE pipeline = ? AND id IN (SELECT value FROM json_each(?))",
                    (pipeline, _json(list(ids))),
                ).rowcount
            db.execute(
                "DELETE FROM dead_letter_keys AS k WHERE k.pipeline = ?"
                f" AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE {_SAME_KEY})",
                (pipeline,),
            )
        return discarded

    def letter_keys(self, pipeline: str) -> list[LetterKey]:
        with self._connection.read() as db:
            cursor = db.execute(
                "SELECT block, topic, partition, key, min(offset) AS oldest, max(offset) AS newest,"
                f" (SELECT written FROM dead_letter_keys k WHERE {_SAME_KEY}) AS written"
                " FROM dead_letters d WHERE pipeline = ? AND topic IS NOT NULL AND key IS NOT NULL"
                " GROUP BY pipeline, block, topic, partition, key ORDER BY min(id)",
                (pipeline,),
            )
            return read_rows(LetterKey, cursor)

    def note_key_written(self, pipeline: str, key: LetterKey) -> None:
        with self._connection.write() as db:
            db.execute(
                "INSERT INTO dead_letter_keys VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " written = max(written, excluded.written)",
                (pipeline, key.block, key.topic, key.partition, key.key, key.written),
            )

    # --- blocks

    @contextmanager
    def renamed_block(self, pipeline: str, old: str, new: str) -> Iterator[None]:
        from streamline.state.sqlite_rename import rename_block

        with self._connection.write() as db:
            rename_block(db, pipeline, old, new)
            yield

    # --- caches and plugins' secrets

    def cache_get(self, kind: str, key: str) -> str | None:
        with self._connection.read() as db:
            row = db.execute("SELECT value FROM cache WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else str(row[0])

    def cache_put(self, kind: str, key: str, value: str) -> None:
        with self._connection.write(durable=False) as db:
            db.execute(
                "INSERT OR REPLACE INTO cache (kind, key, value, time) VALUES (?, ?, ?, ?)",
                (kind, key, storable(value), now()),
            )

    def cache_drop(self, kind: str, key: str) -> None:
        with self._connection.write(durable=False) as db:
            db.execute("DELETE FROM cache WHERE kind = ? AND key = ?", (kind, key))

    def plugin_secrets(self, pipeline: str, block: str) -> dict[str, PluginSecret]:
        with self._connection.read() as db:
            rows = db.execute(
                "SELECT name, value, replaces FROM plugin_secrets WHERE pipeline = ? AND block = ?", (pipeline, block)
            ).fetchall()
        return {name: PluginSecret(name=name, value=value, replaces=replaces) for name, value, replaces in rows}

    def plugin_secret_put(self, pipeline: str, block: str, secret: PluginSecret) -> None:
        with self._connection.write() as db:
            db.execute(
                "INSERT OR REPLACE INTO plugin_secrets (pipeline, block, name, value, replaces, time)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (pipeline, block, secret.name, storable(secret.value), secret.replaces, now()),
            )


def _host() -> str:
    return os.uname().nodename


def _may_live(holder: LeaseInfo) -> bool:
    """Return whether the process in the row may still be there; of other machines nothing is known."""
    if holder.host != _host():
        return True
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _held(pipeline: str, holder: LeaseInfo | None) -> LeaseHeld:
    if holder is None:
        return LeaseHeld(
            "another process holds this pipeline's lease and has not recorded its run id",
            where=pipeline,
            hint="try again; `streamline runs list` shows what is running",
        )
    return LeaseHeld(
        f"run {holder.run_id} holds this pipeline's lease"
        f" (process {holder.pid} on {holder.host}, since {holder.since})",
        where=pipeline,
        hint=f"wait for it to end, or end it with: kill -INT {holder.pid}",
    )
