"""The loop of a target: reads messages, hands them on in blocks, and echoes a STATE once all before it is durable."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from kit.connector import ConnectorError

from .messages import (
    JSONObject,
    Message,
    RawRecordMessage,
    Record,
    RecordMessage,
    SchemaMessage,
    StateMessage,
    decode_lines,
)

BLOCK_ROWS = 25_000
BLOCK_BYTES = 32 * 1024 * 1024
"""Rows and bytes of all streams that wait in memory at most; a longer record waits alone."""
CHUNK = 1024 * 1024


class Block(NamedTuple):
    """Records of one stream and one version, in order."""

    stream: str
    version: int | None
    records: list[Record]
    first: int
    """The number of the first one among the stream's records of this run, from 1."""


class Sink(Protocol):
    """Where a target writes to."""

    def schema(self, stream: str, schema: JSONObject, key_properties: list[str]) -> None:
        """Take a stream's schema for the records that follow; it may repeat and change."""

    def write(self, block: Block) -> None:
        """Take records; they need not be durable yet, and no reader may see half of them."""

    def activate(self, stream: str, version: int, *, keep_old: bool) -> None:
        """Show the rows of this version, together with what `flush` makes durable next.

        Args:
            keep_old: beside those of other versions, which are deleted otherwise.
        """

    def flush(self) -> bool:
        """Make everything so far durable; False if something is held back until `finish`."""

    def prepare(self) -> None:
        """Import what will be needed: called before the first input, so that no message waits for it."""

    def finish(self) -> None:
        """Make everything durable: the input has ended. Rows that wait for a version stay invisible."""


class Runner:
    """Reads file descriptor 0 to its end.

    Args:
        batch_rows: records after which a flush is made.
        batch_bytes: bytes of input after which a flush is made, for a sink that keeps in memory what is not durable.
        flush_seconds: age of the oldest record that is not durable, at which a flush is made.

    Raises:
        ConnectorError: the input is wrong, or the sink failed. What was echoed is durable; the rest is not.
    """

    def __init__(self, sink: Sink, *, batch_rows: int, flush_seconds: float, batch_bytes: int | None = None) -> None:
        self._sink = sink
        self._batch_rows = batch_rows
        self._batch_bytes = batch_bytes
        self._flush_seconds = flush_seconds
        self._keys: dict[str, SchemaMessage] = {}
        self._blocks: dict[str, Block] = {}
        self._counts: dict[str, int] = {}
        self._waiting_bytes = 0
        self._unflushed = 0
        self._unflushed_bytes = 0
        self._dirty_since: float | None = None
        self._state: bytes | None = None

    def run(self) -> None:
        """Read messages, write rows, echo states."""
        rest: list[bytes] = []
        line = 1
        if not _is_ready(0):
            self._sink.prepare()
        while True:
            self._wait()
            chunk = _read()
            if not chunk:
                break
            cut = chunk.rfind(b"\n") + 1
            if not cut:
                rest.append(chunk)
                continue
            lines = b"".join((*rest, chunk[:cut]))
            rest = [chunk[cut:]]
            self._take_all(decode_lines(lines, line))
            line += lines.count(b"\n")
            self._hand_over_if_full(len(lines))
            self._flush_if_due()
        last = b"".join(rest)
        try:
            self._take_all(decode_lines(last, line))
        except ConnectorError:
            # Whoever wrote has died in the middle of a line. What came before is whole.
            self._flush()
            raise
        self._hand_over_all()
        self._sink.finish()
        self._echo()

    def _wait(self) -> None:
        """Wait for input; a flush that becomes due meanwhile is made."""
        if self._dirty_since is not None:
            left = self._dirty_since + self._flush_seconds - time.monotonic()
            if not _is_ready(max(0.0, left)):
                self._flush()

    def _take_all(self, messages: Sequence[Message]) -> None:
        blocks = self._blocks
        for message in messages:
            if type(message) is RawRecordMessage:
                block = blocks.get(message.stream)
                if block is not None and block.version == message.version:
                    block.records.append(message.record)
                    continue
            self._take(message)

    def _take(self, message: Message) -> None:
        if isinstance(message, RecordMessage):
            self._take_record(message)
        elif isinstance(message, StateMessage):
            self._state = _text(message.value)
            if self._dirty_since is None:
                self._echo()
        elif isinstance(message, SchemaMessage):
            known = self._keys.get(message.stream)
            if known != message:
                self._hand_over(message.stream)
                self._keys[message.stream] = message
                self._counts.setdefault(message.stream, 0)
                self._dirty()
                self._sink.schema(message.stream, message.schema, message.key_properties or [])
        else:
            if message.stream not in self._keys:
                raise ConnectorError(f"stream {message.stream!r}: ACTIVATE_VERSION before its SCHEMA")
            self._hand_over(message.stream)
            self._dirty()
            self._sink.activate(message.stream, message.version, keep_old=message.keep_old)

    def _take_record(self, message: RecordMessage) -> None:
        block = self._blocks.get(message.stream)
        if block is None or block.version != message.version:
            if message.stream not in self._keys:
                raise ConnectorError(
                    f"stream {message.stream!r}: a RECORD before its SCHEMA", "this is a bug of the tap"
                )
            self._hand_over(message.stream)
            block = Block(message.stream, message.version, [], self._counts[message.stream] + 1)
            self._blocks[message.stream] = block
            self._dirty()
        block.records.append(message.record)

    def _waiting(self) -> int:
        return sum(len(block.records) for block in self._blocks.values())

    def _dirty(self) -> None:
        if self._dirty_since is None:
            self._dirty_since = time.monotonic()

    def _hand_over_if_full(self, read: int) -> None:
        self._waiting_bytes += read
        self._unflushed_bytes += read
        if self._waiting() >= BLOCK_ROWS or self._waiting_bytes >= BLOCK_BYTES:
            self._hand_over_all()

    def _hand_over_all(self) -> None:
        for stream in list(self._blocks):
            self._hand_over(stream)
        self._waiting_bytes = 0

    def _hand_over(self, stream: str) -> None:
        block = self._blocks.pop(stream, None)
        if block is not None:
            self._counts[stream] += len(block.records)
            self._unflushed += len(block.records)
            self._sink.write(block)

    def _flush_if_due(self) -> None:
        if self._dirty_since is None:
            return
        age = time.monotonic() - self._dirty_since
        full = self._unflushed + self._waiting() >= self._batch_rows or (
            self._batch_bytes is not None and self._unflushed_bytes >= self._batch_bytes
        )
        if full or age >= self._flush_seconds:
            self._flush()

    def _flush(self) -> None:
        self._hand_over_all()
        self._unflushed = self._unflushed_bytes = 0
        if self._sink.flush():
            self._dirty_since = None
            self._echo()
        else:
            self._dirty_since = time.monotonic()

    def _echo(self) -> None:
        """Write the newest STATE, in the bytes that it came in, once."""
        if self._state is not None:
            state, self._state = self._state, None
            sys.stdout.buffer.write(state + b"\n")
            sys.stdout.buffer.flush()


def _read() -> bytes:
    return os.read(0, CHUNK)


def _is_ready(seconds: float) -> bool:
    """Return whether there is input, or its end, within so many seconds."""
    return bool(select.select([0], [], [], seconds)[0])


def _text(value: Any) -> bytes:
    if isinstance(value, msgspec.Raw):
        return bytes(value)
    return json.dumps(value, separators=(",", ":")).encode()
