"""kafka-python behind the port."""

from __future__ import annotations

from streamline.connectors.kafka.client import Admin, Connection, Consumer, ConsumerOptions, Producer, ProducerOptions
from streamline.connectors.kafka.kafka_python_admin_client import KafkaPythonAdmin
from streamline.connectors.kafka.kafka_python_consumer_client import KafkaPythonConsumer
from streamline.connectors.kafka.kafka_python_producer_client import KafkaPythonProducer


class KafkaPythonClient:
    """See `KafkaClient`."""

    name = "kafka-python"

    def consumer(self, connection: Connection, options: ConsumerOptions) -> Consumer:
        """See `KafkaClient.consumer`."""
        return KafkaPythonConsumer(connection, options)

    def producer(self, connection: Connection, options: ProducerOptions) -> Producer:
        """See `KafkaClient.producer`."""
        return KafkaPythonProducer(connection, options)

    def admin(self, connection: Connection) -> Admin:
        """See `KafkaClient.admin`."""
        return KafkaPythonAdmin(connection)
