"""What the producer of kafka-python learns of topics, and for how long. The library is a fake one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import errors

from streamline.connectors.kafka import kafka_python_producer_client as module
from streamline.connectors.kafka.client import Outgoing, ProducerOptions
from streamline.connectors.kafka.kafka_python_producer_client import KafkaPythonProducer
from tests.connectors.kafka.fake import CONNECTION


class Library:
    """Delivers to the topics that there are, and waits in vain for the others."""

    _transaction_manager = None
    _metadata = SimpleNamespace(available_partitions_for_topic=lambda topic: {0})

    def __init__(self) -> None:
        self.topics = {"out"}
        self.sent = 0
        self.waits = 0

    def partitions_for(self, topic: str) -> set[int]:
        self._wait_for(topic)
        return {0}

    def send(self, topic: str, **message: Any) -> Any:
        self._wait_for(topic)
        self.sent += 1
        return SimpleNamespace(is_done=True, exception=None)

    def append(self, place: Any, messages: Sequence[Any]) -> list[Any]:
        self.sent += len(messages)
        return []

    def _wait_for(self, topic: str) -> None:
        if topic not in self.topics:
            self.waits += 1
            raise errors.KafkaTimeoutError

    def flush(self, timeout: float) -> None:
        """Nothing waits."""


@pytest.mark.parametrize("known", [True, False])
def test_a_topic_that_is_deleted_and_created_again(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "batches_known", lambda: known)
    monkeypatch.setattr(module, "append", Library.append)
    library: Any = Library()
    producer = KafkaPythonProducer(CONNECTION, ProducerOptions(client_id="c"))
    producer._library = library
    monkeypatch.setattr(module, "keep_refreshing", lambda metadata: None)

    def topics(timeout: float, names: Collection[str]) -> set[str]:
        return library.topics.intersection(names)

    monkeypatch.setattr(producer._admin, "topics", topics)

    def produce(count: int) -> list[str]:
        """Return why messages were not delivered."""
        producer.produce_batch([Outgoing("out", b"k", b"v") for _ in range(count)])
        undelivered = None
        while undelivered is None:
            undelivered = producer.flush(1.0)
        return [each.code for each in undelivered]

    assert produce(2) == []
    library.topics.clear()
    assert produce(50) == ["UNKNOWN_TOPIC_OR_PART"] * 50
    assert library.waits < 5  # seconds, each of them
    library.topics.add("out")
    monkeypatch.setattr(module, "MISSING_SECONDS", 0.0)
    assert produce(3) == []
    assert library.sent == 5
