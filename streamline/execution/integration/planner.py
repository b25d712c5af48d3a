"""Makes the plan of an integration run: asks the plugins what they are, chooses streams, looks up positions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import msgspec

from streamline.blocks.integration import (
    DestinationSpec,
    MapperSpec,
    SourceSpec,
    load_spec,
    stored_layer,
)
from streamline.blocks.source import open_source
from streamline.errors import ConfigError
from streamline.execution.integration.context import RunContext
from streamline.execution.integration.plan import (
    DEFAULT_MAX_PARALLEL,
    GroupPlan,
    MapperPlan,
    PathPlan,
    Plan,
    SinkPlan,
    SourcePlan,
    TransformPlan,
)
from streamline.execution.integration.positions import BOOKMARK_VARIABLE, Positions, group_rows, source_positions
from streamline.flow.tasks import task_group
from streamline.pipeline.model import Block, PipelineModel
from streamline.project.nearest import suggestion
from streamline.project.plugins import Plugin, resolve_plugin
from streamline.project.render import Renderer
from streamline.singer.capabilities import Capabilities, probe
from streamline.singer.grouping import SHARED, StreamGroup, group_streams
from streamline.singer.override import parse_override, parse_overrides
from streamline.singer.selection import SelectedStream, apply_settings, choose, refuse_without_catalog
from streamline.singer.settings import Layer, Resolved, check_destination_names, resolve, resolve_destination
from streamline.singer.stages.destination import StreamPlan, check_tables, plan_stream
from streamline.singer.state import join_state, rows_have_bookmarks


class _Specs(msgspec.Struct):
    """The pipeline's blocks by what they are."""

    sources: dict[str, tuple[Block, SourceSpec]] = {}
    destinations: dict[str, tuple[Block, DestinationSpec]] = {}
    mappers: dict[str, tuple[Block, MapperSpec]] = {}
    transforms: dict[str, TransformPlan] = {}


async def make_plan(context: RunContext, model: PipelineModel) -> Plan:
    """Everything that is needed to run, checked.

    Raises:
        ConfigError: something can't be done as it is written.
    """
    if model.type != "integration":
        raise ConfigError(
            f"pipeline '{model.uuid}' is of type {model.type}; this version runs integration pipelines",
            where=model.yaml.shown,
        )
    _refuse_conditionals(model)
    renderer, variables = _renderer(context, model)
    specs = _read_blocks(model, renderer)
    variables = _rendered(context, renderer, variables, all_of_them=bool(specs.transforms))
    paths, mappers = _paths(model, specs)
    sources: dict[str, SourcePlan] = {}
    targets: dict[str, tuple[Plugin, Capabilities]] = {}

    async def plan_source(uuid: str) -> None:
        block, spec = specs.sources[uuid]
        sources[uuid] = await _plan_source(context, model, block, spec, paths[uuid].all_sinks(), variables)

    async def probe_target(uuid: str) -> None:
        block, spec = specs.destinations[uuid]
        plugin = await _resolve(context, spec.destination, "target", block)
        targets[uuid] = (plugin, await probe(plugin, store=context.store, masker=context.masker))

    async with task_group() as tasks:
        for uuid in specs.sources:
            tasks.start_soon(plan_source, uuid)
        for uuid in specs.destinations:
            tasks.start_soon(probe_target, uuid)
    _check_stream_options(context, sources)
    if not any(source.groups for source in sources.values()):
        raise ConfigError("there is nothing to read", where=model.yaml.shown)
    _check_bookmark_options(context, model, sources, variables)
    ordered = {uuid: sources[uuid] for uuid in specs.sources}
    return Plan(
        pipeline=model.uuid,
        sources=ordered,
        mappers={
            uuid: [
                MapperPlan(
                    block=block,
                    spec=spec,
                    plugin=await _resolve(context, spec.mapper, "mapper", block),
                    config=spec.config,
                )
                for block, spec in (specs.mappers[name] for name in names)
            ]
            for uuid, names in mappers.items()
        },
        paths=paths,
        sinks={
            uuid: _plan_sink(context, block, spec, *targets[uuid], ordered, paths)
            for uuid, (block, spec) in specs.destinations.items()
        },
        variables=variables,
    )


