"""Plans of the flows of source and destination blocks, made of the same parts as those of integration pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.connector.prepared import Export, ExportedStream, PreparedDestination, PreparedSource
from streamline.blocks.connector.source import OpenedSource
from streamline.blocks.connector.spec import DestinationSpec, SourceSpec
from streamline.connectors.outputs.table_source import TableSource, TableStream, tables_of
from streamline.connectors.plugins import Plugin
from streamline.connectors.singer.capabilities import Capabilities, check_config, probe
from streamline.connectors.singer.catalog import Catalog, CatalogStream
from streamline.connectors.singer.selection import SelectedStream
from streamline.connectors.singer.settings import StreamSettings, parse_streams
from streamline.errors import ConfigError, StreamlineError
from streamline.execution.integration.destination_identity import check_destinations
from streamline.execution.integration.destination_plan import plan_sink, plan_sinks, proving_sinks
from streamline.execution.integration.plan import GroupPlan, PathPlan, Plan, ProvingSink, SinkPlan, SourcePlan
from streamline.execution.integration.planner import (
    SourceRequest,
    choose_streams,
    open_source_block,
    plan_groups,
    resolve_connector,
)
from streamline.execution.integration.positions import Proving

if TYPE_CHECKING:
    from streamline.execution.run import Run
    from streamline.pipeline.model import Block, PipelineModel

OUTPUT = "output"
"""The name of stored outputs where a plan names a plugin."""

_OUTPUT_CAPABILITIES = Capabilities(known=True, discover=False, state=True, names=frozenset({"activate-version"}))
_SETTINGS = (
    "destination_table",
    "unique_constraints",
    "unique_conflict_method",
    "load_method",
    "partition_keys",
    "run_in_parallel",
)
"""Settings of a stream that an entry of a destination's catalog may have."""


class SourceFault(Exception):
    """An error of the source of a pipe, which is none of its destination's."""

    def __init__(self, error: StreamlineError) -> None:
        super().__init__(str(error))
        self.error = error


async def plan_stored(
    run: Run,
    model: PipelineModel,
    block: Block,
    prepared: PreparedSource,
    open_sink: Callable[[], ProvingSink],
    proven_by: Sequence[str],
    variables: dict[str, Any],
    opened: OpenedSource | None = None,
) -> Plan:
    """Plan a source whose records are stored; raise errors as `make_plan`.

    Args:
        opened: the source, if it is open already.
        proven_by: the blocks that prove its positions.
        open_sink: makes the sink that stores them; its id is the block's uuid.
    """
    opened = opened or await open_prepared(run, model, block, prepared)
    destinations = [uuid for uuid in proven_by if uuid != block.uuid]  # a stored output lacks nothing
    source = choose_streams(run, opened, destinations)
    paths = {block.uuid: PathPlan(transforms=[], sinks=[block.uuid], branches=[])}
    spec = DestinationSpec(destination=OUTPUT)
    output = plan_sink(block, spec, _plugin(run, "target"), _OUTPUT_CAPABILITIES, {block.uuid: source}, paths)
    output.open = open_sink
    plan_source_groups(run, source, opened, lambda stream, selected: destinations, variables)
    return _plan(model, [source], paths, output)


async def plan_pipe(
    run: Run,
    model: PipelineModel,
    source_block: Block,
    source: PreparedSource,
    block: Block,
    destination: PreparedDestination,
    variables: dict[str, Any],
    opened: OpenedSource | None = None,
) -> Plan:
    """Plan a source that a destination writes as it is read; raise errors as `make_plan`.

    Args:
        opened: the source, if it is open already.

    Raises:
        SourceFault: the source cannot be read.
    """
    spec = destination_spec(destination)
    try:
        opened = opened or await open_prepared(run, model, source_block, source)
        planned = choose_streams(run, opened, [block.uuid])
    except StreamlineError as error:
        raise SourceFault(error) from error
    paths = {planned.id: PathPlan(transforms=[], sinks=[block.uuid], branches=[])}
    target = await resolve_target(run, block, spec)
    sink = plan_sinks({block.uuid: (block, spec)}, {block.uuid: target}, {planned.id: planned}, paths)[block.uuid]
    plan_source_groups(run, planned, opened, partial(proving_sinks, sinks={block.uuid: spec}), variables)
    plan = _plan(model, [planned], paths, sink)
    await check_destinations(run, plan)
    return plan


