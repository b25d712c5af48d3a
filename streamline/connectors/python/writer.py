"""Calls a user's `batch_write`, finds the messages that it does not take, and says how far everything is durable.

`isolation.py` finds out which messages of a chunk cannot be written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec

from streamline.connectors.python.isolation import Isolation, Unwritable, of_connections
from streamline.connectors.python.user_class import UserObject
from streamline.connectors.stream_connector import NothingWritten
from streamline.flow.codecs.message_data import dump_data
from streamline.flow.items import BadRecord, MessageBatch, Position
from streamline.flow.stages.copies import Snapshot
from streamline.flow.stages.decode import metadata_of


class _Segment(msgspec.Struct):
    """Messages of one batch in a chunk: from `start` of the batch on, `count` of them."""

    source: str
    batch: MessageBatch
    start: int
    count: int


class Writer:
    """Writes messages in chunks, in their order.

    Args:
        refuse: called with a source's id and a message of it that was not written.
        prove: called with numbers of positions, by source: all before them is durable.
        pause: waits so many seconds; False: the sink is to end at once.
        interval: seconds between two calls of `flush`.
        set_aside: see `Isolation`.
        memory: what the next attempt is to know.

    Raises:
        StreamlineError: the object has no method that writes.
    """

    def __init__(
        self,
        id: str,
        made: UserObject,
        refuse: Callable[[str, BadRecord], None],
        prove: Callable[[dict[str, int]], None],
        pause: Callable[[float], bool],
        *,
        batch_size: int,
        include_metadata: bool,
        interval: float,
        set_aside: bool,
        memory: MutableMapping[str, Any],
    ) -> None:
        self._id = id
        self._made = made
        self._refuse_record = refuse
        self._prove = prove
        self._size = batch_size
        self._include_metadata = include_metadata
        self._interval = interval
        self._batch_write = made.method("batch_write")
        self._single = None if self._batch_write is not None else made.method("write")
        self._flush = made.method("flush")
        if self._batch_write is None and self._single is None:
            raise made.no_method("batch_write(messages) or write(message)")
        self._memory = memory
        self._isolation = Isolation(self._write, self._refuse, pause, self._works, set_aside=set_aside)
        self._data: list[Any] = []
        self._segments: list[_Segment] = []
        self._numbers: dict[str, int] = {}
        """Positions behind the last message of the chunk."""
        self._written: dict[str, int] = {}
        """Positions behind what was written, that are not proven."""
        self._awaited = False
        self._flushed = time.monotonic()

    def take(self, source: str, batch: MessageBatch) -> None:
        """Take messages; raises as `rest`."""
        data = self._with_metadata(batch) if self._include_metadata else batch.data
        start, count = 0, len(data)
        while start < count:
            taken = min(self._size - len(self._data), count - start)
            self._data += data[start : start + taken] if taken < count else data
            self._segments.append(_Segment(source, batch, start, taken))
            start += taken
            if len(self._data) >= self._size:
                self._write_chunk()

    def reach(self, source: str, position: Position) -> None:
        """Take a position."""
        (self._numbers if self._data else self._written)[source] = position.number
        self._awaited = self._awaited or position.awaited

    def patience(self) -> float | None:
        """Return the seconds until `rest` is to be called again; None: nothing waits."""
        if self._flush is None or not self._written:
            return None
        return max(0.0, self._flushed + self._interval - time.monotonic())

    def rest(self, *, hurry: bool) -> None:
        """Write what waits, since nothing more has come, and prove what is durable.

        Raises:
            StreamlineError: nothing can be written.
        """
        if self._data:
            self._write_chunk()
        if not self._written:
            return
        if self._flush is not None:
            if not (hurry or self._awaited or time.monotonic() >= self._flushed + self._interval):
                return
            self._made.call("while it flushed", self._flush)
            self._flushed = time.monotonic()
        self._awaited = False
        numbers, self._written = self._written, {}
        self._prove(numbers)

    def _with_metadata(self, batch: MessageBatch) -> list[Any]:
        origins = batch.origins or [None] * len(batch.data)
        return [
            message
            if isinstance(message, dict) and message.keys() == {"data", "metadata"}
            else {"data": message, "metadata": metadata_of(origin) if origin is not None else {}}
            for message, origin in zip(batch.data, origins, strict=True)
        ]

    def _write_chunk(self) -> None:
        before = Snapshot(self._data)
        error = self._write(self._data) if self._single is None else None
        try:
            if error is not None or self._single is not None:
                self._isolation.run(before, len(self._data), error)
            else:
                self._isolation.written()
        except Unwritable as unwritable:
            failure = self._made.explain(unwritable.error)
            failure.hint = failure.hint or (
                "it is tried again, in case the other side is away; to have bad messages told from that, define "
                "test_connection(), or raise ValueError for them"
            )
            failed = self._made.failed(failure, "while it wrote")
            if (
                unwritable.many
                and self._made.method("test_connection") is None
                and not of_connections(unwritable.error)
            ):
                raise NothingWritten(
                    failed.message, blocks=[self._made.block], where=failed.where, hint=failed.hint
                ) from None
            raise failed from None
        self._data, self._segments = [], []
        self._written.update(self._numbers)
        self._numbers = {}
        if self._flush is None and self._written:
            # It counts now, also while more of what was sent follows.
            numbers, self._written = self._written, {}
            self._prove(numbers)

    def _write(self, messages: list[Any]) -> Exception | None:
        """Write messages; return what the user's code raised."""
        try:
            if self._batch_write is not None:
                self._batch_write(messages)
            elif self._single is not None:
                for message in messages:
                    self._single(message)
        except SystemExit as error:
            return RuntimeError(f"SystemExit: {error}")
        except Exception as error:
            return error
        return None

    def _works(self, number: int, error: Exception, attempts: int | None) -> bool:
        """Return whether it is the messages' fault that they cannot be written; see `Isolation`."""
        if of_connections(error):
            return False
        test = self._made.method("test_connection")
        if test is not None:
            try:
                return test() is not False
            except (Exception, SystemExit):
                return False
        segment, number = self._place(number)
        origin, _ = segment.batch.made_of(segment.start + number)
        place = (origin.topic, origin.partition, origin.offset) if origin is not None else repr(error)
        known, times = self._memory.get("unwritable", (None, 0))
        times = times + 1 if known == place else 1
        self._memory["unwritable"] = (place, times)
        return attempts is not None and times > attempts

    def _place(self, number: int) -> tuple[_Segment, int]:
        """Return where a message of the chunk is: its segment, and its number in it."""
        for segment in self._segments:
            if number < segment.count:
                break
            number -= segment.count
        return segment, number

    def _refuse(self, number: int, message: Any, error: Exception) -> None:
        """Refuse a message of the chunk."""
        segment, number = self._place(number)
        batch = segment.batch
        failure = self._made.explain(error)
        where = f" ({failure.where})" if failure.where else ""
        data, form = dump_data(message)
        origin, inferred = batch.made_of(segment.start + number)
        record = BadRecord(
            batch.stream,
            data,
            f"{failure.message}{where}",
            self._id,
            sink=self._id,
            origin=origin,
            trace=failure.trace,
            form=form,
            inferred=inferred,
        )
        self._refuse_record(segment.source, record)
