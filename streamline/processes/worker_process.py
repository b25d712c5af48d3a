"""The runner's end of one worker process: its connection, its output, its whereabouts, and the job that it has."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum

import msgspec

from streamline.processes import wire
from streamline.processes.crash_trace import Note, Notes, Trace, anonymous_file, read_trace
from streamline.processes.line_splitter import Lines
from streamline.processes.task import Task, TaskResult

READ_BYTES = 1 << 16


class State(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    ENDING = "ending"


class Job(msgspec.Struct, eq=False):
    """A task on its way: `message` is the pickled task."""

    task: Task
    message: bytes
    future: Future[TaskResult]


class WorkerProcess:
    """One worker, as the pool's thread sees it; used by that thread alone.

    Args:
        number: its name in talks with the fork server.
        on_line: is given each line that it writes.
        on_log: is given each line for the log, and its level.
        learned: is given each secret as soon as it is known, before any line written after it.
    """

    def __init__(
        self,
        number: int,
        *,
        on_line: Callable[[WorkerProcess, bytes], None],
        on_log: Callable[[WorkerProcess, str, str], None],
        learned: Callable[[str], None],
    ) -> None:
        self.number = number
        self.state = State.STARTING
        self.job: Job | None = None
        self.result: TaskResult | None = None
        """What its job came to, while it is ended for what the job left behind."""
        self.why: str | None = None
        """Why it is being ended: `timeout`, `cancelled`, `closed`."""
        self.deadline: float | None = None
        """`time.monotonic()` when something is to be done about it."""
        self.since = 0.0
        self._on_log = on_log
        self._learned = learned
        self._taken = 0
        self._lines = Lines(lambda line: on_line(self, line))
        self._frames = wire.Frames()
        self.received: deque[tuple[bytes, bytes]] = deque()
        self._out = bytearray()
        theirs: list[int] = []
        ours: list[int] = []
        try:
            connection, other = socket.socketpair()
            ours.append(connection.detach())
            theirs.append(other.detach())
            self.output, written = os.pipe()
            ours.append(self.output)
            theirs.append(written)
            notes = anonymous_file()
            theirs.append(notes)
            self._traces = anonymous_file()
            ours.append(self._traces)
            self._notes = Notes(notes)
            theirs.append(os.dup(self._traces))
        except BaseException:
            for fd in ours + theirs:
                os.close(fd)
            raise
        self.connection = socket.socket(fileno=ours[0])
        self.connection.setblocking(False)
        os.set_blocking(self.output, False)
        self._theirs = theirs
        self._closed = False

    @property
    def descriptors(self) -> list[int]:
        """What goes to the fork server; to be closed here by `handed_over`."""
        return self._theirs

    def handed_over(self) -> None:
        """The other side has its descriptors."""
        theirs, self._theirs = self._theirs, []
        for fd in theirs:
            os.close(fd)

    def begin(self, job: Job) -> None:
        """Send it a job."""
        self.state = State.BUSY
        self.job = job
        self.result = None
        self.since = time.monotonic()
        timeout = job.task.timeout
        self.deadline = None if timeout is None else self.since + timeout
        self._out += wire.FRAME.pack(wire.TASK, len(job.message))
        self._out += job.message
        self.write()

    def write(self) -> None:
        """Send what is still to be sent, as far as it goes."""
        try:
            while self._out:
                count = self.connection.send(memoryview(self._out)[: 1 << 18])
                del self._out[:count]
        except BlockingIOError:
            pass
        except OSError:  # it is dead; the fork server will say so
            self._out.clear()

    @property
    def unsent(self) -> bool:
        """Whether some of its job is still to be sent."""
        return bool(self._out)

    def read_output(self) -> bool:
        """Hand on some of what it has written. False at the end of it."""
        try:
            chunk = self._read(READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(chunk)

    def _read(self, limit: int) -> bytes:
        self._notes.begin_read()
        chunk = b""
        try:
            chunk = os.read(self.output, limit)
        finally:
            self._notes.end_read(len(chunk))
        start, self._taken = self._taken, self._taken + len(chunk)
        # A secret is told before anything is written that could hold it, and so is here by now; a line for the log
        # before anything that comes after it.
        self.read_frames()
        fed = 0
        while self.received and self.received[0][0] == wire.LOG:
            line, level, before = wire.unpack_log(self.received[0][1])
            if before - start > len(chunk):
                break
            self._lines.feed(chunk[fed : max(fed, before - start)])
            fed = max(fed, before - start)
            self.received.popleft()
            self._on_log(self, line, level)
        self._lines.feed(chunk[fed:])
        return chunk

    def log(self) -> None:
        """Hand on the line for the log that is next in `received`, behind what was written before it."""
        frame = self.received[0]
        line, level, before = wire.unpack_log(frame[1])
        self._drain(before - self._taken)
        if self.received and self.received[0] is frame:  # else reading has come to it
            self.received.popleft()
            self._on_log(self, line, level)

    def read_frames(self) -> bool:
        """Take in what it says; secrets at once, the rest into `received`. False if it has hung up."""
        while True:
            try:
                data = self.connection.recv(READ_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            for kind, payload in self._frames.feed(data):
                if kind == wire.SECRET:
                    self._learned(payload.decode("utf-8", "surrogatepass"))
                else:
                    self.received.append((kind, payload))
            if len(data) < READ_BYTES:
                return bool(data)

    def _drain(self, left: int) -> None:
        while left > 0:
            try:
                chunk = self._read(min(left, READ_BYTES))
            except OSError:
                return
            if not chunk:
                return
            left -= len(chunk)

    def end_of_task(self) -> None:
        """All that its task wrote is handed on, a line without newline as well.

        That much and no more: what it left running may write for ever.
        """
        self._drain(wire.waiting(self.output))
        self._lines.end()

    def whereabouts(self) -> tuple[Note, Trace | None]:
        """Where it is, or was when it ended."""
        assert self.job is not None
        return self._notes.read(), read_trace(self._traces, self.job.task.project)

    def close(self) -> None:
        """Give back what it held here; the process has ended."""
        if self._closed:
            return
        self._closed = True
        self.handed_over()
        self.connection.close()
        os.close(self.output)
        os.close(self._traces)
        self._notes.close()
