"""A Kafka source on a cluster in memory. Numbers of cases are those of the streaming cases it was built against."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
import pytest

from streamline.connectors.kafka import consumer_thread, membership
from streamline.connectors.kafka.client import Committed, KafkaError, NotMember, OffsetLost, Partition, Unavailable
from streamline.connectors.kafka.settings import StartOffset
from streamline.connectors.kafka.source import KafkaSource
from streamline.connectors.stream_connector import PositionLost
from streamline.errors import StreamlineError
from streamline.flow.items import Position
from tests.connectors.kafka.fake import FakeCluster
from tests.connectors.kafka.running import (
    Running,
    context,
    member,
    numbers,
    partitions,
    running,
    settings,
    until_offset,
)
from tests.connectors.singer.running import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster()
    cluster.create("t", 2)
    return cluster


def code_of(run: Running) -> str | None:
    return run.error.code if isinstance(run.error, StreamlineError) else None


def lost_code_of(run: Running) -> str | None:
    """The code of an error that ends the run: no other attempt follows it."""
    return run.error.code if isinstance(run.error, PositionLost) else None


def plain(parts: Any) -> dict[str, int]:
    """The offsets in parts."""
    return {key: msgspec.json.decode(value)["offset"] for key, value in parts.items()}


# -- what it gives


async def test_a_poll_is_one_batch_for_each_topic_and_one_position_of_all_partitions(cluster: FakeCluster) -> None:
    cluster.create("u")
    cluster.write("t", b"a", None, key=b"k", headers=[("h", b"1")], time=5)
    cluster.write("t", b"b", partition=1)
    cluster.write("u", b"")
    async with running(cluster, topics=("t", "u"), until_caught_up=True) as run:
        await run.ended.wait()
        assert run.error is None
        first, second, position = run.taken.items
        assert [first.stream, first.data, second.stream, second.data] == ["t", [b"a", None, b"b"], "u", [b""]]  # type: ignore[union-attr]
        assert isinstance(position, Position)
        assert plain(position.parts) == {"t/0": 2, "t/1": 1, "u/0": 1}
        assert (run.taken.messages[0].key, run.taken.messages[0].headers, run.taken.messages[0].time) == (
            b"k",
            [("h", b"1")],
            5,
        )


async def test_what_is_committed_is_where_the_next_run_begins(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 3))
    async with running(cluster, until_caught_up=True) as run:
        await run.ended.wait()
        assert plain(await run.commit()) == {"t/0": 3, "t/1": 0}
    cluster.write("t", *numbers(4, 5))
    async with running(cluster, until_caught_up=True) as run:
        await run.ended.wait()
        assert run.taken.values == numbers(4, 5)


async def test_case_07_the_thread_polls_on_with_everything_paused_while_nobody_takes(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow transformer costs no membership."""
    monkeypatch.setattr(consumer_thread, "FULL_SECONDS", 0.01)
    monkeypatch.setattr(consumer_thread, "POLL_MESSAGES", 1)
    cluster.write("t", *numbers(1, 9))
    async with running(cluster) as run:
        run.taken.close_gate()
        consumer = (await made(cluster))[0]
        await until(lambda: consumer.paused == set(partitions(0, 1)))
        polls = cluster.calls.count("poll_batch")
        await until(lambda: cluster.calls.count("poll_batch") > polls + 3)
        assert len(run.taken.values) == 1
        run.taken.gate.set()
        await until(lambda: run.taken.values == numbers(1, 9))


async def test_a_stop_ends_it_at_a_position_and_what_waits_is_not_given(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_thread, "POLL_MESSAGES", 1)
    cluster.write("t", *numbers(1, 9))
    async with running(cluster) as run:
        run.taken.close_gate()
        await until(lambda: run.taken.items)
        run.source.stop("enough")
        run.taken.gate.set()
        await run.ended.wait()
        assert run.source.stopped == "enough"
        assert run.taken.values == numbers(1, 1)
        assert plain(await run.commit())["t/0"] == 1
    assert cluster.offset("g", "t") == 1


async def test_lag_is_known_for_each_partition(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_thread, "LAG_SECONDS", 0.01)
    monkeypatch.setattr(consumer_thread, "POLL_MESSAGES", 1)
    cluster.write("t", *numbers(1, 9))
    async with running(cluster) as run:
        run.taken.close_gate()
        await until(lambda: {lag.name: lag.behind for lag in run.source.lag()} == {"t/0": 6, "t/1": 0})
        run.taken.gate.set()
        await until(lambda: all(lag.behind == 0 for lag in run.source.lag()))


async def made(cluster: FakeCluster, count: int = 1) -> Any:
    """The consumers, once there are so many and each owns something."""
    await until(lambda: len(cluster.consumers) >= count and all(each.owned for each in cluster.consumers))
    return cluster.consumers


