"""The client libraries by name. They are imported here, when one is used, and nowhere else."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from importlib import metadata
from typing import TYPE_CHECKING

from streamline.connectors.kafka.client import KafkaClient
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.connectors.kafka.mock_cluster_client import MockCluster

CLIENTS = ("kafka-python", "confluent")

# Before kafka-python 3.0.9 a partition that is kept over a rebalance may fall silent (dpkp/kafka-python #3131); before
# librdkafka 2.13.2 an error message in a batch moves the position (confluentinc/librdkafka #4844).
KAFKA_PYTHON_FLOOR = (3, 0, 9)
CONFLUENT_FLOOR = (2, 15)
LIBRDKAFKA_FLOOR = 0x020D02FF


def kafka_client(name: str, *, where: str | None = None) -> KafkaClient:
    """Return a client library.

    Args:
        name: one of `CLIENTS`.
        where: `file:line` of the setting that names it.

    Raises:
        ConfigError: there is no such client, it is not installed, or it is too old.
    """
    if name == "kafka-python":
        return _kafka_python(where)
    if name == "confluent":
        return _confluent(where)
    raise ConfigError(
        f"unknown Kafka client {name!r}",
        where=where,
        hint=f"use one of {', '.join(CLIENTS)}",
        code="kafka.client_unknown",
    )


def need_client(name: str, *, where: str | None = None) -> None:
    """Check that a client library is installed, without importing it; see `kafka_client`.

    Raises:
        ConfigError: it is not, or it is too old.
    """
    if name == "kafka-python":
        _require("kafka", "kafka-python", KAFKA_PYTHON_FLOOR, "kafka-python", where)
    elif name == "confluent":
        _require("confluent_kafka", "confluent-kafka", CONFLUENT_FLOOR, "streamline[confluent]", where)


def _kafka_python(where: str | None) -> KafkaClient:
    need_client("kafka-python", where=where)
    from streamline.connectors.kafka.kafka_python_client import KafkaPythonClient

    return KafkaPythonClient()


def _confluent(where: str | None) -> KafkaClient:
    need_client("confluent", where=where)
    from streamline.connectors.kafka.confluent_client import ConfluentClient, librdkafka_version

    text, number = librdkafka_version()
    if number < LIBRDKAFKA_FLOOR:
        raise ConfigError(
            f"librdkafka {text} is too old: 2.13.2 or later is needed",
            where=where,
            hint="install confluent-kafka from its wheel, which brings its own librdkafka, or use client: kafka-python",
            code="kafka.client_too_old",
        )
    return ConfluentClient()


def mock_cluster(topics: Collection[str]) -> MockCluster:
    """Start a cluster in memory.

    Raises:
        ConfigError: the package confluent-kafka, which brings it, is not installed, or too old.
    """
    _confluent(None)
    from streamline.connectors.kafka.mock_cluster_client import MockCluster

    return MockCluster(topics)


def _require(module: str, package: str, floor: tuple[int, ...], install: str, where: str | None) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"the package {package} of this Kafka client is missing",
            where=where,
            hint=f"pip install '{install}'",
            code="kafka.client_missing",
        )
    version = metadata.version(package)
    if _numbers(version) < floor:
        least = ".".join(map(str, floor))
        raise ConfigError(
            f"{package} {version} is too old: {least} or later is needed",
            where=where,
            hint=f"pip install '{package}>={least}'",
            code="kafka.client_too_old",
        )


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version."""
    numbers: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
