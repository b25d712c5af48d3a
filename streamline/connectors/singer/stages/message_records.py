"""Makes records of messages for a target: the SCHEMA is inferred where none is known."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from streamline.connectors.refusals import Message
from streamline.connectors.singer.inferred_schema import InferredSchema, MisfitError
from streamline.connectors.singer.message_reader import MAX_DEPTH
from streamline.connectors.singer.stages.record_messages import DELETED
from streamline.flow.codecs import jsontext
from streamline.flow.codecs.envelope import wrap
from streamline.flow.codecs.jsontext import is_deeper
from streamline.flow.codecs.schemas import properties
from streamline.flow.items import (
    ActivateVersion,
    Item,
    JSONObject,
    MessageBatch,
    Origin,
    Schema,
)
from streamline.flow.protocols import ImmediateStage

COLUMNS: Mapping[str, JSONObject] = {
    "_message_key": {"type": ["null", "string"]},
    "_message_topic": {"type": ["null", "string"]},
    "_message_partition": {"type": ["null", "integer"]},
    "_message_offset": {"type": ["null", "integer"]},
    "_message_time": {"type": ["null", "string"], "format": "date-time"},
    "_message_headers": {"type": ["null", "array"]},
}
"""Columns that say where a message was read."""

VALUE = "value"
"""The column of a value that is no object, where such values are written."""

_EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)
_DELETED_AT: JSONObject = {"type": ["null", "string"], "format": "date-time"}


class _Metadata(msgspec.Struct):
    """What stands beside a message's data."""

    key: bytes | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    time: dt.datetime | None = None
    headers: Sequence[tuple[str, Any]] | None = None


class MessageRecords(ImmediateStage):
    """Turns messages into records of a target.

    SCHEMAs that come by, of a tap in front of transformers, give the types of columns that have kept their names.

    Args:
        sink: uuid of the destination block.
        keys_of: a stream → its key columns by the destination's settings; None: those of the tap, if any.
        tap_keys_of: a stream → those of the tap, where no SCHEMA of it has come by.
        known: by stream, the schema that the destination was sent last.
        include_metadata: transformers were given `{data, metadata}`, and return that.
        columns: names of `COLUMNS` that records get.
        wrap_values: a value that is no object becomes a record with the one column `value`; else it is refused.
        tombstones: `delete`: a message without a value marks the row of its key as deleted; `skip`: it is left out.
        note: called once for each stream with what is left out.
    """

    def __init__(
        self,
        sink: str,
        *,
        keys_of: Callable[[str], Sequence[str] | None] = lambda stream: None,
        tap_keys_of: Callable[[str], Sequence[str]] = lambda stream: (),
        known: Mapping[str, JSONObject] | None = None,
        include_metadata: bool = False,
        columns: Sequence[str] = (),
        wrap_values: bool = False,
        tombstones: str = "skip",
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._sink = sink
        self._keys_of = keys_of
        self._tap_keys_of = tap_keys_of
        self._known = dict(known or {})
        self._include_metadata = include_metadata
        self._columns = list(columns)
        self._wrap_values = wrap_values
        self._deletes = tombstones == "delete"
        self._note = note
        self._noted: set[str] = set()
        self._declared: dict[str, Schema] = {}
        self._streams: dict[str, InferredSchema] = {}

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, MessageBatch):
            return self._records(item)
        if isinstance(item, Schema):
            self._declare(item)
            return []
        # Records that a block has seen have no table version: to activate one would delete them all.
        return [] if isinstance(item, ActivateVersion) else [item]

    def _declare(self, item: Schema) -> None:
        before = self._declared.get(item.stream)
        self._declared[item.stream] = item
        if before is not None and (before.schema, before.key_properties) == (item.schema, item.key_properties):
            return
        inferred = self._streams.pop(item.stream, None)
        if inferred is not None:
            self._known[item.stream] = inferred.schema

    def _inferred(self, stream: str) -> InferredSchema:
        inferred = self._streams.get(stream)
        if inferred is None:
            tap = self._declared.get(stream)
            keys = self._keys_of(stream)
            if keys is None:
                keys = (tap.key_properties or ()) if tap is not None else self._tap_keys_of(stream)
            declared = {name: COLUMNS[name] for name in self._columns}
            if self._deletes:
                declared[DELETED] = _DELETED_AT
            if tap is not None:
                declared = {**properties(tap.schema), **declared}
            known = properties(self._known.get(stream))
            inferred = self._streams[stream] = InferredSchema(keys, known, declared)
        return inferred

    def _records(self, batch: MessageBatch) -> list[Item]:
        origins = batch.origins or [None] * batch.count
        bad: list[Item] = []
        lines: dict[str, list[bytes]] = {}
        for number, (data, origin) in enumerate(zip(batch.data, origins, strict=True)):
            try:
                self._add(batch.stream, data, origin, lines)
            except (MisfitError, TypeError) as error:
                bad.append(Message("", batch, number).refused(str(error), self._sink))
        items: list[Item] = []
        for stream, texts in lines.items():
            inferred = self._streams[stream]
            if inferred.changed:
                inferred.changed = False
                items.append(Schema(stream, inferred.schema, list(inferred.keys)))
            items.append(wrap(stream, texts))
        return [*items, *bad]

    def _add(self, stream: str, data: Any, origin: Origin | None, lines: dict[str, list[bytes]]) -> None:
        """Add a message's record to the lines of its stream.

        Raises:
            MisfitError: it is none, or does not fit.
            TypeError: a value of a type that JSON has no word for.
        """
        metadata: _Metadata | None = None
        if self._include_metadata and isinstance(data, Mapping) and data.keys() >= {"data", "metadata"}:
            given = data["metadata"]
            if isinstance(given, Mapping):
                stream = str(given.get("dest_topic") or stream)
                metadata = _metadata_in(given)
            data = data["data"]
        if metadata is None and (data is None or self._columns):
            metadata = _metadata_of(origin) if origin is not None else _Metadata()
        if data is None:
            if not self._deletes:
                if stream not in self._noted:
                    self._noted.add(stream)
                    self._note(f"messages of {stream!r} without a value (tombstones) are left out")
                return
            data = self._deleted(stream, metadata or _Metadata())
        inferred = self._inferred(stream)
        fast = not self._columns
        if fast and type(data) is bytes and data[:1] == b"{" and b"\n" not in data and self._fits(inferred, data):
            lines.setdefault(stream, []).append(data)
            return
        text = _text(data)
        if text[:1] != b"{":
            if not self._wrap_values:
                raise MisfitError("the value is no JSON object, so it has no columns")
            text = jsontext.join_members({VALUE: text})
        if fast and self._fits(inferred, text):
            lines.setdefault(stream, []).append(text)
            return
        try:
            members = dict(jsontext.split_object(text))
        except (ValueError, RecursionError) as error:
            raise MisfitError(f"not valid JSON: {error}") from None
        for name in self._columns:
            members[name] = msgspec.Raw(jsontext.encode(_COLUMN_OF[name](metadata or _Metadata())))
        unknown = inferred.fit(members, _formats(data) if isinstance(data, Mapping) else None)
        if unknown or self._columns:
            # No SCHEMA has a column of which no type is known.
            text = jsontext.join_object({name: raw for name, raw in members.items() if name not in unknown})
        lines.setdefault(stream, []).append(text)

    @staticmethod
    def _fits(inferred: InferredSchema, text: bytes) -> bool:
        return inferred.fits(text) and not is_deeper(text, MAX_DEPTH)

    def _deleted(self, stream: str, metadata: _Metadata) -> JSONObject:
        keys = self._inferred(stream).keys
        if not keys or metadata.key is None:
            raise MisfitError(
                "a message without a value names no row: it has no key"
                if metadata.key is None
                else "a message without a value names no row: the stream has no key; set unique_constraints"
            )
        values = _key_values(metadata.key, len(keys))
        kinds = [self._inferred(stream).properties.get(key, {}).get("type") or () for key in keys]
        if len(keys) == 1 and "string" in kinds[0]:
            values = [metadata.key.decode("utf-8", "replace")]
        if len(values) != len(keys):
            raise MisfitError(f"a message without a value names no row: its key has {len(values)} of {len(keys)} parts")
        moment = metadata.time or dt.datetime.now(dt.UTC)
        return {**dict(zip(keys, values, strict=True)), DELETED: moment.isoformat()}


