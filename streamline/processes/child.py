"""Child processes: started in a session of their own, watched, and ended with everything that they forked.

Pipes are made here and not by the event loop's subprocess machinery: they can then be as large as the system
allows, which spares the tap and the target most of their waiting, and they are read and written by plain
non-blocking calls after `anyio.wait_readable`, which runs the same on asyncio, uvloop and trio.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import signal
import subprocess
import tempfile
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import anyio
import anyio.lowlevel
import msgspec

PIPE_BYTES = 1 << 20
"""What we ask the system for as the size of a pipe; Linux allows an unprivileged process 1 MiB."""

READ_BYTES = 1 << 20
TERM_SECONDS = float(os.environ.get("STREAMLINE_TERM_SECONDS") or 10.0)
"""How long a child may live on after TERM before it gets KILL."""

LOG_LINE_BYTES = 64 << 10
"""A log line longer than this is cut, with a mark; a child may write what it likes to its stderr."""

LONGEST_SECRET_BYTES = 16 << 10
"""So much of a cut line's end is never shown: it may be the beginning of a secret."""

TAIL_LINE_LENGTH = 2000

_F_SETPIPE_SZ = 1031
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


class TextMasker(Protocol):
    """Replaces secrets in text."""

    def mask(self, text: str) -> str: ...


class ChildResult(msgspec.Struct):
    """What a child that ran to its end left behind. `returncode` is negative for a signal."""

    returncode: int
    stdout: bytes
    stderr_tail: list[str]
    timed_out: bool = False


def _pipe() -> tuple[int, int]:
    read_end, write_end = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(write_end, _F_SETPIPE_SZ, PIPE_BYTES)
    return read_end, write_end


