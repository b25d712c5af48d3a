"""Makes the plan of an integration run: asks the plugins what they are, chooses streams, looks up positions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import anyio
import msgspec

from streamline.blocks.connector.source import OpenedSource, open_source
from streamline.blocks.connector.spec import DestinationSpec, MapperSpec, SourceSpec
from streamline.blocks.connector.stored_settings import move_stored_settings
from streamline.connectors.plugins import Plugin, resolve_plugin
from streamline.connectors.singer.capabilities import Capabilities, check_config, probe
from streamline.connectors.singer.catalog import Catalog, matches
from streamline.connectors.singer.discovery import DiscoveryFailed
from streamline.connectors.singer.grouping import SHARED, StreamGroup, group_streams
from streamline.connectors.singer.selection import SelectedStream, apply_settings, choose, refuse_without_catalog
from streamline.connectors.singer.state import join_state, rows_have_bookmarks
from streamline.errors import ConfigError
from streamline.execution.events import AttemptFailed, failure_from, masked
from streamline.execution.flow_runs import rendered_variables, renderer_of
from streamline.execution.integration.destination_identity import check_destinations
from streamline.execution.integration.destination_plan import check_exclusive_files, plan_sinks, proving_sinks
from streamline.execution.integration.plan import (
    DEFAULT_MAX_PARALLEL,
    GroupPlan,
    MapperPlan,
    Plan,
    SourcePlan,
)
from streamline.execution.integration.positions import (
    BOOKMARK_VARIABLE,
    Positions,
    Proving,
    group_rows,
    refusal,
    source_positions,
)
from streamline.execution.integration.schema_book import loaded_streams
from streamline.execution.integration.topology import find_paths, read_blocks
from streamline.execution.run import Run, checking_options
from streamline.flow.tasks import task_group
from streamline.pipeline.model import Block, PipelineModel, RetryConfig
from streamline.project.suggest import nearest, suggestion


class SourceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a source block asks for beside its `streams:`.

    Args:
        catalog: laid over what the tap discovers and the block's catalog.json.
        discovered: what the tap has discovered in this run.
    """

    catalog: Catalog | None = None
    discovered: Catalog | None = None


NO_REQUEST = SourceRequest()


async def make_plan(context: Run, model: PipelineModel, *, retry: bool = False, show: bool = False) -> Plan:
    """Make the plan of a run and check it.

    Args:
        retry: retry a failed discovery as the source's `retry_config` says.
        show: the plan is only shown: note positions that a run refuses to continue from.

    Raises:
        ConfigError: something can't be done as it is written.
        DiscoveryFailed: a tap failed to discover its streams.
    """
    renderer = renderer_of(context, model)
    move_stored_settings(context.project, model, context.store)
    specs = read_blocks(model, renderer)
    variables = rendered_variables(context, renderer, None if specs.transforms else {BOOKMARK_VARIABLE})
    paths, mappers = find_paths(model, specs)
    opened: dict[str, OpenedSource] = {}
    targets: dict[str, tuple[Plugin, Capabilities]] = {}

    async def open_one(uuid: str) -> None:
        block, spec = specs.sources[uuid]
        opened[uuid] = await open_source_block(context, model, block, spec, retry=retry)

    async def probe_target(uuid: str) -> None:
        block, spec = specs.destinations[uuid]
        plugin = await resolve_connector(context, spec.destination, "target", block)
        capabilities = await probe(plugin, store=context.store, masker=context.masker)
        check_config(plugin, spec.config, capabilities, where=spec.where or block.uuid)
        targets[uuid] = (plugin, capabilities)

    async with task_group() as tasks:
        for uuid in specs.sources:
            tasks.start_soon(open_one, uuid)
        for uuid in specs.destinations:
            tasks.start_soon(probe_target, uuid)
    sources = {uuid: choose_streams(context, opened[uuid], paths[uuid].all_sinks()) for uuid in specs.sources}
    with checking_options():
        check_stream_options(context, sources)
    sinks = plan_sinks(specs.destinations, targets, sources, paths)
    for uuid, source in sources.items():
        feeds = {sink: specs.destinations[sink][1] for sink in paths[uuid].all_sinks()}

        def proving(
            stream: SelectedStream | None,
            selected: Sequence[SelectedStream],
            feeds: dict[str, DestinationSpec] = feeds,
            mapped: bool = bool(mappers.get(uuid)),
        ) -> list[str]:
            # Mappers give streams other names.
            return proving_sinks(None if mapped else stream, selected, feeds)

        plan_groups(context, source, opened[uuid], proving, variables, show=show)
    if not any(source.groups or source.gone for source in sources.values()):
        raise ConfigError("no stream is selected", where=model.yaml.shown, code="stream.none_selected")
    with checking_options():
        check_bookmark_names(context, sources)
    check_bookmark_blocks(model, sources, variables)
    check_exclusive_files(sinks.values(), context.project.root)
    plan = Plan(
        pipeline=model.uuid,
        sources=sources,
        mappers={
            uuid: [await mapper_plan(context, *specs.mappers[name]) for name in names]
            for uuid, names in mappers.items()
        },
        paths=paths,
        sinks=sinks,
        variables=variables,
    )
    try:
        await check_destinations(context, plan)
    except ConfigError as error:
        if not show or error.where not in sources:
            raise
        sources[error.where].notes.append(refusal(error))
    return plan


