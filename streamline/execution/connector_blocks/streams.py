"""Taps and targets of streaming pipelines, planned of the same parts as those of integration pipelines.

The planner of streaming pipelines makes a `SingerPlan` where blocks name taps or targets, and a `SingerAttempt` for
each attempt, which has the sources, sinks and stages of these blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.connector.source import OpenedSource
from streamline.blocks.connector.spec import DestinationSpec, SourceSpec, load_mapper, load_spec
from streamline.connectors.plugins import Plugin
from streamline.connectors.singer.build import target_sink
from streamline.connectors.singer.capabilities import Capabilities
from streamline.connectors.singer.message_target import MessageTarget
from streamline.connectors.singer.polled_tap import Poll, PolledTap
from streamline.connectors.singer.stages.message_records import MessageRecords
from streamline.connectors.singer.stages.record_messages import MessagesOnly, RecordMessages, SingerMessages
from streamline.connectors.singer.stages.singer_records import SingerRecords
from streamline.connectors.singer.target_input import Feed
from streamline.errors import ConfigError
from streamline.execution.connector_blocks.plans import plan_output, resolve_target
from streamline.execution.flow_runs import workspace_of
from streamline.execution.integration.accounts import account_of, proving_of
from streamline.execution.integration.attempts import unless_interrupted
from streamline.execution.integration.destination_identity import check_destinations, keep_destinations
from streamline.execution.integration.destination_plan import plan_sinks, proving_sinks
from streamline.execution.integration.endpoints import SinkCounts, build_source, feed_of
from streamline.execution.integration.plan import GroupPlan, PathPlan, Plan, SinkPlan, SourcePlan
from streamline.execution.integration.planner import (
    check_bookmark_blocks,
    check_bookmark_names,
    check_stream_options,
    choose_streams,
    mapper_plan,
    open_source_block,
    plan_groups,
    refreshed_group,
)
from streamline.execution.integration.positions import Proving
from streamline.execution.integration.route_builder import RouteBuilder
from streamline.execution.integration.run_store import RunStore
from streamline.execution.integration.schema_book import destination_schemas
from streamline.execution.run import checking_options
from streamline.flow.items import Item, Schema
from streamline.flow.protocols import Stage, WrappedSource
from streamline.flow.tasks import task_group

if TYPE_CHECKING:
    from streamline.execution.run import Run
    from streamline.flow.protocols import Emit, Source
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.render import Renderer
    from streamline.state.store import DeadLetter, StateChange

__all__ = ["Ends", "SingerAttempt", "SingerPlan", "plan_singer", "unless_interrupted"]

SESSION_INTERVAL = 30.0
"""Seconds after which the session of a target that proves nothing is closed."""

CAUGHT_UP_RETRIES = 3
"""Polls in a row that may fail where a run ends when it has caught up."""

_SCHEMAS = "singer_schemas"
"""Kind of the cached SCHEMA lines that were read from topics in Singer's format."""

_MESSAGES = Capabilities(known=True, discover=False, state=True)


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """The sources and sinks of a streaming pipeline, by uuid.

    Args:
        taps: source blocks that name taps.
        targets: sink blocks that name targets.
        sources: the other source blocks.
        sinks: the other sink blocks, with the names of their connectors and their configs.
        sinks_of: the sinks that each source feeds.
        singer: other blocks whose messages have the values of a Singer stream (`format: singer`).
        mappers: the mapper blocks of taps, in their order.
    """

    taps: Mapping[str, Block]
    targets: Mapping[str, Block]
    sources: Mapping[str, Block]
    sinks: Mapping[str, tuple[Block, str, Mapping[str, Any]]]
    sinks_of: Mapping[str, Sequence[str]]
    singer: Collection[str] = ()
    mappers: Mapping[str, Sequence[Block]] = {}


