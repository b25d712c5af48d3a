"""Kafka sinks that deliver exactly once, on a cluster in memory."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from streamline.connectors.kafka.client import KafkaError, NotMember, Unavailable
from streamline.errors import StreamlineError
from streamline.flow.items import BadRecord, MessageBatch
from tests.connectors.kafka.fake import FakeCluster
from tests.connectors.kafka.sinks import Owner, at, destination, letter, origin, read, running, transactional
from tests.connectors.singer.running import until

pytestmark = pytest.mark.anyio

LATE = Unavailable("no answer", kafka_code="_TIMED_OUT", transient=True)
FENCED = KafkaError("fenced", kafka_code="_FENCED", fenced=True, fatal=True)
NOT_MEMBER = NotMember("illegal generation", kafka_code="ILLEGAL_GENERATION", transient=True)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamline.connectors.kafka.transactions.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("streamline.connectors.kafka.sink_outages.RETRY_SECONDS", 0.01)


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster()
    for topic in ("in", "out", "letters"):
        cluster.create(topic, 2)
    return cluster


def values(cluster: FakeCluster, topic: str = "out") -> list[bytes | None]:
    return [record.value for record in cluster.records(topic)]


def ended(cluster: FakeCluster) -> list[str]:
    """How the transactions of all producers ended."""
    return [each for producer in cluster.producers for each in producer.transactions]


async def test_messages_letters_and_offsets_are_committed_together(cluster: FakeCluster) -> None:
    sink = transactional(cluster, {"load": Owner(cluster)}, letters="letters", more={"checkpoint_interval": 3600.0})
    bad = BadRecord("in", b"2", "bad", "transform", origin=origin(2, b"2", key=b"k"))
    async with running(sink) as reports:
        await sink.send("load", [read(origin(1, b"1")), at(1, p0=2)])
        await until(lambda: "produce_batch" in cluster.calls)
        sink.dead_letters("load", [letter(bad)])
        await sink.send("load", [read(origin(3, b"3")), at(2, p0=4)])
        assert cluster.offset("g", "in") is None
        sink.hurry("load", 2)
        await reports.until_proven(2)
    assert values(cluster) == [b"1", b"3"]
    (kept,) = cluster.records("letters")
    assert (kept.key, kept.value) == (b"k", b"2")
    assert cluster.offset("g", "in") == 4
    assert ended(cluster) == ["commit"]


async def test_offsets_are_committed_though_nothing_was_written(cluster: FakeCluster) -> None:
    sink = transactional(cluster, {"load": Owner(cluster)})
    async with running(sink) as reports:
        await sink.send("load", [at(1, p0=5)])
        await reports.until_proven(1)
    assert cluster.offset("g", "in") == 5
    assert cluster.producers[0].options.transactional_id == "streamline.p.folder.0"


async def test_several_blocks_and_sources_share_one_transaction(cluster: FakeCluster) -> None:
    cluster.create("more")
    owners = {"a": Owner(cluster, 0), "b": Owner(cluster, 1)}
    blocks = [destination("one"), destination("two", "more")]
    sink = transactional(cluster, owners, destinations=blocks, more={"checkpoint_interval": 0.5})
    async with running(sink) as reports:
        await until(lambda: cluster.producers)
        await sink.send(
            "a", [MessageBatch("in", [1], sink="one"), MessageBatch("in", [2], sink="two"), at(1, "a", p0=1)]
        )
        await sink.send("b", [MessageBatch("in", [3], sink="two"), at(1, "b", p1=1)])
        await reports.until_proven(1, "a")
        await reports.until_proven(1, "b")
    assert values(cluster) == [b"1"]
    assert values(cluster, "more") == [b"2", b"3"]
    assert (cluster.offset("g", "in", 0), cluster.offset("g", "in", 1)) == (1, 1)


async def test_messages_behind_the_last_position_are_never_committed(cluster: FakeCluster) -> None:
    sink = transactional(cluster, {"load": Owner(cluster)})
    async with running(sink) as reports:
        await sink.send("load", [read(origin(1, b"1")), at(1, p0=2), read(origin(2, b"2"))])
        await sink.source_ended("load")
        await sink.close()
        assert reports.proven == {"load": 1}
    assert values(cluster) == [b"1"]
    assert cluster.offset("g", "in") == 2


async def test_messages_that_need_more_room_than_there_is_are_taken_up_to_their_position(cluster: FakeCluster) -> None:
    sink = transactional(cluster, {"load": Owner(cluster)}, batch_bytes=1000)
    async with running(sink) as reports:
        for number in range(20):
            await sink.send("load", [read(origin(number, b"x" * 500))])
        await sink.send("load", [at(1, p0=20)])
        await reports.until_proven(1)
    assert len(values(cluster)) == 20
    assert ended(cluster) == ["commit"]


async def test_case_25_a_refused_message_becomes_a_dead_letter_of_the_same_transaction(cluster: FakeCluster) -> None:
    cluster.refuse = lambda message: "INVALID_TIMESTAMP" if message.topic == "out" and message.value == b"4" else None
    sink = transactional(cluster, {"load": Owner(cluster)}, letters="letters")
    async with running(sink) as reports:
        await sink.send("load", [read(*(origin(each, b"%d" % each, key=b"k") for each in range(10))), at(1, p0=10)])
        await reports.until_proven(1)
    assert values(cluster) == [b"%d" % each for each in range(10) if each != 4]
    assert [each.origin.offset for each in reports.refused if each.origin] == [4]
    assert values(cluster, "letters") == [b"4"]
    assert cluster.offset("g", "in") == 10
    assert ended(cluster).count("commit") == 1


async def test_what_cannot_be_encoded_becomes_a_dead_letter_of_the_same_transaction(cluster: FakeCluster) -> None:
    sink = transactional(cluster, {"load": Owner(cluster)}, letters="letters")
    async with running(sink) as reports:
        await sink.send("load", [MessageBatch("in", [1, object()], [origin(1), origin(2, b"2")]), at(1, p0=3)])
        await reports.until_proven(1)
    assert values(cluster) == [b"1"]
    assert values(cluster, "letters") == [b"2"]
    assert ended(cluster) == ["commit"]


async def test_case_25_a_letter_that_its_topic_refuses_is_kept_elsewhere_before_the_commit(
    cluster: FakeCluster,
) -> None:
    cluster.known["letters"].config["max.message.bytes"] = "1000"
    cluster.refuse = lambda message: "INVALID_RECORD" if message.topic == "letters" else None
    sink = transactional(cluster, {"load": Owner(cluster)}, letters="letters")
    kept: list[int | None] = []

    def keep(letters: Any) -> None:
        assert cluster.offset("g", "in") is None
        kept.extend(each.offset for each in letters)

    sink.letters_refused = keep
    async with running(sink) as reports:
        large, odd = origin(1, b"x" * 2000), origin(2, b"2")
        sink.dead_letters("load", [letter(BadRecord("in", b"", "e", "t", origin=each)) for each in (large, odd)])
        await sink.send("load", [read(origin(3, b"3")), at(1, p0=4)])
        await reports.until_proven(1)
    assert kept == [1, 2]
    assert values(cluster) == [b"3"]


async def test_on_error_stop_commits_nothing_of_the_transaction(cluster: FakeCluster) -> None:
    def stop(source: str, records: Any) -> None:
        raise StreamlineError("stop", code="record.refused")

    sink = transactional(cluster, {"load": Owner(cluster)})
    async with running(sink) as reports:
        sink.refused = stop
        await sink.send("load", [MessageBatch("in", [1, object(), 3]), at(1, p0=3)])
        await until(lambda: reports.failures)
    assert values(cluster) == []
    assert cluster.offset("g", "in") is None


async def test_case_20_a_failed_sink_aborts_its_transaction(cluster: FakeCluster) -> None:
    cluster.down["send_offsets"] = KafkaError("no", kafka_code="GROUP_AUTHORIZATION_FAILED")
    sink = transactional(cluster, {"load": Owner(cluster)})
    async with running(sink) as reports:
        await sink.send("load", [read(origin(1, b"1")), at(1, p0=2)])
        await until(lambda: reports.failures)
    assert values(cluster) == []
    assert set(ended(cluster)) == {"abort"}


async def test_send_offsets_that_hangs_has_its_producer_abandoned_and_another_started(cluster: FakeCluster) -> None:
    cluster.fail("send_offsets", KafkaError("no answer", kafka_code="_TIMED_OUT", transient=True, fatal=True))
    sink = transactional(cluster, {"load": Owner(cluster)})
    async with running(sink) as reports:
        await sink.send("load", [read(origin(1, b"1")), at(1, p0=2)])
        await reports.until_proven(1)
    assert values(cluster) == [b"1"]
    first, second = cluster.producers
    assert first.closed
    assert first.options.transactional_id == second.options.transactional_id
    assert cluster.calls.count("init_transactions") == 2


async def test_a_commit_that_is_not_answered_is_asked_for_again(cluster: FakeCluster) -> None:
    cluster.fail("commit_transaction", LATE, times=3)
    sink = transactional(cluster, {"load": Owner(cluster)})
    async with running(sink) as reports:
        await sink.send("load", [read(origin(1, b"1")), at(1, p0=2)])
        await reports.until_proven(1)
    assert values(cluster) == [b"1"]
    assert ended(cluster) == ["commit"]


async def test_whether_a_transaction_was_committed_is_never_assumed(cluster: FakeCluster) -> None:
    cluster.fail("commit_transaction", LATE, times=2)
    cluster.fail("commit_transaction", KafkaError("unusable", kafka_code="_FATAL", fatal=True))
    sink = transactional(cluster, {"load": Owner(cluster)})
    async with running(sink) as reports:
        await sink.send("load", [read(origin(1, b"1")), at(1, p0=2)])
        await until(lambda: reports.failures)
    assert [getattr(error, "code", None) for error in reports.failures] == ["kafka.transaction_unknown"]
    assert reports.proven == {}


async def test_a_commit_that_was_refused_is_made_again_in_another_transaction(cluster: FakeCluster) -> None:
    cluster.fail("commit_transaction", KafkaError("aborted", kafka_code="INVALID_TXN_STATE"))
    sink = transactional(cluster, {"load": Owner(cluster)})
    async with running(sink) as reports:
        await sink.send("load", [read(origin(1, b"1")), at(1, p0=2)])
        await reports.until_proven(1)
    assert values(cluster) == [b"1"]
    assert ended(cluster) == ["abort", "commit"]


@pytest.mark.parametrize(
    "method", ["produce_batch", "flush", "send_offsets", "commit_transaction", "init_transactions"]
)
async def test_another_instance_that_takes_over_ends_the_sink(cluster: FakeCluster, method: str) -> None:
    cluster.down[method] = FENCED
    sink = transactional(cluster, {"load": Owner(cluster)})
    async with running(sink) as reports:
        await sink.send("load", [read(origin(1, b"1")), at(1, p0=2)])
        await until(lambda: reports.failures)
    (error,) = reports.failures
    assert isinstance(error, KafkaError)
    assert (error.code, error.fenced) == ("kafka.producer_fenced", True)
    assert len(cluster.producers) == 1


async def test_a_transaction_that_the_broker_ended_for_its_age_is_made_again(cluster: FakeCluster) -> None:
    cluster.fail("send_offsets", FENCED)
    sink = transactional(cluster, {"load": Owner(cluster)}, transaction_seconds=0.0)
    async with running(sink) as reports:
        await sink.send("load", [read(origin(1, b"1")), at(1, p0=2)])
        await reports.until_proven(1)
    assert values(cluster) == [b"1"]
    assert len(cluster.producers) == 2


async def test_a_flush_that_outlives_its_transaction_has_another_producer_try(cluster: FakeCluster) -> None:
    cluster.stuck = True
    sink = transactional(cluster, {"load": Owner(cluster)}, transaction_seconds=0.0)
    async with running(sink) as reports:
        await sink.send("load", [read(origin(1, b"1")), at(1, p0=2)])
        await until(lambda: len(cluster.producers) > 1)
        cluster.stuck = False
        await reports.until_proven(1)
    assert values(cluster) == [b"1"]
    assert cluster.producers[0].closed


async def test_case_22_a_rebalance_within_the_transaction_has_it_made_again(cluster: FakeCluster) -> None:
    owner = Owner(cluster)
    owner.errors = [NOT_MEMBER] * 3
    cluster.fail("send_offsets", NOT_MEMBER)
    sink = transactional(cluster, {"load": owner})
    async with running(sink) as reports:
        await sink.send("load", [read(origin(1, b"1")), at(1, p0=2)])
        await reports.until_proven(1)
    assert values(cluster) == [b"1"]
    assert ended(cluster)[-1] == "commit"


async def test_case_22_nothing_is_committed_of_a_partition_that_belongs_to_somebody_else(cluster: FakeCluster) -> None:
    owner = Owner(cluster, 0, 1)
    sink = transactional(cluster, {"load": owner}, more={"checkpoint_interval": 3600.0})
    async with running(sink) as reports:
        await sink.send("load", [read(origin(1, b"1"), origin(8, b"8", partition=1)), at(1, p0=2, p1=9)])
        await until(lambda: "produce_batch" in cluster.calls)
        owner.consumer.owned -= {each for each in owner.consumer.owned if each.partition == 1}
        sink.forget("load", ["in/1"], 2)
        await sink.send("load", [read(origin(2, b"2"), origin(9, b"9", partition=1)), at(2, p0=3, p1=10)])
        sink.hurry("load", 3)
        await sink.send("load", [read(origin(3, b"3")), at(3, p0=4)])
        await reports.until_proven(3)
        # It comes back, and is read from where it was committed.
        owner.consumer.owned.add(next(iter(owner.consumer.owned))._replace(partition=1))
        sink.hurry("load", 4)
        await sink.send("load", [read(origin(8, b"8", partition=1)), at(4, p0=4, p1=9)])
        await reports.until_proven(4)
    assert values(cluster) == [b"1", b"2", b"3", b"8"]
    assert (cluster.offset("g", "in", 0), cluster.offset("g", "in", 1)) == (4, 9)
    assert ended(cluster)[0] == "abort"
    assert set(ended(cluster)[1:]) == {"commit"}


async def test_case_22_no_letter_is_written_of_a_partition_that_belongs_to_somebody_else(cluster: FakeCluster) -> None:
    bad = [BadRecord("in", b"9", "bad", "see", origin=origin(9, b"9", key=b"k", partition=number)) for number in (0, 1)]
    sink = transactional(cluster, {"load": Owner(cluster)}, letters="letters", more={"checkpoint_interval": 3600.0})
    async with running(sink) as reports:
        sink.forget("load", ["in/1"], 1)
        sink.dead_letters("load", [letter(each) for each in bad])
        sink.hurry("load", 1)
        await sink.send("load", [at(1, p0=10, p1=10)])
        await reports.until_proven(1)
    (kept,) = cluster.records("letters")
    assert dict(kept.headers or ())["streamline.partition"] == b"0"
    assert (cluster.offset("g", "in", 0), cluster.offset("g", "in", 1)) == (10, None)


async def test_case_22_messages_without_an_origin_end_the_attempt_when_a_partition_is_lost(
    cluster: FakeCluster,
) -> None:
    sink = transactional(cluster, {"load": Owner(cluster, 0, 1)}, more={"checkpoint_interval": 3600.0})
    async with running(sink) as reports:
        await sink.send("load", [MessageBatch("in", [1]), at(1, p0=2, p1=9)])
        await until(lambda: "produce_batch" in cluster.calls)
        sink.forget("load", ["in/1"], 1)
        sink.hurry("load", 1)
        await until(lambda: reports.failures)
    assert [getattr(error, "code", None) for error in reports.failures] == ["kafka.partitions_lost"]
    assert values(cluster) == []


async def test_what_is_proven_is_not_touched_by_a_partition_that_is_given_away(cluster: FakeCluster) -> None:
    sink = transactional(cluster, {"load": Owner(cluster)})
    async with running(sink) as reports:
        await sink.send("load", [MessageBatch("in", [1]), at(1, p0=2)])
        await reports.until_proven(1)
        sink.forget("load", ["in/0"], 1)
        await sink.send("load", [MessageBatch("in", [2]), at(2, p0=3)])
        await reports.until_proven(2)
    assert values(cluster) == [b"1", b"2"]


async def test_a_cancelled_sink_aborts_and_frees_everything(cluster: FakeCluster) -> None:
    sink = transactional(cluster, {"load": Owner(cluster)}, more={"checkpoint_interval": 3600.0})
    async with running(sink):
        await sink.send("load", [read(origin(1, b"1")), at(1, p0=2)])
        await until(lambda: "produce_batch" in cluster.calls)
        await anyio.lowlevel.checkpoint()
    assert ended(cluster) == ["abort"]
    assert cluster.producers[0].closed