# -- membership


async def test_case_01_nothing_is_committed_for_a_partition_after_its_revoke_returned(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 3))
    cluster.write("t", *numbers(11, 13), partition=1)
    cluster.group("g").assign({member(): partitions(0, 1)})
    async with running(cluster) as run:
        run.source.give_up = slow_give_up  # its sinks prove nothing in time
        await until(lambda: len(run.taken.values) == 6)
        late = run.taken.parts
        cluster.group("g").assign({member(): partitions(1)})
        await until(lambda: cluster.consumers[0].owned == set(partitions(1)))
        assert plain(await run.commit(late)) == {"t/1": 3}
        assert cluster.offset("g", "t", 0) == 0  # where it began
        # Also after it has come back: then the messages are given again.
        cluster.group("g").assign({member(): partitions(0, 1)})
        await until(lambda: run.taken.values.count(b"3") == 2)
        assert plain(await run.commit(late)) == {"t/1": 3}


async def slow_give_up(keys: object, within: float) -> None:
    pass


async def test_case_03_what_is_proven_while_it_drains_is_committed_before_the_revoke_returns(
    cluster: FakeCluster,
) -> None:
    cluster.write("t", *numbers(1, 3))
    cluster.write("t", *numbers(11, 13), partition=1)
    cluster.group("g").assign({member(): partitions(0, 1)})
    async with running(cluster) as run:
        await until(lambda: len(run.taken.values) == 6)
        cluster.group("g").assign({member(): partitions(1), member(1): partitions(0)})
        async with running(cluster, slot=1) as other:
            await until(lambda: len(run.given_up) == 1 and cluster.consumers[1].owned)
            assert run.given_up == [({"t/0"}, 5.0)]
            cluster.write("t", *numbers(4, 5))
            await until(lambda: other.taken.values == numbers(4, 5))
            # Partition 1 is not affected.
            cluster.write("t", b"14", partition=1)
            await until(lambda: run.taken.values[-1] == b"14")
            assert plain(run.taken.parts) == {"t/1": 4}


async def test_what_waits_of_a_revoked_partition_is_dropped_and_positions_no_longer_name_it(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_thread, "POLL_MESSAGES", 2)
    for number in (0, 1):
        cluster.write("t", *numbers(10 * number + 1, 10 * number + 2), partition=number)
    cluster.group("g").assign({member(): partitions(0, 1)})
    async with running(cluster) as run:
        run.taken.close_gate()
        await until(lambda: run.taken.values == numbers(1, 2))
        await until(lambda: cluster.consumers[0].position(Partition("t", 1)) == 2)
        cluster.group("g").assign({member(): partitions(0)})
        await until(lambda: run.given_up)
        cluster.write("t", b"3")
        run.taken.gate.set()
        await until(lambda: run.taken.values == numbers(1, 3))
        assert plain(run.taken.parts) == {"t/0": 3}


async def test_case_04_a_commit_without_a_generation_is_tried_again_by_itself(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 3))
    async with running(cluster) as run:
        await until(lambda: run.taken.values)
        await until_offset(cluster, 0)
        cluster.fail("commit", NotMember("rebalance in progress", kafka_code="REBALANCE_IN_PROGRESS"))
        assert "t/0" not in await run.commit()
        await until_offset(cluster, 3)
        assert run.error is None


async def test_a_commit_that_could_not_be_made_is_made_when_it_is_closed(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 3))
    async with running(cluster) as run:
        await until(lambda: run.taken.values)
        run.source.stop("enough")
        await run.ended.wait()
        cluster.down["commit"] = Unavailable("no broker", transient=True)
        assert "t/0" not in await run.commit()
        del cluster.down["commit"]
    assert cluster.offset("g", "t") == 3


async def test_case_05_a_partition_that_does_not_move_is_reported(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_thread, "LAG_SECONDS", 0.01)
    async with running(cluster, stall_seconds=0.05) as run:
        (consumer,) = await made(cluster)
        await until(lambda: run.source.lag())
        consumer.mute = set(partitions(0))  # as a client does that has lost track of it
        cluster.write("t", b"1")
        cluster.write("t", b"2", partition=1)
        await until(lambda: run.notes.having("t/0", "not moved"))
        assert run.notes.having("t/1", "not moved") == []
        consumer.mute = set()
        await until(lambda: sorted(run.taken.values) == numbers(1, 2))
        assert len(run.notes.having("not moved")) == 1


