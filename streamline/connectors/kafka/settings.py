"""The settings of Kafka sources and sinks: read from a block's YAML, Mage's or ours, and checked without connecting."""

from __future__ import annotations

import datetime as dt
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from streamline.connectors.kafka.client import Connection, Partition
from streamline.connectors.kafka.serde_settings import SERDE_KINDS, Serde, serde_settings
from streamline.connectors.setting_kinds import (
    Kinds,
    Settings,
    WrongValueError,
    anything,
    choice,
    flag,
    read_settings,
    seconds,
    secret_text,
    text,
    texts,
    whole,
)
from streamline.connectors.stream_connector import Config, StreamContext, Where
from streamline.project.suggest import words

Reset: TypeAlias = Literal["earliest", "latest"]
StartKind: TypeAlias = Literal["earliest", "latest", "timestamp", "number"]

_STARTS: Mapping[str, StartKind] = {
    "beginning": "earliest",
    "earliest": "earliest",
    "end": "latest",
    "latest": "latest",
    "timestamp": "timestamp",
    "int": "number",
}
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_FIRST_MILLISECONDS = 10**11
"""Smaller times are seconds: as milliseconds they are before March 1973."""


class StartOffset(msgspec.Struct, frozen=True, kw_only=True):
    """Where a group that has no offsets yet starts.

    Args:
        kind: what `value` is; `earliest` and `latest` have none.
        value: milliseconds since 1970 in UTC, or an offset.
        partitions: where it applies; none named: everywhere.
        elsewhere: where the other partitions start.
    """

    kind: StartKind = "latest"
    value: int | None = None
    partitions: tuple[Partition, ...] = ()
    elsewhere: Reset = "latest"


class KafkaSourceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a Kafka source.

    Args:
        topics: names; empty if there is a `pattern`.
        pattern: a regular expression that a topic's whole name matches.
        batch_size: the most messages of one call of a transformer. It does not bound what is read at a time.
        poll_seconds: the longest wait of one poll.
        on_offset_lost: what to do where the broker no longer has the next offset.
        metadata_refresh: seconds between two looks for new topics and partitions.
        group_protocol: `classic`, or `consumer` (KIP-848).
        group_instance_id: makes the member a static one.
        session_seconds: a member that is not heard of for so long is removed from the group.
        max_poll_seconds: a member that does not poll for so long is removed.
        max_partition_bytes: the most that one request reads of a partition.
        commit_timeout: seconds for one commit.
        drain_seconds: how long a rebalance may wait for messages in flight to be proven.
        close_seconds: how long leaving the group may take.
        format: of values: `plain`, or the lines of a `singer` stream.
        stall_seconds: a partition with messages to read whose position does not move for so long is reported.
    """

    connection: Connection
    group: str
    topics: tuple[str, ...] = ()
    pattern: str | None = None
    serde: Serde = Serde()
    batch_size: int = 100
    poll_seconds: float = 0.5
    include_metadata: bool = False
    offset: StartOffset = StartOffset()
    on_offset_lost: Literal["stop", "earliest", "latest"] = "stop"
    isolation_level: Literal["read_committed", "read_uncommitted"] = "read_committed"
    metadata_refresh: float = 10.0
    group_protocol: Literal["classic", "consumer"] = "classic"
    group_instance_id: str | None = None
    session_seconds: float = 15.0
    max_poll_seconds: float = 300.0
    max_partition_bytes: int = 1 << 20
    commit_timeout: float = 10.0
    drain_seconds: float = 15.0
    close_seconds: float = 10.0
    stall_seconds: float = 60.0
    format: Literal["plain", "singer"] = "plain"


class KafkaSinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a Kafka sink.

    Args:
        topic: a name, or a template with `{stream}`.
        compression: `none`, `gzip`, `lz4`, `zstd` or `snappy`.
        linger_seconds: a message waits so long for more of its partition.
        batch_size: the most messages that are handed to the client at once.
        batch_bytes: the most bytes that wait for one flush.
        max_message_bytes: larger messages are refused without asking the broker.
        format: of records of a tap: `plain`, or the lines of a `singer` stream.
        schemas: whether a topic gets the SCHEMAs of plain records.
        schema_topic: its name, or a template with `{stream}`; None: that of the records, and `.schemas`.
        transaction_seconds: the broker aborts a transaction that is open for so long.
    """

    connection: Connection
    topic: str
    serde: Serde = Serde()
    compression: str = "none"
    linger_seconds: float = 0.005
    batch_size: int = 10_000
    batch_bytes: int = 32 << 20
    max_message_bytes: int = 64 << 20
    format: Literal["plain", "singer"] = "plain"
    schemas: Literal["none", "topic"] = "none"
    schema_topic: str | None = None
    transaction_seconds: float = 60.0

    def topic_of(self, stream: str) -> str:
        """Return the topic that messages of a stream go to, unless their metadata names another."""
        return self.topic.replace("{stream}", stream)


