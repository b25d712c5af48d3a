"""Makes messages of a tap's records: the value is the record's JSON text, the key that of its key properties."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from streamline.connectors.singer.messages import activate_version_line, schema_line
from streamline.flow.codecs import jsontext
from streamline.flow.codecs.envelope import records
from streamline.flow.codecs.lanes import lines_of, to_raw
from streamline.flow.items import (
    ActivateVersion,
    ArrowBatch,
    BadRecord,
    Item,
    MessageBatch,
    Origin,
    Position,
    RawBatch,
    RowBatch,
    Schema,
)
from streamline.flow.protocols import ImmediateStage

NOWHERE = -1
"""Offset of a message that was read from no topic. Its partition is the one to write it to, or this: by its key."""

PARTITION = 0
"""Where messages in Singer's format go: a SCHEMA holds for the records behind it, so their order is kept."""

DELETED = "_sdc_deleted_at"
"""The column by which log-based taps say that a row was deleted."""

SCHEMA_SECONDS = 60.0
"""A SCHEMA that has not changed is written again after so many seconds: a topic may forget the one before."""

Raws = dict[str, msgspec.Raw]


class RecordKeys:
    """Makes the keys of one stream's messages.

    One key property gives its text (a string without quotes), several give a JSON array. Where the only one is null
    or missing, the message has no key.

    Args:
        properties: the stream's key properties.
    """

    def __init__(self, properties: Sequence[str]) -> None:
        self._properties = list(properties)
        fields = [(f"key{number}", msgspec.Raw, msgspec.Raw()) for number in range(len(properties))]
        names = {f"key{number}": name for number, name in enumerate(properties)}
        members = msgspec.defstruct("Members", fields, rename=names)
        self._fields = [name for name, _, _ in fields]
        self._decoder = msgspec.json.Decoder(members)

    def key(self, record: bytes) -> bytes | None:
        """Return the key of a record's message."""
        if not self._properties:
            return None
        try:
            members = self._decoder.decode(record)
            texts = [bytes(getattr(members, field)) for field in self._fields]
        except (msgspec.MsgspecError, ValueError, RecursionError):
            own = jsontext.split_object(record)
            texts = [bytes(own.get(name, b"")) for name in self._properties]
        return self._joined(texts)

    def key_of(self, data: Mapping[str, Any]) -> bytes | None:
        """Return the key of decoded data."""
        if not self._properties:
            return None
        return self._joined([jsontext.encode(data[name]) if name in data else b"" for name in self._properties])

    @staticmethod
    def _joined(texts: Sequence[bytes]) -> bytes | None:
        if len(texts) > 1:
            return b"[" + b",".join([text or b"null" for text in texts]) + b"]"
        return _plain(texts[0])