async def test_case_06_paused_partitions_flow_again_after_they_come_back(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_thread, "FULL_SECONDS", 0.01)
    monkeypatch.setattr(consumer_thread, "POLL_MESSAGES", 1)
    cluster.write("t", *numbers(1, 9))
    cluster.group("g").assign({member(): partitions(0, 1)})
    async with running(cluster) as run:
        run.taken.close_gate()
        await until(lambda: cluster.consumers and len(cluster.consumers[0].paused) == 2)
        cluster.group("g").assign({member(): partitions(1)})
        await until(lambda: cluster.consumers[0].owned == set(partitions(1)))
        cluster.group("g").assign({member(): partitions(0, 1)})
        await until(lambda: cluster.consumers[0].owned == set(partitions(0, 1)))
        # Still nobody takes: it is paused again, though the client has forgotten that.
        await until(lambda: cluster.consumers[0].paused == set(partitions(0, 1)))
        run.taken.gate.set()
        await until(lambda: run.taken.values[-8:] == numbers(2, 9))


async def test_lost_partitions_are_fenced_at_once(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 3))
    cluster.group("g").assign({member(): partitions(0)})
    async with running(cluster) as run:
        await until(lambda: run.taken.values)
        await until_offset(cluster, 0)
        late = run.taken.parts
        cluster.consumers[0].evict(partitions(0))
        await until(lambda: len(run.taken.values) == 6)  # it came back, and is read from the group's offset on
        assert run.given_up == [({"t/0"}, 0.0)]
        assert await run.commit(late) == {}
        assert cluster.offset("g", "t") == 0


async def test_case_08_a_pattern_matches_whole_names(cluster: FakeCluster) -> None:
    for name in ("crm-1", "crm-2", "old-crm-3", "__crm"):
        cluster.create(name)
        cluster.write(name, name.encode())
    for pattern, topics in (
        ("^crm-.*", [b"crm-1", b"crm-2"]),
        ("^crm", []),
        (".*crm.*", [b"crm-1", b"crm-2", b"old-crm-3"]),
    ):
        async with running(cluster, pattern=pattern, group=pattern, until_caught_up=True) as run:
            await run.ended.wait()
            assert sorted(run.taken.values) == topics  # type: ignore[type-var]


async def test_case_09_an_offset_that_cannot_be_looked_up_now_is_looked_up_again(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 5))
    cluster.group("g").offsets[Partition("t", 0)] = Committed(2)
    stale = KafkaError("stale member epoch", kafka_code="STALE_MEMBER_EPOCH", transient=True)
    cluster.fail("committed", stale, times=2)
    async with running(cluster, offset=StartOffset(kind="latest")) as run:
        await until(lambda: run.taken.values == numbers(3, 5))


async def test_case_10_nothing_is_given_while_commits_fail_for_longer_than_the_session(cluster: FakeCluster) -> None:
    cluster.write("t", b"1")
    async with running(cluster, session_seconds=0.05) as run:
        await until(lambda: run.taken.values == [b"1"])
        await until_offset(cluster, 0)
        cluster.down["commit"] = Unavailable("no coordinator", transient=True)
        await run.commit()
        await until(lambda: run.notes.having("commits have failed"))
        cluster.write("t", b"2")
        await anyio.sleep(0.3)
        assert run.taken.values == [b"1"]
        del cluster.down["commit"]
        await until(lambda: run.taken.values == numbers(1, 2))
        assert cluster.offset("g", "t") == 1


async def test_case_11_a_static_member_that_is_replaced_fails(cluster: FakeCluster) -> None:
    async with running(cluster, group_instance_id="one") as run:
        await made(cluster)
        cluster.fail("poll_batch", KafkaError("fenced", kafka_code="FENCED_INSTANCE_ID", fenced=True))
        await run.ended.wait()
        assert code_of(run) == "kafka.replaced"
        assert "one" in str(run.error)


async def test_case_11_a_static_member_notices_that_it_was_replaced_though_it_has_nothing_to_commit(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_thread, "PROBE_SECONDS", 0.05)
    cluster.group("g").offsets[Partition("t", 0)] = Committed(0)
    async with running(cluster, group_instance_id="one") as run:
        await until_offset(cluster, 0, partition=1)
        cluster.down["commit"] = NotMember("fenced", kafka_code="FENCED_INSTANCE_ID", fenced=True)
        await run.ended.wait()
        assert code_of(run) == "kafka.replaced"


async def test_case_11_a_static_member_says_that_it_waits_for_the_one_before(cluster: FakeCluster) -> None:
    held = KafkaError("in use", kafka_code="UNRELEASED_INSTANCE_ID", transient=True)
    cluster.write("t", b"1")
    cluster.fail("poll_batch", held, times=3)
    async with running(cluster, group_instance_id="one") as run:
        await until(lambda: run.taken.values == [b"1"])
        assert len(run.notes.having("group_instance_id one")) == 1