class SingerPlan(msgspec.Struct, kw_only=True):
    """The taps and targets of a streaming pipeline, as planned.

    Args:
        validate: a target has failed: from then on, records that break their SCHEMA are refused.
    """

    ends: Ends
    plan: Plan
    groups: dict[str, GroupPlan]
    """The one process of each tap, by uuid."""
    specs: Mapping[str, SourceSpec | DestinationSpec]
    validate: bool = False

    def has_failed(self, block: str | None) -> None:
        """Note which block has ended an attempt."""
        self.validate = self.validate or block in self.ends.targets

    @property
    def notes(self) -> list[tuple[str, str]]:
        """What the user should know of each source block."""
        return [(source.id, note) for source in self.plan.sources.values() for note in source.notes]

    def replaces(self, sink: str) -> bool:
        """Return whether records that a target is sent again replace those that it has."""
        plan = self.plan.sinks[sink]
        merges = "upsert" in (plan.capabilities.about.get("load_methods") or ())
        return merges and bool(plan.plans) and all(each.load_method == "upsert" for each in plan.plans.values())

    def keep_destinations(self, run: Run) -> None:
        """Record the destinations of bookmarks that a run starts from. Blocks."""
        keep_destinations(run, self.plan)


async def plan_singer(
    run: Run,
    model: PipelineModel,
    renderer: Renderer,
    variables: dict[str, Any],
    ends: Ends,
    *,
    show: bool = False,
) -> SingerPlan:
    """Ask taps and targets what they can do, choose streams, and look up where they start.

    Args:
        variables: of the pipeline, rendered.
        show: the plan is only shown: note positions that a run refuses to continue from.

    Raises:
        ConfigError: something cannot be done as it is written.
        DiscoveryFailed: a tap failed to discover its streams.
    """
    specs: dict[str, SourceSpec | DestinationSpec] = {}
    for uuid, block in (*ends.taps.items(), *ends.targets.items()):
        spec = load_spec(block, renderer)
        assert isinstance(spec, SourceSpec | DestinationSpec)
        specs[uuid] = spec
    opened: dict[str, OpenedSource] = {}
    targets: dict[str, tuple[Plugin, Capabilities]] = {}

    async def open_tap(uuid: str) -> None:
        spec = specs[uuid]
        assert isinstance(spec, SourceSpec)
        opened[uuid] = await open_source_block(run, model, ends.taps[uuid], spec, retry=not show)

    async def ask_target(uuid: str) -> None:
        spec = specs[uuid]
        assert isinstance(spec, DestinationSpec)
        targets[uuid] = await resolve_target(run, ends.targets[uuid], spec)

    async with task_group() as tasks:
        for uuid in ends.taps:
            tasks.start_soon(open_tap, uuid)
        for uuid in ends.targets:
            tasks.start_soon(ask_target, uuid)
    sources = {uuid: _tap_plan(run, opened[uuid], ends.sinks_of[uuid]) for uuid in ends.taps}
    with checking_options():
        check_stream_options(run, sources)
    mappers = {
        uuid: [await mapper_plan(run, block, load_mapper(block, renderer)) for block in behind]
        for uuid, behind in ends.mappers.items()
    }
    for uuid, block in ends.sources.items():
        sources[uuid] = plan_output(run, block, [])
    for source in sources.values():
        source.endless = True
    destinations = {uuid: (block, _destination_spec(specs, uuid)) for uuid, block in ends.targets.items()}
    for uuid, (block, name, config) in ends.sinks.items():
        destinations[uuid] = (block, DestinationSpec(destination=name, config=dict(config)))
        targets[uuid] = (_messages_plugin(run, name), _MESSAGES)
    paths = {uuid: PathPlan(transforms=[], sinks=list(ends.sinks_of[uuid]), branches=[]) for uuid in sources}
    sinks = plan_sinks(destinations, targets, sources, paths)
    for uuid in ends.targets:
        _refuse_overwrite(sinks[uuid])
    for uuid in ends.taps:
        feeds = {sink: destinations[sink][1] for sink in ends.sinks_of[uuid]}
        plan_groups(run, sources[uuid], opened[uuid], _proving(feeds, uuid in mappers), variables, show=show)
        if not sources[uuid].groups:
            hint = "--stream has to name a stream of each tap" if run.options.streams else None
            raise ConfigError("no stream is selected", where=opened[uuid].where, hint=hint, code="stream.none_selected")
        own = [sinks[each] for each in ends.sinks_of[uuid] if each in ends.targets]
        sources[uuid].notes += _full_table_notes(sources[uuid], own)
    taps = {uuid: sources[uuid] for uuid in ends.taps}
    check_bookmark_names(run, taps)
    check_bookmark_blocks(model, taps, variables)
    plan = Plan(pipeline=model.uuid, sources=sources, mappers=mappers, paths=paths, sinks=sinks, variables=variables)
    await check_destinations(run, plan)
    groups = {uuid: source.groups[0] for uuid, source in taps.items()}
    return SingerPlan(ends=ends, plan=plan, groups=groups, specs=specs)