def source_settings(config: Config, context: StreamContext, where: Where) -> KafkaSourceSettings:
    """Read and check the settings of a source.

    Raises:
        ConfigError: a key does not exist, a value is wrong, two settings contradict each other, or a file is missing.
    """
    if isinstance(config.get("offset"), str):
        config = {**config, "offset": {"type": config["offset"]}}
    given = read_settings(config, SOURCE_KINDS, where, what="a Kafka source")
    connection = _connection(given, context)
    topics, pattern = _topics(given)
    if given.get("group_protocol") == "consumer" and connection.client == "kafka-python":
        hint = "remove it, or set `client: confluent` (pip install 'streamline[confluent]')"
        given.fail("`group_protocol: consumer` needs the client confluent", "group_protocol", hint=hint)
    renamed = {"timeout_ms": "poll_seconds", "max_partition_fetch_bytes": "max_partition_bytes"}
    same = words(
        "batch_size include_metadata on_offset_lost isolation_level metadata_refresh group_protocol group_instance_id "
        "session_seconds max_poll_seconds drain_seconds format"
    )
    return KafkaSourceSettings(
        connection=connection,
        group=given.get("consumer_group", context.pipeline),
        topics=topics,
        pattern=pattern,
        serde=serde_settings(given.section("serde_config"), "source", context),
        offset=_start(given, topics, pattern),
        **{key: given[key] for key in same if key in given},
        **{field: given[key] for key, field in renamed.items() if key in given},
    )


def sink_settings(config: Config, context: StreamContext, where: Where) -> KafkaSinkSettings:
    """Read and check the settings of a sink.

    Raises:
        ConfigError: a key does not exist, a value is wrong, two settings contradict each other, or a file is missing.
    """
    given = read_settings(config, SINK_KINDS, where, what="a Kafka sink")
    connection = _connection(given, context)
    topic = given.need("topic", "the topic to write to")
    if _TOPIC.fullmatch(topic.replace("{stream}", "x")) is None:
        given.fail(
            f"`topic` cannot be {topic!r}",
            "topic",
            hint="a topic's name has letters, digits, '.', '_' and '-'; `{stream}` stands for the stream",
        )
    given.refuse_both("timeout_ms", "linger", "both say how long a message waits for more; `linger` is in seconds")
    if "schema_topic" in given and given.get("schemas", "none") != "topic":
        given.fail("`schema_topic` needs `schemas: topic`", "schema_topic", hint="add it")
    same = words("compression batch_size batch_bytes max_message_bytes format schemas schema_topic")
    renamed = {"linger": "linger_seconds", "timeout_ms": "linger_seconds", "transaction_timeout": "transaction_seconds"}
    return KafkaSinkSettings(
        connection=connection,
        topic=topic,
        serde=serde_settings(given.section("serde_config"), "destination", context),
        **{key: given[key] for key in same if key in given},
        **{field: given[key] for key, field in renamed.items() if key in given},
    )


def _offset_value(value: Any) -> int:
    if isinstance(value, str) and not value.strip().isdecimal():
        try:
            at = dt.datetime.fromisoformat(value.strip())
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            raise WrongValueError("must be a whole number, or a date and time with its offset from UTC")
        return int(at.timestamp() * 1000)
    number: int = whole()(value)
    return number


