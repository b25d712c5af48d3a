"""Topics that a pipeline makes for itself, which go by the topics of its sources."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from streamline.connectors.kafka.client import Admin, Connection, KafkaClient, KafkaError, TopicInfo
from streamline.connectors.kafka.settings import KafkaSourceSettings
from streamline.connectors.kafka.topics import TopicSelection
from streamline.connectors.kafka.user_errors import explained
from streamline.errors import ConfigError, StreamlineError

T = TypeVar("T")

REQUEST_SECONDS = 5.0
RETRY_SECONDS = 0.2


class OwnTopics:
    """Looks topics up, and makes them. One thread uses it.

    Args:
        block: uuid of the block whose topics they are.
        timeout: seconds that the cluster may not answer.
        shown: names of the topics, for errors.
        ending: whether the run ends.
    """

    def __init__(
        self,
        client: KafkaClient,
        connection: Connection,
        *,
        block: str,
        timeout: float,
        shown: str,
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client = client
        self._connection = connection
        self._block = block
        self._timeout = timeout
        self._shown = shown
        self._ending = ending
        self._admin: Admin | None = None

    @property
    def admin(self) -> Admin:
        """The client."""
        if self._admin is None:
            self._admin = self._client.admin(self._connection)
        return self._admin

    def ask(self, request: Callable[[], T]) -> T:
        """Make a request until it succeeds, for as long as the cluster may not answer."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return request()
            except KafkaError as error:
                if not error.transient or time.monotonic() > deadline or self._ending():
                    raise explained(error, self._connection, topics=self._shown) from error
                time.sleep(RETRY_SECONDS)

    def named(self, *names: str) -> dict[str, TopicInfo]:
        """Return those of these topics that are there."""
        return self.admin.topics(REQUEST_SECONDS, names)

    def of_sources(self, sources: Sequence[KafkaSourceSettings]) -> dict[str, TopicInfo]:
        """Return the topics that sources read, if all that they name are there."""
        found: dict[str, TopicInfo] = {}
        for source in sources:
            selection = TopicSelection(source.topics, source.pattern)
            topics = self.admin.topics(REQUEST_SECONDS, selection.wanted)
            if selection.missing(topics):
                return {}
            for name, topic in selection.choose(topics).items():
                if name in found:
                    raise ConfigError(
                        f"two sources of block {self._block} read the topic {name}, and cannot share its state",
                        where=self._block,
                        hint="read the topic with one source",
                        code="state.topic_read_twice",
                    )
                found[name] = topic
        return found

    def awaited(self, sources: Sequence[KafkaSourceSettings]) -> dict[str, TopicInfo]:
        """Wait for the topics that sources read; none: one is missing, which its source itself tells."""
        deadline = time.monotonic() + self._timeout
        while not (found := self.ask(lambda: self.of_sources(sources))):
            if time.monotonic() > deadline or self._ending():
                break
            time.sleep(RETRY_SECONDS)
        return found

    def made(self, name: str, partitions: int, config: Mapping[str, str], *, what: str, code: str) -> TopicInfo:
        """Return a topic, made if it is missing.

        Args:
            what: the topic is for; `code`: of the error that it cannot be created.
        """
        deadline = time.monotonic() + self._timeout
        while name not in (known := self.named(name)):
            if time.monotonic() > deadline:
                raise self.gone(name)
            try:
                self.admin.create_topic(name, partitions, config, REQUEST_SECONDS)
            except KafkaError as error:
                if error.transient:
                    raise
                settings = " ".join(f"{key}={value}" for key, value in config.items())
                raise StreamlineError(
                    f"the topic for the {what} of block {self._block} cannot be created: {error.message}",
                    where=name,
                    hint=f"create it with {partitions} partitions and {settings}",
                    code=code,
                ) from error
            time.sleep(RETRY_SECONDS)
        return known[name]

    def gone(self, topic: str) -> StreamlineError:
        """Return the error of a topic that is missing."""
        return StreamlineError(
            f"the topic {topic} does not exist",
            where=self._block,
            hint="a topic that was just made or deleted is known to all brokers after a moment",
            code="kafka.topic_missing",
        )

    def close(self) -> None:
        """Free everything."""
        if self._admin is not None:
            self._admin.close()
        self._admin = None
