"""Runs the flows of source and destination blocks, and stores what sources read."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.connector.prepared import PreparedDestination, PreparedSource
from streamline.blocks.connector.role import connector_role
from streamline.connectors.outputs.parquet_sink import ParquetSink, WrittenStream
from streamline.errors import StreamlineError
from streamline.execution.batch.outcomes import unforeseen
from streamline.execution.batch.task import Failure, Task, TaskResult, exports_folder
from streamline.execution.connector_blocks.before_run import bookmark_variables
from streamline.execution.connector_blocks.plans import SourceFault, Written, plan_export, plan_pipe, plan_stored
from streamline.execution.events import failure_from
from streamline.execution.integration.attempt import GroupOutcome
from streamline.execution.integration.attempts import run_attempts, unless_interrupted
from streamline.execution.integration.block_runs import block_outcomes
from streamline.execution.integration.destination_identity import check_place, keep_destinations, place_of
from streamline.execution.integration.plan import config_overwrites
from streamline.execution.integration.planner import check_bookmark_names
from streamline.flow.tasks import keep_shields
from streamline.outputs.folders import new_sibling
from streamline.outputs.manifest import summary
from streamline.outputs.store import pack, project_key, write_output
from streamline.outputs.streams import StreamFiles, Streams
from streamline.telemetry.progress import Progress

if TYPE_CHECKING:
    from streamline.blocks.connector.source import OpenedSource
    from streamline.execution.batch.calls import RunFacts
    from streamline.execution.batch.fanout import CallKey
    from streamline.execution.batch.pending import PendingPositions
    from streamline.execution.batch.plan import BlockPlan
    from streamline.execution.integration.plan import Plan, SinkPlan, SourcePlan
    from streamline.execution.run import Run
    from streamline.pipeline.model import PipelineModel


class ConnectorFlows:
    """See `Flows`.

    Args:
        pending: holds the positions of sources.
        opened: sources that were opened before the run's first block, by uuid.

    Attributes:
        quarantined: records that were refused on the way and kept as dead letters.
    """

    def __init__(
        self, facts: RunFacts, model: PipelineModel, pending: PendingPositions, opened: Mapping[str, OpenedSource]
    ) -> None:
        self._opened = dict(opened)
        self._facts = facts
        self._run = facts.run
        self._model = model
        self._pending = pending
        self._written: dict[tuple[str, CallKey], Written] = {}
        self._contexts: list[Run] = []
        self._unplanned = {uuid for uuid, block in model.blocks.items() if connector_role(block) == "source"}
        self._sources: dict[str, SourcePlan] = {}
        self.quarantined = 0

    def interrupt(self) -> None:
        """End all flows in order."""
        for context in self._contexts:
            context.interrupted = self._run.interrupted

    async def source(self, plan: BlockPlan, task: Task, prepared: PreparedSource) -> TaskResult:
        """Read a source and store its output."""
        uuid = plan.block.uuid
        assert task.output is not None
        folder = new_sibling(Path(task.output))
        result = TaskResult()
        with _failing(result):
            sinks: list[ParquetSink] = []

            def open_sink() -> ParquetSink:
                _make_empty(folder)
                sinks.append(ParquetSink(uuid, folder))
                return sinks[-1]

            planning = partial(
                plan_stored,
                model=self._model,
                block=plan.block,
                prepared=prepared,
                open_sink=open_sink,
                proven_by=self._pending.proven_by(uuid),
                opened=self._open(uuid, prepared),
            )
            key = _key(uuid, prepared.key)
            try:
                await asyncio.to_thread(self._pending.begin, key, uuid, task.call)
                flow = await self._flow(task, uuid, planning, result, key=key)
                if flow is not None:
                    value = Streams(streams=_streams(flow.sources[uuid], sinks[-1].written()))
                    await asyncio.to_thread(self._store, task, value, result)
                    counted = {each["stream"] for each in result.results}
                    empty = [each["name"] for each in result.outputs if each["name"] not in counted]
                    result.results += [{"stream": name, "read": 0, "quarantined": 0} for name in empty]
            finally:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return result

    async def destination(self, plan: BlockPlan, task: Task, prepared: PreparedDestination) -> TaskResult:
        """Write stored outputs to a destination."""
        result = TaskResult()
        # Another attempt goes on after the rows that the destination has.
        written = self._written.setdefault((plan.block.uuid, task.call), Written())
        planning = partial(plan_export, model=self._model, block=plan.block, prepared=prepared, written=written)
        with _failing(result):
            try:
                if any(export.exported for export in prepared.exports):
                    uuid = plan.block.uuid
                    await self._flow(task, uuid, planning, result, key=uuid, written=written)
                if result.failure is None:
                    await asyncio.to_thread(self._store, task, None, result)
            finally:
                await asyncio.to_thread(shutil.rmtree, exports_folder(task), ignore_errors=True)
        return result

    async def pipe(
        self, source: BlockPlan, read: PreparedSource, plan: BlockPlan, task: Task, prepared: PreparedDestination
    ) -> tuple[TaskResult, TaskResult]:
        """Read a source into a destination; return the results of both."""
        results = TaskResult(), TaskResult()
        planning = partial(
            plan_pipe,
            model=self._model,
            source_block=source.block,
            source=read,
            block=plan.block,
            destination=prepared,
            opened=self._open(source.block.uuid, read),
        )
        uuid = source.block.uuid
        with _failing(results[1]):
            try:
                # What drops its tables at each start has nothing of an attempt before.
                into = None if config_overwrites(prepared.spec.config) else plan.block.uuid
                await asyncio.to_thread(self._pending.begin, uuid, uuid, (), into)
                flow = await self._flow(task, uuid, planning, results[1], source_result=results[0], key=uuid)
            except SourceFault as fault:
                results[0].failure = failure_from(fault.error)
                return results
            if flow is not None:
                await asyncio.to_thread(self._store, task, None, results[1])
        return results

    async def _flow(
        self,
        task: Task,
        source: str,
        planning: Any,
        result: TaskResult,
        *,
        key: str,
        source_result: TaskResult | None = None,
        written: Written | None = None,
    ) -> Plan | None:
        """Plan a flow and run it; return the plan if it ended well. How it ended goes into the results.

        Args:
            key: what the positions of the source are kept under.
            written: of a destination that writes stored outputs.

        Raises:
            StreamlineError: it cannot be planned.
            SourceFault: because of the source of a pipe.
        """
        with self._context(source, key, written) as context:
            return await keep_shields(self._planned(context, task, source, planning, result, source_result))

    async def _planned(
        self,
        context: Run,
        task: Task,
        source: str,
        planning: Any,
        result: TaskResult,
        source_result: TaskResult | None,
    ) -> Plan | None:
        if planning.func is plan_export:
            plan = await unless_interrupted(context, planning(context))
            if plan is not None and task.child is None:
                await asyncio.to_thread(self._check_place, context, plan.sinks[task.block])
        else:
            variables = bookmark_variables(self._facts)
            plan = await unless_interrupted(context, planning(context, variables=variables))
        if plan is None:
            result.failure = _interrupted()
            return None
        for each in plan.sources.values():
            for note in each.notes:
                context.warn(each.id, note)
        if planning.func is not plan_export and task.child is None:
            try:
                self._check_bookmarks(context, plan)
            except StreamlineError as error:
                raise error if source_result is None else SourceFault(error) from error
        if source_result is not None:
            await asyncio.to_thread(keep_destinations, context, plan)
        every: list[GroupOutcome] = []
        outcomes = await run_attempts(context, plan, every, retries=False)
        blocks = {outcome.uuid: outcome for outcome in block_outcomes(context, plan, every)}
        by_result = {task.block: result, **({source: source_result} if source_result is not None else {})}
        for uuid, each_result in by_result.items():
            if uuid in blocks:
                each_result.results = blocks[uuid].results
                each_result.failure = blocks[uuid].failure
        failed = next((outcome.error for outcome in outcomes if outcome.error is not None), None)
        gone = next((error for each in plan.sources.values() for error in each.gone.values()), None)
        if gone is not None:
            holder = source_result or result
            holder.failure = holder.failure or failure_from(gone)
        if failed is not None and all(each.failure is None for each in by_result.values()):
            result.failure = failure_from(failed)
        if context.interrupted is not None and result.failure is None:
            result.failure = _interrupted()
        return plan if all(each.failure is None for each in by_result.values()) else None

    def _check_bookmarks(self, context: Run, plan: Plan) -> None:
        """Check, when the last source is planned, that each `--bookmark` is for a stream that one of them reads."""
        self._sources |= plan.sources
        self._unplanned -= plan.sources.keys()
        if not self._unplanned:
            check_bookmark_names(context, self._sources)

    def _open(self, uuid: str, prepared: PreparedSource) -> OpenedSource | None:
        """Return a source that is open as it was prepared, for its first attempt."""
        opened = self._opened.pop(uuid, None)
        if opened is None or opened.spec != prepared.spec or prepared.catalog is not None:
            return None
        return opened

    def _check_place(self, context: Run, sink: SinkPlan) -> None:
        """Check that a destination is where it was when the positions of the sources above it were saved.

        Raises:
            ConfigError: it has moved, or is gone.
        """
        identity = place_of(sink)
        options = context.options
        for key in self._pending.sources_of(sink.id):
            held = self._pending.held(key)
            for stream, known in self._run.store.destinations(self._model.uuid, key).items():
                save = held.bookmarks.get(stream) if held is not None else None
                if options.accept_gap or options.full_refresh:
                    # A source that a condition has skipped is not refreshed: its records are where they were.
                    now = options.accept_gap or self._pending.begun(key)
                    if now and known.get(sink.id, identity) != identity:
                        # Also for a stream without new rows: the next run goes on from here.
                        moved = {**known, sink.id: identity}
                        self._run.store.save_destinations(self._model.uuid, key, stream, moved)
                    continue
                if save is not None and save.cause != "run":
                    continue
                check_place(context, sink, known.get(sink.id), identity, stream, where=sink.id)
        self._pending.note_destination(sink.id, identity)

    @contextmanager
    def _context(self, source: str, key: str, written: Written | None) -> Iterator[Run]:
        """Yield the run as a flow sees it: its positions are held back, its files and counts are its own."""
        run_dir = Path(tempfile.mkdtemp(prefix="flow-", dir=self._run.run_dir))
        store = self._pending.store_for(source, key, written.rows if written is not None else None)
        progress = Progress(self._run.masker.mask)
        context = msgspec.structs.replace(self._run, run_dir=run_dir, store=store, progress=progress)
        self._contexts.append(context)
        try:
            yield context
        finally:
            self._contexts.remove(context)
            self.quarantined += progress.summary()["quarantined"]
            shutil.rmtree(run_dir, ignore_errors=True)

    def _store(self, task: Task, value: Streams | None, result: TaskResult) -> None:
        if task.output is None:  # a destination that is marked secret
            result.inline = pack(value)
            return
        root = self._run.project.work_dir
        manifest = write_output(
            Path(task.output),
            value,
            run_id=task.run_id,
            secrets_key=lambda: project_key(root),
            durable=task.durable,
        )
        result.outputs = summary(manifest)


def _streams(source: SourcePlan, written: list[WrittenStream]) -> list[StreamFiles]:
    """Return the streams of an output: those that the source reads, then what else it sent."""
    by_name: Mapping[str, WrittenStream] = {each.stream: each for each in written}
    streams = []
    taken: set[str] = set()
    for selected in source.selected:
        name = next((name for name in (*selected.names, selected.stream, selected.id) if name in by_name), None)
        entry = source.catalog.get(selected.id) if source.catalog is not None else None
        described: dict[str, Any] = {
            **(entry.entry if entry is not None else {}),
            "tap_stream_id": selected.id,
            "stream": selected.stream,
            "replication_method": selected.replication_method,
            "key_properties": selected.key_properties,
        }
        if selected.bookmark_properties:
            described["bookmark_properties"] = selected.bookmark_properties
        if name is None:
            columns = [column for column in (entry.properties if entry else ()) if column not in selected.deselected]
            streams.append(StreamFiles(stream=described, columns=columns, files=[]))
            continue
        taken.add(name)
        streams.append(_files(by_name[name], described))
    others = [each for each in written if each.stream not in taken]
    return streams + [_files(each, {"tap_stream_id": each.stream, "stream": each.stream}) for each in others]


def _files(written: WrittenStream, described: dict[str, Any]) -> StreamFiles:
    return StreamFiles(
        stream={**described, "schema": written.schema},
        columns=written.columns,
        files=[(part.path, part.rows) for part in written.parts],
    )


@contextmanager
def _failing(result: TaskResult) -> Iterator[None]:
    """Make an error that is no bug the failure of a result."""
    try:
        yield
    except (StreamlineError, OSError) as error:
        result.failure = unforeseen(error)


def _interrupted() -> Failure:
    return Failure(message="interrupted", code="block.interrupted", retry=False)


def _key(block: str, key: str | None) -> str:
    return block if key is None else f"{block}:{key}"


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