async def refresh_positions(context: RunContext, plan: Plan, group: GroupPlan) -> GroupPlan:
    """The group as the next attempt starts it: from what is saved by now."""
    source = plan.sources[group.source]
    saved = await anyio.to_thread.run_sync(context.store.bookmarks, plan.pipeline, group.source)
    rows = {stream: bookmark.value.encode("utf-8", "surrogateescape") for stream, bookmark in saved.items()}
    begun = {stream for stream, bookmark in saved.items() if bookmark.run_id == context.run_id}
    kept = {stream: text for stream, text in rows.items() if stream in begun or stream in group.rows}
    # What an override put in its place stands until the run has saved a position of its own.
    kept.update({stream: text for stream, text in group.rows.items() if stream not in begun})
    rows = group_rows(kept, group.streams, source.catalog, shared=len(source.groups) > 1)
    return msgspec.structs.replace(group, rows=rows, state=_start_state(rows, source.plugin))


def _renderer(context: RunContext, model: PipelineModel) -> tuple[Renderer, dict[str, Any]]:
    project = context.project
    variables = {**project.variables, **model.variables, **context.options.variables}
    return Renderer(project, variables, project.secrets, runtime=context.options.variables), variables


def _rendered(
    context: RunContext, renderer: Renderer, variables: dict[str, Any], *, all_of_them: bool
) -> dict[str, Any]:
    """Variables as blocks get them. Those of the command line are data, and never rendered."""
    used = variables if all_of_them else variables.keys() & {BOOKMARK_VARIABLE}
    return {
        name: renderer.render(value, f"variable {name}")
        if name in used and name not in context.options.variables
        else value
        for name, value in variables.items()
    }


async def _resolve(context: RunContext, name: str, role: Any, block: Block) -> Plugin:
    where = context.project.shown(block.file) if block.file else block.uuid

    def resolve_now() -> Plugin:
        notify = partial(context.note, "streamline")
        return resolve_plugin(context.project, name, role, notify=notify, where=where).for_run(context.run_id)

    return await anyio.to_thread.run_sync(resolve_now)


# -- blocks and paths


def _read_blocks(model: PipelineModel, renderer: Renderer) -> _Specs:
    from streamline.blocks.python_function import BlockFile, shape_of

    specs = _Specs({}, {}, {}, {})
    for uuid in model.order():
        block = model.blocks[uuid]
        if block.language == "yaml" and block.type in ("data_loader", "data_exporter", "transformer"):
            match load_spec(block, renderer):
                case SourceSpec() as source:
                    specs.sources[uuid] = (block, source)
                case DestinationSpec() as destination:
                    specs.destinations[uuid] = (block, destination)
                case MapperSpec() as mapper:
                    specs.mappers[uuid] = (block, mapper)
        elif block.type == "transformer" and block.language == "python":
            file = BlockFile(uuid, str(block.file or model.yaml.path), block.content)
            specs.transforms[uuid] = TransformPlan(block=block, file=file, lane=shape_of(file).lane)
        else:
            raise ConfigError(
                f"a {block.type} in {block.language} can't stand in an integration pipeline",
                where=model.where(uuid),
                hint="It takes sources and destinations (data_loader and data_exporter in YAML), transformers in "
                "Python, and mappers (transformers in YAML).",
            )
    return specs


def _refuse_conditionals(model: PipelineModel) -> None:
    """Refuse what would be ignored and must not be.

    Raises:
        ConfigError: blocks are gated, or watched.
    """
    for what, blocks in (("conditional", model.conditionals), ("callback", model.callbacks)):
        for uuid in blocks:
            raise ConfigError(
                f"the {what} '{uuid}' can't be kept: this version runs the live pipe of an integration pipeline only",
                where=model.where(uuid),
                hint=f"Take it out of `{what}s:`.",
            )


def _paths(model: PipelineModel, specs: _Specs) -> tuple[dict[str, PathPlan], dict[str, list[str]]]:
    downstream: dict[str, list[str]] = {uuid: [] for uuid in model.blocks}
    for uuid in model.order():
        for upstream in model.blocks[uuid].upstream:
            downstream[upstream].append(uuid)
    for uuid in specs.destinations:
        if downstream[uuid]:
            raise ConfigError(f"destination '{uuid}' has blocks after it", where=model.where(uuid))
    for uuid in (*specs.destinations, *specs.transforms, *specs.mappers):
        if not model.blocks[uuid].upstream:
            raise ConfigError(
                f"block '{uuid}' has nothing before it",
                where=model.where(uuid),
                hint="Name the block that feeds it under upstream_blocks.",
            )
    for uuid in specs.sources:
        if model.blocks[uuid].upstream:
            raise ConfigError(
                f"source '{uuid}' has blocks before it",
                where=model.where(uuid, "upstream_blocks"),
                hint="In an integration pipeline a source is where records begin.",
            )
    if not specs.sources or not specs.destinations:
        missing = "source" if not specs.sources else "destination"
        raise ConfigError(
            f"the pipeline has no {missing}",
            where=model.yaml.shown,
            hint=f"Add one: streamline add {missing} NAME --pipeline {model.uuid}",
        )
    mappers: dict[str, list[str]] = {}
    paths: dict[str, PathPlan] = {}
    for source in specs.sources:
        mappers[source], after = _leading_mappers(model, specs, downstream, source)
        paths[source] = _path(model, specs, after, downstream)
        if not paths[source].all_sinks():
            raise ConfigError(
                f"source '{source}' leads to no destination",
                where=model.where(source),
                hint="Name it under a destination's upstream_blocks.",
            )
    return paths, mappers


