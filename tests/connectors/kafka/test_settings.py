"""What a block's YAML may say about Kafka: Mage's keys and ours, contradictions, and the line of each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from streamline.connectors.kafka.client import Partition
from streamline.connectors.kafka.settings import (
    KafkaSinkSettings,
    KafkaSourceSettings,
    StartOffset,
    sink_settings,
    source_settings,
)
from streamline.connectors.stream_connector import StreamContext
from streamline.errors import ConfigError

SOURCE = "bootstrap_server: localhost:9092\ntopic: orders\n"


def where(*path: str) -> str:
    return "kafka.yaml:" + ".".join(path)


def context(root: Path = Path("/"), secrets: list[str] | None = None) -> StreamContext:
    noted = [] if secrets is None else secrets
    return StreamContext(pipeline="clicks", block="load", root=root, secret=noted.append)


def source(text: str, **made: Any) -> KafkaSourceSettings:
    return source_settings(yaml.safe_load(text), context(**made), where)


def sink(text: str, **made: Any) -> KafkaSinkSettings:
    return sink_settings(yaml.safe_load(text), context(**made), where)


def test_what_mage_writes_for_a_source(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    secrets: list[str] = []
    settings = source(
        """
        connector_type: kafka
        bootstrap_server: "a:9092, b:9092"
        topics: [orders, returns]
        consumer_group: shop
        include_metadata: true
        api_version: "0.10.2"
        batch_size: 50
        timeout_ms: 250
        auto_offset_reset: earliest
        max_partition_fetch_bytes: 2097152
        security_protocol: SASL_SSL
        ssl_config: {cafile: ca.pem, check_hostname: false}
        sasl_config: {mechanism: SCRAM-SHA-512, username: reader, password: hush}
        serde_config: {serialization_method: RAW_VALUE}
        offset: {type: int, value: 7, partitions: [{topic: orders, partition: 1}]}
        """,
        root=tmp_path,
        secrets=secrets,
    )
    assert settings.connection.servers == ("a:9092", "b:9092")
    assert settings.connection.protocol == "SASL_SSL"
    assert settings.connection.ssl == {"cafile": str(tmp_path / "ca.pem"), "check_hostname": False}
    assert settings.connection.sasl == {"mechanism": "SCRAM-SHA-512", "username": "reader", "password": "hush"}
    assert (settings.group, settings.topics, settings.pattern) == ("shop", ("orders", "returns"), None)
    assert (settings.batch_size, settings.poll_seconds, settings.include_metadata) == (50, 0.25, True)
    assert settings.max_partition_bytes == 2 << 20
    assert settings.serde.method == "RAW_VALUE"
    assert settings.offset == StartOffset(
        kind="number", value=7, partitions=(Partition("orders", 1),), elsewhere="earliest"
    )
    assert secrets == ["hush"]


def test_what_mage_writes_for_a_sink() -> None:
    settings = sink("connector_type: kafka\nbootstrap_server: a:9092\ntopic: out\nbatch_size: 100\ntimeout_ms: 500\n")
    assert (settings.topic, settings.batch_size, settings.linger_seconds) == ("out", 100, 0.5)


def test_the_group_is_the_pipeline_by_default_and_starts_at_the_end() -> None:
    settings = source(SOURCE)
    assert settings.group == "clicks"
    assert settings.offset == StartOffset(kind="latest", elsewhere="latest")
    assert settings.isolation_level == "read_committed"


@pytest.mark.parametrize("line", ["topics: ^crm-.*", "topic: ^crm-.*", "topic_pattern: ^crm-.*"])
def test_a_pattern(line: str) -> None:
    settings = source(f"bootstrap_server: a:1\n{line}\n")
    assert (settings.topics, settings.pattern) == ((), "^crm-.*")


@pytest.mark.parametrize(
    ("offset", "kind", "value"),
    [
        ("offset: beginning", "earliest", None),
        ("offset: {type: earliest}", "earliest", None),
        ("offset: {type: timestamp, value: 1700000000000}", "timestamp", 1_700_000_000_000),
        ("offset: {type: timestamp, value: '2023-11-14T22:13:20+00:00'}", "timestamp", 1_700_000_000_000),
    ],
)
def test_starts(offset: str, kind: str, value: int | None) -> None:
    start = source(SOURCE + offset).offset
    assert (start.kind, start.value, start.partitions, start.elsewhere) == (kind, value, (), "latest")


def test_partitions_of_one_topic_are_numbers() -> None:
    start = source(SOURCE + "offset: {type: int, value: 3, partitions: [0, 2]}").offset
    assert start.partitions == (Partition("orders", 0), Partition("orders", 2))


def test_a_topic_per_stream() -> None:
    assert sink("bootstrap_server: a:1\ntopic: crm-{stream}\n").topic_of("users") == "crm-users"


def test_no_password_is_shown_in_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        source(SOURCE + "security_protocol: SASL_SSL\nsasl_config: {username: [x], password: hush}")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("topic: orders", "setting.invalid", "bootstrap_server"),
        ("bootstrap_server: a:1", "setting.invalid", "topic"),
        ("bootstrap_server: a\ntopic: t", "setting.invalid", "bootstrap_server"),
        (SOURCE + "tpic: x", "setting.unknown", "tpic"),
        (SOURCE + "ssl_config: {ca: x}", "setting.unknown", "ssl_config.ca"),
        (SOURCE + "topics: [b]", "setting.invalid", "topics"),
        (SOURCE + "topic_pattern: b", "setting.invalid", "topic_pattern"),
        ("bootstrap_server: a:1\ntopics: ^(", "setting.invalid", "topics"),
        ("bootstrap_server: a:1\ntopics: [^a, b]", "setting.invalid", "topics"),
        (SOURCE + "batch_size: many", "setting.invalid", "batch_size"),
        (SOURCE + "batch_size: 0", "setting.invalid", "batch_size"),
        (SOURCE + "batch_size: true", "setting.invalid", "batch_size"),
        (SOURCE + "include_metadata: 1", "setting.invalid", "include_metadata"),
        (SOURCE + "auto_offset_reset: middle", "setting.invalid", "auto_offset_reset"),
        (SOURCE + "ssl_config: {cafile: x}", "setting.invalid", "ssl_config"),
        (SOURCE + "ssl_config: x", "setting.invalid", "ssl_config"),
        (SOURCE + "security_protocol: SSL\nssl_config: {cafile: gone.pem}", "file.not_found", "ssl_config.cafile"),
        (SOURCE + "sasl_config: {username: x}", "setting.invalid", "sasl_config"),
        (SOURCE + "security_protocol: SASL_SSL", "setting.invalid", "security_protocol"),
        (SOURCE + "security_protocol: SASL_SSL\nsasl_config: {username: x}", "setting.invalid", "sasl_config.password"),
        (
            SOURCE + "security_protocol: SASL_SSL\nsasl_config: {username: x, password: y, oauth_scope: z}",
            "setting.invalid",
            "sasl_config.oauth_scope",
        ),
        (
            SOURCE + "security_protocol: SASL_SSL\nsasl_config: {mechanism: OAUTHBEARER, username: x}",
            "setting.invalid",
            "sasl_config.oauth_token_url",
        ),
        (SOURCE + "client: kafka-python\ngroup_protocol: consumer", "setting.invalid", "group_protocol"),
        (SOURCE + "offset: {value: 3}", "setting.invalid", "offset.type"),
        (SOURCE + "offset: {type: int}", "setting.invalid", "offset.value"),
        (SOURCE + "offset: {type: end, value: 3}", "setting.invalid", "offset.value"),
        (SOURCE + "offset: {type: timestamp, value: 1700000000}", "setting.invalid", "offset.value"),
        (SOURCE + "offset: {type: timestamp, value: '2023-11-14'}", "setting.invalid", "offset.value"),
        (
            SOURCE + "offset: {type: end, partitions: [{topic: x, partition: 0}]}",
            "setting.invalid",
            "offset.partitions",
        ),
        (SOURCE + "offset: {type: end, partitions: [x]}", "setting.invalid", "offset.partitions"),
    ],
)
def test_mistakes_in_a_source(text: str, code: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        source(text)
    assert (caught.value.code, caught.value.where) == (code, f"kafka.yaml:{place}")


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("bootstrap_server: a:1", "setting.invalid", "topic"),
        ("bootstrap_server: a:1\ntopic: crm-{table}", "setting.invalid", "topic"),
        ("bootstrap_server: a:1\ntopic: ^x", "setting.invalid", "topic"),
        (SOURCE + "consumer_group: x", "setting.unknown", "consumer_group"),
        (SOURCE + "compression: brotli", "setting.invalid", "compression"),
        (SOURCE + "linger: 0.1\ntimeout_ms: 5", "setting.invalid", "linger"),
        (SOURCE + "linger: -1", "setting.invalid", "linger"),
    ],
)
def test_mistakes_in_a_sink(text: str, code: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sink(text)
    assert (caught.value.code, caught.value.where) == (code, f"kafka.yaml:{place}")


@pytest.mark.parametrize(
    ("serde", "place"),
    [
        ("serialization_method: CSV", "serialization_method"),
        ("serialization_method: AVRO", "serialization_method"),
        ("serialization_method: JSON_SCHEMA", "serialization_method"),
        ("serialization_method: PROTOBUF", "serialization_method"),
        ("schema_registry_url: http://r", "schema_registry_url"),
        ("serialization_method: AVRO, schema_registry_url: r", "schema_registry_url"),
        ("serialization_method: AVRO, schema_registry_url: 'http://me:secret@r'", "schema_registry_url"),
        ("serialization_method: STRING, schema: x.json", "schema"),
        ("schema_classpath: a.B", "schema_classpath"),
        ("serialization_method: PROTOBUF, schema_classpath: a.B, message: C", "message"),
        ("serialization_method: PROTOBUF, schema_classpath: a.B, schema_registry_url: http://r", "schema_registry_url"),
        ("key_schema: x.json", "key_schema"),
        ("schema_registry_token: x", "schema_registry_token"),
        ("serialization_method: AVRO, schema_registry_url: http://r, subject_strategy: record", "subject_strategy"),
        ("serialization_method: AVRO, schema_registry_url: http://r, register_schemas: false", "register_schemas"),
    ],
)
def test_mistakes_in_a_format(serde: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        source(SOURCE + f"serde_config: {{{serde}}}")
    assert (caught.value.code, caught.value.where) == ("setting.invalid", f"kafka.yaml:serde_config.{place}")


def test_a_format_with_a_registry(tmp_path: Path) -> None:
    (tmp_path / "user.avsc").write_text("{}")
    secrets: list[str] = []
    serde = sink(
        SOURCE
        + "serde_config: {serialization_method: avro, schema: user.avsc, schema_registry_url: 'http://a/,http://b', "
        "schema_registry_username: me, schema_registry_password: hush, subject_strategy: topic-record, "
        "register_schemas: false, key_serialization_method: STRING}",
        root=tmp_path,
        secrets=secrets,
    ).serde
    assert serde.registry is not None
    assert (serde.method, serde.schema, serde.strategy, serde.register) == (
        "AVRO",
        tmp_path / "user.avsc",
        "topic-record",
        False,
    )
    assert (serde.registry.urls, serde.registry.username) == (("http://a", "http://b"), "me")
    assert serde.key is not None
    assert (serde.key.method, serde.key.for_key, serde.key.registry) == ("STRING", True, None)
    assert secrets == ["hush"]


def test_values_pass_undecoded_between_equal_formats_only(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("{}")

    def format_of(serde: str) -> str:
        return source(SOURCE + f"serde_config: {{{serde}}}", root=tmp_path).serde.format

    texts = ["", "schema: s.json", "serialization_method: STRING", "serialization_method: RAW_VALUE"]
    avro = "serialization_method: AVRO, schema_registry_url: "
    formats = [format_of(text) for text in (*texts, avro + "http://a", avro + "http://b")]
    assert len(set(formats)) == len(formats)
    assert format_of("serialization_method: json") == format_of("")
    assert format_of(avro + "http://a") == format_of(avro + "http://a/")
