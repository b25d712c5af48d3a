"""One attempt: starts a plan's processes, joins them, and sees all of them to their end."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec

from streamline.connectors.singer.batch_files import FileSource
from streamline.connectors.singer.mapper import MapperProcess
from streamline.connectors.singer.parser import MAX_RECORD_BYTES, TapOutputError
from streamline.connectors.singer.state import has_bookmarks, state_of
from streamline.connectors.singer.tap import TapCommand, TapFailed, TapProcess
from streamline.connectors.singer.target import Feed, TargetCommand, TargetProcess
from streamline.connectors.singer.target_pool import TargetPool
from streamline.errors import StreamlineError
from streamline.execution.integration.checkpoint import PositionSaver, SourceAccount
from streamline.execution.integration.context import RunContext
from streamline.execution.integration.plan import GroupPlan, MapperPlan, Plan, SinkPlan, SourcePlan
from streamline.execution.integration.route_builder import RouteBuilder, max_bad_records
from streamline.execution.integration.schema_book import SchemaBook
from streamline.flow.items import ArrowBatch, BadRecord, Item, Position, RawBatch, RowBatch
from streamline.flow.ledger import Ledger
from streamline.flow.protocols import Source
from streamline.flow.router import Route, Router
from streamline.flow.tasks import task_group

if TYPE_CHECKING:
    from streamline.flow.stages.validate import BadRecordLimit

VALIDATED = "validate"
"""The stage of records that did not fit their SCHEMA right before a destination."""

INTERRUPT_SECONDS = float(os.environ.get("STREAMLINE_INTERRUPT_SECONDS") or 20.0)
"""How long targets may take to end when the run was interrupted, from the signal on."""

DEFAULT_SESSION_INTERVAL = 60.0
"""Seconds after which a target that proves nothing is closed and started anew, in pipelines without an end."""


class Outcome(msgspec.Struct):
    """How a group ended: `error` is None if all that it read is proven and saved."""

    group: GroupPlan
    error: Exception | None = None
    started: bool = False
    sink_failed: bool = False
    """The target was at fault, not the tap."""
    fault: str | None = None
    """Uuid of the block at fault, where the error does not say."""
    began: float | None = None
    ended: float | None = None
    """Both in seconds of the event loop's clock."""


class _Running(msgspec.Struct):
    """A group that runs."""

    outcome: Outcome
    tap: TapProcess | None = None
    files: FileSource | None = None
    scope: anyio.CancelScope | None = None
    sinks: list[TargetProcess] = []
    ended: bool = False


