"""Reads the lines of Singer streams out of messages: the reverse of `record_messages.SingerMessages`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import anyio.to_thread

from streamline.connectors.singer.message_reader import TapOutputError
from streamline.connectors.singer.parser import TapParser
from streamline.flow.codecs import jsontext
from streamline.flow.items import BadRecord, FileBatch, Item, MessageBatch, Origin, Position, Schema
from streamline.flow.protocols import ImmediateStage

STAGE = "decode"


class SingerRecords(ImmediateStage):
    """Turns messages whose values are Singer's lines into records, SCHEMAs and ACTIVATE_VERSIONs.

    STATEs are left out: how far the topic is read is another matter. So are messages without a value.

    SCHEMAs that were read before are loaded when the first message of their topic comes: another process may have read
    it meanwhile.

    Args:
        source: uuid of the source block.
        load: a topic → by stream, the SCHEMA lines that were read there before the saved position; blocks.

    Attributes:
        schemas: by topic and stream, the newest SCHEMA line.
    """

    def __init__(self, source: str, load: Callable[[str], Mapping[str, bytes]]) -> None:
        self.schemas: dict[str, dict[str, bytes]] = {}
        self._source = source
        self._load = load
        self._parser = TapParser(source, tap=source, log=lambda line: None)
        self._parts: frozenset[str] = frozenset()

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, Position):
            self._forget_topics(item.parts)
        if not isinstance(item, MessageBatch):
            return [item]
        topic = _topic(item)
        items: list[Item] = []
        if topic not in self.schemas:
            self.schemas[topic] = dict(await anyio.to_thread.run_sync(self._load, topic))
            for line in self.schemas[topic].values():
                items += self._parser.feed(line.rstrip(b"\n") + b"\n")
        return [*items, *self._read(item)]

    def _forget_topics(self, parts: Mapping[str, bytes]) -> None:
        """Forget the topics that have gone to another process."""
        lost = self._parts.difference(parts)
        self._parts = frozenset(parts)
        if lost:
            for topic in {part.rpartition("/")[0] for part in lost} - {part.rpartition("/")[0] for part in parts}:
                self.schemas.pop(topic, None)

    def _read(self, batch: MessageBatch) -> list[Item]:
        origins = batch.origins or [None] * batch.count
        values = [_line(value) for value in batch.data if value is not None]
        if all(line[:1] == b"{" for line in values):
            try:
                return self._kept(self._parser.feed(b"".join(values)), _topic(batch))
            except TapOutputError:
                pass  # which of them it is, and what is wrong with it, is found one by one
        items: list[Item] = []
        for value, origin in zip(batch.data, origins, strict=True):
            if value is not None:
                items += self._read_one(batch.stream, value, origin, _topic(batch))
        return items

    def _read_one(self, stream: str, value: object, origin: Origin | None, topic: str) -> list[Item]:
        line = _line(value)
        try:
            if line[:1] != b"{":
                raise TapOutputError("not a Singer message: it is no JSON object", where=self._source)
            return self._kept(self._parser.feed(line), topic)
        except TapOutputError as error:
            return [BadRecord(stream, line.rstrip(b"\n"), error.message, STAGE, origin=origin)]

    def _kept(self, items: Sequence[Item], topic: str) -> list[Item]:
        for item in items:
            if isinstance(item, FileBatch):
                raise TapOutputError("a BATCH names files, which are not in the topic", where=self._source)
            if isinstance(item, Schema) and item.raw is not None:
                self.schemas[topic][item.stream] = item.raw
        return [item for item in items if not isinstance(item, Position)]


def _topic(batch: MessageBatch) -> str:
    origin = next((origin for origin in batch.origins or () if origin is not None), None)
    return batch.stream if origin is None else origin.topic


def _line(value: object) -> bytes:
    """Return a value as one line. A raw newline in JSON stands between its tokens."""
    text = bytes(value) if isinstance(value, bytes | bytearray | memoryview) else jsontext.dumps(value)
    text = text.strip()
    return (text.replace(b"\n", b" ") if b"\n" in text else text) + b"\n"
