"""A worker process: runs one job after the other; by default the next one finds only loaded modules of those before.

An exception of the job's function becomes a Failure. What the process does not survive, the runner reports
(exit_reason.py).
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import faulthandler
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
from types import TracebackType
from typing import Any, NoReturn, TextIO

from streamline.errors import ConfigError, StreamlineError
from streamline.processes import crash_trace, wire
from streamline.processes.crash_trace import is_user_code
from streamline.processes.job import Failure, Outcome
from streamline.processes.process_state import ProcessState
from streamline.processes.shared_page import Ending, SharedPage

_LONGEST_MESSAGE = 10_000


class Port:
    """Sends messages to the runner while a job runs; from any thread. A message has left the process on return.

    In a process that user code forked, and after the job's end, messages are ignored.
    """

    def __init__(self, connection: socket.socket, page: SharedPage, output: int) -> None:
        self._connection = connection
        self._page = page
        self._output = output
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._open = True

    def secret(self, secret: str) -> None:
        """Report a secret that was read: it is masked in all later output."""
        self._send(wire.SECRET, str.encode(secret, "utf-8", "surrogatepass"))

    def log(self, line: str, level: str = "INFO") -> None:
        """Write a line to the run's log, after what was printed before."""
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        before = self._page.written(lambda: wire.unread(self._output))
        self._send(wire.LOG, wire.pack_log(line, level, before))

    def close(self) -> None:
        """Refuse frames from here on: the job has ended."""
        with self._lock:
            self._open = False

    def _send(self, kind: bytes, payload: bytes) -> None:
        with self._lock:
            if self._open and os.getpid() == self._pid:
                wire.send_frame(self._connection, kind, payload)


def work(connection: socket.socket, page: int, traces: int) -> NoReturn:
    """Run jobs until the runner closes the connection. Called once, in a process that was just forked.

    Args:
        connection: to the runner.
        page: descriptor of the shared page.
        traces: descriptor of the file for crash traces.
    """
    _clear_exit_handlers()
    _reseed()
    _raise_oom_score()
    sys.stdout = _stream(1)
    sys.stderr = _stream(2)
    shared = SharedPage(page)
    try:
        _Worker(connection, shared, traces).serve()
    except OSError:  # the runner is gone, or user code has closed the connection
        shared.ending = Ending.DISCONNECTED
    except BaseException:
        traceback.print_exc()
        shared.ending = Ending.INTERNAL_ERROR
    os._exit(1)


class _Worker:
    def __init__(self, connection: socket.socket, page: SharedPage, traces: int) -> None:
        self._pid = os.getpid()
        self._connection = connection
        self._interrupted = False
        signal.signal(signal.SIGINT, self._interrupt)
        self._page = page
        self._traces = traces
        os.register_at_fork(after_in_child=faulthandler.disable)
        self._state = ProcessState()

    def _interrupt(self, *_: object) -> None:
        self._interrupted = True

    def serve(self) -> NoReturn:
        """Run jobs until the connection ends, then exit as a program does, without waiting for threads."""
        wire.send_frame(self._connection, wire.HELLO, b"")
        while (frame := wire.receive_frame(self._connection)) is not None:
            function, source_root, keep_state = wire.unpack_job(frame[1])
            outcome, left = self._run(function, source_root, keep_state)
            wire.send_frame(self._connection, wire.RESULT, _pickled(outcome, left))
            del frame, outcome
        atexit._run_exitfuncs()
        _flush()
        os._exit(0)

    def _run(self, name: str, source_root: str, keep_state: bool) -> tuple[Outcome, str | None]:
        payload = wire.receive_frame(self._connection)
        if payload is None:
            raise OSError("the runner closed the connection")
        port = Port(self._connection, self._page, self._state.output)
        began = time.perf_counter()
        # Every time: the job before may have switched it off.
        crash_trace.enable(self._traces)
        try:
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                if self._interrupted:
                    raise KeyboardInterrupt
                if keep_state:
                    returned = _call(name, payload[1], port)
                else:  # in a context of its own, so that context variables are restored
                    returned = contextvars.copy_context().run(_call_in_copy, name, payload[1], port)
            finally:
                self._shield()
            outcome = returned if isinstance(returned, Outcome) else Outcome(value=returned)
        except BaseException as error:  # nothing that user code raises ends a worker
            outcome = Outcome(failure=failure_of(error, source_root))
            error.__traceback__ = None
        failure = outcome.failure
        if os.getpid() != self._pid:
            # A process that the job forked has returned from the job's function; its end is here.
            if failure is not None:
                with contextlib.suppress(Exception):
                    print(failure.trace or failure.message, file=sys.stderr)
            _flush()
            os._exit(0 if failure is None else 1)
        port.close()
        outcome.seconds = outcome.seconds or time.perf_counter() - began
        if failure is not None:
            gc.collect()  # frames of the traceback hold what the job had loaded
        _flush()
        left = None
        if not keep_state:
            try:
                left = self._state.restore()
            except Exception:  # then this process cannot be used again
                left = "state"
        return outcome, left or ("interrupt" if self._interrupted else None)

    def _shield(self) -> None:
        """Note interrupts instead of raising them from here on."""
        while True:
            try:
                signal.signal(signal.SIGINT, self._interrupt)
            except KeyboardInterrupt:
                self._interrupted = True
            else:
                return


