"""A cluster in memory, in this process: librdkafka's mock brokers. For demonstrations, where no Kafka is installed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterator

from confluent_kafka import Consumer, KafkaException, Producer

from streamline.connectors.kafka.failures import failure

_QUIET = {"log_level": 0}
_SECONDS = 10.0


class MockCluster:
    """Brokers that other processes of this machine can use, too, as long as this object is there.

    Args:
        topics: created, with 4 partitions each.
    """

    def __init__(self, topics: Collection[str]) -> None:
        self._producer = Producer({**_QUIET, "test.mock.num.brokers": 1, "bootstrap.servers": "mock:1"})
        try:
            (broker,) = self._producer.list_topics(timeout=_SECONDS).brokers.values()
            for topic in topics:
                self._producer.list_topics(topic, timeout=_SECONDS)
        except KafkaException as error:
            raise failure("start the mock cluster", error.args[0].name(), error.args[0].str()) from error
        self.address = f"{broker.host}:{broker.port}"

    def send(self, topic: str, key: str, value: bytes) -> None:
        """Produce a message."""
        self._producer.produce(topic, key=key, value=value)
        self._producer.poll(0)

    def read(self, topic: str, seconds: float) -> Iterator[bytes]:
        """Read the values of a topic from its start, for at most so many seconds."""
        group = {"group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
        consumer = Consumer({**_QUIET, **group, "bootstrap.servers": self.address})
        try:
            consumer.subscribe([topic])
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0:
                message = consumer.poll(min(left, 0.5))
                if message is not None and message.error() is None:
                    yield message.value() or b""
        finally:
            consumer.close()

    def flush(self) -> None:
        """Wait until what was sent has arrived."""
        self._producer.flush(_SECONDS)
