"""The thread that owns a Kafka sink's producer: encodes, produces, flushes, looks at what became of each message."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import anyio.from_thread
import msgspec

from streamline.connectors.kafka.client import (
    Connection,
    KafkaClient,
    KafkaError,
    Outgoing,
    ProducerOptions,
)
from streamline.connectors.kafka.failures import NOT_AUTHORIZED
from streamline.connectors.kafka.outgoing import Destination, OutgoingMaker
from streamline.connectors.kafka.sent import CLOSE, Job, Letters, Place, Sent, SentItems, origins_of
from streamline.connectors.kafka.sink_outages import REQUEST_SECONDS, RETRY_SECONDS, SinkOutages, StoppedError
from streamline.connectors.kafka.stuck_producer import StuckProducer
from streamline.connectors.kafka.target_topics import TargetTopics, topic_missing
from streamline.connectors.kafka.user_errors import explained
from streamline.connectors.stream_connector import StreamContext
from streamline.errors import StreamlineError
from streamline.flow.codecs.message_data import dump_data
from streamline.flow.items import BadRecord, MessageBatch, Origin, Position
from streamline.state.store import DeadLetter

T = TypeVar("T")

FLUSH_SECONDS: Final = 0.5
"""A flush that takes longer is waited for again: so often the thread looks whether it shall end."""
QUIET_SECONDS: Final = 0.02
"""When nothing came for so long, what was produced is flushed."""

TOPIC_FAULTS: Final = ("UNKNOWN_TOPIC_OR_PART", "TOPIC_EXCEPTION", "TOPIC_AUTHORIZATION_FAILED")
"""Errors that a topic's messages have in common. Others are a message's own."""

ABANDON_SECONDS: Final = 1.0
"""How long a producer may take to close whose messages are dropped."""


class LoopSide(Protocol):
    """What the thread calls in the event loop; see `KafkaSink`."""

    id: str

    def settle(self, nbytes: int, proofs: Mapping[str, int]) -> None: ...

    def take_more(self) -> None: ...

    def refuse(self, source: str, records: Sequence[BadRecord]) -> Sequence[DeadLetter]: ...

    def note(self, message: str, level: str) -> None: ...


class ProducerThread:
    """Produces at least once.

    Args:
        loop: is called in the event loop.
        jobs: what is to be done, in order.
        stopping: set if the thread shall end, whatever is going on.
    """

    def __init__(
        self,
        loop: LoopSide,
        jobs: queue.SimpleQueue[Job],
        stopping: threading.Event,
        destinations: Sequence[Destination],
        client: KafkaClient,
        context: StreamContext,
    ) -> None:
        self._loop = loop
        self._jobs = jobs
        self._client = client
        self._context = context
        self._destinations = {each.block: each for each in destinations}
        self._settings = destinations[0].settings
        self._only = destinations[0].block
        self._makers = {each.block: OutgoingMaker(each) for each in destinations}
        self._max_bytes = min(each.settings.batch_bytes for each in destinations)
        self._window: list[Sent] = []
        """What is not proven."""
        self._unflushed: list[Sent] = []
        """What was produced since the last flush."""
        self._newest: dict[str, int] = {}
        """Number of each source's newest position that came."""
        self._proven: dict[str, int] = {}
        self._own_topics: set[str] = set()
        """Topics that the settings name; others are named by messages."""
        self._nbytes = 0
        self._last = time.monotonic()
        self._wanted: dict[str, int] = {}
        self._outages = SinkOutages(self._connection.cluster, stopping, self._note)
        self._stuck = StuckProducer(lambda: self._admin.topics(REQUEST_SECONDS, self._required_topics()))

    # -- called in the event loop

    def hurry(self, source: str, number: int) -> None:
        """Have a source's positions up to a number proven as soon as they come."""
        self._wanted[source] = number

    # -- in the thread

    def run(self) -> None:
        """Work until closed, or until it shall end.

        Raises:
            StreamlineError: the sink failed.
        """
        try:
            self._admin = self._client.admin(self._connection)
            try:
                self._outages.starting(self._context.startup_timeout)
                self._look_at_topics()
                self._producer = self._client.producer(self._connection, self._options())
                try:
                    self._prepare()
                    self._outages.started()
                    self._work()
                except BaseException:
                    self._abandon()
                    raise
                self._producer.close(REQUEST_SECONDS)
            finally:
                self._admin.close()
        except StoppedError:
            return
        except KafkaError as error:
            raise self._explained(error) from error

    @property
    def _connection(self) -> Connection:
        return self._settings.connection

    def _look_at_topics(self) -> None:
        self._topics = TargetTopics(
            self._admin,
            self._outages.ask,
            compressed=any(each.settings.compression != "none" for each in self._destinations.values()),
            pause=self._outages.pause,
            patience=self._context.startup_timeout,
        )
        self._topics.require(self._required_topics())

    def _prepare(self) -> None:
        """Get the producer ready."""

    def _required_topics(self) -> list[str]:
        topics = [each.settings.topic for each in self._destinations.values()]
        return [topic for topic in topics if "{" not in topic]

    def _options(self) -> ProducerOptions:
        settings = self._settings
        options = ProducerOptions(
            client_id=f"streamline-{self._context.pipeline}-{self._loop.id}",
            compression=settings.compression,
            linger_seconds=settings.linger_seconds,
            max_message_bytes=settings.max_message_bytes,
        )
        limit = self._topics.smallest_limit
        if limit is None or limit >= options.batch_bytes:
            return options
        # A batch that is larger than its topic takes would be refused as a whole.
        return msgspec.structs.replace(options, batch_bytes=limit)

    def _work(self) -> None:
        while True:
            idle, job = False, None
            try:
                job = self._jobs.get(timeout=self._wait_seconds())
            except queue.Empty:
                idle = True
            self._outages.check_stop()
            if job is not None and job != CLOSE:
                self._take(job)
            if job == CLOSE or self._due(idle or self._jobs.empty(), quiet=idle):
                self._checkpoint(closing=job == CLOSE)
            if job == CLOSE:
                return

    @property
    def _pending(self) -> bool:
        """Whether something is not proven."""
        return bool(self._window) or self._newest != self._proven

    def _wait_seconds(self) -> float | None:
        """Return how long to wait for the next job; None: until there is one."""
        if not self._pending:
            return None
        return max(0.0, min(QUIET_SECONDS, self._last + self._context.checkpoint_interval - time.monotonic()))

    def _due(self, idle: bool, *, quiet: bool) -> bool:
        """Return whether to prove what was sent.

        Args:
            idle: nothing is waiting.
            quiet: nothing came for a while.
        """
        if not self._pending:
            return False
        if quiet or self._nbytes >= self._max_bytes or (idle and self._hurried()):
            return True
        return time.monotonic() - self._last >= self._context.checkpoint_interval

    def _hurried(self) -> bool:
        return any(number > self._proven.get(source, 0) for source, number in list(self._wanted.items()))

    def _take(self, job: SentItems | Letters) -> None:
        self._nbytes += job.nbytes
        if isinstance(job, Letters):
            return
        for item in job.items:
            if isinstance(item, MessageBatch):
                if item.data:
                    self._take_batch(job.source, item)
            elif isinstance(item, Position):
                self._take_position(item)

    def _take_position(self, position: Position) -> None:
        self._newest[position.source] = position.number
        if position.awaited:
            self._wanted[position.source] = position.number

    def _take_batch(self, source: str, batch: MessageBatch) -> None:
        block = batch.sink or self._only
        maker = self._makers[block]
        try:
            messages = self._encode(partial(maker.make, batch))
            self._check(messages, maker.topic_of(batch.stream))
        except ValueError:
            self._take_each(source, batch, block)
            return
        sent = self._sent(source, block, batch.stream, messages, batch.data, origins_of(batch))
        sent.lineage = batch.lineage
        self._produce(sent)

    def _take_each(self, source: str, batch: MessageBatch, block: str) -> None:
        """Produce the messages of a batch that can be, and refuse the others, each in its place."""
        maker = self._makers[block]
        run = self._sent(source, block, batch.stream)
        lineage = batch.lineage or [None] * batch.count
        for data, origin, source_origin in zip(batch.data, origins_of(batch), lineage, strict=True):
            try:
                message = self._encode(partial(maker.make_one, data, origin, batch.stream))
                self._check([message], maker.topic_of(batch.stream))
            except ValueError as error:
                if run.messages:
                    self._produce(run)
                run = self._sent(source, block, batch.stream)
                self._refuse(run, data, origin, str(error), source_origin)
            else:
                run.messages.append(message)
                run.data.append(data)
                run.origins.append(origin)
                if batch.lineage is not None:
                    run.lineage = [*(run.lineage or ()), source_origin]
        if run.messages:
            self._produce(run)

    def _check(self, messages: Sequence[Outgoing], own: str) -> None:
        self._own_topics.add(own)
        self._topics.check(messages, own)

    def _sent(
        self,
        source: str,
        block: str,
        stream: str,
        messages: list[Outgoing] | None = None,
        data: list[Any] | None = None,
        origins: list[Origin | None] | None = None,
    ) -> Sent:
        after = self._newest.get(source, 0)
        return Sent(source, block, stream, messages or [], data or [], origins or [], after)

    def _refuse(
        self, sent: Sent, data: Any, origin: Origin | None, reason: str, lineage: Origin | None = None
    ) -> Sequence[DeadLetter]:
        """Report a message that cannot be delivered; see `LoopSide.refuse`."""
        record, form = dump_data(data)
        bad = BadRecord(
            sent.stream,
            record,
            reason,
            sent.block,
            sink=sent.block,
            origin=origin or lineage,
            form=form,
            inferred=origin is None and lineage is not None,
        )
        return anyio.from_thread.run_sync(self._loop.refuse, sent.source, [bad])

    def _encode(self, make: Callable[[], T]) -> T:
        """Encode; wait for what that needs, such as a schema registry."""
        while True:
            try:
                return make()
            except StreamlineError as error:
                if not getattr(error, "transient", False):
                    raise
                self._outages.unanswered(error.message)
                self._outages.pause(RETRY_SECONDS)

    def _produce(self, sent: Sent) -> None:
        self._window.append(sent)
        self._hand_over(sent)

    def _hand_over(self, sent: Sent) -> None:
        """Give messages to the client."""
        self._unflushed.append(sent)
        size = self._settings.batch_size
        for first in range(0, len(sent.messages), size):
            self._producer.produce_batch(sent.messages[first : first + size])

    # -- proof

    def _checkpoint(self, *, closing: bool) -> None:
        """Deliver everything that was produced, and prove the newest positions."""
        for place, reason in self._flush():
            sent, number = place
            self._refuse(sent, sent.data[number], sent.origins[number], reason, sent.lineage_of(number))
        self._window.clear()
        self._prove()

    def _prove(self) -> None:
        proofs = {source: number for source, number in self._newest.items() if self._proven.get(source) != number}
        self._proven.update(proofs)
        nbytes, self._nbytes = self._nbytes, 0
        self._last = time.monotonic()
        anyio.from_thread.run_sync(self._loop.settle, nbytes, proofs)

    def _flush(self) -> list[tuple[Place, str]]:
        """Wait until the cluster has answered for each message since the last flush, for ever if it must be.

        Returns:
            the messages that were refused, and why.

        Raises:
            StreamlineError: a topic is missing, or must not be written to.
        """
        self._stuck.flushing()
        while True:
            self._outages.check_stop()
            undelivered = self._producer.flush(FLUSH_SECONDS)
            if undelivered is not None:
                break
            self._check_age()
            self._outages.unanswered("messages are not acknowledged")
        self._outages.answered()
        flushed, self._unflushed = self._unflushed, []
        if not undelivered:
            return []
        places = [Place(sent, index) for sent in flushed for index in range(len(sent.messages))]
        for number, code, reason in undelivered:
            self._check_topic(places[number], code, reason)
        return [(places[number], reason) for number, _, reason in undelivered]

    def _check_age(self) -> None:
        """Check whether it makes sense to go on waiting for a flush.

        Raises:
            KafkaError: it does not.
        """
        self._stuck.check()

    def _check_topic(self, place: Place, code: str, reason: str) -> None:
        if code not in TOPIC_FAULTS or place.message.topic not in self._own_topics:
            return  # a topic that the message itself names is its own fault
        if code == "TOPIC_AUTHORIZATION_FAILED":
            error = KafkaError(reason, kafka_code=code)
            raise explained(error, self._connection, topics=place.message.topic, write=True)
        raise topic_missing(place.message.topic)

    def _note(self, message: str, level: str) -> None:
        anyio.from_thread.run_sync(self._loop.note, message, level)

    # -- the end

    def _abandon(self) -> None:
        """Drop what was produced, after a failure."""
        self._producer.close(ABANDON_SECONDS)

    def _explained(self, error: KafkaError) -> StreamlineError:
        if error.fatal and not error.fenced and error.kafka_code not in NOT_AUTHORIZED:
            return KafkaError(
                f"the producer cannot go on: {error.message}",
                where=self._connection.cluster,
                hint="what is not proven is sent again by a new one",
                kafka_code=error.kafka_code,
                fatal=True,
                code="kafka.producer_failed",
            )
        topics = ", ".join(dict.fromkeys(each.settings.topic for each in self._destinations.values()))
        return explained(error, self._connection, topics=topics, write=True)
