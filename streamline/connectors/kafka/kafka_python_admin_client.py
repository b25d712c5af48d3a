"""An admin client of kafka-python."""

from __future__ import annotations

import base64
import contextlib
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from kafka import KafkaAdminClient, OffsetAndMetadata, TopicPartition, errors
from kafka.admin import ConfigResource, ConfigResourceType

from streamline.connectors.kafka.client import Committed, Connection, KafkaError, Partition, TopicInfo, Unavailable
from streamline.connectors.kafka.deadlines import within
from streamline.connectors.kafka.failures import failure
from streamline.connectors.kafka.kafka_python_shared_client import code_of, open_library, settings, translated

Result = TypeVar("Result")


class KafkaPythonAdmin:
    """See `Admin`. It connects with its first request."""

    def __init__(self, connection: Connection, client_id: str = "streamline") -> None:
        self._connection = connection
        self._client_id = client_id
        self._lock = threading.Lock()
        self._library: Any = None

    def topics(self, timeout: float, names: Collection[str] | None = None) -> dict[str, TopicInfo]:
        """See `Admin.topics`."""
        if names is not None and not names:
            return {}
        wanted = None if names is None else sorted(names)
        described = self._ask("list topics", timeout, lambda library: library.describe_topics(wanted))
        topics: dict[str, TopicInfo] = {}
        for topic in described:
            error = errors.for_code(topic.get("error_code") or 0)
            if error is errors.NoError:
                topics[topic["name"]] = TopicInfo(
                    name=topic["name"],
                    partitions=len(topic["partitions"]),
                    id=_topic_id(topic.get("topic_id")),
                    internal=bool(topic.get("is_internal")),
                )
            elif error not in (errors.UnknownTopicOrPartitionError, errors.InvalidTopicError):
                raise translated(error(), f"describe topic {topic['name']}")
        return topics

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str], timeout: float) -> bool:
        """See `Admin.create_topic`."""
        settings = {name: {"num_partitions": partitions, "configs": dict(config)}}

        def create(library: Any) -> bool:
            try:
                library.create_topics(settings, timeout_ms=int(timeout * 1000))
            except errors.TopicAlreadyExistsError:
                return False
            library.wait_for_topics([name], timeout_ms=int(timeout * 1000))
            return True

        return self._ask(f"create topic {name}", timeout, create)

    def topic_config(self, name: str, timeout: float) -> dict[str, str]:
        """See `Admin.topic_config`."""
        resource = ConfigResource(ConfigResourceType.TOPIC, name)
        found = self._ask(
            f"read the configuration of topic {name}",
            timeout,
            lambda library: library.describe_configs([resource], config_filter="all"),
        )
        configuration = found.get("topic", {}).get(name) or {}
        if not configuration:
            raise failure(f"read the configuration of topic {name}", "UNKNOWN_TOPIC_OR_PART", "there is no such topic")
        return {key: str(entry["value"]) for key, entry in configuration.items() if entry.get("value") is not None}

    def group_offsets(self, group: str, timeout: float) -> dict[Partition, Committed]:
        """See `Admin.group_offsets`."""
        offsets = self._ask(
            f"read the offsets of group {group}", timeout, lambda library: library.list_group_offsets({group: None})
        )
        return {
            Partition(place.topic, place.partition): Committed(value.offset, value.metadata or "")
            for place, value in offsets.get(group, {}).items()
            if value.offset >= 0
        }

    def delete_records(self, offsets: Mapping[Partition, int], timeout: float) -> None:
        """See `Admin.delete_records`."""
        places = {TopicPartition(*place): offset for place, offset in offsets.items()}
        self._ask(
            "delete records", timeout, lambda library: library.delete_records(places, timeout_ms=int(timeout * 1000))
        )

    def set_group_offsets(self, group: str, offsets: Mapping[Partition, Committed | None], timeout: float) -> None:
        """See `Admin.set_group_offsets`."""
        kept = {
            TopicPartition(*place): OffsetAndMetadata(value.offset, value.metadata, -1)
            for place, value in offsets.items()
            if value is not None
        }
        dropped = [TopicPartition(*place) for place, value in offsets.items() if value is None]

        def change(library: Any) -> dict[Any, Any]:
            results = dict(library.alter_group_offsets(group, kept)) if kept else {}
            if dropped:
                with contextlib.suppress(errors.GroupIdNotFoundError):
                    results |= library.delete_group_offsets(group, dropped)
            return results

        request = f"set offsets of group {group}"
        for place, error in self._ask(request, timeout, change).items():
            if error is not errors.NoError:
                raise failure(request, code_of(error()), f"{place.topic}/{place.partition}: {code_of(error())}")

    def close(self) -> None:
        """See `Admin.close`."""
        library, self._library = self._library, None
        if library is not None:
            with contextlib.suppress(Unavailable, errors.KafkaError):
                within(2.0, "close", library.close)

    def _ask(self, request: str, timeout: float, call: Callable[[Any], Result]) -> Result:
        with self._lock:
            if self._library is None:
                self._library = open_library(
                    KafkaAdminClient, settings(self._connection, self._client_id), self._connection, timeout
                )
            library = self._library
        try:
            return within(timeout, request, lambda: call(library))
        except KafkaError:
            raise
        except errors.KafkaError as error:
            raise translated(error, request) from error


def _topic_id(value: Any) -> str | None:
    """Return a topic's id as Kafka's tools write it; None: the broker gives none."""
    number = uuid.UUID(str(value)) if value else None
    return base64.urlsafe_b64encode(number.bytes).rstrip(b"=").decode() if number and number.int else None
