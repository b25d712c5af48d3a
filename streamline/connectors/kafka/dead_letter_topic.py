"""A Kafka topic that keeps dead letters. `dead_letter_messages.py` says how they stand in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, TypeVar
from uuid import uuid4

import msgspec

from streamline.connectors.kafka.client import (
    Connection,
    Consumer,
    ConsumerOptions,
    KafkaClient,
    KafkaError,
    Outgoing,
    Partition,
    Producer,
    ProducerOptions,
    TopicInfo,
    Unavailable,
)
from streamline.connectors.kafka.dead_letter_messages import (
    DoneMark,
    WrittenMark,
    done_message,
    letter_message,
    read_entry,
    written_message,
)
from streamline.connectors.kafka.user_errors import addresses, explained
from streamline.errors import StreamlineError
from streamline.state.store import DeadLetter, LetterKey

T = TypeVar("T")

REQUEST_SECONDS = 10.0
"""How long one request may take."""

FLUSH_SECONDS = 5.0
"""How long deliveries are waited for before it is said that they take long."""

MAX_MESSAGES, MAX_BYTES = 1_000, 8 << 20
"""What the producer is given at most between two flushes."""

TOPIC_CONFIG = {"cleanup.policy": "delete", "retention.ms": "-1"}
"""Settings of a topic that is made: letters stay until somebody deletes them."""


class Contents(msgspec.Struct):
    """What a dead-letter topic holds of a pipeline.

    Args:
        letters: those that are open, by id, the oldest first.
        places: the partitions of the topic in which each of them stands.
        keys: offset of the newest message that was delivered of a key with letters.
    """

    letters: dict[int, DeadLetter] = {}
    places: dict[int, set[int]] = {}
    keys: dict[tuple[str, str, int, bytes], int] = {}


class DeadLetterTopic:
    """The dead letters of a pipeline in a topic. Methods block, and may be called from any thread.

    Args:
        ending: whether what takes long is to be given up, because the run ends.
        timeout: seconds that the cluster may be unreachable in `open` and `read`.
        note: writes a line to the log, with its level.
    """

    def __init__(
        self,
        client: KafkaClient,
        connection: Connection,
        topic: str,
        pipeline: str,
        *,
        timeout: float = 60.0,
        ending: Callable[[], bool] = lambda: False,
        note: Callable[[str, str], None] = lambda message, level: None,
    ) -> None:
        self.topic = topic
        self._client = client
        self._connection = connection
        self._pipeline = pipeline
        self._timeout = timeout
        self._ending = ending
        self._note = note
        self._producer: Producer | None = None
        self._max_bytes: int | None = None
        # The producer belongs to one thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")

    def open(self) -> None:
        """Make the topic if it is missing, and check that it keeps what it is given.

        Raises:
            StreamlineError: it is compacted, cannot be made, or the cluster cannot be reached.
        """
        self._ask(self._open)

    def write(self, letters: Sequence[DeadLetter]) -> list[tuple[DeadLetter, str]]:
        """Add letters; they are durable when this returns, however long the cluster is away.

        Returns:
            those that the topic cannot take, and why.

        Raises:
            KafkaError: the run ends, or the topic's producer cannot be used.
        """
        messages = [letter_message(letter, self.topic) for letter in letters]
        undelivered = self._ask(lambda: self._produce(messages), write=True)
        return [(letters[number], reason) for number, reason in undelivered]

    def read(self) -> Contents:
        """Return the letters that are open now.

        Raises:
            StreamlineError: the cluster cannot be reached, or a transaction that is not ended hides a part of it.
        """
        return self._ask(self._read)

    def settle(self, letters: Sequence[DeadLetter], contents: Contents) -> None:
        """Take letters for delivered or discarded: `read` no longer gives them."""
        marks = [
            done_message(letter, self.topic, partition)
            for letter in letters
            for partition in sorted(contents.places.get(letter.id, ()))
        ]
        self._add_marks(marks)

    def note_key_written(self, key: LetterKey) -> None:
        """Remember that a message of a key was delivered: its offset is `key.written`."""
        self._add_marks([written_message(self._pipeline, key, self.topic)])

    def close(self) -> None:
        """Free everything."""
        producer, self._producer = self._producer, None
        if producer is not None:
            self._thread.submit(producer.close, FLUSH_SECONDS).result()
        self._thread.shutdown()

    def _ask(self, request: Callable[[], T], *, write: bool = False) -> T:
        """Do something in the thread."""
        try:
            return self._thread.submit(request).result()
        except KafkaError as error:
            raise explained(error, self._connection, topics=self.topic, write=write) from error

    # -- in the thread

    def _open(self) -> None:
        admin = self._patiently(lambda: self._client.admin(self._connection))
        try:
            found = self._patiently(lambda: admin.topics(REQUEST_SECONDS, [self.topic]))
            if self.topic not in found:
                try:
                    admin.create_topic(self.topic, 1, TOPIC_CONFIG, REQUEST_SECONDS)
                except KafkaError as error:
                    raise StreamlineError(
                        f"the dead-letter topic does not exist and cannot be created: {error.message}",
                        where=self.topic,
                        hint="create it, with cleanup.policy=delete and a retention as long as letters are to be kept",
                        code="dead_letter.topic_not_created",
                    ) from error
            try:
                config = admin.topic_config(self.topic, REQUEST_SECONDS)
            except KafkaError as error:
                self._note(f"the settings of {self.topic} cannot be read: {error.message}", "WARNING")
                return
        finally:
            admin.close()
        if "compact" in config.get("cleanup.policy", ""):
            raise StreamlineError(
                "the dead-letter topic is compacted: of letters with the same key, Kafka would keep only the last",
                where=self.topic,
                hint="use a topic with cleanup.policy=delete",
                code="dead_letter.topic_compacted",
            )
        if config.get("max.message.bytes", "").isdigit():
            self._max_bytes = int(config["max.message.bytes"])

    def _add_marks(self, marks: Sequence[Outgoing]) -> None:
        for _, reason in self._ask(lambda: self._produce(marks), write=True):
            raise StreamlineError(
                f"the dead-letter topic does not take what became of a letter: {reason}",
                where=self.topic,
                code="dead_letter.topic_refuses",
            )

    def _produce(self, messages: Sequence[Outgoing]) -> list[tuple[int, str]]:
        """Deliver messages; return the numbers of those that cannot be, and why."""
        refused: list[tuple[int, str]] = []
        begin = 0
        for chunk in _chunks(messages):
            try:
                refused += [(begin + number, reason) for number, reason in self._deliver(chunk)]
            except KafkaError as error:
                if not error.fatal:
                    raise
                # Another producer; what the first one did deliver is there twice, which readers fold.
                self._drop_producer()
                refused += [(begin + number, reason) for number, reason in self._deliver(chunk)]
            begin += len(chunk)
        return refused

    def _deliver(self, messages: Sequence[Outgoing]) -> list[tuple[int, str]]:
        if self._producer is None:
            options = ProducerOptions(client_id=f"{self._pipeline}-dead-letters")
            if self._max_bytes is not None:
                options = msgspec.structs.replace(options, max_message_bytes=self._max_bytes)
            self._producer = self._client.producer(self._connection, options)
        self._producer.produce_batch(messages)
        waited = False
        while (undelivered := self._producer.flush(FLUSH_SECONDS)) is None:
            if self._ending():
                self._drop_producer()
                raise StreamlineError(
                    "dead letters could not be written before the run had to end; their messages are read again",
                    where=self.topic,
                    code="dead_letter.not_written",
                )
            if not waited:
                self._note(f"{self.topic} does not take dead letters; no position is saved until it does", "WARNING")
            waited = True
        return [(each.number, f"{each.message} ({each.code})") for each in undelivered]

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(0)

    def _read(self) -> Contents:
        group = f"{self._pipeline}-dead-letters-{uuid4().hex[:8]}"
        options = ConsumerOptions(group=group, client_id=f"{self._pipeline}-dead-letters")
        consumer = self._client.consumer(self._connection, options)
        everything = self._client.consumer(
            self._connection, msgspec.structs.replace(options, isolation_level="read_uncommitted")
        )
        try:
            topics: dict[str, TopicInfo] = self._patiently(lambda: consumer.topics(REQUEST_SECONDS, [self.topic]))
            if self.topic not in topics:
                return Contents()
            partitions = [Partition(self.topic, number) for number in range(topics[self.topic].partitions)]
            # Up to the last message, also where a transaction that is still open hides it.
            ends = self._patiently(lambda: everything.range(partitions, REQUEST_SECONDS))
            return self._read_until(consumer, ends)
        finally:
            consumer.close(FLUSH_SECONDS)
            everything.close(FLUSH_SECONDS)

    def _read_until(self, consumer: Consumer, ends: dict[Partition, tuple[int, int]]) -> Contents:
        contents = Contents()
        consumer.assign({partition: first for partition, (first, _) in ends.items()})
        reached = {partition: first for partition, (first, _) in ends.items()}
        deadline = time.monotonic() + self._timeout
        while missing := [partition for partition, (_, end) in ends.items() if reached[partition] < end]:
            try:
                messages = consumer.poll_batch(MAX_MESSAGES, 0.5)
            except KafkaError as error:
                if not error.transient or time.monotonic() > deadline:
                    raise
                continue
            for message in messages:
                self._add(contents, message.partition, read_entry(message, self._pipeline))
            now = {partition: consumer.position(partition) or reached[partition] for partition in missing}
            if any(now[partition] > reached[partition] for partition in missing):
                deadline = time.monotonic() + self._timeout
                reached.update(now)
            elif time.monotonic() > deadline:
                self._blocked(missing[0], reached[missing[0]], ends[missing[0]][1])
        return _sorted(contents)

    def _blocked(self, partition: Partition, reached: int, end: int) -> NoReturn:
        raise StreamlineError(
            f"the dead letters cannot be read: offsets {reached} to {end} cannot be read yet, most likely because a "
            f"transaction that is still open hides them (waited {self._timeout:g} s)",
            where=str(partition),
            hint="a transaction that nobody ends is aborted after its transaction.timeout.ms; then try again",
            code="dead_letter.topic_blocked",
        )

    def _add(self, contents: Contents, partition: int, entry: object) -> None:
        if isinstance(entry, DeadLetter):
            known = contents.letters.pop(entry.id, None)
            if known is not None:
                entry.times = known.times + 1
            contents.letters[entry.id] = entry
            contents.places.setdefault(entry.id, set()).add(partition)
        elif isinstance(entry, DoneMark):
            places = contents.places.get(entry.id, set())
            places.discard(partition)
            if not places:
                contents.letters.pop(entry.id, None)
                contents.places.pop(entry.id, None)
        elif isinstance(entry, WrittenMark):
            key = entry.key
            place = (key.block, key.topic, key.partition, key.key)
            contents.keys[place] = max(contents.keys.get(place, -1), key.written or 0)

    def _patiently(self, request: Callable[[], T]) -> T:
        """Make a request until it succeeds, for as long as the cluster may be unreachable."""
        deadline = time.monotonic() + self._timeout
        told = False
        while True:
            try:
                return request()
            except KafkaError as error:
                if not error.transient or self._ending():
                    raise
                if time.monotonic() > deadline:
                    # Letters are what is opened first: a wrong address is no fault of their topic.
                    away = isinstance(error, Unavailable)
                    what = "no Kafka broker could" if away else "the topic of dead letters cannot"
                    raise StreamlineError(
                        f"{what} be reached: {error.message}",
                        where=addresses(self._connection),
                        hint="check bootstrap_server, and that the brokers run",
                        code="kafka.unreachable",
                    ) from error
                if not told:
                    what = f"{addresses(self._connection)} does not answer yet"
                    self._note(f"{what} (for dead letters): {error.message}", "WARNING")
                told = True
                time.sleep(0.2)


def _sorted(contents: Contents) -> Contents:
    """Return the contents in the order in which letters were added, and tell letters of later messages of their key."""
    letters = sorted(contents.letters.values(), key=lambda letter: letter.time)
    for letter in letters:
        if letter.topic is not None and letter.key is not None:
            written = contents.keys.get((letter.block, letter.topic, letter.partition or 0, letter.key))
            letter.written_since = written if written is not None and written > (letter.offset or 0) else None
    return Contents({letter.id: letter for letter in letters}, contents.places, contents.keys)


def _chunks(messages: Collection[Outgoing]) -> Iterator[list[Outgoing]]:
    chunk: list[Outgoing] = []
    size = 0
    for message in messages:
        size += len(message.value or b"") + sum(len(value or b"") for _, value in message.headers or ())
        chunk.append(message)
        if len(chunk) >= MAX_MESSAGES or size >= MAX_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