class RecordMessages(ImmediateStage):
    """Turns records into messages; SCHEMAs pass, because stages behind may have to know columns.

    Args:
        tombstones: a deleted row becomes a message without a value, if it has a key.
        schema_topic: a stream → the topic that gets its SCHEMAs; None: none does.
        clock: seconds, for `SCHEMA_SECONDS`.
    """

    def __init__(
        self,
        *,
        tombstones: bool = False,
        schema_topic: Callable[[str], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tombstones = tombstones
        self._schema_topic = schema_topic
        self._due = _DueSchemas(clock)
        self._keys: dict[str, RecordKeys] = {}

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, RawBatch | RowBatch | ArrowBatch):
            return self._messages(to_raw(item))
        if isinstance(item, Schema):
            self._keys[item.stream] = RecordKeys(item.key_properties or ())
            if self._schema_topic is not None and (line := self._due.line(item)) is not None:
                metadata = {"dest_topic": self._schema_topic(item.stream), "key": item.stream}
                return [MessageBatch(item.stream, [{"data": line, "metadata": metadata}]), item]
        # Messages have no table versions: to activate one would delete them all.
        return [] if isinstance(item, ActivateVersion) else [item]

    def _messages(self, batch: RawBatch) -> list[Item]:
        keys = self._keys.get(batch.stream)
        data: list[bytes | None] = list(records(batch))
        origins: list[Origin | None] = []
        for number, record in enumerate(data):
            assert record is not None
            key = keys.key(record) if keys is not None else None
            if self._tombstones and key is not None and _is_deleted(record):
                data[number] = None
            origins.append(Origin(batch.stream, NOWHERE, NOWHERE, key, data[number]))
        return [MessageBatch(batch.stream, data, origins)] if data else []


class _DueSchemas:
    """Says which SCHEMAs are to be written: those that have changed, and others once in a while."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._written: dict[str, tuple[bytes, float]] = {}
        """By stream: its last SCHEMA, and when it was written."""

    def line(self, item: Schema) -> bytes | None:
        """Return the line to write; None: not now."""
        line, now = schema_line(item).rstrip(b"\n"), self._clock()
        known = self._written.get(item.stream)
        if known is not None and known[0] == line and now - known[1] < SCHEMA_SECONDS:
            return None
        self._written[item.stream] = (line, now)
        return line


class MessagesOnly(ImmediateStage):
    """Keeps messages from what is for targets only. New messages of transformers get the keys of their records."""

    def __init__(self) -> None:
        self._keys: dict[str, RecordKeys] = {}

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, MessageBatch):
            return [self._with_keys(item)]
        if isinstance(item, Schema):
            self._keys[item.stream] = RecordKeys(item.key_properties or ())
        return [item] if isinstance(item, Position | BadRecord) else []

    def _with_keys(self, batch: MessageBatch) -> MessageBatch:
        keys = self._keys.get(batch.stream)
        if keys is None or (batch.origins is not None and None not in batch.origins):
            return batch
        origins = list(batch.origins or [None] * batch.count)
        for number, data in enumerate(batch.data):
            if origins[number] is None and isinstance(data, Mapping):
                try:
                    key = keys.key_of(data)
                except TypeError:
                    continue  # a value that the sink will refuse
                origins[number] = Origin(batch.stream, NOWHERE, NOWHERE, key, None)
        return msgspec.structs.replace(batch, origins=origins) if any(origins) else batch


class SingerMessages(ImmediateStage):
    """Turns records, SCHEMAs and ACTIVATE_VERSIONs into messages whose values are the lines of a Singer stream.

    Args:
        clock: seconds, for `SCHEMA_SECONDS`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys: dict[str, RecordKeys] = {}
        self._due = _DueSchemas(clock)

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, RawBatch | RowBatch | ArrowBatch):
            return self._records(to_raw(item))
        if isinstance(item, Schema):
            self._keys[item.stream] = RecordKeys(item.key_properties or ())
            line = self._due.line(item)
            return [_line(item.stream, line)] if line is not None else []
        if isinstance(item, ActivateVersion):
            return [_line(item.stream, activate_version_line(item))]
        return [item]

    def _records(self, batch: RawBatch) -> list[Item]:
        keys = self._keys.get(batch.stream)
        lines = [line for piece in batch.slices for line in lines_of(piece)]
        if not lines:
            return []
        stream = batch.stream
        origins: list[Origin | None] = [
            Origin(stream, PARTITION, NOWHERE, keys.key(record) if keys is not None else None, line)
            for line, record in zip(lines, records(batch), strict=True)
        ]
        return [MessageBatch(stream, lines, origins)]


def _line(stream: str, line: bytes) -> MessageBatch:
    value = line.rstrip(b"\n")
    return MessageBatch(stream, [value], [Origin(stream, PARTITION, NOWHERE, None, value)])


def _plain(text: bytes) -> bytes | None:
    """Return the text of a JSON value, a string without its quotes; None for null and nothing."""
    if not text or text == b"null":
        return None
    if text[:1] != b'"':
        return text
    if b"\\" not in text:
        return text[1:-1]
    return str(jsontext.decode(text)).encode("utf-8", "surrogatepass")


def _is_deleted(record: bytes) -> bool:
    if DELETED.encode() not in record:
        return False
    return bytes(jsontext.split_object(record).get(DELETED, b"null")) != b"null"
