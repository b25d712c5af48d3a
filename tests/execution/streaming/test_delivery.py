"""What a streaming pipeline guarantees, and what it refuses to promise."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.errors import ConfigError
from streamline.execution.delivery import Grade
from tests.execution.streaming.conftest import Stream


@pytest.mark.parametrize(
    ("source", "sink", "grade", "better"),
    [
        ({"cluster": "c"}, {"cluster": "c"}, Grade.AT_LEAST_ONCE, "delivery: exactly-once"),
        ({}, {"cluster": "c"}, Grade.AT_LEAST_ONCE, "a source on export's Kafka cluster, and delivery: exactly-once"),
        ({}, {}, Grade.AT_LEAST_ONCE, "a sink that replaces by key"),
        ({}, {"replaces": True}, Grade.EFFECTIVELY_ONCE, None),
        (
            {"replays": False},
            {"replaces": True},
            Grade.AT_MOST_ONCE,
            "a source that can be read again, such as a Kafka topic",
        ),
    ],
)
def test_the_grade_of_an_edge(
    stream: Stream, source: dict[str, Any], sink: dict[str, Any], grade: Grade, better: str | None
) -> None:
    stream.source(**source)
    stream.sink(**sink)
    delivery = stream.plan().deliveries["load", "export"]
    assert (delivery.grade, delivery.better) == (grade, better)


def test_exactly_once_within_a_cluster(stream: Stream) -> None:
    stream.keys(delivery="exactly-once", on_error="stop")
    stream.source(cluster="c")
    stream.sink(cluster="c")
    assert stream.plan().deliveries["load", "export"].grade == Grade.EXACTLY_ONCE


@pytest.mark.parametrize(
    ("on_error", "source", "sink"),
    [
        ("stop", "c", "d"),
        ("stop", "c", None),
        ("stop", None, "c"),
        ("dead-letter", "c", "c"),
    ],
)
def test_exactly_once_that_cannot_be_kept(stream: Stream, on_error: str, source: str | None, sink: str | None) -> None:
    stream.keys(delivery="exactly-once", on_error=on_error)
    stream.source(cluster=source)
    stream.sink(cluster=sink)
    with pytest.raises(ConfigError) as caught:
        stream.plan()
    assert caught.value.code == "delivery.impossible"
    assert caught.value.where == stream.model().yaml.where(("delivery",))


def test_exactly_once_needs_one_client_library(stream: Stream) -> None:
    stream.keys(delivery="exactly-once", on_error="stop")
    stream.source(cluster="c", client="kafka-python")
    stream.sink(cluster="c", client="confluent")
    with pytest.raises(ConfigError) as caught:
        stream.plan()
    assert caught.value.code == "delivery.impossible"
    assert "kafka-python" in caught.value.message
