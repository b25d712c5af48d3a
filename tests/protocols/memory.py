"""The contract of the flow runtime in its simplest form: a source, a sink and a store that live in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import anyio
import msgspec

from streamline.errors import StreamlineError
from streamline.flow.codecs.lanes import to_raw
from streamline.flow.items import (
    FORGOTTEN,
    ArrowBatch,
    BadRecord,
    Item,
    MessageBatch,
    Position,
    RawBatch,
    RowBatch,
    Schema,
)
from streamline.flow.protocols import Emit, Failed, Proven

STREAM = "numbers"
SCHEMA = Schema(STREAM, {"type": "object", "properties": {"id": {"type": "integer"}}}, ["id"])
EVERY = 10
"""Records between two positions."""


class Numbers:
    """A source of the numbers up to `count`, with a position after every tenth and after the last.

    Args:
        start: the parts of its position that were saved; it begins after that.
        fail_at: the number in whose place it fails.
    """

    def __init__(
        self, count: int, *, id: str = "load", start: Mapping[str, bytes] | None = None, fail_at: int | None = None
    ) -> None:
        self.id = id
        self.stopped: str | None = None
        self.confirmed: dict[str, bytes] = {}
        self._first = int((start or {}).get(STREAM, b"0")) + 1
        self._count = count
        self._fail_at = fail_at
        self._released = False

    async def run(self, emit: Emit) -> None:
        await emit([SCHEMA])
        for number in range(self._first, self._count + 1):
            if self.stopped is not None or self._released:
                return
            if number == self._fail_at:
                raise StreamlineError("the source failed")
            items: list[Item] = [RowBatch(STREAM, [{"id": number}])]
            if number % EVERY == 0 or number == self._count:
                items.append(Position(self.id, number, {STREAM: b"%d" % number}))
            await emit(items)

    def stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        self.confirmed.update(parts)

    async def release(self, keys: Collection[str]) -> None:
        self._released = STREAM in keys


class Table:
    """A sink whose rows wait in a buffer until they are committed: `every` rows at a time, and at the end.

    A row with the key `do` does something to it: `fail`, or `wait` until `gate` is set or it is limited.
    """

    def __init__(self, id: str = "export", *, every: int = 1) -> None:
        self.id = id
        self.rows: list[int] = []
        self.closed = 0
        self.gate = anyio.Event()
        self._every = every
        self._buffer: list[int] = []
        self._numbers: dict[str, int] = {}
        self._failure: StreamlineError | None = None
        self._turn = anyio.Lock()
        self._limited, self._seconds = anyio.Event(), 0.0
        self._ended = anyio.Event()

    async def run(self, proven: Proven, failed: Failed) -> None:
        self._proven, self._failed = proven, failed
        await self._limited.wait()
        with anyio.move_on_after(self._seconds):
            await self._ended.wait()
            return
        self._fail("it did not end in time")
        self.gate.set()

    async def send(self, source: str, items: Sequence[Item]) -> None:
        async with self._turn:
            for item in items:
                if isinstance(item, Position):
                    self._numbers[source] = item.number
                elif isinstance(item, RawBatch | RowBatch | ArrowBatch):
                    for row in rows_of(item):
                        await self._take(row)
            if len(self._buffer) >= self._every:
                self._commit()

    async def _take(self, row: dict[str, Any]) -> None:
        if row.get("do") == "wait":
            await self.gate.wait()
        if row.get("do") == "fail":
            self._fail("the sink failed")
        if self._failure is not None:
            raise self._failure
        self._buffer.append(row["id"])

    def _fail(self, message: str) -> None:
        self._failure = StreamlineError(message)
        self._failed(self._failure)

    def _commit(self) -> None:
        self.rows += self._buffer
        self._buffer.clear()
        for source, number in self._numbers.items():
            self._proven(source, number)
        self._numbers.clear()

    async def source_ended(self, source: str) -> None:
        pass

    def limit(self, seconds: float) -> None:
        self._seconds = seconds
        self._limited.set()

    async def close(self) -> None:
        self.closed += 1
        self._ended.set()
        if self._failure is None:
            self._commit()


class Memory:
    """A store: saved parts by source and key, refused records in their order."""

    def __init__(self) -> None:
        self.saved: dict[str, dict[str, bytes]] = {}
        self.refused: list[BadRecord] = []

    def save(
        self, source: str, parts: Mapping[str, bytes], refused: Sequence[BadRecord], number: int = 0
    ) -> Mapping[str, bytes]:
        saved = self.saved.setdefault(source, {})
        moved = {key: value for key, value in parts.items() if saved.get(key, FORGOTTEN) != value}
        self.saved[source] = {key: value for key, value in {**saved, **parts}.items() if value != FORGOTTEN}
        self.refused += refused
        return moved


def rows_of(item: Item) -> list[dict[str, Any]]:
    """The records of a batch; none of another item."""
    if isinstance(item, MessageBatch):
        return [msgspec.json.decode(data) if isinstance(data, bytes) else data for data in item.data]
    if not isinstance(item, RawBatch | RowBatch | ArrowBatch):
        return []
    lines = [line for piece in to_raw(item).slices for line in bytes(piece).splitlines()]
    return [msgspec.json.decode(line)["record"] for line in lines]


def ids_of(items: Sequence[Item]) -> list[int]:
    """The `id`s of all records in these items."""
    return [row["id"] for item in items for row in rows_of(item)]