_COLUMN_OF: Mapping[str, Callable[[_Metadata], Any]] = {
    "_message_key": lambda metadata: _key_text(metadata.key),
    "_message_topic": lambda metadata: metadata.topic,
    "_message_partition": lambda metadata: metadata.partition,
    "_message_offset": lambda metadata: metadata.offset,
    "_message_time": lambda metadata: metadata.time.isoformat() if metadata.time is not None else None,
    "_message_headers": lambda metadata: (
        [[name, _key_text(value)] for name, value in metadata.headers] if metadata.headers is not None else None
    ),
}


def _metadata_of(origin: Origin) -> _Metadata:
    moment = None
    if origin.time is not None:
        with contextlib.suppress(OverflowError):
            moment = _EPOCH + dt.timedelta(milliseconds=origin.time)
    read = origin.offset >= 0
    return _Metadata(
        origin.key,
        origin.topic,
        origin.partition if read else None,
        origin.offset if read else None,
        moment,
        origin.headers,
    )


def _metadata_in(given: Mapping[str, Any]) -> _Metadata:
    key, moment = given.get("key"), given.get("time")
    return _Metadata(
        key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key,
        given.get("topic"),
        given.get("partition"),
        given.get("offset"),
        moment if isinstance(moment, dt.datetime) else None,
        given.get("headers"),
    )


def _key_text(key: Any) -> Any:
    """Return a key as text, in base64 where it is not UTF-8."""
    if not isinstance(key, bytes):
        return key
    try:
        return key.decode()
    except UnicodeDecodeError:
        return base64.b64encode(key).decode()


def _key_values(key: bytes, parts: int) -> list[Any]:
    try:
        value = jsontext.decode(key)
    except ValueError:
        value = key.decode("utf-8", "replace")
    return value if isinstance(value, list) and parts > 1 else [value]


def _text(data: Any) -> bytes:
    """Return a message's data as JSON text in one line.

    Raises:
        MisfitError: it cannot be written to a target.
        TypeError: it has a value that JSON has no word for.
    """
    if isinstance(data, bytes | bytearray | memoryview):
        text = bytes(data).strip()
        if b"\n" in text:
            text = text.replace(b"\n", b" ")  # in JSON it stands between tokens
        try:
            text.decode()
        except UnicodeDecodeError:
            raise MisfitError("the value is not UTF-8") from None
    else:
        text = jsontext.dumps(data) if not isinstance(data, dict) else jsontext.encode(data)
    if b"\\u" in text and b"\\ud" in text.lower() and _has_lone_surrogate(text):
        raise MisfitError("it contains a lone surrogate, which is not Unicode text")
    if is_deeper(text, MAX_DEPTH):
        raise MisfitError(f"it is nested more than {MAX_DEPTH} levels deep")
    return text


def _formats(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the formats of values that only Python tells from other text."""
    return {
        name: "date-time" if isinstance(value, dt.datetime) else "date"
        for name, value in data.items()
        if isinstance(value, dt.date)
    }


def _has_lone_surrogate(text: bytes) -> bool:
    try:
        json.dumps(jsontext.loads(text), ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False
