"""Sets the offsets of a consumer group that nobody reads with, for `streamline state`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streamline.connectors.kafka.client import KafkaClient, KafkaError, Partition
from streamline.connectors.kafka.offset_parts import committed_of, decode_part, partition_of
from streamline.connectors.kafka.settings import KafkaSourceSettings
from streamline.connectors.kafka.user_errors import explained
from streamline.errors import ConfigError
from streamline.flow.items import FORGOTTEN

TIMEOUT = 10.0


def set_positions(settings: KafkaSourceSettings, client: KafkaClient, parts: Mapping[str, bytes]) -> None:
    """Set offsets of a group; a part that is `FORGOTTEN` has none from then on.

    Args:
        parts: offset by `topic/partition`: JSON, a number or `{"offset": number}`.

    Raises:
        ConfigError: a part is no partition, or its value no offset.
        StreamlineError: the group has members, or the cluster does not answer.
    """
    wanted = {_partition(key): None if value == FORGOTTEN else _offset(key, value) for key, value in parts.items()}
    admin = client.admin(settings.connection)
    try:
        topics = admin.topics(TIMEOUT, {partition.topic for partition in wanted})
        offsets = {}
        for partition, offset in wanted.items():
            topic = topics.get(partition.topic)
            if offset is not None and (topic is None or partition.partition >= topic.partitions):
                raise ConfigError(
                    f"the cluster has no partition {partition}", where=settings.group, code="kafka.partition_unknown"
                )
            offsets[partition] = (
                None
                if offset is None
                else committed_of(offset, topic.id, topic.partitions)
                if topic
                else committed_of(offset, None)
            )
        admin.set_group_offsets(settings.group, offsets, TIMEOUT)
    except KafkaError as error:
        names = ", ".join(sorted({partition.topic for partition in wanted}))
        raise explained(error, settings.connection, topics=names, group=settings.group) from None
    finally:
        admin.close()


def _partition(key: str) -> Partition:
    try:
        return partition_of(key)
    except ValueError:
        raise ConfigError(f"'{key}' is not TOPIC/PARTITION, such as orders/0", code="state.invalid_value") from None


def _offset(key: str, value: bytes) -> int:
    try:
        decoded = msgspec.json.decode(value)
        offset = decoded if isinstance(decoded, int) else decode_part(value).offset
    except (msgspec.DecodeError, msgspec.ValidationError):
        offset = -1
    if isinstance(offset, bool) or offset < 0:
        raise ConfigError(
            f"{value.decode('utf-8', 'replace')} is no offset",
            where=key,
            hint='write a number, or {"offset": NUMBER}',
            code="state.invalid_value",
        )
    return offset