_CONNECTION: Kinds = {
    "connector_type": choice("kafka"),
    "bootstrap_server": texts,
    "client": choice("kafka-python", "confluent"),
    "api_version": anything,
    "security_protocol": choice("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL", fold=str.upper),
    "ssl_config": {
        "cafile": text,
        "certfile": text,
        "keyfile": text,
        "password": secret_text,
        "check_hostname": flag,
    },
    "sasl_config": {
        "mechanism": choice("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", fold=str.upper),
        "username": secret_text,
        "password": secret_text,
        "oauth_token_url": text,
        "oauth_client_id": secret_text,
        "oauth_client_secret": secret_text,
        "oauth_scope": text,
    },
}

SOURCE_KINDS: Kinds = {
    **_CONNECTION,
    "topic": text,
    "topics": lambda value: value if isinstance(value, str) and value.startswith("^") else texts(value),
    "topic_pattern": text,
    "consumer_group": text,
    "group_protocol": choice("classic", "consumer"),
    "group_instance_id": text,
    "batch_size": whole(1),
    "timeout_ms": seconds(0.001, unit=0.001),
    "auto_offset_reset": choice("earliest", "latest"),
    "offset": {"type": choice(*_STARTS), "value": _offset_value, "partitions": anything},
    "on_offset_lost": choice("stop", "earliest", "latest"),
    "isolation_level": choice("read_committed", "read_uncommitted"),
    "metadata_refresh": seconds(0.1),
    "include_metadata": flag,
    "max_partition_fetch_bytes": whole(1),
    "session_seconds": seconds(1),
    "max_poll_seconds": seconds(1),
    "drain_seconds": seconds(),
    "format": choice("plain", "singer"),
    "serde_config": SERDE_KINDS,
}

SINK_KINDS: Kinds = {
    **_CONNECTION,
    "topic": text,
    "batch_size": whole(1),
    "batch_bytes": whole(1),
    "timeout_ms": seconds(0, unit=0.001),
    "linger": seconds(),
    "compression": choice("none", "gzip", "lz4", "zstd", "snappy"),
    "max_message_bytes": whole(1),
    "transaction_timeout": seconds(1),
    "format": choice("plain", "singer"),
    "schemas": choice("none", "topic"),
    "schema_topic": text,
    "serde_config": SERDE_KINDS,
}


def _connection(given: Settings, context: StreamContext) -> Connection:
    servers = given.need("bootstrap_server", "the cluster's brokers, `host:port`")
    for server in servers:
        if not re.fullmatch(r"(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):\d{1,5}", server):
            given.fail(f"`bootstrap_server` cannot be {server!r}", "bootstrap_server", hint="write it as `host:port`")
    protocol = given.get("security_protocol", "PLAINTEXT")
    ssl, sasl = given.section("ssl_config"), given.section("sasl_config")
    if ssl and not protocol.endswith("SSL"):
        hint = "set `security_protocol: SSL` or SASL_SSL, or remove it"
        given.fail(f"`ssl_config` has no effect with `security_protocol: {protocol}`", "ssl_config", hint=hint)
    if sasl and not protocol.startswith("SASL"):
        hint = "set `security_protocol: SASL_SSL` or SASL_PLAINTEXT, or remove it"
        given.fail(f"`sasl_config` has no effect with `security_protocol: {protocol}`", "sasl_config", hint=hint)
    if protocol.startswith("SASL") and not sasl:
        given.fail(f"`security_protocol: {protocol}` needs `sasl_config`", "security_protocol", hint="add it")
    for section in (ssl, sasl):
        for key in ("password", "oauth_client_secret"):
            if key in section:
                context.secret(section[key])
    return Connection(
        servers=servers,
        protocol=protocol,
        client=given.get("client") or _default_client(),
        ssl=_ssl(ssl, context.root) if protocol.endswith("SSL") else {},
        sasl=_sasl(sasl),
    )


def _default_client() -> str:
    return "confluent" if importlib.util.find_spec("confluent_kafka") is not None else "kafka-python"


