"""The outputs of upstream blocks as the decorated functions of a source or destination get them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamline.blocks.connector.exports import is_tables
from streamline.blocks.connector.stream_shape import is_stream, stream_name, stream_of
from streamline.connectors.outputs.table_source import schema_of
from streamline.errors import ConfigError
from streamline.flow.items import JSONObject
from streamline.outputs.tables import to_table
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamline.blocks.call import Input
    from streamline.blocks.connector.inputs import InputSettings
    from streamline.outputs.frames import Frames
    from streamline.outputs.streams import StoredStream


class StreamsInput:
    """An upstream output, limited to some of its streams, or with its catalog."""

    def __init__(self, upstream: Input, settings: InputSettings) -> None:
        self.uuid = upstream.uuid
        self.type = upstream.type
        self._upstream = upstream
        self._settings = settings

    def value(self, frames: Frames | None = None) -> Any:
        """Return the data, or `(data, catalog)`.

        Raises:
            ConfigError: it has no such stream, or is no table, so that there is no catalog.
        """
        stored = self._upstream.streams()
        if stored is not None:
            return self._of_source(stored, frames)
        data, wanted = self._upstream.value(), self._settings.streams
        streams = data if isinstance(data, list) and data else [data]
        if all(map(is_stream, streams)):
            names = [stream_name(stream) for stream in streams]
            self._check_names(names)
            if wanted:
                streams = [stream for name, stream in zip(names, streams, strict=True) if name in wanted]
                data = streams[0] if len(streams) == 1 else streams
            return (data, {"streams": [_entry(stream) for stream in streams]}) if self._settings.catalog else data
        if is_tables(data):
            self._check_names(list(data))
            data = {name: table for name, table in data.items() if not wanted or name in wanted}
            if not self._settings.catalog:
                return data
            schemas = {name: schema_of(to_table(table).schema) for name, table in data.items()}
            return data, {"streams": [catalog_entry(name, schema) for name, schema in schemas.items()]}
        self._check_names([self.uuid])
        return (data, {"streams": [self._own_entry()]}) if self._settings.catalog else data

    def values(self) -> list[Any]:
        """Return `value` as the only one."""
        return [self.value()]

    def count(self) -> int:
        """Return 1: outputs that were returned as a tuple are passed as a list."""
        return 1

    def _of_source(self, stored: Sequence[StoredStream], frames: Frames | None) -> Any:
        self._check_names([stream.name for stream in stored])
        chosen = [stream for stream in stored if not self._settings.streams or stream.name in self._settings.streams]
        if frames is None:
            from streamline.outputs.streams import read_shapes

            data = read_shapes(chosen)
        else:
            from streamline.outputs.stream_frames import to_frames

            data = to_frames(chosen, frames)
        return (data, {"streams": [stream.stream for stream in chosen]}) if self._settings.catalog else data

    def _check_names(self, known: Sequence[str]) -> None:
        for name in self._settings.streams:
            if name not in known:
                raise ConfigError(
                    f"the output of '{self.uuid}' has no stream '{name}'",
                    where=self._settings.where,
                    hint=suggestion(name, known, what="streams"),
                    code="stream.unknown",
                )

    def _own_entry(self) -> JSONObject:
        try:
            return catalog_entry(self.uuid, _schema(self._upstream))
        except ConfigError as error:
            raise ConfigError(
                f"the output of '{self.uuid}' has no catalog: {error.message}",
                where=self._settings.where,
                hint=error.hint or "return a DataFrame, a list of dicts or an Arrow table",
                code=error.code,
            ) from None


def catalog_entry(name: str, schema: JSONObject) -> JSONObject:
    """Return the catalog entry of an upstream output that is one stream: everything is selected."""
    breadcrumbs = [[], *(["properties", column] for column in schema.get("properties", {}))]
    marks = {"inclusion": "available", "selected": True}
    return {
        "tap_stream_id": name,
        "stream": name,
        "schema": schema,
        "key_properties": [],
        "replication_method": "FULL_TABLE",
        "metadata": [{"breadcrumb": breadcrumb, "metadata": dict(marks)} for breadcrumb in breadcrumbs],
    }


def _entry(value: dict[str, Any]) -> JSONObject:
    """Return the catalog entry of a stream; one that a user's code made may lack most of it."""
    entry, _ = stream_of(value)
    return {**catalog_entry(stream_name(value), entry["schema"]), **entry}


def _schema(upstream: Input) -> JSONObject:
    files = upstream.parquet()
    if files:
        import pyarrow.parquet as pq

        # Types that have nothing in common are an error when the table is read, which says which.
        with contextlib.suppress(pa.ArrowException):
            return schema_of(pa.unify_schemas(map(pq.read_schema, files), promote_options="permissive"))
    return schema_of(upstream.table().schema)
