"""The outputs of upstream blocks as streams: which there are, their catalog, and how decorated functions get them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamline.connectors.outputs.table_source import schema_of
from streamline.errors import ConfigError
from streamline.flow.items import JSONObject
from streamline.outputs.tables import to_table
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from streamline.blocks.call import Input
    from streamline.blocks.connector.inputs import InputSettings

_SHAPE = {"stream", "columns", "rows"}


class StreamsInput:
    """An upstream output as a decorated function gets it: limited to some streams, with its catalog if asked for."""

    def __init__(self, upstream: Input, settings: InputSettings) -> None:
        self.uuid = upstream.uuid
        self.type = upstream.type
        self._upstream = upstream
        self._settings = settings

    def value(self) -> Any:
        """Return the data, or `(data, catalog)`.

        Raises:
            ConfigError: it has no such stream, or is no table, so that there is no catalog.
        """
        data = self._upstream.value()
        shapes = shapes_of(data)
        self._check_names([_name(shape) for shape in shapes] if shapes is not None else [self.uuid])
        if shapes is not None and self._settings.streams:
            shapes = [shape for shape in shapes if _name(shape) in self._settings.streams]
            data = shapes[0] if len(shapes) == 1 else shapes
        if not self._settings.catalog:
            return data
        entries = [_entry_of(shape) for shape in shapes] if shapes is not None else [self._own_entry()]
        return data, {"streams": entries}

    def values(self) -> list[Any]:
        """Return `value` as the only one."""
        return [self.value()]

    def count(self) -> int:
        """Return 1: outputs that were returned as a tuple are passed as a list."""
        return 1

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


def shapes_of(value: Any) -> list[dict[str, Any]] | None:
    """Return the streams of an output in the shape of a source block's: `{stream, columns, rows}`, one or several.

    None: it has another shape.
    """
    shapes = value if isinstance(value, list) and value else [value]
    return list(shapes) if all(map(_is_shape, shapes)) else None


def catalog_entry(name: str, schema: JSONObject) -> JSONObject:
    """Return the catalog entry of an upstream output that is one stream."""
    columns = list(schema.get("properties", {}))
    metadata = [{"breadcrumb": [], "metadata": {"inclusion": "available", "selected": True}}]
    metadata += [
        {"breadcrumb": ["properties", column], "metadata": {"inclusion": "available", "selected": True}}
        for column in columns
    ]
    return {
        "tap_stream_id": name,
        "stream": name,
        "schema": schema,
        "key_properties": [],
        "replication_method": "FULL_TABLE",
        "metadata": metadata,
    }


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() >= _SHAPE
        and isinstance(value["stream"], dict)
        and bool(value["stream"].get("stream") or value["stream"].get("tap_stream_id"))
        and isinstance(value["columns"], list)
        and isinstance(value["rows"], list)
    )


def _name(shape: dict[str, Any]) -> str:
    stream = shape["stream"]
    return str(stream.get("stream") or stream["tap_stream_id"])


def _entry_of(shape: dict[str, Any]) -> JSONObject:
    """Return the catalog entry of a stream; one that a user's code made may lack the schema."""
    stream: JSONObject = shape["stream"]
    if isinstance(stream.get("schema"), dict):
        return stream
    rows = [dict(zip(shape["columns"], row, strict=False)) for row in shape["rows"]]
    table = to_table(rows) if rows else pa.table({name: pa.nulls(0) for name in shape["columns"]})
    return {**catalog_entry(_name(shape), schema_of(table.schema)), **stream}


def _schema(upstream: Input) -> JSONObject:
    files = upstream.parquet()
    if files:
        import pyarrow.parquet as pq

        # Types that have nothing in common are an error when the table is read, which says which.
        with contextlib.suppress(pa.ArrowException):
            return schema_of(pa.unify_schemas(map(pq.read_schema, files), promote_options="permissive"))
    return schema_of(upstream.table().schema)
