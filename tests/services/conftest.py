"""Session-wide servers. Every worker of a parallel run starts its own, the first time a test asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamline.connectors.kafka.client import KafkaClient
from streamline.connectors.kafka.clients import CLIENTS, kafka_client
from tests.services import kafka, mariadb, moto, postgres
from tests.services.kafka import Kafka, KafkaCluster
from tests.services.kafka_bench import Bench
from tests.services.mariadb import MariaDBServer
from tests.services.moto import S3Server
from tests.services.postgres import PostgresServer
from tests.services.project import CommunityProject, MakeCommunity
from tests.services.require import ServiceMissingError, missing

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a service."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.services)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL with `wal_level=logical`."""
    try:
        with postgres.running() as server:
            yield server
    except ServiceMissingError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """A MariaDB with its binary log in row format."""
    try:
        with mariadb.running() as server:
            yield server
    except ServiceMissingError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An object store that speaks S3."""
    try:
        with moto.running() as server:
            yield server
    except ServiceMissingError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[Kafka]:
    """A Kafka of one broker, shared: tests make topics of their own and leave the broker up."""
    try:
        with kafka.running() as server:
            yield server
    except ServiceMissingError as error:
        missing(str(error))


@pytest.fixture
def secured_kafka(kafka_server: Kafka) -> KafkaCluster:
    """The shared Kafka with its other listeners: SSL, SASL_PLAINTEXT, SASL_SSL."""
    if not isinstance(kafka_server, KafkaCluster):
        missing(f"the broker that {kafka.SERVERS_VARIABLE} names has no listeners that tests know")
    return kafka_server


@pytest.fixture
def new_kafka() -> Iterator[Callable[..., KafkaCluster]]:
    """Starts brokers that a test may kill and suspend; takes what `KafkaCluster` takes."""
    with contextlib.ExitStack() as clusters:

        def start(brokers: int = 1, **config: str) -> KafkaCluster:
            try:
                return clusters.enter_context(KafkaCluster(brokers, config))
            except ServiceMissingError as error:
                missing(str(error))

        yield start


@pytest.fixture(params=CLIENTS)
def kafka_library(request: pytest.FixtureRequest) -> KafkaClient:
    """Each client library."""
    return kafka_client(request.param)


@pytest.fixture
def bench(kafka_library: KafkaClient, kafka_server: Kafka) -> Iterator[Bench]:
    """Clients of the shared broker."""
    bench = Bench(kafka_library, kafka_server.servers)
    yield bench
    bench.close()


@pytest.fixture
def make_bench(kafka_library: KafkaClient) -> Iterator[Callable[..., Bench]]:
    """Clients of another broker, or with security."""
    made: list[Bench] = []

    def make(servers: tuple[str, ...], **security: Any) -> Bench:
        made.append(Bench(kafka_library, servers, **security))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def community(tmp_path: Path) -> Iterator[MakeCommunity]:
    """Makes the test's project, with the named entries of plugins.yaml; what it leaves running is ended."""
    made: list[CommunityProject] = []

    def make(*plugins: str) -> CommunityProject:
        made.append(CommunityProject(tmp_path, plugins))
        return made[-1]

    yield make
    for project in made:
        project.close()


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of an empty database of this test's own."""
    with postgres_server.database() as name:
        yield name


@pytest.fixture
def mariadb_database(mariadb_server: MariaDBServer) -> Iterator[str]:
    """The name of an empty database of this test's own."""
    with mariadb_server.database() as name:
        yield name
