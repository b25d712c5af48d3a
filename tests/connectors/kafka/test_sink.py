"""Kafka sinks that deliver at least once, on a cluster in memory."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from streamline.connectors.kafka import stuck_producer
from streamline.connectors.kafka.client import KafkaError, Unavailable
from streamline.errors import StreamlineError
from streamline.flow.items import BadRecord, MessageBatch
from tests.connectors.kafka.fake import FakeCluster
from tests.connectors.kafka.sinks import at, origin, plain, read, running
from tests.connectors.singer.running import until

pytestmark = pytest.mark.anyio

NO_ANSWER = Unavailable("no broker answers", kafka_code="_TRANSPORT", transient=True)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster()
    cluster.create("out")
    return cluster


def values(cluster: FakeCluster, topic: str = "out") -> list[bytes | None]:
    return [record.value for record in cluster.records(topic)]


async def test_what_is_sent_arrives_in_order_and_is_proven_though_the_sink_stays_open(cluster: FakeCluster) -> None:
    async with running(plain(cluster)) as reports:
        for number in range(1, 6):
            await reports.sink.send("load", [MessageBatch("in", [{"a": number}]), at(number, p0=number)])
        await reports.until_proven(5)
        assert values(cluster) == [b'{"a":%d}' % number for number in range(1, 6)]
    assert cluster.producers[0].closed


async def test_a_position_without_messages_is_proven(cluster: FakeCluster) -> None:
    async with running(plain(cluster)) as reports:
        await reports.sink.send("load", [MessageBatch("in", []), at(1, p0=1)])
        await reports.until_proven(1)
    assert values(cluster) == []


async def test_while_no_broker_answers_it_waits_proves_nothing_and_says_so_once(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamline.connectors.kafka.sink_outages.SILENCE_SECONDS", 0.0)
    notes: list[tuple[str, str]] = []
    cluster.stuck = True
    more = {"note": lambda message, level: notes.append((message, level))}
    async with running(plain(cluster, more=more)) as reports:
        await reports.sink.send("load", [read(origin(value=b"1")), at(1, p0=1)])
        await until(lambda: notes and cluster.calls.count("flush") > 3)
        assert reports.proven == {}
        cluster.stuck = False
        await reports.until_proven(1)
    assert [level for _, level in notes] == ["WARNING", "WARNING"]


async def test_case_25_a_message_that_is_too_large_is_refused_and_the_others_arrive_in_order(
    cluster: FakeCluster,
) -> None:
    cluster.known["out"].config["max.message.bytes"] = "20000"
    batch = read(*(origin(number, b"x" * (30_000 if number == 4 else 20), key=b"k") for number in range(10)))
    async with running(plain(cluster)) as reports:
        await reports.sink.send("load", [batch, at(1, p0=10)])
        await reports.until_proven(1)
    assert cluster.producers[0].options.batch_bytes == 20_000
    assert [len(value or b"") for value in values(cluster)] == [20] * 9
    (bad,) = reports.refused
    assert (bad.stage, bad.sink, bad.origin, bad.stream) == (
        "export",
        "export",
        origin(4, b"x" * 30_000, key=b"k"),
        "in",
    )
    assert bad.record == b"x" * 30_000


async def test_a_limit_that_was_raised_meanwhile_is_seen_before_a_message_is_refused(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamline.connectors.kafka.target_topics.REFRESH_SECONDS", 0.0)
    cluster.known["out"].config["max.message.bytes"] = "100"
    async with running(plain(cluster)) as reports:
        await reports.sink.send("load", [read(origin(value=b"1")), at(1, p0=1)])
        await reports.until_proven(1)
        cluster.known["out"].config["max.message.bytes"] = "1000"
        await reports.sink.send("load", [read(origin(value=b"x" * 200)), at(2, p0=2)])
        await reports.until_proven(2)
    assert reports.refused == []
    assert len(values(cluster)) == 2


async def test_whether_a_compressed_message_is_too_large_only_the_broker_says(cluster: FakeCluster) -> None:
    cluster.known["out"].config["max.message.bytes"] = "100"
    cluster.refuse = lambda message: "MSG_SIZE_TOO_LARGE" if message.key == b"big" else None
    batch = read(origin(1, b"x" * 900), origin(2, b"x" * 900, key=b"big"))
    async with running(plain(cluster, compression="gzip")) as reports:
        await reports.sink.send("load", [batch, at(1, p0=2)])
        await reports.until_proven(1)
    assert len(values(cluster)) == 1
    assert [each.origin.offset for each in reports.refused if each.origin] == [2]


async def test_a_compacted_topic_takes_no_message_without_a_key(cluster: FakeCluster) -> None:
    cluster.known["out"].config["cleanup.policy"] = "compact"
    async with running(plain(cluster)) as reports:
        await reports.sink.send("load", [read(origin(1, b"1", key=b"k"), origin(2, b"2")), at(1, p0=3)])
        await reports.until_proven(1)
    assert values(cluster) == [b"1"]
    assert len(reports.refused) == 1


async def test_a_topic_that_is_no_longer_compacted_takes_them(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamline.connectors.kafka.target_topics.REFRESH_SECONDS", 0.0)
    cluster.known["out"].config["cleanup.policy"] = "compact"
    async with running(plain(cluster)) as reports:
        await reports.sink.send("load", [read(origin(1, b"1", key=b"k")), at(1, p0=2)])
        await reports.until_proven(1)
        cluster.known["out"].config["cleanup.policy"] = "delete"
        await reports.sink.send("load", [read(origin(2, b"2")), at(2, p0=3)])
        await reports.until_proven(2)
    assert values(cluster) == [b"1", b"2"]


async def test_data_that_cannot_be_encoded_is_refused_and_the_others_arrive(cluster: FakeCluster) -> None:
    async with running(plain(cluster)) as reports:
        await reports.sink.send("load", [MessageBatch("in", [{"a": 1}, {"a": object()}, {"a": 3}]), at(1, p0=3)])
        await reports.until_proven(1)
    assert values(cluster) == [b'{"a":1}', b'{"a":3}']
    (bad,) = reports.refused
    assert (bad.origin, bad.form) == (None, "text")


async def test_a_topic_that_a_message_names_and_does_not_exist_is_its_own_fault(cluster: FakeCluster) -> None:
    cluster.create("other")
    data: list[Any] = [{"data": name, "metadata": {"dest_topic": name}} for name in ("other", "nowhere", "no/name")]
    async with running(plain(cluster)) as reports:
        await reports.sink.send("load", [MessageBatch("in", data), at(1, p0=3)])
        await reports.until_proven(1)
    assert values(cluster, "other") == [b'"other"']
    assert len(reports.refused) == 2


async def test_if_refusing_raises_the_sink_fails_and_nothing_after_the_message_is_delivered(
    cluster: FakeCluster,
) -> None:
    def stop(source: str, records: list[BadRecord]) -> None:
        raise StreamlineError("stop", code="record.refused")

    async with running(plain(cluster)) as reports:
        reports.sink.refused = stop  # type: ignore[assignment]
        await reports.sink.send("load", [MessageBatch("in", [{"a": 1}, object(), {"a": 3}]), at(1, p0=3)])
        await until(lambda: reports.failures)
    assert [getattr(error, "code", None) for error in reports.failures] == ["record.refused"]
    assert b'{"a":3}' not in values(cluster)
    assert reports.proven == {}


async def failure(cluster: FakeCluster, **settings: Any) -> StreamlineError:
    """How a sink fails that is sent one message."""
    async with running(plain(cluster, **settings)) as reports:
        await reports.sink.send("load", [read(origin(value=b"1")), at(1, p0=1)])
        await until(lambda: reports.failures)
        with pytest.raises(StreamlineError):
            await reports.sink.send("load", [at(2)])
        await reports.sink.close()
    assert reports.proven == {}
    assert reports.refused == []
    (error,) = reports.failures
    assert isinstance(error, StreamlineError)
    return error


async def test_case_34_a_topic_that_does_not_exist_is_an_error_within_the_startup_timeout(cluster: FakeCluster) -> None:
    error = await failure(cluster, topic="nowhere")
    assert error.code == "kafka.topic_missing"
    assert "nowhere" in error.message
    assert (await failure(cluster, topic="{stream}-nowhere")).code == "kafka.topic_missing"


async def test_a_topic_that_is_created_within_the_startup_timeout_is_written_to(cluster: FakeCluster) -> None:
    async with running(plain(cluster, topic="late", more={"startup_timeout": 20.0})) as reports:
        await reports.sink.send("load", [read(origin(value=b"1")), at(1, p0=1)])
        await until(lambda: "topics" in cluster.calls)
        cluster.create("late")
        await reports.until_proven(1)
    assert values(cluster, "late") == [b"1"]


@pytest.mark.parametrize("first", ["stop", "close"])
async def test_a_stop_does_not_wait_for_a_topic_that_nothing_was_to_be_written_to(
    cluster: FakeCluster, first: str
) -> None:
    async with running(plain(cluster, topic="nowhere", more={"startup_timeout": 600.0})) as reports:
        await until(lambda: "topics" in cluster.calls)
        async with anyio.create_task_group() as tasks:
            if first == "close":
                tasks.start_soon(reports.sink.close)
                await anyio.lowlevel.checkpoint()
            reports.sink.limit(600.0)
            if first == "stop":
                tasks.start_soon(reports.sink.close)
    assert reports.failures == []


async def test_a_topic_that_is_deleted_is_an_error_and_no_fault_of_messages(cluster: FakeCluster) -> None:
    cluster.refuse = lambda message: "UNKNOWN_TOPIC_OR_PART"
    assert (await failure(cluster)).code == "kafka.topic_missing"


async def test_a_missing_right_is_an_error_and_no_fault_of_messages(cluster: FakeCluster) -> None:
    cluster.refuse = lambda message: "TOPIC_AUTHORIZATION_FAILED"
    error = await failure(cluster)
    assert error.code == "kafka.not_authorized"
    assert "out" in error.message


async def test_a_cluster_that_does_not_answer_at_the_start_is_an_error_after_the_startup_timeout(
    cluster: FakeCluster,
) -> None:
    cluster.down["*"] = NO_ANSWER
    error = await failure(cluster)
    assert (error.code, error.where) == ("kafka.unreachable", "kafka.test:9092")


async def test_case_23_a_producer_that_is_unusable_ends_the_attempt(cluster: FakeCluster) -> None:
    cluster.fail("flush", KafkaError("out of order", kafka_code="OUT_OF_ORDER_SEQUENCE_NUMBER", fatal=True))
    error = await failure(cluster)
    assert isinstance(error, KafkaError)
    assert (error.code, error.fatal) == ("kafka.producer_failed", True)


async def test_a_producer_that_is_stuck_while_the_cluster_answers_ends_the_attempt(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stuck_producer, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(stuck_producer, "STUCK_SECONDS", 0.0)
    cluster.stuck = True
    error = await failure(cluster)
    assert isinstance(error, KafkaError)
    assert (error.code, error.fatal) == ("kafka.producer_failed", True)


async def test_a_cluster_that_does_not_answer_is_waited_for_however_long_a_flush_takes(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stuck_producer, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(stuck_producer, "STUCK_SECONDS", 0.0)
    async with running(plain(cluster)) as reports:
        await reports.sink.send("load", [read(origin(value=b"0")), at(1, p0=1)])
        await reports.until_proven(1)
        cluster.stuck = True
        cluster.down["topics"] = NO_ANSWER
        await reports.sink.send("load", [read(origin(1, value=b"1")), at(2, p0=2)])
        asked = cluster.calls.count("topics")
        await until(lambda: reports.failures or cluster.calls.count("topics") > asked + 3)
        cluster.stuck = False
        await reports.until_proven(2)


async def test_without_the_right_to_read_a_topics_settings_the_broker_says_what_it_refuses(
    cluster: FakeCluster,
) -> None:
    cluster.down["topic_config"] = KafkaError("not allowed", kafka_code="TOPIC_AUTHORIZATION_FAILED")
    cluster.refuse = lambda message: "MSG_SIZE_TOO_LARGE" if message.value == b"2" else None
    async with running(plain(cluster)) as reports:
        await reports.sink.send("load", [read(origin(1, b"1"), origin(2, b"2")), at(1, p0=3)])
        await reports.until_proven(1)
    assert values(cluster) == [b"1"]
    assert len(reports.refused) == 1


async def test_who_waits_for_a_proof_need_not_wait_for_the_checkpoint(cluster: FakeCluster) -> None:
    async with running(plain(cluster, more={"checkpoint_interval": 3600.0})) as reports:
        reports.sink.hurry("load", 1)
        await reports.sink.send("load", [read(origin(value=b"1")), at(1, p0=1)])
        await reports.until_proven(1)


async def test_a_stream_that_never_pauses_is_proven_all_the_same(cluster: FakeCluster) -> None:
    async with running(plain(cluster, batch_bytes=1000, more={"checkpoint_interval": 3600.0})) as reports:
        number = 0
        while not reports.proven:
            number += 1
            await reports.sink.send("load", [read(origin(number, b"x" * 100)), at(number, p0=number)])
            await anyio.lowlevel.checkpoint()
    assert reports.failures == []