def private_file(run_dir: Path, name: str, data: bytes) -> Path:
    """Write `data` to `run_dir/name`, readable by its owner only from its first byte on.

    An existing file is replaced by rename, so a reader sees the old text or the new one, never half of it.
    """
    path = run_dir / name
    handle, temporary = tempfile.mkstemp(dir=run_dir, prefix=f".{name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def keep_freed_memory() -> None:
    """Let the C library keep freed buffers of a megabyte for the next ones, where it can be told to (glibc).

    By default it gives each of them back to the system, which clears every page again for the next read. What is
    kept is bounded by what was in use at once.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)


class ReadPipe:
    """The reading end of a pipe: chunks as they come."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._ended = False
        self._waited = True

    async def receive(self, limit: int = READ_BYTES) -> bytes:
        """The next bytes, at most `limit`; `b""` at the end."""
        if not self._waited:
            # A child that writes faster than it is read would keep everything else from its turn.
            await anyio.lowlevel.checkpoint()
        self._waited = False
        while self._fd >= 0:
            try:
                chunk = os.read(self._fd, limit)
            except BlockingIOError:
                self._waited = True
                try:
                    await anyio.wait_readable(self._fd)
                except anyio.ClosedResourceError:
                    break
            except OSError:
                break
            else:
                self._ended = not chunk
                return chunk
        self._ended = True
        return b""

    def receive_nowait(self, limit: int = READ_BYTES) -> bytes:
        """Bytes that are there already; `b""` if there are none, which need not be the end."""
        if self._fd < 0:
            return b""
        try:
            return os.read(self._fd, limit)
        except OSError:
            return b""

    @property
    def open(self) -> bool:
        """Whether neither end has been closed as far as was read."""
        return self._fd >= 0 and not self._ended

    def close(self) -> None:
        """Close it; a child that writes on gets SIGPIPE."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                anyio.notify_closing(fd)
            os.close(fd)


class WritePipe:
    """The writing end of a pipe."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._probe = -1

    @property
    def closed(self) -> bool:
        """Whether our end is closed."""
        return self._fd < 0

    async def send(self, buffers: Sequence[bytes | memoryview]) -> None:
        """Write all of `buffers`, in order, without joining them.

        Raises:
            BrokenPipeError: the reader is gone, or the pipe was closed on our side.
        """
        queue = [memoryview(part) for part in buffers if len(part)]
        start = 0
        while start < len(queue):
            if self._fd < 0:
                raise BrokenPipeError("the pipe is closed")
            try:
                written = os.writev(self._fd, queue[start : start + 512])
            except BlockingIOError:
                try:
                    await anyio.wait_writable(self._fd)
                except anyio.ClosedResourceError:
                    raise BrokenPipeError("the pipe was closed") from None
                continue
            while start < len(queue) and written >= len(queue[start]):
                written -= len(queue[start])
                start += 1
            if written:
                queue[start] = queue[start][written:]

    def unread(self) -> int:
        """Bytes that the reader left in the pipe; to be asked once it is gone. 0 where the system can't tell."""
        if self._probe < 0:
            return 0
        count = array.array("i", [0])
        try:
            fcntl.ioctl(self._probe, termios.FIONREAD, count)
        except OSError:
            return 0
        return count[0]

    def dispose(self) -> None:
        """Close everything that is still open."""
        self.close()
        probe, self._probe = self._probe, -1
        if probe >= 0:
            os.close(probe)

    def close(self) -> None:
        """Close it: the reader sees the end of its input."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                anyio.notify_closing(fd)
            # A reader that exits with 0 without reading everything has lost what it left. The pipe is opened once
            # more for reading, by which nobody's end of input is hidden, so that what is left can be counted.
            with contextlib.suppress(OSError):
                self._probe = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.close(fd)


class Child:
    """A running process, the leader of its own session and process group."""

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        stdin: WritePipe | None,
        stdout: ReadPipe,
        stderr: ReadPipe,
    ) -> None:
        self.name = name
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.signalled: signal.Signals | None = None
        """The last signal that we sent; an exit code of 0 after it does not mean that the work was done."""
        self._process = process
        self._exited = anyio.Event()
        self._pidfd = -1
        with contextlib.suppress(OSError, AttributeError):
            self._pidfd = os.pidfd_open(process.pid)

    @classmethod
    def start(cls, name: str, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: bool = False) -> Child:
        """Start `argv`.

        Args:
            name: what logs and errors call it.
            argv: program and arguments. Never hold secrets: any user can read them.
            env: its complete environment.
            cwd: where it runs.
            stdin: whether it is to be written to; without, its input is empty.

        Raises:
            OSError: the program can't be started.
        """
        out_read, out_write = _pipe()
        err_read, err_write = os.pipe()
        in_read, in_write = _pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), -1)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=in_read,
                stdout=out_write,
                stderr=err_write,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        except BaseException:
            for fd in (out_read, err_read, in_write):
                if fd >= 0:
                    os.close(fd)
            raise
        finally:
            for fd in (in_read, out_write, err_write):
                os.close(fd)
        return cls(name, process, WritePipe(in_write) if stdin else None, ReadPipe(out_read), ReadPipe(err_read))

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    async def wait(self) -> int:
        """Wait for its exit and give its code, negative for a signal."""
        if self._pidfd >= 0:
            while self._pidfd >= 0 and self._process.poll() is None:
                with contextlib.suppress(anyio.ClosedResourceError, anyio.BusyResourceError):
                    await anyio.wait_readable(self._pidfd)
                    continue
                await anyio.sleep(0.01)
            self._close_pidfd()
        delay = 0.001
        while self._process.poll() is None:
            await anyio.sleep(delay)
            delay = min(0.05, delay * 2)
        code = self._process.returncode
        assert code is not None
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Signal its whole process group."""
        self.signalled = number
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def send_signal_to_rest(self) -> None:
        """Kill what it forked into its process group; for a child that itself is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def end(self, *, term_after: float, kill_after: float) -> int:
        """Wait `term_after` seconds for its exit, then TERM, wait `kill_after` seconds, then KILL."""
        with anyio.move_on_after(term_after):
            return await self.wait()
        self.send_signal(signal.SIGTERM)
        with anyio.move_on_after(kill_after):
            return await self.wait()
        self.send_signal(signal.SIGKILL)
        return await self.wait()

    def dispose(self) -> None:
        """End whatever of its group is still there, and close our ends. To be called however a run ends."""
        # Also after a normal exit: what it forked stays in its group and would outlive the run.
        self.send_signal_to_rest()
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        self._close_pidfd()
        self.stdout.close()
        self.stderr.close()
        if self.stdin is not None:
            self.stdin.dispose()

    def _close_pidfd(self) -> None:
        fd, self._pidfd = self._pidfd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                anyio.notify_closing(fd)
            os.close(fd)


async def log_lines(pipe: ReadPipe, log: Callable[[str], None], masker: TextMasker) -> None:
    """Give each line that comes through `pipe` to `log`, masked, until its end."""
    rest, cut = b"", False
    while chunk := await pipe.receive(LOG_LINE_BYTES):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        if cut and lines:
            del lines[0]  # the end of a line whose beginning was logged
            cut = False
        for line in lines:
            log(_log_text(line, masker))
        if cut:
            rest = b""
        elif len(rest) > LOG_LINE_BYTES + LONGEST_SECRET_BYTES:
            log(_log_text(rest, masker, whole=False))
            rest, cut = b"", True
    if rest:
        log(_log_text(rest, masker))


def log_text(text: str, masker: TextMasker, *, limit: int = LOG_LINE_BYTES, whole: bool = True) -> str:
    """`text` as it may be logged: masked, and cut after `limit` characters, with a mark.

    Args:
        whole: False if more of the line comes after `text`.
    """
    if len(text) > limit + LONGEST_SECRET_BYTES:
        text, whole = text[: limit + LONGEST_SECRET_BYTES], False
    masked = masker.mask(text)
    if whole and len(masked) <= limit:
        return masked
    return masked[: min(limit, len(masked) - (0 if whole else LONGEST_SECRET_BYTES))] + " [cut]"


def _log_text(line: bytes, masker: TextMasker, *, whole: bool = True) -> str:
    return log_text(line.decode("utf-8", "replace").rstrip("\r"), masker, whole=whole)


class Tail:
    """Keeps the last lines that a child logged, for its error."""

    def __init__(self, lines: int = 12) -> None:
        self._lines = lines
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Remember `line`, its beginning if it is long."""
        self.lines.append(line if len(line) <= TAIL_LINE_LENGTH else line[:TAIL_LINE_LENGTH] + " …")
        if len(self.lines) > self._lines:
            del self.lines[0]


async def run_to_end(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    timeout: float,
    masker: TextMasker,
    log: Callable[[str], None] | None = None,
    stdin: bytes = b"",
) -> ChildResult:
    """Run a program to its end and collect what it printed.

    Args:
        argv: program and arguments, no secrets.
        env: its complete environment.
        cwd: where it runs.
        timeout: seconds after which it and all that it forked is killed.
        masker: masks secrets in what it logs.
        log: called with each masked line of its stderr.
        stdin: what it is given to read.

    Raises:
        OSError: the program can't be started.
    """
    child = Child.start(Path(argv[0]).name, argv, env=env, cwd=cwd, stdin=bool(stdin))
    tail = Tail()
    out: list[bytes] = []

    def keep(line: str) -> None:
        tail.add(line)
        if log is not None:
            log(line)

    async def feed() -> None:
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                await child.stdin.send([stdin])
            child.stdin.close()

    async def collect() -> None:
        while chunk := await child.stdout.receive():
            out.append(chunk)

    timed_out = False
    try:
        with anyio.move_on_after(timeout) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feed)
                tasks.start_soon(collect)
                tasks.start_soon(log_lines, child.stderr, keep, masker)
                code = await child.wait()
                # A daemon that it forked may hold the pipes open for ever; its own output is there by now.
                tasks.cancel_scope.deadline = anyio.current_time() + 1.0
        if scope.cancelled_caught:
            timed_out = True
            code = -signal.SIGKILL
    finally:
        child.dispose()
    return ChildResult(code, b"".join(out), tail.lines, timed_out)