class SingerAttempt:
    """The taps and targets of one attempt.

    Args:
        number: of the attempt, from 1.
    """

    def __init__(self, run: Run, planned: SingerPlan, *, number: int) -> None:
        self._run = run
        self._planned = planned
        self._plan = plan = planned.plan
        self._groups = {
            uuid: refreshed_group(run, plan, group) if number > 1 else group for uuid, group in planned.groups.items()
        }
        self._routes = RouteBuilder(run, plan, validate=planned.validate, version=0, attempt=number)
        self._store = RunStore(
            run.store,
            pipeline=plan.pipeline,
            run_id=run.run_id,
            accounts={group.id: account_of(run, plan, group) for group in self._groups.values()},
        )
        self._singer: dict[str, SingerRecords] = {}
        self._kept: dict[tuple[str, str], dict[str, bytes]] = {}

    # -- sources

    def is_tap(self, uuid: str) -> bool:
        """Return whether a source is a tap."""
        return uuid in self._groups

    def is_target(self, uuid: str) -> bool:
        """Return whether a sink is a target."""
        return uuid in self._planned.ends.targets

    def source(self, uuid: str, *, until_caught_up: bool = False) -> Source:
        """Make the source of a tap."""
        run, plan, group = self._run, self._plan, self._groups[uuid]
        source, spec = plan.sources[uuid], self._planned.specs[uuid]
        assert isinstance(spec, SourceSpec)

        def open_poll(rows: Mapping[str, bytes], state: bytes) -> Poll:
            return Poll(*build_source(run, plan, msgspec.structs.replace(group, rows=dict(rows), state=state)))

        in_log = any(stream.replication_method == "LOG_BASED" for stream in group.streams)

        def awaited(key: str) -> bool:
            stream = source.find(key)
            followed = stream is None or stream.replication_method == "LOG_BASED"
            return in_log and followed and bool(proving_of(plan, source, key))

        polled = PolledTap(
            group.id,
            open_poll,
            start=group.rows,
            state=group.state,
            interval=spec.interval,
            polls=1 if until_caught_up else None,
            retries=CAUGHT_UP_RETRIES if until_caught_up else None,
            awaited=awaited,
            note=lambda message: run.warn(uuid, message),
        )
        return _WatchedTap(polled, lambda item: self._watch(source, item))

    def source_stages(self, uuid: str) -> list[Stage]:
        """Return the stages directly behind a source, on the way to all its sinks."""
        if uuid in self._groups:
            return self._routes.source_stages(self._groups[uuid])
        if not self.gives_records(uuid):
            return []
        stage = self._singer[uuid] = SingerRecords(uuid, partial(self._read_schemas, uuid))
        return [stage]

    def _read_schemas(self, uuid: str, topic: str) -> dict[str, bytes]:
        known = self._run.store.cache_get(_SCHEMAS, f"{self._plan.pipeline}/{uuid}/{topic}")
        lines = msgspec.json.decode(known, type=dict[str, str]) if known is not None else {}
        return {stream: line.encode("utf-8", "surrogateescape") for stream, line in lines.items()}

    def gives_records(self, uuid: str) -> bool:
        """Return whether a source gives records with their SCHEMAs, as a tap does, and not messages."""
        return uuid in self._groups or uuid in self._planned.ends.singer

    def message_stages(self, uuid: str, schema_topic: Callable[[str], str] | None = None) -> list[Stage]:
        """Return the stages that make messages of a source's records.

        Args:
            schema_topic: a stream → the topic that gets its SCHEMAs.
        """
        spec = self._planned.specs.get(uuid)
        tombstones = isinstance(spec, SourceSpec) and spec.deletes == "tombstone"
        return [RecordMessages(tombstones=tombstones, schema_topic=schema_topic)]

    # -- sinks

    def sink(self, uuid: str) -> MessageTarget:
        """Make the sink of a target."""
        run, plan, sink = self._run, self._plan, self._plan.sinks[uuid]
        feeding = plan.feeding(uuid)
        several = len(feeding) > 1
        spec = sink.spec
        pool = target_sink(
            uuid,
            sink.plugin,
            sink.config,
            workspace_of(run),
            feeds=[self._feed(source, sink, several) for source in feeding],
            state={source.id: self._groups[source.id].state for source in feeding if source.id in self._groups},
            processes=sink.processes,
            slot_of=sink.slot_of,
            counts=SinkCounts(run.progress, uuid),
            session_interval=spec.session_interval or SESSION_INTERVAL,
            timeout=sink.block.timeout,
        )
        return MessageTarget(pool, self._groups)

    def sink_stages(self, uuid: str, source: str, *, messages: bool, include_metadata: bool = False) -> list[Stage]:
        """Return the stages directly before a sink.

        Args:
            source: from which the items come.
            messages: they are messages by now, because blocks in between have to see them.
            include_metadata: blocks in between were given `{data, metadata}`.
        """
        ends = self._planned.ends
        if messages and uuid not in ends.targets and uuid not in ends.singer and not self.gives_records(source):
            return []
        if uuid in ends.targets:
            group = self._groups.get(source) or _no_group(source)
            records: list[Stage] = [self._message_records(uuid, source, include_metadata)] if messages else []
            return [*records, *self._routes.sink_stages(group, self._plan.sinks[uuid])]
        spec = self._planned.specs.get(source)
        if uuid in ends.singer or (isinstance(spec, SourceSpec) and spec.format == "singer"):
            records = [self._message_records(uuid, source, include_metadata)] if messages else []
            return [*records, SingerMessages()]
        if messages:
            return [MessagesOnly()]
        return [*self.message_stages(source, _schema_topic(ends.sinks[uuid][2])), MessagesOnly()]

    # -- positions

    def save(
        self,
        source: str,
        parts: Mapping[str, bytes],
        letters: Sequence[DeadLetter],
        state: Sequence[StateChange] = (),
    ) -> Mapping[str, bytes]:
        """Save a tap's position, dead letters and changes of state before it; return what of it was new. Blocks."""
        return self._store.save_rows(source, parts, letters, state)

    def before_save(self) -> None:
        """Save what later attempts need to know before any position is saved. Blocks."""
        self._routes.save_schemas()
        for uuid, stage in self._singer.items():
            for topic, lines in list(stage.schemas.items()):
                lines = dict(lines)  # the loop goes on reading
                if lines and lines != self._kept.get((uuid, topic)):
                    self._kept[uuid, topic] = lines
                    texts = {stream: line.decode("utf-8", "surrogateescape") for stream, line in lines.items()}
                    key = f"{self._plan.pipeline}/{uuid}/{topic}"
                    self._run.store.cache_put(_SCHEMAS, key, msgspec.json.encode(texts).decode())

    # -- parts

    def _feed(self, source: SourcePlan, sink: SinkPlan, several: bool) -> Feed:
        if source.id in self._groups:
            return feed_of(source, self._groups[source.id], sink, several_blocks=several)
        name_of: Callable[[str], str] = (lambda key: f"{source.id}:{key}") if several else str
        return Feed(source=source.id, keys_of=lambda table: (table,), owns=lambda key: True, name_of=name_of)

    def _message_records(self, sink: str, source: str, include_metadata: bool) -> Stage:
        plan, spec = self._plan.sinks[sink], self._plan.sinks[sink].spec

        def keys_of(stream: str) -> Sequence[str] | None:
            planned = plan.plan_of(source, stream)
            return planned.keys if planned is not None else None

        def tap_keys_of(stream: str) -> Sequence[str]:
            selected = self._plan.sources[source].find(stream)
            return selected.key_properties if selected is not None else ()

        return MessageRecords(
            sink,
            keys_of=keys_of,
            tap_keys_of=tap_keys_of,
            known=destination_schemas(self._run.store, self._plan.pipeline, source, sink),
            include_metadata=include_metadata,
            columns=spec.message_columns,
            wrap_values=spec.wrap_values,
            tombstones=spec.tombstones,
            note=lambda message: self._run.warn(sink, message),
        )

    def _watch(self, source: SourcePlan, item: Schema) -> None:
        stream = source.find(item.stream)
        if stream is not None and source.watch is not None:
            for change in source.watch.look(stream.id, item.schema, deselected=stream.deselected):
                self._run.warn(source.id, change)


