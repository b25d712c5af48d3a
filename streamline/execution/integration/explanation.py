"""What `explain` says about a plan, as data: one struct for each kind of thing that a plan has."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from streamline.execution.delivery import Delivery


class PluginWords(msgspec.Struct):
    """A plugin: its name, its version where that is known, and where it runs."""

    name: str
    version: str | None
    runs: str


class Start(msgspec.Struct):
    """Where a stream starts: `kind` is store, start or override; `value` the bookmark's JSON text, if there is one."""

    kind: str
    why: str
    value: str | None = None
    saved_at: str | None = None
    run_id: str | None = None


class StreamWords(msgspec.Struct):
    """A stream that is read.

    Args:
        stream: its id.
        replication_method: None where only the tap knows.
        bookmark_properties: what its position is about.
        process: the tap process that reads it.
        columns: those that are read; None: all.
    """

    stream: str
    replication_method: str | None
    bookmark_properties: list[str]
    key_properties: list[str]
    start: Start
    process: str
    columns: list[str] | None


class ProcessWords(msgspec.Struct):
    """A tap process: the streams that it reads, and why these."""

    id: str
    streams: list[str]
    why: str


class BatchWords(msgspec.Struct):
    """BATCH messages: the dialects that are passed on as files; all others are expanded into records."""

    passed: list[str]
    why: str


class SourceWords(msgspec.Struct):
    """A source block.

    Args:
        start: where a tap without a catalog starts; None where each stream has a start of its own.
        ends: what ends a tap that would not end by itself; empty where nothing does.
        left_out: LOG_BASED streams with a position that this run does not read.
    """

    block: str
    plugin: PluginWords
    streams: list[StreamWords]
    processes: list[ProcessWords]
    max_parallel: int
    batch: BatchWords
    mappers: list[str]
    start: Start | None
    ends: str
    left_out: list[str]
    notes: list[str]


class TransformerWords(msgspec.Struct):
    """A transformer block and the lane in which it is fed (`rows` or `arrow`); `workers` 0: a thread."""

    block: str
    lane: str
    workers: int


class TableWords(msgspec.Struct):
    """A stream on its way into its table."""

    source: str
    stream: str
    table: str
    load_method: str
    why: str
    key: list[str]
    process: str
    on_bad_record: str
    schema_change: str
    delivery: Delivery


class DestinationWords(msgspec.Struct):
    """A destination block.

    Args:
        tables: of the streams that are known before the start.
        session_interval: seconds; None: one session from start to end.
        proof: what proves that records are durable.
        notes: what else the user should know.
    """

    block: str
    plugin: PluginWords
    processes: list[str]
    processes_why: str
    tables: list[TableWords]
    on_bad_record: str
    schema_change: str
    session_interval: float | None
    proof: str
    notes: list[str]


class EdgeWords(msgspec.Struct):
    """A way from a source to a destination, through these blocks, and how safely records arrive by it."""

    source: str
    through: list[str]
    destination: str
    delivery: Delivery


class FlowExplanation(msgspec.Struct):
    """A plan in words."""

    view: ClassVar[Literal["flow"]] = "flow"

    pipeline: str
    sources: list[SourceWords]
    transformers: list[TransformerWords]
    destinations: list[DestinationWords]
    edges: list[EdgeWords]
    callbacks: list[str] = []