def _ssl(given: Settings, root: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {"check_hostname": True, **given}
    for key in ("cafile", "certfile", "keyfile"):
        if key in given:
            path = root / given[key]
            if not path.is_file():
                given.fail(
                    f"`ssl_config.{key}` names no file: {path}",
                    key,
                    hint="a relative path is relative to the project's folder",
                    code="file.not_found",
                )
            settings[key] = str(path)
    if "keyfile" in given and "certfile" not in given:
        given.fail("`ssl_config.keyfile` needs `certfile`", "keyfile", hint="add the certificate of this key")
    return settings


def _sasl(given: Settings) -> dict[str, Any]:
    if not given:
        return {}
    mechanism = given.get("mechanism", "PLAIN")
    oauth = mechanism == "OAUTHBEARER"
    needed = ("oauth_token_url", "oauth_client_id", "oauth_client_secret") if oauth else ("username", "password")
    for key in needed:
        given.need(key, f"{mechanism} needs it")
    allowed = {"mechanism", *needed, *(("oauth_scope",) if oauth else ())}
    for key in given:
        if key not in allowed:
            given.fail(f"`sasl_config.{key}` has no effect with `mechanism: {mechanism}`", key, hint="remove it")
    return {"mechanism": mechanism, **given}


def _topics(given: Settings) -> tuple[tuple[str, ...], str | None]:
    keys = [key for key in ("topic", "topics", "topic_pattern") if key in given]
    if len(keys) > 1:
        given.refuse_both(*keys[:2])
    if not keys:
        given.need("topic", "what to read", "add `topic: NAME`, `topics: [NAME, NAME]` or `topic_pattern: REGEX`")
    value = given[keys[0]]
    if keys[0] == "topic_pattern" or (isinstance(value, str) and value.startswith("^")):
        try:
            re.compile(value)
        except re.error as error:
            given.fail(f"`{keys[0]}` is not a regular expression: {error}", keys[0], hint="see Python's `re` module")
        return (), value
    topics = (value,) if isinstance(value, str) else value
    for topic in topics:
        if _TOPIC.fullmatch(topic) is None:
            hint = "a topic's name has letters, digits, '.', '_' and '-'; a pattern stands alone, and begins with '^'"
            given.fail(f"`{keys[0]}` cannot be {topic!r}", keys[0], hint=hint)
    return tuple(dict.fromkeys(topics)), None


def _start(given: Settings, topics: tuple[str, ...], pattern: str | None) -> StartOffset:
    elsewhere: Reset = given.get("auto_offset_reset", "latest")
    offset = given.section("offset")
    if not offset:
        return StartOffset(kind=elsewhere, elsewhere=elsewhere)
    word = offset.need("type", "beginning, end, timestamp or int")
    kind = _STARTS[word]
    value = offset.get("value")
    if kind in ("earliest", "latest"):
        if value is not None:
            offset.fail(f"`offset.value` has no effect with `type: {word}`", "value", hint="remove it")
    else:
        offset.need("value", "the number of the first message" if word == "int" else "milliseconds since 1970 in UTC")
    if kind == "timestamp" and value is not None and value < _FIRST_MILLISECONDS:
        hint = f"timestamps are in milliseconds: {value * 1000}"
        offset.fail(f"`offset.value` is {value}: that looks like seconds", "value", hint=hint)
    return StartOffset(kind=kind, value=value, partitions=_partitions(offset, topics, pattern), elsewhere=elsewhere)


def _partitions(offset: Settings, topics: tuple[str, ...], pattern: str | None) -> tuple[Partition, ...]:
    listed = offset.get("partitions", [])
    shape = "`offset.partitions` must be a list of `{topic: …, partition: …}`"
    if not isinstance(listed, list):
        offset.fail(shape, "partitions")
    partitions = []
    for entry in listed:
        if isinstance(entry, int) and len(topics) == 1:
            entry = {"topic": topics[0], "partition": entry}
        if not isinstance(entry, Mapping) or set(entry) != {"topic", "partition"}:
            offset.fail(shape, "partitions", hint="or of numbers, if there is one topic")
        topic, number = entry["topic"], entry["partition"]
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            offset.fail("`partition` in `offset.partitions` must be a whole number", "partitions")
        if topic not in topics and not (pattern is not None and re.fullmatch(pattern, str(topic))):
            hint = "its topic must be one that the source reads"
            offset.fail(f"`offset.partitions` names the topic {topic!r}", "partitions", hint=hint)
        partitions.append(Partition(topic, number))
    return tuple(partitions)
