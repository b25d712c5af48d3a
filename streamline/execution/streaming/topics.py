"""Whether the sources and sinks of a streaming pipeline get in each other's way in the topics of a Kafka cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations, product

import msgspec

from streamline.errors import ConfigError
from streamline.execution.streaming.plan import Plan, SinkPlan, SourcePlan

_LITERAL = re.compile(r"(?:[A-Za-z0-9_-]|\\[._-])+")
_MOST_LITERALS = 4


class _Link(msgspec.Struct, frozen=True):
    """What a sink writes of a source's messages is read by a source: `topic`."""

    source: str
    sink: SinkPlan
    topic: str
    reader: str


def check_topics(plan: Plan) -> None:
    """Check that no source reads what its own messages become, and that no two share their messages by mistake.

    Topics that transformers name in the metadata of messages are not known here: a loop that is meant is made so.

    Raises:
        ConfigError: they do.
    """
    loop = _loop(plan)
    if loop is not None:
        last = loop[-1]
        if len(loop) == 1:
            text = f"'{last.reader}' reads the topic {last.topic}, which its messages are written to"
        else:
            way = " → ".join(f"{link.source} → {link.topic}" for link in loop)
            text = f"messages are read again from the topics that they are written to: {way} → {last.reader}"
        raise ConfigError(
            f"{text}: they would go round without end",
            where=last.sink.where("topic"),
            hint="write to another topic, or change the topics that the source reads; a pattern leaves topics out by "
            "`(?!copy-).*`",
            code="kafka.endless_loop",
        )
    for first, second in combinations(plan.sources.values(), 2):
        topic = shared_topic(first, second)
        if topic is not None:
            raise ConfigError(
                f"'{first.id}' and '{second.id}' both read {topic} in {first.traits.positions}: each would get a part "
                "of the messages",
                where=second.where("consumer_group"),
                hint="give one of them a `consumer_group` of its own, or let one source feed several blocks",
                code="setting.conflict",
            )


def _loop(plan: Plan) -> list[_Link] | None:
    """Return the shortest way of messages back to the source that read them; None: there is none."""
    links = {uuid: list(_links(plan, source)) for uuid, source in plan.sources.items()}
    for start in plan.sources:
        ways: list[list[_Link]] = [[link] for link in links[start]]
        seen = {start}
        while ways:
            way = ways.pop(0)
            reader = way[-1].reader
            if reader == start:
                return way
            if reader not in seen:
                seen.add(reader)
                ways += [[*way, link] for link in links[reader]]
    return None


def _links(plan: Plan, source: SourcePlan) -> Iterator[_Link]:
    letters = [plan.dead_letter] if plan.dead_letter is not None else []
    states = [
        state.log
        for state in plan.states.values()
        if state.log is not None and source.id in {each.id for each in state.sources}
    ]
    for sink in [*(plan.sinks[uuid] for uuid in plan.sinks_of(source.id)), *letters, *states]:
        for reader in plan.sources.values():
            topic = _written_and_read(source, sink, reader)
            if topic is not None:
                yield _Link(source.id, sink, topic, reader.id)


def _written_and_read(source: SourcePlan, sink: SinkPlan, reader: SourcePlan) -> str | None:
    """Return a topic that a sink writes a source's messages to, and that a source reads."""
    topic = sink.traits.topic
    if topic is None or sink.traits.cluster is None or sink.traits.cluster != reader.traits.cluster:
        return None
    if "{stream}" not in topic:
        return topic if reader.traits.reads(topic) else None
    pattern = source.traits.topic_pattern
    streams = [*source.traits.topics, *(_examples(pattern) if pattern is not None else ())]
    return next(filter(reader.traits.reads, (topic.replace("{stream}", stream) for stream in streams)), None)


def _examples(pattern: str) -> Iterator[str]:
    """Yield names that a pattern matches: made of what stands in it literally, with letters and digits between."""
    literals = [re.sub(r"\\(.)", r"\1", text) for text in _LITERAL.findall(pattern)][:_MOST_LITERALS]
    for count in range(len(literals), -1, -1):
        for chosen in combinations(literals, count):
            for between in product(("", "x", "1"), repeat=count + 1):
                name = between[0] + "".join(map("".join, zip(chosen, between[1:], strict=True)))
                if name and re.fullmatch(pattern, name):
                    yield name


def shared_topic(first: SourcePlan, second: SourcePlan) -> str | None:
    """Return a topic that two sources read as members of one group."""
    one, other = first.traits, second.traits
    if one.cluster is None or (one.cluster, one.positions) != (other.cluster, other.positions):
        return None
    if one.topic_pattern is not None and one.topic_pattern == other.topic_pattern:
        return one.topic_pattern
    return next((topic for topic in [*one.topics, *other.topics] if one.reads(topic) and other.reads(topic)), None)
