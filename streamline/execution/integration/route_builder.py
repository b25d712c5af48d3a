"""Builds the stages of a group: those that its source's settings need, its transformers, then each destination's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.connectors.singer.stages.stream_plan import HELD_VERSIONS_CAPABILITY, StreamPlan
from streamline.connectors.singer.state import has_bookmarks, state_of
from streamline.execution.events import StreamStopped, failure_from, masked
from streamline.execution.flow_runs import block_keywords
from streamline.execution.integration.plan import GroupPlan, PathPlan, Plan, SinkPlan, SourcePlan, TransformPlan
from streamline.execution.integration.schema_book import destination_schemas, save_destination_schema
from streamline.execution.run import Run
from streamline.flow.items import BadRecord, Item, JSONObject, Position, Schema
from streamline.flow.protocols import Sink, Stage
from streamline.flow.router import Route
from streamline.flow.stages.schema_change import SchemaChangeStage, added_columns
from streamline.flow.stages.schema_check import SchemaCheckStage
from streamline.flow.stages.versions import VersionStage
from streamline.flow.stops import StopPolicy

if TYPE_CHECKING:
    from streamline.flow.stages.validate import BadRecordLimit

DIALECTS = frozenset({"sdk", "pipelinewise"})


class RouteBuilder:
    """Builds the routes of one attempt.

    Args:
        validate: destinations whose policy is `pass` quarantine as well (a target has failed before).
        version: table version of this attempt's replacements.
        attempt: its number, from 1.
    """

    def __init__(self, context: Run, plan: Plan, *, validate: bool, version: int, attempt: int = 1) -> None:
        self._context = context
        self._plan = plan
        self._validate = validate
        self._version = version
        self._attempt = attempt
        self._limits: dict[tuple[str, str], BadRecordLimit] = {}
        self._schemas: list[tuple[str, str, dict[str, Any], SchemaChangeStage]] = []
        self.stopped: dict[str, dict[str, Exception]] = {}
        """Errors by group and stream that was stopped while others went on."""
        self.shared: dict[str, set[str]] = {}
        """Streams by source of which several processes have sent bookmarks."""

    def route(self, group: GroupPlan, path: PathPlan, pools: Mapping[str, Sink]) -> Route:
        """Return the route of one group."""
        route = self._path(group, path, pools)
        route.stages[:0] = self.source_stages(group)
        return route

    def source_stages(self, group: GroupPlan) -> list[Stage]:
        """Return the stages directly behind a group's tap."""
        stages: list[Stage] = []
        streams = {name: stream for stream in group.streams for name in (*stream.names, stream.stream)}
        source = self._plan.sources[group.source]
        if len(source.groups) > 1 and not self._plan.mappers.get(source.id):
            from streamline.connectors.singer.stages.undeclared import UndeclaredStage

            declared = {name for stream in source.catalog or () for name in (stream.id, *stream.names)}
            stages.append(
                UndeclaredStage(
                    group.id,
                    declared=lambda stream: stream in declared or bool(source.bearers(stream)),
                    senders=source.senders,
                    start=group.rows,
                    on_shared=lambda stream: self.shared.setdefault(source.id, set()).add(stream),
                )
            )
        unselected = {name for stream in source.catalog or () for name in stream.names}.difference(streams)
        # Dead letters from behind a transformer come without streams: they have passed these stages.
        if group.streams and (unselected or any(stream.adapted for stream in group.streams)):
            from streamline.connectors.singer.stages.source import SourceStage

            warn = partial(self._context.warn, source.id)
            stages.append(SourceStage(streams, unselected, warn=warn))
        return stages

    def passed_dialects(self, source: str) -> frozenset[str]:
        """Return the dialects of BATCH that can be forwarded from this source to all its destinations."""
        path = self._plan.paths[source]
        if path.all_transforms() or self._plan.mappers.get(source):
            return frozenset()
        passed = DIALECTS
        for sink_id in path.all_sinks():
            sink = self._plan.sinks[sink_id]
            looks = self._looks_at_records(self._plan.sources[source], sink) or sink.spec.schema_change == "freeze"
            changes = any(plan.changes_records for (block, _), plan in sink.plans.items() if block == source)
            passed = passed & (frozenset() if looks or changes else sink.batch_dialects)
            if any(plan.load_method == "replace" for (block, _), plan in sink.plans.items() if block == source):
                passed -= {"pipelinewise"}  # that dialect has no field for a version
        return passed

    # -- paths

    def _path(self, group: GroupPlan, path: PathPlan, pools: Mapping[str, Sink]) -> Route:
        stages = [self._transform(group, path, transform) for transform in path.transforms]
        branches = [Route(self.sink_stages(group, self._plan.sinks[sink]), sinks=[pools[sink]]) for sink in path.sinks]
        branches += [self._path(group, branch, pools) for branch in path.branches]
        return Route(stages, branches=branches)

    def sink_stages(self, group: GroupPlan, sink: SinkPlan) -> list[Stage]:
        """Return the stages directly before a destination."""
        source = self._plan.sources[group.source]
        stages: list[Stage] = []
        if sink.spec.streams.entries:
            from streamline.connectors.singer.stages.destination import ExportStage

            stages.append(ExportStage(lambda stream: sink.plan_of(source.id, stream) is not None))
        stages += [
            SchemaCheckStage(partial(_keys_of, source, sink), partial(sink.same_but_case, source)),
            self._schema_change(group, source, sink),
        ]
        if validation := self._validation(source, sink):
            stages.append(validation)

        def replaces(stream: str) -> bool:
            plan = sink.plan_of(source.id, stream)
            return plan is not None and plan.load_method == "replace"

        stages.append(
            VersionStage(
                bookmarks_of=source.bookmarks_of,
                endless=source.endless,
                replace=replaces if sink.replaces else None,
                version=self._version,
                holds_rows=HELD_VERSIONS_CAPABILITY in sink.capabilities.names,
                shared=partial(sink.shares_table, source),
            )
        )
        changed = any(_changes(plan) for plan in sink.plans.values())
        if changed or sink.spec.streams.entries or not sink.plans:
            from streamline.connectors.singer.stages.destination import DestinationStage

            stages.append(DestinationStage(lambda stream: sink.plan_of(source.id, stream), target=sink.plugin.name))
        return stages

    def _policy(self, source: SourcePlan, sink: SinkPlan, stream: str) -> str:
        policy: str = sink.setting("on_bad_record", source.id, stream)
        return "quarantine" if policy == "pass" and self._validate else policy

    def _looks_at_records(self, source: SourcePlan, sink: SinkPlan) -> bool:
        streams = [stream.stream for stream in source.selected] or [""]
        return any(self._policy(source, sink, stream) != "pass" for stream in streams)

    def _validation(self, source: SourcePlan, sink: SinkPlan) -> Stage | None:
        if not self._looks_at_records(source, sink):
            return None
        from streamline.flow.stages.validate import BadRecordLimit, ValidateStage

        limit = self._limits.setdefault(
            (source.id, sink.id), BadRecordLimit(lambda stream: sink.setting("max_bad_records", source.id, stream))
        )
        return ByPolicy(
            lambda stream: self._policy(source, sink, stream),
            {
                "quarantine": ValidateStage(limit=limit, keys_of=partial(_keys_of, source, sink)),
                "fail": ValidateStage(fail=True, keys_of=partial(_keys_of, source, sink)),
            },
            sink=sink.id,
        )

    def _transform(self, group: GroupPlan, path: PathPlan, transform: TransformPlan) -> Stage:
        from streamline.blocks.python.live.transform import TransformStage

        sinks = [self._plan.sinks[sink] for sink in path.all_sinks()]

        def quarantines(stream: str) -> bool:
            return all(sink.setting("on_bad_record", group.source, stream) == "quarantine" for sink in sinks)

        last = [self._last_schemas(group.source, sink) for sink in sinks]

        def earlier(stream: str) -> dict[str, JSONObject]:
            return {name: prop for schemas in last for name, prop in added_columns(schemas.get(stream, {})).items()}

        return TransformStage(
            transform.file,
            configuration=transform.block.configuration,
            keywords=block_keywords(self._context, self._plan.variables, transform.block, self._attempt),
            timeout=transform.block.timeout,
            warn=lambda message: self._context.warn(transform.block.uuid, message),
            set_aside=quarantines,
            earlier=earlier,
        )

    def _schema_change(self, group: GroupPlan, source: SourcePlan, sink: SinkPlan) -> SchemaChangeStage:
        last = self._last_schemas(source.id, sink)
        stage = SchemaChangeStage(
            lambda stream: sink.setting("schema_change", source.id, stream),
            last,
            pipeline=self._context.pipeline,
            sink=sink.id,
            on_new=partial(self._warn_of_alias, group, source, sink),
        )
        self._schemas.append((source.id, sink.id, last, stage))
        return stage

    def _warn_of_alias(self, group: GroupPlan, source: SourcePlan, sink: SinkPlan, stream: str) -> None:
        """Warn of a stream of no catalog that is continued from bookmarks of other streams which do not cover it.

        It may have its first records now, so it is not stopped.
        """
        followed = [each for each in group.streams if each.replication_method != "FULL_TABLE"]
        begun = followed and all(any(key in group.rows for key in source.keys_of(each.stream)) for each in followed)
        if not begun or stream in group.rows or source.bearers(stream) or self._context.options.accept_gap:
            return
        self._context.warn(
            source.id,
            f"stream {stream!r} is new here and has no bookmark of its own: destination {sink.id!r} lacks its records "
            "before the saved bookmarks; load them with --full-refresh",
        )

    def _last_schemas(self, source: str, sink: SinkPlan) -> dict[str, JSONObject]:
        return destination_schemas(self._context.store, self._context.pipeline, source, sink.id)

    def stops(self, group: GroupPlan) -> StopPolicy | None:
        """Return how a stream of a group is stopped alone."""
        # Streams of one log share their position: none of them can be held back alone.
        in_log = any(stream.replication_method == "LOG_BASED" for stream in group.streams)
        if in_log or not group.streams:
            return None
        source = self._plan.sources[group.source]

        def keys_of(stream: str, position: Position) -> Collection[str] | None:
            if not has_bookmarks(state_of(position.parts)):
                return None
            selected, keys = source.find(stream), [key for key in source.bookmarks_of(stream) if key in position.parts]
            if keys:
                return keys
            # One without a bookmark of its own may share that of another stream.
            complete = selected is not None and selected.replication_method == "FULL_TABLE"
            return [] if complete else list(position.parts)

        def stopped(stream: str, error: Exception) -> None:
            self.stopped.setdefault(group.id, {})[stream] = error
            self._context.note(group.id, f"stream {stream!r} is stopped: {error}", "ERROR")
            failure = masked(failure_from(error), self._context.masker)
            self._context.bus.publish(StreamStopped(block=group.source, stream=stream, failure=failure))

        return StopPolicy(keys_of, stopped)

    def save_schemas(self) -> None:
        """Save the SCHEMAs that each destination was sent, unless they are saved. Blocks."""
        store, pipeline = self._context.store, self._context.pipeline
        for source, sink, last, stage in self._schemas:
            for stream, schema in list(stage.newest.items()):
                if last.get(stream) != schema:
                    save_destination_schema(store, pipeline, source, sink, stream, schema)
                    last[stream] = schema


