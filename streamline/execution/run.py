"""Opens a run of any pipeline type: its lease, orphans of killed runs, its folder and log, signals, and its record.

The order in which a run uses them:

    with hold_lease(store, project, pipeline, run_id), open_run(project, store, pipeline, run_id) as run:
        with run.record() as record, run.signals(interrupt):
            ...
            record.status = COMPLETED
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from streamline.errors import ConfigError, StreamlineError, WrongOption
from streamline.execution.events import (
    BlockFinished,
    BlockOutcome,
    BlockStarted,
    Bus,
    Event,
    PositionSaved,
    RunFinished,
    RunInterrupted,
    WarningRaised,
    masked,
    one_line,
)
from streamline.processes.job import Failure
from streamline.processes.orphans import end_processes, remove_private_files
from streamline.project.project import Project
from streamline.project.secrets import Masker
from streamline.state.store import BlockRun, Lease, RunInfo, Store
from streamline.telemetry.progress import Progress
from streamline.telemetry.runlog import LOG_FILE, LOG_FILES, RunLog, level_of, message_of

T = TypeVar("T")

MAX_WARNINGS = 20

COMPLETED, FAILED, CANCELLED, KILLED = "completed", "failed", "cancelled", "killed"


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a run. A pipeline type takes some of them; `streamline.execution.engine` says which.

    Args:
        variables: variables of this run; they win over the pipeline's.
        trigger_variables: variables of the schedule or call that started the run; `variables` win over them.
        debug: show Streamline's own tracebacks.
        block: run only this block, on stored inputs.
        tests: run the blocks' tests; a failed test fails its block.
        resume: resume the newest unfinished run.
        parallel: run independent blocks at the same time.
        skip_sensors: treat every sensor's condition as met.
        streams: read only these streams, names or globs.
        full_refresh: read the selected streams from the start.
        bookmarks: start streams from these values, each STREAM.COLUMN=VALUE.
        accept_gap: run even if a destination lacks records before the saved positions.
        refresh_catalog: discover the sources' streams again.
        until_caught_up: end when everything that there was at the start is proven.
        metrics_port: serve metrics and health on this port; 0: any that is free; None: as the pipeline says.
        slot: number of this process among those of the pipeline; None: it is the only one, or starts the others.
    """

    variables: dict[str, Any] = {}
    trigger_variables: dict[str, Any] = {}
    debug: bool = False
    block: str | None = None
    tests: bool = False
    resume: bool = False
    parallel: bool = True
    skip_sensors: bool = False
    streams: Sequence[str] = ()
    full_refresh: bool = False
    bookmarks: Sequence[str] = ()
    accept_gap: bool = False
    refresh_catalog: bool = False
    until_caught_up: bool = False
    metrics_port: int | None = None
    slot: int | None = None


class Interrupted(StreamlineError):
    """A signal ended the run at once."""

    code = "run.interrupted"

    def __init__(self, number: int, message: str = "interrupted; the next run reads unproven records again") -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class RunResult(msgspec.Struct, kw_only=True):
    """How a run ended.

    Args:
        status: completed, failed or cancelled.
        blocks: in the order of the plan.
        errors: failures by block; in an integration pipeline by the target or mapper at fault, else the source's group.
        summary: the run in a few JSON values, for the store.
        log: path of the run's log.
        signal: the signal that interrupted it, if one did.
        warnings: the distinct warnings of blocks and plugins.
        resumed: the run had been started before.
        nothing_to_resume: the newest run had completed; nothing was done.
        hint: how to continue after a failure.
    """

    run_id: str
    status: str
    blocks: list[BlockOutcome] = []
    errors: dict[str, Failure] = {}
    summary: dict[str, Any] = {}
    log: str = ""
    signal: int | None = None
    warnings: list[str] = []
    resumed: bool = False
    nothing_to_resume: bool = False
    hint: str | None = None


class Record(msgspec.Struct):
    """How a run ended, for the store."""

    status: str = FAILED
    summary: dict[str, Any] = {}
    error: str | None = None
    saved: bool = False
    """Whether the store has it."""
    code: str | None = None

    def fail(self, errors: Mapping[str, Failure]) -> None:
        """Record these failures, if there are any."""
        if errors:
            self.error = "; ".join(f"{name}: {one_line(failure)}" for name, failure in errors.items())
            self.code = next(iter(errors.values())).code


