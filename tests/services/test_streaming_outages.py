"""Streaming pipelines whose broker goes away and comes back, by the real command."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.services.kafka import KafkaCluster
from tests.services.require import ServiceMissingError, missing
from tests.services.test_streaming_kafka import BROKEN, CLIENTS, Pipeline, numbered
from tests.support.processes import wait_until


@pytest.fixture(scope="module")
def mortal_kafka() -> Iterator[KafkaCluster]:
    """A broker that tests may end and suspend; they start it again."""
    try:
        with KafkaCluster() as cluster:
            yield cluster
    except ServiceMissingError as error:
        missing(str(error))


def told(pipeline: Pipeline, words: str, times: int) -> bool:
    """Whether the source has told something of the cluster so often."""
    return pipeline.log().count(f"read: {pipeline.kafka.bootstrap} {words}") == times


def committed(pipeline: Pipeline, offset: int) -> bool:
    return pipeline.committed() == offset


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_an_outage_does_not_end_the_run(tmp_path: Path, mortal_kafka: KafkaCluster, client: str, delivery: str) -> None:
    """The broker is killed, and later suspended; a message that comes back from it is a dead letter."""
    if client == "confluent":
        pytest.importorskip("confluent_kafka")
    kafka = mortal_kafka
    pipeline = Pipeline(tmp_path / "shop", kafka)
    source, sink, letters = kafka.create_topic(), kafka.create_topic(), kafka.create_topic()
    kafka.produce(source, numbered(4))
    pipeline.keys(
        delivery=delivery,
        startup_timeout=1,
        retry_config={"retries": 0},
        checkpoint_interval=0.2,
        dead_letter={"topic": letters},
    )
    pipeline.source(source, client=client, session_seconds=6)
    pipeline.project.block("broken", BROKEN)
    pipeline.sink(sink, client=client)
    outages: list[tuple[Callable[[], None], Callable[[], None], int]] = [
        (lambda: kafka.kill(1), lambda: kafka.start(1), 10),
        (lambda: kafka.stop(1), lambda: kafka.cont(1), 13),
    ]
    running = pipeline.start()
    try:
        wait_until(partial(committed, pipeline, 4), "the first messages", 60)
        sent = 4
        for number, (begin, end, count) in enumerate(outages, 1):
            begin()
            try:
                wait_until(partial(told, pipeline, "does not", number), "what is told of the outage", 60)
            finally:
                end()
            kafka.produce(source, numbered(count)[sent:])
            sent = count
            wait_until(partial(committed, pipeline, count), "the others", 120)
            wait_until(partial(told, pipeline, "answers again", number), "what is told of its end", 60)
        running.signal(signal.SIGTERM)
        running.finish().expect(0)
    finally:
        if running.process.poll() is None:
            running.kill()
    ids = [value["id"] for value in pipeline.values(sink)]
    assert set(ids) == set(range(13)) - {5}
    if delivery == "exactly-once":
        assert len(ids) == 12
