"""The sources and sinks of a plan: its tap processes, and the target processes of its destinations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from streamline.connectors.singer.batch_files import FileSource
from streamline.connectors.singer.build import tap_command, tap_source, target_sink
from streamline.connectors.singer.dropped_keys import DroppedKeys
from streamline.connectors.singer.grouping import owner
from streamline.connectors.singer.target_input import Feed, SentCounts
from streamline.connectors.singer.target_pool import TargetPool
from streamline.execution.flow_runs import workspace_of
from streamline.execution.integration.plan import GroupPlan, Plan, ProvingSink, SinkPlan, SourcePlan
from streamline.execution.run import Run
from streamline.flow.items import REST
from streamline.flow.protocols import Source
from streamline.telemetry.progress import Progress


def build_source(
    context: Run, plan: Plan, group: GroupPlan, passed: Collection[str] = ()
) -> tuple[Source, FileSource | None]:
    """Return a group's tap with its mappers, and the part of it that deletes files of BATCHes, if it has one.

    Args:
        passed: dialects of BATCH that go on as files.
    """
    source, workspace = plan.sources[group.source], workspace_of(context)
    if source.open is not None:
        return source.open(group), None
    tap = tap_command(
        group.id,
        source.plugin,
        source.config,
        workspace,
        capabilities=source.capabilities,
        catalog=group.catalog,
        state=group.state,
        max_duration=source.spec.max_duration,
        idle_timeout=source.spec.idle_timeout,
        timeout=source.block.timeout,
        max_record_bytes=source.spec.max_record_bytes,
    )
    mappers = [
        tap_command(
            f"{group.id}.{mapper.block.uuid}",
            mapper.plugin,
            mapper.config,
            workspace,
            timeout=mapper.block.timeout,
            max_record_bytes=source.spec.max_record_bytes,
        )
        for mapper in plan.mappers.get(group.source, ())
    ]
    return tap_source(
        tap,
        mappers,
        workspace,
        keys=_dropped_keys(source, group),
        passed=passed,
        on_config_change=lambda written: _keep_config(source, written),
    )


def build_sinks(context: Run, plan: Plan, groups: Sequence[GroupPlan]) -> dict[str, ProvingSink]:
    """Return the destinations that these groups feed, by uuid."""
    pools: dict[str, ProvingSink] = {}
    for sink in plan.sinks.values():
        feeding = [group for group in groups if sink.id in plan.paths[group.source].all_sinks()]
        if feeding:
            pools[sink.id] = sink.open() if sink.open is not None else _sink(context, plan, sink, feeding)
    return pools


def owner_of(group: GroupPlan, source: SourcePlan) -> Callable[[str], bool]:
    """Return a function that tells whether a bookmark belongs to the group's tap process."""
    others = [stream for other in source.groups if other.id != group.id for stream in other.streams]
    return owner(group.streams, others, source.catalog or ())


def _dropped_keys(source: SourcePlan, group: GroupPlan) -> DroppedKeys:
    owns = owner_of(group, source)
    keys = {*group.rows, *(key for key, cause in source.cause_of.items() if cause == "full-refresh" and owns(key))}
    names = {name for stream in source.catalog or () for name in (stream.id, *stream.names)}

    def is_stream(key: str) -> bool:
        return source.catalog is None or key in names

    if len(source.groups) > 1:
        # Keys without a stream are given to all processes; only a process that has shown a key can have dropped it.
        keys = {key for key in keys if is_stream(key) and key != REST}
    return DroppedKeys(keys, is_stream)


class SinkCounts(SentCounts):
    """Counts what the targets of one destination block are sent and confirm."""

    def __init__(self, progress: Progress, sink: str) -> None:
        self._progress = progress
        self._sink = sink

    def sent(self, source: str, stream: str, records: int) -> None:
        self._progress.of(source).sent(self._sink, stream, records)

    def confirmed(self, source: str, stream: str, records: int) -> None:
        self._progress.of(source).written(self._sink, stream, records)

    def position_sent(self, source: str, number: int) -> None:
        self._progress.of(source).position_sent(self._sink, number)


def _keep_config(source: SourcePlan, written: dict[str, Any]) -> None:
    source.keep_config(written)
    source.config.update(written)  # the next attempt of this run needs it, too


def _sink(context: Run, plan: Plan, sink: SinkPlan, groups: Sequence[GroupPlan]) -> TargetPool:
    several_blocks = len({group.source for group in groups}) > 1
    feeds = [feed_of(plan.sources[group.source], group, sink, several_blocks=several_blocks) for group in groups]
    return target_sink(
        sink.id,
        sink.plugin,
        sink.config,
        workspace_of(context),
        feeds=feeds,
        state={group.id: group.state for group in groups},
        processes=sink.processes,
        slot_of=sink.slot_of,
        counts=SinkCounts(context.progress, sink.id),
        session_interval=sink.session_interval(endless=any(plan.sources[group.source].endless for group in groups)),
        timeout=sink.block.timeout,
    )


def feed_of(source: SourcePlan, group: GroupPlan, sink: SinkPlan, *, several_blocks: bool) -> Feed:
    """Return how a tap process's streams and bookmarks are named in a target.

    Args:
        several_blocks: more than one source block feeds it.
    """

    def keys_of(table: str) -> tuple[str, ...]:
        # Of records that several streams may have sent, no bookmark can be told.
        name = sink.stream_of(source.id, table)
        return source.keys_of(name) if len(source.bearers(name)) < 2 else ()

    own = {key for stream in group.streams for key in source.keys_of(stream.id)}

    def name_of(key: str) -> str:
        # Processes may have bookmarks of one name; in a target's merged state they must not meet. But those of
        # streams keep their names where they can: some targets look them up.
        apart = several_blocks or (len(source.groups) > 1 and (key not in own or len(source.bearers(key)) > 1))
        return f"{group.id}:{key}" if apart else key

    return Feed(
        source=group.id,
        keys_of=keys_of,
        parents_of=lambda table: source.parents_of(sink.stream_of(source.id, table)),
        owns=owner_of(group, source),
        name_of=name_of,
    )