class _WatchedTap(WrappedSource):
    """A tap whose SCHEMAs are looked at."""

    def __init__(self, source: Source, watch: Callable[[Schema], None]) -> None:
        super().__init__(source)
        self._watch = watch

    async def run(self, emit: Emit) -> None:
        """See `Source.run`."""

        async def take(items: Sequence[Item]) -> None:
            for item in items:
                if isinstance(item, Schema):
                    self._watch(item)
            await emit(items)

        await self._source.run(take)


def _tap_plan(run: Run, opened: OpenedSource, sinks: Sequence[str]) -> SourcePlan:
    source = choose_streams(run, opened, sinks)
    if any(stream.run_in_parallel for stream in source.selected):
        source.notes.append("run_in_parallel is not used: in a streaming pipeline one process reads all streams")
        source.selected = [msgspec.structs.replace(stream, run_in_parallel=False) for stream in source.selected]
    return source


def _proving(feeds: Mapping[str, DestinationSpec], mapped: bool) -> Proving:
    # Mappers give streams other names.
    return lambda stream, selected: proving_sinks(None if mapped else stream, selected, feeds)


def _destination_spec(specs: Mapping[str, SourceSpec | DestinationSpec], uuid: str) -> DestinationSpec:
    spec = specs[uuid]
    assert isinstance(spec, DestinationSpec)
    return spec


