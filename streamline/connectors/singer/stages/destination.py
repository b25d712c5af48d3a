"""Applies one destination's settings to a source's items, for targets that do not have such settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from streamline.connectors.singer.stages.stream_plan import SOURCE_COLUMN, StreamPlan
from streamline.errors import StreamlineError
from streamline.flow.codecs import jsontext
from streamline.flow.codecs.envelope import map_records, rewrite, rewrite_files
from streamline.flow.codecs.jsontext import join_object, split_object
from streamline.flow.items import (
    ActivateVersion,
    ArrowBatch,
    BadRecord,
    Batch,
    Item,
    JSONObject,
    MessageBatch,
    Position,
    RawBatch,
    RowBatch,
    Schema,
)
from streamline.flow.protocols import ImmediateStage


class ExportStage(ImmediateStage):
    """Drops the items of streams that a destination does not export, before anything looks at them.

    Args:
        exports: whether a stream (named as in the messages) is exported.
    """

    def __init__(self, exports: Callable[[str], bool]) -> None:
        self._exports = exports

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        return [item] if isinstance(item, Position) or self._exports(item.stream) else []


class DestinationStage(ImmediateStage):
    """Applies one destination's settings to a source's items.

    Renaming a stream keeps its records' bytes; dropping columns keeps the bytes of the others.

    Args:
        plan_of: the plan of a stream (named as in the messages); None if it is not exported.
        target: the target's name, for messages.
    """

    def __init__(self, plan_of: Callable[[str], StreamPlan | None], *, target: str = "the target") -> None:
        self._plan_of = plan_of
        self._target = target
        self._plans: dict[str, StreamPlan | None] = {}

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`.

        Raises:
            StreamlineError: a key column is missing in a SCHEMA.
        """
        if isinstance(item, Position):
            return [item]
        plan = self._plan(item.stream)
        if plan is None:
            return []
        if isinstance(item, Schema):
            return [self._schema(item, plan)]
        if isinstance(item, RawBatch | RowBatch | ArrowBatch):
            batch = _records(item, plan)
            return [batch if plan.source is None else _with_source(batch, plan.source)]
        if isinstance(item, BadRecord | MessageBatch) or plan.table is None:
            return [item]
        if isinstance(item, ActivateVersion):
            return [msgspec.structs.replace(item, stream=plan.table, raw=None)]
        return [rewrite_files(item, stream=plan.table)]

    def _plan(self, stream: str) -> StreamPlan | None:
        if stream not in self._plans:
            self._plans[stream] = self._plan_of(stream)
        return self._plans[stream]

    def _schema(self, item: Schema, plan: StreamPlan) -> Schema:
        keys = item.key_properties if plan.keys is None else plan.keys
        properties = item.schema.get("properties") or {}
        missing = [key for key in plan.keys or () if key not in properties]
        missing += [key for key in keys or () if key not in missing and not plan.keeps(key)]
        if missing:
            raise StreamlineError(
                f"key column {', '.join(map(repr, missing))} would not reach {self._target}",
                where=plan.where or f"stream {item.stream!r}",
                hint=f"the columns of stream {item.stream!r} are {', '.join(properties)}; see its settings "
                "columns and unique_constraints",
                code="stream.key_missing",
            )
        if plan.load_method == "upsert" and not keys:
            raise StreamlineError(
                "upsert needs a key, and the tap does not send one",
                where=plan.where or f"stream {item.stream!r}",
                hint=f"set unique_constraints for stream {item.stream!r}, or load_method: append",
                code="stream.key_missing",
            )
        schema = _filtered_schema(item.schema, plan)
        if plan.source is not None and SOURCE_COLUMN in properties:
            raise StreamlineError(
                f"it has a column {SOURCE_COLUMN} already",
                where=f"stream {item.stream!r}",
                hint="remove source_column from the destination, or that column from the source's columns",
                code="destination.settings_conflict",
            )
        if plan.table is None and plan.keys is None and schema is item.schema:
            return item
        bookmarks = item.bookmark_properties
        if bookmarks is not None:
            bookmarks = [name for name in bookmarks if plan.keeps(name)]
        if keys is not None:
            keys = plan.with_source(keys)
        return Schema(plan.table or item.stream, schema, keys, bookmarks)


def _records(batch: Batch, plan: StreamPlan) -> Batch:
    if isinstance(batch, RawBatch):
        if plan.drops_columns:
            batch = map_records(batch, lambda text: _pick(text, plan.keeps))
        return rewrite(batch, stream=plan.table)
    name = plan.table or batch.stream
    if isinstance(batch, RowBatch):
        rows = batch.rows
        if plan.drops_columns:
            rows = [{column: value for column, value in row.items() if plan.keeps(column)} for row in rows]
        return RowBatch(name, rows, batch.version, batch.time_extracted)
    table = batch.table
    if plan.drops_columns:
        table = table.select([column for column in table.column_names if plan.keeps(column)])
    return ArrowBatch(name, table, batch.version, batch.time_extracted)


def _with_source(batch: Batch, source: str) -> Batch:
    """Return the records with a last column that names their source."""
    if isinstance(batch, RawBatch):
        value = msgspec.Raw(jsontext.encode(source))
        return map_records(batch, lambda text: join_object({**split_object(text), SOURCE_COLUMN: value}))
    if isinstance(batch, RowBatch):
        rows = [{**row, SOURCE_COLUMN: source} for row in batch.rows]
        return msgspec.structs.replace(batch, rows=rows)
    import pyarrow as pa

    table = batch.table
    if SOURCE_COLUMN in table.column_names:
        table = table.drop_columns([SOURCE_COLUMN])
    column = pa.repeat(pa.scalar(source, pa.string()), table.num_rows)
    return msgspec.structs.replace(batch, table=table.append_column(SOURCE_COLUMN, column))


def _pick(text: bytes, keeps: Callable[[str], bool]) -> bytes:
    members = split_object(text)
    kept = {name: value for name, value in members.items() if keeps(name)}
    return text if len(kept) == len(members) else join_object(kept)


def _filtered_schema(schema: JSONObject, plan: StreamPlan) -> JSONObject:
    if not plan.changes_records and not plan.annotations:
        return schema
    changed = dict(schema)
    if plan.drops_columns:
        properties = schema.get("properties") or {}
        changed["properties"] = {name: value for name, value in properties.items() if plan.keeps(name)}
        if isinstance(schema.get("required"), list):
            changed["required"] = [name for name in schema["required"] if plan.keeps(name)]
    if plan.source is not None:
        changed["properties"] = {**(changed.get("properties") or {}), SOURCE_COLUMN: {"type": "string"}}
    return {**changed, **plan.annotations}