def _call(name: str, payload: bytes, port: Port) -> object:
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    return function(pickle.loads(payload), port)


def _call_in_copy(name: str, payload: bytes, port: Port) -> object:
    # The decimal module's context is an object that is changed in place.
    if "decimal" in sys.modules:
        import decimal

        decimal.setcontext(decimal.getcontext().copy())
    return _call(name, payload, port)


def failure_of(error: BaseException, root: str) -> Failure:
    """Return the failure for an exception: its line in user code under `root`, and the traceback from there on."""
    if isinstance(error, StreamlineError):
        return failure_of_known(error)
    first, where = _innermost(error, root)
    if isinstance(error, KeyboardInterrupt):
        return Failure(message="interrupted (KeyboardInterrupt)", where=where, code="block.interrupted", retry=False)
    try:
        text = "".join(traceback.format_exception(type(error), error, first or error.__traceback__)).rstrip()
        summary = traceback.format_exception_only(error)[-1].strip()
    except Exception:  # exceptions are users' objects, too
        text = "".join(traceback.format_tb(first or error.__traceback__)).rstrip()
        summary = type(error).__name__
    if isinstance(error, SystemExit):
        summary = f"SystemExit: {error.code} (the code called sys.exit)"
    return Failure(message=_short(summary), where=where, trace=_short(text, 10 * _LONGEST_MESSAGE))


def failure_of_known(error: StreamlineError) -> Failure:
    """Return the failure for an error that is meant for a user."""
    retry = not isinstance(error, ConfigError)
    return Failure(message=error.message, where=error.where, hint=error.hint, code=error.code, retry=retry)


def _innermost(error: BaseException, root: str) -> tuple[TracebackType | None, str | None]:
    first: TracebackType | None = None
    where = None
    step = error.__traceback__
    while step is not None:
        path = step.tb_frame.f_code.co_filename
        if is_user_code(path, root):
            first = first or step
            where = f"{path}:{step.tb_lineno}"
        step = step.tb_next
    return first, where


def _short(text: str, limit: int = _LONGEST_MESSAGE) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]} […] {text[-limit // 2 :]}"


def _pickled(outcome: Outcome, left: str | None) -> bytes:
    try:
        return pickle.dumps((outcome, left), 5)
    except Exception as error:
        message = f"the result cannot be sent from the worker process: {error}"
        failure = Failure(message=message, code="block.unpicklable_result")
        return pickle.dumps((Outcome(failure=failure, seconds=outcome.seconds), left), 5)


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
    # Line buffered, so that what a process printed before it crashed is seen. Also where PYTHONUNBUFFERED is set:
    # output is shown line by line, and each write costs as much as a line.
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _clear_exit_handlers() -> None:
    """Drop the exit handlers of the fork server's modules; only those that jobs register run at our exit."""
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


def _raise_oom_score() -> None:
    """Make the kernel kill a worker before the runner or the fork server when memory runs out."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        adjustment = int(file.read())
        file.seek(0)
        file.write(str(min(1000, adjustment + 200)))


def _reseed() -> None:
    # Python's own generator is reseeded in a fork; NumPy's would give every worker the same numbers.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