def _leading_mappers(
    model: PipelineModel, specs: _Specs, downstream: dict[str, list[str]], source: str
) -> tuple[list[str], list[str]]:
    """Mappers right behind a source, and the blocks after them."""
    found: list[str] = []
    after = downstream[source]
    while len(after) == 1 and after[0] in specs.mappers:
        found.append(after[0])
        after = downstream[after[0]]
    return found, after


def _path(model: PipelineModel, specs: _Specs, after: list[str], downstream: dict[str, list[str]]) -> PathPlan:
    transforms: list[TransformPlan] = []
    while len(after) == 1 and after[0] in specs.transforms:
        transforms.append(specs.transforms[after[0]])
        after = downstream[after[0]]
    sinks: list[str] = []
    branches: list[PathPlan] = []
    for uuid in after:
        if uuid in specs.mappers:
            raise ConfigError(
                f"mapper '{uuid}' must stand right behind its source, alone",
                where=model.where(uuid),
                hint="Put it between the source and everything else; what only one destination needs, do in a "
                "transformer.",
            )
        if uuid in specs.destinations:
            sinks.append(uuid)
        else:
            branches.append(_path(model, specs, [uuid], downstream))
    return PathPlan(transforms=transforms, sinks=sinks, branches=branches)


# -- sources


async def _plan_source(
    context: RunContext,
    model: PipelineModel,
    block: Block,
    spec: SourceSpec,
    sinks: Sequence[str],
    variables: dict[str, Any],
) -> SourcePlan:
    source = await open_source(
        context.project,
        model,
        block,
        context.store,
        context.run_dir,
        spec=spec,
        run_id=context.run_id,
        refresh=context.options.refresh_catalog,
        notify=lambda message: context.note(block.uuid, message),
        log=lambda line: context.log.child(f"{block.uuid} discovery", line),
    )
    catalog, traits = source.catalog, source.traits
    selected: list[SelectedStream] = []
    if catalog is None:
        refuse_without_catalog(source.layers, tap=source.plugin.name, where=source.where)
    else:
        names = _filter_for(context, catalog)
        selected = (
            [] if names is None else choose(catalog, source.layers, tap=traits, stream_filter=names, where=source.where)
        )
    positions = source_positions(
        context,
        pipeline=model.uuid,
        block=block.uuid,
        catalog=catalog,
        selected=selected,
        sinks=sinks,
        traits=traits,
        variables=variables,
    )
    shardable = rows_have_bookmarks(positions.rows)
    if catalog is None:
        groups = [StreamGroup(SHARED, (), parallel=False)]
    else:
        parents = {stream.id: stream.parent for stream in catalog if stream.parent is not None}
        groups = group_streams(selected, shardable=shardable, parents=parents) if selected else []
    return SourcePlan(
        block=block,
        spec=spec,
        plugin=source.plugin,
        config=source.config,
        capabilities=source.capabilities,
        catalog=catalog,
        selected=selected,
        groups=[_group(block.uuid, group, groups, catalog, positions, source.plugin, traits) for group in groups],
        max_parallel=_max_parallel(spec, source.plugin),
        cause_of=positions.cause_of,
        overrides=positions.overrides,
        left_out=positions.left_out,
        passed=positions.passed,
        notes=[*positions.notes, *_state_notes(source.plugin, source.capabilities, selected)],
        endless=spec.max_duration is not None or spec.idle_timeout is not None,
    )


def _max_parallel(spec: SourceSpec, plugin: Plugin) -> int:
    wanted = spec.max_parallel or DEFAULT_MAX_PARALLEL
    return min(wanted, plugin.max_processes or wanted)


