"""Kafka sinks, as the event loop sees them: what they are sent waits for a thread that owns the producer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec

from streamline.connectors.kafka.client import KafkaClient
from streamline.connectors.kafka.outgoing import Destination
from streamline.connectors.kafka.sent import CLOSE, Job, Letters, SentItems
from streamline.connectors.kafka.sink_thread import ProducerThread
from streamline.connectors.kafka.transactions import Transactions
from streamline.connectors.stream_connector import OffsetSource, StreamContext
from streamline.errors import StreamlineError
from streamline.flow.items import BadRecord, Item, MessageBatch
from streamline.flow.protocols import Failed, Proven, Refused
from streamline.flow.tasks import task_group
from streamline.state.store import DeadLetter

UNKNOWN_BYTES = 1024
"""What a message is taken for if nothing tells its size."""

MESSAGE_BYTES = 256
"""What a message takes besides its value."""


class KafkaSink:
    """Produces messages, and proves them when the brokers have acknowledged all of them.

    A message that its topic refuses, or that cannot be encoded, goes to `refused`; the others arrive, of each key in
    order. A message may arrive twice.

    Args:
        destinations: the block; several only in transactions.
        client: makes the producer, which a thread of the sink's own uses.
    """

    def __init__(
        self, id: str, destinations: Sequence[Destination], client: KafkaClient, context: StreamContext
    ) -> None:
        self.id = id
        # The runtime sets it on sinks that have it.
        self.refused: Refused = _not_set
        self._context = context
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = self._make_thread(destinations, client)
        # Half of it may be on its way while the other half waits.
        self._max_bytes = 2 * min(each.settings.batch_bytes for each in destinations)
        self._held = 0
        self._needs_more = False
        self._room = anyio.Event()
        self._turn = anyio.Lock()
        self._failure: Exception | None = None
        self._limited, self._seconds = anyio.Event(), 0.0
        self._given = self._closing = False
        self._ended = anyio.Event()

    def _make_thread(self, destinations: Sequence[Destination], client: KafkaClient) -> ProducerThread:
        return ProducerThread(self, self._jobs, self._stopping, destinations, client, self._context)

    async def run(self, proven: Proven, failed: Failed) -> None:
        """See `Sink.run`."""
        self._proven, self._failed = proven, failed
        async with task_group() as tasks:
            tasks.start_soon(self._end_when_limited)
            tasks.start_soon(self._stop_thread_when_cancelled)
            try:
                await anyio.to_thread.run_sync(self._thread.run, limiter=anyio.CapacityLimiter(1))
            except Exception as error:
                self._fail(error)
            self._ended.set()
            tasks.cancel_scope.cancel()

    async def send(self, source: str, items: Sequence[Item]) -> None:
        """See `Sink.send`."""
        nbytes = sum(_size(item) for item in items if isinstance(item, MessageBatch))
        async with self._turn:
            # What is larger than all the room passes alone.
            while nbytes and self._held and self._held + nbytes > self._max_bytes and not self._needs_more:
                if self._failure is not None:
                    break
                self._room = anyio.Event()
                await self._room.wait()
            if self._failure is not None:
                raise self._failure
            self._held += nbytes
            self._given = True
            self._jobs.put(SentItems(source, items, nbytes))

    async def source_ended(self, source: str) -> None:
        """See `Sink.source_ended`; no position is held back."""

    def limit(self, seconds: float) -> None:
        """See `Sink.limit`."""
        self._seconds = seconds
        self._limited.set()
        if self._closing and not self._given:
            self._stop_thread()

    def hurry(self, source: str, number: int) -> None:
        """See `HandingOverSink.hurry`."""
        self._thread.hurry(source, number)
        self._jobs.put(None)

    def forget(self, source: str, keys: Collection[str], number: int) -> None:
        """See `HandingOverSink.forget`; a message may arrive twice."""

    async def close(self) -> None:
        """See `Sink.close`."""
        if self._failure is None:
            self._closing = True
            self._jobs.put(CLOSE)
            if self._limited.is_set() and not self._given:
                self._stop_thread()  # the run is being stopped: whether the topic is there does not matter any more
            await self._ended.wait()

    async def _end_when_limited(self) -> None:
        await self._limited.wait()
        await anyio.sleep(self._seconds)
        self._fail(
            StreamlineError(
                "messages were not delivered in time",
                where=self.id,
                hint="they are sent again by the next run; see that the brokers answer",
                code="kafka.not_delivered",
            )
        )
        self._ended.set()
        self._stop_thread()

    async def _stop_thread_when_cancelled(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self._stop_thread()

    def _stop_thread(self) -> None:
        self._stopping.set()
        self._jobs.put(None)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._failed(error)
        self._room.set()

    # -- called by the thread, which waits for them

    def settle(self, nbytes: int, proofs: Mapping[str, int]) -> None:
        """Free the room of so many bytes, and prove positions by number."""
        if self._failure is not None:
            return
        self._held -= nbytes
        self._needs_more = False
        self._room.set()
        for source, number in proofs.items():
            self._proven(source, number)

    def take_more(self) -> None:
        """Take messages though there is no room: those that are held cannot be delivered without a position."""
        self._needs_more = True
        self._room.set()

    def refuse(self, source: str, records: Sequence[BadRecord]) -> Sequence[DeadLetter]:
        """Report records that cannot be delivered.

        Returns:
            the letters of them that belong into the transaction.

        Raises:
            StreamlineError: one of them must arrive.
        """
        self._check_refused(records)
        self.refused(source, records)
        return ()

    def _check_refused(self, records: Sequence[BadRecord]) -> None:
        for record in records:
            if record.sink in self._context.must_arrive:
                raise StreamlineError(
                    f"a change of the state cannot be written: {record.error}",
                    where=record.sink,
                    hint="raise max.message.bytes of its topic, or keep less in the state of a key",
                    code="state.not_written",
                )

    def note(self, message: str, level: str) -> None:
        """Write a line to the log."""
        self._context.note(message, level)


class TransactionalKafkaSink(KafkaSink):
    """Produces in transactions, which hold dead letters and the offsets of its sources, too. One serves all destination
    blocks of a pipeline.

    Its flows must be `prompt`: all messages before a position have been sent when the position is.
    """

    offsets_from: Mapping[str, OffsetSource]
    dead_letter_topic: str | None = None
    letters_refused: Callable[[Sequence[DeadLetter]], None]

    def __init__(
        self, id: str, destinations: Sequence[Destination], client: KafkaClient, context: StreamContext
    ) -> None:
        self._caught: list[DeadLetter] | None = None
        super().__init__(id, destinations, client, context)

    def _make_thread(self, destinations: Sequence[Destination], client: KafkaClient) -> ProducerThread:
        self._transactions = Transactions(self, self._jobs, self._stopping, destinations, client, self._context)
        return self._transactions

    def dead_letters(self, source: str, letters: Sequence[DeadLetter]) -> None:
        """See `TransactionalSink.dead_letters`."""
        if self._caught is not None:
            self._caught += letters
            return
        nbytes = sum(MESSAGE_BYTES + len(each.record) + len(each.value or b"") for each in letters)
        self._held += nbytes
        self._given = True
        self._jobs.put(Letters(source, letters, nbytes))

    def forget(self, source: str, keys: Collection[str], number: int) -> None:
        """See `HandingOverSink.forget`."""
        self._transactions.forget(source, keys, number)
        self._jobs.put(None)

    def refuse(self, source: str, records: Sequence[BadRecord]) -> Sequence[DeadLetter]:
        """See `KafkaSink.refuse`. Whoever hears of refused records may give their letters at once."""
        self._check_refused(records)
        caught: list[DeadLetter] = []
        self._caught = caught
        try:
            self.refused(source, records)
        finally:
            self._caught = None
        return caught


def _not_set(source: str, records: Sequence[BadRecord]) -> None:
    raise RuntimeError(f"nobody takes what the sink refuses of {source}")


def _size(batch: MessageBatch) -> int:
    """Return about how many bytes the messages of a batch take until they are delivered."""
    sizes = [len(each) for each in batch.data if type(each) is bytes]
    if not sizes and batch.origins is not None:
        sizes = [len(origin.value) for origin in batch.origins if origin is not None and origin.value is not None]
    unknown = batch.count - len(sizes)
    sample = max(_encoded_size(batch.data[0]), _encoded_size(batch.data[-1])) if unknown else 0
    return sum(sizes) + unknown * sample + batch.count * MESSAGE_BYTES


def _encoded_size(data: Any) -> int:
    try:
        return len(msgspec.json.encode(data))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return UNKNOWN_BYTES