class OtherProcesses(Protocol):
    """The other processes of a streaming pipeline that shares its work among several."""

    def settled(self, block: str) -> None:
        """Tell them that all that this process has read for the repartition topic of a block is proven."""
        ...

    def all_settled(self, block: str) -> bool:
        """Return whether all processes have told that."""
        ...


class Run(msgspec.Struct, kw_only=True):
    """An open run.

    Args:
        run_dir: the run's private folder (0700), with config files and the log.
        interrupted: the signal that interrupted the run, if one did.
        reload_asked: SIGHUP has asked for the pipeline's files to be read again.
        warnings: the distinct warnings of blocks and plugins, at most `MAX_WARNINGS`.
        started: when the run was opened, in UTC.
        others: the other processes of the pipeline, if it has several.
    """

    project: Project
    pipeline: str
    run_id: str
    run_dir: Path
    store: Store
    masker: Masker
    log: RunLog
    options: RunOptions
    bus: Bus
    progress: Progress
    interrupted: int | None = None
    reload_asked: bool = False
    warnings: dict[str, None] = {}
    started: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    others: OtherProcesses | None = None

    def __post_init__(self) -> None:
        """Have the bus told of saved positions."""
        self.progress.on_saved = lambda block: self.bus.publish(PositionSaved(block=block))

    def note(self, source: str, message: str, level: str = "INFO") -> None:
        """Log a message, masked."""
        self.log.write(source, self.masker.mask(message), level)

    def warn(self, source: str, message: str) -> None:
        """Log a warning and keep it for the end of the run."""
        message = self.masker.mask(message)
        self.log.write(source, message, "WARNING")
        self._keep(source, message)

    def child_line(self, source: str, line: str) -> None:
        """Log a line of a child process, which is masked already; keep its warnings for the end of the run."""
        level = level_of(line)
        self.log.child(source, line, level)
        if level == "WARNING":
            self._keep(source, message_of(line).strip())

    def _keep(self, source: str, message: str) -> None:
        self.bus.publish(WarningRaised(block=source, message=message))
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings[f"{source}: {message}"] = None

    def finish_block(self, outcome: BlockOutcome) -> None:
        """Publish how a block ended, masked."""
        failure = outcome.failure
        if failure is not None:
            outcome.failure = masked(failure, self.masker)
            self.note(outcome.uuid, "\n".join(filter(None, (one_line(failure), failure.hint, failure.trace))), "ERROR")
        took = "" if outcome.seconds is None else f" in {outcome.seconds:.3f} s"
        took += f": {outcome.reason}" if outcome.reason else ""
        self.note(outcome.uuid, f"{outcome.status}{took}{' before this run was resumed' if outcome.reused else ''}")
        self.bus.publish(BlockFinished(outcome=outcome))

    def _record_block(self, event: Event) -> None:
        """Save what became of a block in the store."""
        if isinstance(event, BlockStarted):
            block = BlockRun(uuid=event.block, status="running", attempts=0)
        elif isinstance(event, BlockFinished):
            outcome = event.outcome
            block = BlockRun(
                uuid=outcome.uuid,
                status=outcome.status,
                seconds=outcome.seconds,
                attempts=outcome.attempts,
                results=outcome.results,
                error=one_line(outcome.failure) if outcome.failure is not None else None,
                code=outcome.failure.code if outcome.failure is not None else None,
            )
        else:
            return
        try:
            self.store.save_block_run(self.run_id, block)
        except StreamlineError as failure:  # the pipeline's work goes on
            self.warn(block.uuid, f"cannot record how the block ended: {failure.message}")

    @contextmanager
    def record(self, summary: dict[str, Any] | None = None, *, resumed: bool = False) -> Iterator[Record]:
        """Record in the store that the run begins and, after the block, how it ended.

        The block sets the record's status. An error that leaves the block makes it `failed`, an interruption
        `cancelled`; its message is logged and recorded. After a WrongOption nothing is recorded. A failure to save the
        end of a run that did not raise is a warning: what the run did counts for more.

        Raises:
            Interrupted: a signal was the cause of the error.
        """
        record = Record(summary=summary or {})
        refused = False
        if resumed:
            self.store.continue_run(self.run_id)
        else:
            self.store.begin_run(RunInfo(run_id=self.run_id, pipeline=self.pipeline, summary=record.summary))
        raised = True
        try:
            yield record
            raised = False
        except BaseException as failure:
            record.status, record.error = FAILED, str(failure) or type(failure).__name__
            record.code = getattr(failure, "code", None)
            refused = isinstance(failure, WrongOption)
            self.note("streamline", record.error, "ERROR")
            if isinstance(failure, Interrupted | asyncio.CancelledError):
                record.status = CANCELLED
            elif isinstance(failure, StreamlineError) and self.interrupted is not None:
                # What the signal ended, such as the installation of a plugin, looks like an error of its own.
                record.status = CANCELLED
                raise Interrupted(self.interrupted) from failure
            raise
        finally:
            error = self.masker.mask(record.error) if record.error is not None else None
            try:
                if refused:
                    self.store.drop_run(self.run_id)
                else:
                    self.store.finish_run(self.run_id, record.status, record.summary, error, record.code)
                record.saved = True
            except StreamlineError as failure:
                if raised:
                    raise
                self.warn("streamline", f"cannot record how the run ended: {failure.message}")
            self.bus.publish(
                RunFinished(
                    run_id=self.run_id,
                    status=record.status,
                    summary=record.summary,
                    error=error,
                    code=record.code,
                )
            )

    @contextmanager
    def signals(
        self,
        interrupt: Callable[[], None],
        stop: Stop | None = None,
        message: str = "",
        *,
        reloads: bool = False,
    ) -> Iterator[None]:
        """Handle the signals that end a run: the first ends it in order, the second at once.

        Only in the main thread, and only those that no one else handles: a program that uses the API keeps its own
        handlers.

        Args:
            interrupt: called on the first signal, in the event loop.
            stop: delivers signals that another thread received.
            message: of the error that the second signal raises.
            reloads: SIGHUP sets `reload_asked` instead.

        Raises:
            Interrupted: the second signal came.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()

        def on_signal(number: int) -> None:
            if reloads and number == signal.SIGHUP:
                self.reload_asked = True
                return
            if self.interrupted is None:
                self.interrupted = number
                self.note("streamline", f"{signal.Signals(number).name}: stopping", "WARNING")
                self.bus.publish(RunInterrupted(signal=number))
                interrupt()
                return
            end_processes([self.run_id], seconds=1.0)
            if task is not None:
                task.cancel()

        added = []
        for number in _free_signals():
            with suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread
                loop.add_signal_handler(number, on_signal, number)
                added.append(number)
        if stop is not None:
            stop.connect(lambda number: loop.call_soon_threadsafe(on_signal, number))
        try:
            yield
        except asyncio.CancelledError:
            if self.interrupted is None:
                raise
            raise (Interrupted(self.interrupted, message) if message else Interrupted(self.interrupted)) from None
        finally:
            if stop is not None:
                stop.connect(None)
            for number in added:
                loop.remove_signal_handler(number)


@contextmanager
def checking_options() -> Iterator[None]:
    """Raise a ConfigError as a WrongOption."""
    try:
        yield
    except ConfigError as error:
        raise WrongOption(error.message, where=error.where, hint=error.hint, code=error.code) from error


class Stop:
    """Delivers signals that another thread received to the run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[int] = []
        self._receiver: Callable[[int], object] | None = None

    def __call__(self, number: int) -> None:
        with self._lock:
            if self._receiver is None:
                self._waiting.append(number)
            else:
                self._receiver(number)

    def connect(self, receiver: Callable[[int], object] | None) -> None:
        """Deliver signals to `receiver`, those that came before as well; None: the run is over."""
        with self._lock:
            self._receiver = receiver
            if receiver is not None:
                for number in self._waiting:
                    receiver(number)
                self._waiting.clear()


