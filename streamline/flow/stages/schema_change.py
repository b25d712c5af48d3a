"""Applies `schema_change` (evolve, freeze or pause) when a stream's SCHEMA differs from that of the last run."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from datetime import time as time_of_day
from typing import Any

import msgspec

from streamline.errors import StreamlineError
from streamline.flow.codecs import jsontext
from streamline.flow.codecs.envelope import map_records
from streamline.flow.codecs.jsontext import join_object, split_object
from streamline.flow.codecs.schemas import properties
from streamline.flow.items import (
    ArrowBatch,
    BadRecord,
    Batch,
    FileBatch,
    Item,
    JSONObject,
    Position,
    RawBatch,
    RowBatch,
    Schema,
)
from streamline.flow.protocols import ImmediateStage

STAGE = "schema_change"
ADDED = "x-streamline-added"
"""Keyword of a saved schema: the columns that transformer blocks add. Targets never get it."""

_ANNOTATIONS = frozenset(
    {"title", "description", "$comment", "default", "examples", "example", "selected", "inclusion"}
)


class SchemaPaused(StreamlineError):
    """A stream stopped before a change of its schema (`schema_change: pause`)."""

    code = "stream.schema_paused"

    def __init__(self, stream: str, message: str, *, hint: str) -> None:
        super().__init__(message, where=f"stream {stream!r}", hint=hint)
        self.stream = stream


class Changes(msgspec.Struct, frozen=True):
    """The differences between a stream's columns and the known ones."""

    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    retyped: Mapping[str, str] = {}

    def without(self, columns: Collection[str]) -> Changes:
        """Return the differences of other columns than these."""
        return Changes(
            new=tuple(name for name in self.new if name not in columns),
            gone=tuple(name for name in self.gone if name not in columns),
            retyped={name: how for name, how in self.retyped.items() if name not in columns},
        )

    def __bool__(self) -> bool:
        return bool(self.new or self.gone or self.retyped)

    def __str__(self) -> str:
        parts = [f"new: {', '.join(self.new)}"] if self.new else []
        parts += [f"removed: {', '.join(self.gone)}"] if self.gone else []
        parts += (
            [f"retyped: {', '.join(f'{name} ({how})' for name, how in self.retyped.items())}"] if self.retyped else []
        )
        return "; ".join(parts)


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    """Compare the columns of two schemas; titles, descriptions and the like are ignored."""
    before, after = properties(old), properties(new)
    return Changes(
        new=tuple(name for name in after if name not in before),
        gone=tuple(name for name in before if name not in after),
        retyped={
            name: f"{_type(before[name])} → {_type(after[name])}"
            for name in after
            if name in before and _meaning(before[name]) != _meaning(after[name])
        },
    )