async def refresh_positions(context: Run, plan: Plan, group: GroupPlan) -> GroupPlan:
    """Return the group for the next attempt, which starts from the positions saved so far."""
    return await anyio.to_thread.run_sync(refreshed_group, context, plan, group)


def refreshed_group(context: Run, plan: Plan, group: GroupPlan) -> GroupPlan:
    """`refresh_positions`, in this thread."""
    source = plan.sources[group.source]
    saved = context.store.bookmarks(plan.pipeline, group.source)
    rows = {stream: bookmark.value.encode("utf-8", "surrogateescape") for stream, bookmark in saved.items()}
    begun = {stream for stream, bookmark in saved.items() if bookmark.run_id == context.run_id}
    kept = {stream: text for stream, text in rows.items() if stream in begun or stream in group.rows}
    # What an override put in its place stands until the run has saved a position of its own.
    kept.update({stream: text for stream, text in group.rows.items() if stream not in {*begun, *source.forgotten}})
    rows = group_rows(kept, group.streams, source.catalog, shared=len(source.groups) > 1)
    return msgspec.structs.replace(group, rows=rows, state=_start_state(rows, source.plugin))


async def resolve_connector(context: Run, name: str, role: Any, block: Block) -> Plugin:
    """Resolve the plugin that a block names; raises as `resolve_plugin`."""
    where = context.project.shown(block.file) if block.file else block.uuid

    def resolve_now() -> Plugin:
        notify = partial(context.note, "streamline")
        return resolve_plugin(context.project, name, role, notify=notify, where=where).for_run(context.run_id)

    return await anyio.to_thread.run_sync(resolve_now)


async def mapper_plan(context: Run, block: Block, spec: MapperSpec) -> MapperPlan:
    """Return the plan of a mapper; raises as `resolve_plugin`."""
    plugin = await resolve_connector(context, spec.mapper, "mapper", block)
    return MapperPlan(block=block, spec=spec, plugin=plugin, config=spec.config)


# -- sources