def new_run_id() -> str:
    """Make a unique run id; ids sort by time."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)


@contextmanager
def hold_lease(store: Store, project: Project, pipeline: str, run_id: str) -> Iterator[Lease]:
    """Hold the pipeline's lease; first end the orphan processes of its killed runs, and record these as killed.

    Raises:
        LeaseHeld: another run of this pipeline is in progress.
    """
    with store.acquire_lease(pipeline, run_id) as lease:
        end_killed_runs(store, project, pipeline)
        yield lease


def end_killed_runs(store: Store, project: Project, pipeline: str) -> None:
    """End the orphan processes of the pipeline's killed runs and record these as killed. The caller holds the lease."""
    killed = store.unfinished_runs(pipeline)
    if not killed:
        return
    end_processes([run.run_id for run in killed])
    for run in killed:
        remove_private_files(project.work_dir / "runs" / run.run_id, LOG_FILES)
        store.finish_run(
            run.run_id, KILLED, run.summary, "it was killed; the next run ended its processes", code="run.killed"
        )


@contextmanager
def open_run(
    project: Project,
    store: Store,
    pipeline: str,
    run_id: str,
    options: RunOptions | None = None,
    *,
    bus: Bus | None = None,
    run_dir: Path | None = None,
) -> Iterator[Run]:
    """Open a run's folder and log. Afterwards end its processes and remove its private files.

    The caller holds the pipeline's lease if records, outputs or positions may change.

    Args:
        run_dir: an existing folder (0700); by default `.streamline/runs/<run_id>`, which is made.
    """
    runs = project.ensure_work_dir() / "runs"
    if run_dir is None:
        run_dir = runs / run_id
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        runs.chmod(0o700)
    log = RunLog(run_dir / LOG_FILE)
    run = Run(
        project=project,
        pipeline=pipeline,
        run_id=run_id,
        run_dir=run_dir,
        store=store,
        masker=project.secrets.masker,
        log=log,
        options=options or RunOptions(),
        bus=bus or Bus(),
        progress=Progress(project.secrets.masker.mask),
    )
    run.bus.on_error = lambda error: run.note(
        "streamline", f"a subscriber to the run's events failed: {type(error).__name__}: {error}", "WARNING"
    )
    log.on_lost = lambda error: run._keep("streamline", f"{log.path}: lines are missing: {error.strerror}")
    run.bus.subscribe(run._record_block)
    try:
        yield run
    finally:
        # A daemon in a session of its own still has the run's id in its environment.
        end_processes([run_id])
        remove_private_files(runs / run_id, LOG_FILES)
        log.close()


