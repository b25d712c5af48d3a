"""The topics that a source reads: found when it starts, and looked for again while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from streamline.connectors.kafka.client import Consumer, KafkaError, TopicInfo
from streamline.connectors.kafka.membership import REQUEST_SECONDS
from streamline.connectors.kafka.settings import KafkaSourceSettings
from streamline.connectors.kafka.source_outages import SourceOutages
from streamline.connectors.kafka.topics import TopicSelection
from streamline.connectors.kafka.user_errors import addresses
from streamline.connectors.stream_connector import PositionLost
from streamline.errors import StreamlineError

FIRST_REQUEST_SECONDS = 2.0


class TopicChanges(NamedTuple):
    """What has changed since the last look.

    Args:
        names: whether other topics are read now.
        recreated: topics that were deleted and created again.
    """

    names: bool
    recreated: list[str]


class FollowedTopics:
    """Used by the consumer's thread alone.

    Args:
        note: writes a text to the run's log, at a level.
    """

    def __init__(
        self,
        consumer: Consumer,
        selection: TopicSelection,
        settings: KafkaSourceSettings,
        outages: SourceOutages,
        clock: Callable[[], float],
        note: Callable[[str, str], None],
    ) -> None:
        self.known: dict[str, TopicInfo] = {}
        self._selection = selection
        self._consumer = consumer
        self._settings = settings
        self._outages = outages
        self._clock = clock
        self._note = note
        self._missed: set[str] = set()

    def find(self, timeout: float, *, ended: Callable[[], bool], pause: Callable[[float], None]) -> bool:
        """Look until the cluster answers and has them all; False: `ended` said so before.

        Args:
            timeout: seconds for that.
            pause: waits so many seconds.

        Raises:
            StreamlineError: not within the timeout.
        """
        where, began, told = addresses(self._settings.connection), self._clock(), ""
        while not ended():
            left = began + timeout - self._clock()
            try:
                # The first failure is told soon.
                seconds = min(REQUEST_SECONDS if told else FIRST_REQUEST_SECONDS, max(left, 1.0))
                topics = self._consumer.topics(seconds, self._selection.wanted)
                missing = self._selection.missing(topics)
                if not missing:
                    self.known = self._selection.choose(topics)
                    return True
                failure = StreamlineError(
                    f"there is no topic {', '.join(missing)}",
                    where=where,
                    hint="create it, or correct the source's `topic`; topics are not created by reading them",
                    code="kafka.topic_missing",
                )
            except KafkaError as error:
                if not error.transient:
                    raise
                failure = StreamlineError(
                    f"Kafka does not answer: {error.message}",
                    where=where,
                    hint="check `bootstrap_server`, `security_protocol`, and that the brokers run",
                    code="kafka.unreachable",
                )
            left = began + timeout - self._clock()
            if left <= 0:
                raise failure
            if told != failure.message:
                self._note(f"{where}: {failure.message}; trying again for {left:.0f} seconds", "WARNING")
                told = failure.message
            pause(min(1.0, left))
        return False

    def look_again(self) -> TopicChanges:
        """Look for new topics, and for those that were deleted.

        Raises:
            PositionLost: one was deleted, and the settings say to stop then.
        """
        try:
            there = self._consumer.topics(REQUEST_SECONDS, self._selection.wanted)
        except KafkaError as error:
            self._outages.wait_out("topics", error)
            return TopicChanges(names=False, recreated=[])
        self._outages.answered("topics")
        topics, before = self._selection.choose(there), self.known
        for name in before.keys() - topics.keys():
            if not self._selection.grows:
                self._deleted(name)
                topics[name] = before[name]
        self._missed &= before.keys() - there.keys()
        self.known = topics
        for name in sorted(topics.keys() - before.keys()):
            self._note(f"topic {name} has appeared: it is read from its start", "INFO")
        for name in sorted(before.keys() - topics.keys()):
            self._note(f"topic {name} is no longer there", "WARNING")
        recreated = [
            name
            for name in topics.keys() & before.keys()
            if None not in (topics[name].id, before[name].id) and topics[name].id != before[name].id
        ]
        return TopicChanges(names=topics.keys() != before.keys(), recreated=recreated)

    def _deleted(self, name: str) -> None:
        """Note that a topic was not there; the second time in a row counts."""
        if name not in self._missed:
            self._missed.add(name)
            self._note(f"topic {name} is no longer there", "WARNING")
        elif self._settings.on_offset_lost == "stop":
            raise PositionLost(
                f"topic {name} was deleted while it was read",
                where=addresses(self._settings.connection),
                hint="with on_offset_lost: earliest or latest, the source waits until it is there again",
                code="kafka.topic_deleted",
            )
