"""Runs a batch pipeline: lease, leftovers, workers, resumption, and the record of it all."""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from streamline.errors import StreamlineError
from streamline.execution.batch.block_log import BlockLines
from streamline.execution.batch.context import BatchResult, BlockOutcome, Listener, RunFacts, SafeListener
from streamline.execution.batch.dates import execution_date
from streamline.execution.batch.executor import LocalExecutor
from streamline.execution.batch.fanout import CANCELLED, COMPLETED, FAILED, Finished
from streamline.execution.batch.journal import Begun, Continued, Journal, Past, keep_only, read_journal
from streamline.execution.batch.output_layout import Places
from streamline.execution.batch.plan import BatchPlan, make_plan
from streamline.execution.batch.run_variables import Given, note
from streamline.execution.batch.runner import Runner
from streamline.execution.batch.single_block import stored_upstream
from streamline.execution.batch.templates import check_templates
from streamline.execution.run import KILLED, Run, RunOptions, Stop, hold_lease, new_run_id, open_run, run_to_end
from streamline.state import open_store
from streamline.state.store import BlockRun, RunInfo, Store

if TYPE_CHECKING:
    from pathlib import Path

    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project

_UNFINISHED = ("failed", "cancelled", "killed", "running")


def run_batch(
    project: Project, model: PipelineModel, options: RunOptions, listener: Listener | None = None
) -> BatchResult:
    """Run the pipeline to its end. From any thread, also where an event loop runs already.

    Raises:
        ConfigError: something is wrong that is seen before anything runs.
        LeaseHeld: another run of this pipeline is in progress.
    """
    return run_to_end(partial(run_batch_async, project, model, options, listener))


async def run_batch_async(
    project: Project,
    model: PipelineModel,
    options: RunOptions,
    listener: Listener | None = None,
    stop: Stop | None = None,
) -> BatchResult:
    """Run it in the caller's event loop (asyncio); `stop` interrupts it from another thread."""
    plan = make_plan(project, model, {**options.trigger_variables, **options.variables})
    if options.block is not None:
        model.block(options.block)
    if any(one.isolated for uuid, one in plan.blocks.items() if options.block in (None, uuid)):
        from streamline.pipeline.isolated import isolated_python

        # Made before anything runs: what cannot be installed is wrong configuration.
        tell = (listener or Listener()).line
        await asyncio.to_thread(isolated_python, project, model, lambda text: tell(model.uuid, text))
    project.ensure_work_dir()
    with closing(open_store(project.state_url, project.root)) as store:
        while True:
            run = _BatchRun(project, plan, options, listener or Listener(), store)
            if options.resume:
                completed = run.resume()
                if completed is not None:
                    return completed
            with hold_lease(store, project, model.uuid, run.run_id):
                if not (options.resume and run.is_outdated()):
                    return await run.go(stop)