async def test_case_11_each_process_of_a_pipeline_is_a_static_member_of_its_own(cluster: FakeCluster) -> None:
    async with running(cluster, group_instance_id="one"), running(cluster, slot=1, group_instance_id="one"):
        await until(lambda: len(cluster.consumers) == 2)
        assert {consumer.options.instance_id for consumer in cluster.consumers} == {"one", "one-1"}


async def test_it_says_that_it_waits_for_a_member_that_was_killed(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_thread, "JOIN_SECONDS", 0.01)
    cluster.group("g").assign({})
    async with running(cluster) as run:
        await until(lambda: run.notes.having("consumer group g", "15 seconds"))
        cluster.group("g").assign({member(): partitions(0, 1)})
        cluster.write("t", b"1")
        await until(lambda: run.taken.values == [b"1"])
        assert len(run.notes.having("consumer group g")) == 1


# -- topics


async def test_case_12_a_topic_that_appears_between_two_attempts_of_a_run_is_read_from_its_start(
    cluster: FakeCluster,
) -> None:
    latest, memory = StartOffset(kind="latest"), dict[str, Any]()
    cluster.write("t", b"old")
    async with running(cluster, pattern=".*", offset=latest, until_caught_up=True, memory=memory) as run:
        await run.ended.wait()
    cluster.create("u")
    cluster.write("u", b"new")
    async with running(cluster, pattern=".*", offset=latest, until_caught_up=True, memory=memory) as run:
        await run.ended.wait()
        assert run.taken.values == [b"new"]


async def test_case_12_a_topic_that_appears_is_read_from_its_start_whatever_the_offset_says(
    cluster: FakeCluster,
) -> None:
    cluster.write("t", b"old")
    async with running(cluster, pattern="t.*", offset=StartOffset(kind="latest")) as run:
        await made(cluster)
        await until_offset(cluster, 1)
        cluster.create("t2")
        cluster.write("t2", *numbers(1, 100))
        cluster.add_partitions("t", 1)
        cluster.write("t", b"new", partition=2)
        await until(lambda: len(run.taken.values) == 101)
        assert b"old" not in run.taken.values


async def test_case_12_a_partition_that_appeared_while_nothing_ran_is_read_from_its_start(cluster: FakeCluster) -> None:
    latest = StartOffset(kind="latest")
    cluster.write("t", b"old")
    async with running(cluster, offset=latest) as run:
        await until_offset(cluster, 1)
    cluster.add_partitions("t", 1)
    cluster.write("t", b"new", partition=2)
    async with running(cluster, offset=latest, until_caught_up=True) as run:
        await run.ended.wait()
        assert run.taken.values == [b"new"]


@pytest.mark.parametrize(("text", "values"), [("partitions=2", []), ("partitions=1", [b"old"]), ("", [b"old"])])
async def test_the_start_offset_counts_where_another_member_of_a_new_group_has_committed_first(
    cluster: FakeCluster, text: str, values: list[bytes]
) -> None:
    """How many partitions there were then stands beside its offsets; another program's say nothing of it."""
    cluster.write("t", b"old", partition=1)
    cluster.group("g").offsets[Partition("t", 0)] = Committed(0, text)
    async with running(cluster, offset=StartOffset(kind="latest"), until_caught_up=True) as run:
        await run.ended.wait()
        assert run.taken.values == values


async def test_case_34_a_wrong_topic_name_is_an_error_within_the_startup_timeout(cluster: FakeCluster) -> None:
    async with running(cluster, topics=("t", "tt"), startup_timeout=0.1) as run:
        await run.ended.wait()
        assert code_of(run) == "kafka.topic_missing"
        assert run.notes.having("tt")  # told at once
    cluster.delete("t")
    async with running(cluster, startup_timeout=5.0) as run:
        await until(lambda: run.notes.lines)
        cluster.create("t")
        cluster.write("t", b"1")
        await until(lambda: run.taken.values == [b"1"])


async def test_a_cluster_that_does_not_answer_is_named_at_once_and_fails_after_the_startup_timeout(
    cluster: FakeCluster,
) -> None:
    cluster.down["topics"] = Unavailable("connection refused", transient=True)
    async with running(cluster, startup_timeout=0.1) as run:
        await run.ended.wait()
        assert code_of(run) == "kafka.unreachable"
        assert len(run.notes.having("kafka.test:9092", "connection refused")) == 1


async def test_a_cluster_that_answers_late_is_read(cluster: FakeCluster) -> None:
    cluster.fail("topics", Unavailable("connection refused", transient=True), times=2)
    cluster.write("t", b"1")
    async with running(cluster) as run:
        await until(lambda: run.taken.values == [b"1"])


