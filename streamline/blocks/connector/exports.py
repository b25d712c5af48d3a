"""Turns upstream outputs into streams in Parquet files, which a destination block exports.

All outputs are looked at before anything is written to the destination.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from streamline.blocks.connector.prepared import Export, ExportedStream, PreparedDestination
from streamline.blocks.connector.stream_shape import is_stream, stream_of, without_types
from streamline.connectors.outputs.table_source import schema_of
from streamline.errors import ConfigError
from streamline.flow.codecs.arrow_columns import text_column
from streamline.flow.codecs.arrow_types import json_field
from streamline.outputs.tables import to_table
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from streamline.blocks.call import BlockCall, Input
    from streamline.outputs.streams import StoredStream

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
    return schema_of(without_types(schema, rows))


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


def _written(name: str, schema: dict[str, Any], table: pa.Table, folder: Path, **settings: Any) -> ExportedStream:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "rows.parquet"
    for place, field in enumerate(table.schema):
        if _has_no_fields(field.type):
            texts = [text_column(field, chunk) for chunk in table.column(place).chunks]
            table = table.set_column(place, json_field(field.name), pa.chunked_array(texts, pa.string()))
    pq.write_table(table, path, compression="snappy")
    return ExportedStream(stream=name, schema=schema, files=[path], **settings)


def _has_no_fields(kind: pa.DataType) -> bool:
    """Return whether a type has objects without fields in it, which Parquet has no form for."""
    parts = [kind.field(place).type for place in range(kind.num_fields)]
    return (pa.types.is_struct(kind) and not parts) or any(map(_has_no_fields, parts))
