"""What `streamline check` says about Kafka."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamline.connectors.kafka.checks import check_sink, check_source
from streamline.connectors.kafka.client import Committed, KafkaError, Partition, Unavailable
from streamline.connectors.kafka.settings import sink_settings, source_settings
from streamline.connectors.stream_connector import StreamContext
from streamline.errors import StreamlineError
from tests.connectors.kafka.fake import FakeCluster
from tests.support.registry import registry_stub

CONTEXT = StreamContext(pipeline="clicks", block="load", root=Path("/"))


def where(*path: str) -> str:
    return "kafka.yaml:" + ".".join(path)


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster()
    for name in ("orders", "orders-2"):
        cluster.create(name, 2)
        for partition in (0, 1):
            cluster.write(name, *[b"x"] * 5, partition=partition)
    return cluster


def source(cluster: FakeCluster, **config: Any) -> str:
    settings = source_settings({"bootstrap_server": "a:1", **config}, CONTEXT, where)
    return check_source(settings, cluster, CONTEXT, where)


def sink(cluster: FakeCluster, **config: Any) -> str:
    return check_sink(sink_settings({"bootstrap_server": "a:1", **config}, CONTEXT, where), cluster, where)


def test_a_group_that_has_read_nothing(cluster: FakeCluster) -> None:
    assert source(cluster, topic="orders") == ("1 topic, 2 partitions; consumer group clicks has not read them yet")


def test_a_cluster_that_has_had_no_group_yet(cluster: FakeCluster) -> None:
    not_yet = KafkaError("not the coordinator", kafka_code="NOT_COORDINATOR", transient=True)
    cluster.fail("group_offsets", not_yet, times=2)
    assert source(cluster, topic="orders")
    assert cluster.calls.count("group_offsets") == 3


def test_how_far_a_group_is_behind(cluster: FakeCluster) -> None:
    offsets = {Partition("orders", 0): Committed(3), Partition("orders", 1): Committed(1)}
    cluster.group("clicks").offsets.update(offsets)
    cluster.expire("orders", 2, partition=1)
    assert source(cluster, topic="orders").endswith("consumer group clicks is 5 messages behind")
    assert source(cluster, topics="^orders.*") == (
        "2 topics, 4 partitions; consumer group clicks is 5 messages behind, and has not begun with 2 partitions"
    )


def test_a_sink(cluster: FakeCluster) -> None:
    assert sink(cluster, topic="orders") == "topic orders, 2 partitions"
    assert "copy-{stream}" in sink(cluster, topic="copy-{stream}")


def test_a_topic_that_is_not_there_and_one_that_is_nearly_called_so(cluster: FakeCluster) -> None:
    for check in (source, sink):
        with pytest.raises(StreamlineError) as caught:
            check(cluster, topic="order")
        assert (caught.value.code, caught.value.where) == ("kafka.topic_missing", "kafka.yaml:topic")
        assert "'orders'" in (caught.value.hint or "")


def test_a_right_that_is_missing_is_named(cluster: FakeCluster) -> None:
    cluster.fail("group_offsets", KafkaError("no", kafka_code="GROUP_AUTHORIZATION_FAILED"))
    with pytest.raises(StreamlineError) as caught:
        source(cluster, topic="orders")
    assert caught.value.code == "kafka.not_authorized"


def test_the_schema_registry_is_asked(cluster: FakeCluster) -> None:
    with registry_stub() as stub:
        serde = {"serialization_method": "AVRO", "schema_registry_url": stub.url}
        assert source(cluster, topic="orders", serde_config=serde)
        assert sink(cluster, topic="orders", serde_config=serde)
        assert stub.requests == ["GET /subjects"] * 2
        stub.credentials = "me:secret"
        for check in (source, sink):
            with pytest.raises(StreamlineError) as caught:
                check(cluster, topic="orders", serde_config=serde)
            assert caught.value.code == "registry.denied"


def test_a_cluster_that_does_not_answer(cluster: FakeCluster) -> None:
    for check in (source, sink):
        cluster.fail("topics", Unavailable("Local: Broker transport failure", transient=True))
        with pytest.raises(StreamlineError) as caught:
            check(cluster, topic="orders")
        assert caught.value.code == "kafka.unreachable"
        assert caught.value.where == "kafka.yaml:bootstrap_server"
        assert "a:1" in caught.value.message
        assert "Local:" not in caught.value.message
