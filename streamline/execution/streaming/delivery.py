"""What each sink of a streaming pipeline is guaranteed of each source, and whether what is asked for can be kept."""

from __future__ import annotations

from streamline.errors import ConfigError
from streamline.execution.delivery import Delivery, Grade
from streamline.execution.streaming.plan import Plan, SinkPlan, SourcePlan
from streamline.pipeline.model import PipelineModel


def deliveries_of(plan: Plan) -> dict[tuple[str, str], Delivery]:
    """Return the grade of each edge from a source to a sink, why it has it, and what would raise it."""
    return {
        (source.id, sink): delivery_of(source, plan.sinks[sink], exactly_once=plan.exactly_once)
        for source in plan.sources.values()
        for sink in plan.sinks_of(source.id)
    }


def delivery_of(source: SourcePlan, sink: SinkPlan, *, exactly_once: bool) -> Delivery:
    """Return the grade of one edge.

    Positions are saved only after the sink's proof, so another attempt sends again what was not proven. What that
    does to the sink decides.
    """
    if not source.traits.replays:
        return Delivery(
            Grade.AT_MOST_ONCE,
            f"{source.id} cannot give messages again: those in flight when the run fails are lost",
            source.traits.would_replay,
        )
    if exactly_once:
        return Delivery(Grade.EXACTLY_ONCE, "messages and offsets are committed in one transaction")
    if sink.traits.replaces:
        return Delivery(Grade.EFFECTIVELY_ONCE, "a message that is sent again replaces what it wrote")
    why = "after a failure, messages since the last proof are sent again"
    if source.traits.cluster is not None and source.traits.cluster == sink.traits.cluster:
        return Delivery(Grade.AT_LEAST_ONCE, why, "delivery: exactly-once")
    if sink.traits.cluster is not None:
        return Delivery(Grade.AT_LEAST_ONCE, why, f"a source on {sink.id}'s Kafka cluster, and delivery: exactly-once")
    return Delivery(Grade.AT_LEAST_ONCE, why, "a sink that replaces by key")


def check_delivery(model: PipelineModel, plan: Plan) -> None:
    """Check that the delivery that the pipeline asks for can be kept.

    Raises:
        ConfigError: it cannot; nothing weaker is used in its place.
    """
    if not plan.exactly_once:
        return
    ends: list[SourcePlan | SinkPlan] = [*plan.sources.values(), *plan.sinks.values()]
    clusters = {end.id: end.traits.cluster for end in ends}
    outside = next((end for end in ends if clusters[end.id] is None), None)
    if outside is not None:
        raise _impossible(
            model,
            f"'{outside.id}' ({outside.name}) takes no part in Kafka's transactions",
            "exactly-once needs Kafka on both sides; remove `delivery`, and see the grades in `streamline explain "
            f"{model.uuid}`",
        )
    first = ends[0]
    other = next((end for end in ends if clusters[end.id] != clusters[first.id]), None)
    if other is not None:
        raise _impossible(
            model,
            f"'{first.id}' and '{other.id}' are on different Kafka clusters ({clusters[first.id]} and "
            f"{clusters[other.id]}), and no transaction spans two",
            "use one cluster (the same bootstrap servers), or remove `delivery`",
        )
    other = next((end for end in ends if end.traits.client != first.traits.client), None)
    if other is not None:
        raise _impossible(
            model,
            f"'{first.id}' uses the client {first.traits.client} and '{other.id}' {other.traits.client}, and the "
            "offsets in a transaction have to come from its own client",
            "give all blocks the same `client:` (without one it is confluent where that is installed)",
        )
    if plan.settings.on_error == "stop":
        return
    if plan.dead_letter is None:
        raise _impossible(
            model,
            "dead letters in the state store are not part of the transaction",
            "write `dead_letter: {topic: NAME}`, or `on_error: stop`",
        )
    cluster = plan.dead_letter.traits.cluster
    if cluster != clusters[first.id]:
        raise _impossible(
            model,
            f"the topic for dead letters is on another Kafka cluster ({cluster})",
            "leave out its bootstrap_server",
        )


def _impossible(model: PipelineModel, why: str, hint: str) -> ConfigError:
    return model.yaml.error(
        f"delivery: exactly-once cannot be kept: {why}", ("delivery",), hint=hint, code="delivery.impossible"
    )
