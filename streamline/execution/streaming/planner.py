"""Makes the plan of a streaming run. Everything that can be known without connecting is checked here."""

from __future__ import annotations

from functools import partial
from typing import Any

from streamline.connectors.registry import find_stream_connector
from streamline.connectors.stream_connector import StreamContext
from streamline.execution.flow_runs import rendered_variables, renderer_of
from streamline.execution.run import Run
from streamline.execution.streaming.delivery import check_delivery, deliveries_of
from streamline.execution.streaming.plan import CONNECTION_KEYS, KAFKA, Plan, SinkPlan
from streamline.execution.streaming.repartitions import add_repartitions
from streamline.execution.streaming.settings import StreamingSettings, key_path, streaming_settings
from streamline.execution.streaming.states import states_of
from streamline.execution.streaming.topics import check_topics
from streamline.execution.streaming.topology import Blocks, read_blocks
from streamline.pipeline.model import PipelineModel


def make_plan(run: Run, model: PipelineModel) -> Plan:
    """Make the plan of a run and check it. Nothing is connected, and no user code runs.

    Raises:
        ConfigError: something cannot be done as it is written.
    """
    renderer = renderer_of(run, model)
    settings = streaming_settings(model, renderer)
    blocks = read_blocks(model, renderer, lambda block: context_of(run, model.uuid, settings, block))
    plan = Plan(
        pipeline=model.uuid,
        settings=settings,
        sources=blocks.sources,
        transforms=blocks.transforms,
        sinks=blocks.sinks,
        downstream=blocks.downstream,
        mappers=blocks.mappers,
        variables=rendered_variables(run, renderer),
        dead_letter=_dead_letter(run, model, settings, blocks),
    )
    context = partial(context_of, run, model.uuid, settings)
    add_repartitions(model, plan, context)
    plan.states = states_of(model, plan, context)
    check_delivery(model, plan)
    _check_instances(model, plan)
    _check_park(model, plan)
    check_topics(plan)
    plan.deliveries = deliveries_of(plan)
    return plan


def context_of(run: Run, pipeline: str, settings: StreamingSettings, block: str, **more: Any) -> StreamContext:
    """Return what the connector of a block is opened with."""

    def note(message: str, level: str = "INFO") -> None:
        if level == "WARNING":
            run.warn(block, message)
        else:
            run.note(block, message, level)

    return StreamContext(
        pipeline=pipeline,
        block=block,
        root=run.project.root,
        run_id=run.run_id,
        slot=run.options.slot or 0,
        delivery=settings.delivery,
        checkpoint_interval=settings.checkpoint_interval,
        startup_timeout=settings.startup_timeout,
        until_caught_up=run.options.until_caught_up,
        set_aside=settings.on_error == "dead-letter",
        note=note,
        secret=run.masker.add,
        **more,
    )


def _dead_letter(run: Run, model: PipelineModel, settings: StreamingSettings, blocks: Blocks) -> SinkPlan | None:
    """Return the topic for dead letters, as a Kafka sink."""
    if settings.dead_letter is None:
        return None
    kafka = next((end for end in (*blocks.sources.values(), *blocks.sinks.values()) if end.name == KAFKA), None)
    connector = find_stream_connector(KAFKA)
    if connector is None or (kafka is None and not settings.dead_letter.get("bootstrap_server")):
        raise model.yaml.error(
            "dead_letter needs a bootstrap_server: no block of the pipeline names a Kafka cluster",
            ("dead_letter",),
            code="setting.invalid",
        )

    def where(*keys: Any) -> str:
        return model.yaml.where(("dead_letter", *key_path(keys)))

    inherited = {}
    if kafka is not None and not settings.dead_letter.get("bootstrap_server"):
        inherited = {key: kafka.config[key] for key in CONNECTION_KEYS if key in kafka.config}
    config = {**inherited, **settings.dead_letter}
    block = kafka.block if kafka is not None else next(iter(blocks.sources.values())).block
    traits = connector.describe_sink(config, context_of(run, model.uuid, settings, block.uuid), where)
    return SinkPlan(block=block, name=KAFKA, connector=connector, config=config, where=where, traits=traits)


def _check_park(model: PipelineModel, plan: Plan) -> None:
    if plan.settings.park and not any(source.traits.ordered for source in plan.sources.values()):
        names = ", ".join(f"'{source.id}' ({source.name})" for source in plan.sources.values())
        raise model.yaml.error(
            f"park: key has no effect: messages of {names} have no keys with offsets",
            ("park",),
            hint="remove park; it is for sources such as Kafka",
            code="setting.conflict",
        )


def _check_instances(model: PipelineModel, plan: Plan) -> None:
    if plan.settings.instances == 1:
        return
    if any(sink.name == "stdout" for sink in plan.sinks.values()):
        raise model.yaml.error(
            f"instances: {plan.settings.instances} processes cannot share the standard output",
            ("instances",),
            hint="remove instances",
            code="setting.conflict",
        )
    other = next((source for source in plan.sources.values() if not source.traits.keeps_positions), None)
    if other is not None:
        raise model.yaml.error(
            f"instances: {plan.settings.instances} needs sources that share their work in consumer groups, and "
            f"'{other.id}' ({other.name}) is none",
            ("instances",),
            hint="remove instances",
            code="setting.conflict",
        )
