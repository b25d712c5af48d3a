"""Offsets as parts of a position, and as the group's offsets with the topic's id beside them."""

from __future__ import annotations

import msgspec

from streamline.connectors.kafka.client import Committed, Partition

_ID = "topic_id="


class OffsetPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of a partition's part.

    Args:
        offset: of the next message to read.
        topic_id: see `TopicInfo`.
        epoch: numbers the assignments of partitions to this process, from 1 on; a part of an earlier one is stale. It
            is not saved.
    """

    offset: int
    topic_id: str | None = None
    epoch: int = 0


_DECODER = msgspec.json.Decoder(OffsetPart)


def encode_part(offset: int, topic_id: str | None, epoch: int = 0) -> bytes:
    """Return the value of a part."""
    return msgspec.json.encode(OffsetPart(offset, topic_id, epoch))


def decode_part(value: bytes) -> OffsetPart:
    """Return what a part says."""
    return _DECODER.decode(value)


def partition_of(key: str) -> Partition:
    """Return the partition of a part's key."""
    topic, _, number = key.rpartition("/")
    return Partition(topic, int(number))


def committed_of(offset: int, topic_id: str | None) -> Committed:
    """Return an offset to commit."""
    return Committed(offset, _ID + topic_id if topic_id is not None else "")


def topic_id_of(committed: Committed) -> str | None:
    """Return the topic's id that stands beside a committed offset; None if another program committed it."""
    return committed.metadata.removeprefix(_ID) if committed.metadata.startswith(_ID) else None
