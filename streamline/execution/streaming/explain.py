"""The plan of a streaming run in words: where messages are decoded and copied, and how safely they arrive."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from streamline.execution.delivery import Delivery
from streamline.execution.streaming.plan import Plan
from streamline.execution.streaming.routes import route_plan
from streamline.pipeline.model import PipelineModel

STATE_STORE = "state store"


class StreamSourceWords(msgspec.Struct):
    """A source block.

    Args:
        reads: the topics and the cluster, if they are Kafka's.
        positions: where they are kept.
        decoded: whether its values are decoded on the way; False: they pass as bytes, or come decoded.
        mappers: of a tap: the mapper blocks behind it.
    """

    block: str
    connector: str
    positions: str
    replays: bool
    decoded: bool
    mappers: list[str] = []
    reads: str | None = None


class StreamRepartitionWords(msgspec.Struct):
    """The topic by which messages come to a transformer block with another key, and the field that has the key."""

    field: str
    topic: str


class StreamTransformerWords(msgspec.Struct):
    """A transformer block, the sources that feed it, and whether it gets copies of messages that others get, too.

    Args:
        state: the changelog of its state; `{stream}` stands for the source's topic. `STATE_STORE`: that has it. None:
            it has no state.
    """

    block: str
    sources: list[str]
    copies: bool
    state: str | None = None
    repartition: StreamRepartitionWords | None = None


class StreamSinkWords(msgspec.Struct):
    """A sink block, and when its messages count as durable; `writes`: its topic and cluster, if they are Kafka's."""

    block: str
    connector: str
    proof: str
    copies: bool
    writes: str | None = None


class StreamEdgeWords(msgspec.Struct):
    """A way from a source to a sink, through these blocks."""

    source: str
    through: list[str]
    destination: str
    delivery: Delivery


class StreamExplanation(msgspec.Struct):
    """A plan in words."""

    view: ClassVar[Literal["stream"]] = "stream"

    pipeline: str
    delivery: str
    checkpoint_interval: float
    on_error: str
    dead_letters: str | None
    instances: int
    sources: list[StreamSourceWords]
    transformers: list[StreamTransformerWords]
    destinations: list[StreamSinkWords]
    edges: list[StreamEdgeWords]
    callbacks: list[str] = []


def explain(model: PipelineModel, plan: Plan) -> StreamExplanation:
    """Put a plan into words."""
    routes = {source: list(route_plan(plan, source).all_steps()) for source in plan.sources}
    copied = {step.block for steps in routes.values() for step in steps if step.kind == "copy"}
    return StreamExplanation(
        pipeline=plan.pipeline,
        delivery=plan.settings.delivery,
        checkpoint_interval=plan.settings.checkpoint_interval,
        on_error=plan.settings.on_error,
        dead_letters=_dead_letters(plan),
        instances=plan.settings.instances,
        sources=[
            StreamSourceWords(
                block=uuid,
                connector=source.name,
                positions=source.traits.positions,
                replays=source.traits.replays,
                decoded=any(step.kind == "decode" for step in routes[uuid]),
                mappers=[mapper.uuid for mapper in plan.mappers.get(uuid, ())],
                reads=_place(source.traits.topic_pattern or ", ".join(source.traits.topics), source.traits.cluster),
            )
            for uuid, source in plan.sources.items()
        ],
        transformers=[
            StreamTransformerWords(
                uuid,
                [source for source, steps in routes.items() if any(step.block == uuid for step in steps)],
                uuid in copied,
                (plan.states[uuid].topic or STATE_STORE) if uuid in plan.states else None,
                _repartition(plan, uuid),
            )
            for uuid in plan.transforms
        ],
        destinations=[
            StreamSinkWords(
                uuid, sink.name, sink.traits.proof, uuid in copied, _place(sink.traits.topic or "", sink.traits.cluster)
            )
            for uuid, sink in plan.sinks.items()
        ],
        edges=[
            StreamEdgeWords(source, path[1:-1], path[-1], plan.deliveries[source, path[-1]])
            for source in plan.sources
            for path in plan.paths(source)
        ],
        callbacks=[callback.uuid for callback in model.callbacks.values() if not callback.upstream],
    )


def _repartition(plan: Plan, block: str) -> StreamRepartitionWords | None:
    each = plan.repartitions.get(block)
    return StreamRepartitionWords(each.field, each.topic) if each is not None else None


def _place(topics: str, cluster: str | None) -> str | None:
    return f"{topics} at {cluster}" if topics and cluster is not None else None


def _dead_letters(plan: Plan) -> str | None:
    if plan.settings.on_error == "stop":
        return None
    return f"the topic {plan.dead_letter.config['topic']}" if plan.dead_letter is not None else "the state database"
