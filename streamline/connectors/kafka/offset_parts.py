"""Offsets as parts of a position, and as the group's offsets with the topic's id and size beside them."""

from __future__ import annotations

import msgspec

from streamline.connectors.kafka.client import Committed, Partition

_ID = "topic_id="
_PARTITIONS = "partitions="


class OffsetPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of a partition's part.

    Args:
        offset: of the next message to read.
        topic_id: see `TopicInfo`.
        epoch: numbers the assignments of partitions to this process, from 1 on; a part of an earlier one is stale. It
            is not saved.
        group: that has committed it; in the copy in the state store alone.
    """

    offset: int
    topic_id: str | None = None
    epoch: int = 0
    group: str | None = None


_DECODER = msgspec.json.Decoder(OffsetPart)


def encode_part(offset: int, topic_id: str | None, epoch: int = 0) -> bytes:
    """Return the value of a part."""
    return msgspec.json.encode(OffsetPart(offset, topic_id, epoch))


def shown_part(value: bytes, group: str) -> bytes:
    """Return a part's value for the state store."""
    part = decode_part(value)
    return msgspec.json.encode(OffsetPart(part.offset, part.topic_id, group=group))


def decode_part(value: bytes) -> OffsetPart:
    """Return what a part says."""
    return _DECODER.decode(value)


def partition_of(key: str) -> Partition:
    """Return the partition of a part's key."""
    topic, _, number = key.rpartition("/")
    return Partition(topic, int(number))


def committed_of(offset: int, topic_id: str | None, partitions: int = 0) -> Committed:
    """Return an offset to commit.

    Args:
        partitions: how many the topic has now; 0: it is not known.
    """
    texts = [_ID + topic_id] if topic_id is not None else []
    if partitions:
        texts.append(f"{_PARTITIONS}{partitions}")
    return Committed(offset, " ".join(texts))


def topic_id_of(committed: Committed) -> str | None:
    """Return the topic's id that stands beside a committed offset; None if another program committed it."""
    return _text(committed, _ID)


def partitions_of(committed: Committed) -> int:
    """Return how many partitions the topic had when an offset was committed; 0 if another program committed it."""
    count = _text(committed, _PARTITIONS) or ""
    return int(count) if count.isdecimal() else 0


def _text(committed: Committed, name: str) -> str | None:
    return next((text.removeprefix(name) for text in committed.metadata.split() if text.startswith(name)), None)
