"""Turns upstream outputs into streams in Parquet files, which a destination block exports.

All outputs are looked at before anything is written to the destination.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from streamline.blocks.connector.prepared import Export, ExportedStream, PreparedDestination
from streamline.connectors.outputs.table_source import schema_of
from streamline.errors import ConfigError
from streamline.outputs.tables import to_table
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from streamline.blocks.call import BlockCall, Input
    from streamline.outputs.streams import StoredStream

SHAPE = ("stream", "columns", "rows")
"""Keys of a stream as blocks return it: its catalog entry or name, names of columns, rows in their order."""

_FRAMES = {("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table")}


def with_streams(
    call: BlockCall, prepared: PreparedDestination, folder: Path, live: Collection[int] = ()
) -> PreparedDestination:
    """Return what a destination exports with the streams of its upstream outputs.

    Args:
        folder: for the files of outputs that are no Parquet files yet.
        live: numbers of inputs that come as they are read.

    Raises:
        ConfigError: an output cannot be exported, or lacks a stream that is asked for.
    """
    exports = []
    for export in prepared.exports:
        if export.index in live:
            export = msgspec.structs.replace(export, live=True)
        else:
            upstream = call.inputs[export.index]
            streams = _chosen(_streams(upstream, folder / str(export.index), where=call.where), export, call.where)
            known = [stream for stream in streams if stream.schema.get("properties")]
            export = msgspec.structs.replace(export, exported=known)
        exports.append(export)
    return msgspec.structs.replace(prepared, exports=exports)


def is_stream(value: Any) -> bool:
    """Return whether a value has the shape of a stream: `{stream, columns, rows}`."""
    return isinstance(value, dict) and set(value) == set(SHAPE)


def is_tables(value: Any) -> bool:
    """Return whether a value is a dict of frames by name: one stream each."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(name, str) and name and (type(part).__module__.partition(".")[0], type(part).__name__) in _FRAMES
            for name, part in value.items()
        )
    )


def _chosen(streams: list[ExportedStream], export: Export, where: str) -> list[ExportedStream]:
    if export.streams is None:
        return streams
    names = [stream.stream for stream in streams]
    for name in export.streams:
        if name not in names:
            raise ConfigError(
                f"the output of '{export.block}' has no stream '{name}'",
                where=export.where or where,
                hint=suggestion(name, names, what="streams"),
                code="stream.unknown",
            )
    return [stream for stream in streams if stream.stream in export.streams]


def _streams(upstream: Input, folder: Path, *, where: str) -> list[ExportedStream]:
    stored = upstream.streams()
    if stored is not None:
        return [_of_source(stream) for stream in stored]
    files = upstream.parquet()
    if files is not None:
        rows = sum(pq.read_metadata(file).num_rows for file in files)
        return [ExportedStream(stream=upstream.uuid, schema=_schema(pq.read_schema(files[0]), rows), files=files)]
    try:
        return _converted(upstream, folder)
    except ConfigError as error:
        raise ConfigError(
            f"the output of '{upstream.uuid}' cannot be exported: {error.message}",
            where=error.where or where,
            hint=(error.hint if error.code != "output.not_a_table" else None)
            or "return a DataFrame, a list of dicts, an Arrow table, a dict of tables, or {stream, columns, rows}; or "
            f"set `input_only: true` for '{upstream.uuid}' in configuration.data_integration.inputs",
            code="output.not_a_stream",
        ) from error


def _of_source(stored: StoredStream) -> ExportedStream:
    entry = stored.stream
    return ExportedStream(
        stream=str(entry.get("stream") or entry["tap_stream_id"]),
        schema=dict(entry.get("schema") or {}),
        files=stored.files,
        key_properties=list(entry.get("key_properties") or ()),
        replication_method=entry.get("replication_method"),
    )


def _converted(upstream: Input, folder: Path) -> list[ExportedStream]:
    value = upstream.value()
    values = value if isinstance(value, list) else [value]
    if values and all(is_stream(each) for each in values):
        return [_of_shape(each, folder / str(number)) for number, each in enumerate(values)]
    if is_tables(value):
        tables = {name: to_table(part) for name, part in value.items()}
        return [
            _written(name, _schema(table.schema, table.num_rows), table, folder / str(number))
            for number, (name, table) in enumerate(tables.items())
        ]
    table = upstream.table() if isinstance(value, list) else to_table(value)
    return [_written(upstream.uuid, _schema(table.schema, table.num_rows), table, folder)]


def _schema(schema: pa.Schema, rows: int) -> dict[str, Any]:
    """Return the JSON Schema of a table. Columns without rows and type, as those of an empty DataFrame, are left out:
    a destination would make columns of some type that later values do not have.
    """
    return schema_of(schema if rows else pa.schema([field for field in schema if not pa.types.is_null(field.type)]))


def _of_shape(value: Mapping[str, Any], folder: Path) -> ExportedStream:
    entry, table = stream_of(value)
    return _written(
        entry["stream"],
        entry["schema"],
        table,
        folder,
        key_properties=list(entry.get("key_properties") or ()),
        replication_method=entry.get("replication_method"),
    )


def stream_name(value: Mapping[str, Any]) -> str:
    """Return the name of a stream in this shape.

    Raises:
        ConfigError: it has none.
    """
    entry = value["stream"]
    name = entry.get("stream") or entry.get("tap_stream_id") if isinstance(entry, dict) else entry
    if not isinstance(name, str) or not name:
        raise ConfigError(
            "a stream has no name", hint="write it as {'stream': {'stream': NAME}, …}", code="output.not_a_stream"
        )
    return name


def stream_of(value: Mapping[str, Any]) -> tuple[dict[str, Any], pa.Table]:
    """Return the catalog entry of a stream in this shape, with a name and a schema, and its rows as a table.

    Raises:
        ConfigError: it has no name, or rows and columns do not fit each other.
    """
    name = stream_name(value)
    entry = value["stream"] if isinstance(value["stream"], dict) else {}
    table = _table(name, value["columns"], value["rows"])
    schema = entry.get("schema")
    schema = schema if isinstance(schema, dict) and schema else _schema(table.schema, table.num_rows)
    return {**entry, "stream": name, "schema": schema}, table


def _table(name: str, columns: Any, rows: Any) -> pa.Table:
    if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
        raise ConfigError(f"the columns of stream '{name}' are no list of names", code="output.not_a_stream")
    if not isinstance(rows, list) or not all(isinstance(row, Sequence) and len(row) == len(columns) for row in rows):
        raise ConfigError(
            f"the rows of stream '{name}' do not all have {len(columns)} values, one for each column",
            code="output.not_a_stream",
        )
    if not rows:
        return pa.table({column: pa.nulls(0) for column in columns})
    return to_table([dict(zip(columns, row, strict=True)) for row in rows])


def _written(name: str, schema: dict[str, Any], table: pa.Table, folder: Path, **settings: Any) -> ExportedStream:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "rows.parquet"
    pq.write_table(table, path, compression="snappy")
    return ExportedStream(stream=name, schema=schema, files=[path], **settings)