async def test_an_outage_while_it_runs_is_told_once_and_waited_for(cluster: FakeCluster) -> None:
    async with running(cluster) as run:
        await made(cluster)
        cluster.down["*"] = Unavailable("all brokers are down", transient=True)
        await until(lambda: run.notes.having("all brokers are down"))
        await anyio.sleep(0.2)
        cluster.down.clear()
        cluster.write("t", b"1")
        await until(lambda: run.taken.values == [b"1"])
        await until(lambda: run.notes.having("answers again"))
        assert len(run.notes.having("kafka.test:9092", "all brokers are down")) == 1
        assert len(run.notes.having("answers again")) == 1


@pytest.mark.parametrize(
    ("method", "kafka_code", "words"),
    [
        ("topics", "TOPIC_AUTHORIZATION_FAILED", ["t", "READ"]),
        ("poll_batch", "GROUP_AUTHORIZATION_FAILED", ["group g", "READ"]),
    ],
)
async def test_a_missing_right_is_named(cluster: FakeCluster, method: str, kafka_code: str, words: list[str]) -> None:
    cluster.down[method] = KafkaError("denied", kafka_code=kafka_code)
    async with running(cluster) as run:
        await run.ended.wait()
        assert code_of(run) == "kafka.not_authorized"
        assert all(word in str(run.error) for word in words)


async def test_an_error_that_does_not_pass_says_where_the_cluster_is(cluster: FakeCluster) -> None:
    refused = KafkaError("bad password", kafka_code="SASL_AUTHENTICATION_FAILED", code="kafka.authentication_failed")
    cluster.down["topics"] = refused
    async with running(cluster) as run:
        await run.ended.wait()
        assert code_of(run) == "kafka.authentication_failed"
        assert "kafka.test:9092" in str(run.error)


# -- offsets


@pytest.mark.parametrize("on_lost", ["stop", "earliest", "latest"])
async def test_case_13_an_expired_offset_counts_what_is_gone_and_what_is_left(
    cluster: FakeCluster, on_lost: str
) -> None:
    cluster.write("t", *numbers(0, 9))
    cluster.expire("t", 6)
    cluster.group("g").offsets[Partition("t", 0)] = Committed(2)
    async with running(cluster, on_offset_lost=on_lost, until_caught_up=True) as run:
        await run.ended.wait()
        if on_lost == "stop":
            assert lost_code_of(run) == "kafka.offset_lost"
            assert all(word in str(run.error) for word in ("t/0", "4 messages", "4 can"))
            assert cluster.offset("g", "t") == 2
        else:
            assert run.error is None
            assert run.taken.values == (numbers(6, 9) if on_lost == "earliest" else [])
            assert run.notes.having("4 messages", "4 can")
            await until_offset(cluster, 6 if on_lost == "earliest" else 10)


@pytest.mark.parametrize("on_lost", ["stop", "earliest", "latest"])
async def test_case_13_an_offset_that_expires_while_it_runs(cluster: FakeCluster, on_lost: str) -> None:
    cluster.write("t", *numbers(0, 1))
    async with running(cluster, on_offset_lost=on_lost) as run:
        await until(lambda: run.taken.values == numbers(0, 1))
        with cluster.lock:
            cluster.write("t", *numbers(2, 9))
            cluster.expire("t", 6)
        if on_lost == "stop":
            await run.ended.wait()
            assert lost_code_of(run) == "kafka.offset_lost"
            assert plain(await run.commit())["t/0"] == 2  # what it gave before still counts
        else:
            await until(lambda: run.notes.having("is no longer there"))
            cluster.write("t", b"10")
            last = numbers(6, 10) if on_lost == "earliest" else numbers(10, 10)
            await until(lambda: run.taken.values[-1] == b"10")
            assert set(last) <= set(run.taken.values) <= set(numbers(0, 1) + numbers(6, 10))


async def test_case_14_a_client_that_finds_its_offset_gone_finds_another_topic(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(0, 4))
    async with running(cluster, metadata_refresh=100.0) as run:
        await until(lambda: run.taken.values == numbers(0, 4))
        with cluster.lock:
            cluster.delete("t")
            cluster.create("t", 2)
            cluster.write("t", *numbers(10, 17))
            cluster.fail("poll_batch", OffsetLost("the log was truncated", Partition("t", 0), -1))
        await run.ended.wait()
        assert lost_code_of(run) == "kafka.topic_recreated"


async def test_an_offset_that_the_broker_has_after_all_is_read_on(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 2))
    cluster.fail("poll_batch", OffsetLost("out of range", Partition("t", 0), 1))
    async with running(cluster) as run:
        await until(lambda: run.taken.values and run.taken.values[-1] == b"2")
        assert run.error is None