def choose_streams(context: Run, source: OpenedSource, sinks: Sequence[str]) -> SourcePlan:
    """Return the plan of a source with the streams that it reads, without the processes that read them.

    Args:
        sinks: the destinations that it feeds.

    Raises:
        ConfigError: a stream or setting that cannot be.
    """
    plan = SourcePlan(
        block=source.block,
        spec=source.spec,
        plugin=source.plugin,
        config=source.config,
        capabilities=source.capabilities,
        catalog=source.catalog,
        selected=[],
        groups=[],
        max_parallel=_max_parallel(source.spec, source.plugin),
        keep_config=source.keep_config,
        loaded=loaded_streams(context.store, context.pipeline, source.block.uuid, sinks),
        seen=source.seen,
        only=list(context.options.streams),
        endless=source.spec.max_duration is not None or source.spec.idle_timeout is not None,
        watch=source.watch,
    )
    if source.catalog is None:
        refuse_without_catalog(source.spec.streams, tap=source.plugin.name, where=source.where)
        return plan
    names = _filter_for(context, source.catalog)
    if names is not None:
        plan.selected = choose(
            source.catalog,
            plan.without_vanished(source.spec.streams),
            tap=source.traits,
            stream_filter=names,
            set_aside=plan.set_aside,
            where=source.where,
        )
    return plan


def plan_groups(
    context: Run,
    plan: SourcePlan,
    source: OpenedSource,
    proving: Proving,
    variables: dict[str, Any],
    *,
    show: bool = False,
) -> None:
    """Look up where a source starts, and divide its streams among tap processes; raises as `source_positions`."""
    catalog, selected = source.catalog, plan.selected
    positions = source_positions(context, source, selected, proving, variables, show=show)
    shardable = rows_have_bookmarks(positions.rows)
    if catalog is None:
        groups = [StreamGroup(SHARED, (), parallel=False)]
    else:
        parents = {stream.id: stream.parent for stream in catalog if stream.parent is not None}
        groups = group_streams(selected, shardable=shardable, parents=parents) if selected else []
    plan.groups = [_group(plan.id, group, groups, catalog, positions, source.plugin, source.traits) for group in groups]
    plan.cause_of = positions.cause_of
    plan.overrides = positions.overrides
    plan.left_out = positions.left_out
    plan.passed = positions.passed
    notes = [
        *source.changes,
        *(error.message for error in plan.gone.values() if show),
        *plan.notes,
        *positions.notes,
        *_state_notes(source.plugin, source.capabilities, selected),
    ]
    plan.notes = list(dict.fromkeys(notes))


async def open_source_block(
    context: Run,
    model: PipelineModel,
    block: Block,
    spec: SourceSpec,
    *,
    retry: bool,
    request: SourceRequest = NO_REQUEST,
) -> OpenedSource:
    """Open a source; retry a failed discovery as its `retry_config` says. Raises errors as `open_source`."""
    config = (block.retry_config if retry else None) or RetryConfig()
    attempt = 0
    while True:
        attempt += 1
        try:
            return await open_source(
                context.project,
                model,
                block,
                context.store,
                context.run_dir,
                spec=spec,
                run_id=context.run_id,
                refresh=context.options.refresh_catalog,
                over=request.catalog,
                discovered=request.discovered,
                notify=lambda message: context.note(block.uuid, message),
                log=lambda line: context.child_line(block.uuid, line),
            )
        except DiscoveryFailed as error:
            if attempt > config.retries:
                error.block = block.uuid
                raise
            context.note(block.uuid, f"failed: {error}", "ERROR")
            delay = config.delay_before(attempt)
            failure = masked(failure_from(error), context.masker)
            context.bus.publish(AttemptFailed(block=block.uuid, failure=failure, delay=delay))
            await anyio.sleep(delay)


def _max_parallel(spec: SourceSpec, plugin: Plugin) -> int:
    wanted = spec.max_parallel or DEFAULT_MAX_PARALLEL
    return min(wanted, plugin.max_processes or wanted)


def _state_notes(plugin: Plugin, capabilities: Capabilities, selected: Sequence[SelectedStream]) -> list[str]:
    followed = [stream.id for stream in selected if stream.replication_method in ("INCREMENTAL", "LOG_BASED")]
    if capabilities.state or not followed:
        return []
    return [f"{plugin.name} does not support --state, so every run reads all of {', '.join(followed)} again"]


def _filter_for(context: Run, catalog: Any) -> list[str] | None:
    """Return the names of `--stream` that this source knows; None if the run is about other sources' streams only."""
    wanted = context.options.streams
    if not wanted:
        return []
    return [
        name
        for name in wanted
        if catalog.find(name) is not None or any(matches(name, (stream.id, stream.stream)) for stream in catalog)
    ] or None


