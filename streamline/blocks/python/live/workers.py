"""Where transformer functions run: on one thread, or in worker processes that can be killed.

A thread shares the interpreter and cannot be ended from outside. A worker process gets its requests through a
pipe, one at a time, and answers in kind: pickled structs, tables as Arrow IPC. It dies with its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from typing import IO, Any, Protocol

import msgspec

from streamline.blocks.python.function import UserError
from streamline.blocks.python.live.call import CallRequest, CallSettings, Returned, TransformCaller
from streamline.errors import ConfigError, StreamlineError

_BOOT = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__name__} import serve; serve()"
_LENGTH = struct.Struct(">Q")


class WorkerDied(Exception):
    """A worker process ended while it had a request; `returncode` is its exit status (negative: signal)."""

    def __init__(self, returncode: int | None) -> None:
        super().__init__(returncode)
        self.returncode = returncode


class Call:
    """A request that a worker has or will get.

    Args:
        request: the records; None only loads the block's file.
        future: of what the function returned. Raises UserError, ConfigError, or WorkerDied.
        since: `time.monotonic()` when the call that is running now began; None before.
    """

    def __init__(self, request: CallRequest | None) -> None:
        self.request = request
        self.future: Future[list[Returned]] = Future()
        self.since: float | None = None

    def begin(self) -> None:
        """A call of the function begins."""
        self.since = time.monotonic()


class Workers(Protocol):
    """Runs calls, several at a time; each call's result is in its future."""

    depth: int

    def submit(self, call: Call) -> None:
        """Run `call` when a worker is free."""
        ...

    def kill(self) -> bool:
        """End what runs, at once; False if that is not possible."""
        ...

    def close(self) -> None:
        """End the workers once what they have is done; never waits long."""
        ...


class ThreadWorker:
    """One thread of its own, so that what the block's module holds (connections, caches) has one owner."""

    depth = 1

    def __init__(self, settings: CallSettings) -> None:
        self._settings = settings
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._caller: TransformCaller | None = None
        # A daemon: a function that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"block {settings.block.uuid}", daemon=True)
        self._thread.start()

    def submit(self, call: Call) -> None:
        self._calls.put(call)

    def kill(self) -> bool:
        return False

    def close(self) -> None:
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call.begin()
                if self._caller is None:
                    self._caller = TransformCaller(self._settings)
                request = call.request
                result = self._caller.run(request, call.begin) if request is not None else []
            except BaseException as error:  # whatever it is belongs to who waits for the call
                call.future.set_exception(error)
            else:
                call.future.set_result(result)


class ProcessWorkers:
    """`count` processes, started on first use; each is fed by a thread."""

    def __init__(self, settings: CallSettings, count: int) -> None:
        self.depth = count
        self._settings = settings
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"block {settings.block.uuid} {n}", daemon=True)
            for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Call) -> None:
        self._calls.put(call)

    def kill(self) -> bool:
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()
        return True

    def close(self) -> None:
        for _ in self._threads:
            self._calls.put(None)
        with self._lock:
            self._closed = True
            processes = list(self._processes)
        deadline = time.monotonic() + 2
        for process in processes:
            with contextlib.suppress(OSError, ValueError):
                if process.stdin is not None:
                    process.stdin.close()
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(self) -> None:
        process: subprocess.Popen[bytes] | None = None
        while (call := self._calls.get()) is not None:
            try:
                if process is None:
                    process = self._start()
                call.begin()
                call.future.set_result(_exchange(process, call.request))
            except BaseException as error:
                call.future.set_exception(error)

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise WorkerDied(None)
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(sys.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self._processes.append(process)
        assert process.stdin is not None
        try:
            _send(process.stdin, (os.getpid(), self._settings))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"what the block's function is called with cannot be handed to a worker process: {error}",
                where=f"block {self._settings.block.uuid}",
                hint="leave `configuration.workers` out, or give it variables that can be pickled",
            ) from None
        return process


def _exchange(process: subprocess.Popen[bytes], request: CallRequest | None) -> list[Returned]:
    assert process.stdin is not None
    assert process.stdout is not None
    if request is not None:  # views into a larger buffer do not pickle
        request = msgspec.structs.replace(request, slices=[bytes(piece) for piece in request.slices])
    try:
        _send(process.stdin, request)
        answer = _receive(process.stdout)
    except (OSError, EOFError, ValueError):
        try:
            raise WorkerDied(process.wait(5)) from None
        except subprocess.TimeoutExpired:
            process.kill()
            raise WorkerDied(process.wait()) from None
    if isinstance(answer, BaseException):
        raise answer
    found: list[Returned] = answer
    for returned in found:
        if isinstance(returned.table, bytes):
            import pyarrow as pa

            returned.table = pa.ipc.open_stream(returned.table).read_all()
    return found


def serve() -> None:
    """A worker process: answers requests from its standard input until that ends."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # What user code prints must not get between the answers.
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    parent, settings = _receive(requests)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    caller: TransformCaller | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            request = _receive(requests)
            try:
                if caller is None:
                    caller = TransformCaller(settings)
                answer: Any = caller.run(request) if request is not None else []
                for returned in answer:
                    if returned.table is not None:
                        returned.table = _ipc(returned.table)
            except (UserError, StreamlineError) as error:
                answer = error
            except Exception as error:
                answer = StreamlineError(f"{type(error).__name__}: {error}", where=f"block {settings.block.uuid}")
            _send(answers, answer)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _ipc(table: Any) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _send(pipe: IO[bytes], value: Any) -> None:
    data = pickle.dumps(value, 5)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


def remaining(call: Call, timeout: float) -> float:
    """Seconds that the call which is running has left; all of them before it began."""
    return timeout if call.since is None else call.since + timeout - time.monotonic()
