"""Takes messages out of what a consumer of kafka-python has fetched.

The library reads the numbers of a message with a call each, and makes two objects with many properties, of which an
`Origin` would be made: most of what it costs to read a message. Here it becomes an `Origin` at once.

The library does not document what this uses, so it is for known versions only; see `batches_known`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kafka import errors
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.util import decode_varint

from streamline.flow.items import Origin

MAGIC = 2
"""The format of batches since Kafka 0.11. Topics that are older may hold others."""


class OriginRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python is not typed
    """What was fetched of a partition, taken as `Origin`s; in place of the library's `Fetcher.PartitionRecords`."""

    def _unpack_records(self, tp: Any, records: Any, *_: Any) -> Iterator[Origin]:
        """Yield the messages that the isolation level lets pass. Called by the library."""
        batch = records.next_batch()
        next_offset = None
        while batch is not None:
            if self.check_crcs and not batch.validate_crc():
                raise errors.CorruptRecordError(
                    f"the batch of {tp.topic}/{tp.partition} at offset {batch.base_offset} has another checksum than "
                    "it says"
                )
            next_offset = None
            if batch.magic == MAGIC:
                next_offset = batch.next_offset
                self.leader_epoch = batch.leader_epoch
                if self._is_hidden(batch):
                    self.next_fetch_offset = next_offset
                    batch = records.next_batch()
                    continue
            for origin in origins_of_batch(tp.topic, tp.partition, batch):
                self.bytes_read += 1  # the library asks only whether there were any
                self.next_fetch_offset = origin.offset + 1
                yield origin
            batch = records.next_batch()
        if next_offset is not None:
            # Compaction may have removed the last message of the batch.
            self.next_fetch_offset = next_offset
        self.drain()

    def _is_hidden(self, batch: Any) -> bool:
        """Return whether a batch is no messages: markers, or what was aborted."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


def origins_of_batch(topic: str, partition: int, batch: Any) -> Iterator[Origin]:
    """Yield the messages of a batch.

    Raises:
        errors.CorruptRecordError: it is not what the protocol says.
    """
    if batch.magic != MAGIC:
        for record in batch:
            if not record.validate_crc():
                raise errors.CorruptRecordError(f"{topic}/{partition} at offset {record.offset}: wrong checksum")
            yield Origin(topic, partition, record.offset, record.key, record.value, None, _time(record.timestamp))
        return
    iter(batch)  # uncompresses
    data, at = bytes(batch._buffer), batch._pos
    first_offset = batch.base_offset
    first_time, append_time = batch.first_timestamp, batch.max_timestamp if batch.timestamp_type else None
    read = decode_varint
    try:
        for _ in range(batch.records_count):
            size, at = read(data, at)
            end = at + size
            time_delta, at = read(data, at + 1)  # after the attributes, which have no meaning yet
            number = data[at]
            if number & 0x81:
                number, at = read(data, at)
            else:
                number, at = number >> 1, at + 1
            key = value = headers = None
            size, at = read(data, at)
            if size >= 0:
                key = data[at : at + size]
                at += size
            size, at = read(data, at)
            if size >= 0:
                value = data[at : at + size]
                at += size
            if data[at]:
                headers, at = _headers(data, at)
            else:
                at += 1
            if at != end:
                raise ValueError(f"a message ends at byte {at}, not at {end}")
            time_ms = first_time + time_delta if append_time is None else append_time
            yield Origin(topic, partition, first_offset + number, key, value, headers, _time(time_ms))
        if at != len(data):
            raise ValueError(f"{len(data) - at} bytes follow the last message")
    except (ValueError, IndexError) as error:
        raise errors.CorruptRecordError(
            f"the batch of {topic}/{partition} at offset {first_offset}: {error}"
        ) from error


def _headers(data: bytes, at: int) -> tuple[list[tuple[str, bytes | None]], int]:
    count, at = decode_varint(data, at)
    if count < 0:
        raise ValueError(f"{count} headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        size, at = decode_varint(data, at)
        if size < 0:
            raise ValueError("a header has no name")
        name = data[at : at + size].decode()
        at += size
        size, at = decode_varint(data, at)
        headers.append((name, data[at : at + size] if size >= 0 else None))
        at += max(size, 0)
    return headers, at


def _time(time_ms: int | None) -> int | None:
    return None if time_ms is None or time_ms < 0 else time_ms
