"""Reading: one consistent snapshot per stream, in blocks of rows."""

from __future__ import annotations

import json
import math
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import orjson

from kit.connector import Arguments, Config, ConnectorError, log, read_json
from kit.sql import quoted

from ..common.catalog import Stream
from ..common.incremental import Bookmark, Tracker, Value
from ..common.moments import like
from ..common.output import State, StreamOutput
from ..common.streams import read_selected
from .database import BrokenTexts, connect
from .discovery import Table, describe, discover
from .ordering import KeyColumn
from .types import Kind, convert

BLOCK_ROWS = 1000


def work(config: Config, args: Arguments) -> None:
    """Discover, or read the selected streams."""
    connection, broken = connect(config)
    if args.discover:
        json.dump(discover(connection, config["tables"]), sys.stdout, indent=2, ensure_ascii=False)
        print()
        return
    path = args.catalog or args.properties
    catalog = read_json(path, "--catalog") if path else discover(connection, config["tables"])
    state = State(read_json(args.state, "--state") if args.state else {})

    def read(stream: Stream) -> None:
        try:
            Reader(connection, broken, stream, state, config["state_interval"]).read()
        except sqlite3.Error as error:
            raise ConnectorError(f"stream {stream.name!r}: {error}") from error

    read_selected(catalog, read)


