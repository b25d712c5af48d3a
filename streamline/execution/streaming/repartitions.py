"""Topics between two halves of a pipeline: `repartition_by` gives a transformer block its messages with another key.

The ways into the block end in a sink for the topic, and a source for it begins the rest: two flows like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import msgspec

from streamline.connectors.stream_connector import StreamContext
from streamline.errors import ConfigError, StreamlineError
from streamline.execution.run import Run
from streamline.execution.streaming.plan import (
    CONNECTION_KEYS,
    KAFKA,
    EndPlan,
    Plan,
    RepartitionPlan,
    SinkPlan,
    SourcePlan,
    TransformPlan,
)
from streamline.flow.stages.repartition import RekeyedDecoder
from streamline.pipeline.model import PipelineModel
from streamline.project.suggest import words

if TYPE_CHECKING:
    from streamline.connectors.kafka.client import TopicInfo
    from streamline.connectors.kafka.own_topics import OwnTopics

KEY = "repartition_by"

TOPIC_CONFIG = {"cleanup.policy": "delete", "retention.ms": "-1", "message.timestamp.type": "CreateTime"}
"""Settings of a topic that is made. Its messages are needed until they are read, however long that takes."""

TRIM_SECONDS = 60.0
"""So often is deleted what was read."""

MOST_PARTITIONS = 10_000

_INHERITED = words(
    "group_protocol session_seconds max_poll_seconds drain_seconds metadata_refresh batch_size timeout_ms "
    "max_partition_fetch_bytes"
)
"""Settings that the source of the topic takes over: it is in the same consumer group."""


def add_repartitions(model: PipelineModel, plan: Plan, context: Callable[[str], StreamContext]) -> None:
    """Put the topics into the plan that its blocks ask for.

    Raises:
        ConfigError: one of them is not possible.
    """
    repartitions: dict[str, RepartitionPlan] = {}
    for uuid, transform in plan.transforms.items():
        if transform.block.configuration.get(KEY) is not None:
            repartitions[uuid] = _repartition(model, plan, transform, context)
            plan.repartitions = repartitions


def _repartition(
    model: PipelineModel, plan: Plan, transform: TransformPlan, context: Callable[[str], StreamContext]
) -> RepartitionPlan:
    uuid = transform.block.uuid

    def where(*keys: Any) -> str:
        return model.where(uuid, "configuration", KEY)

    field, partitions = _asked_for(transform.block.configuration[KEY], where())
    feeding = [source for source in plan.sources.values() if any(uuid in path for path in plan.paths(source.id))]
    first = _first_of(feeding, uuid, where())
    # In a transaction with the sinks, that is through their connection.
    ends: list[EndPlan] = [*plan.sinks.values()] if plan.exactly_once else []
    connection = next((end for end in [*ends, first] if end.name == KAFKA), first)
    topic = f"{plan.pipeline}.{uuid}.repartition"
    common = {key: connection.config[key] for key in CONNECTION_KEYS if key in connection.config}
    sink = _sink(plan, transform, connection, {**common, "topic": topic}, context, where)
    source = _source(plan, transform, feeding, {**common, "topic": topic}, context, where)
    for below in plan.downstream.values():
        below[:] = list(dict.fromkeys(sink.id if each == uuid else each for each in below))
        # Sinks first, as everywhere: what changes the data comes after them.
        below.sort(key=plan.transforms.__contains__)
    plan.sinks[sink.id] = sink
    plan.sources[source.id] = source
    plan.downstream[source.id] = [uuid]
    return RepartitionPlan(
        block=uuid, field=field, topic=topic, partitions=partitions, feeding=feeding, sink=sink, source=source
    )


def _asked_for(value: Any, where: str) -> tuple[str, int | None]:
    """Return the field, and the number of partitions if it is said."""
    given = value if isinstance(value, Mapping) else {"field": value}
    field, partitions = given.get("field"), given.get("partitions")
    whole = partitions is None or (isinstance(partitions, int) and not isinstance(partitions, bool))
    if (
        given.keys() - {"field", "partitions"}
        or not isinstance(field, str)
        or not field
        or not whole
        or (partitions is not None and not 1 <= partitions <= MOST_PARTITIONS)
    ):
        raise ConfigError(
            f"{KEY} cannot be {value!r}",
            where=where,
            hint=f"write the field that has the key, `{KEY}: user`, or `{KEY}: {{field: user, partitions: 12}}`",
            code="setting.invalid",
        )
    return field, partitions


def _first_of(feeding: list[SourcePlan], block: str, where: str) -> SourcePlan:
    other = next((source for source in feeding if source.name != KAFKA), None)
    if other is not None:
        raise ConfigError(
            f"block {block} has {KEY}, and '{other.id}' ({other.name}) is no Kafka source",
            where=where,
            hint="remove it: the state of such sources takes any key; or write the messages to a topic first",
            code="repartition.source_unsupported",
        )
    if len({source.traits.cluster for source in feeding}) > 1:
        raise ConfigError(
            f"block {block} has {KEY}, and its sources are on different clusters",
            where=where,
            hint="use one block for each cluster",
            code="repartition.source_unsupported",
        )
    return feeding[0]


def _sink(
    plan: Plan,
    transform: TransformPlan,
    connection: EndPlan,
    config: Mapping[str, Any],
    context: Callable[[str], StreamContext],
    where: Callable[..., str],
) -> SinkPlan:
    block = msgspec.structs.replace(transform.block, uuid=f"{transform.block.uuid}.repartition")
    config = {**config, "serde_config": {"serialization_method": "RAW_VALUE"}}
    traits = connection.connector.describe_sink(config, context(block.uuid), where)
    # Its messages are made, with their values, as soon as they come.
    traits = msgspec.structs.replace(traits, format=None, keeps_data=False)
    return SinkPlan(block=block, name=KAFKA, connector=connection.connector, config=config, where=where, traits=traits)


def _source(
    plan: Plan,
    transform: TransformPlan,
    feeding: list[SourcePlan],
    config: Mapping[str, Any],
    context: Callable[[str], StreamContext],
    where: Callable[..., str],
) -> SourcePlan:
    from streamline.connectors.kafka.settings import source_settings

    first = feeding[0]
    settings = source_settings(first.config, context(first.id), first.where)
    block = msgspec.structs.replace(transform.block, uuid=f"{transform.block.uuid}.repartitioned")
    config = {
        **config,
        **{key: first.config[key] for key in _INHERITED if key in first.config},
        "consumer_group": settings.group,
        "auto_offset_reset": "earliest",
        "include_metadata": any(source.traits.include_metadata for source in feeding),
    }
    if settings.group_instance_id is not None:
        config["group_instance_id"] = f"{settings.group_instance_id}-{transform.block.uuid}"
    traits = first.connector.describe_source(config, context(block.uuid), where)
    traits = msgspec.structs.replace(traits, decoder=RekeyedDecoder, key_decoder=None, format=None)
    return SourcePlan(block=block, name=KAFKA, connector=first.connector, config=config, where=where, traits=traits)


def ready_repartitions(run: Run, plan: Plan, context: Callable[[str], StreamContext]) -> None:
    """Make the topics that are missing, and check the others. Blocks.

    Raises:
        StreamlineError: one of them cannot be made, or does not fit.
    """
    for each in plan.repartitions.values():
        topics = _own_topics(run, plan, each, context)
        try:
            found = topics.awaited(_feeding_settings(each, context))
            if not found:
                continue  # the source itself tells which of its topics is missing
            topics.ask(partial(_ready, topics, plan, each, found))
        finally:
            topics.close()


def check_repartition(run: Run, plan: Plan, each: RepartitionPlan, context: Callable[[str], StreamContext]) -> str:
    """Return what there is of a topic, in one line; creates nothing.

    Raises:
        StreamlineError: it does not fit.
    """
    topics = _own_topics(run, plan, each, context)
    try:
        known = topics.ask(lambda: topics.named(each.topic)).get(each.topic)
        if known is None:
            return f"key {each.field}, by the topic {each.topic}, which the first run makes"
        _check(each, known)
        return f"key {each.field}, by the topic {each.topic}, {known.partitions} partitions"
    finally:
        topics.close()


async def trim_repartitions(run: Run, plan: Plan, context: Callable[[str], StreamContext]) -> None:
    """Delete what the group has committed from the topics, from time to time, until it is cancelled."""
    told = False
    while plan.repartitions and not run.options.slot:  # one process does it
        await anyio.sleep(TRIM_SECONDS)
        try:
            await anyio.to_thread.run_sync(trim_now, run, plan, context, abandon_on_cancel=True)
        except StreamlineError as error:
            if not told and not getattr(error, "transient", False):
                told = True
                text = f"what was read of the repartition topics cannot be deleted, and stays: {error.message}"
                run.warn("streamline", text)


def trim_now(run: Run, plan: Plan, context: Callable[[str], StreamContext]) -> None:
    """Delete what the groups have committed from the topics. Blocks.

    Raises:
        StreamlineError: it cannot be deleted, or not now.
    """
    from streamline.connectors.kafka.own_topics import REQUEST_SECONDS
    from streamline.connectors.kafka.settings import source_settings

    for each in plan.repartitions.values():
        topics = _own_topics(run, plan, each, context)
        group = source_settings(each.source.config, context(each.source.id), each.source.where).group
        try:
            offsets = topics.admin.group_offsets(group, REQUEST_SECONDS)
            before = {place: value.offset for place, value in offsets.items() if place.topic == each.topic}
            if any(before.values()):
                topics.admin.delete_records(before, REQUEST_SECONDS)
        finally:
            topics.close()


def _ready(topics: OwnTopics, plan: Plan, each: RepartitionPlan, found: Mapping[str, TopicInfo]) -> None:
    state = f"{plan.pipeline}.{each.block}.state"
    if topics.named(each.topic, state).keys() == {state}:
        raise StreamlineError(
            f"the topic {state} has the state of block {each.block} by other keys: its messages have not come by "
            f"{each.topic} so far",
            where=each.block,
            hint=f"delete {state}, and reset the pipeline's positions to build the state anew; or remove {KEY}",
            code="repartition.state_of_other_keys",
        )
    partitions = each.partitions or max(topic.partitions for topic in found.values())
    topic = topics.made(each.topic, partitions, TOPIC_CONFIG, what="messages", code="repartition.topic_not_created")
    _check(each, topic)


def _check(each: RepartitionPlan, topic: TopicInfo) -> None:
    if each.partitions not in (None, topic.partitions):
        raise StreamlineError(
            f"the topic {each.topic} has {topic.partitions} partitions, and {KEY} says {each.partitions}",
            where=each.block,
            hint="correct `partitions`: with another number keys would be in other partitions than their state",
            code="repartition.partitions_differ",
        )


def _own_topics(run: Run, plan: Plan, each: RepartitionPlan, context: Callable[[str], StreamContext]) -> OwnTopics:
    from streamline.connectors.kafka.clients import kafka_client
    from streamline.connectors.kafka.own_topics import OwnTopics
    from streamline.connectors.kafka.settings import sink_settings

    connection = sink_settings(each.sink.config, context(each.sink.id), each.sink.where).connection
    return OwnTopics(
        kafka_client(connection.client, where=each.sink.where("client")),
        connection,
        block=each.block,
        timeout=plan.settings.startup_timeout,
        shown=each.topic,
        ending=lambda: run.interrupted is not None,
    )


def _feeding_settings(each: RepartitionPlan, context: Callable[[str], StreamContext]) -> list[Any]:
    from streamline.connectors.kafka.settings import source_settings

    return [source_settings(source.config, context(source.id), source.where) for source in each.feeding]
