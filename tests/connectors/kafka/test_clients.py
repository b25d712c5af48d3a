"""A client library is chosen by name, and only a version without known faults is taken."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from streamline.connectors.kafka.client import (
    Committed,
    Connection,
    ConsumerOptions,
    KafkaError,
    NotMember,
    Outgoing,
    Partition,
    ProducerOptions,
    Unavailable,
)
from streamline.connectors.kafka.clients import CLIENTS, kafka_client
from streamline.connectors.kafka.failures import failure
from streamline.errors import ConfigError

NOWHERE = Connection(servers=("127.0.0.1:1",))


@pytest.mark.parametrize("name", CLIENTS)
def test_each_client_is_found_by_its_name(name: str) -> None:
    assert kafka_client(name).name == name


def test_an_unknown_client_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        kafka_client("sarama", where="p/x.yaml:3")
    assert caught.value.code == "kafka.client_unknown"
    assert caught.value.where == "p/x.yaml:3"


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_that_is_not_there_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ConfigError) as caught:
        kafka_client(name)
    assert caught.value.code == "kafka.client_missing"


@pytest.mark.parametrize(
    ("name", "version", "taken"),
    [
        ("kafka-python", "2.2.1", False),
        ("kafka-python", "3.0.8", False),
        ("kafka-python", "3.0.9", True),
        ("kafka-python", "3.1", True),
        ("kafka-python", "3.0.10.dev1", True),
        ("confluent", "2.14.2", False),
        ("confluent", "2.15.0rc1", True),
        ("confluent", "3.0", True),
    ],
)
def test_versions_with_faults_are_refused(
    name: str, version: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda package: version)
    if taken:
        assert kafka_client(name).name == name
        return
    with pytest.raises(ConfigError) as caught:
        kafka_client(name)
    assert caught.value.code == "kafka.client_too_old"
    assert caught.value.exit_code == 2
    assert version in caught.value.message


def test_a_librdkafka_of_the_system_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from streamline.connectors.kafka import confluent_client

    monkeypatch.setattr(confluent_client, "librdkafka_version", lambda: ("2.13.1", 0x020D01FF))
    with pytest.raises(ConfigError) as caught:
        kafka_client("confluent")
    assert caught.value.code == "kafka.client_too_old"
    assert "2.13.1" in caught.value.message


def test_the_libraries_are_imported_only_when_they_are_used() -> None:
    program = (
        "import sys, streamline, streamline.connectors.kafka.clients, streamline.connectors.kafka.connector;"
        "sys.exit(bool({'kafka', 'confluent_kafka'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_compression_that_cannot_be_read_names_what_to_install() -> None:
    from kafka.errors import UnsupportedCodecError

    from streamline.connectors.kafka.kafka_python_shared_client import translated

    error = translated(UnsupportedCodecError("Libraries for lz4 compression codec not found"), "read")
    assert error.code == "kafka.codec_missing"
    assert not error.transient
    assert "streamline[kafka-compression]" in str(error)


def test_an_error_of_a_connection_explains_what_fails_soon_after_it_and_nothing_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")
    from streamline.connectors.kafka import confluent_shared_client as module

    def error(name: str, text: str) -> Any:
        return confluent_kafka.KafkaError(getattr(confluent_kafka.KafkaError, name), text)

    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    troubles = module.Troubles()
    troubles.tell(error("_AUTHENTICATION", "wrong password"))
    late = confluent_kafka.KafkaException(error("_TIMED_OUT", "nothing came"))
    assert troubles.failure(late, "read").code == "kafka.authentication_failed"
    now[0] += 121
    assert troubles.failure(late, "read").transient
    troubles.tell(error("_TRANSPORT", "Connection refused"))
    assert "Connection refused" in troubles.failure(late, "read").message
    now[0] += 121
    assert "Connection refused" not in troubles.failure(late, "read").message


def test_case_33_no_queue_of_the_library_is_ever_full() -> None:
    pytest.importorskip("confluent_kafka")
    producer = kafka_client("confluent").producer(NOWHERE, ProducerOptions(client_id="t"))
    message = Outgoing("t", b"k", b"v", headers=[("h", b"1")])
    # A library that is full by itself takes 100,000.
    producer.produce_batch([message] * 100_001)
    producer.close(0)


class Hanging:
    """A library of which no call returns until it is freed."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.freed = threading.Event()

    def __getattr__(self, name: str) -> Any:
        def call(*_: object, **__: object) -> None:
            self.entered.append(name)
            self.freed.wait(60)

        return call


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    library = Hanging()
    yield library
    library.freed.set()


@pytest.mark.parametrize("name", CLIENTS)
def test_send_offsets_that_hangs_is_given_up_at_its_deadline(name: str, hanging: Hanging) -> None:
    producer: Any = kafka_client(name).producer(NOWHERE, ProducerOptions(client_id="t", transactional_id="x"))
    producer._library = hanging
    with pytest.raises(KafkaError) as caught:
        producer.send_offsets({Partition("t", 0): Committed(1)}, "g", 0.05)
    assert hanging.entered == ["send_offsets_to_transaction"]
    assert (caught.value.fatal, caught.value.transient) == (True, True)


def test_a_consumer_whose_library_hangs_in_a_poll_is_unusable(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamline.connectors.kafka import kafka_python_consumer_client as module

    monkeypatch.setattr(module, "STUCK_SECONDS", 0.3)
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.05)
    consumer: Any = kafka_client("kafka-python").consumer(NOWHERE, ConsumerOptions(client_id="t", group="g"))
    consumer._library, consumer._subscribed = hanging, True
    deadline = time.monotonic() + 60
    with pytest.raises(KafkaError) as caught:
        while time.monotonic() < deadline:
            assert consumer.poll_batch(10, 0.01) == []
    assert (caught.value.code, caught.value.fatal) == ("kafka.client_stuck", True)


@pytest.mark.parametrize(
    "name", ["UNKNOWN_LEADER_EPOCH", "FENCED_LEADER_EPOCH", "NOT_LEADER_FOR_PARTITION", "OFFSET_NOT_AVAILABLE"]
)
def test_case_23_a_leader_that_moves_is_an_outage(name: str) -> None:
    assert isinstance(failure("read the offsets of a topic", name, "moved"), Unavailable)


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize(("members", "generation"), [(["", ""], -1), (["old", "new"], -1), (["me", "me"], 3)])
def test_an_evicted_member_adds_no_offsets_to_a_transaction(name: str, members: list[str], generation: int) -> None:
    """A broker takes offsets without a member and generation, as of a program that is in no group."""
    consumer: Any = kafka_client(name).consumer(NOWHERE, ConsumerOptions(group="g", client_id="test"))
    known = SimpleNamespace(generation_id=generation, member_id=members[0])
    ids = iter(members)
    library = SimpleNamespace(
        memberid=lambda: next(ids), consumer_group_metadata=lambda: known, group_metadata=lambda: known
    )
    own, consumer._library = consumer._library, library
    try:
        if generation >= 0:
            assert consumer.group_metadata() is known
        else:
            with pytest.raises(NotMember):
                consumer.group_metadata()
    finally:
        consumer._library = own
        consumer.close(1.0)
