"""The runner's end of one worker process: its connection, its output, its crash trace, and its current job."""

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
from streamline.processes.crash_trace import Trace, read_trace
from streamline.processes.job import Job, Outcome
from streamline.processes.line_splitter import LineSplitter
from streamline.processes.shared_page import Ending, SharedPage

READ_BYTES = 1 << 16


class State(Enum):
    """A worker's lifecycle."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    ENDING = "ending"


class Submission(msgspec.Struct, eq=False):
    """A job in the pool: its payload, pickled, and the future of its outcome."""

    job: Job
    payload: bytes
    future: Future[Outcome]


class WorkerProcess:
    """One worker, as the pool's thread sees it; used by that thread alone.

    Args:
        number: identifies it to the fork server.
        on_line: called with each line that it writes.
        on_log: called with each line for the log, and its level.
        on_secret: called with each secret as soon as it is known, before any line written after it.
    """

    def __init__(
        self,
        number: int,
        *,
        on_line: Callable[[WorkerProcess, bytes], None],
        on_log: Callable[[WorkerProcess, str, str], None],
        on_secret: Callable[[str], None],
    ) -> None:
        self.number = number
        self.state = State.STARTING
        self.submission: Submission | None = None
        self.outcome: Outcome | None = None
        """The outcome of its job, while the worker is ended because of what the job left behind."""
        self.why: str | None = None
        """Why it is being ended: `timeout`, `cancelled`, `closed`."""
        self.deadline: float | None = None
        """`time.monotonic()` when its stack is requested, then when it is killed."""
        self.dump_requested = False
        self.keeps_state = False
        """Whether a job left state in it for the jobs after it."""
        self.since = 0.0
        self._on_log = on_log
        self._on_secret = on_secret
        self._taken = 0
        self._lines = LineSplitter(lambda line: on_line(self, line))
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
            page = _anonymous_file()
            theirs.append(page)
            self._traces = _anonymous_file()
            ours.append(self._traces)
            self._page = SharedPage(page)
            theirs.append(os.dup(self._traces))
        except BaseException:
            for fd in ours + theirs:
                os.close(fd)
            raise
        self.connection = socket.socket(fileno=ours[0])
        self.connection.setblocking(False)
        os.set_blocking(self.output, False)
        self._theirs = theirs

    @property
    def job(self) -> Job | None:
        """Its current job."""
        return self.submission.job if self.submission is not None else None

    @property
    def descriptors(self) -> list[int]:
        """The descriptors for the fork server; `handed_over` closes them here."""
        return self._theirs

    def handed_over(self) -> None:
        """Close the descriptors that the fork server has received."""
        theirs, self._theirs = self._theirs, []
        for fd in theirs:
            os.close(fd)

    def begin(self, submission: Submission) -> None:
        """Send it a job."""
        self.state = State.BUSY
        self.submission = submission
        self.outcome = None
        self.since = time.monotonic()
        job, payload = submission.job, submission.payload
        self.keeps_state = self.keeps_state or job.keep_state
        self.deadline = None if job.timeout is None else self.since + job.timeout
        submission.payload = b""
        header = wire.pack_job(job.function, job.source_root, job.keep_state)
        self._out += wire.FRAME.pack(wire.JOB, len(header)) + header
        self._out += wire.FRAME.pack(wire.PAYLOAD, len(payload))
        self._out += payload
        self.write()

    def write(self) -> None:
        """Send as much of the unsent rest as the socket takes."""
        try:
            while self._out:
                count = self.connection.send(memoryview(self._out)[: 1 << 18])
                del self._out[:count]
        except BlockingIOError:
            pass
        except OSError:  # it is dead; the fork server will report its exit
            self._out.clear()

    @property
    def unsent(self) -> bool:
        """Whether a part of its job is not sent yet."""
        return bool(self._out)

    def read_output(self) -> bool:
        """Pass on some of its output. False at the end of it."""
        try:
            chunk = self._read(READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(chunk)

    def _read(self, limit: int) -> bytes:
        self._page.begin_read()
        chunk = b""
        try:
            chunk = os.read(self.output, limit)
        finally:
            self._page.end_read(len(chunk))
        start, self._taken = self._taken, self._taken + len(chunk)
        # A worker sends a secret before it writes anything that could contain it, and a line for the log before any
        # later output: both are here by now.
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
        """Pass on the line for the log that is next in `received`, after the output before it."""
        frame = self.received[0]
        line, level, before = wire.unpack_log(frame[1])
        self._drain(before - self._taken)
        if self.received and self.received[0] is frame:  # otherwise reading has passed it on
            self.received.popleft()
            self._on_log(self, line, level)

    def read_frames(self) -> bool:
        """Read its frames: secrets are passed on at once, the rest goes to `received`. False at the end."""
        while True:
            try:
                data = self.connection.recv(READ_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            for kind, payload in self._frames.feed(data):
                if kind == wire.SECRET:
                    self._on_secret(payload.decode("utf-8", "surrogatepass"))
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

    def end_of_job(self) -> None:
        """Pass on everything that its job wrote, including a last line without newline.

        Not more than that: a process that the job left running may write without end.
        """
        self._drain(wire.unread(self.output))
        self._lines.end()

    @property
    def ending(self) -> Ending:
        """What it noted about its end."""
        return self._page.ending

    def trace(self, root: str) -> Trace | None:
        """Return the stack that the process wrote, if it crashed or got `DUMP_SIGNAL`; see `read_trace`."""
        return read_trace(self._traces, root)

    def close(self) -> None:
        """Release what it held here; the process has ended."""
        self.handed_over()
        self.connection.close()
        os.close(self.output)
        os.close(self._traces)
        self._page.close()


def _anonymous_file() -> int:
    """Return a descriptor of an empty file that has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("streamline", os.MFD_CLOEXEC)
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
