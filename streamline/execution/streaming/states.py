"""Which transformer blocks of a streaming pipeline have keyed state, and where it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamline.connectors.stream_connector import StreamContext
from streamline.errors import ConfigError
from streamline.execution.run import Run
from streamline.execution.streaming.plan import CONNECTION_KEYS, KAFKA, Plan, SinkPlan, SourcePlan, StatePlan
from streamline.execution.streaming.stored_state import StoredState
from streamline.pipeline.model import PipelineModel

if TYPE_CHECKING:
    from streamline.connectors.kafka.state_topic import KafkaState
    from streamline.flow.keyed_state import StateStore


def states_of(model: PipelineModel, plan: Plan, context: Callable[[str], StreamContext]) -> dict[str, StatePlan]:
    """Return the state of each transformer block that takes it.

    Raises:
        ConfigError: it cannot be kept.
    """
    from streamline.blocks.python.messages.check import takes_state

    states: dict[str, StatePlan] = {}
    for uuid, transform in plan.transforms.items():
        if takes_state(transform.file):
            states[uuid] = _state(model, plan, uuid, context)
    return states


def _state(model: PipelineModel, plan: Plan, uuid: str, context: Callable[[str], StreamContext]) -> StatePlan:
    from streamline.connectors.kafka.settings import source_settings

    sources = [source for source in plan.sources.values() if any(uuid in path for path in plan.paths(source.id))]
    if not any(source.traits.keeps_positions for source in sources):
        return StatePlan(block=uuid, sources=sources)
    other = next((source for source in sources if source.name != KAFKA), None)
    if other is not None:
        raise ConfigError(
            f"block {uuid} takes `state`, which belongs to partitions of Kafka, and '{other.id}' ({other.name}) has "
            "none",
            where=model.where(uuid),
            hint="use one block for the Kafka sources, and one for the others",
            code="state.source_unsupported",
        )
    first = sources[0]
    clusters = {source.traits.cluster for source in sources}
    if len(clusters) > 1:
        raise ConfigError(
            f"block {uuid} takes `state`, and its sources are on different clusters",
            where=model.where(uuid),
            hint="use one block for each cluster",
            code="state.source_unsupported",
        )
    settings = [source_settings(source.config, context(source.id), source.where) for source in sources]
    several = len(settings) > 1 or settings[0].pattern is not None or len(settings[0].topics) > 1
    topic = f"{plan.pipeline}.{uuid}.{{stream}}.state" if several else f"{plan.pipeline}.{uuid}.state"
    # In a transaction with the sinks, that is through their connection.
    end: SourcePlan | SinkPlan = next(iter(plan.sinks.values())) if plan.exactly_once else first
    connection = end if end.name == KAFKA else first
    config: dict[str, Any] = {
        **{key: connection.config[key] for key in CONNECTION_KEYS if key in connection.config},
        "topic": topic,
        "serde_config": {"serialization_method": "RAW_VALUE"},
    }
    traits = connection.connector.describe_sink(config, context(uuid), connection.where)
    log = SinkPlan(
        block=plan.transforms[uuid].block,
        name=KAFKA,
        connector=connection.connector,
        config=config,
        where=connection.where,
        traits=traits,
    )
    return StatePlan(block=uuid, topic=topic, sources=sources, log=log)


def open_state(run: Run, plan: Plan, state: StatePlan, context: Callable[[str], StreamContext]) -> StateStore:
    """Return what keeps the state of a block.

    Args:
        context: returns what the connector of a block is opened with.
    """
    if state.log is None:
        return StoredState(run.store, plan.pipeline, state.block)
    return open_changelog(run, plan, state, state.log, context)


def open_changelog(
    run: Run, plan: Plan, state: StatePlan, log: SinkPlan, context: Callable[[str], StreamContext]
) -> KafkaState:
    """Return what keeps the state of a block in a changelog.

    Args:
        context: returns what the connector of a block is opened with.
    """
    from streamline.connectors.kafka.clients import kafka_client
    from streamline.connectors.kafka.settings import sink_settings, source_settings
    from streamline.connectors.kafka.state_topic import KafkaState, StateTopicOptions

    own = context(state.block)
    connection = sink_settings(log.config, own, log.where).connection
    return KafkaState(
        kafka_client(connection.client, where=log.where("client")),
        StateTopicOptions(
            block=state.block,
            pipeline=plan.pipeline,
            connection=connection,
            topic=state.topic,
            sources=[source_settings(each.config, context(each.id), each.where) for each in state.sources],
            folder=run.project.work_dir / "stream-state" / plan.pipeline / state.block / str(own.slot),
            timeout=plan.settings.startup_timeout,
            note=own.note,
            ending=lambda: run.interrupted is not None,
        ),
    )
