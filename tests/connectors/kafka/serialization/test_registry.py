"""The client of the schema registry: what it remembers, what it waits for, and how it fails."""

from __future__ import annotations

import pytest

from streamline.connectors.kafka.serde_settings import RegistrySettings
from streamline.connectors.kafka.serialization.registry import NoSuchSchema, RegistryUnavailable, Schema, SchemaRegistry
from streamline.errors import StreamlineError
from tests.support.registry import RegistryStub

TEXT = Schema(text='"string"')


class Clock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def registry(*urls: str, clock: Clock | None = None, **login: str) -> SchemaRegistry:
    clock = clock or Clock()
    return SchemaRegistry(RegistrySettings(urls=urls, **login), clock=clock, sleep=clock.sleep)


def test_an_id_is_asked_for_once(stub: RegistryStub) -> None:
    number = stub.add("orders-value", "string")
    client = registry(stub.url)
    assert client.schema(number) == client.schema(number) == TEXT
    assert client.register("orders-value", TEXT) == client.register("orders-value", TEXT) == number
    assert stub.requests == [f"GET /schemas/ids/{number}", "POST /subjects/orders-value/versions"]


def test_an_id_that_is_not_there_is_no_failure_of_the_registry_and_asked_again_after_a_while(
    stub: RegistryStub,
) -> None:
    clock = Clock()
    client = registry(stub.url, clock=clock)
    for _ in range(3):
        with pytest.raises(NoSuchSchema):
            client.schema(1)
    assert len(stub.requests) == 1
    stub.add("orders-value", "string")
    clock.now += 61
    assert client.schema(1) == TEXT


@pytest.mark.parametrize("status", [429, 500, 503])
def test_case_28_what_may_pass_is_waited_for(stub: RegistryStub, status: int) -> None:
    number = stub.add("orders-value", "string")
    stub.faults = [status] * 3
    clock = Clock()
    assert registry(stub.url, clock=clock).schema(number) == TEXT
    assert clock.pauses == sorted(clock.pauses)
    assert len(clock.pauses) == 3


def test_a_registry_that_stays_away_is_unavailable(stub: RegistryStub) -> None:
    stub.faults = [503] * 1000
    clock = Clock()
    with pytest.raises(RegistryUnavailable) as caught:
        registry(stub.url, clock=clock).schema(1)
    assert caught.value.code == "registry.unavailable"
    assert 20 < clock.now - 100 <= 30


def test_a_registry_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(RegistryUnavailable):
        registry("http://127.0.0.1:1").schema(1)


def test_another_url_is_asked_where_the_first_does_not_answer(stub: RegistryStub) -> None:
    number = stub.add("orders-value", "string")
    clock = Clock()
    client = registry("http://127.0.0.1:1", stub.url, clock=clock)
    assert client.schema(number) == TEXT
    assert clock.pauses == []


def test_credentials(stub: RegistryStub) -> None:
    stub.credentials = "me:secret"
    number = stub.add("orders-value", "string")
    assert registry(stub.url, username="me", password="secret").schema(number) == TEXT
    with pytest.raises(StreamlineError) as caught:
        registry(stub.url, username="me", password="wrong").schema(number)
    assert caught.value.code == "registry.denied"
    assert "wrong" not in str(caught.value)


def test_case_28_a_conflict_names_subject_version_and_reason(stub: RegistryStub) -> None:
    stub.add("orders-value", "string")
    stub.frozen.add("orders-value")
    with pytest.raises(StreamlineError) as caught:
        registry(stub.url).register("orders-value", Schema(text='"long"'))
    assert caught.value.code == "registry.incompatible"
    for part in ("orders-value", "version 1", "'total' has no default"):
        assert part in caught.value.message


def test_a_schema_that_must_be_there_and_is_not(stub: RegistryStub) -> None:
    with pytest.raises(StreamlineError) as caught:
        registry(stub.url).register("orders-value", TEXT, new=False)
    assert caught.value.code == "registry.schema_missing"
    assert stub.subjects == {}


def test_the_newest_version(stub: RegistryStub) -> None:
    client = registry(stub.url)
    assert client.latest("orders value/1") is None
    stub.add("orders value/1", "string")
    newest = stub.add("orders value/1", "long")
    assert client.latest("orders value/1") == (newest, Schema(text='"long"'))
    assert client.version_of("orders value/1", TEXT) == 1
    assert client.version("orders value/1", 1) == TEXT
    assert client.subjects() == ["orders value/1"]


def test_a_page_that_is_no_registry(stub: RegistryStub) -> None:
    stub.faults = [405]
    with pytest.raises(StreamlineError) as caught:
        registry(stub.url).subjects()
    assert caught.value.code == "registry.request_failed"
