"""A pool of worker processes that carry out tasks, survive whatever these do, and leave nothing behind.

    with WorkerPool(4, preload=["pandas"], run_id=…, on_line=…, learned=…) as pool:
        result: TaskResult = pool.submit(task).result()

One thread per pool does everything here: it talks to the fork server (forkserver.py) and to the workers (worker.py),
hands on what they write, minds timeouts, and resolves the futures. Futures always come to a TaskResult: the death of a
worker, a timeout, a cancelled task, a closed pool are Failures in it.
"""

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
from concurrent.futures import Future

from streamline.processes import wire
from streamline.processes.crash_trace import DUMP_SIGNAL
from streamline.processes.exit_reason import OutOfMemory, death
from streamline.processes.forkserver_process import ForkServerProcess
from streamline.processes.orphans import RUN_ID_VARIABLE, end_processes
from streamline.processes.task import Failure, Task, TaskResult
from streamline.processes.worker_process import Job, State, WorkerProcess

PERFORM = "streamline.execution.batch.run_task:perform"
POOL_VARIABLE = "STREAMLINE_POOL"
"""Borne by all processes of one pool, so that they are found when their fork server was killed."""

_DUMP_SECONDS = 0.1
_CLOSE_SECONDS = 8.0
_MOST_DEATHS = 3
_LONGEST_WAIT = 86_400.0

OnLine = Callable[[str | None, str | None, bytes], None]
OnLog = Callable[[str | None, str | None, str, str], None]

_logger = logging.getLogger(__name__)