class _BatchRun:
    """One run. Whoever makes it holds the pipeline's lease while it goes on."""

    def __init__(
        self, project: Project, plan: BatchPlan, options: RunOptions, listener: Listener, store: Store
    ) -> None:
        self.project = project
        self.plan = plan
        self.options = options
        self.listener = SafeListener(listener, self._listener_failed)
        self.store = store
        self.newest: RunInfo | None = None
        self.run_id = new_run_id()
        self.past: Past | None = None
        self.run: Run

    def resume(self) -> BatchResult | None:
        """Become the newest unfinished run; a result where there is nothing left to do.

        Where nothing was ever recorded, or that run left nothing to resume from, it is a plain run.
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
        """Whether another process resumed the run, or began one, before this one got the lease."""
        now, then = self._newest(), self.newest
        if now is None or then is None:
            return now is not then
        # What was running then may have been recorded as killed since, by this process.
        same = now.status == then.status or (now.status, then.status) == (KILLED, "running")
        return (now.run_id, now.pid) != (then.run_id, then.pid) or not same

    def _newest(self) -> RunInfo | None:
        runs = self.store.runs(self.plan.model.uuid, limit=200)
        return next((one for one in runs if "block" not in one.summary), None)

    async def go(self, stop: Stop | None) -> BatchResult:
        """Run it, from its folder to its record."""
        self._take_over()
        given = self._given()
        both = {**self.options.trigger_variables, **self.options.variables}
        check_templates(self.project, self.plan.model, both, self.options.block)
        places = Places(self.project, self.plan.model.uuid, self.run_id)
        alone = self.options.block
        upstream = stored_upstream(self.plan, places, alone) if alone is not None else {}
        with open_run(self.project, self.store, self.plan.model.uuid, self.run_id, self.options) as run:
            self.run = run
            facts = self._facts(run.run_dir)
            run.masker.add_config(facts.variables)
            lines = BlockLines(run.log, run.masker, self.listener.line)
            summary = {"block": alone} if alone is not None else {}
            with (
                LocalExecutor(self.plan, facts, lines, run.masker) as executor,
                run.record(summary, resumed=self.past is not None) as record,
            ):
                result = await self._run(facts, executor, given, places, upstream, stop)
                record.status = result.status
                record.summary = {**summary, **result.summary}
                if result.errors:
                    record.error = "; ".join(f"{uuid}: {one.message}" for uuid, one in result.errors.items())
            result.warnings = list(run.warnings)
            # Only now: a run that is killed before it is recorded as completed has its journal to show that it was.
            places.finish(completed=result.status == COMPLETED and record.saved)
            return result

    def _take_over(self) -> None:
        """Keep the variables of the interrupted parts; those given now win."""
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

    def _facts(self, run_dir: Path) -> RunFacts:
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

    async def _run(
        self,
        facts: RunFacts,
        executor: LocalExecutor,
        given: Given,
        places: Places,
        upstream: dict[str, Finished],
        stop: Stop | None,
    ) -> BatchResult:
        run, alone = self.run, self.options.block
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
            record=self._record,
            warn=self._warn,
            log=run.note,
        )

        def interrupt() -> None:
            self.listener.interrupted()
            runner.interrupt()

        self.listener.planned(self.plan, self.run_id, resumed=self.past is not None)
        try:
            with run.signals(interrupt, stop, "interrupted; --resume continues from the blocks that had not finished"):
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
            log=str(run.log.path),
            signal=run.interrupted,
            resumed=self.past is not None,
        )

    def _status(self, blocks: list[BlockOutcome]) -> str:
        if self.run.interrupted is not None and any(one.status == CANCELLED for one in blocks):
            return CANCELLED
        return FAILED if any(one.status in (FAILED, CANCELLED) for one in blocks) else COMPLETED

    def _open_journal(self, places: Places, facts: RunFacts, given: Given) -> Journal:
        journal = Journal(places.journal)
        if self.past is None:
            journal.add(Begun(run_id=self.run_id, execution_date=facts.execution_date, given=given))
        else:
            journal.add(Continued(given=given))
        return journal

    def _record(self, outcome: BlockOutcome) -> None:
        failure, run = outcome.failure, self.run
        error = None
        if failure is not None:
            error = run.masker.mask(f"{failure.where}: {failure.message}" if failure.where else failure.message)
            run.note(outcome.uuid, "\n".join(filter(None, (error, failure.hint, failure.trace))), "ERROR")
        took = "" if outcome.seconds is None else f" in {outcome.seconds:.3f} s"
        took += f": {outcome.reason}" if outcome.reason else ""
        run.log.write(outcome.uuid, f"{outcome.status}{took}{' before this run was resumed' if outcome.reused else ''}")
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
            self._warn(outcome.uuid, f"how it ended cannot be recorded: {unrecorded.message}")

    def _listener_failed(self, error: Exception) -> None:
        self.run.note("streamline", f"what goes on cannot be told: {type(error).__name__}: {error}", "WARNING")

    def _warn(self, uuid: str, text: str) -> None:
        self.listener.warning(uuid, self.run.masker.mask(text))
        self.run.warn(uuid, text)
