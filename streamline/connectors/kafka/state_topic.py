"""Keyed state in a compacted changelog topic, with a local copy of each partition.

A partition of the changelog belongs to the source partition of the same number, and only its owner writes to it. The
messages are written by the pipeline's sinks, together with what was made of the same messages; here they are read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from uuid import uuid4

import msgspec

from streamline.connectors.kafka.client import (
    Connection,
    Consumer,
    ConsumerOptions,
    KafkaClient,
    KafkaError,
    OffsetLost,
    Partition,
    TopicInfo,
)
from streamline.connectors.kafka.own_topics import REQUEST_SECONDS, OwnTopics
from streamline.connectors.kafka.settings import KafkaSourceSettings
from streamline.connectors.kafka.state_cache import StateCache
from streamline.errors import StreamlineError
from streamline.flow.keyed_state import Place

TOPIC_CONFIG = {"cleanup.policy": "compact"}
"""Settings of a changelog that is made."""

SILENCE_SECONDS = 10.0
"""The log tells of a restore that has not moved for so long."""

POLL_MESSAGES = 20_000
WRITE_KEYS = 250_000
WRITE_BYTES = 64 << 20
"""So much of a changelog is read before it is written to the copy: large pieces in the order of keys are cheap."""
_FRAMING = 512
"""Bytes that a message may have besides its value, the key not counted."""
_CLOSE_SECONDS = 2.0


class StateTopicOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a block's state is kept in.

    Args:
        topic: the changelog's name; `{stream}` stands for the source's topic, where it reads several.
        sources: that feed the block.
        folder: for local copies.
        timeout: seconds that the cluster may not answer, and that a restore may not move.
        note: writes a line to the log, with its level.
        ending: whether the run ends.
    """

    block: str
    pipeline: str
    connection: Connection
    topic: str
    sources: Sequence[KafkaSourceSettings]
    folder: Path
    timeout: float = 60.0
    note: Callable[[str, str], None] = lambda message, level: None
    ending: Callable[[], bool] = lambda: False

    def topic_of(self, source_topic: str) -> str:
        """Return the changelog of a source's topic."""
        return self.topic.replace("{stream}", source_topic)


class _Open:
    """A partition whose state is ready."""

    def __init__(self, cache: StateCache, topic_id: str | None) -> None:
        self.cache = cache
        self.topic_id = topic_id


