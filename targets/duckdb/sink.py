"""Streams into tables: one transaction from flush to flush.

A stream whose rows carry a version that its table does not have yet is a new whole: its rows wait in a table beside,
`<table>__version_<n>`, which is committed with every flush like all others, and ACTIVATE_VERSION puts them in place of
the old ones in one transaction. Who reads meanwhile sees the old table, never a mixture. Without that message the rows
go on waiting: a target sees the same end of its input from a tap that has failed. With `load_method: replace` rows
without a version wait, too, and take their place when the input ends; no STATE is echoed before that.
"""

from __future__ import annotations

import contextlib
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from kit.connector import Config, ConnectorError, log

from ..common.arrays import BadValue, TooNarrow, array
from ..common.columns import JSON, TYPE_NAMES, VARCHAR, ColumnType, column_type
from ..common.messages import JSONObject, decode_records, require_key
from ..common.runner import Block
from ..common.streams import StreamSetting, StreamSettings
from .database import connect, query
from .table import VERSION_COLUMN, Table, unlike, versioned
from .waiting import free_name, is_waiting, mark_waiting, waiting_tables

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection


DELETED = "_sdc_deleted_at"
"""The column by which taps that read a log mark a row as deleted."""


class Destination:
    """One stream's table, and the table beside it where a new version waits."""

    def __init__(self, stream: str, setting: StreamSetting, table: Table) -> None:
        self.stream = stream
        self.setting = setting
        self.table = table
        self.columns: dict[str, str] = {}
        self.types: dict[str, ColumnType] = {}
        self.waiting: Table | None = None
        self.waiting_version: int | None = None
        self.active: int | None = None
        """The version whose rows go into the table itself."""
        self.is_activated = False
        """Whether this input has activated it."""
        self.saw_unversioned = False
        self.is_versioned = False
        """Whether its rows are replaced by versions, not at the end of the input."""
        self.dropped: set[str] = set()

    @property
    def keys(self) -> list[str]:
        """The columns of the key."""
        return [self.columns[key] for key in self.setting.keys]

    @property
    def replaces(self) -> bool:
        """Whether its rows wait for the end of the input."""
        return self.setting.method == "replace" and not self.is_versioned


