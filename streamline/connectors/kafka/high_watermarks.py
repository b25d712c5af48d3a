"""Where partitions end for everybody: an open transaction hides messages from readers of committed ones for a while."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from uuid import uuid4

import msgspec

from streamline.connectors.kafka.client import Connection, Consumer, ConsumerOptions, KafkaClient, Partition

_CLOSE_SECONDS = 2.0

HighWatermarks = Callable[[Collection[Partition], float], dict[Partition, int]]
"""Returns the high watermarks of partitions, within a timeout in seconds."""


class HighWatermarkReader:
    """Asks by a consumer of its own, which is in no group. Used by one thread alone.

    Args:
        options: of the consumer that reads the partitions.
    """

    def __init__(self, client: KafkaClient, connection: Connection, options: ConsumerOptions) -> None:
        self._client = client
        self._connection = connection
        self._options = msgspec.structs.replace(
            options,
            group=f"{options.group}-ends-{uuid4().hex[:8]}",
            instance_id=None,
            isolation_level="read_uncommitted",
        )
        self._consumer: Consumer | None = None

    def of(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, int]:
        """See `HighWatermarks`.

        Raises:
            KafkaError: the request failed.
        """
        if self._consumer is None:
            self._consumer = self._client.consumer(self._connection, self._options)
        return {partition: end for partition, (_, end) in self._consumer.range(partitions, timeout).items()}

    def close(self) -> None:
        """Close the consumer."""
        if self._consumer is not None:
            with suppress(Exception):
                self._consumer.close(_CLOSE_SECONDS)