class Reader:
    """Reads one stream.

    Args:
        connection: of the whole run; each stream gets a transaction of its own, and so a snapshot.
        interval: records between two STATEs.

    Raises:
        ConnectorError: the table, or a selected column of it, is not there.
    """

    def __init__(
        self, connection: sqlite3.Connection, broken: BrokenTexts, stream: Stream, state: State, interval: int
    ) -> None:
        self._connection = connection
        self._broken = broken
        self._stream = stream
        self._state = state
        self._interval = interval
        self._table = _table(connection, stream)
        self._kinds: list[Kind] = []
        self._keys: list[KeyColumn] = []
        self._encoded: set[str] = set()
        kinds = {column.name: column.kind for column in self._table.columns}
        for column in stream.columns:
            self._kinds.append(_agreed(kinds[column], stream.schema["properties"][column]))
        self._select = f"SELECT {', '.join(map(quoted, stream.columns))} FROM main.{quoted(stream.id)}"

    def read(self) -> None:
        """Send the stream's messages."""
        broken = self._broken.count
        self._connection.execute("BEGIN")
        try:
            if self._stream.method == "INCREMENTAL":
                self._incremental()
            else:
                self._full_table()
        finally:
            self._connection.execute("ROLLBACK")
        if self._broken.count > broken:
            count = self._broken.count - broken
            log(
                "WARNING",
                f"stream {self._stream.name!r}: {count} bytes of text are not valid UTF-8 and were replaced by U+FFFD",
            )

    def _full_table(self) -> None:
        old = self._state.bookmark(self._stream.id).get("version")
        version = int(time.time() * 1000)
        if isinstance(old, int):
            # Versions must rise, even if the clock was set back.
            version = max(version, old + 1)
        out = StreamOutput(self._stream, self._state, interval=self._interval, version=version)
        out.write_schema()
        for rows in self._blocks(self._select):
            if out.write_records(self._records(out, rows)):
                out.write_state()
        out.activate_version()
        out.write_state({"version": version})
        out.close()

    def _incremental(self) -> None:
        stream = self._stream
        if not stream.replication_keys:
            raise ConnectorError(
                f"stream {stream.name!r} is INCREMENTAL but has no replication key", "set replication_key"
            )
        out = StreamOutput(stream, self._state, interval=self._interval)
        out.write_schema()
        columns = stream.replication_keys
        bookmark = Bookmark(columns, self._state.bookmark(stream.id))
        if bookmark.by_hand:
            bookmark.start = (self._stored_form(columns[0], bookmark.start[0]),)
        starts = [*bookmark.start, *[None] * len(columns)]
        keys = [
            KeyColumn(self._connection, stream.id, column, self._kinds[stream.columns.index(column)], start)
            for column, start in zip(columns, starts, strict=False)
        ]
        self._keys = keys
        if not all(key.takes(value) for key, value in zip(keys, bookmark.start, strict=False)):
            out.warn(f"its bookmark {bookmark.start!r} cannot be compared with its replication key; all rows are read")
            bookmark.start = ()
            bookmark.sent.clear()
        tracker = Tracker(bookmark)
        with_null = " OR ".join(f"{quoted(column)} IS NULL" for column in columns)
        fits = " AND ".join(key.fits for key in keys)
        if not bookmark.start:
            for rows in self._blocks(f"{self._select} WHERE {with_null}"):
                out.write_records(self._records(out, rows))
        others = " OR ".join(key.apart for key in keys)
        apart = 0
        for rows in self._blocks(f"{self._select} WHERE NOT ({with_null}) AND ({others})"):
            out.write_records(self._records(out, rows))
            apart += len(rows)
        if apart:
            names = ", ".join(columns)
            out.warn(f"{apart} rows have a value of another type than the others in {names}; every run reads them")
        # Texts compare byte by byte here and in Python, whatever collation the column was given.
        order = [key.order for key in keys]
        query = f"{self._select} WHERE {fits}"
        if bookmark.start:
            count = len(bookmark.start)
            query += f" AND ({', '.join(order[:count])}) >= ({', '.join(key.value for key in keys[:count])})"
        query += f" ORDER BY {', '.join(order)}"
        for rows in self._blocks(query, bookmark.start):
            self._incremental_block(out, tracker, rows)
        if bookmark.start:
            self._warn_of_nulls(out, with_null)
        out.write_state(tracker.bookmark(done=True))
        out.close()

    def _incremental_block(self, out: StreamOutput, tracker: Tracker, rows: list[Value]) -> None:
        value_of = self._value_getter()
        records = self._records(out, rows)
        last = value_of(rows[-1])
        if any(isinstance(part, bytes) or part in (math.inf, -math.inf) for part in last):
            raise ConnectorError(
                f"stream {self._stream.name!r}: the replication key is {last!r}, which cannot be a bookmark"
            )
        same = len(rows)
        while same and self._compared(value_of(rows[same - 1])) == self._compared(last):
            same -= 1
        at_start = 0
        if tracker.start and len(tracker.start) == len(last):
            start = self._compared(tracker.start)
            while at_start < len(rows) and self._compared(value_of(rows[at_start])) == start:
                at_start += 1
        sent = [record for record in records[:at_start] if tracker.is_new(record)] + records[at_start:]
        due = out.write_records(sent)
        if any(isinstance(part, str) and "\ufffd" in part for part in last):
            # Bytes that are no UTF-8 cannot stand in a bookmark: the next run begins before them.
            tracker.at(tuple(part.partition("\ufffd")[0] if isinstance(part, str) else part for part in last), [])
        else:
            tracker.at(last, records[same:])
        if due and tracker.is_short:
            out.write_state(tracker.bookmark())

    def _compared(self, value: Value) -> Value:
        """Return the value of a replication key as it compares."""
        if not any(key.is_mixed for key in self._keys):
            return value
        return tuple(key.key(part) for key, part in zip(self._keys, value, strict=True))

    def _value_getter(self) -> Any:
        places = [self._stream.columns.index(column) for column in self._stream.replication_keys]
        if len(places) == 1:
            place = places[0]
            return lambda row: (row[place],)
        return itemgetter(*places)

    def _warn_of_nulls(self, out: StreamOutput, with_null: str) -> None:
        query = f"SELECT count(*) FROM main.{quoted(self._stream.id)} WHERE {with_null}"
        (count,) = self._connection.execute(query).fetchone()
        if count:
            columns = ", ".join(self._stream.replication_keys)
            out.warn(f"{count} rows have NULL in {columns}; only a full sync reads them")

    def _stored_form(self, column: str, value: Any) -> Any:
        """Return a bookmark value that was set by hand in the form that the column's values have."""
        kind = self._kinds[self._stream.columns.index(column)]
        if kind == "integer" and isinstance(value, str) and value.lstrip("-").isdecimal():
            return int(value)
        if kind not in ("date", "date-time") or not isinstance(value, str):
            return value
        name = quoted(column)
        query = f"SELECT {name} FROM main.{quoted(self._stream.id)} WHERE typeof({name}) = 'text' LIMIT 1"
        sample = self._connection.execute(query).fetchone()
        return like(value, sample[0]) if sample else value

    def _blocks(self, query: str, values: Sequence[Any] = ()) -> Iterator[list[Value]]:
        cursor = self._connection.execute(query, values)
        while rows := cursor.fetchmany(min(BLOCK_ROWS, self._interval)):
            yield rows

    def _records(self, out: StreamOutput, rows: list[Value]) -> list[bytes]:
        """Return the rows as JSON texts; the schema is widened first where a value wants it."""
        names = self._stream.columns
        columns: list[Sequence[Any]] = []
        changed = False
        for name, kind, column in zip(names, self._kinds, zip(*rows, strict=True), strict=True):
            converted = convert(kind, column)
            changed = changed or converted.values is not column
            columns.append(converted.values)
            for json_type in converted.extra:
                out.widen(name, json_type)
            if converted.breaks_format:
                out.widen(name, "string", drop_format=True)
            if converted.is_encoded and name not in self._encoded:
                self._encoded.add(name)
                out.warn(f"column {name!r} holds bytes, which are sent in base64")
        dumps = orjson.dumps
        if changed:
            return [dumps(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
        return [dumps(dict(zip(names, row, strict=True))) for row in rows]


def _table(connection: sqlite3.Connection, stream: Stream) -> Table:
    table = describe(connection, stream.id, is_view=bool(stream.root.get("is-view")))
    known = [column.name for column in table.columns]
    if not known:
        raise ConnectorError(
            f"stream {stream.name!r}: the database has no table or view {stream.id!r}", "discover again"
        )
    for column in stream.columns:
        if column not in known:
            raise ConnectorError(f"stream {stream.name!r}: the table has no column {column!r}", "discover again")
    return table


def _agreed(kind: Kind, schema: dict[str, Any]) -> Kind:
    """Return the kind that a column is read as, where only samples tell: what the catalog's schema says.

    A catalog keeps what an earlier sample, or its author, decided; a new sample must not turn texts into dates.
    """
    if kind not in ("date", "date-time", "any", "string", "integer", "number"):
        return kind
    types = schema.get("type")
    types = set([types] if isinstance(types, str) else types or ()) - {"null"}
    if types == {"string"} and schema.get("contentEncoding") is None:
        format_ = schema.get("format")
        return "date" if format_ == "date" else "date-time" if format_ == "date-time" else "string"
    for name in ("integer", "number"):
        if types == {name}:
            return name
    return "any"
