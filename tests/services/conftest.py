"""Session-wide servers. Every worker of a parallel run starts its own, the first time a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import mariadb, moto, postgres
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
