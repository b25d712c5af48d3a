"""Where transformer functions run: on a thread of this process, or in a pool of worker processes.

A thread shares the interpreter and cannot be killed. A worker process can: on a timeout, and with the run. It keeps
the block's module, and whatever that holds (connections, caches), from call to call.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import threading
import time
from concurrent.futures import Future
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from streamline.blocks.python.function import Shape, shape_of
from streamline.blocks.python.live.call import TransformCaller, read_tables
from streamline.blocks.python.live.messages import CallRequest, CallSettings, Returned
from streamline.errors import ConfigError
from streamline.processes.job import Failure, Job, Outcome

if TYPE_CHECKING:
    from streamline.processes.worker_pool import WorkerPool

_MODULE = "streamline.blocks.python.live.call"
_PRELOADED = {Shape.ROWS: (), Shape.PANDAS: ("numpy", "pandas", "pyarrow")}


class WorkerFailed(Exception):
    """A worker process died or timed out during a call."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class PendingCall:
    """A request that a worker has or will get.

    Args:
        request: the records; None only loads the block's file.

    Attributes:
        future: of what the function returned. Raises UserError, StreamlineError, or WorkerFailed.
        since: `time.monotonic()` when the current call of the function began, if it runs on a thread; None before.
    """

    def __init__(self, request: CallRequest | None) -> None:
        self.request = request
        self.future: Future[list[Returned]] = Future()
        self.since: float | None = None

    def begin(self) -> None:
        """A call of the function begins."""
        self.since = time.monotonic()

    def remaining(self, timeout: float) -> float:
        """Seconds left for the current call of the function; all of `timeout` before it began."""
        return timeout if self.since is None else self.since + timeout - time.monotonic()


class ThreadWorker:
    """One thread of its own, so that what the block's module holds (connections, caches) is used by one thread."""

    depth = 1

    def __init__(self, settings: CallSettings) -> None:
        self._settings = settings
        self._calls: queue.SimpleQueue[PendingCall | None] = queue.SimpleQueue()
        self._caller: TransformCaller | None = None
        # A daemon: a function that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"block {settings.block.uuid}", daemon=True)
        self._thread.start()

    def submit(self, call: PendingCall) -> None:
        """Run `call` after those before it."""
        self._calls.put(call)

    def close(self) -> None:
        """End after the calls that were submitted."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call.begin()
                if self._caller is None:
                    self._caller = TransformCaller(self._settings)
                request = call.request
                result = self._caller.run(request, call.begin) if request is not None else []
            except BaseException as error:  # every exception goes to whoever waits for the call
                call.future.set_exception(error)
            else:
                call.future.set_result(result)


class ProcessWorkers:
    """A pool of worker processes. Each loads the block's file for itself.

    Args:
        settings: what the calls have in common.
        size: the number of processes.
        timeout: seconds that a call may take.

    Raises:
        ConfigError: the block's keyword arguments cannot be sent to another process.
    """

    def __init__(self, settings: CallSettings, size: int, timeout: float | None) -> None:
        from streamline.processes.worker_pool import WorkerPool

        self.depth = size
        self._block = settings.block
        self._timeout = timeout
        self._numbers = count(1)
        try:
            self._settings = pickle.dumps(settings, 5)
        except Exception as error:
            raise ConfigError(
                f"the block's keyword arguments cannot be sent to a worker process: {error}",
                where=f"block {settings.block.uuid}",
                hint="leave out `configuration.workers`, or use only variables that can be pickled",
                code="block.unpicklable_arguments",
            ) from None
        self._pool: WorkerPool = WorkerPool(
            size,
            preload=[_MODULE, *_libraries(settings)],
            run_id=str(settings.keywords.get("run_id", "")),
            on_line=lambda job, line: _to_stderr(line),
            on_secret=lambda secret: None,
        )

    def submit(self, call: PendingCall) -> None:
        """Run `call` when a process is free."""
        request = call.request
        if request is not None:  # views into a larger buffer cannot be pickled
            request = msgspec.structs.replace(request, slices=[bytes(piece) for piece in request.slices])
        job = Job(
            id=str(next(self._numbers)),
            name=self._block.uuid,
            function=f"{_MODULE}:call_transformer",
            payload=(self._settings, request),
            source_root=str(Path(self._block.path).parent.parent),
            timeout=self._timeout,
            keep_state=True,
        )
        self._pool.submit(job).add_done_callback(partial(_settle, call))

    def close(self) -> None:
        """Kill the processes, also in the middle of a call."""
        self._pool.close()


Workers: TypeAlias = ThreadWorker | ProcessWorkers
"""Runs calls, `depth` of them at a time; each call's result is in its future."""


def _settle(call: PendingCall, done: Future[Outcome]) -> None:
    outcome = done.result()
    if outcome.failure is not None:
        call.future.set_exception(WorkerFailed(outcome.failure))
    elif isinstance(outcome.value, BaseException):
        call.future.set_exception(outcome.value)
    else:
        call.future.set_result(read_tables(outcome.value))


def _libraries(settings: CallSettings) -> tuple[str, ...]:
    """What every worker would import. Polars is not safe to import before a fork."""
    try:
        return _PRELOADED.get(shape_of(settings.block), ("pyarrow",))
    except ConfigError:  # the first call will report it
        return ()


def _to_stderr(line: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(2, line + b"\n")
