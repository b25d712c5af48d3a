"""What happens when a stream's SCHEMA is not the one of the last run: evolve, freeze or pause."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    REST,
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
from streamline.flow.stages.lenient import without_flags

STAGE = "schema_change"
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
    """How a stream's columns differ from those that were known."""

    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    retyped: Mapping[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self.new or self.gone or self.retyped)

    def __str__(self) -> str:
        parts = [f"new: {', '.join(self.new)}"] if self.new else []
        parts += [f"gone: {', '.join(self.gone)}"] if self.gone else []
        parts += (
            [f"retyped: {', '.join(f'{name} ({how})' for name, how in self.retyped.items())}"] if self.retyped else []
        )
        return "; ".join(parts)


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    """How the columns of schema `new` differ from those of `old`; titles, descriptions and the like do not count."""
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


class SchemaChangeStage:
    """Applies each stream's `schema_change` policy.

    evolve forwards. freeze keeps the known schema: new columns are dropped, values of retyped columns that do not
    fit their old type make their record a `BadRecord`. pause lets nothing of the stream pass from the change on, and
    withholds its bookmark; the others go on.

    Args:
        policy_of: `evolve`, `freeze` or `pause` for a stream (named as in the messages).
        last: the schemas of the last run, by stream; a stream that is not in it takes its first SCHEMA as known.
        pipeline: its name, for messages.
        bookmark_name: a stream's name in the tap's bookmarks for its name in the messages.
        sink: uuid of the destination block that it stands before.
        rewinds: a paused stream's last bookmark takes the place of its later ones. Where other destinations are sent
            the same positions, it is withheld instead: one position must not have two values.
        on_pause: called once for each stream that is paused; the caller decides what the run does then. Without it, or
            where the source's positions have no part for each stream, `SchemaPaused` is raised instead.
        separable: whether a position has a part for each stream.
    """

    def __init__(
        self,
        policy_of: Callable[[str], str],
        last: Mapping[str, JSONObject],
        *,
        pipeline: str = "PIPELINE",
        bookmark_name: Callable[[str], str] = str,
        on_pause: Callable[[SchemaPaused], None] | None = None,
        sink: str | None = None,
        rewinds: bool = True,
        separable: Callable[[Position], bool] = lambda position: position.parts.keys() != {REST},
    ) -> None:
        self._policy_of = policy_of
        self._bookmark_name = bookmark_name
        self._on_pause = on_pause
        self._sink = sink
        self._rewinds = rewinds
        self._separable = separable
        self._paused: dict[str, SchemaPaused] = {}
        self._left_at: dict[str, bytes] = {}
        self._newest: Position | None = None
        self._pipeline = pipeline
        self._known = dict(last)
        self._frozen: dict[str, _Frozen] = {}
        self.newest: dict[str, JSONObject] = {}
        """The schemas to save as the last ones: of each stream seen, what the target was told."""

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`.

        Raises:
            SchemaPaused: the schema of a stream under `pause` changed, and it can't be stopped alone.
            StreamlineError: a column that `freeze` would drop is a key, or a file of records would need changes.
        """
        if isinstance(item, Position):
            return [self._position(item)]
        if item.stream in self._paused:
            return []
        if isinstance(item, Schema):
            schema = self._schema(item)
            return [] if schema is None else [schema]
        if isinstance(item, RawBatch | RowBatch | ArrowBatch):
            frozen = self._frozen.get(item.stream)
            return [item] if frozen is None else self._for_sink(frozen.apply(item))
        if isinstance(item, FileBatch) and item.stream in self._frozen:
            raise StreamlineError(
                "its records come in files, and schema_change: freeze would have to change them",
                where=f"stream {item.stream!r}",
                hint="switch the tap's batches off",
            )
        return [item]

    async def finish(self) -> Sequence[Item]:
        """Nothing is held."""
        return []

    async def close(self) -> None:
        """Nothing to free."""

    def _for_sink(self, items: Sequence[Item]) -> Sequence[Item]:
        return [msgspec.structs.replace(one, sink=self._sink) if isinstance(one, BadRecord) else one for one in items]

    def paused(self, stream: str) -> bool:
        """Whether nothing of a stream passes any more."""
        return stream in self._paused

    def _position(self, item: Position) -> Position:
        """The position, in which streams that are paused stand where they stood before."""
        if not self._paused:
            self._newest = item
            return item
        if not self._separable(item):
            raise next(iter(self._paused.values()))
        keys = [self._bookmark_name(stream) for stream in self._paused]
        before = {key: self._left_at[key] for key in keys if key in self._left_at}
        return msgspec.structs.replace(
            item, parts={**item.parts, **before}, withheld=item.withheld.union(key for key in keys if key not in before)
        )

    def _pause(self, pause: SchemaPaused) -> None:
        if self._on_pause is None:
            raise pause
        self._paused[pause.stream] = pause
        name = self._bookmark_name(pause.stream)
        if self._rewinds and self._newest is not None and name in self._newest.parts:
            self._left_at[name] = self._newest.parts[name]
        self._on_pause(pause)

    def _schema(self, item: Schema) -> Schema | None:
        known = self._known.get(item.stream)
        policy = self._policy_of(item.stream)
        changes = Changes() if known is None or policy == "evolve" else compare(known, item.schema)
        if known is None or policy == "evolve" or not changes:
            self._frozen.pop(item.stream, None)
            # Under freeze and pause what was known stays: a column's new description is no change.
            schema = item.schema if known is None or policy == "evolve" else known
            self._known[item.stream] = self.newest[item.stream] = schema
            return item
        if policy == "pause":
            pause = SchemaPaused(
                item.stream,
                f"stopped, because its schema changed ({changes})",
                hint=f"to go on with the change: streamline streams set {self._pipeline} {item.stream} "
                "schema_change=evolve",
            )
            self._pause(pause)
            return None
        self.newest[item.stream] = known
        lost = [key for key in item.key_properties or () if key in changes.new]
        if lost:
            raise StreamlineError(
                f"its key is now the new column {', '.join(map(repr, lost))}, which schema_change: freeze would drop",
                where=f"stream {item.stream!r}",
                hint="set schema_change: evolve, or unique_constraints to the old key",
            )
        if changes.new or changes.retyped:
            self._frozen[item.stream] = _Frozen(item.stream, known, changes)
        else:
            self._frozen.pop(item.stream, None)
        return Schema(item.stream, known, item.key_properties, item.bookmark_properties)


class _Frozen:
    """One stream's records held to its old schema."""

    def __init__(self, stream: str, known: JSONObject, changes: Changes) -> None:
        self._stream = stream
        self._new = frozenset(changes.new)
        self._retyped = changes.retyped
        self._validator = _validator(known, changes.retyped) if changes.retyped else None

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
            # As JSON says it: a row may hold dates and decimals.
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
        """Why values of retyped columns do not fit the old type; None if they do."""
        error = next(self._validator.iter_errors(values), None) if self._validator is not None else None
        if error is None:
            return None
        column = next(iter(error.instance_path), None)
        return f"column {column!r} was retyped ({self._retyped.get(str(column))}): {error.message}"


def _validator(known: JSONObject, columns: Iterable[str]) -> Any:
    import jsonschema_rs

    # Taps write dates as Python does; RFC 3339 to the letter would refuse what the target takes.
    formats = {
        "date-time": _reads(datetime.fromisoformat),
        "date": _reads(date.fromisoformat),
        "time": _reads(time_of_day.fromisoformat),
    }
    rest: JSONObject = {key: known[key] for key in ("definitions", "$defs") if key in known}
    schema = without_flags({**rest, "properties": {name: properties(known)[name] for name in columns}})
    return jsonschema_rs.Draft7Validator(schema, validate_formats=True, formats=formats)


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
    """A property's type in a few words."""
    for word in ("anyOf", "oneOf"):
        if isinstance(prop.get(word), list):
            return " or ".join(dict.fromkeys(_type(one) for one in prop[word] if isinstance(one, dict)))
    declared = prop.get("type")
    names = [declared] if isinstance(declared, str) else sorted(declared or ["any"])
    words = "/".join(name for name in names if name != "null") or "null"
    if "format" in prop:
        words += f" {prop['format']}"
    return words + ("" if "null" in names or words == "any" else " not null")


def _meaning(schema: Any) -> Any:
    """What of a schema decides which values fit."""
    if isinstance(schema, Mapping):
        found: JSONObject = {key: _meaning(value) for key, value in schema.items() if key not in _ANNOTATIONS}
        if isinstance(found.get("properties"), dict):
            found["properties"] = {key: _meaning(value) for key, value in schema["properties"].items()}
        declared = found.get("type")
        if isinstance(declared, str):
            found["type"] = [declared]
        elif isinstance(declared, list):
            found["type"] = sorted(map(str, declared))
        return found
    if isinstance(schema, list):
        return [_meaning(one) for one in schema]
    return schema