class KafkaState:
    """Implements `StateStore`."""

    any_key = False

    def __init__(self, client: KafkaClient, options: StateTopicOptions) -> None:
        self.max_bytes: int | None = None
        self._client = client
        self._options = options
        self._open: dict[Place, _Open] = {}
        self._own = OwnTopics(
            client,
            options.connection,
            block=options.block,
            timeout=options.timeout,
            shown=options.topic,
            ending=options.ending,
        )
        self._committed: Consumer | None = None
        self._everything: Consumer | None = None
        self._topics: dict[str, TopicInfo] = {}
        self._ends: dict[tuple[Partition, str | None], int] = {}
        """The highest ends that were seen, by partition and topic id: a log does not become shorter."""

    def start(self) -> None:
        """See `StateStore.start`: makes the changelogs of the topics that are there, and checks them."""
        found = self._own.awaited(self._options.sources)
        if not found:
            return
        self._own.ask(lambda: self._check_names(found))
        for topic in found.values():
            self._own.ask(partial(self._ready_topic, topic))

    def check(self) -> str:
        """Return what state topics there are, in one line; creates nothing.

        Raises:
            StreamlineError: one of them does not fit its source.
        """
        try:
            parts = []
            found = self._own.ask(lambda: self._own.of_sources(self._options.sources))
            if not found:
                return f"state in {self._options.topic_of('TOPIC')}, which the first run makes"
            self._own.ask(lambda: self._check_names(found))
            for topic in found.values():
                name = self._options.topic_of(topic.name)
                known = self._own.ask(partial(self._own.named, name))
                if name in known:
                    self._check_topic(known[name], topic)
                    parts.append(f"{name}, {known[name].partitions} partitions")
                else:
                    parts.append(f"{name}, which the first run makes")
            return f"state in {'; '.join(parts)}"
        finally:
            self.close()

    def restore(self, place: Place) -> None:
        """See `StateStore.restore`."""
        if place in self._open:
            return
        name = self._options.topic_of(place.topic)
        if name not in self._topics:
            source = self._own.ask(partial(self._own.named, place.topic))
            if place.topic not in source:
                raise self._own.gone(place.topic)
            self._own.ask(lambda: self._ready_topic(source[place.topic]))
        info = self._topics[name]
        if place.partition >= info.partitions:
            raise _partitions_differ(name, info.partitions, place.topic, place.partition + 1)
        folder = self._options.folder
        opened = _Open(StateCache(folder / f"{place.topic}-{place.partition}.db"), info.id)
        try:
            self._own.ask(lambda: self._read(opened, Partition(name, place.partition)))
        except BaseException:
            opened.cache.close()
            raise
        self._open[place] = opened

    def get(self, place: Place, key: bytes) -> bytes | None:
        """See `StateStore.get`."""
        return self._open[place].cache.get(key)

    def range(self, place: Place, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `StateStore.range`."""
        return self._open[place].cache.range(first, last)

    def marks(self, places: Collection[Place]) -> Mapping[Place, int]:
        """See `StateStore.marks`."""
        partitions = {Partition(self._options.topic_of(place.topic), place.partition): place for place in places}
        try:
            ranges = self._consumer("read_committed").range(list(partitions), REQUEST_SECONDS)
        except KafkaError:
            return {}  # the copies stand where they stood
        for each, (_, end) in ranges.items():
            known = each, self._topics[each.topic].id
            self._ends[known] = max(end, self._ends.get(known, 0))
        return {partitions[each]: end for each, (_, end) in ranges.items() if end >= 0}

    def save(self, place: Place, changes: Mapping[bytes, bytes | None], mark: int | None) -> None:
        """See `StateStore.save`."""
        if (opened := self._open.get(place)) is not None:
            opened.cache.write(changes.items(), mark, opened.topic_id)

    def drop(self, place: Place) -> None:
        """See `StateStore.drop`."""
        if (opened := self._open.pop(place, None)) is not None:
            opened.cache.close()

    def close(self) -> None:
        """See `StateStore.close`."""
        for place in list(self._open):
            self.drop(place)
        for consumer in (self._committed, self._everything):
            if consumer is not None:
                consumer.close(_CLOSE_SECONDS)
        self._own.close()
        self._committed = self._everything = None

    # -- topics

    def _check_names(self, sources: Collection[str]) -> None:
        """Check that the state is not in a topic with the name that it had when other topics were read.

        Raises:
            StreamlineError: it is.
        """
        prefix = f"{self._options.pipeline}.{self._options.block}"
        own = {self._options.topic_of(source) for source in sources}
        several = f"{prefix}.state" not in own
        former = {f"{prefix}.state"} if several else {f"{prefix}.{source}.state" for source in sources}
        known = self._own.named(*own, *former).keys()
        if known & own or not (left := sorted(known & former)):
            return
        if several:
            when, hint = "one topic was read", "read the other topics with a transformer block of their own"
        else:
            when = "several topics were read"
            hint = f"write `topic_pattern: {', '.join(sources)}` in the source, which keeps the name"
        raise StreamlineError(
            f"the state of block {self._options.block} is in {', '.join(left)}, from when {when}; now it would begin "
            f"anew in {', '.join(sorted(own))}",
            where=self._options.block,
            hint=f"{hint}; or delete {', '.join(left)}, and reset the pipeline's positions to build it anew",
            code="state.topic_renamed",
        )

    def _ready_topic(self, source: TopicInfo) -> None:
        """Make the changelog of a source's topic if it is missing, and check it."""
        name = self._options.topic_of(source.name)
        topic = self._own.made(name, source.partitions, TOPIC_CONFIG, what="state", code="state.topic_not_created")
        self._check_topic(topic, source)
        self._topics[name] = topic

    def _check_topic(self, topic: TopicInfo, source: TopicInfo) -> None:
        if topic.partitions < source.partitions:
            raise _partitions_differ(topic.name, topic.partitions, source.name, source.partitions)
        try:
            config = self._own.admin.topic_config(topic.name, REQUEST_SECONDS)
        except KafkaError as error:
            if error.transient:
                raise
            return  # not allowed to look
        if "compact" not in config.get("cleanup.policy", "compact") or "delete" in config.get("cleanup.policy", ""):
            raise StreamlineError(
                f"the topic {topic.name} is not compacted, so its messages and with them the state would expire",
                where=topic.name,
                hint=f"kafka-configs --alter --topic {topic.name} --add-config cleanup.policy=compact",
                code="state.topic_not_compacted",
            )
        limit = config.get("max.message.bytes", "")
        if limit.isdecimal():
            self.max_bytes = min(int(limit) - _FRAMING, self.max_bytes or 1 << 62)

    # -- reading

    def _consumer(self, isolation: str) -> Consumer:
        name = "_committed" if isolation == "read_committed" else "_everything"
        consumer: Consumer | None = getattr(self, name)
        if consumer is None:
            options = ConsumerOptions(
                group=f"{self._options.pipeline}-{self._options.block}-state-{uuid4().hex[:8]}",
                client_id=f"streamline-{self._options.pipeline}-{self._options.block}-state",
                isolation_level=isolation,
                max_partition_bytes=8 << 20,
            )
            consumer = self._client.consumer(self._options.connection, options)
            setattr(self, name, consumer)
        return consumer

    def _read(self, opened: _Open, partition: Partition) -> None:
        """Bring a copy up to the end that the changelog has now, also where an open transaction hides it."""
        first, end = self._range(partition)
        cache = opened.cache
        stand = cache.stand
        if stand is not None and (stand.topic_id != opened.topic_id or not first <= stand.offset <= end):
            stand = None  # another changelog, or one that no longer has what the copy lacks
        if stand is None:
            cache.clear()
        reached = stand.offset if stand is not None else first
        consumer = self._consumer("read_committed")
        while True:
            try:
                reached = self._read_to(cache, opened.topic_id, consumer, partition, reached, end)
                break
            except OffsetLost:
                # Deleted meanwhile: from the new first offset on, with an empty copy.
                cache.clear()
                reached, end = self._range(partition)
        cache.write((), reached, opened.topic_id)

    def _range(self, partition: Partition) -> tuple[int, int]:
        """Return the first offset of a changelog and its end, also where an open transaction hides it.

        Raises:
            KafkaError: it is not known now: a broker answers with less than there was before.
        """
        first, end = self._consumer("read_uncommitted").range([partition], REQUEST_SECONDS)[partition]
        known = self._ends.get((partition, self._topics[partition.topic].id), 0)
        if not 0 <= first <= end or end < known:
            raise KafkaError(
                f"the end of {partition} is not known: offsets {first} to {end}, and {known} were there",
                kafka_code="OFFSET_NOT_AVAILABLE",
                transient=True,
            )
        self._ends[partition, self._topics[partition.topic].id] = end
        return first, end

    def _read_to(
        self, cache: StateCache, topic_id: str | None, consumer: Consumer, partition: Partition, reached: int, end: int
    ) -> int:
        if reached >= end:
            return reached
        consumer.assign({partition: reached})
        moved, told = time.monotonic(), False
        newest: dict[bytes, bytes | None] = {}
        nbytes = 0
        try:
            while reached < end:
                messages = [
                    message
                    for message in consumer.poll_batch(POLL_MESSAGES, 0.1)
                    if (message.topic, message.partition) == partition
                ]
                # A library may not know its position for a moment. What it has given counts.
                position = max(consumer.position(partition) or 0, messages[-1].offset + 1 if messages else 0)
                now = time.monotonic()
                if position > reached:
                    newest.update((message.key, message.value) for message in messages if message.key is not None)
                    nbytes += sum(len(message.value) for message in messages if message.value)
                    reached, moved = position, now
                    if len(newest) >= WRITE_KEYS or nbytes >= WRITE_BYTES:
                        cache.write(newest.items(), reached, topic_id)
                        newest, nbytes = {}, 0
                elif self._options.ending():
                    raise self._blocked(partition, reached, end, "before the run had to end")
                elif now - moved > self._options.timeout:
                    raise self._blocked(partition, reached, end, f"within {self._options.timeout:g} s")
                elif now - moved > SILENCE_SECONDS and not told:
                    told = True
                    self._options.note(
                        f"the state of {partition} is read up to {reached} of {end}: the rest is hidden, most likely "
                        "by a transaction that is still open",
                        "WARNING",
                    )
        finally:
            consumer.assign({})
            if newest:
                cache.write(newest.items(), reached, topic_id)
        return reached

    def _blocked(self, partition: Partition, reached: int, end: int, when: str) -> StreamlineError:
        return StreamlineError(
            f"the state cannot be restored: offsets {reached} to {end} could not be read {when}, most likely because a "
            "transaction that is still open hides them",
            where=str(partition),
            hint="a transaction that nobody ends is aborted after its transaction.timeout.ms; then it goes on",
            code="state.blocked",
        )


def _partitions_differ(topic: str, has: int, source: str, needs: int) -> StreamlineError:
    return StreamlineError(
        f"the topic {topic} has {has} partitions, and {source} has {needs}: since its partitions were added, keys are "
        "in other partitions than their state",
        where=topic,
        hint="delete the state topic and reset the pipeline's positions, so that the state is built anew",
        code="state.partitions_differ",
    )