class Written(msgspec.Struct):
    """What a destination is known to have of the stored outputs that it writes.

    Args:
        rows: by upstream block and stream: their number, as JSON.
    """

    rows: dict[str, dict[str, str]] = {}
    sink: SinkPlan | None = None

    def begin(self, sink: SinkPlan) -> None:
        """Begin an attempt: what was written elsewhere does not count."""
        if self.sink is None or self.sink.spec != sink.spec:
            self.rows.clear()
        self.sink = sink

    def start(self, block: str) -> dict[str, bytes]:
        """Return after which rows of an upstream block's streams to go on; not where the table is replaced."""
        sink = self.sink
        if sink is None or sink.overwrites:
            return {}
        plans = {stream: sink.plan_of(block, stream) for stream in self.rows.get(block, ())}
        kept = [stream for stream, plan in plans.items() if plan is not None and plan.load_method != "replace"]
        return {stream: self.rows[block][stream].encode() for stream in kept}


async def plan_export(
    run: Run, model: PipelineModel, block: Block, prepared: PreparedDestination, written: Written
) -> Plan:
    """Plan the export of stored outputs; raise errors as `make_plan`.

    Args:
        written: by the attempts before.
    """
    spec = destination_spec(prepared)
    entries = {name: stream for stream in _catalog(prepared) for name in (stream.stream, stream.id)}
    sources = [_exported(run, model, block, export, entries, written) for export in prepared.exports]
    sources = [source for source in sources if source.selected]
    paths = {source.id: PathPlan(transforms=[], sinks=[block.uuid], branches=[]) for source in sources}
    target = await resolve_target(run, block, spec)
    sink = plan_sink(block, spec, *target, {source.id: source for source in sources}, paths)
    written.begin(sink)
    return _plan(model, sources, paths, sink)


def _plan(model: PipelineModel, sources: Sequence[SourcePlan], paths: dict[str, PathPlan], sink: SinkPlan) -> Plan:
    return Plan(
        pipeline=model.uuid,
        sources={source.id: source for source in sources},
        mappers={},
        paths=paths,
        sinks={sink.id: sink},
        confirms=False,
    )


async def open_prepared(run: Run, model: PipelineModel, block: Block, prepared: PreparedSource) -> OpenedSource:
    """Open a source block as it was prepared; raise errors as `open_source`."""
    where = run.project.shown(block.file) if block.file else block.uuid
    over = prepared.catalog
    request = SourceRequest(
        catalog=Catalog(over, where=prepared.catalog_where or where) if over is not None else None,
        discovered=Catalog(prepared.discovered, where=where) if prepared.discovered is not None else None,
    )
    return await open_source_block(run, model, block, prepared.spec, retry=False, request=request)


def plan_source_groups(
    run: Run, source: SourcePlan, opened: OpenedSource, proving: Proving, variables: dict[str, Any]
) -> None:
    """Look up where a source starts, and divide its streams among tap processes.

    Raises:
        ConfigError: it cannot continue from there, or nothing is selected.
    """
    plan_groups(run, source, opened, proving, variables)
    if not source.groups and not source.gone:
        raise ConfigError("no stream is selected", where=opened.where, code="stream.none_selected")


async def resolve_target(run: Run, block: Block, spec: DestinationSpec) -> tuple[Plugin, Capabilities]:
    """Return a destination's target and what it can do; raise errors as `make_plan`."""
    plugin = await resolve_connector(run, spec.destination, "target", block)
    capabilities = await probe(plugin, store=run.store, masker=run.masker)
    check_config(plugin, spec.config, capabilities, where=spec.where or block.uuid)
    return plugin, capabilities


# -- stored outputs as sources


