"""One attempt at groups of a plan: builds their flows, runs them, and tells which block failed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec

from streamline.connectors.singer.batch_files import FileSource
from streamline.connectors.singer.message_reader import TapOutputError
from streamline.connectors.singer.state import has_bookmarks, state_of
from streamline.connectors.singer.tap import TapFailed
from streamline.errors import PipelineFailed, StreamlineError
from streamline.execution.flow_runs import INTERRUPT_SECONDS
from streamline.execution.integration.accounts import account_of
from streamline.execution.integration.endpoints import build_sinks, build_source
from streamline.execution.integration.plan import GroupPlan, Plan, ProvingSink, SourcePlan
from streamline.execution.integration.route_builder import RouteBuilder
from streamline.execution.integration.run_store import RunStore
from streamline.execution.integration.schema_book import SchemaBook
from streamline.execution.run import Run
from streamline.flow.items import ArrowBatch, BadRecord, FileBatch, Item, Position, RawBatch, RowBatch, Schema
from streamline.flow.runtime import Flow, FlowOutcome, Runtime
from streamline.flow.stages.schema_change import SchemaPaused
from streamline.flow.tasks import task_group

if TYPE_CHECKING:
    from streamline.flow.stages.validate import BadRecordLimit

VALIDATED = "validate"
"""The stage of records that did not fit their SCHEMA right before a destination."""


class GroupOutcome(msgspec.Struct, kw_only=True):
    """How a group ended.

    Args:
        error: None if all that it read is proven and saved.
        stopped: streams that failed while others went on.
        only_streams: the error is that of these streams.
        started: its tap was started.
        sink_failed: the target was at fault, not the tap.
        fault: uuid of the block at fault, where the error does not say.
        began, ended: seconds of the event loop's clock.
    """

    group: GroupPlan
    error: Exception | None = None
    stopped: Sequence[str] = ()
    only_streams: bool = False
    started: bool = False
    sink_failed: bool = False
    fault: str | None = None
    began: float | None = None
    ended: float | None = None


class Attempt:
    """Runs `groups` of a plan once.

    Args:
        validate: every record is validated, and quarantined if it breaks its schema.
        version: table version of this attempt's replacements.
        number: of the attempt, from 1.
    """

    def __init__(
        self,
        context: Run,
        plan: Plan,
        groups: Sequence[GroupPlan],
        *,
        validate: bool,
        version: int,
        number: int = 1,
    ) -> None:
        self._context = context
        self._plan = plan
        self._groups = {group.id: group for group in groups}
        self._routes = RouteBuilder(context, plan, validate=validate, version=version, attempt=number)
        self._sinks = build_sinks(context, plan, groups)
        self._files: dict[str, FileSource] = {}
        self._limits: dict[str, BadRecordLimit] = {}
        self._book = SchemaBook(context.store, plan.pipeline)
        self._counts = {group.id: context.progress.of(group.id, group.source) for group in groups}
        for counts in self._counts.values():
            counts.rewind()

    async def run(self) -> list[GroupOutcome]:
        """Run everything to its end; failures are in the outcomes."""
        runtime = Runtime(
            self._flows(),
            store=RunStore(
                self._context.store,
                pipeline=self._plan.pipeline,
                run_id=self._context.run_id,
                accounts={group.id: account_of(self._context, self._plan, group) for group in self._groups.values()},
                before_save=self._save_schemas,
            ),
            on_saved=self._saved,
            on_failed=lambda id, error: self._context.note(id, f"failed: {error}", "ERROR"),
        )
        try:
            async with task_group() as background:
                background.start_soon(self._pass_on_interrupt, runtime)
                outcomes = await runtime.run()
                background.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._save_schemas)
        await anyio.to_thread.run_sync(self._drop_shared)
        return [await self._judge(outcome, runtime) for outcome in outcomes]

    def _drop_shared(self) -> None:
        """Delete bookmarks that one process has saved and another contradicts: a run would start behind neither."""
        for source, streams in self._routes.shared.items():
            self._context.store.save(self._plan.pipeline, source, self._context.run_id, [], dropped=sorted(streams))
            for group in self._plan.sources[source].groups:
                for stream in streams:
                    group.rows.pop(stream, None)

    async def _pass_on_interrupt(self, runtime: Runtime) -> None:
        while self._context.interrupted is None:
            await anyio.sleep(0.1)
        # A target may be ending already, or not be reading at all: none gets longer than this.
        runtime.stop("the run was interrupted", within=INTERRUPT_SECONDS)

    def _save_schemas(self) -> None:
        self._routes.save_schemas()
        self._book.save()

    # -- flows

    def _flows(self) -> list[Flow]:
        sources = self._plan.sources.values()
        processes = {source.id: anyio.CapacityLimiter(source.max_parallel) for source in sources}
        plugins = {
            source.plugin.name: anyio.CapacityLimiter(source.plugin.max_processes)
            for source in sources
            if source.plugin.max_processes is not None
        }
        flows = []
        for group in self._groups.values():
            plugin = plugins.get(self._source(group).plugin.name)
            flows.append(self._flow(group, [processes[group.source], *([plugin] if plugin is not None else [])]))
        return flows

    def _flow(self, group: GroupPlan, limits: Sequence[anyio.CapacityLimiter]) -> Flow:
        passed = self._routes.passed_dialects(group.source)
        source, files = build_source(self._context, self._plan, group, passed)
        if files is not None:
            self._files[group.id] = files
        if not self._plan.confirms:
            from streamline.flow.unconfirmed import UnconfirmedSource  # only for records that are sent again

            source = UnconfirmedSource(source)
        route = self._routes.route(group, self._plan.paths[group.source], self._sinks)
        self._book.watch(group.source, route)
        return Flow(
            source=source,
            route=route,
            limits=limits,
            before=lambda: self._mark_passed(group),
            observe=self._observer(group),
            refused=lambda bad: self._refuse(group, bad),
            stops=self._routes.stops(group),
        )

    def _source(self, group: GroupPlan) -> SourcePlan:
        return self._plan.sources[group.source]

    def _sinks_of(self, group: GroupPlan) -> list[ProvingSink]:
        return [self._sinks[sink] for sink in self._plan.paths[group.source].all_sinks()]

    async def _mark_passed(self, group: GroupPlan) -> None:
        """Mark the gap of streams that are left out of a log which the tap moves on as soon as it starts."""
        passed = self._source(group).passed
        if passed and any(each.replication_method == "LOG_BASED" for each in group.streams):
            store, pipeline = self._context.store, self._plan.pipeline
            mark = functools.partial(store.mark_gap, pipeline, group.source, passed, at_start=True)
            await anyio.to_thread.run_sync(mark)

    def _observer(self, group: GroupPlan) -> Callable[[Sequence[Item]], None]:
        counts = self._counts[group.id]
        source = self._source(group)
        shared = len(source.groups) > 1
        uncounted_streams: set[str] = set()

        def observe(items: Sequence[Item]) -> None:
            for item in items:
                if isinstance(item, RawBatch | RowBatch | ArrowBatch):
                    counts.read(item.stream, item.count)
                elif isinstance(item, Schema):
                    self._watch_schema(source, item)
                    (source.keyless.discard if item.key_properties else source.keyless.add)(item.stream)
                elif isinstance(item, FileBatch):
                    if item.count is None and item.stream not in uncounted_streams:
                        uncounted_streams.add(item.stream)
                        uncounted = f"stream {item.stream}: the records in its {item.format} files are not counted"
                        self._context.warn(source.id, uncounted)
                    counts.read(item.stream, item.count or 0)
                elif isinstance(item, Position):
                    counts.position_read(item.number)
                    if not shared or has_bookmarks(state_of(item.parts)):
                        continue
                    raise StreamlineError(
                        "its STATE has no bookmark for each stream, so several processes cannot share its streams",
                        where=group.id,
                        hint="remove run_in_parallel from the source's streams",
                        code="tap.state_not_by_stream",
                    )

        return observe

    def _watch_schema(self, source: SourcePlan, item: Schema) -> None:
        stream = source.find(item.stream)
        if stream is not None and source.watch is not None:
            for change in source.watch.look(stream.id, item.schema, deselected=stream.deselected):
                self._context.warn(source.id, change)

    def _refuse(self, group: GroupPlan, bad: Sequence[BadRecord]) -> None:
        path = self._plan.paths[group.source]
        for record in bad:
            plan = self._plan.sinks[record.sink].plan_of(group.source, record.stream) if record.sink else None
            table = (plan.table if plan is not None else None) or record.stream
            self._counts[group.id].refused(record.stream, 1, record.sink, table)
            for place in (*(each.block.uuid for each in path.all_transforms()), *path.all_sinks()):
                self._book.need(group.source, place, record.stream)
        # What is refused before a destination's validation counts as well; that one counts for itself.
        others = [record for record in bad if record.stage != VALIDATED]
        if others:
            self._count_refused(group, others)

    def _count_refused(self, group: GroupPlan, bad: Sequence[BadRecord]) -> None:
        from streamline.flow.stages.validate import BadRecordLimit

        def most(stream: str) -> int | None:
            sinks = [self._plan.sinks[sink] for sink in self._plan.paths[group.source].all_sinks()]
            allowed = [sink.setting("max_bad_records", group.source, stream) for sink in sinks]
            return min((number for number in allowed if number is not None), default=None)

        limit = self._limits.setdefault(group.source, BadRecordLimit(most))
        for record in bad:
            limit.of(record.stream).records = self._context.progress.records_read(group.source, record.stream)
            limit.add(record.stream, 0, [record.error])

    # -- positions

    async def _saved(self, position: Position, moved: Mapping[str, bytes]) -> None:
        group = self._groups[position.source]
        # A position may be saved while records of a stream whose bookmark did not move are unproven.
        files = self._files.get(group.id)
        if files is not None and not any(sink.unproven for sink in self._sinks_of(group)):
            await files.delete_until(position)
        if moved:
            self._counts[group.id].saved(
                position.number,
                lambda stream: self._continues(group, stream, position, moved),
                lambda sink, table: self._plan.sinks[sink].stream_of(group.source, table),
            )
            self._context.progress.position_saved(group.source)

    def _continues(self, group: GroupPlan, stream: str, position: Position, moved: Mapping[str, bytes]) -> bool:
        """Return whether another attempt would not read a stream's records before a saved position again."""
        source = self._source(group)
        keys = source.bookmarks_of(stream)
        if any(key in position.parts for key in keys):
            return any(key in moved for key in keys)
        # It has no bookmark of its own: it is read with another stream, or from the start.
        selected = source.find(stream)
        return selected is None or selected.replication_method != "FULL_TABLE"

    # -- outcomes

    async def _judge(self, outcome: FlowOutcome, runtime: Runtime) -> GroupOutcome:
        """Return the group's outcome: a group that ended well has still failed if one of its streams was stopped."""
        group = self._groups[outcome.source]
        files = self._files.get(group.id)
        if files is not None and not any(sink.id in runtime.failures for sink in self._sinks_of(group)):
            await files.delete_all()
        stopped = self._routes.stopped.get(group.id, {})
        error = outcome.error or _error_of(stopped)
        watch = self._source(group).watch
        if watch is not None and isinstance(error, TapFailed):
            watch.forget()  # it may have failed for a table or a column that is gone
        return GroupOutcome(
            group=group,
            error=error,
            stopped=list(stopped),
            only_streams=outcome.error is None,
            started=outcome.began is not None,
            sink_failed=outcome.sink is not None,
            fault=outcome.sink or self._mapper_at_fault(group, error),
            began=outcome.began,
            ended=outcome.ended,
        )

    def _mapper_at_fault(self, group: GroupPlan, error: Exception | None) -> str | None:
        where = error.where if isinstance(error, TapFailed | TapOutputError) else None
        mappers = self._plan.mappers.get(group.source, ())
        return next((mapper.block.uuid for mapper in mappers if mapper.plugin.name == where), None)


def _error_of(stopped: Mapping[str, Exception]) -> Exception | None:
    """Return the error of a group with stopped streams."""
    errors = list(stopped.values())
    if len(errors) < 2:
        return errors[0] if errors else None
    if all(isinstance(error, SchemaPaused) for error in errors):
        return errors[0]
    told = [
        f"{error}" if f"stream {stream}" in f"{error}".replace("'", "") else f"stream {stream!r}: {error}"
        for stream, error in stopped.items()
    ]
    return PipelineFailed(
        f"{len(stopped)} streams were stopped",
        blocks=[block for error in errors if isinstance(error, PipelineFailed) for block in error.blocks],
        hint="\n".join(told).replace("\n", "\n  "),
        code="stream.several_stopped",
    )
