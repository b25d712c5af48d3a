"""Restoring keyed state: from its changelog, and from the local copy, on a cluster in memory."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from streamline.connectors.kafka import state_topic
from streamline.connectors.kafka.client import KafkaError
from streamline.connectors.kafka.state_topic import KafkaState, StateTopicOptions
from streamline.errors import StreamlineError
from streamline.flow.keyed_state import Place
from tests.connectors.kafka.fake import CONNECTION, FakeCluster
from tests.connectors.kafka.running import Notes, settings

PLACE = Place("t", 0)
LOG = "p.b.state"


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster()
    cluster.create("t")
    return cluster


def opened(cluster: FakeCluster, folder: Path, **given: Any) -> KafkaState:
    options = {"timeout": 5.0, "folder": folder, "sources": [settings()], **given}
    state = KafkaState(cluster, StateTopicOptions(block="b", pipeline="p", connection=CONNECTION, topic=LOG, **options))
    state.start()
    return state


def log(cluster: FakeCluster, **values: bytes | None) -> None:
    for key, value in values.items():
        cluster.write(LOG, value, key=key.encode())


@pytest.mark.parametrize("expired", [0, 7], ids=["never written", "begins at its end"])
def test_case_18_an_empty_changelog_is_restored_at_once(cluster: FakeCluster, tmp_path: Path, expired: int) -> None:
    state = opened(cluster, tmp_path)
    cluster.mark(LOG, count=expired)
    cluster.expire(LOG, expired)
    state.restore(PLACE)
    assert state.get(PLACE, b"a") is None
    state.close()


def test_case_18_the_last_value_of_each_key_counts_in_a_log_that_begins_late_and_has_gaps(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    state = opened(cluster, tmp_path)
    log(cluster, a=b"1", b=b"1")
    cluster.mark(LOG, count=3)
    log(cluster, a=b"2")
    log(cluster, b=None)
    cluster.mark(LOG)
    cluster.expire(LOG, 1)
    state.restore(PLACE)
    assert [state.get(PLACE, key) for key in (b"a", b"b")] == [b"2", None]
    state.close()


def test_a_copy_reads_only_what_came_since(cluster: FakeCluster, tmp_path: Path) -> None:
    state = opened(cluster, tmp_path)
    log(cluster, a=b"1")
    state.restore(PLACE)
    mark = state.marks([PLACE])[PLACE]
    log(cluster, a=b"2", b=b"1")
    state.save(PLACE, {b"a": b"2", b"b": b"1"}, mark)
    state.close()
    log(cluster, a=b"3")
    cluster.known[LOG].logs[0].records[0] = None  # compacted
    state = opened(cluster, tmp_path)
    state.restore(PLACE)
    assert cluster.consumers[-1].positions is not None
    assert [state.get(PLACE, key) for key in (b"a", b"b")] == [b"3", b"1"]
    state.close()


@pytest.mark.parametrize("what", ["another topic", "expired", "damaged", "shorter"])
def test_a_copy_that_does_not_fit_is_made_anew(cluster: FakeCluster, tmp_path: Path, what: str) -> None:
    state = opened(cluster, tmp_path)
    log(cluster, a=b"1", b=b"1")
    state.restore(PLACE)
    state.close()
    if what == "another topic":
        cluster.delete(LOG)
        opened(cluster, tmp_path).close()
        log(cluster, x=b"0", y=b"0", b=b"2")
    elif what == "expired":
        log(cluster, a=None, b=b"2")
        cluster.expire(LOG, 3)
    elif what == "damaged":
        (tmp_path / "t-0.db").write_bytes(b"no database" * 1000)
        log(cluster, a=None, b=b"2")
    else:
        cluster.known[LOG].logs[0].records.clear()
        log(cluster, b=b"2")
    state = opened(cluster, tmp_path)
    state.restore(PLACE)
    assert [state.get(PLACE, key) for key in (b"a", b"b")] == [None, b"2"]
    state.close()


def test_case_21_it_waits_for_a_transaction_that_hides_the_end_and_says_so(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_topic, "SILENCE_SECONDS", 0.0)
    notes = Notes()
    state = opened(cluster, tmp_path, note=notes)
    log(cluster, a=b"1", b=b"1")
    changelog = cluster.known[LOG].logs[0]
    changelog.stable = 1

    def end() -> None:
        while not notes.having("up to 1 of 2", "transaction"):
            time.sleep(0.01)
        changelog.stable = None

    thread = threading.Thread(target=end)
    thread.start()
    state.restore(PLACE)
    thread.join()
    assert state.get(PLACE, b"b") == b"1"
    state.close()


def test_case_21_a_transaction_without_an_end_is_an_error(cluster: FakeCluster, tmp_path: Path) -> None:
    state = opened(cluster, tmp_path, timeout=0.2)
    log(cluster, a=b"1", b=b"1")
    cluster.known[LOG].logs[0].stable = 1
    with pytest.raises(StreamlineError) as caught:
        state.restore(PLACE)
    assert caught.value.code == "state.blocked"
    state.close()


def test_a_cluster_that_does_not_answer_is_asked_again(cluster: FakeCluster, tmp_path: Path) -> None:
    state = opened(cluster, tmp_path)
    log(cluster, a=b"1")
    cluster.fail("range", KafkaError("no answer", transient=True))
    cluster.fail("poll_batch", KafkaError("no answer", transient=True))
    state.restore(PLACE)
    assert state.get(PLACE, b"a") == b"1"
    state.close()


@pytest.mark.parametrize(
    ("code", "prepare"),
    [
        ("state.topic_not_compacted", lambda cluster: cluster.create(LOG).config.update({"cleanup.policy": "delete"})),
        (
            "state.topic_not_created",
            lambda cluster: cluster.fail("create_topic", KafkaError("no", kafka_code="TOPIC_AUTHORIZATION_FAILED")),
        ),
        ("state.partitions_differ", lambda cluster: (cluster.create(LOG), cluster.add_partitions("t", 1))),
    ],
)
def test_a_topic_that_cannot_be_used(cluster: FakeCluster, tmp_path: Path, code: str, prepare: Any) -> None:
    prepare(cluster)
    with pytest.raises(StreamlineError) as caught:
        opened(cluster, tmp_path)
    assert caught.value.code == code


def test_two_sources_of_one_topic_cannot_share_its_state(cluster: FakeCluster, tmp_path: Path) -> None:
    with pytest.raises(StreamlineError) as caught:
        opened(cluster, tmp_path, sources=[settings(), settings(group="other")])
    assert caught.value.code == "state.topic_read_twice"


@pytest.mark.parametrize("wrong", [(0, -1), (-1, -1), (0, 1)], ids=["no end", "nothing", "less than there was"])
def test_an_end_that_cannot_be_is_asked_for_again(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: tuple[int, int]
) -> None:
    state = opened(cluster, tmp_path)
    log(cluster, a=b"1", b=b"2")
    state.restore(PLACE)
    state.drop(PLACE)
    consumer = state._consumer("read_uncommitted")
    right, answers = consumer.range, [wrong, wrong]
    monkeypatch.setattr(
        consumer,
        "range",
        lambda places, wait: {each: answers.pop() for each in places} if answers else right(places, wait),
    )
    state.restore(PLACE)
    assert not answers
    assert (state.get(PLACE, b"a"), state.get(PLACE, b"b")) == (b"1", b"2")
    state.close()


def test_what_is_read_counts_though_the_position_is_not_known_at_that_moment(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = opened(cluster, tmp_path)
    log(cluster, a=b"1")
    consumer = state._consumer("read_committed")
    monkeypatch.setattr(consumer, "position", lambda partition: None)
    state.restore(PLACE)
    assert state.get(PLACE, b"a") == b"1"
    state.close()