class SchemaChangeStage(ImmediateStage):
    """Applies each stream's `schema_change` policy. An assumed SCHEMA is no change: the known one takes its place.

    evolve forwards the new schema. freeze keeps the known schema: new columns are dropped, and a record with a value
    that does not fit the old type of its column becomes a `BadRecord`. pause raises `SchemaPaused`, which stops the
    stream before the change.

    Args:
        policy_of: `evolve`, `freeze` or `pause` for a stream (named as in the messages).
        last: the schemas of the last run, by stream; for a stream that is not in it, the first SCHEMA is the known one.
        pipeline: its name, for messages.
        sink: uuid of the destination block behind this stage.
        on_new: called with each stream whose first SCHEMA this is, as far as is known.
    """

    def __init__(
        self,
        policy_of: Callable[[str], str],
        last: Mapping[str, JSONObject],
        *,
        pipeline: str = "PIPELINE",
        sink: str | None = None,
        on_new: Callable[[str], None] = lambda stream: None,
    ) -> None:
        self._policy_of = policy_of
        self._on_new = on_new
        self._sink = sink
        self._pipeline = pipeline
        self._known: dict[str, JSONObject] = {}
        self._added: dict[str, frozenset[str]] = {}
        for stream, schema in last.items():
            self._added[stream] = frozenset(added_columns(schema))
            self._known[stream] = {word: value for word, value in schema.items() if word != ADDED}
        self._frozen: dict[str, _Frozen] = {}
        self.newest: dict[str, JSONObject] = {}
        """The schemas to save for the next run: of each stream, the one that the target received."""

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`.

        Raises:
            SchemaPaused: the schema of a stream with `pause` changed.
            StreamlineError: a column that `freeze` would drop is a key, or a file of records would need changes.
        """
        if isinstance(item, Position):
            return [item]
        if isinstance(item, Schema):
            return [self._schema(item)]
        if isinstance(item, RawBatch | RowBatch | ArrowBatch):
            frozen = self._frozen.get(item.stream)
            return [item] if frozen is None else self._for_sink(frozen.apply(item))
        if isinstance(item, FileBatch) and item.stream in self._frozen:
            raise StreamlineError(
                "the tap sends its records in files (BATCH), which schema_change: freeze cannot change",
                where=f"stream {item.stream!r}",
                hint="disable BATCH messages in the tap's configuration, or set schema_change: evolve",
                code="stream.batch_not_supported",
            )
        return [item]

    def _for_sink(self, items: Sequence[Item]) -> Sequence[Item]:
        return [
            msgspec.structs.replace(item, sink=self._sink) if isinstance(item, BadRecord) else item for item in items
        ]

    def _schema(self, item: Schema) -> Schema:
        known = self._known.get(item.stream)
        if item.assumed:
            if known is not None and properties(known).keys() >= {*(item.key_properties or ())}:
                return Schema(item.stream, known, item.key_properties, item.bookmark_properties)
            return item
        if known is None:
            self._on_new(item.stream)
        policy = self._policy_of(item.stream)
        # Columns that a block adds are no change: they are in the SCHEMA when they have their first value.
        added = self._added[item.stream] = self._added.get(item.stream, frozenset()) | item.added
        changes = Changes() if known is None or policy == "evolve" else compare(known, item.schema).without(added)
        if known is None or policy == "evolve" or not changes:
            self._frozen.pop(item.stream, None)
            # Under freeze and pause the known schema stays: a new description of a column is not a change.
            schema = item.schema if known is None or policy == "evolve" else _with_columns(known, item, added)
            self._keep(item.stream, schema)
            return item
        if policy == "pause":
            raise SchemaPaused(
                item.stream,
                f"paused because its schema changed ({changes})",
                hint=f"to accept the change: streamline streams set {self._pipeline} {item.stream} "
                "schema_change=evolve",
            )
        known = _with_columns(known, item, added)
        self._keep(item.stream, known)
        lost = [key for key in item.key_properties or () if key in changes.new]
        if lost:
            raise StreamlineError(
                f"its key is now the new column {', '.join(map(repr, lost))}, which schema_change: freeze would drop",
                where=f"stream {item.stream!r}",
                hint="set schema_change: evolve, or unique_constraints to the old key",
                code="stream.key_missing",
            )
        if changes.new or changes.retyped:
            self._frozen[item.stream] = _Frozen(item.stream, known, changes)
        else:
            self._frozen.pop(item.stream, None)
        return Schema(item.stream, known, item.key_properties, item.bookmark_properties)

    def _keep(self, stream: str, schema: JSONObject) -> None:
        self._known[stream] = schema
        added = sorted(self._added[stream] & properties(schema).keys())
        self.newest[stream] = {**schema, ADDED: added} if added else schema


def added_columns(schema: Mapping[str, Any]) -> Mapping[str, JSONObject]:
    """Return the properties of a saved schema that blocks had added to the source's."""
    declared = properties(schema)
    return {name: declared[name] for name in schema.get(ADDED, ()) if name in declared}


def _with_columns(known: JSONObject, item: Schema, names: Collection[str]) -> JSONObject:
    """Return a known schema with some columns as a SCHEMA has them."""
    newer = {name: prop for name, prop in properties(item.schema).items() if name in names}
    return {**known, "properties": {**properties(known), **newer}} if newer else known


class _Frozen:
    """Makes one stream's records fit its old schema."""

    def __init__(self, stream: str, known: JSONObject, changes: Changes) -> None:
        self._stream = stream
        self._new = frozenset(changes.new)
        self._retyped = changes.retyped
        self._validator = _validator(stream, known, changes.retyped) if changes.retyped else None

    def apply(self, batch: Batch) -> list[Item]:
        bad: list[BadRecord] = []
        if isinstance(batch, RawBatch):
            batch = map_records(batch, lambda text: self._text(text, bad))
        elif isinstance(batch, RowBatch):
            rows = [kept for row in batch.rows if (kept := self._row(row, bad)) is not None]
            batch = RowBatch(batch.stream, rows, batch.version, batch.time_extracted)
        else:
            batch = self._table(batch, bad)
        return [*([batch] if batch.count else []), *bad]

    def _text(self, text: bytes, bad: list[BadRecord]) -> bytes | None:
        members = split_object(text)
        if self._validator is not None:
            error = self._misfit({name: _value(members[name]) for name in self._retyped if name in members})
            if error is not None:
                bad.append(BadRecord(self._stream, text, error, STAGE))
                return None
        kept = {name: value for name, value in members.items() if name not in self._new}
        return text if len(kept) == len(members) else join_object(kept)

    def _row(self, row: JSONObject, bad: list[BadRecord]) -> JSONObject | None:
        if self._validator is not None:
            # As JSON, since a row may contain dates and decimals.
            values = {name: json.loads(jsontext.dumps(row[name])) for name in self._retyped if name in row}
            error = self._misfit(values)
            if error is not None:
                bad.append(BadRecord(self._stream, jsontext.dumps(row), error, STAGE))
                return None
        return {name: value for name, value in row.items() if name not in self._new}

    def _table(self, batch: ArrowBatch, bad: list[BadRecord]) -> ArrowBatch:
        table = batch.table.select([name for name in batch.table.column_names if name not in self._new])
        retyped = [name for name in self._retyped if name in table.column_names]
        if retyped and self._validator is not None:
            fits = []
            for number, values in enumerate(table.select(retyped).to_pylist()):
                error = self._misfit(json.loads(jsontext.dumps(values)))
                if error is not None:
                    row = batch.table.slice(number, 1).to_pylist()[0]
                    bad.append(BadRecord(self._stream, jsontext.dumps(row), error, STAGE))
                fits.append(error is None)
            if not all(fits):
                table = table.filter(fits)
        return ArrowBatch(batch.stream, table, batch.version, batch.time_extracted)

    def _misfit(self, values: JSONObject) -> str | None:
        """Return the reason why values of retyped columns do not fit the old type; None if they fit."""
        error = next(self._validator.iter_errors(values), None) if self._validator is not None else None
        if error is None:
            return None
        column = next(iter(error.instance_path), None)
        return f"column {column!r} was retyped ({self._retyped.get(str(column))}): {error.message}"


def _validator(stream: str, known: JSONObject, columns: Iterable[str]) -> Any:
    # Taps write dates as Python does; strict RFC 3339 would reject values that the target accepts.
    formats = {
        "date-time": _reads(datetime.fromisoformat),
        "date": _reads(date.fromisoformat),
        "time": _reads(time_of_day.fromisoformat),
    }
    rest: JSONObject = {key: known[key] for key in ("definitions", "$defs") if key in known}
    from streamline.flow.stages.lenient import validator, without_flags  # only for columns whose type changed

    schema = without_flags({**rest, "properties": {name: properties(known)[name] for name in columns}})
    return validator(stream, [schema], validate_formats=True, formats=formats)


def _reads(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _value(text: msgspec.Raw) -> Any:
    return json.loads(bytes(text).decode("utf-8", "replace"))


def _type(prop: JSONObject) -> str:
    """Return a short description of a property's type."""
    for word in ("anyOf", "oneOf"):
        if isinstance(prop.get(word), list):
            return " or ".join(dict.fromkeys(_type(variant) for variant in prop[word] if isinstance(variant, dict)))
    declared = prop.get("type")
    names = [declared] if isinstance(declared, str) else sorted(declared or ["any"])
    words = "/".join(name for name in names if name != "null") or "null"
    if "format" in prop:
        words += f" {prop['format']}"
    return words + ("" if "null" in names or words == "any" else " not null")


def _meaning(schema: Any) -> Any:
    """Return the part of a schema that decides which values fit."""
    if isinstance(schema, Mapping):
        kept: JSONObject = {key: _meaning(value) for key, value in schema.items() if key not in _ANNOTATIONS}
        if isinstance(kept.get("properties"), dict):
            kept["properties"] = {key: _meaning(value) for key, value in schema["properties"].items()}
        declared = kept.get("type")
        if isinstance(declared, str):
            kept["type"] = [declared]
        elif isinstance(declared, list):
            kept["type"] = sorted(map(str, declared))
        return kept
    if isinstance(schema, list):
        return [_meaning(item) for item in schema]
    return schema
