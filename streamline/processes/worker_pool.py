"""A pool of worker processes that run jobs, survive whatever the jobs do, and leave no process behind.

    with WorkerPool(4, preload=["pandas"], run_id=…, on_line=…, on_secret=…) as pool:
        outcome: Outcome = pool.submit(Job(…)).result()

Futures always resolve to an Outcome: a worker that dies, a timeout, a cancelled job and a closed pool are failures.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from streamline.processes.job import Failure, Job, Outcome
from streamline.processes.orphans import RUN_ID_VARIABLE
from streamline.processes.pool_thread import POOL_VARIABLE, OnLine, OnLog, PoolThread
from streamline.processes.worker_process import Submission


class WorkerPool:
    """Worker processes, forked when they are needed, used again, replaced when they die or cannot be cleaned up.

    The fork server starts at once and imports `preload` in the background.

    Args:
        size: how many jobs run at once.
        preload: modules that every worker has from the start; modules that cannot be imported are skipped.
        run_id: set in all processes as `STREAMLINE_RUN_ID`.
        on_line: called in the pool's thread with (job, line) for each line that a worker writes, without its newline,
            at most `line_splitter.LONGEST` bytes of it; `job` is None between two jobs. It must return quickly.
        on_secret: called in the pool's thread with each secret that a job read, before any line written after that.
        on_log: called with (job, line, level) for `port.log`; without it, these are lines.
        python: another interpreter; it must be able to import what Streamline needs. Default: this one.
        env: additional environment variables.
    """

    def __init__(
        self,
        size: int,
        *,
        preload: Sequence[str] = (),
        run_id: str,
        on_line: OnLine,
        on_secret: Callable[[str], None],
        on_log: OnLog | None = None,
        python: str | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        if size < 1:
            raise ValueError("a pool needs at least one worker")
        pool_id = os.urandom(8).hex()
        self._pid = os.getpid()
        self._pool = PoolThread(
            size,
            preload=preload,
            python=python,
            pool_id=pool_id,
            env={**os.environ, **(env or {}), RUN_ID_VARIABLE: run_id, POOL_VARIABLE: pool_id},
            on_line=on_line,
            on_log=on_log or (lambda job, line, level: on_line(job, line.encode("utf-8", "replace"))),
            on_secret=on_secret,
        )
        self._thread = threading.Thread(target=self._pool.run, name="streamline workers", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a job. May be called from any thread; the future is resolved in the pool's thread.

        Raises:
            RuntimeError: the pool is closed.
        """
        future: Future[Outcome] = Future()
        try:
            payload = pickle.dumps(job.payload, 5)
        except Exception as error:
            failure = Failure(
                message=f"the arguments of the call cannot be sent to a worker process: {error}",
                hint="use plain values for variables: text, numbers, lists, dicts",
                code="block.unpicklable_arguments",
                retry=False,
            )
            future.set_result(Outcome(failure=failure))
            return future
        submission = Submission(job, payload, future)
        if not self._post(lambda: self._pool.enqueue(submission)):
            raise RuntimeError("the worker pool is closed")
        return future

    def cancel(self, job_id: str, grace: float = 5.0) -> None:
        """Interrupt a job as Ctrl-C does (KeyboardInterrupt), and kill its process after `grace` seconds.

        A job in the queue never starts; one that has ended is left alone. The future resolves as always: to what the
        job returned all the same, or to a failure.
        """
        self._post(lambda: self._pool.cancel(job_id, grace))

    def close(self) -> None:
        """Drop the queue, kill what runs, and wait until no process is left. May be called again."""
        if os.getpid() != self._pid:
            return
        self._pool.post(self._pool.begin_closing, last=True)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, command: Callable[[], None]) -> bool:
        # In a process that the host forked, the pool's thread does not exist.
        return os.getpid() == self._pid and self._thread.is_alive() and self._pool.post(command)