class ByPolicy:
    """Sends each stream's items through the stage of its policy; streams of other policies pass.

    Records that a stage refuses are marked as refused for the destination `sink`.
    """

    def __init__(self, policy_of: Callable[[str], str], stages: Mapping[str, Stage], *, sink: str) -> None:
        self._policy_of = policy_of
        self._stages = stages
        self._sink = sink

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, Position):
            return [item]
        stage = self._stages.get(self._policy_of(item.stream))
        if stage is None:
            return [item]
        items = await stage.process(item)
        return [
            msgspec.structs.replace(each, sink=self._sink) if isinstance(each, BadRecord) else each for each in items
        ]

    async def finish(self) -> Sequence[Item]:
        """See `Stage.finish`."""
        return [item for stage in self._stages.values() for item in await stage.finish()]

    async def close(self) -> None:
        """See `Stage.close`."""
        for stage in self._stages.values():
            await stage.close()


def _keys_of(source: SourcePlan, sink: SinkPlan, item: Schema) -> Sequence[str]:
    """Return the key_properties of a stream that the target sees."""
    plan = sink.plan_of(source.id, item.stream)
    return (item.key_properties if plan is None or plan.keys is None else plan.keys) or ()


def _changes(plan: StreamPlan) -> bool:
    return bool(
        plan.table or plan.keys is not None or plan.changes_records or plan.annotations or plan.load_method == "upsert"
    )