def check_stream_options(context: Run, sources: dict[str, SourcePlan]) -> None:
    """Check that the sources have the catalogs that `--stream` chooses from.

    Raises:
        ConfigError: one has none.
    """
    for source in sources.values():
        if context.options.streams and source.catalog is None:
            raise ConfigError(
                f"--stream: {source.plugin.name} has no discovery, so its streams cannot be selected",
                where=source.id,
                hint=f"write its streams to {source.id}/catalog.json in the pipeline's folder if it reads a catalog",
                code="tap.no_discovery",
            )
    names = {
        name for source in sources.values() for stream in source.catalog or () for name in (*stream.names, stream.id)
    }
    shown = {stream.stream for source in sources.values() for stream in source.catalog or ()}
    for name in context.options.streams:
        if not matches(name, names):
            raise ConfigError(
                f"--stream {name}: no source has that stream",
                hint=suggestion(name, nearest(name, names) or shown, what="streams"),
                code="stream.unknown",
            )


def check_bookmark_blocks(model: PipelineModel, sources: Collection[str], variables: Mapping[str, Any]) -> None:
    """Refuse bookmarks in variables for a block that is no source.

    Raises:
        ConfigError: naming it.
    """
    if not variables.get(BOOKMARK_VARIABLE):
        return
    from streamline.connectors.singer.override import parse_overrides  # hardly any run has some

    for block in parse_overrides(variables[BOOKMARK_VARIABLE]):
        if block not in sources:
            raise ConfigError(
                f"{BOOKMARK_VARIABLE}: the pipeline has no source {block!r}",
                where=model.yaml.shown if BOOKMARK_VARIABLE in model.variables else "variables",
                hint=suggestion(block, sources, what="sources"),
                code="source.unknown",
            )


def check_bookmark_names(context: Run, sources: Mapping[str, SourcePlan]) -> None:
    """Refuse `--bookmark` for what no source of the run reads.

    Raises:
        ConfigError: a stream that is not read, or a tap that takes no state.
    """
    if not context.options.bookmarks:
        return
    from streamline.connectors.singer.override import parse_override  # hardly any run has some

    for text in context.options.bookmarks:
        name = parse_override(text).stream
        takers = [source for source in sources.values() if source.catalog is None or source.find(name) is not None]
        if not takers:
            known = {stream.id for source in sources.values() for stream in source.selected}
            raise ConfigError(
                f"--bookmark {text}: this run reads no stream {name!r}",
                hint=suggestion(name, known, what="streams"),
                code="stream.unknown",
            )
        for source in takers:
            if not source.capabilities.state:
                raise ConfigError(
                    f"--bookmark {text}: {source.plugin.name} does not support --state",
                    code="tap.no_state",
                    where=source.id,
                )


def _group(
    source: str,
    group: StreamGroup,
    groups: Sequence[StreamGroup],
    catalog: Any,
    positions: Positions,
    plugin: Plugin,
    traits: Any,
) -> GroupPlan:
    rows = group_rows(positions.rows, group.streams, catalog, shared=len(groups) > 1)
    tap_catalog = apply_settings(catalog, group.streams, tap=traits).data if catalog is not None else None
    name = source if len(groups) == 1 else f"{source}.{'shared' if group.id == SHARED else _file_name(group.id)}"
    return GroupPlan(
        id=name,
        source=source,
        streams=group.streams,
        catalog=tap_catalog,
        state=_start_state(rows, plugin),
        rows=rows,
    )


def _file_name(stream: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stream)


def _start_state(rows: dict[str, bytes], plugin: Plugin) -> bytes:
    state = join_state(rows)
    if plugin.library == "pipelinewise-singer-python" and b'"currently_syncing"' not in state:
        # Its log-based taps look that key up without asking whether it is there.
        state = state.rstrip()[:-1] + b',"currently_syncing":null}'
    return state
