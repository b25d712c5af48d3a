"""What was fetched with kafka-python, taken as origins: the same as the library takes."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import pytest
from kafka import TopicPartition, errors
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from streamline.connectors.kafka.kafka_python_consumer_client import _origin
from streamline.connectors.kafka.kafka_python_records_client import OriginRecords
from streamline.flow.items import Origin

PLACE = TopicPartition("in", 3)
COUNT = 300
NAMES = "user", "größe"


class Aborted(NamedTuple):
    first_offset: int
    producer_id: int


def fetched(compression: int = 0, magic: int = 2) -> bytes:
    """Batches of messages of many kinds."""
    builder = MemoryRecordsBuilder(magic, compression, 1 << 20)
    for number in range(COUNT):
        headers = [(NAMES[number % 2], b"h" * number), ("none", None)] if number % 5 == 0 and magic == 2 else []
        key = b"key-%d" % number if number % 3 else None
        value = b"x" * number if number % 4 else None
        builder.append(1_700_000_000_000 + number * 40 * (-1) ** number, key, value, headers)
    builder.close()
    return bytes(builder.buffer())


def batch(first: int, producer: int, values: list[bytes], *, control: bool = False) -> bytes:
    """A batch of a transaction."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=1, producer_id=producer, producer_epoch=0, base_sequence=0,
        batch_size=1 << 20,
    )  # fmt: skip
    for number, value in enumerate(values):
        key = struct.pack(">hh", 0, int(value == b"commit")) if control else b"k"
        builder.append(number, 1000, key, value, [])
    raw = bytearray(builder.build())
    raw[:8] = struct.pack(">q", first)
    if control:
        raw[22] |= 0x20
        raw[17:21] = struct.pack(">I", _crc(raw[21:]))
    return bytes(raw)


def _crc(data: bytes | bytearray) -> int:
    from kafka.record.util import calc_crc32c

    return int(calc_crc32c(memoryview(data)))


def taken(kind: Any, raw: bytes, size: int = 70, first: int = 0, aborted: tuple[Aborted, ...] = ()) -> list[Any]:
    """What is taken in pieces; after each, where the next fetch begins."""
    level = IsolationLevel.READ_COMMITTED
    part = kind(first, PLACE, MemoryRecords(raw), isolation_level=level, aborted_transactions=list(aborted))
    taken: list[Any] = []
    while part:
        pieces = part.take(size)
        taken += [each if isinstance(each, Origin) else _origin(each) for each in pieces]
        taken.append(part.next_fetch_offset)
    return taken


@pytest.mark.parametrize("compression", [0, 1], ids=["plain", "gzip"])
@pytest.mark.parametrize("magic", [1, 2])
@pytest.mark.parametrize("first", [0, 123])
def test_messages_are_those_that_the_library_takes(compression: int, magic: int, first: int) -> None:
    raw = fetched(compression, magic)
    origins = taken(OriginRecords, raw, first=first)
    assert origins == taken(Fetcher.PartitionRecords, raw, first=first)
    assert sum(isinstance(each, Origin) for each in origins) == COUNT - first


def test_what_was_aborted_and_markers_are_left_out() -> None:
    raw = b"".join(
        [
            batch(0, 7, [b"a", b"b"]),
            batch(2, 8, [b"c"]),
            batch(3, 7, [b"abort"], control=True),
            batch(4, 7, [b"d", b"e"]),
            batch(6, 7, [b"commit"], control=True),
            batch(7, 8, [b"commit"], control=True),
        ]
    )
    aborted = (Aborted(0, 7),)
    origins = taken(OriginRecords, raw, aborted=aborted)
    assert origins == taken(Fetcher.PartitionRecords, raw, aborted=aborted)
    assert [each.value for each in origins if isinstance(each, Origin)] == [b"c", b"d", b"e"]
    assert origins[-1] == 8


def test_a_damaged_batch_is_refused() -> None:
    raw = bytearray(fetched())
    raw[100] ^= 1
    with pytest.raises(errors.CorruptRecordError):
        taken(OriginRecords, bytes(raw))


def test_a_batch_that_is_no_batch_inside_is_refused() -> None:
    raw = bytearray(batch(0, -1, [b"value", b"value"]))
    raw[61] = 40  # the length of the first message
    raw[17:21] = struct.pack(">I", _crc(raw[21:]))
    with pytest.raises(errors.CorruptRecordError):
        taken(OriginRecords, bytes(raw))
