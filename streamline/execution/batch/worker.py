"""A worker process: carries out one task after the other, and leaves nothing of one to the next but loaded modules.

It calls `perform(task, port)`, named as `module:function` by whoever made the pool. What escapes from it becomes a
Failure; what the process itself does not survive is put into words by the runner (deaths.py).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from streamline.errors import ConfigError, StreamlineError
from streamline.execution.batch import wire
from streamline.execution.batch.surroundings import Surroundings
from streamline.execution.batch.task import Failure, Task, TaskResult
from streamline.execution.batch.whereabouts import Notes, Watch, is_users

_LONGEST_MESSAGE = 10_000


class Port:
    """The way back to the runner while a task goes on; from any thread. What was said has arrived, come what may.

    In a process that user code forked, and after the task's end, everything is ignored.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._open = True

    def learned(self, secret: str) -> None:
        """A secret was read: it is masked in all that is written from now on."""
        self._send(wire.SECRET, secret.encode("utf-8", "surrogatepass"))

    def log(self, line: str, level: str = "INFO") -> None:
        """A line for the run's log; it comes after what was printed before."""
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        self._send(wire.LOG, pickle.dumps((line, level), 5))

    def close(self) -> None:
        """The task is over."""
        with self._lock:
            self._open = False

    def _send(self, kind: bytes, payload: bytes) -> None:
        with self._lock:
            if self._open and os.getpid() == self._pid:
                wire.send_frame(self._connection, kind, payload)


def work(connection: socket.socket, notes: int, traces: int, perform: str) -> NoReturn:
    """Be a worker until the runner closes the connection. Called once, in a process that was just forked.

    Args:
        connection: to the runner.
        notes: descriptor of the page for whereabouts.
        traces: descriptor of the file for fatal traces.
        perform: `module:function`.
    """
    atexit._clear()  # what the fork server's modules registered is its own business
    _reseed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Lines go out as they are printed: what a process printed before it crashed is what one wants to see.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    with contextlib.suppress(OSError):  # the runner is gone, and so are we
        _Worker(connection, notes, traces, perform).serve()
    os._exit(0)


class _Worker:
    def __init__(self, connection: socket.socket, notes: int, traces: int, perform: str) -> None:
        self._connection = connection
        self._perform = perform
        self._function: Callable[[Task, Port], object] | None = None
        self._interrupted = False
        signal.signal(signal.SIGINT, self._interrupt)
        self._watch = Watch(Notes(notes), traces)
        with contextlib.suppress(Exception):
            self._load()
        time.sleep(0)  # lets the watch's thread begin, so that it counts as ours
        self._surroundings = Surroundings()

    def _interrupt(self, *_: object) -> None:
        self._interrupted = True

    def _load(self) -> Callable[[Task, Port], object]:
        if self._function is None:
            module, _, name = self._perform.partition(":")
            self._function = getattr(importlib.import_module(module), name)
        assert self._function is not None
        return self._function

    def serve(self) -> None:
        """Answer tasks until the connection ends, then leave as a program does, without waiting for anything."""
        wire.send_frame(self._connection, wire.HELLO, b"")
        while (frame := wire.receive_frame(self._connection)) is not None:
            result, left = self._run(frame[1])
            wire.send_frame(self._connection, wire.RESULT, _pickled(result, left))
            del frame, result
        atexit._run_exitfuncs()
        _flush()

    def _run(self, message: bytes) -> tuple[TaskResult, str | None]:
        task: Task = pickle.loads(message)
        port = Port(self._connection)
        began = time.perf_counter()
        self._watch.begin(task.project)
        result = TaskResult()
        try:
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                if self._interrupted:
                    raise KeyboardInterrupt
                returned = self._load()(task, port)
            finally:
                self._shield()
            if not isinstance(returned, TaskResult):
                raise TypeError(f"{self._perform} returned no TaskResult")
            result = returned
        except BaseException as error:  # nothing that user code raises ends a worker
            result.failure = failure_of(error, task.project)
            error.__traceback__ = None
        port.close()
        self._watch.end()
        if not result.seconds:
            result.seconds = time.perf_counter() - began
        if result.failure is not None:
            gc.collect()  # frames of the traceback hold what the block had loaded
        _flush()
        left = self._surroundings.put_back()
        if self._interrupted:
            left = left or "interrupt"
        return result, left

    def _shield(self) -> None:
        """From here on an interrupt is only noted."""
        while True:
            try:
                signal.signal(signal.SIGINT, self._interrupt)
            except KeyboardInterrupt:
                self._interrupted = True
            else:
                return


def failure_of(error: BaseException, project: str) -> Failure:
    """What the user gets to see of an exception: its place in the project, and the traceback from there on."""
    if isinstance(error, StreamlineError):
        wrong = isinstance(error, ConfigError)
        return Failure(message=error.message, where=error.where, hint=error.hint, retry=not wrong, wrong_config=wrong)
    if isinstance(error, KeyboardInterrupt):
        return Failure(message="interrupted", where=_innermost(error, project)[1], retry=False)
    first, where = _innermost(error, project)
    text = "".join(traceback.format_exception(type(error), error, first or error.__traceback__)).rstrip()
    summary = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SystemExit):
        summary = f"SystemExit: {error.code} (the block called sys.exit)"
    return Failure(message=_short(summary), where=where, trace=_short(text, 10 * _LONGEST_MESSAGE))


def _innermost(error: BaseException, project: str) -> tuple[TracebackType | None, str | None]:
    first: TracebackType | None = None
    where = None
    step = error.__traceback__
    while step is not None:
        path = step.tb_frame.f_code.co_filename
        if is_users(path, project):
            first = first or step
            where = f"{path}:{step.tb_lineno}"
        step = step.tb_next
    return first, where


def _short(text: str, limit: int = _LONGEST_MESSAGE) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]} […] {text[-limit // 2 :]}"


def _pickled(result: TaskResult, left: str | None) -> bytes:
    try:
        return pickle.dumps((result, left), 5)
    except Exception as error:
        failure = Failure(message=f"what came of the task cannot be handed to the runner: {error}")
        return pickle.dumps((TaskResult(failure=failure, seconds=result.seconds), left), 5)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    with contextlib.suppress(Exception):
        _c_library().fflush(None)


_library: Any = None


def _c_library() -> Any:
    global _library
    if _library is None:
        import ctypes

        _library = ctypes.CDLL(None)
    return _library


def _reseed() -> None:
    # Python's own generator is reseeded in a fork; NumPy's would give every worker the same numbers.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
