"""What happens when partitions come and go: where they start, and how they are given away. In the consumer's thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from streamline.connectors.kafka.assignment import Assignment
from streamline.connectors.kafka.client import (
    Committed,
    Consumer,
    KafkaError,
    OffsetLost,
    Partition,
    TopicInfo,
)
from streamline.connectors.kafka.commits import Commits
from streamline.connectors.kafka.earlier_offsets import EarlierOffsets
from streamline.connectors.kafka.high_watermarks import HighWatermarks
from streamline.connectors.kafka.offset_parts import committed_of, partitions_of
from streamline.connectors.kafka.settings import KafkaSourceSettings
from streamline.connectors.kafka.start_offsets import (
    Known,
    Start,
    all_lost,
    lost_error,
    lost_start,
    lost_text,
    needs_time,
    skipped,
    start_of,
)
from streamline.connectors.stream_connector import PositionLost

REQUEST_SECONDS = 5.0
"""Seconds for one request to the cluster."""

UNSURE_SECONDS = 10.0
"""An offset past the end is taken for lost only after so long: a new leader may not know the end at first."""


class Surroundings(Protocol):
    """What the thread does for a membership."""

    @property
    def closing(self) -> bool:
        """Whether the source is closed: nothing is in flight any more."""
        ...

    def drain(self, keys: Collection[str], seconds: float) -> None:
        """Have what is in flight of these proven and committed, and wait for that."""
        ...

    def pause_for(self, seconds: float) -> None:
        """Wait a while, and serve what is asked for meanwhile."""
        ...

    def note(self, text: str, level: str) -> None:
        """Write to the run's log."""
        ...

    def wait_out(self, request: str, error: KafkaError) -> None:
        """Go on after an error that passes by itself; it is told once.

        Raises:
            KafkaError: it does not.
        """
        ...

    def answered(self, *requests: str) -> None:
        """Note that requests succeed now."""
        ...


