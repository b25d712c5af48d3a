"""Kafka as a connector of streaming pipelines. No client library is imported before something is opened or checked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from streamline.connectors.kafka.settings import sink_settings, source_settings
from streamline.connectors.stream_connector import Config, Side, SinkTraits, SourceTraits, StreamContext, Where
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.connectors.kafka.sink import KafkaSink
    from streamline.connectors.kafka.source import KafkaSource

_SOURCE = """\
connector_type: kafka
bootstrap_server: "{{{{ env_var('KAFKA_BOOTSTRAP_SERVER', 'localhost:9092') }}}}"
topic: {block}
consumer_group: {pipeline}
# Where the group begins; later runs go on from what it has committed.
auto_offset_reset: earliest
batch_size: 1000
# Messages as {{data, metadata}}, with key, headers, time, topic, partition and offset:
include_metadata: false
serde_config:
  serialization_method: JSON  # AVRO, PROTOBUF, JSON_SCHEMA, STRING, RAW_VALUE
"""
_SINK = """\
connector_type: kafka
bootstrap_server: "{{{{ env_var('KAFKA_BOOTSTRAP_SERVER', 'localhost:9092') }}}}"
# {{stream}} stands for the source's topic or stream.
topic: {block}
compression: none  # gzip, lz4, zstd, snappy
serde_config:
  serialization_method: JSON  # AVRO, PROTOBUF, JSON_SCHEMA, STRING, RAW_VALUE
"""


class KafkaConnector:
    """Implements `StreamConnector`."""

    name = "kafka"

    def describe_source(self, config: Config, context: StreamContext, where: Where) -> SourceTraits:
        """See `StreamConnector.describe_source`."""
        from streamline.connectors.kafka.clients import need_client
        from streamline.connectors.kafka.serialization.formats import make_decoder

        settings = source_settings(config, context, where)
        need_client(settings.connection.client, where=where("client"))
        serde = settings.serde
        make_decoder(serde)
        key_decoder = None
        if serde.key is not None:
            make_decoder(serde.key)
            key_decoder = partial(make_decoder, serde.key)
        return SourceTraits(
            replays=True,
            positions=f"consumer group {settings.group}",
            keeps_positions=True,
            ordered=True,
            cluster=settings.connection.cluster,
            client=settings.connection.client,
            topics=settings.topics,
            topic_pattern=settings.pattern,
            decoder=partial(make_decoder, serde),
            key_decoder=key_decoder,
            # A schema that values have to fit is checked by decoding them.
            format=None if serde.registry is None and serde.schema is not None else serde.format,
            include_metadata=settings.include_metadata,
            batch_size=settings.batch_size,
        )

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        """See `StreamConnector.describe_sink`."""
        from streamline.connectors.kafka.clients import need_client
        from streamline.connectors.kafka.serialization.formats import make_serializer
        from streamline.connectors.kafka.serialization.record_schemas import schema_noter

        settings = sink_settings(config, context, where)
        need_client(settings.connection.client, where=where("client"))
        for serde in filter(None, (settings.serde, settings.serde.key)):
            make_serializer(serde)
        return SinkTraits(
            proof="the brokers have acknowledged each message (acks=all)",
            cluster=settings.connection.cluster,
            client=settings.connection.client,
            topic=settings.topic,
            format=settings.serde.format,
            note_schema=schema_noter(settings.serde),
        )

    def open_source(self, config: Config, context: StreamContext, where: Where) -> KafkaSource:
        """See `StreamConnector.open_source`."""
        from streamline.connectors.kafka.clients import kafka_client
        from streamline.connectors.kafka.source import KafkaSource

        settings = source_settings(config, context, where)
        return KafkaSource(settings, kafka_client(settings.connection.client, where=where("client")), context)

    def open_sink(self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]) -> KafkaSink:
        """See `StreamConnector.open_sink`."""
        from streamline.connectors.kafka.outgoing import Destination
        from streamline.connectors.kafka.serialization.formats import make_serializer
        from streamline.connectors.kafka.sink import KafkaSink, TransactionalKafkaSink

        destinations = []
        for block, config in configs.items():
            settings = sink_settings(config, context, where[block])
            keys = settings.serde.key
            destinations.append(
                Destination(
                    block=block,
                    settings=settings,
                    values=make_serializer(settings.serde),
                    keys=None if keys is None else make_serializer(keys),
                )
            )
        first = destinations[0]
        for other in destinations[1:]:
            if other.settings.connection != first.settings.connection:
                raise ConfigError(
                    f"the blocks {first.block} and {other.block} write in one transaction, but connect differently",
                    where=where[other.block]("bootstrap_server"),
                    hint="give both the same connection, or set `delivery: at-least-once`",
                    code="kafka.connections_differ",
                )
        from streamline.connectors.kafka.clients import kafka_client

        client = kafka_client(first.settings.connection.client, where=where[first.block]("client"))
        kind = TransactionalKafkaSink if context.delivery == "exactly-once" else KafkaSink
        return kind(context.block, destinations, client, context)

    def check(self, side: Side, config: Config, context: StreamContext, where: Where) -> str:
        """See `StreamConnector.check`."""
        from streamline.connectors.kafka.checks import check_sink, check_source
        from streamline.connectors.kafka.clients import kafka_client

        if side == "source":
            self.describe_source(config, context, where)
            source = source_settings(config, context, where)
            return check_source(source, kafka_client(source.connection.client, where=where("client")), context, where)
        self.describe_sink(config, context, where)
        sink = sink_settings(config, context, where)
        return check_sink(sink, kafka_client(sink.connection.client, where=where("client")), where)

    def set_positions(self, config: Config, context: StreamContext, where: Where, parts: Mapping[str, bytes]) -> None:
        """See `MovingConnector.set_positions`."""
        from streamline.connectors.kafka.clients import kafka_client
        from streamline.connectors.kafka.group_positions import set_positions

        settings = source_settings(config, context, where)
        set_positions(settings, kafka_client(settings.connection.client, where=where("client")), parts)

    def template(self, side: Side, pipeline: str, block: str) -> str:
        """See `StreamConnector.template`."""
        return (_SOURCE if side == "source" else _SINK).format(pipeline=pipeline, block=block)


CONNECTOR = KafkaConnector()
