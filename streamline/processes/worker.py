"""A worker process: carries out one task after the other, and leaves nothing of one to the next but loaded modules.

It calls `perform(task, port)`, named as `module:function` by whoever made the pool. What escapes from it becomes a
Failure; what the process itself does not survive is put into words by the runner (deaths.py).
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import gc
import importlib
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
from typing import Any, NoReturn, TextIO

from streamline.errors import ConfigError, StreamlineError
from streamline.processes import wire
from streamline.processes.crash_trace import Notes, Watch, is_users
from streamline.processes.process_state import Surroundings
from streamline.processes.task import Failure, Task, TaskResult

_LONGEST_MESSAGE = 10_000


class Port:
    """The way back to the runner while a task goes on; from any thread. What was said has arrived, come what may.

    In a process that user code forked, and after the task's end, everything is ignored.
    """

    def __init__(self, connection: socket.socket, notes: Notes, output: int) -> None:
        self._connection = connection
        self._notes = notes
        self._output = output
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._open = True

    def learned(self, secret: str) -> None:
        """A secret was read: it is masked in all that is written from now on."""
        self._send(wire.SECRET, str.encode(secret, "utf-8", "surrogatepass"))

    def log(self, line: str, level: str = "INFO") -> None:
        """A line for the run's log; it comes after what was printed before."""
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        before = self._notes.written(lambda: wire.waiting(self._output))
        self._send(wire.LOG, wire.pack_log(line, level, before))

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
    _forget_exits()
    _reseed()
    _volunteer()
    sys.stdout = _stream(1)
    sys.stderr = _stream(2)
    page = Notes(notes)
    try:
        _Worker(connection, page, traces, perform).serve()
    except OSError:  # the runner is gone, or the way to it
        page.write("cut off", None)
    except BaseException:
        traceback.print_exc()
        page.write("broken", None)
    os._exit(1)


class _Worker:
    def __init__(self, connection: socket.socket, notes: Notes, traces: int, perform: str) -> None:
        self._pid = os.getpid()
        self._connection = connection
        self._perform = perform
        self._function: Callable[[Task, Port], object] | None = None
        self._interrupted = False
        signal.signal(signal.SIGINT, self._interrupt)
        self._notes = notes
        self._watch = Watch(notes, traces)
        with contextlib.suppress(Exception):
            self._load()
        self._surroundings = Surroundings()

    def _interrupt(self, *_: object) -> None:
        self._interrupted = True

    def _load(self) -> Callable[[Task, Port], object]:
        if self._function is None:
            module, _, name = self._perform.partition(":")
            self._function = getattr(importlib.import_module(module), name)
        assert self._function is not None
        return self._function

    def serve(self) -> NoReturn:
        """Answer tasks until the connection ends, then leave as a program does, without waiting for anything."""
        wire.send_frame(self._connection, wire.HELLO, b"")
        while (frame := wire.receive_frame(self._connection)) is not None:
            result, left = self._run(frame[1])
            wire.send_frame(self._connection, wire.RESULT, _pickled(result, left))
            del frame, result
        atexit._run_exitfuncs()
        _flush()
        os._exit(0)

    def _run(self, message: bytes) -> tuple[TaskResult, str | None]:
        task: Task = pickle.loads(message)
        port = Port(self._connection, self._notes, self._surroundings.output)
        began = time.perf_counter()
        self._watch.begin(task.project)
        result = TaskResult()
        try:
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                if self._interrupted:
                    raise KeyboardInterrupt
                returned = contextvars.copy_context().run(self._call, task, port)
            finally:
                self._shield()
            if not isinstance(returned, TaskResult):
                raise TypeError(f"{self._perform} returned no TaskResult")
            result = returned
        except BaseException as error:  # nothing that user code raises ends a worker
            result.failure = failure_of(error, task.project)
            error.__traceback__ = None
        if os.getpid() != self._pid:
            # A process that the block forked has come to the block's end, which is its own as well.
            if result.failure is not None:
                with contextlib.suppress(Exception):
                    print(result.failure.trace or result.failure.message, file=sys.stderr)
            _flush()
            os._exit(0 if result.failure is None else 1)
        port.close()
        self._watch.end()
        if not result.seconds:
            result.seconds = time.perf_counter() - began
        if result.failure is not None:
            gc.collect()  # frames of the traceback hold what the block had loaded
        _flush()
        try:
            left = self._surroundings.put_back()
        except Exception:  # then this process is no place for another task
            left = "surroundings"
        return result, left or ("interrupt" if self._interrupted else None)

    def _call(self, task: Task, port: Port) -> object:
        # In a context of its own, so that context variables go back by themselves; the decimal module's is an object
        # that is changed in place.
        if "decimal" in sys.modules:
            import decimal

            decimal.setcontext(decimal.getcontext().copy())
        return self._load()(task, port)

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
    try:
        text = "".join(traceback.format_exception(type(error), error, first or error.__traceback__)).rstrip()
        summary = traceback.format_exception_only(error)[-1].strip()
    except Exception:  # exceptions are users' objects, too
        text = "".join(traceback.format_tb(first or error.__traceback__)).rstrip()
        summary = type(error).__name__
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


def _stream(fd: int) -> TextIO:
    # Lines go out as they are printed: what a process printed before it crashed is what one wants to see. Whole lines,
    # also where PYTHONUNBUFFERED is set: nobody sees half of one, and each write costs as much as a line.
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _forget_exits() -> None:
    """What the fork server's modules wanted done at its end is not to be done at ours; what tasks register is."""
    atexit._clear()
    for name in ("multiprocessing.util", "weakref"):
        module = sys.modules.get(name)
        if name == "weakref" and module is not None:
            module.finalize._registered_with_atexit = False
            for info in list(module.finalize._registry.values()):
                info.atexit = False
        elif module is not None:
            module._finalizer_registry.clear()
            atexit.register(module._exit_function)


def _volunteer() -> None:
    """If memory runs out, it is a block that is to go, before the runner or the fork server."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        adjustment = int(file.read())
        file.seek(0)
        file.write(str(min(1000, adjustment + 200)))


def _reseed() -> None:
    # Python's own generator is reseeded in a fork; NumPy's would give every worker the same numbers.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