class Attempt:
    """Runs `groups` of a plan once.

    Args:
        validate: every record is validated, and quarantined if it breaks its schema.
        version: table version of this attempt's replacements.
        number: of the attempt, from 1.
    """

    def __init__(
        self,
        context: RunContext,
        plan: Plan,
        groups: Sequence[GroupPlan],
        *,
        validate: bool,
        version: int,
        number: int = 1,
    ) -> None:
        self._context = context
        self._plan = plan
        self._groups = list(groups)
        self._routes = RouteBuilder(context, plan, validate=validate, version=version, attempt=number)
        self._running = {group.id: _Running(Outcome(group)) for group in groups}
        self._pools = {sink_id: self._pool(sink) for sink_id, sink in plan.sinks.items() if self._feeding(sink_id)}
        self._ledger = Ledger({group.id: self._process_ids(group) for group in groups})
        self._accounts = {group.id: self._account(group) for group in groups}
        self._limits: dict[str, BadRecordLimit] = {}
        self._book = SchemaBook(context.store, plan.pipeline)
        self._saver = PositionSaver(
            context.store,
            pipeline=plan.pipeline,
            run_id=context.run_id,
            accounts=list(self._accounts.values()),
            ledger=self._ledger,
            on_saved=lambda group: context.progress.position_saved(self._group(group).source),
            before_letters=self._book.save,
        )

    async def run(self) -> list[Outcome]:
        """Run everything to its end; failures are in the outcomes."""
        routes = self._make_routes()
        for start in self._routes.starting:
            await start()
        try:
            async with task_group() as background:
                for pool in self._pools.values():
                    for process in pool.processes:
                        background.start_soon(process.run)
                background.start_soon(self._saver.run)
                background.start_soon(self._pass_on_interrupt)
                async with task_group() as groups:
                    limits = {
                        source.id: anyio.CapacityLimiter(source.max_parallel) for source in self._plan.sources.values()
                    }
                    plugins = {
                        source.plugin.name: anyio.CapacityLimiter(source.plugin.max_processes)
                        for source in self._plan.sources.values()
                        if source.plugin.max_processes is not None
                    }
                    for group in self._groups:
                        both = [limits[group.source], plugins.get(self._source(group).plugin.name)]
                        groups.start_soon(
                            self._run_group, group, routes[group.id], [one for one in both if one], background
                        )
                for pool in self._pools.values():
                    await self._close(pool)
                background.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._saver.flush()
                await anyio.to_thread.run_sync(self._save_schemas)
        await self._judge()
        for running in self._running.values():
            running.outcome.ended = anyio.current_time()
        return [running.outcome for running in self._running.values()]

    def _make_routes(self) -> dict[str, Route]:
        routes = {
            group.id: self._routes.route(group, self._plan.paths[group.source], self._pools) for group in self._groups
        }
        for group in self._groups:
            self._book.watch(group.source, routes[group.id])
        return routes

    def _save_schemas(self) -> None:
        self._routes.save_schemas()
        self._book.save()

    # -- groups

    def _group(self, group_id: str) -> GroupPlan:
        return self._running[group_id].outcome.group

    def _source(self, group: GroupPlan) -> SourcePlan:
        return self._plan.sources[group.source]

    async def _run_group(
        self,
        group: GroupPlan,
        route: Route,
        limits: Sequence[anyio.CapacityLimiter],
        background: anyio.abc.TaskGroup,
    ) -> None:
        running = self._running[group.id]
        outcome = running.outcome
        async with AsyncExitStack() as turns:
            for limit in limits:
                await turns.enter_async_context(limit)
            if self._context.interrupted is None and outcome.error is None:
                outcome.started = True
                outcome.began = anyio.current_time()
                await self._move(group, route, running)
        running.ended = True
        for pool in self._pools_of(group):
            if all(each.ended for each in self._feeding(pool.id)):
                background.start_soon(self._close, pool)

    async def _move(self, group: GroupPlan, route: Route, running: _Running) -> None:
        outcome = running.outcome
        try:
            await self._mark_passed(group)
            source = self._sources_of(group, running)
            router = Router(
                source,
                route,
                observe=self._observer(group),
                on_bad=lambda bad: self._refuse(group, bad),
                complete=lambda: running.tap is None or running.tap.stopped is None,
            )
            with anyio.CancelScope() as scope:
                running.scope = scope
                await router.run()
            if not scope.cancelled_caught:
                return
            outcome.error = outcome.error or StreamlineError("it was cancelled", where=group.id)
        except Exception as error:
            failed = next((process for process in running.sinks if process.failure is not None), None)
            outcome.error = failed.failure if failed is not None else error
            outcome.sink_failed = failed is not None
            outcome.fault = self._block_of(failed) if failed is not None else self._mapper_at_fault(group, error)
        self._context.note(group.id, f"failed: {outcome.error}", "ERROR")

    def _block_of(self, process: TargetProcess) -> str | None:
        return next((pool.id for pool in self._pools.values() if process in pool.processes), None)

    def _mapper_at_fault(self, group: GroupPlan, error: Exception) -> str | None:
        where = error.where if isinstance(error, TapFailed | TapOutputError) else None
        mappers = self._plan.mappers.get(group.source, ())
        return next((mapper.block.uuid for mapper in mappers if mapper.plugin.name == where), None)

    async def _mark_passed(self, group: GroupPlan) -> None:
        """Streams left out of a log that the tap moves on as soon as it starts have a gap from then on."""
        passed = self._source(group).passed
        if passed and any(each.replication_method == "LOG_BASED" for each in group.streams):
            store, pipeline = self._context.store, self._plan.pipeline
            await anyio.to_thread.run_sync(store.mark_gap, pipeline, group.source, passed)

    def _sources_of(self, group: GroupPlan, running: _Running) -> Source:
        """The tap process and what stands right behind it."""
        context, plan = self._context, self._source(group)
        tap = TapProcess(
            TapCommand(
                id=group.id,
                name=plan.plugin.name,
                argv=plan.plugin.argv,
                env=plan.plugin.env,
                cwd=context.project.root,
                config=plan.config,
                catalog=group.catalog,
                takes_config=plan.capabilities.config,
                catalog_flags=plan.capabilities.catalog_flags,
                state=group.state if plan.capabilities.state else None,
                max_duration=plan.spec.max_duration,
                idle_timeout=plan.spec.idle_timeout,
                timeout=plan.block.timeout,
                max_record_bytes=plan.spec.max_record_bytes or MAX_RECORD_BYTES,
            ),
            run_dir=context.run_dir,
            masker=context.masker,
            log=lambda line: context.child_line(group.id, line),
            on_config_change=self._routes.config_keeper(plan),
        )
        running.tap = tap
        self._accounts[group.id].confirm = tap.confirm
        files = FileSource(
            tap, run_dir=context.run_dir, root=context.project.root, passed=self._routes.passed_dialects(group.source)
        )
        running.files = files
        source: Source = files
        for number, mapper in enumerate(self._plan.mappers.get(group.source, ())):
            source = self._mapped(group, mapper, number, source, tap)
        if self._context.interrupted is not None:
            tap.stop("the run was interrupted")
        return source

    def _mapped(self, group: GroupPlan, mapper: MapperPlan, number: int, source: Source, tap: TapProcess) -> Source:
        context = self._context
        name = f"{group.id}.{mapper.block.uuid}"
        process = MapperProcess(
            TapCommand(
                id=name,
                name=mapper.plugin.name,
                argv=mapper.plugin.argv,
                env=mapper.plugin.env,
                cwd=context.project.root,
                config=mapper.config,
                timeout=mapper.block.timeout,
                max_record_bytes=self._source(group).spec.max_record_bytes or MAX_RECORD_BYTES,
            ),
            source,
            stop_upstream=tap.stop,
            stopped=lambda: tap.stopped is not None,
            run_dir=context.run_dir,
            masker=context.masker,
            log=lambda line: context.child_line(name, line),
        )
        # Positions bear the group's id, whichever process gives them.
        process.id = group.id
        return process

    def _observer(self, group: GroupPlan) -> Callable[[Sequence[Item]], None]:
        progress = self._context.progress
        shared = len(self._source(group).groups) > 1

        def observe(items: Sequence[Item]) -> None:
            for item in items:
                if isinstance(item, RawBatch | RowBatch | ArrowBatch):
                    progress.read(group.source, item.stream, item.count)
                elif shared and isinstance(item, Position) and not has_bookmarks(state_of(item.parts)):
                    raise StreamlineError(
                        "its state is not kept apart by stream, so several processes can't share its streams",
                        where=group.id,
                        hint="take run_in_parallel out of the source's streams",
                    )

        return observe

    def _refuse(self, group: GroupPlan, bad: Sequence[BadRecord]) -> None:
        for record in bad:
            self._context.progress.refused(group.source, record.stream, 1)
            path = self._plan.paths[group.source]
            for place in (*(each.block.uuid for each in path.all_transforms()), *path.all_sinks()):
                self._book.need(group.source, place, record.stream)
        self._saver.refuse(group.id, group.source, bad)
        # What is refused before a destination's validation counts as well; that one counts for itself.
        others = [record for record in bad if record.stage != VALIDATED]
        if others:
            self._count_refused(group, others)

    def _count_refused(self, group: GroupPlan, bad: Sequence[BadRecord]) -> None:
        from streamline.flow.stages.validate import BadRecordLimit

        def most(stream: str) -> int | None:
            sinks = [self._plan.sinks[sink] for sink in self._plan.paths[group.source].all_sinks()]
            allowed = [max_bad_records(group.source, sink, stream) for sink in sinks]
            return min((one for one in allowed if one is not None), default=None)

        limit = self._limits.setdefault(group.source, BadRecordLimit(most))
        for record in bad:
            count = self._context.progress.streams.get((group.source, record.stream))
            limit.of(record.stream).records = count.read if count is not None else 0
            limit.add(record.stream, 0, [record.error])

    # -- sinks

    def _feeding(self, sink_id: str) -> list[_Running]:
        return [
            running
            for running in self._running.values()
            if sink_id in self._plan.paths[running.outcome.group.source].all_sinks()
        ]

    def _pools_of(self, group: GroupPlan) -> list[TargetPool]:
        return [self._pools[sink] for sink in self._plan.paths[group.source].all_sinks()]

    def _process_ids(self, group: GroupPlan) -> frozenset[str]:
        return frozenset(process.id for pool in self._pools_of(group) for process in pool.processes)

    def _pool(self, sink: SinkPlan) -> TargetPool:
        context = self._context
        groups = [running.outcome.group for running in self._feeding(sink.id)]
        blocks = {group.source for group in groups}
        feeds = [self._feed(group, sink, several_blocks=len(blocks) > 1) for group in groups]
        known = frozenset(
            feed.name_of(stream.id)
            for feed, group in zip(feeds, groups, strict=True)
            for stream in (self._source(group).catalog or ())
        )
        endless = any(self._source(group).endless for group in groups)
        interval = sink.spec.session_interval or (DEFAULT_SESSION_INTERVAL if endless else None)
        if sink.overwrites:
            interval = None
        processes = []
        for number in range(sink.processes):
            name = sink.id if sink.processes == 1 else f"{sink.id}.{number + 1}"
            process = TargetProcess(
                TargetCommand(
                    id=name,
                    name=sink.plugin.name,
                    argv=sink.plugin.argv,
                    env=sink.plugin.env,
                    cwd=context.project.root,
                    config=sink.config,
                    echoes=sink.plugin.proof != "exit",
                    session_interval=interval,
                    timeout=sink.block.timeout,
                    prestart=sink.plugin.prestart,
                ),
                feeds=feeds,
                known=known,
                state={group.id: group.state for group in groups},
                run_dir=context.run_dir,
                masker=context.masker,
                log=lambda line, name=name: context.child_line(name, line),  # type: ignore[misc]
                on_proof=lambda process_id, positions: self._saver.proven(process_id, positions),
                on_failure=lambda error, sink_id=sink.id: self._sink_failed(sink_id, error),  # type: ignore[misc]
                on_sent=lambda stream, records, sink_id=sink.id: self._written(sink_id, stream, records),  # type: ignore[misc]
            )
            processes.append(process)
            for running in self._feeding(sink.id):
                running.sinks = [*running.sinks, process]
        return TargetPool(sink.id, processes, sink.slot_of)

    def _feed(self, group: GroupPlan, sink: SinkPlan, *, several_blocks: bool) -> Feed:
        plan = self._source(group)
        return Feed(
            source=group.id,
            key_of=lambda table: plan.key_of(sink.stream_of(plan.id, table)),
            owns=_owner(group, plan),
            # Two blocks may have streams of one name; in a target's merged state they must not meet.
            name_of=(lambda key: f"{plan.id}:{key}") if several_blocks else str,
        )

    def _written(self, sink: str, stream: str, records: int) -> None:
        self._context.progress.written(sink, stream, records)

    def _sink_failed(self, sink_id: str, error: StreamlineError) -> None:
        self._context.note(sink_id, f"failed: {error}", "ERROR")
        for running in self._feeding(sink_id):
            if running.outcome.error is None and not running.ended:
                running.outcome.error = error
                running.outcome.sink_failed = True
                running.outcome.fault = sink_id
            if running.scope is not None and not running.ended:
                running.scope.cancel()

    async def _close(self, pool: TargetPool) -> None:
        async with task_group() as tasks:
            for process in pool.processes:
                tasks.start_soon(lambda process=process: process.close())  # type: ignore[misc]

    async def _pass_on_interrupt(self) -> None:
        while self._context.interrupted is None:
            await anyio.sleep(0.1)
        for running in self._running.values():
            if running.tap is not None:
                running.tap.stop("the run was interrupted")
        # A target may be ending already, or not be reading at all: none gets longer than this.
        for pool in self._pools.values():
            for process in pool.processes:
                process.limit(INTERRUPT_SECONDS)

    # -- positions

    def _account(self, group: GroupPlan) -> SourceAccount:
        plan = self._source(group)

        async def positioned(position: Position) -> None:
            running = self._running[group.id]
            # A position may be saved while records of a stream whose bookmark did not move are unproven.
            if running.files is not None and not any(process.unproven for process in running.sinks):
                await running.files.confirm(position)

        return SourceAccount(
            source=group.id,
            block=group.source,
            owns=_owner(group, plan),
            shared=len(plan.groups) > 1,
            sinks=self._plan.paths[group.source].all_sinks(),
            replication={
                stream.id: (stream.replication_method, ",".join(stream.bookmark_properties) or None)
                for stream in plan.selected
            },
            rows=dict(group.rows),
            cause_of=plan.cause_of,
            overrides=plan.overrides,
            left_out=plan.left_out if any(each.replication_method == "LOG_BASED" for each in group.streams) else [],
            positioned=positioned,
        )

    async def _judge(self) -> None:
        """A group whose tap ended well has still failed if a sink did not prove everything, or a stream paused."""
        for running in self._running.values():
            failed = next((process for process in running.sinks if process.failure is not None), None)
            if failed is not None and running.outcome.error is None:
                running.outcome.error = failed.failure
                running.outcome.sink_failed = True
                running.outcome.fault = self._block_of(failed)
            elif failed is None and running.files is not None:
                await running.files.all_proven()
            if running.outcome.error is None:
                running.outcome.error = self._routes.paused.get(running.outcome.group.id)


def _owner(group: GroupPlan, plan: SourcePlan) -> Callable[[str], bool]:
    """Whether a bookmark is this process's: its own streams', and those that no other process claims."""
    others = {stream.id for other in plan.groups if other.id != group.id for stream in other.streams}
    if not group.streams:
        return lambda key: True
    catalogued = {stream.id for stream in plan.catalog or ()}
    own = {stream.id for stream in group.streams}
    return lambda key: key in own or (key not in others and key not in catalogued)