def _refuse_overwrite(sink: SinkPlan) -> None:
    if sink.overwrites:
        raise ConfigError(
            f"{sink.plugin.name} would replace its tables whenever a session begins",
            where=sink.spec.where or sink.id,
            hint="remove load_method from its config, or use upsert or append-only",
            code="destination.load_method_unsupported",
        )


def _full_table_notes(source: SourcePlan, sinks: Sequence[SinkPlan]) -> list[str]:
    notes = []
    for sink in sinks:
        for stream in source.selected:
            plan = sink.plan_of(source.id, source.name_in_messages(stream))
            if plan is not None and plan.load_method == "append" and stream.replication_method == "FULL_TABLE":
                notes.append(
                    f"stream {stream.id} is FULL_TABLE and has no key: every poll adds all its rows to {sink.id}, "
                    "unless the tap sends versions of the table and the target replaces by them"
                )
    return notes


def _schema_topic(config: Mapping[str, Any]) -> Callable[[str], str] | None:
    """Return what names the topic of a stream's SCHEMAs, if a sink's config asks for them."""
    if config.get("schemas") != "topic":
        return None
    template = str(config.get("schema_topic") or f"{config.get('topic')}.schemas")
    return lambda stream: template.replace("{stream}", stream)


def _messages_plugin(run: Run, name: str) -> Plugin:
    return Plugin(name=name, role="target", argv=[], env={}, cwd=run.project.root, fingerprint=name, kind="builtin")


def _no_group(source: str) -> GroupPlan:
    return GroupPlan(id=source, source=source, streams=(), catalog=None, state=b"{}", rows={})
