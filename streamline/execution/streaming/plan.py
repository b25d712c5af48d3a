"""The plan of a streaming run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.python.file import BlockFile
from streamline.connectors.stream_connector import Config, SinkTraits, SourceTraits, StreamConnector, Where
from streamline.execution.delivery import Delivery
from streamline.execution.streaming.settings import StreamingSettings
from streamline.pipeline.model import Block

if TYPE_CHECKING:
    from streamline.execution.connector_blocks.streams import SingerPlan

PYTHON = "python"
"""The name of the connector that a block's own class is."""

KAFKA = "kafka"
CONNECTION_KEYS = ("bootstrap_server", "security_protocol", "ssl_config", "sasl_config", "client")
"""What a topic of the pipeline's own takes over from one of its Kafka blocks."""


class EndPlan(msgspec.Struct, kw_only=True):
    """A source or sink block.

    Args:
        name: of its connector.
        config: rendered.
        where: returns `file:line` of a key of the config.
        memory: see `StreamContext.memory`.
    """

    block: Block
    name: str
    connector: StreamConnector
    config: Config
    where: Where
    memory: dict[str, Any] = {}

    @property
    def id(self) -> str:
        """The block's uuid, which is its id in the flow."""
        return self.block.uuid


class SourcePlan(EndPlan, kw_only=True):
    """A source block and what it promises."""

    traits: SourceTraits


class SinkPlan(EndPlan, kw_only=True):
    """A sink block and what it promises."""

    traits: SinkTraits


class TransformPlan(msgspec.Struct, kw_only=True):
    """A transformer block and its file."""

    block: Block
    file: BlockFile


class StatePlan(msgspec.Struct, kw_only=True):
    """The state of a transformer block.

    Args:
        block: its uuid.
        topic: the changelog's name; `{stream}` stands for the source's topic, where there may be several.
        sources: that feed the block.
        log: how the changelog is written and read: as by a Kafka sink. None: the state store has the state, because the
            sources have no log.
    """

    block: str
    sources: list[SourcePlan]
    topic: str = ""
    log: SinkPlan | None = None

    @property
    def sink(self) -> str:
        """The id of the sink for the changelog."""
        return f"{self.block}.state"


class RepartitionPlan(msgspec.Struct, kw_only=True):
    """The topic by which a transformer block gets its messages with another key.

    Args:
        block: its uuid.
        field: of the messages' data, which has the key.
        partitions: of the topic, if it has to be made; None: as many as the largest topic of the sources.
        feeding: the sources before the topic.
        sink: what writes the topic.
        source: what reads it.
    """

    block: str
    field: str
    topic: str
    partitions: int | None
    feeding: list[SourcePlan]
    sink: SinkPlan
    source: SourcePlan


class Plan(msgspec.Struct, kw_only=True):
    """What a run does.

    Args:
        downstream: the blocks directly behind each block, in the order in which they are fed; mappers are left out.
        mappers: the mapper blocks of each tap, in their order: parts of its process.
        variables: of the pipeline, rendered.
        deliveries: what each sink is guaranteed of each source: `(source, sink)`.
        dead_letter: the topic for dead letters, as the config of a Kafka sink; None: the state store.
        states: of transformer blocks, by uuid.
        repartitions: the topics before transformer blocks, by uuid. Their ends are among the sources and sinks.
        singer: its taps and targets, once they were asked; None: it has none.
    """

    pipeline: str
    settings: StreamingSettings
    sources: dict[str, SourcePlan]
    transforms: dict[str, TransformPlan]
    sinks: dict[str, SinkPlan]
    downstream: dict[str, list[str]]
    variables: dict[str, Any]
    mappers: Mapping[str, Sequence[Block]] = {}
    deliveries: Mapping[tuple[str, str], Delivery] = {}
    dead_letter: SinkPlan | None = None
    states: Mapping[str, StatePlan] = {}
    repartitions: Mapping[str, RepartitionPlan] = {}
    singer: SingerPlan | None = None

    @property
    def exactly_once(self) -> bool:
        """Whether messages and offsets are committed in one transaction."""
        return self.settings.delivery == "exactly-once"

    def follow(self, before: Plan) -> None:
        """Go on in the same run after another plan."""
        for uuid, source in self.sources.items():
            if uuid in before.sources:
                source.memory = before.sources[uuid].memory

    def blocks(self) -> list[str]:
        """Return the uuids of all blocks: sources first."""
        mappers = dict.fromkeys(mapper.uuid for behind in self.mappers.values() for mapper in behind)
        return [*self.sources, *mappers, *self.transforms, *self.sinks]

    def paths(self, block: str) -> Iterator[list[str]]:
        """Yield every way from a block to a sink, both included."""
        if block in self.sinks:
            yield [block]
        for below in self.downstream.get(block, ()):
            for path in self.paths(below):
                yield [block, *path]

    def gets_values(self, source: str, stage: str, sink: str | None = None) -> bool:
        """Return whether a block gets what decoding a source's values gives: there is no transformer before it."""
        ways = [path[: path.index(stage)] for path in self.paths(source) if stage in path]
        transformed = any(block in self.transforms for way in ways for block in way)
        return self.sources[source].traits.decoder is not None and bool(ways) and not transformed

    def rekeyed(self, sink: str) -> RepartitionPlan | None:
        """Return the repartition topic that a sink writes."""
        return next((each for each in self.repartitions.values() if each.sink.id == sink), None)

    def read_again(self, source: str) -> RepartitionPlan | None:
        """Return the repartition topic that a source reads."""
        return next((each for each in self.repartitions.values() if each.source.id == source), None)

    def sinks_of(self, source: str) -> list[str]:
        """Return the sinks that a source feeds, each once."""
        return list(dict.fromkeys(path[-1] for path in self.paths(source)))
