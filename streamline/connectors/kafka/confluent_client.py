"""confluent-kafka behind the port."""

from __future__ import annotations

import confluent_kafka

from streamline.connectors.kafka.client import Admin, Connection, Consumer, ConsumerOptions, Producer, ProducerOptions
from streamline.connectors.kafka.confluent_admin_client import ConfluentAdmin
from streamline.connectors.kafka.confluent_consumer_client import ConfluentConsumer
from streamline.connectors.kafka.confluent_producer_client import ConfluentProducer


class ConfluentClient:
    """See `KafkaClient`."""

    name = "confluent"

    def consumer(self, connection: Connection, options: ConsumerOptions) -> Consumer:
        """See `KafkaClient.consumer`."""
        return ConfluentConsumer(connection, options)

    def producer(self, connection: Connection, options: ProducerOptions) -> Producer:
        """See `KafkaClient.producer`."""
        return ConfluentProducer(connection, options)

    def admin(self, connection: Connection) -> Admin:
        """See `KafkaClient.admin`."""
        return ConfluentAdmin(connection)


def librdkafka_version() -> tuple[str, int]:
    """Return the version of librdkafka as text and as a number (0xMMmmrrff)."""
    text, number = confluent_kafka.libversion()
    return str(text), int(number)