def _exported(
    run: Run,
    model: PipelineModel,
    block: Block,
    export: Export,
    overrides: Mapping[str, CatalogStream],
    written: Written,
) -> SourcePlan:
    """Return an upstream output as a source.

    Args:
        overrides: entries of the destination's catalog, by name.
        written: see `plan_export`.
    """
    exported = [_retyped(stream, overrides) for stream in export.exported]
    streams = [
        SelectedStream(
            id=stream.stream,
            stream=stream.stream,
            names=(stream.stream,),
            # Of a table nobody knows whether it has all rows or the new ones: it replaces nothing unless it is told to.
            replication_method=stream.replication_method,
            key_properties=stream.key_properties,
        )
        for stream in exported
    ]
    entries = [
        {"tap_stream_id": each.stream, "stream": each.stream, "schema": each.schema, "metadata": []}
        for each in exported
    ]

    def open_source(group: GroupPlan) -> TableSource:
        streams = [_table_stream(stream) for stream in exported]
        return TableSource(group.id, streams, start=written.start(export.block))

    source = plan_output(run, model.block(export.block), streams, Catalog({"streams": entries}, where=block.uuid))
    source.open = open_source
    return source


def plan_output(
    run: Run, block: Block, streams: Sequence[SelectedStream], catalog: Catalog | None = None
) -> SourcePlan:
    """Return a block's output as a source, which nothing opens yet."""
    uuid = block.uuid
    group = GroupPlan(id=uuid, source=uuid, streams=tuple(streams), catalog=None, state=b"{}", rows={})
    return SourcePlan(
        block=block,
        spec=SourceSpec(source=OUTPUT),
        plugin=_plugin(run, "tap"),
        config={},
        capabilities=_OUTPUT_CAPABILITIES,
        catalog=catalog,
        selected=list(streams),
        groups=[group] if streams else [],
        max_parallel=1,
        keep_config=lambda config: None,
    )


def _table_stream(stream: ExportedStream) -> TableStream:
    return TableStream(
        stream=stream.stream,
        schema=stream.schema,
        tables=lambda: tables_of(stream.files),
        key_properties=stream.key_properties,
    )


def _catalog(prepared: PreparedDestination) -> Iterable[CatalogStream]:
    where = prepared.catalog_where or prepared.spec.where
    return Catalog(prepared.catalog, where=where) if prepared.catalog is not None else ()


def _columns(stream: CatalogStream) -> Any:
    """Return the setting `columns` that an entry comes to: those of its schema, without those that it deselects."""
    deselected = [
        path[1]
        for path, marks in stream.metadata.items()
        if len(path) == 2 and path[0] == "properties" and marks.get("selected") is False
    ]
    if stream.properties:
        return [name for name in stream.properties if name not in deselected]
    return {"exclude": deselected} if deselected else None


def _retyped(exported: ExportedStream, entries: Mapping[str, CatalogStream]) -> ExportedStream:
    """Return a stream with the types that the destination's catalog gives its columns."""
    entry = entries.get(exported.stream)
    if entry is None or not entry.properties:
        return exported
    properties = {**exported.schema.get("properties", {}), **entry.properties}
    return msgspec.structs.replace(exported, schema={**exported.schema, "properties": properties})


def destination_spec(prepared: PreparedDestination) -> DestinationSpec:
    """Return the destination with the settings of its catalog, which win over those of its file."""
    spec = prepared.spec
    streams: dict[str, dict[str, Any]] = {}
    where = prepared.catalog_where or spec.where
    for stream in _catalog(prepared):
        settings = {name: stream.entry[name] for name in _SETTINGS if stream.entry.get(name)}
        if columns := _columns(stream):
            settings["columns"] = columns
        streams[stream.id] = settings | ({"selected": False} if stream.root.get("selected") is False else {})
    if not streams:
        return spec
    own = parse_streams(streams, "destination", where=lambda path: where)
    return msgspec.structs.replace(spec, streams=StreamSettings((*spec.streams.entries, *own.entries)))


def _plugin(run: Run, role: Any) -> Plugin:
    return Plugin(name=OUTPUT, role=role, argv=[], env={}, cwd=run.project.root, fingerprint=OUTPUT, kind="builtin")