class Membership:
    """The listener of a consumer. Its callbacks raise nothing: `failure` says what went wrong.

    Args:
        known_partitions: how many partitions each topic had when the run began. Those that appear later are read from
            their first offset on.
        high_watermarks: asked for, where partitions are read up to their ends; None: they are read for ever.
    """

    def __init__(
        self,
        consumer: Consumer,
        assignment: Assignment,
        commits: Commits,
        *,
        settings: KafkaSourceSettings,
        topics: Mapping[str, TopicInfo],
        known_partitions: dict[str, int],
        earlier: EarlierOffsets,
        surroundings: Surroundings,
        clock: Callable[[], float],
        high_watermarks: HighWatermarks | None = None,
    ) -> None:
        self.failure: Exception | None = None
        self.paused = False
        self.goals: dict[Partition, int] = {}
        """Where each partition ended when it was assigned for the first time, with what an open transaction hid."""
        self.deadline: float | None = None
        """When partitions that are being taken away are gone."""
        self._consumer = consumer
        self._assignment = assignment
        self._commits = commits
        self._settings = settings
        self._known_partitions = known_partitions
        self._earlier = earlier
        self._read_ids = {name: topic.id for name, topic in topics.items()}
        self._surroundings = surroundings
        self._clock = clock
        self._high_watermarks = high_watermarks
        self._unsure_since: dict[Partition, float] = {}

    # -- the listener

    def assigned(self, partitions: Collection[Partition]) -> None:
        """See `RebalanceListener`."""
        try:
            self._assignment.add(partitions)
            # Neither library keeps, or drops, a pause over a rebalance as the other does.
            self._consumer.pause(partitions)
            self.place()
            for partition in self._assignment.unplaced:
                self._consumer.seek(partition, 0)  # kafka-python would look for a place by itself, and fail
        except Exception as error:
            self.failure = self.failure or error
        self._commits.retry_now()

    def revoked(self, partitions: Collection[Partition]) -> None:
        """See `RebalanceListener`."""
        mine = [partition for partition in partitions if partition in self._assignment]
        try:
            if mine and not self._surroundings.closing:
                self._give_up(mine)
        except Exception as error:
            self.failure = self.failure or error
        finally:
            self._remove(mine)

    def lost(self, partitions: Collection[Partition]) -> None:
        """See `RebalanceListener`."""
        mine = [partition for partition in partitions if partition in self._assignment]
        self._remove(mine)
        if mine and not self._surroundings.closing:
            self._surroundings.drain([str(partition) for partition in mine], 0.0)

    # -- where partitions start

    def place(self) -> None:
        """Look up where partitions start that were assigned, and read them. What cannot be looked up now stays paused.

        Raises:
            StreamlineError: an offset is lost; a request failed for good.
        """
        unplaced = self._assignment.unplaced
        if not unplaced:
            return
        try:
            known = self._look_up(unplaced)
        except KafkaError as error:
            self._surroundings.wait_out("place", error)
            return
        self._surroundings.answered("place")
        lost: list[PositionLost] = []
        skip: Counter[str] = Counter()
        for partition, facts in known.items():
            if self._unsure(partition, facts):
                continue
            try:
                start = start_of(partition, facts, offset=self._settings.offset, on_lost=self._settings.on_offset_lost)
            except PositionLost as error:
                lost.append(error)
            else:
                self._start(partition, start, facts)
                skip[partition.topic] += skipped(partition, facts, self._settings.offset)
        if skip.total():
            topics = ", ".join(sorted(topic for topic, count in skip.items() if count))
            self._surroundings.note(
                f"consumer group {self._settings.group} is new and begins at the latest offset: {skip.total():,} "
                f"messages of {topics} lie before it and are not read; `auto_offset_reset: earliest` reads them",
                "WARNING",
            )
        if lost:
            raise all_lost(lost)
        for partition, facts in known.items():
            if facts.recreated:
                self._known_partitions[partition.topic] = 0
            self._read_ids[partition.topic] = facts.topic_id

    def recreated(self, topic: str) -> None:
        """Begin anew with a topic that was deleted and created again.

        Raises:
            StreamlineError: the settings say to stop then.
        """
        again = [partition for partition in self._assignment.all if partition.topic == topic]
        self._begin_again(again)
        self.place()

    def lost_at(self, error: OffsetLost) -> None:
        """Go on where the broker does not have the next offset of a partition.

        Raises:
            StreamlineError: the settings say to stop then.
        """
        partition = Partition(*error.partition)
        offset = self._assignment.next_of(partition)
        if offset is None:
            return  # it is not known yet where it starts, or it is somebody else's
        known = self._look_up([partition]).get(partition)
        if known is None:
            return  # the topic is gone
        if known.recreated:
            self.recreated(partition.topic)
        elif known.first <= offset <= known.end:
            self._consumer.seek(partition, offset)
        else:
            text, on_lost = lost_text(offset, known), self._settings.on_offset_lost
            if on_lost == "stop":
                raise lost_error(partition, text, code="kafka.offset_lost")
            self._begin_again([partition])
            self._start(partition, lost_start(known, on_lost, text), known)

    def _begin_again(self, partitions: Collection[Partition]) -> None:
        self._consumer.pause(partitions)
        self._commits.forget(partitions)
        self._assignment.remove(partitions)
        self._assignment.add(partitions)

    def _look_up(self, partitions: Collection[Partition]) -> dict[Partition, Known]:
        consumer, offset = self._consumer, self._settings.offset
        topics = consumer.topics(REQUEST_SECONDS, {partition.topic for partition in partitions})
        there = [
            partition
            for partition in partitions
            if partition.topic in topics and partition.partition < topics[partition.topic].partitions
        ]
        committed = consumer.committed(there, REQUEST_SECONDS)
        ranges = consumer.range(there, REQUEST_SECONDS)
        last = self._high_watermarks(there, REQUEST_SECONDS) if self._high_watermarks is not None and there else {}
        appeared = {each for each in there if each.partition >= self._known_partitions.get(each.topic, 0)}
        appeared |= self._appeared_meanwhile(there, topics, committed)
        times = {
            each: offset.value or 0
            for each in there
            if needs_time(each, committed.get(each), offset, appeared=each in appeared)
        }
        at_time = consumer.at_time(times, REQUEST_SECONDS) if times else {}
        return {
            each: Known(
                committed=committed.get(each),
                topic_id=topics[each.topic].id,
                read_id=self._read_ids.get(each.topic),
                first=ranges[each][0],
                end=ranges[each][1],
                high_watermark=last.get(each),
                appeared=each in appeared,
                siblings=topics[each.topic].partitions,
                at_time=at_time.get(each),
                earlier=self._earlier.offset(each),
                earlier_topic=self._earlier.of_another_topic(each.topic, topics[each.topic].id),
            )
            for each in there
            if each in ranges
        }

    def _appeared_meanwhile(
        self,
        partitions: Collection[Partition],
        topics: Mapping[str, TopicInfo],
        committed: Mapping[Partition, Committed],
    ) -> set[Partition]:
        """Return those that were not there yet when the group read the topic's other partitions: `offset` is for a
        group's first start. Which these are tells the number of partitions beside the offsets of the others, for of a
        group that starts now another member may have committed first."""
        unknown = [each for each in partitions if each not in committed]
        others = [
            Partition(topic, number)
            for topic in dict.fromkeys(each.topic for each in unknown)
            for number in range(topics[topic].partitions)
        ]
        if not others:
            return set()
        sizes: dict[str, int] = {}
        for partition, offset in self._consumer.committed(others, REQUEST_SECONDS).items():
            sizes[partition.topic] = max(sizes.get(partition.topic, 0), partitions_of(offset))
        return {each for each in unknown if each.partition >= sizes.get(each.topic, each.partition + 1)}

    def _unsure(self, partition: Partition, known: Known) -> bool:
        if known.committed is None or known.committed.offset <= known.end:
            self._unsure_since.pop(partition, None)
            return False
        since = self._unsure_since.setdefault(partition, self._clock())
        return self._clock() - since < UNSURE_SECONDS

    def _start(self, partition: Partition, start: Start, known: Known) -> None:
        if start.warning is not None:
            self._surroundings.note(f"{partition}: {start.warning}", "WARNING")
        self._consumer.seek(partition, start.offset)
        self._assignment.place(partition, start.offset, known.topic_id, known.end, siblings=known.siblings)
        self.goals.setdefault(partition, known.end if known.high_watermark is None else known.high_watermark)
        if start.applied:
            self._commits.add({partition: committed_of(start.offset, known.topic_id, known.siblings)})
        elif known.committed is not None:
            self._commits.note(partition, known.committed)
        if not self.paused:
            self._consumer.resume([partition])

    # -- how they are given away

    def _give_up(self, partitions: Collection[Partition]) -> None:
        """Drain first; what finishes in time is not done again by the next owner."""
        self.deadline = self._clock() + self._settings.drain_seconds
        try:
            self._surroundings.drain([str(partition) for partition in partitions], self._settings.drain_seconds)
            while self._commits.pending(partitions) and not self._surroundings.closing:
                left = self.deadline - self._clock()
                if self._commits.flush(max(left, 0.1)) or not self._commits.member or left <= 0:
                    break
                self._surroundings.pause_for(0.1)
        finally:
            self.deadline = None

    def _remove(self, partitions: Collection[Partition]) -> None:
        self._assignment.remove(partitions)
        self._commits.forget(partitions)
        for partition in partitions:
            self._unsure_since.pop(partition, None)
