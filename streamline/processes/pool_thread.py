"""What a pool's thread does: it talks to the fork server and the workers, passes on their output, watches deadlines,
and resolves futures."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from streamline.processes import wire
from streamline.processes.crash_trace import DUMP_SIGNAL
from streamline.processes.exit_reason import OutOfMemoryCounter, exit_failure, signal_name
from streamline.processes.forkserver_process import ForkServerProcess
from streamline.processes.job import Failure, Job, Outcome
from streamline.processes.orphans import end_processes
from streamline.processes.worker_process import State, Submission, WorkerProcess

POOL_VARIABLE = "STREAMLINE_POOL"
"""Set in all processes of one pool, so that they are found when their fork server was killed."""

_DUMP_SECONDS = 0.1
_CLOSE_SECONDS = 8.0
_MOST_DEATHS = 3
_LONGEST_WAIT = 86_400.0

OnLine = Callable[[Job | None, bytes], None]
OnLog = Callable[[Job | None, str, str], None]

_logger = logging.getLogger(__name__)


class PoolThread:
    """The state of a pool. All methods but `post` run in the pool's thread.

    Args:
        size: how many workers there may be.
        preload: modules that the fork server imports.
        python: another interpreter than this one.
        pool_id: the value of `POOL_VARIABLE` in `env`.
        env: the whole environment of the fork server and the workers.
        on_line: see `WorkerPool`, as the others.
    """

    def __init__(
        self,
        size: int,
        *,
        preload: Sequence[str],
        python: str | None,
        pool_id: str,
        env: dict[str, str],
        on_line: OnLine,
        on_log: OnLog,
        on_secret: Callable[[str], None],
    ) -> None:
        self._size = size
        self._preload = list(preload)
        self._python = python
        self._pool_id = pool_id
        self._env = env
        self._on_line = on_line
        self._on_log = on_log
        self._on_secret = on_secret

        self._lock = threading.Lock()
        self._commands: deque[Callable[[], None]] = deque()
        self._closed = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

        self._selector = selectors.DefaultSelector()
        self._queue: deque[Submission] = deque()
        self._workers: dict[int, WorkerProcess] = {}
        self._idle: list[WorkerProcess] = []
        self._next_number = 1
        self._memory = OutOfMemoryCounter()
        self._server: ForkServerProcess | None = None
        self._deaths = 0
        self._broken: Failure | None = None
        self._closing = False
        self._close_by = 0.0

    def post(self, command: Callable[[], None], *, last: bool = False) -> bool:
        """Have `command` called in the pool's thread; from any thread. False if the pool is closed.

        Args:
            last: close the pool for further commands.
        """
        with self._lock:
            if self._closed:
                return False
            self._closed = last
            self._commands.append(command)
            first = len(self._commands) == 1
        if first:
            with contextlib.suppress(BlockingIOError):
                self._waker.send(b"x")
        return True

    def run(self) -> None:
        """Serve until the pool is closed."""
        try:
            self._selector.register(self._woken, selectors.EVENT_READ, self._take_commands)
            self._start_server()
            while not (self._closing and self._server is None):
                for key, events in self._selector.select(self._select_timeout()):
                    key.data(events)  # may be stale: an event before it may have closed its source
                self._check_deadlines()
        except BaseException:
            _logger.exception("the worker pool failed")
        finally:
            self._finish()

    def _finish(self) -> None:
        with self._lock:
            self._closed = True
            commands = list(self._commands)
            self._commands.clear()
        self._closing = True
        for command in commands:
            with contextlib.suppress(Exception):
                command()
        if self._server is not None:
            self._server.kill()
            end_processes([self._pool_id], variable=POOL_VARIABLE)
        for worker in list(self._workers.values()):
            self._worker_ended(worker, None)
        self._drop_queue()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _take_commands(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while True:
            with self._lock:
                if not self._commands:
                    return
                commands = list(self._commands)
                self._commands.clear()
            for command in commands:
                command()

    def _select_timeout(self) -> float | None:
        deadlines = [worker.deadline for worker in self._workers.values() if worker.deadline is not None]
        if self._closing:
            deadlines.append(self._close_by)
        # Not longer than selectors can wait, which is some weeks.
        return min(max(0.0, min(deadlines) - time.monotonic()), _LONGEST_WAIT) if deadlines else None

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers.values()):
            if worker.deadline is not None and worker.deadline <= now:
                worker.why = worker.why or "timeout"
                if not worker.dump_requested:  # its stack first, then SIGKILL
                    worker.dump_requested = True
                    worker.deadline = now + _DUMP_SECONDS
                    self._ask(wire.SIGNAL, worker, DUMP_SIGNAL)
                else:
                    worker.deadline = None
                    self._end(worker)
        if self._closing and self._server is not None and self._close_by <= now:
            self._server.kill()
            self._server_ended()

    # Jobs.

    def enqueue(self, submission: Submission) -> None:
        """Add a job to the queue."""
        if self._closing:
            self._resolve(submission, Outcome(failure=_closed()))
            return
        self._queue.append(submission)
        self._assign()

    def cancel(self, job_id: str, grace: float) -> None:
        """Interrupt a job; see `WorkerPool.cancel`."""
        for submission in self._queue:
            if submission.job.id == job_id:
                self._queue.remove(submission)
                if submission.future.set_running_or_notify_cancel():
                    failure = Failure(message="cancelled before it started", code="block.cancelled", retry=False)
                    self._resolve(submission, Outcome(failure=failure))
                return
        deadline = time.monotonic() + max(0.0, grace)
        for worker in self._workers.values():
            current = worker.submission
            if current is not None and current.job.id == job_id and worker.state is State.BUSY:
                if worker.why is None:
                    worker.why = "cancelled"
                    self._ask(wire.SIGNAL, worker, signal.SIGINT)
                    worker.deadline = deadline
                elif worker.why == "cancelled" and worker.deadline is not None:
                    worker.deadline = min(worker.deadline, deadline)
                return

    def begin_closing(self) -> None:
        """Drop the queue, kill busy workers, and let the idle ones and the fork server exit."""
        if self._closing:
            return
        self._closing = True
        self._close_by = time.monotonic() + _CLOSE_SECONDS
        self._drop_queue()
        for worker in list(self._workers.values()):
            if worker.state is State.BUSY:
                worker.why = worker.why or "closed"
                self._end(worker)
            elif worker.state is not State.ENDING:
                # It exits when it sees this.
                with contextlib.suppress(OSError):
                    worker.connection.shutdown(socket.SHUT_WR)
        if self._server is not None:
            if self._server.ready:
                self._server.ask(wire.LEAVE, 0, 0)
                self._watch_server()
            else:  # nothing is forked yet
                self._server.kill()

    def _assign(self) -> None:
        if self._broken is not None:
            self._drop_queue()
        while self._queue and self._idle:
            submission = self._queue.popleft()
            if submission.future.set_running_or_notify_cancel():
                worker = self._idle.pop()
                worker.begin(submission)
                self._watch_connection(worker)
        starting = sum(worker.state is State.STARTING for worker in self._workers.values())
        while len(self._queue) > starting and len(self._workers) < self._size and self._server is not None:
            try:
                self._fork()
            except OSError as error:  # such as too many open files
                if self._workers:
                    return
                self._fail_next(error.strerror or str(error))
            else:
                starting += 1

    def _drop_queue(self) -> None:
        while self._queue:
            self._fail_first(self._broken or _closed())

    def _fail_next(self, reason: str) -> None:
        self._fail_first(Failure(message=f"cannot start a worker process: {reason}", code="block.worker_not_started"))

    def _fail_first(self, failure: Failure) -> None:
        submission = self._queue.popleft()
        if submission.future.set_running_or_notify_cancel():
            self._resolve(submission, Outcome(failure=failure))

    def _resolve(self, submission: Submission, outcome: Outcome) -> None:
        if not submission.future.done():
            submission.future.set_result(outcome)

    # Workers.

    def _fork(self) -> None:
        number = self._next_number
        self._next_number += 1
        worker = WorkerProcess(
            number,
            on_line=lambda worker, line: self._call(self._on_line, worker.job, line),
            on_log=lambda worker, line, level: self._call(self._on_log, worker.job, line, level),
            on_secret=lambda secret: self._call(self._on_secret, secret),
        )
        self._workers[number] = worker
        assert self._server is not None
        self._server.ask(wire.FORK, number, 0, worker)
        self._watch_server()
        self._selector.register(
            worker.connection, selectors.EVENT_READ, lambda events: self._connection_ready(worker, events)
        )
        self._selector.register(worker.output, selectors.EVENT_READ, lambda _: self._output_ready(worker))

    def _ask(self, request: int, worker: WorkerProcess, value: int = 0) -> None:
        if self._server is not None:
            self._server.ask(request, worker.number, value)
            self._watch_server()

    def _end(self, worker: WorkerProcess) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
        worker.state = State.ENDING
        self._ask(wire.END, worker)

    def _watch_connection(self, worker: WorkerProcess) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.unsent else 0)
        with contextlib.suppress(KeyError):
            key = self._selector.get_key(worker.connection)
            if key.events != wanted:
                self._selector.modify(worker.connection, wanted, key.data)

    def _connection_ready(self, worker: WorkerProcess, events: int) -> None:
        if worker.number not in self._workers:
            return
        if events & selectors.EVENT_WRITE:
            worker.write()
            self._watch_connection(worker)
        if events & selectors.EVENT_READ:
            if not worker.read_frames():
                self._unwatch(worker.connection)
            self._process_frames(worker)

    def _output_ready(self, worker: WorkerProcess) -> None:
        if worker.number not in self._workers:
            return
        if not worker.read_output():
            self._unwatch(worker.output)
        self._process_frames(worker)

    def _unwatch(self, *sources: socket.socket | int) -> None:
        for source in sources:
            with contextlib.suppress(KeyError):  # it was at its end before
                self._selector.unregister(source)

    def _process_frames(self, worker: WorkerProcess) -> None:
        while worker.received:
            if worker.received[0][0] == wire.LOG:
                worker.log()
                continue
            kind, payload = worker.received.popleft()
            if kind == wire.HELLO and worker.state is State.STARTING:
                worker.state = State.IDLE
                self._idle.append(worker)
                self._assign()
            elif kind == wire.RESULT:
                self._returned(worker, payload)

    def _returned(self, worker: WorkerProcess, payload: bytes) -> None:
        submission = worker.submission
        if submission is None or worker.why == "timeout" or worker.state is not State.BUSY:
            return
        worker.end_of_job()
        self._deaths = 0
        outcome: Outcome
        left: str | None
        try:
            outcome, left = pickle.loads(payload)
        except Exception as error:
            message = f"the result cannot be read back from the worker process: {type(error).__name__}: {error}"
            outcome, left = Outcome(failure=Failure(message=message, code="block.unpicklable_result")), "unreadable"
        worker.deadline = None
        if left is not None or worker.why is not None:
            # The future is resolved when the processes and threads that the job left are gone.
            worker.outcome = outcome
            self._end(worker)
            return
        worker.submission = None
        worker.state = State.IDLE
        self._idle.append(worker)
        self._assign()
        self._resolve(submission, outcome)

    def _worker_ended(self, worker: WorkerProcess, status: int | None, failure: Failure | None = None) -> None:
        """Handle the end of a worker's process. `failure` says why if the process did not end by itself."""
        worker.read_frames()
        self._process_frames(worker)
        worker.end_of_job()
        if worker in self._idle:
            self._idle.remove(worker)
        self._unwatch(worker.connection, worker.output)
        del self._workers[worker.number]
        submission = worker.submission
        if submission is not None:
            outcome = worker.outcome or Outcome(
                failure=self._reason(worker, submission.job, status, failure),
                seconds=time.monotonic() - worker.since,
            )
            self._resolve(submission, outcome)
        elif worker.keeps_state and not self._closing:
            self._give_up(self._state_lost(worker, status, failure))
        worker.submission = None
        worker.close()

    def _state_lost(self, worker: WorkerProcess, status: int | None, failure: Failure | None) -> Failure:
        if failure is None and status is not None:
            failure = exit_failure(status, worker.ending, None, self._memory)
        reason = failure.message if failure is not None else "the process ended"
        return Failure(
            message=f"a worker process ended between two calls, and its state is lost: {reason}",
            hint=failure.hint if failure is not None else None,
            code="block.worker_state_lost",
        )

    def _reason(self, worker: WorkerProcess, job: Job, status: int | None, failure: Failure | None) -> Failure:
        trace = worker.trace(job.source_root)
        where = trace.where if trace is not None else None
        text = trace.text if trace is not None else None
        if worker.why == "timeout":
            message = f"timed out after {job.timeout:g} s"
            hint = "raise its `timeout`, or make it faster"
            return Failure(message=message, where=where, trace=text, hint=hint, code="block.timeout")
        if worker.why == "cancelled":
            message = "cancelled, and killed because it did not stop"
            return Failure(message=message, where=where, trace=text, code="block.cancelled", retry=False)
        if worker.why == "closed":
            return _closed()
        if failure is not None:
            return failure
        return exit_failure(status, worker.ending, trace, self._memory) if status is not None else _closed()

    def _not_started(self, number: int, reason: str) -> None:
        """Handle a failed worker start. Others continue; if there are none, the next job fails with the reason."""
        worker = self._workers.get(number)
        if worker is not None:
            self._worker_ended(worker, None)
        if not self._workers and self._queue:
            self._fail_next(reason)
        self._assign()

    # Output of workers.

    def _call(self, listener: Callable[..., None], *args: object) -> None:
        try:
            listener(*args)
        except Exception:  # such as a full disk under the log; the workers still need this thread
            _logger.exception("a listener of the worker pool failed")

    # The fork server.

    def _start_server(self) -> None:
        try:
            server = ForkServerProcess(
                python=self._python,
                preload=self._preload,
                env=self._env,
                on_line=lambda line: self._call(self._on_line, None, line),
            )
        except OSError as error:
            message = f"cannot start the fork server: {error}"
            self._give_up(Failure(message=message, code="block.worker_not_started", retry=False))
            return
        self._server = server
        self._selector.register(server.control, selectors.EVENT_READ, lambda events: self._server_ready(server, events))
        self._selector.register(server.output, selectors.EVENT_READ, lambda _: self._server_output_ready(server))
        with contextlib.suppress(OSError):  # then the first job fails with it
            self._fork()  # the first job should not wait for a fork
        self._assign()

    def _watch_server(self) -> None:
        if self._server is not None:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._server.unsent else 0)
            key = self._selector.get_key(self._server.control)
            if key.events != wanted:
                self._selector.modify(self._server.control, wanted, key.data)

    def _server_output_ready(self, server: ForkServerProcess) -> None:
        if self._server is server and not server.read_output():
            self._unwatch(server.output)

    def _server_ready(self, server: ForkServerProcess, events: int) -> None:
        if self._server is not server:
            return
        if events & selectors.EVENT_WRITE:
            server.write()
            self._watch_server()
        if not events & selectors.EVENT_READ:
            return
        for event, number, value in server.read():
            worker = self._workers.get(number)
            if event == wire.NOT_FORKED:
                self._not_started(number, os.strerror(value))
            elif event == wire.EXITED and worker is not None:
                if worker.state is State.STARTING:
                    self._server_failed("worker processes exit before their first job", server)
                self._worker_ended(worker, value)
                self._assign()
        if server.ended:
            self._server_ended()

    def _server_ended(self) -> None:
        server = self._server
        assert server is not None
        self._server = None
        self._unwatch(server.control, server.output)
        ready = server.ready
        code = server.close()
        failure = None
        if not self._closing or (code and ready):
            # Its workers got SIGKILL from the system; what these had forked is found by its environment.
            end_processes([self._pool_id], variable=POOL_VARIABLE)
            reason = signal_name(-code) if code < 0 else f"exit code {code}"
            message = f"the fork server, the parent of all worker processes, ended unexpectedly ({reason})"
            failure = Failure(message=message, code="block.fork_server_exited")
        for worker in list(self._workers.values()):
            self._worker_ended(worker, None, failure)
        if self._closing:
            return
        if not ready:
            # One of the modules may have crashed it; the block that imports that module will get the error.
            self._preload = []
        self._server_failed("the fork server keeps exiting", server)
        if self._broken is None:
            self._start_server()

    def _server_failed(self, message: str, server: ForkServerProcess) -> None:
        """Count a failure of the fork server or of a worker without a job; give up when it happens again and again."""
        self._deaths += 1
        if self._deaths >= _MOST_DEATHS:
            message += server.last_lines()
            self._give_up(Failure(message=message, code="block.worker_not_started", retry=False))

    def _give_up(self, failure: Failure) -> None:
        self._broken = failure
        self._drop_queue()


def _closed() -> Failure:
    return Failure(message="the run ended before it finished", code="block.cancelled", retry=False)
