"""Whether the sources and sinks of a streaming pipeline get in each other's way in the topics of a Kafka cluster."""

from __future__ import annotations

from itertools import combinations

from streamline.errors import ConfigError
from streamline.execution.streaming.plan import Plan, SinkPlan, SourcePlan


def check_topics(plan: Plan) -> None:
    """Check that no source reads what its own messages become, and that no two share their messages by mistake.

    Raises:
        ConfigError: they do.
    """
    for source in plan.sources.values():
        letters = [plan.dead_letter] if plan.dead_letter is not None else []
        states = [
            state.log
            for state in plan.states.values()
            if state.log is not None and source.id in {each.id for each in state.sources}
        ]
        for sink in [*(plan.sinks[uuid] for uuid in plan.sinks_of(source.id)), *letters, *states]:
            topic = _written_and_read(source, sink)
            if topic is not None:
                raise ConfigError(
                    f"'{source.id}' reads the topic {topic}, which its messages are written to: they would go round "
                    "without end",
                    where=sink.where("topic"),
                    hint="write to another topic, or change the topics that the source reads",
                    code="kafka.endless_loop",
                )
    for first, second in combinations(plan.sources.values(), 2):
        topic = _shared(first, second)
        if topic is not None:
            raise ConfigError(
                f"'{first.id}' and '{second.id}' both read {topic} in {first.traits.positions}: each would get a part "
                "of the messages",
                where=second.where("consumer_group"),
                hint="give one of them a `consumer_group` of its own, or let one source feed several blocks",
                code="setting.conflict",
            )


def _written_and_read(source: SourcePlan, sink: SinkPlan) -> str | None:
    """Return a topic that a source reads and its sink writes to."""
    topic = sink.traits.topic
    if topic is None or source.traits.cluster is None or source.traits.cluster != sink.traits.cluster:
        return None
    # Which topics a pattern reads is not known here; one that takes any name takes this, too.
    streams = source.traits.topics or ["STREAM"]
    written = [topic.replace("{stream}", stream) for stream in streams] if "{stream}" in topic else [topic]
    return next(filter(source.traits.reads, written), None)


def _shared(first: SourcePlan, second: SourcePlan) -> str | None:
    """Return a topic that two sources read as members of one group."""
    one, other = first.traits, second.traits
    if one.cluster is None or (one.cluster, one.positions) != (other.cluster, other.positions):
        return None
    if one.topic_pattern is not None and one.topic_pattern == other.topic_pattern:
        return one.topic_pattern
    return next((topic for topic in [*one.topics, *other.topics] if one.reads(topic) and other.reads(topic)), None)
