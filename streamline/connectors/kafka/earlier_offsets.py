"""The offsets that a group has committed from here, by the copy in the state store: what the cluster has forgotten.

A cluster forgets a group's offsets when the topic is deleted, and when nobody has used the group for a week
(`offsets.retention.minutes`). Without the copy, the group would look as if it had never read.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streamline.connectors.kafka.client import Partition
from streamline.connectors.kafka.offset_parts import OffsetPart, decode_part, partition_of


class EarlierOffsets:
    """Offsets of one group, as they were when the last run ended or a little before.

    Args:
        copy: parts as `SelfKeptSource.shown` gives them; those of other groups are left out.
    """

    def __init__(self, copy: Mapping[str, bytes], group: str) -> None:
        self._parts: dict[Partition, OffsetPart] = {}
        self._topic_ids: dict[str, set[str]] = {}
        for key, value in copy.items():
            try:
                partition, part = partition_of(key), decode_part(value)
            except (ValueError, msgspec.DecodeError, msgspec.ValidationError):
                continue  # an operator may have written anything
            if part.group != group:
                continue
            self._parts[partition] = part
            if part.topic_id is not None:
                self._topic_ids.setdefault(partition.topic, set()).add(part.topic_id)

    def offset(self, partition: Partition) -> int | None:
        """Return the offset of a partition."""
        part = self._parts.get(partition)
        return part.offset if part is not None else None

    def of_another_topic(self, topic: str, topic_id: str | None) -> bool:
        """Return whether the group has read another topic of this name, and not this one."""
        ids = self._topic_ids.get(topic)
        return ids is not None and topic_id is not None and topic_id not in ids