async def test_case_14_a_topic_that_was_made_again_never_goes_on_at_the_old_number(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(0, 4))
    async with running(cluster, until_caught_up=True) as run:
        await run.ended.wait()
        await run.commit()
    cluster.delete("t")
    cluster.create("t", 2)
    cluster.write("t", *numbers(10, 17))
    async with running(cluster, until_caught_up=True) as run:
        await run.ended.wait()
        assert lost_code_of(run) == "kafka.topic_recreated"
        assert run.taken.values == []
    async with running(cluster, until_caught_up=True, on_offset_lost="earliest") as run:
        await run.ended.wait()
        assert run.taken.values == numbers(10, 17)
        await until_offset(cluster, 0)
        await run.commit()
    assert cluster.offset("g", "t") == 8


@pytest.mark.parametrize("deleted", [True, False])
async def test_case_14_offsets_that_the_cluster_has_forgotten_are_lost(cluster: FakeCluster, deleted: bool) -> None:
    """Brokers delete a group's offsets with the topic, and those of a group that is not used for long."""
    cluster.write("t", *numbers(0, 4))
    async with running(cluster, until_caught_up=True) as run:
        await run.ended.wait()
        copy = run.source.shown(await run.commit())
    del cluster.groups["g"]
    if deleted:
        cluster.delete("t")
        cluster.create("t", 2)
        cluster.write("t", *numbers(0, 7))
    latest = StartOffset(kind="latest")
    async with running(cluster, until_caught_up=True, start=copy, offset=latest) as run:
        await run.ended.wait()
        assert lost_code_of(run) == ("kafka.topic_recreated" if deleted else "kafka.offset_lost")
        assert all(f"t/{number}" in str(run.error) for number in range(2))
        assert run.taken.values == []
    async with running(cluster, until_caught_up=True, start=copy, on_offset_lost="earliest", offset=latest) as run:
        await run.ended.wait()
        assert run.taken.values == numbers(0, 7 if deleted else 4)
    async with running(cluster, until_caught_up=True, start=copy, group="another") as run:
        await run.ended.wait()
        assert run.error is None, "another group may begin as it likes"


@pytest.mark.parametrize("on_lost", ["stop", "earliest", "latest"])
async def test_case_14_a_topic_that_is_made_again_while_it_is_read(cluster: FakeCluster, on_lost: str) -> None:
    cluster.write("t", *numbers(0, 4))
    async with running(cluster, on_offset_lost=on_lost) as run:
        await until(lambda: run.taken.values == numbers(0, 4))
        late = run.taken.parts
        with cluster.lock:
            cluster.delete("t")
            cluster.create("t", 2)
            cluster.write("t", *numbers(10, 17))
        if on_lost == "stop":
            await run.ended.wait()
            assert lost_code_of(run) == "kafka.topic_recreated"
        else:
            await until(lambda: run.notes.having("created again"))
            cluster.write("t", b"18")
            expected = numbers(10, 18) if on_lost == "earliest" else [b"18"]
            await until(lambda: run.taken.values[-len(expected) :] == expected)
            assert await run.commit(late) == {}


async def test_a_topic_that_is_deleted_while_it_is_read_ends_it(cluster: FakeCluster) -> None:
    async with running(cluster) as run:
        await made(cluster)
        cluster.delete("t")
        await run.ended.wait()
        assert lost_code_of(run) == "kafka.topic_deleted"


async def test_a_foreign_text_beside_an_offset_is_no_topic_id(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 3))
    cluster.group("g").offsets[Partition("t", 0)] = Committed(1, "AgAAAZ")
    async with running(cluster, until_caught_up=True) as run:
        await run.ended.wait()
        assert run.taken.values == numbers(2, 3)


async def test_an_offset_past_the_end_is_lost_only_if_it_stays_so(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.write("t", *numbers(1, 3))
    cluster.group("g").offsets[Partition("t", 0)] = Committed(4)
    async with running(cluster) as run:
        await until(lambda: cluster.calls.count("range") > 1)
        cluster.write("t", *numbers(4, 5))  # the new leader has caught up
        await until(lambda: run.taken.values == [b"5"])
    monkeypatch.setattr(membership, "UNSURE_SECONDS", 0.0)
    cluster.group("g").offsets[Partition("t", 0)] = Committed(9)
    async with running(cluster) as run:
        await run.ended.wait()
        assert lost_code_of(run) == "kafka.offset_lost"


async def test_case_15_it_has_caught_up_behind_a_marker_and_commits_behind_it(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 5))
    cluster.mark("t")
    cluster.mark("t", partition=1, count=2)  # nothing but what compaction has left
    async with running(cluster, until_caught_up=True) as run:
        await run.ended.wait()
        assert run.error is None
        assert plain(await run.commit()) == {"t/0": 6, "t/1": 2}
        assert run.source.stopped is None


