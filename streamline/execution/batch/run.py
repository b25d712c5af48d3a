"""Runs a batch pipeline: lease, leftovers, workers, resumption, and the record of it all."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import StreamlineError
from streamline.execution.batch.block_log import BlockLines
from streamline.execution.batch.context import (
    MAX_WARNINGS,
    BatchOptions,
    BatchResult,
    BlockOutcome,
    Listener,
    RunFacts,
    SafeListener,
)
from streamline.execution.batch.dates import execution_date
from streamline.execution.batch.executor import LocalExecutor
from streamline.execution.batch.fanout import CANCELLED, COMPLETED, FAILED, Finished
from streamline.execution.batch.interrupts import Stop, is_asyncio, signals
from streamline.execution.batch.journal import Begun, Continued, Journal, Past, keep_only, read_journal
from streamline.execution.batch.output_layout import Places
from streamline.execution.batch.plan import BatchPlan, make_plan
from streamline.execution.batch.run_variables import Given, note
from streamline.execution.batch.runner import Runner
from streamline.execution.batch.single_block import stored_upstream
from streamline.execution.batch.templates import check_templates
from streamline.execution.lifecycle import Interrupted, clear_leftovers, new_run_id, tidy
from streamline.state import open_store
from streamline.state.store import BlockRun, RunInfo, Store
from streamline.telemetry.runlog import RunLog

if TYPE_CHECKING:
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project

_UNFINISHED = ("failed", "cancelled", "killed", "running")


def run_batch(
    project: Project, model: PipelineModel, options: BatchOptions, listener: Listener | None = None
) -> BatchResult:
    """Run the pipeline to its end. From any thread, also where an event loop runs already.

    Raises:
        ConfigError: something is wrong that is seen before anything runs.
        LeaseHeld: another run of this pipeline goes on.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run_batch_async(project, model, options, listener))
    return _in_thread(project, model, options, listener)


def _in_thread(project: Project, model: PipelineModel, options: BatchOptions, listener: Listener | None) -> BatchResult:
    """Run it in a thread, and have Ctrl-C, which comes to this one, end it."""
    future: Future[BatchResult] = Future()
    stop = Stop()

    def work() -> None:
        try:
            future.set_result(asyncio.run(run_batch_async(project, model, options, listener, stop)))
        except BaseException as error:
            future.set_exception(error)

    # asyncio's own handler cancels the task that waits here, which sees that only when the run is over.
    handler = None
    if threading.current_thread() is threading.main_thread() and is_asyncio(signal.SIGINT):
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=work, name=f"run {model.uuid}").start()
        while True:
            try:
                return future.result()
            except KeyboardInterrupt:
                if future.done():
                    raise
                stop(signal.SIGINT)
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


async def run_batch_async(
    project: Project,
    model: PipelineModel,
    options: BatchOptions,
    listener: Listener | None = None,
    stop: Stop | None = None,
) -> BatchResult:
    """The same in the event loop (asyncio) of the caller; `stop` interrupts it from another thread."""
    plan = make_plan(project, model, {**options.trigger_variables, **options.variables})
    if options.block is not None:
        model.block(options.block)
    if any(one.isolated for uuid, one in plan.blocks.items() if options.block in (None, uuid)):
        from streamline.pipeline.isolated import isolated_python

        # Made before anything runs: what cannot be installed is wrong configuration.
        tell = (listener or Listener()).line
        await asyncio.to_thread(isolated_python, project, model, lambda text: tell(model.uuid, text))
    work_dir = project.ensure_work_dir()
    store = open_store(project.state_url, project.root)
    try:
        while True:
            run = _Run(project, plan, options, listener or Listener(), store, stop)
            if options.resume:
                completed = run.resume()
                if completed is not None:
                    return completed
            with store.acquire_lease(model.uuid, run.run_id):
                if options.resume and run.is_outdated():
                    continue
                # A run that goes on may have been killed, and left processes, like any other.
                clear_leftovers(store, model.uuid, "", work_dir)
                return await run.go()
    finally:
        store.close()