class WorkerPool:
    """Worker processes, forked as they are needed, used again, replaced when they die or cannot be tidied up.

    Its fork server starts at once and imports `preload` while the caller goes on.

    Args:
        size: how many tasks run at once.
        preload: modules that every worker has from the start; what cannot be imported is left out.
        run_id: borne by all processes in `STREAMLINE_RUN_ID`.
        on_line: called in the pool's thread with (task id, block, line) for each line that a worker writes, without its
            newline, at most `lines.LONGEST` bytes of it; ids are None for what no task wrote. To be quick.
        learned: called in the pool's thread with each secret that a task learned, before any line written after that.
        on_log: called like `on_line` with (task id, block, line, level) for `port.log`; without, these are lines.
        python: another interpreter; it must be able to import what Streamline needs. Default: this one.
        perform: `module:function` that the workers call with (task, port).
        env: additional environment variables.
    """

    def __init__(
        self,
        size: int,
        *,
        preload: Sequence[str] = (),
        run_id: str,
        on_line: OnLine,
        learned: Callable[[str], None],
        on_log: OnLog | None = None,
        python: str | None = None,
        perform: str = PERFORM,
        env: dict[str, str] | None = None,
    ) -> None:
        if size < 1:
            raise ValueError("a pool has at least one worker")
        self._size = size
        self._preload = list(preload)
        self._python = python
        self._perform = perform
        self._pool_id = os.urandom(8).hex()
        self._environment = {**os.environ, **(env or {}), RUN_ID_VARIABLE: run_id, POOL_VARIABLE: self._pool_id}
        self._on_line = on_line
        self._on_log = on_log
        self._learned = learned
        self._pid = os.getpid()

        self._lock = threading.Lock()
        self._commands: deque[Callable[[], None]] = deque()
        self._closed = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

        # From here on: the thread's own.
        self._selector = selectors.DefaultSelector()
        self._queue: deque[Job] = deque()
        self._workers: dict[int, WorkerProcess] = {}
        self._idle: list[WorkerProcess] = []
        self._next_number = 1
        self._memory = OutOfMemory()
        self._server: ForkServerProcess | None = None
        self._deaths = 0
        self._broken: Failure | None = None
        self._leaving = False
        self._leave_by = 0.0
        self._thread = threading.Thread(target=self._run, name="streamline workers", daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> Future[TaskResult]:
        """Have a task carried out. From any thread. The future is resolved in the pool's thread.

        Raises:
            RuntimeError: the pool is closed.
        """
        future: Future[TaskResult] = Future()
        try:
            message = pickle.dumps(task, 5)
        except Exception as error:
            text = f"what the block is called with cannot be handed to a worker process: {error}"
            hint = "variables are to be plain values: text, numbers, lists, dicts"
            future.set_result(TaskResult(failure=Failure(message=text, hint=hint, retry=False, wrong_config=True)))
            return future
        job = Job(task, message, future)
        self._command(lambda: self._enqueue(job), strict=True)
        return future

    def cancel(self, task_id: str, grace: float = 5.0) -> None:
        """Interrupt a task as Ctrl-C does (KeyboardInterrupt), and kill its process after `grace` seconds.

        A task that has not begun never does; one that is over is left alone. The future resolves as always: with what
        the task returned all the same, or with a Failure.
        """
        self._command(lambda: self._cancel(task_id, grace))

    def close(self) -> None:
        """End everything: what waits is dropped, what runs is killed. Returns when no process is left. Repeatable."""
        if os.getpid() != self._pid:
            return
        self._command(self._begin_leaving)
        self._closed = True
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _command(self, command: Callable[[], None], *, strict: bool = False) -> None:
        with self._lock:
            if self._closed or os.getpid() != self._pid or not self._thread.is_alive():
                if strict:
                    raise RuntimeError("the pool of workers is closed")
                return
            self._commands.append(command)
            first = len(self._commands) == 1
        if first:
            with contextlib.suppress(BlockingIOError):
                self._waker.send(b"x")

    # What follows runs in the pool's thread.

    def _run(self) -> None:
        try:
            self._selector.register(self._woken, selectors.EVENT_READ, self._take_commands)
            self._start_server()
            while not (self._leaving and self._server is None):
                for key, events in self._selector.select(self._patience()):
                    key.data(events)  # which may be late: what it is about may have been closed by one before it
                self._mind_deadlines()
        except BaseException:
            _logger.exception("the pool of workers failed")
        finally:
            self._finish()

    def _finish(self) -> None:
        with self._lock:
            self._closed = True
            commands = list(self._commands)
            self._commands.clear()
        self._leaving = True
        for command in commands:
            with contextlib.suppress(Exception):
                command()
        if self._server is not None:
            self._server.kill()
            end_processes([self._pool_id], variable=POOL_VARIABLE)
        for worker in list(self._workers.values()):
            self._gone(worker, None)
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

    def _patience(self) -> float | None:
        deadlines = [worker.deadline for worker in self._workers.values() if worker.deadline is not None]
        if self._leaving:
            deadlines.append(self._leave_by)
        # Not for longer than selectors can wait, which is some weeks.
        return min(max(0.0, min(deadlines) - time.monotonic()), _LONGEST_WAIT) if deadlines else None

    def _mind_deadlines(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers.values()):
            if worker.deadline is not None and worker.deadline <= now:
                worker.deadline = None
                if worker.why is None:
                    # Asked where it is; killed once it had time to say.
                    worker.why = "timeout"
                    self._ask(wire.SIGNAL, worker, DUMP_SIGNAL)
                    worker.deadline = now + _DUMP_SECONDS
                else:
                    self._end(worker)
        if self._leaving and self._server is not None and self._leave_by <= now:
            self._server.kill()
            self._server_gone()

    # Jobs.

    def _enqueue(self, job: Job) -> None:
        if self._leaving:
            self._resolve(job, TaskResult(failure=_CLOSED))
            return
        self._queue.append(job)
        self._assign()

    def _assign(self) -> None:
        if self._broken is not None:
            self._drop_queue()
        while self._queue and self._idle:
            job = self._queue.popleft()
            if job.future.set_running_or_notify_cancel():
                worker = self._idle.pop()
                worker.begin(job)
                self._watch_connection(worker)
        starting = sum(worker.state is State.STARTING for worker in self._workers.values())
        while len(self._queue) > starting and len(self._workers) < self._size and self._server is not None:
            try:
                self._fork()
            except OSError as error:  # no more descriptors, say
                if self._workers:
                    return
                self._fail_one(error.strerror or str(error))
            else:
                starting += 1

    def _drop_queue(self) -> None:
        while self._queue:
            job = self._queue.popleft()
            if job.future.set_running_or_notify_cancel():
                self._resolve(job, TaskResult(failure=self._broken or _CLOSED))

    def _resolve(self, job: Job, result: TaskResult) -> None:
        if not job.future.done():
            job.future.set_result(result)

    def _cancel(self, task_id: str, grace: float) -> None:
        for job in self._queue:
            if job.task.id == task_id:
                self._queue.remove(job)
                if job.future.set_running_or_notify_cancel():
                    self._resolve(job, TaskResult(failure=Failure(message="cancelled before it began", retry=False)))
                return
        for worker in self._workers.values():
            if worker.job is not None and worker.job.task.id == task_id and worker.state is State.BUSY:
                if worker.why is None:
                    worker.why = "cancelled"
                    self._ask(wire.SIGNAL, worker, signal.SIGINT)
                    worker.deadline = time.monotonic() + max(0.0, grace)
                elif worker.why == "cancelled" and worker.deadline is not None:
                    worker.deadline = min(worker.deadline, time.monotonic() + max(0.0, grace))
                return

    # Workers.

    def _fork(self) -> None:
        number = self._next_number
        self._next_number += 1
        worker = WorkerProcess(number, on_line=self._line, on_log=self._log, learned=self._secret)
        self._workers[number] = worker
        assert self._server is not None
        self._server.ask(wire.FORK, number, 0, worker)
        self._watch_server()
        self._selector.register(worker.connection, selectors.EVENT_READ, lambda events: self._heard(worker, events))
        self._selector.register(worker.output, selectors.EVENT_READ, lambda _: self._written(worker))

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

    def _heard(self, worker: WorkerProcess, events: int) -> None:
        if worker.number not in self._workers:
            return
        if events & selectors.EVENT_WRITE:
            worker.write()
            self._watch_connection(worker)
        if events & selectors.EVENT_READ:
            if not worker.read_frames():
                self._unwatch(worker.connection)
            self._process_frames(worker)

    def _written(self, worker: WorkerProcess) -> None:
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
        job = worker.job
        if job is None or worker.why == "timeout" or worker.state is not State.BUSY:
            return
        worker.end_of_task()
        self._deaths = 0
        try:
            result, left = pickle.loads(payload)
        except Exception as error:
            text = f"what came of the task cannot be read by the runner: {type(error).__name__}: {error}"
            result, left = TaskResult(failure=Failure(message=text)), "unreadable"
        worker.deadline = None
        if left is not None or worker.why is not None:
            # The result waits until what the task left running is gone.
            worker.result = result
            self._end(worker)
            return
        worker.job = None
        worker.state = State.IDLE
        self._idle.append(worker)
        self._assign()
        self._resolve(job, result)

    def _gone(self, worker: WorkerProcess, status: int | None, failure: Failure | None = None) -> None:
        """A worker's process has ended."""
        worker.read_frames()
        self._process_frames(worker)
        worker.end_of_task()
        if worker in self._idle:
            self._idle.remove(worker)
        self._unwatch(worker.connection, worker.output)
        del self._workers[worker.number]
        job, worker.job = worker.job, None
        if job is not None:
            result = worker.result or self._death(worker, job, status, failure)
            worker.close()
            self._resolve(job, result)
        else:
            worker.close()

    def _death(self, worker: WorkerProcess, job: Job, status: int | None, failure: Failure | None) -> TaskResult:
        worker.job = job
        note, trace = worker.whereabouts()
        where = trace.where if trace is not None else note.where
        text = trace.text if trace is not None else None
        if worker.why == "timeout":
            message = f"did not return within {job.task.timeout:g} s"
            failure = Failure(message=message, where=where, trace=text)
        elif worker.why == "cancelled":
            failure = Failure(message="cancelled, and killed as it did not stop", where=note.where, retry=False)
        elif worker.why == "closed":
            failure = _CLOSED
        elif failure is None:
            failure = death(status, note, trace, self._memory) if status is not None else _CLOSED
        worker.job = None
        return TaskResult(failure=failure, seconds=time.monotonic() - worker.since)

    def _never_began(self, number: int, reason: str) -> None:
        """A worker could not be started. Others go on; if there are none, the next task fails by it."""
        worker = self._workers.get(number)
        if worker is not None:
            self._gone(worker, None)
        if not self._workers and self._queue:
            self._fail_one(reason)
        self._assign()

    def _fail_one(self, reason: str) -> None:
        job = self._queue.popleft()
        if job.future.set_running_or_notify_cancel():
            self._resolve(job, TaskResult(failure=Failure(message=f"no worker process can be started: {reason}")))

    # What workers say.

    def _line(self, worker: WorkerProcess, line: bytes) -> None:
        task = worker.job.task if worker.job is not None else None
        self._call(self._on_line, task and task.id, task and task.block, line)

    def _log(self, worker: WorkerProcess, line: str, level: str) -> None:
        task = worker.job.task if worker.job is not None else None
        if self._on_log is not None:
            self._call(self._on_log, task and task.id, task and task.block, line, level)
        else:
            self._call(self._on_line, task and task.id, task and task.block, line.encode("utf-8", "replace"))

    def _secret(self, secret: str) -> None:
        self._call(self._learned, secret)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        try:
            function(*args)
        except Exception:  # a full disk under the log is no reason to leave workers alone
            _logger.exception("the pool of workers could not tell what happened")

    # The fork server.

    def _start_server(self) -> None:
        try:
            server = ForkServerProcess(
                python=self._python,
                preload=self._preload,
                perform=self._perform,
                env=self._environment,
                on_line=lambda line: self._call(self._on_line, None, None, line),
            )
        except OSError as error:
            self._broken = Failure(
                message=f"the process that blocks run in cannot be started: {error}", retry=False, wrong_config=True
            )
            self._drop_queue()
            return
        self._server = server
        self._selector.register(server.control, selectors.EVENT_READ, lambda events: self._server_said(server, events))
        self._selector.register(server.output, selectors.EVENT_READ, lambda _: self._server_wrote(server))
        with contextlib.suppress(OSError):  # then the first task is told
            self._fork()  # the first task is not to wait for it
        self._assign()

    def _watch_server(self) -> None:
        if self._server is not None:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._server.unsent else 0)
            key = self._selector.get_key(self._server.control)
            if key.events != wanted:
                self._selector.modify(self._server.control, wanted, key.data)

    def _server_wrote(self, server: ForkServerProcess) -> None:
        if self._server is server and not server.read_output():
            self._unwatch(server.output)

    def _server_said(self, server: ForkServerProcess, events: int) -> None:
        if self._server is not server:
            return
        if events & selectors.EVENT_WRITE:
            server.write()
            self._watch_server()
        if not events & selectors.EVENT_READ:
            return
        for what, number, value in server.read():
            worker = self._workers.get(number)
            if what == wire.NOT_FORKED:
                self._never_began(number, os.strerror(value))
            elif what == wire.EXITED and worker is not None:
                if worker.state is State.STARTING:
                    self._deaths += 1
                    if self._deaths >= _MOST_DEATHS:
                        self._give_up(f"worker processes end before they begin{server.last_words()}")
                self._gone(worker, value)
                self._assign()
        if server.ended:
            self._server_gone()

    def _server_gone(self) -> None:
        server = self._server
        assert server is not None
        self._server = None
        self._unwatch(server.control, server.output)
        ready = server.ready
        code = server.close()
        failure = None
        if not self._leaving or (code and ready):
            # Its workers got SIGKILL from the system; what these had forked is found by what it bears.
            end_processes([self._pool_id], variable=POOL_VARIABLE)
            how = signal.Signals(-code).name if code < 0 else f"code {code}"
            failure = Failure(message=f"the process that all blocks' processes come from was ended ({how})")
        for worker in list(self._workers.values()):
            self._gone(worker, None, failure)
        if self._leaving:
            return
        self._deaths += 1
        if not ready:
            # Perhaps one of the modules brings it down; who needs that one will be told.
            self._preload = []
        if self._deaths >= _MOST_DEATHS:
            self._give_up(f"the fork server ends again and again{server.last_words()}")
        else:
            self._start_server()

    def _give_up(self, message: str) -> None:
        self._broken = Failure(message=message, retry=False)
        self._drop_queue()

    def _begin_leaving(self) -> None:
        if self._leaving:
            return
        self._leaving = True
        self._leave_by = time.monotonic() + _CLOSE_SECONDS
        self._drop_queue()
        for worker in list(self._workers.values()):
            if worker.state is State.BUSY:
                worker.why = worker.why or "closed"
                self._end(worker)
            elif worker.state is not State.ENDING:
                # It leaves by itself when it sees this.
                with contextlib.suppress(OSError):
                    worker.connection.shutdown(socket.SHUT_WR)
        if self._server is not None:
            if self._server.ready:
                self._server.ask(wire.LEAVE, 0, 0)
                self._watch_server()
            else:  # nothing is forked yet
                self._server.kill()


_CLOSED = Failure(message="the run ended before it was done", retry=False)