async def test_case_18_it_has_caught_up_by_position_where_a_log_begins_late_and_has_gaps(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(0, 4))
    cluster.expire("t", 3)
    cluster.mark("t", count=3)
    cluster.write("t", b"8")
    cluster.mark("t", count=2)
    async with running(cluster, until_caught_up=True) as run:
        await run.ended.wait()
        assert run.taken.values == [b"3", b"4", b"8"]
        assert plain(await run.commit()) == {"t/0": 11, "t/1": 0}


async def test_it_has_not_caught_up_before_what_an_open_transaction_hides_and_says_so(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have committed messages behind one that a killed producer has left open."""
    monkeypatch.setattr(consumer_thread, "HIDDEN_SECONDS", 0.0)
    cluster.write("t", *numbers(1, 5))
    cluster.known["t"].logs[0].stable = 3
    async with running(cluster, until_caught_up=True) as run:
        await until(lambda: run.notes.having("t/0", "transaction"))
        assert run.taken.values == numbers(1, 3)
        assert not run.ended.is_set()
        cluster.mark("t")  # the broker has aborted it
        cluster.known["t"].logs[0].stable = None
        await run.ended.wait()
        assert run.taken.values == numbers(1, 5)
        assert len(run.notes.having("transaction")) == 1


async def test_a_member_without_partitions_waits_for_what_an_open_transaction_hides(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 3))
    cluster.known["t"].logs[0].stable = 2
    cluster.group("g").assign({member(): partitions(0, 1)})
    async with running(cluster) as busy, running(cluster, slot=1, until_caught_up=True) as idle:
        await until(lambda: busy.taken.values == numbers(1, 2))
        await busy.commit()
        asked = cluster.calls.count("committed")
        await until(lambda: cluster.calls.count("committed") > asked + 1)
        assert not idle.ended.is_set()
        cluster.known["t"].logs[0].stable = None
        await until(lambda: busy.taken.values == numbers(1, 3))
        await busy.commit()
        await idle.ended.wait()


async def test_it_has_caught_up_if_all_topics_are_empty_or_there_is_none(cluster: FakeCluster) -> None:
    for topics in ({"topics": ("t",)}, {"pattern": "none"}):
        async with running(cluster, until_caught_up=True, **topics) as run:
            await run.ended.wait()
            assert run.error is None
            assert run.taken.values == []


async def test_a_member_without_partitions_has_caught_up_when_the_group_has(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 3))
    cluster.group("g").assign({member(): partitions(0, 1)})
    async with running(cluster) as busy, running(cluster, slot=1, until_caught_up=True) as idle:
        await until(lambda: busy.taken.values == numbers(1, 3))
        assert not idle.ended.is_set()
        await busy.commit()
        await idle.ended.wait()
        assert idle.taken.values == []


@pytest.mark.parametrize("committed", [None, Committed(0, "topic_id=another")])
async def test_it_has_not_caught_up_before_the_start_is_committed(
    cluster: FakeCluster, committed: Committed | None
) -> None:
    """Of an empty topic, too; and an offset of a topic that was deleted is none of this one."""
    if committed is not None:
        cluster.group("g").offsets = dict.fromkeys(partitions(0, 1), committed)
    cluster.group("g").assign({})
    async with running(cluster, until_caught_up=True, on_offset_lost="latest") as run:
        await until(lambda: cluster.calls.count("committed") > 0)
        await anyio.sleep(0.1)
        assert not run.ended.is_set()
        cluster.group("g").assign({member(): partitions(0, 1)})
        await run.ended.wait()
    assert cluster.offset("g", "t") == 0


async def test_it_has_not_caught_up_while_its_partitions_are_somewhere_else(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_thread, "POLL_MESSAGES", 1)
    cluster.write("t", *numbers(1, 9))
    cluster.group("g").assign({member(): partitions(0, 1)})
    async with running(cluster, until_caught_up=True) as run:
        run.taken.close_gate()
        await until(lambda: run.taken.values == [b"1"])
        cluster.group("g").assign({})
        await until(lambda: not cluster.consumers[0].owned)
        run.taken.gate.set()
        await anyio.sleep(0.2)
        assert not run.ended.is_set()
        cluster.group("g").assign({member(): partitions(0, 1)})
        await run.ended.wait()
        assert run.taken.values == numbers(1, 9)


async def test_case_16_an_error_does_not_move_the_position(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 3))
    cluster.fail("poll_batch", KafkaError("fetch failed", kafka_code="NOT_LEADER_OR_FOLLOWER", transient=True), times=2)
    async with running(cluster) as run:
        await until(lambda: run.taken.values == numbers(1, 3))
        assert plain(await run.commit())["t/0"] == 3


@pytest.mark.parametrize(
    ("offset", "start"),
    [
        (StartOffset(kind="earliest"), 0),
        (StartOffset(kind="latest"), 5),
        (StartOffset(kind="number", value=2), 2),
        (StartOffset(kind="number", value=99), 5),
        (StartOffset(kind="timestamp", value=10**11 + 3), 3),
        (StartOffset(kind="timestamp", value=10**12), 5),
        (StartOffset(kind="number", value=1, partitions=(Partition("t", 0),), elsewhere="earliest"), 1),
        (StartOffset(kind="number", value=1, partitions=(Partition("t", 1),), elsewhere="earliest"), 0),
    ],
)
async def test_case_17_the_start_is_committed_when_applied_and_applied_once(
    cluster: FakeCluster, offset: StartOffset, start: int
) -> None:
    for number in range(5):
        cluster.write("t", b"%d" % number, time=10**11 + number)
    async with running(cluster, offset=offset) as run:
        await until_offset(cluster, start)
        await until(lambda: len(run.taken.values) == 5 - start)
    cluster.write("t", b"5")
    async with running(cluster, offset=offset) as run:  # what was given was not proven
        await until(lambda: run.taken.values == numbers(start, 5))
        await run.commit()
    async with running(cluster, offset=offset, until_caught_up=True) as run:
        await run.ended.wait()
        assert run.taken.values == []


# -- transactions


async def test_offsets_for_a_transaction_are_those_of_its_parts(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 3))
    async with running(cluster, delivery="exactly-once") as run:
        await until(lambda: run.taken.values)
        parts = run.taken.parts
        offsets, metadata = await anyio.to_thread.run_sync(run.source.transaction_offsets, parts)
        assert {key: each.offset for key, each in offsets.items()} == {("t", 0): 3, ("t", 1): 0}
        assert metadata is cluster.consumers[0]
        assert plain(await run.commit()) == {"t/0": 3, "t/1": 0}
        assert cluster.offset("g", "t") in (None, 0)  # the transaction commits them, and nothing else


async def test_a_transaction_with_a_partition_that_was_taken_away_is_refused(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 3))
    cluster.group("g").assign({member(): partitions(0, 1)})
    async with running(cluster, delivery="exactly-once") as run:
        await until(lambda: run.taken.values)
        run.source.give_up = slow_give_up
        parts = run.taken.parts
        cluster.group("g").assign({member(): partitions(1)})
        await until(lambda: cluster.consumers[0].owned == set(partitions(1)))
        with pytest.raises(NotMember):
            await anyio.to_thread.run_sync(run.source.transaction_offsets, parts)
        run.source.stop("enough")
        await run.source.close()
        with pytest.raises(KafkaError):
            await anyio.to_thread.run_sync(run.source.transaction_offsets, {})


# -- the end


async def test_a_client_that_has_become_unusable_ends_it_and_is_not_asked_again(cluster: FakeCluster) -> None:
    cluster.write("t", b"1")
    async with running(cluster) as run:
        await until(lambda: run.taken.values)
        await until_offset(cluster, 0)
        cluster.fail("poll_batch", KafkaError("stuck", fatal=True, code="kafka.client_stuck"))
        await run.ended.wait()
        assert code_of(run) == "kafka.client_stuck"
        asked = cluster.calls.count("commit")
        assert await run.commit() == {}
        assert cluster.calls.count("commit") == asked


async def test_a_transaction_does_not_wait_for_ever_for_the_thread_of_the_consumer(cluster: FakeCluster) -> None:
    source = KafkaSource(settings(), cluster, context())
    source._answer_seconds = 0.05
    with pytest.raises(KafkaError) as caught:  # the thread has not even been started
        source.transaction_offsets({})
    assert caught.value.transient


async def test_case_32_it_closes_in_time_though_nothing_answers(cluster: FakeCluster) -> None:
    cluster.write("t", b"1")
    async with running(cluster) as run:
        await until(lambda: run.taken.values)
        cluster.down["*"] = Unavailable("no broker", transient=True)
        assert "t/0" not in await run.commit()
        run.source.stop("enough")
        await run.source.close()
        assert await run.commit() == {}


async def test_closed_though_it_was_never_run(cluster: FakeCluster) -> None:
    source = KafkaSource(settings(), cluster, context())
    source.stop("enough")
    await source.run(lambda items: anyio.lowlevel.checkpoint())
    await source.close()
    assert cluster.consumers == []


async def test_a_new_group_that_begins_at_the_latest_offset_says_what_it_skips(cluster: FakeCluster) -> None:
    cluster.write("t", *numbers(1, 5))
    latest = StartOffset(kind="latest")
    async with running(cluster, offset=latest, until_caught_up=True) as run:
        await run.ended.wait()
        await run.commit()
    (line,) = run.notes.having("auto_offset_reset: earliest")
    assert "5 messages of t" in line
    async with running(cluster, offset=latest, until_caught_up=True) as run:
        await run.ended.wait()
    assert not run.notes.having("auto_offset_reset: earliest")