def run_to_end(work: Callable[[Stop], Awaitable[T]], *, uvloop: bool = False) -> T:
    """Run a coroutine in an event loop of its own; where one runs already, in a thread.

    Args:
        work: makes the coroutine; `Stop` delivers Ctrl-C where this thread waits for another.
        uvloop: use uvloop where it is installed.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _in_loop(work, Stop(), uvloop=uvloop)
    return _in_thread(partial(_in_loop, work, uvloop=uvloop))


def _in_loop(work: Callable[[Stop], Awaitable[T]], stop: Stop, *, uvloop: bool) -> T:
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if uvloop:
        with suppress(ImportError):
            from uvloop import new_event_loop as factory

    async def main() -> T:
        return await work(stop)

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def _in_thread(work: Callable[[Stop], T]) -> T:
    """Run it in a thread, and let Ctrl-C, which this thread receives, interrupt it."""
    future: Future[T] = Future()
    stop = Stop()

    def main() -> None:
        try:
            future.set_result(work(stop))
        except BaseException as error:
            future.set_exception(error)

    # asyncio's own handler cancels the task that waits here, which notices only when the run is over.
    handler = None
    if threading.current_thread() is threading.main_thread() and _is_asyncio(signal.SIGINT):
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=main, name="streamline run").start()
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


def _free_signals() -> Iterator[signal.Signals]:
    """Return the signals that end a run and have no other handler."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGHUP is ignored under nohup
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler) or _is_asyncio(number):
            yield number


def _is_asyncio(number: signal.Signals) -> bool:
    # asyncio.run() puts a method of its own on SIGINT, wrapped in a partial, which cancels the main task.
    handler = getattr(signal.getsignal(number), "func", None)
    return number == signal.SIGINT and getattr(handler, "__module__", None) == "asyncio.runners"