class DuckDBSink:
    """See `runner.Sink`. The database is opened with the first stream.

    Raises:
        ConnectorError: the database refuses what a stream wants; the stream is named.
    """

    def __init__(self, config: Config, settings: StreamSettings) -> None:
        self._config = config
        self._settings = settings
        self._opened: DuckDBPyConnection | None = None
        self._in_transaction = False
        self._destinations: dict[str, Destination] = {}

    def _connection(self) -> DuckDBPyConnection:
        if self._opened is None:
            self._opened = connect(self._config)
        if not self._in_transaction:
            query(self._opened, "BEGIN")
            self._in_transaction = True
        return self._opened

    def schema(self, stream: str, schema: JSONObject, key_properties: list[str]) -> None:
        """Make or changes the stream's table."""
        setting = self._settings.of(stream, key_properties, schema)
        properties: JSONObject = schema["properties"]
        with _named(stream):
            destination = self._destinations.get(stream)
            if destination is None or destination.setting.table != setting.table:
                self._refuse_shared(stream, setting.table)
                self._refuse_waiting(stream, setting.table)
                destination = Destination(
                    stream, setting, Table(self._connection(), self._config["schema"], setting.table)
                )
                self._destinations[stream] = destination
            self._connection()
            destination.setting = setting
            destination.columns = destination.table.place(properties)
            destination.types = {
                destination.columns[name]: column_type(
                    property_, destination.table.columns.get(destination.columns[name])
                )
                for name, property_ in properties.items()
            }
            destination.table.ensure(destination.types, destination.keys)
            if destination.waiting is not None:
                destination.waiting.ensure(destination.types, destination.keys)
                for column in destination.types:
                    self._follow(destination, column)

    def _refuse_shared(self, stream: str, table: str) -> None:
        for other in self._destinations.values():
            if other.table.name.lower() == table.lower() and other.stream != stream:
                raise ConnectorError(
                    f"streams {other.stream!r} and {stream!r} have one table, {table!r} (case does not count)",
                    "give one of them another destination_table",
                )

    def _refuse_waiting(self, stream: str, table: str) -> None:
        if is_waiting(self._connection(), self._config["schema"], table):
            raise ConnectorError(
                f"stream {stream!r}: table {table!r} holds rows of another table's next version",
                "give the stream another destination_table",
            )

    def write(self, block: Block) -> None:
        """Load a block."""
        destination = self._destinations[block.stream]
        with _named(block.stream):
            self._connection()
            table = self._table_for(destination, block.version)
            self._load(destination, table, block)

    def _table_for(self, destination: Destination, version: int | None) -> Table:
        """Return the table that rows of this version belong into now."""
        table = destination.table
        if version is None:
            destination.saw_unversioned = True
            if not destination.replaces:
                return table
            return destination.waiting or self._start_waiting(destination, None)
        destination.is_versioned = True
        table.ensure(versioned({}))
        if destination.active == version:
            return table
        if destination.waiting is not None and destination.waiting_version == version:
            return destination.waiting
        if self._left(destination, version) is None and (table.is_empty() or table.has_version(version)):
            destination.active, destination.is_activated = version, False
            return table
        return self._start_waiting(destination, version)

    def _left(self, destination: Destination, version: int) -> str | None:
        """Return the name of the table where an earlier run left rows of this version."""
        return waiting_tables(self._connection(), self._config["schema"], destination.table.name).get(version)

    def _start_waiting(self, destination: Destination, version: int | None) -> Table:
        """Return the staging table; rows that an earlier run left in it count only if they have the same version."""
        main, schema = destination.table, self._config["schema"]
        connection = self._connection()
        left = waiting_tables(connection, schema, main.name)
        kept = left.pop(version, None) if version is not None else None
        for old, name in left.items():
            Table(connection, schema, name).drop()
            if old is not None:
                log("INFO", f"table {main.name!r}: the rows of version {old}, which was never activated, are dropped")
        base = f"{main.name}__replacing" if version is None else f"{main.name}__version_{version}"
        waiting = Table(connection, schema, kept or free_name(connection, schema, base))
        waiting.ensure(main.columns)
        if kept is None:
            mark_waiting(connection, waiting.sql, main.name, version)
            for column, type_name in main.was.items():
                waiting.remember(column, type_name)
        destination.waiting, destination.waiting_version = waiting, version
        return waiting

    def _load(self, destination: Destination, table: Table, block: Block) -> None:
        import pyarrow as pa

        records = decode_records(block.records, block.stream, block.first)
        self._warn_of_unknown(destination, records)
        setting = destination.setting
        upsert = setting.method == "upsert" or (setting.method == "replace" and bool(setting.keys))
        keys = destination.keys if upsert else []
        whole = {len(destination.columns)}
        partial = set(map(len, records)) != whole
        if upsert and partial and DELETED in destination.columns:
            # A row that comes again without the mark is no longer deleted.
            for record in records:
                record.setdefault(DELETED, None)
            partial = set(map(len, records)) != whole
        if upsert:
            records = _with_keys(records, setting.keys, block, merge=partial and not setting.keep_old)
        arrays: dict[str, pa.Array] = {}
        masks: dict[str, str] = {}
        for name, column in destination.columns.items():
            if partial and upsert:
                has = [name in record for record in records]
                if not any(has):
                    continue
                if not all(has):
                    masks[column] = unlike(f"streamline_has_{len(masks)}", table.columns)
                    arrays[masks[column]] = pa.array(has, pa.bool_())
            values = [record.get(name) for record in records] if partial else list(map(itemgetter(name), records))
            arrays[column] = self._array(destination, table, name, values, block)
        if upsert and DELETED in table.columns and DELETED not in arrays:
            arrays[DELETED] = pa.nulls(len(records))
        if block.version is not None:
            arrays[VERSION_COLUMN] = pa.array([block.version] * len(records), pa.int64())
        batch = pa.table(arrays)
        if upsert:
            table.upsert_batch(batch, keys, masks, keep_old=setting.keep_old)
        else:
            table.append_batch(batch)

    def _array(self, destination: Destination, table: Table, name: str, values: list[Any], block: Block) -> pa.Array:
        column = destination.columns[name]
        while True:
            type_ = table.columns[column]
            try:
                # A column of a type that is not ours takes what its schema says, cast by the database.
                return array(type_ if type_.name in TYPE_NAMES else destination.types[column], values)
            except TooNarrow as error:
                is_key = column in destination.keys
                for each in (destination.table, destination.waiting):
                    if each is not None and each.columns[column] not in (VARCHAR, JSON):
                        each.widen(column, error.wider, is_key=is_key)
                self._follow(destination, column)
            except BadValue as error:
                number = block.first + error.index
                raise ConnectorError(f"stream {block.stream!r}, record {number}, column {name!r}: {error}") from None

    def _follow(self, destination: Destination, column: str) -> None:
        """Give a column of waiting rows the type that the values of the table have made necessary."""
        waiting, type_ = destination.waiting, destination.table.columns[column]
        if waiting is not None and waiting.columns[column].name != "DECIMAL":
            waiting.ensure({column: type_}, destination.keys)

    def _warn_of_unknown(self, destination: Destination, records: list[JSONObject]) -> None:
        """Drop what the SCHEMA does not name: a tap's SCHEMA is its selection."""
        unknown = set().union(*records) - destination.columns.keys()
        if unknown:
            for record in records:
                for name in unknown:
                    record.pop(name, None)
            new = sorted(unknown - destination.dropped)
            if new:
                destination.dropped.update(new)
                log("WARNING", f"stream {destination.stream!r}: not in its SCHEMA, and so not loaded: {', '.join(new)}")

    def activate(self, stream: str, version: int, *, keep_old: bool) -> None:
        """Delete the rows of other versions, and put those that wait in their place.

        Versions may go down: taps make them of the time of day. Rows of a higher one stay if this input brought them
        and has neither activated them nor brought rows of this version later: they are newer.
        """
        destination = self._destinations[stream]
        if destination.replaces and destination.saw_unversioned:
            return
        destination.is_versioned = True
        with _named(stream):
            self._connection()
            if not keep_old:
                kept = {version}
                if not destination.is_activated and destination.waiting_version != version:
                    kept.add(max(version, destination.active or version))
                destination.table.delete_stale(kept, unversioned=not destination.saw_unversioned)
            if destination.waiting_version != version and self._left(destination, version) is not None:
                self._start_waiting(destination, version)
            if destination.waiting is not None and destination.waiting_version == version:
                self._put_in_place(destination)
            destination.active, destination.is_activated = version, True

    def _put_in_place(self, destination: Destination) -> None:
        """Move the waiting rows into the table, whose rows with the same keys make room."""
        waiting, table = destination.waiting, destination.table
        if waiting is None:
            return
        names = list(waiting.columns)
        table.ensure(waiting.columns)
        if destination.setting.keys and destination.setting.method != "append" and not table.is_empty():
            table.delete_matching(waiting, destination.keys)
        table.append(waiting.sql, names)
        waiting.drop()
        destination.waiting = destination.waiting_version = None

    def prepare(self) -> None:
        """See `runner.Sink.prepare`."""
        import duckdb  # noqa: F401
        import pyarrow as pa  # noqa: F401

    def flush(self) -> bool:
        """Commit."""
        self._commit()
        return not any(destination.replaces for destination in self._destinations.values())

    def finish(self) -> None:
        """Replace what is to be replaced without versions, and commit."""
        for destination in self._destinations.values():
            if destination.replaces:
                with _named(destination.stream):
                    self._connection()
                    destination.table.delete_all()
                    self._put_in_place(destination)
            elif destination.waiting is not None:
                version, table = destination.waiting_version, destination.waiting.name
                log(
                    "WARNING",
                    f"stream {destination.stream!r}: the rows of version {version} wait in table {table!r}, because no "
                    "ACTIVATE_VERSION came; a run with this version makes them visible, another version deletes them",
                )
        self._commit()

    def _commit(self) -> None:
        if self._in_transaction and self._opened is not None:
            with _named(None):
                query(self._opened, "COMMIT")
            self._in_transaction = False

    def close(self) -> None:
        """Roll back what is not committed, and close the database."""
        if self._opened is not None:
            import duckdb

            if self._in_transaction:
                self._in_transaction = False
                # An error that ended the transaction is told already; closing the database rolls back as well.
                with contextlib.suppress(duckdb.Error):
                    query(self._opened, "ROLLBACK")
            self._opened.close()
            self._opened = None


def _with_keys(records: list[JSONObject], keys: list[str], block: Block, *, merge: bool) -> list[JSONObject]:
    """Return the records, all of which have the key; `merge` lays later ones of a key over earlier ones."""
    require_key(records, keys, block.stream, block.first)
    if not merge:
        return records
    merged: dict[str, JSONObject] = {}
    for record in records:
        identity = repr([record[key] for key in keys])
        merged[identity] = {**merged.pop(identity, {}), **record}
    return list(merged.values())


class _named:  # noqa: N801 (a context manager, used like a function)
    """Errors of the database become ours, with the stream's name."""

    def __init__(self, stream: str | None) -> None:
        self._where = f"stream {stream!r}: " if stream else ""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        import duckdb

        if isinstance(error, duckdb.Error):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise ConnectorError(f"{self._where}{' '.join(lines[:2])}") from error