class _Run:
    """One run. Whoever makes it holds the pipeline's lease."""

    def __init__(
        self,
        project: Project,
        plan: BatchPlan,
        options: BatchOptions,
        listener: Listener,
        store: Store,
        stop: Stop | None = None,
    ) -> None:
        self.project = project
        self.plan = plan
        self.options = options
        self.listener = SafeListener(listener, self._listener_failed)
        self.store = store
        self.stop = stop
        self.newest: RunInfo | None = None
        self.log: RunLog | None = None
        self.run_id = new_run_id()
        self.past: Past | None = None
        self.warnings: dict[str, None] = {}
        self.signal: int | None = None
        self.recorded = False

    def resume(self) -> BatchResult | None:
        """Become the newest unfinished run; a result where there is nothing left to do.

        Where nothing was ever recorded, or that run left nothing to go on from, it is a plain run.
        """
        newest = self.newest = self._newest()
        if newest is None:
            return None
        if newest.status not in _UNFINISHED:
            return BatchResult(run_id=newest.run_id, status=newest.status, blocks=[], log="", nothing_to_resume=True)
        places = Places(self.project, self.plan.model.uuid, newest.run_id)
        self.past = read_journal(places.journal)
        if self.past is not None and self.past.begun.run_id == newest.run_id:
            self.run_id = newest.run_id
            self.options = msgspec.structs.replace(self.options, tests=self.options.tests or self.past.given.tests)
        else:
            self.past = None
        return None

    def is_outdated(self) -> bool:
        """Whether another process had the run go on, or began one, before this one got the lease."""
        now, then = self._newest(), self.newest
        return (now and (now.run_id, now.status, now.pid)) != (then and (then.run_id, then.status, then.pid))

    def _newest(self) -> RunInfo | None:
        runs = self.store.runs(self.plan.model.uuid, limit=200)
        return next((one for one in runs if "block" not in one.summary), None)

    async def go(self) -> BatchResult:
        project = self.project
        self._take_over()
        given = self._given()
        both = {**self.options.trigger_variables, **self.options.variables}
        check_templates(project, self.plan.model, both, self.options.block)
        places = Places(project, self.plan.model.uuid, self.run_id)
        alone = self.options.block
        upstream = stored_upstream(self.plan, places, alone) if alone is not None else {}
        run_dir = project.work_dir / "runs" / self.run_id
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        run_dir.parent.chmod(0o700)
        log = self.log = RunLog(run_dir / "run.log")
        masker = project.secrets.masker
        facts = self._facts(run_dir)
        masker.add_config(facts.variables)
        lines = BlockLines(log, masker, self.listener.line)
        try:
            with LocalExecutor(self.plan, facts, lines, masker) as executor:
                self._begin(facts)
                result = await self._recorded(log, partial(self._run, facts, executor, log, given, places, upstream))
            # Only now: a run that is killed before it is recorded as completed has its journal to show that it was.
            places.finish(completed=result.status == COMPLETED and self.recorded)
            return result
        finally:
            tidy(self.run_id, run_dir.parent)
            log.close()

    def _take_over(self) -> None:
        """What the interrupted parts were given still counts; what is given now wins."""
        if self.past is None:
            return
        runtime, trigger = self.past.given.variables(self._key)
        self.options = msgspec.structs.replace(
            self.options,
            variables={**runtime, **self.options.variables},
            trigger_variables={**trigger, **self.options.trigger_variables},
        )

    def _given(self) -> Given:
        options = self.options
        return note(options.variables, options.trigger_variables, tests=options.tests, key=self._key)

    def _key(self) -> bytes:
        from streamline.outputs.store import project_key

        return project_key(self.project.work_dir)

    def _facts(self, run_dir: Any) -> RunFacts:
        begun = self.past.begun if self.past is not None else None
        runtime, trigger = self.options.variables, self.options.trigger_variables
        date = {**trigger, **runtime}.get("execution_date")
        if date is not None:
            execution_date(date, datetime.now(UTC))  # what is no date is refused before anything runs
        return RunFacts(
            project=self.project,
            run_id=self.run_id,
            run_dir=run_dir,
            execution_date=begun.execution_date if begun is not None else datetime.now(UTC),
            variables={**self.plan.model.variables, **trigger, **runtime},
            runtime=(*trigger, *runtime),
            options=self.options,
        )

    def _begin(self, facts: RunFacts) -> None:
        summary = {"block": self.options.block} if self.options.block is not None else {}
        run = RunInfo(run_id=self.run_id, pipeline=self.plan.model.uuid, summary=summary)
        if self.past is None:
            self.store.begin_run(run)
        else:
            self.store.continue_run(self.run_id)

    async def _recorded(self, log: RunLog, run: Callable[[], Awaitable[BatchResult]]) -> BatchResult:
        status, error, summary = FAILED, None, {}
        if self.options.block is not None:
            summary = {"block": self.options.block}
        masker = self.project.secrets.masker
        result: BatchResult | None = None
        try:
            result = await run()
            status = result.status
            summary |= result.summary
            if result.errors:
                error = masker.mask("; ".join(f"{uuid}: {one.message}" for uuid, one in result.errors.items()))
            return result
        except BaseException as failure:
            error = masker.mask(str(failure) or type(failure).__name__)
            log.write("streamline", error, "ERROR")
            if isinstance(failure, Interrupted | asyncio.CancelledError):
                status = CANCELLED
            raise
        finally:
            try:
                self.store.finish_run(self.run_id, status, summary, error)
                self.recorded = True
            except StreamlineError as unrecorded:
                if result is None:
                    raise
                # What the run came to is worth more than that nobody will find it in the list.
                self._warn(log, "streamline", f"how the run ended cannot be recorded: {unrecorded.message}")
                result.warnings = list(self.warnings)

    async def _run(
        self,
        facts: RunFacts,
        executor: LocalExecutor,
        log: RunLog,
        given: Given,
        places: Places,
        upstream: dict[str, Finished],
    ) -> BatchResult:
        alone = self.options.block
        if alone is None:
            keep_only(places.journals, [places.journal.name] if self.past is not None else [])
        places.prepare()
        journal = None if alone is not None else self._open_journal(places, facts, given)
        runner = Runner(
            facts,
            self.plan,
            places,
            executor,
            journal=journal,
            past=self.past,
            listener=self.listener,
            record=lambda outcome: self._record(log, outcome),
            warn=lambda uuid, text: self._warn(log, uuid, text),
            log=lambda uuid, text, level: log.write(uuid, self.project.secrets.masker.mask(text), level),
        )

        def interrupt() -> None:
            self.listener.interrupted()
            runner.interrupt()

        self.listener.planned(self.plan, self.run_id, resumed=self.past is not None)
        try:
            with signals(self, self.run_id, interrupt, self.stop):
                if alone is not None:
                    blocks = await runner.run_one(alone, upstream)
                else:
                    blocks = await runner.run()
                status = self._status(blocks)
                if self.plan.callbacks and alone is None:
                    failed = [one.uuid for one in blocks if one.status == FAILED]
                    first = next((one.failure for one in blocks if one.failure is not None), None)
                    extra = {"failed_blocks": failed, "failure": first, "pipeline_status": status}
                    await runner.call_back(self.plan.callbacks, status, extra)
        finally:
            if journal is not None:
                journal.close()
        return BatchResult(
            run_id=self.run_id,
            status=status,
            blocks=blocks,
            log=str(log.path),
            signal=self.signal,
            warnings=list(self.warnings),
            resumed=self.past is not None,
        )

    def _status(self, blocks: list[BlockOutcome]) -> str:
        if self.signal is not None and any(one.status == CANCELLED for one in blocks):
            return CANCELLED
        return FAILED if any(one.status in (FAILED, CANCELLED) for one in blocks) else COMPLETED

    def _open_journal(self, places: Places, facts: RunFacts, given: Given) -> Journal:
        journal = Journal(places.journal)
        if self.past is None:
            journal.add(Begun(run_id=self.run_id, execution_date=facts.execution_date, given=given))
        else:
            journal.add(Continued(given=given))
        return journal

    def _record(self, log: RunLog, outcome: BlockOutcome) -> None:
        failure = outcome.failure
        error = None
        if failure is not None:
            mask = self.project.secrets.masker.mask
            error = mask(f"{failure.where}: {failure.message}" if failure.where else failure.message)
            log.write(outcome.uuid, "\n".join(filter(None, (error, failure.hint, mask(failure.trace or "")))), "ERROR")
        took = "" if outcome.seconds is None else f" in {outcome.seconds:.3f} s"
        took += f": {outcome.reason}" if outcome.reason else ""
        log.write(outcome.uuid, f"{outcome.status}{took}{' before this run was resumed' if outcome.reused else ''}")
        block = BlockRun(
            uuid=outcome.uuid,
            status=outcome.status,
            seconds=outcome.seconds,
            attempts=outcome.attempts,
            results=outcome.results,
            error=error,
        )
        try:
            self.store.save_block_run(self.run_id, block)
        except StreamlineError as unrecorded:  # the pipeline's work goes on
            self._warn(log, outcome.uuid, f"how it ended cannot be recorded: {unrecorded.message}")

    def _listener_failed(self, error: Exception) -> None:
        if self.log is not None:
            self.log.write("streamline", f"what goes on cannot be told: {type(error).__name__}: {error}", "WARNING")

    def _warn(self, log: RunLog, uuid: str, text: str) -> None:
        text = self.project.secrets.masker.mask(text)
        log.write(uuid, text, "WARNING")
        self.listener.warning(uuid, text)
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings[f"{uuid}: {text}"] = None
