"""Whether a group has read what a topic held when the run began."""

from __future__ import annotations

from streamline.connectors.kafka.client import Consumer, KafkaError, Partition
from streamline.connectors.kafka.followed_topics import FollowedTopics
from streamline.connectors.kafka.high_watermarks import HighWatermarks
from streamline.connectors.kafka.membership import REQUEST_SECONDS
from streamline.connectors.kafka.source_outages import SourceOutages
from streamline.connectors.kafka.start_offsets import stands_at


class GroupProgress:
    """What the members of a group together have committed. Used by the consumer's thread alone."""

    def __init__(
        self, consumer: Consumer, topics: FollowedTopics, outages: SourceOutages, high_watermarks: HighWatermarks
    ) -> None:
        self._consumer = consumer
        self._high_watermarks = high_watermarks
        self._topics = topics
        self._outages = outages
        self._ends: dict[Partition, int] = {}

    def complete(self) -> bool:
        """Return whether the group has committed all ends of the topics, as they were when this was asked first."""
        topics = self._topics.known
        partitions = [Partition(topic.name, number) for topic in topics.values() for number in range(topic.partitions)]
        try:
            self._ends = self._ends or self._high_watermarks(partitions, REQUEST_SECONDS)
            committed = self._consumer.committed(partitions, REQUEST_SECONDS)
        except KafkaError as error:
            self._outages.wait_out("group", error)
            return False
        self._outages.answered("group")
        # Also of an empty partition: where the group starts has to be committed.
        return all(
            stands_at(committed.get(each), topics[each.topic].id, end)
            for each, end in self._ends.items()
            if each.topic in topics
        )
