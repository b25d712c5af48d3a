"""The partitions that a consumer owns now, how far each was given, and the positions made of that."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from streamline.connectors.kafka.client import Committed, Partition
from streamline.connectors.kafka.offset_parts import committed_of, decode_part, encode_part, partition_of
from streamline.flow.items import Item, MessageBatch, Origin, Position


class Owned(msgspec.Struct):
    """A partition that is read.

    Args:
        epoch: see `OffsetPart`.
        next: the offset after what was given; None until it is known where it starts.
        end: where it ended when that was looked up last.
        siblings: how many partitions the topic had when this one was placed.
    """

    partition: Partition
    key: str
    epoch: int
    next: int | None = None
    topic_id: str | None = None
    end: int | None = None
    siblings: int = 0


class Assignment:
    """Used by the consumer's thread alone.

    Args:
        source: id of the source, for its positions.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._owned: dict[Partition, Owned] = {}
        self._parts: dict[str, bytes] = {}
        self._epoch = 0
        self._number = 0
        self._changed = False

    def __contains__(self, partition: Partition) -> bool:
        return partition in self._owned

    @property
    def all(self) -> Collection[Partition]:
        """The partitions, also those of which nothing is read yet."""
        return self._owned.keys()

    @property
    def placed(self) -> list[Owned]:
        """Those that are read from a known offset on."""
        return [owned for owned in self._owned.values() if owned.next is not None]

    @property
    def unplaced(self) -> list[Partition]:
        """Those of which it is not known yet where they start."""
        return [partition for partition, owned in self._owned.items() if owned.next is None]

    def next_of(self, partition: Partition) -> int | None:
        """Return the offset after what was given of a partition; None if it is not read."""
        owned = self._owned.get(partition)
        return owned.next if owned is not None else None

    def add(self, partitions: Iterable[Partition]) -> None:
        """Own partitions from now on; parts of an earlier assignment of theirs become stale."""
        for partition in partitions:
            self._epoch += 1
            self._parts.pop(str(partition), None)
            self._owned[partition] = Owned(partition, str(partition), self._epoch)
        self._changed = True

    def remove(self, partitions: Iterable[Partition]) -> None:
        """Own them no longer."""
        for partition in partitions:
            self._owned.pop(partition, None)
            self._parts.pop(str(partition), None)
        self._changed = True

    def place(self, partition: Partition, offset: int, topic_id: str | None, end: int, *, siblings: int = 0) -> None:
        """Note where an owned partition is read from."""
        owned = self._owned[partition]
        owned.topic_id, owned.end, owned.siblings = topic_id, end, siblings
        self._move(owned, offset)

    def advance(self, owned: Owned, offset: int) -> bool:
        """Note that there is nothing to give before an offset; whether that is new."""
        if owned.next is None or offset <= owned.next:
            return False
        self._move(owned, offset)
        return True

    def take(self, messages: Sequence[Origin]) -> list[Item]:
        """Return messages as one batch for each topic, and move on past them.

        Messages that are not, or no longer, to be given are left out.
        """
        last = _last_offsets(messages)
        if self._changed or len(self._owned) > len(self._parts) or not last.keys() <= self._owned.keys():
            messages = self._checked(messages)
            last = _last_offsets(messages)
            self._changed = False
        for partition, offset in last.items():
            self._move(self._owned[partition], offset + 1)
        topics: dict[str, list[Origin]] = {}
        if len({partition.topic for partition in last}) == 1:
            topics[messages[0].topic] = list(messages)
        else:
            for message in messages:
                topics.setdefault(message.topic, []).append(message)
        items: list[Item] = []
        for topic, origins in topics.items():
            items.append(MessageBatch(topic, [origin.value for origin in origins], [*origins]))
        return items

    def position(self) -> Position:
        """Return the position of all that was given."""
        self._number += 1
        return Position(self._source, self._number, dict(self._parts))

    def offsets(self, parts: Mapping[str, bytes]) -> dict[Partition, Committed]:
        """Return the offsets of those parts that are not stale."""
        offsets = {}
        for key, value in parts.items():
            part = decode_part(value)
            owned = self._owned.get(partition_of(key))
            if owned is not None and owned.epoch == part.epoch:
                offsets[owned.partition] = committed_of(part.offset, part.topic_id, owned.siblings)
        return offsets

    def _move(self, owned: Owned, offset: int) -> None:
        owned.next = offset
        self._parts[owned.key] = encode_part(offset, owned.topic_id, owned.epoch)

    def _checked(self, messages: Sequence[Origin]) -> list[Origin]:
        """Return the messages that are to be given; after a rebalance a poll may hold others."""
        next_offsets = {owned.partition: owned.next for owned in self.placed}
        kept = []
        for message in messages:
            partition = Partition(message.topic, message.partition)
            offset = next_offsets.get(partition)
            if offset is not None and message.offset >= offset:
                next_offsets[partition] = message.offset + 1
                kept.append(message)
        return kept


def _last_offsets(messages: Sequence[Origin]) -> dict[Partition, int]:
    """Return the offset of each partition's last message."""
    last = {(message.topic, message.partition): message.offset for message in messages}
    return {Partition(*partition): offset for partition, offset in last.items()}
