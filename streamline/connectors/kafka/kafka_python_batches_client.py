"""Appends messages to the batches of a producer of kafka-python.

For each message, `KafkaProducer.send` looks up the topic, hashes the key, takes six locks, and makes a future with two
callbacks: more than half of what it costs to copy a message. Here the messages of a partition are appended together,
and the result of a batch tells what became of each of them.

The library does not document what this uses, so it is for known versions only.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

import kafka
from kafka import TopicPartition, errors
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from streamline.connectors.kafka.client import Outgoing

Numbered = tuple[int, Outgoing]
"""A message and its number."""

FIRST_KNOWN: Final = (3, 0, 9)
FIRST_UNKNOWN: Final = (3, 1)

CACHED_KEYS: Final = 1 << 14
CACHED_KEY_BYTES: Final = 64
"""Larger keys are hashed each time."""

_MASK: Final = 0xFFFFFFFF
_M: Final = 0x5BD1E995
_SEED: Final = 0x9747B28C


class Deliveries(Protocol):
    """What becomes of messages that were given to the library together."""

    @property
    def is_done(self) -> bool:
        """Whether it is known of all of them."""
        ...

    def failures(self) -> Iterator[tuple[int, Exception]]:
        """Return the numbers of those that have failed, and why."""
        ...


def batches_known() -> bool:
    """Return whether the installed version of the library works as this module expects."""
    version = tuple(int(part) for part in kafka.__version__.split(".")[:3] if part.isdecimal())
    return FIRST_KNOWN <= version < FIRST_UNKNOWN


class Delivery(NamedTuple):
    """Delivery of one message.

    Args:
        future: as `KafkaProducer.send` returned it.
    """

    number: int
    future: Any

    @property
    def is_done(self) -> bool:
        """See `Deliveries.is_done`."""
        return bool(self.future.is_done)

    def failures(self) -> Iterator[tuple[int, Exception]]:
        """See `Deliveries.failures`."""
        if self.future.exception is not None:
            yield self.number, self.future.exception


class BatchDeliveries:
    """Deliveries of one batch of the library.

    It stands where the library keeps a future for each message of the batch. The library asks for these futures when it
    takes apart a batch that a broker has found too large, and moves them to smaller batches.
    """

    def __init__(self, result: Any) -> None:
        self.numbers: list[int] = []
        self.result = result
        self._moved: dict[int, _Moved] = {}

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> _Moved:
        """Return what the library takes for the future of a message, in order to move it."""
        moved = self._moved[index] = _Moved(self.numbers[index], self.result, index)
        return moved

    @property
    def is_done(self) -> bool:
        """See `Deliveries.is_done`."""
        if self._moved:
            return all(moved.result.is_done for moved in tuple(self._moved.values()))
        return bool(self.result.is_done)

    def failures(self) -> Iterator[tuple[int, Exception]]:
        """See `Deliveries.failures`."""
        if self._moved:
            for moved in self._moved.values():
                yield from _failures(moved.result, [(moved.index, moved.number)])
        else:
            yield from _failures(self.result, enumerate(self.numbers))


class _Moved:
    """A message that is moved to another batch."""

    def __init__(self, number: int, result: Any, index: int) -> None:
        self.number = number
        self.result = result
        self.index = index

    def rebind(self, result: Any, index: int) -> None:
        """Take the place at an index of another batch. Called by the library."""
        former, self.result, self.index = self.result, result, index
        former._latch.set()  # who waits for a batch that was taken apart waits no longer


def _failures(result: Any, indexes: Any) -> Iterator[tuple[int, Exception]]:
    if result.exception is not None:
        yield from ((number, result.exception) for _, number in indexes)
        return
    _, _, exception_of = result.value
    if exception_of is not None:
        yield from ((number, exception_of(index)) for index, number in indexes)


def append(library: Any, place: Any, messages: Sequence[Numbered]) -> list[BatchDeliveries]:
    """Give messages of one partition to the library, as `KafkaProducer.send` does.

    Returns:
        of each batch that was begun, what becomes of its messages. Others went to batches that had been begun before.

    Raises:
        errors.KafkaError: the library takes none now.
    """
    if library._transaction_manager is not None and library._transaction_manager.is_transactional():
        library._transaction_manager.maybe_add_partition_to_transaction(place)
    accumulator = library._accumulator
    begun: list[BatchDeliveries] = []
    now = time.monotonic()
    accumulator._appends_in_progress.increment()
    try:
        with accumulator._tp_lock(place):
            if accumulator._closed:
                raise errors.IllegalStateError("the producer is closed")
            batches = accumulator._batches[place]
            batch: Any = batches[-1] if batches else None
            # Parts of a batch that was taken apart have futures of their own.
            if batch is not None and not isinstance(batch._record_futures, BatchDeliveries):
                batch = None
            for number, message in messages:
                fields = message.time, message.key, message.value, message.headers
                if batch is None or batch.records.append(*fields) is None:
                    batch = ProducerBatch(place, _records(accumulator), now=now)
                    batch._record_futures = BatchDeliveries(batch.produce_future)
                    batch.records.append(*fields)
                    batches.append(batch)
                    accumulator._incomplete.add(batch)
                    begun.append(batch._record_futures)
                batch._record_futures.numbers.append(number)
    finally:
        accumulator._appends_in_progress.decrement()
    if begun:
        library._sender.wakeup()
    return begun


def _records(accumulator: Any) -> Any:
    settings = accumulator.config
    return MemoryRecordsBuilder(settings["message_version"], settings["compression_attrs"], settings["batch_size"])


class Places:
    """Chooses the partition of each message of a topic, as the library does.

    Raises:
        errors.KafkaError: the library does not know the topic, and does not hear of it in time.
    """

    def __init__(self, topic: str, library: Any) -> None:
        self._places = {number: TopicPartition(topic, number) for number in sorted(library.partitions_for(topic))}
        self._all = list(self._places.values())
        available = library._metadata.available_partitions_for_topic(topic) or ()
        self._available = [self._places[number] for number in available if number in self._places] or self._all

    def place(self, message: Outgoing) -> Any:
        """Return the partition of a message.

        Raises:
            ValueError: the topic does not have the partition that the message names.
        """
        if message.partition is not None:
            if message.partition not in self._places:
                raise ValueError(f"Unrecognized partition {message.partition} for topic {message.topic}")
            return self._places[message.partition]
        key = message.key
        if key is None:
            return random.choice(self._available)
        digest = _cached_hash(key) if len(key) <= CACHED_KEY_BYTES else hash_of(key)
        return self._all[digest % len(self._all)]


def hash_of(key: bytes) -> int:
    """Return the hash by which Java's client chooses the partition of a key (murmur2, without the sign)."""
    size = len(key)
    whole = size - size % 4
    digest = _SEED ^ size
    for part in struct.unpack(f"<{whole // 4}I", key[:whole]):
        mixed = part * _M & _MASK
        digest = (digest * _M & _MASK) ^ ((mixed ^ mixed >> 24) * _M & _MASK)
    if size > whole:
        digest = (digest ^ int.from_bytes(key[whole:], "little")) * _M & _MASK
    digest = (digest ^ digest >> 13) * _M & _MASK
    return (digest ^ digest >> 15) & 0x7FFFFFFF


_cached_hash = lru_cache(CACHED_KEYS)(hash_of)
