"""Runs a batch pipeline: lease, leftovers, workers, resumption, and the record of it all."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError
from streamline.execution.batch.block_lines import BlockLines
from streamline.execution.batch.context import MAX_WARNINGS, BatchOptions, BatchResult, BlockOutcome, Listener, RunFacts
from streamline.execution.batch.executor import LocalExecutor
from streamline.execution.batch.fanout import CANCELLED, COMPLETED, FAILED, SKIPPED, Finished, Instance
from streamline.execution.batch.given import Given, note
from streamline.execution.batch.journal import Begun, Continued, Journal, Past, keep_only, read_journal
from streamline.execution.batch.places import Places
from streamline.execution.batch.plan import BatchPlan, make_plan
from streamline.execution.batch.runner import Runner
from streamline.execution.batch.task import InputRef
from streamline.execution.leftovers import end_processes
from streamline.execution.life import Interrupted, clear_leftovers, new_run_id, tidy, wanted_signals
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
    import threading

    future: Future[BatchResult] = Future()

    def work() -> None:
        try:
            future.set_result(asyncio.run(run_batch_async(project, model, options, listener)))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name=f"run {model.uuid}").start()
    return future.result()


async def run_batch_async(
    project: Project, model: PipelineModel, options: BatchOptions, listener: Listener | None = None
) -> BatchResult:
    """The same in the event loop (asyncio) of the caller."""
    plan = make_plan(project, model)
    if options.block is not None:
        model.block(options.block)
    if any(one.isolated for uuid, one in plan.blocks.items() if options.block in (None, uuid)):
        from streamline.project.isolated import isolated_python

        # Made before anything runs: what cannot be installed is wrong configuration.
        tell = (listener or Listener()).line
        await asyncio.to_thread(isolated_python, project, model, lambda text: tell(model.uuid, text))
    work_dir = project.ensure_work_dir()
    store = open_store(project.state_url, project.root)
    try:
        run = _Run(project, plan, options, listener or Listener(), store)
        if options.resume:
            completed = run.resume()
            if completed is not None:
                return completed
        with store.acquire_lease(model.uuid, run.run_id):
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
    ) -> None:
        self.project = project
        self.plan = plan
        self.options = options
        self.listener = listener
        self.store = store
        self.run_id = new_run_id()
        self.past: Past | None = None
        self.warnings: dict[str, None] = {}
        self.signal: int | None = None

    def resume(self) -> BatchResult | None:
        """Become the newest unfinished run; a result where there is nothing left to do.

        Where nothing was ever recorded, or that run left nothing to go on from, it is a plain run.
        """
        runs = [one for one in self.store.runs(self.plan.model.uuid, limit=200) if "block" not in one.summary]
        if not runs:
            return None
        newest = runs[0]
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

    async def go(self) -> BatchResult:
        project = self.project
        self._take_over()
        given = self._given()
        run_dir = project.work_dir / "runs" / self.run_id
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        run_dir.parent.chmod(0o700)
        log = RunLog(run_dir / "run.log")
        masker = project.secrets.masker
        facts = self._facts(run_dir)
        masker.add_config(facts.variables)
        lines = BlockLines(log, masker, self.listener.line)
        try:
            with LocalExecutor(self.plan, facts, lines, masker) as executor:
                self._begin(facts)
                return await self._recorded(facts, executor, log, given)
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

    async def _recorded(self, facts: RunFacts, executor: LocalExecutor, log: RunLog, given: Given) -> BatchResult:
        status, error, summary = FAILED, None, {}
        if self.options.block is not None:
            summary = {"block": self.options.block}
        masker = self.project.secrets.masker
        try:
            result = await self._run(facts, executor, log, given)
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
            self.store.finish_run(self.run_id, status, summary, error)

    async def _run(self, facts: RunFacts, executor: LocalExecutor, log: RunLog, given: Given) -> BatchResult:
        model = self.plan.model
        places = Places(self.project, model.uuid, self.run_id)
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
        )
        self.listener.planned(self.plan, self.run_id, resumed=self.past is not None)
        try:
            with _signals(self, runner):
                if alone is not None:
                    blocks = await runner.run_one(alone, self._stored_upstream(places, alone))
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
        places.finish(completed=status == COMPLETED)
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

    def _stored_upstream(self, places: Places, uuid: str) -> dict[str, Finished]:
        """The upstream blocks as earlier runs left them.

        Raises:
            ConfigError: one of them has no stored output.
        """
        found = {}
        for name in self.plan.blocks[uuid].block.upstream:
            plan = self.plan.blocks[name]
            secret = plan.secret
            stored = None if secret else places.remembered(name)
            if stored is None:
                raise ConfigError(
                    f"the block '{name}', which '{uuid}' needs, has no stored output",
                    where=self.plan.model.where(uuid),
                    hint=f"its output is secret and never stored: run the whole pipeline `{self.plan.model.uuid}`"
                    if secret
                    else f"run it first: streamline run {self.plan.model.uuid} --block-uuid {name}",
                )
            instances = [
                Instance(
                    number=one.number,
                    key=one.key,
                    gate=one.gate,
                    items=one.items,
                    described=one.described,
                    status=SKIPPED if one.skipped else COMPLETED,
                    ref=None
                    if one.skipped
                    else InputRef(
                        block=name,
                        type=plan.block.type,
                        folder=str(places.block(name) / str(one.number) if stored.child else places.block(name)),
                        child=stored.child,
                    ),
                )
                for one in stored.calls
            ]
            reduce = plan.reduce and stored.child
            if plan.dynamic and not reduce and any(one.ref is not None and one.items is None for one in instances):
                raise ConfigError(
                    f"the block '{name}', which '{uuid}' needs, was not dynamic when its output was stored",
                    where=self.plan.model.where(name),
                    hint=f"run it again: streamline run {self.plan.model.uuid} --block-uuid {name}",
                )
            found[name] = Finished(
                uuid=name,
                type=plan.block.type,
                dynamic=plan.dynamic and not reduce,
                reduce=reduce,
                child=stored.child,
                instances=instances,
            )
        return found

    def _record(self, log: RunLog, outcome: BlockOutcome) -> None:
        failure = outcome.failure
        error = None
        if failure is not None:
            mask = self.project.secrets.masker.mask
            error = mask(f"{failure.where}: {failure.message}" if failure.where else failure.message)
            log.write(outcome.uuid, "\n".join(filter(None, (error, failure.hint, mask(failure.trace or "")))), "ERROR")
        took = "" if outcome.seconds is None else f" in {outcome.seconds:.3f} s"
        log.write(outcome.uuid, f"{outcome.status}{took}{' before this run was resumed' if outcome.reused else ''}")
        self.store.save_block_run(
            self.run_id,
            BlockRun(
                uuid=outcome.uuid,
                status=outcome.status,
                seconds=outcome.seconds,
                attempts=outcome.attempts,
                results=outcome.results,
                error=error,
            ),
        )

    def _warn(self, log: RunLog, uuid: str, text: str) -> None:
        text = self.project.secrets.masker.mask(text)
        log.write(uuid, text, "WARNING")
        self.listener.warning(uuid, text)
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings[f"{uuid}: {text}"] = None


@contextmanager
def _signals(run: _Run, runner: Runner) -> Iterator[None]:
    """The first signal asks everything to end in order, the second ends it at once.

    Only in the main thread, and where nobody else handles them: a program that uses the API keeps its own handlers.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def on_signal(number: int) -> None:
        if run.signal is None:
            run.signal = number
            runner.interrupt()
            return
        end_processes([run.run_id], seconds=1.0)
        if task is not None:
            task.cancel()

    wanted = [
        number
        for number in wanted_signals()
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler) or _is_asyncio(number)
    ]
    added = []
    for number in wanted:
        with suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread
            loop.add_signal_handler(number, on_signal, number)
            added.append(number)
    try:
        yield
    except asyncio.CancelledError:
        if run.signal is None:
            raise
        raise Interrupted(run.signal) from None
    finally:
        for number in added:
            loop.remove_signal_handler(number)


def _is_asyncio(number: signal.Signals) -> bool:
    # asyncio.run() puts a method of its own on SIGINT, wrapped in a partial, which cancels the main task.
    handler = getattr(signal.getsignal(number), "func", None)
    return number == signal.SIGINT and getattr(handler, "__module__", None) == "asyncio.runners"