def _state_notes(plugin: Plugin, capabilities: Capabilities, selected: Sequence[SelectedStream]) -> list[str]:
    followed = [one.id for one in selected if one.replication_method in ("INCREMENTAL", "LOG_BASED")]
    if capabilities.state or not followed:
        return []
    return [f"{plugin.name} takes no --state, so that every run reads all of {', '.join(followed)} again"]


def _filter_for(context: RunContext, catalog: Any) -> list[str] | None:
    """The names of `--stream` that this source knows; None if the run is about other sources' streams only."""
    wanted = list(context.options.streams)
    if not wanted:
        return []
    from streamline.singer.catalog import is_glob, matches

    known = [
        name
        for name in wanted
        if catalog.find(name) is not None
        or (is_glob(name) and any(matches(name, (stream.id, stream.stream)) for stream in catalog))
    ]
    return known or None


def _check_stream_options(context: RunContext, sources: dict[str, SourcePlan]) -> None:
    for source in sources.values():
        if context.options.streams and source.catalog is None:
            raise ConfigError(
                f"--stream: {source.plugin.name} has no discovery and sends what it likes, so it can't be restricted",
                where=source.id,
                hint=f"Write its streams to {source.id}/catalog.json in the pipeline's folder if it reads a catalog.",
            )
    names = {
        name for source in sources.values() for stream in source.catalog or () for name in (*stream.names, stream.id)
    }
    from streamline.singer.catalog import is_glob, matches

    for name in context.options.streams:
        if name not in names and not (is_glob(name) and matches(name, names)):
            raise ConfigError(
                f"--stream {name}: no source has that stream", hint=suggestion(name, names, what="streams")
            )


