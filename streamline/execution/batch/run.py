"""Runs a batch pipeline: lease, leftovers, workers, resumption, and the record of it all."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from streamline.errors import WrongOption
from streamline.execution.batch.block_log import BlockLines
from streamline.execution.batch.calls import RunFacts
from streamline.execution.batch.executor import LocalExecutor
from streamline.execution.batch.fanout import CANCELLED, COMPLETED, FAILED, Finished
from streamline.execution.batch.journal import Begun, Continued, Journal, Past, keep_only, read_journal
from streamline.execution.batch.output_layout import OutputLayout
from streamline.execution.batch.plan import BatchPlan, make_plan
from streamline.execution.batch.resume import stored_upstream
from streamline.execution.batch.run_variables import RunVariables, execution_date, note
from streamline.execution.batch.runner import Runner
from streamline.execution.batch.templates import check_templates
from streamline.execution.events import BlockOutcome, BlockOutput, Bus, RunPlanned
from streamline.execution.run import (
    KILLED,
    Interrupted,
    Run,
    RunOptions,
    RunResult,
    Stop,
    hold_lease,
    new_run_id,
    open_run,
)
from streamline.flow.tasks import keep_shields
from streamline.outputs.store import project_key
from streamline.state import project_store
from streamline.state.store import RunInfo, Store

if TYPE_CHECKING:
    from streamline.blocks.connector.source import OpenedSource
    from streamline.execution.batch.connector_calls import ConnectorCalls
    from streamline.execution.batch.pending import PendingPositions
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project

_UNFINISHED = ("failed", "cancelled", "killed", "running")


async def run_batch(
    project: Project,
    model: PipelineModel,
    options: RunOptions,
    bus: Bus,
    stop: Stop | None = None,
) -> RunResult:
    """Run a batch pipeline to its end. See `Engine.run`."""
    plan = make_plan(project, model, {**options.trigger_variables, **options.variables})
    if options.block is not None:
        model.block(options.block)
        plan.pipes = {}  # a block that runs alone stores its output
    if any(block.isolated for uuid, block in plan.blocks.items() if options.block in (None, uuid)):
        from streamline.pipeline.isolated import isolated_python

        # Installed before anything runs: a failure is wrong configuration.
        def notify(text: str) -> None:
            bus.publish(BlockOutput(block=model.uuid, text=text))

        await asyncio.to_thread(isolated_python, project, model, notify)
    _refuse_source_options(plan, options)
    project.ensure_work_dir()
    with project_store(project) as store:
        while True:
            run = _BatchRun(project, plan, options, bus, store)
            if options.resume:
                completed = run.resume()
                if completed is not None:
                    return completed
            with hold_lease(store, project, model.uuid, run.run_id):
                if not (options.resume and run.is_outdated()):
                    return await run.go(stop)


def _refuse_source_options(plan: BatchPlan, options: RunOptions) -> None:
    """Refuse options about sources where the pipeline has none.

    Raises:
        WrongOption: naming the first of them.
    """
    if any(block.connector == "source" for block in plan.blocks.values()):
        return
    for option, flag in FLAGS.items():
        if getattr(options, option):
            raise WrongOption(
                f"{flag} is about sources, and this pipeline has none",
                where=plan.model.yaml.shown,
                hint="leave it out",
                code="run.option_refused",
            )


FLAGS = {
    "full_refresh": "--full-refresh",
    "bookmarks": "--bookmark",
    "accept_gap": "--accept-gap",
    "refresh_catalog": "--refresh-catalog",
}
"""Options about sources."""


class _BatchRun:
    """One run. The caller holds the pipeline's lease."""

    def __init__(self, project: Project, plan: BatchPlan, options: RunOptions, bus: Bus, store: Store) -> None:
        self.project = project
        self.plan = plan
        self.options = options
        self.bus = bus
        self.store = store
        self.newest: RunInfo | None = None
        self.run_id = new_run_id()
        self.past: Past | None = None
        self.run: Run

    def resume(self) -> RunResult | None:
        """Become the newest unfinished run. Return a result if there is nothing to resume.

        If nothing is recorded, or that run left no journal, it stays a new run.
        """
        newest = self.newest = self._newest()
        if newest is None:
            return None
        if newest.status not in _UNFINISHED:
            return RunResult(run_id=newest.run_id, status=newest.status, nothing_to_resume=True)
        layout = OutputLayout(self.project, self.plan.model.uuid, newest.run_id)
        self.past = read_journal(layout.journal)
        if self.past is not None and self.past.begun.run_id == newest.run_id:
            self.run_id = newest.run_id
            begun = self.past.begun
            self._refuse_other_start(begun)
            self.options = msgspec.structs.replace(
                self.options,
                tests=self.options.tests or self.past.given.tests,
                full_refresh=self.options.full_refresh or begun.full_refresh,
                accept_gap=self.options.accept_gap or begun.accept_gap,
                bookmarks=self.options.bookmarks or begun.bookmarks,
            )
        else:
            self.past = None
        return None

    def _refuse_other_start(self, begun: Begun) -> None:
        """Refuse to start the sources of a resumed run elsewhere: some may have been read already.

        Raises:
            WrongOption: naming the option.
        """
        for option in ("full_refresh", "bookmarks"):
            given, before = getattr(self.options, option), getattr(begun, option)
            if given and (list(given) != before if option == "bookmarks" else not before):
                raise WrongOption(
                    f"{FLAGS[option]} cannot be added to a run that is resumed: its sources may have been read already",
                    where=self.plan.model.yaml.shown,
                    hint="leave it out, or run without --resume",
                    code="run.option_refused",
                )

    def is_outdated(self) -> bool:
        """Return whether another process resumed the run, or began one, before this one got the lease."""
        now, then = self._newest(), self.newest
        if now is None or then is None:
            return now is not then
        # What was running then may have been recorded as killed since, by this process.
        same = now.status == then.status or (now.status, then.status) == (KILLED, "running")
        return (now.run_id, now.pid) != (then.run_id, then.pid) or not same

    def _newest(self) -> RunInfo | None:
        runs = self.store.runs(self.plan.model.uuid, limit=200)
        return next((run for run in runs if "block" not in run.summary), None)

    async def go(self, stop: Stop | None) -> RunResult:
        """Open the run, run it and record it."""
        self._take_over()
        if self.options.tests:
            # Tests of a source in Python need its output.
            blocks, pipes = self.plan.blocks, self.plan.pipes
            self.plan.pipes = {uuid: to for uuid, to in pipes.items() if blocks[uuid].block.language != "python"}
        run_variables = self._run_variables()
        both = {**self.options.trigger_variables, **self.options.variables}
        check_templates(self.project, self.plan.model, both, self.options.block)
        layout = OutputLayout(self.project, self.plan.model.uuid, self.run_id)
        alone = self.options.block
        upstream = stored_upstream(self.plan, layout, alone) if alone is not None else {}
        with open_run(self.project, self.store, self.plan.model.uuid, self.run_id, self.options, bus=self.bus) as run:
            self.run = run
            facts = self._facts(run)
            run.masker.add_config(facts.variables)
            summary = {"block": alone} if alone is not None else {}
            with LocalExecutor(self.plan, facts, BlockLines(run), run.masker) as executor:
                opened = await self._check_connectors(facts, stop)
                with run.record(summary, resumed=self.past is not None) as record:
                    result = await self._run(facts, executor, run_variables, layout, upstream, opened, stop)
                    record.status = result.status
                    record.summary = {**summary, **result.summary}
                    record.fail(result.errors)
            result.warnings = list(run.warnings)
            # Only now: a run that is killed before it is recorded as completed still has its journal.
            layout.finish(completed=result.status == COMPLETED and record.saved)
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

    def _run_variables(self) -> RunVariables:
        options = self.options
        return note(options.variables, options.trigger_variables, tests=options.tests, key=self._key)

    def _key(self) -> bytes:
        return project_key(self.project.work_dir)

    def _facts(self, run: Run) -> RunFacts:
        begun = self.past.begun if self.past is not None else None
        runtime, trigger = self.options.variables, self.options.trigger_variables
        date = {**trigger, **runtime}.get("execution_date")
        if date is not None:
            execution_date(date, datetime.now(UTC))  # refuse an invalid date before anything runs
        return RunFacts(
            run=run,
            execution_date=begun.execution_date if begun is not None else datetime.now(UTC),
            variables={**self.plan.model.variables, **trigger, **runtime},
            runtime=(*trigger, *runtime),
        )

    async def _check_connectors(self, facts: RunFacts, stop: Stop | None) -> dict[str, OpenedSource]:
        """Check sources and destinations before any block runs; return the sources that were opened.

        Raises:
            ConfigError: one of them cannot work.
            Interrupted: by a signal.
        """
        blocks = [block for uuid, block in self.plan.blocks.items() if self.options.block in (None, uuid)]
        if self.past is not None or not any(block.connector for block in blocks):
            return {}
        from streamline.execution.connector_blocks.before_run import check_before_run

        with self.run.signals(lambda: None, stop):
            opened = await keep_shields(check_before_run(facts, self.plan, blocks))
        if opened is None:
            raise Interrupted(self.run.interrupted or signal.SIGINT)
        return opened

    async def _run(
        self,
        facts: RunFacts,
        executor: LocalExecutor,
        run_variables: RunVariables,
        layout: OutputLayout,
        upstream: dict[str, Finished],
        opened: dict[str, OpenedSource],
        stop: Stop | None,
    ) -> RunResult:
        run, alone = self.run, self.options.block
        if alone is None:
            keep_only(layout.journals, [layout.journal.name] if self.past is not None else [])
        layout.prepare()
        journal = None if alone is not None else self._open_journal(layout, facts, run_variables)
        pending, connectors = self._connectors(facts, journal, opened)
        runner = Runner(
            facts,
            self.plan,
            layout,
            executor,
            journal=journal,
            past=self.past,
            connectors=connectors,
            pending=pending,
        )
        run.bus.publish(
            RunPlanned(
                run_id=self.run_id,
                pipeline=self.plan.model.uuid,
                blocks=list(self.plan.blocks),
                resumed=self.past is not None,
            )
        )
        try:
            with run.signals(
                runner.interrupt, stop, "interrupted; --resume continues from the blocks that had not finished"
            ):
                if alone is not None:
                    blocks = await runner.run_one(alone, upstream)
                else:
                    blocks = await runner.run()
                status = self._status(blocks)
                if self.plan.callbacks and alone is None:
                    failed = [outcome.uuid for outcome in blocks if outcome.status == FAILED]
                    first = next((outcome.failure for outcome in blocks if outcome.failure is not None), None)
                    extra = {
                        "failed_blocks": failed,
                        "failure": first,
                        "pipeline_status": status,
                        "parent_block_uuid": None,
                    }
                    await runner.call_back(self.plan.callbacks, status, extra)
        finally:
            if journal is not None:
                journal.close()
        return RunResult(
            run_id=self.run_id,
            status=status,
            blocks=blocks,
            errors={outcome.uuid: outcome.failure for outcome in blocks if outcome.failure is not None},
            summary={
                "blocks": dict(Counter(outcome.status for outcome in blocks)),
                **({"quarantined": connectors.quarantined} if connectors is not None else {}),
            },
            log=str(run.log.path),
            signal=run.interrupted,
            resumed=self.past is not None,
            hint=self._hint() if status != COMPLETED else None,
        )

    def _connectors(
        self, facts: RunFacts, journal: Journal | None, opened: dict[str, OpenedSource]
    ) -> tuple[PendingPositions | None, ConnectorCalls | None]:
        """Return what holds the positions of sources, and what makes the calls of sources and destinations."""
        if not any(block.connector for block in self.plan.blocks.values()):
            return None, None
        # Imported here: pipelines without such blocks do without the machinery of flows.
        from streamline.execution.batch.connector_calls import ConnectorCalls
        from streamline.execution.batch.pending import PendingPositions, held_of
        from streamline.execution.connector_blocks.flows import ConnectorFlows

        past = held_of(self.past.positions) if self.past is not None else {}
        pending = PendingPositions(self.store, self.plan, self.run_id, journal, past)
        return pending, ConnectorCalls(self.plan, ConnectorFlows(facts, self.plan.model, pending, opened))

    def _status(self, blocks: list[BlockOutcome]) -> str:
        if self.run.interrupted is not None and any(outcome.status == CANCELLED for outcome in blocks):
            return CANCELLED
        return FAILED if any(outcome.status in (FAILED, CANCELLED) for outcome in blocks) else COMPLETED

    def _open_journal(self, layout: OutputLayout, facts: RunFacts, run_variables: RunVariables) -> Journal:
        journal = Journal(layout.journal)
        if self.past is None:
            options = self.options
            journal.add(
                Begun(
                    run_id=self.run_id,
                    execution_date=facts.execution_date,
                    given=run_variables,
                    full_refresh=options.full_refresh,
                    accept_gap=options.accept_gap,
                    bookmarks=list(options.bookmarks),
                )
            )
        else:
            journal.add(Continued(given=run_variables))
        return journal

    def _hint(self) -> str:
        pipeline = self.plan.model.uuid
        if self.options.block is None:
            return f"`streamline run {pipeline} --resume` continues from the blocks that had not finished."
        return f"To repeat it: streamline run {pipeline} --block-uuid {self.options.block}"