def _check_bookmark_options(
    context: RunContext, model: PipelineModel, sources: dict[str, SourcePlan], variables: dict[str, Any]
) -> None:
    """Refuse bookmarks that nothing would start from.

    Raises:
        ConfigError: a stream that is not read, a tap that takes no state, a block that is no source.
    """
    for text in context.options.bookmarks:
        name = parse_override(text).stream
        takers = [
            source
            for source in sources.values()
            if source.catalog is None or any(name in (one.id, one.stream, *one.names) for one in source.selected)
        ]
        if not takers:
            known = {one.id for source in sources.values() for one in source.selected}
            raise ConfigError(
                f"--bookmark {text}: this run reads no stream {name!r}",
                hint=suggestion(name, known, what="streams"),
            )
        for source in takers:
            if not source.capabilities.state:
                raise ConfigError(
                    f"--bookmark {text}: {source.plugin.name} takes no --state, so it can't be told where to begin",
                    where=source.id,
                )
    if values := variables.get(BOOKMARK_VARIABLE):
        for block in parse_overrides(values):
            if block not in sources:
                raise ConfigError(
                    f"{BOOKMARK_VARIABLE}: the pipeline has no source {block!r}",
                    where=model.yaml.shown if BOOKMARK_VARIABLE in model.variables else "variables",
                    hint=suggestion(block, sources, what="sources"),
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
    given = apply_settings(catalog, group.streams, tap=traits).data if catalog is not None else None
    name = source if len(groups) == 1 else f"{source}.{'shared' if group.id == SHARED else _file_name(group.id)}"
    return GroupPlan(
        id=name,
        source=source,
        streams=group.streams,
        catalog=given,
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


# -- destinations


def _plan_sink(
    context: RunContext,
    block: Block,
    spec: DestinationSpec,
    plugin: Plugin,
    capabilities: Capabilities,
    sources: dict[str, SourcePlan],
    paths: dict[str, PathPlan],
) -> SinkPlan:
    layers = [spec.streams, stored_layer(context.store, context.pipeline, block.uuid, "destination")]
    feeding = [source for source in sources.values() if block.uuid in paths[source.id].all_sinks()]
    if all(source.catalog is not None for source in feeding):
        check_destination_names(
            layers, [(stream.id, stream.stream, *stream.names) for source in feeding for stream in source.catalog or ()]
        )
    planned: dict[tuple[str, str], StreamPlan | None] = {}
    stream_of: dict[tuple[str, str], str] = {}
    by_name = {
        (source.id, name): stream
        for source in feeding
        for stream in reversed(source.selected)
        for name in (*stream.names, stream.stream, stream.id)
    }

    def settings_of(source: str, name: str) -> Resolved | None:
        return resolve_destination(layers, _names(name, by_name.get((source, name))))

    def plan_of(source: str, name: str) -> StreamPlan | None:
        key = (source, name)
        if key not in planned:
            plan = _plan_stream(name, by_name.get(key), sources[source], layers, plugin, capabilities)
            planned[key] = plan
            if plan is not None:
                stream_of[source, plan.table or name] = name
        return planned[key]

    for source in feeding:
        for stream in source.selected:
            plan_of(source.id, stream.stream)
    known = {key: plan for key, plan in planned.items() if plan is not None}
    for source in feeding:
        check_tables({name: plan for (of, name), plan in known.items() if of == source.id}, where=block.uuid)
    _check_shared_tables(known, sources, by_name, where=block.uuid)
    slots, processes = _slots(known, layers, by_name, plugin, capabilities)
    return SinkPlan(
        block=block,
        spec=spec,
        plugin=plugin,
        config=spec.config,
        capabilities=capabilities,
        processes=processes,
        slot_of=lambda table: slots.get(table, 0),
        settings_of=settings_of,
        plan_of=plan_of,
        stream_of=lambda source, table: stream_of.get((source, table), table),
        plans=known,
        replaces=capabilities.activate_version,
        batch_dialects=frozenset(
            dialect
            for dialect, takes in (("sdk", capabilities.batch), ("pipelinewise", capabilities.pipelinewise_batch))
            if takes
        ),
    )


def _check_shared_tables(
    plans: dict[tuple[str, str], StreamPlan],
    sources: dict[str, SourcePlan],
    by_name: dict[tuple[str, str], SelectedStream],
    *,
    where: str,
) -> None:
    """Refuse tables in which the records of two sources would undo each other.

    Raises:
        ConfigError: one of them replaces the table, or they have different keys.
    """
    taken: dict[str, tuple[str, str]] = {}
    for key, plan in plans.items():
        source, name = key
        other = taken.setdefault(plan.table or name, key)
        if other[0] == source:
            continue
        words = f"{other[1]!r} of {other[0]} and {name!r} of {source}"
        hint = "Give each a destination_table of its own, or a destination block."
        if "replace" in (plan.load_method, plans[other].load_method):
            raise ConfigError(
                f"streams {words} would both be written to table {plan.table or name!r}, and each replaces it: "
                "the one would delete the other's rows",
                where=plan.where or where,
                hint=f"{hint} With load_method: upsert or append they may share it.",
            )
        keys = [
            list(plans[one].keys or (by_name[one].key_properties if one in by_name else ())) for one in (other, key)
        ]
        if keys[0] != keys[1]:
            raise ConfigError(
                f"streams {words} would both be written to table {plan.table or name!r}, with different keys: "
                f"{keys[0]} and {keys[1]}",
                where=plan.where or where,
                hint=f"{hint} Or set the same unique_constraints for both.",
            )


def _names(name: str, stream: SelectedStream | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys((stream.id, stream.stream, *stream.names))) if stream is not None else (name,)


def _plan_stream(
    name: str,
    stream: SelectedStream | None,
    source: SourcePlan,
    layers: Sequence[Layer],
    plugin: Plugin,
    capabilities: Capabilities,
) -> StreamPlan | None:
    resolved = resolve_destination(layers, _names(name, stream))
    if resolved is None:
        return None
    entry = source.catalog.get(stream.id) if stream is not None and source.catalog is not None else None
    return plan_stream(
        name,
        resolved,
        target=plugin.name,
        replaces=capabilities.activate_version,
        capabilities=capabilities.names,
        replication_method=stream.replication_method if stream is not None else None,
        key_properties=stream.key_properties if stream is not None else (),
        columns=list(entry.properties) if entry is not None else (),
        load_methods=_load_methods(capabilities),
        endless=source.endless,
    )


def _load_methods(capabilities: Capabilities) -> list[str] | None:
    """What our own targets say that they can do; others say nothing of it."""
    listed = capabilities.about.get("load_methods")
    return [str(one) for one in listed] if isinstance(listed, list) and listed else None


def _slots(
    plans: dict[tuple[str, str], StreamPlan],
    layers: Sequence[Layer],
    by_name: dict[tuple[str, str], SelectedStream],
    plugin: Plugin,
    capabilities: Capabilities,
) -> tuple[dict[str, int], int]:
    """Which target process takes which table; tables that did not ask for one of their own share the first."""
    allowed = plugin.max_processes or capabilities.max_processes or 1
    wanting = [
        plan.table or name
        for (source, name), plan in plans.items()
        if resolve(layers, _names(name, by_name.get((source, name)))).get("run_in_parallel")
    ]
    if allowed < 2 or not wanting:
        return {}, 1
    first = 0 if len(wanting) == len(plans) else 1
    processes = min(allowed, first + len(wanting))
    return {table: (first + number) % processes for number, table in enumerate(wanting)}, processes
