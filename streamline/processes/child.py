"""Child processes: started in a session of their own, and ended with everything that they forked.

Pipes are made here and not by the event loop's subprocess support: so they can be as large as the system allows, which
saves the tap and the target most waiting, and they are read and written with plain non-blocking calls after
`anyio.wait_readable`, which works the same on asyncio, uvloop and trio.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import anyio
import anyio.lowlevel

from streamline.errors import disk_errors
from streamline.processes import wire
from streamline.processes.line_splitter import LineSplitter
from streamline.processes.orphans import reap_adopted

PIPE_BYTES = 1 << 20
"""The requested size of a pipe; Linux allows an unprivileged process 1 MiB."""

READ_BYTES = 1 << 20
TERM_SECONDS = float(os.environ.get("STREAMLINE_TERM_SECONDS") or 10.0)
"""Seconds between SIGTERM and SIGKILL for a child."""

LOG_LINE_BYTES = 64 << 10
"""A longer log line is cut, with a mark; a child may write anything to its stderr."""

LONGEST_SECRET_BYTES = 16 << 10
"""The length of a cut line's end that is never shown: it may be the beginning of a secret."""

_F_SETPIPE_SZ = 1031
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


class TextMasker(Protocol):
    """Masks secrets in text."""

    def mask(self, text: str) -> str: ...


def _pipe() -> tuple[int, int]:
    read_end, write_end = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(write_end, _F_SETPIPE_SZ, PIPE_BYTES)
    return read_end, write_end


def private_file(run_dir: Path, name: str, data: bytes) -> Path:
    """Write `data` to `run_dir/name`, from the start readable by its owner only.

    An existing file is replaced by rename, so a reader sees the old or the new text, never a part of it.

    Raises:
        DiskFull: there is no space for it.
    """
    path = run_dir / name
    with disk_errors(path):
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
    """Have the C library keep freed buffers of a megabyte for reuse (glibc only).

    By default it returns each of them to the system, which clears every page again for the next read. The kept memory
    is bounded by what was in use at once.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)


class ReadPipe:
    """The reading end of a pipe."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._ended = False
        self._waited = True

    async def receive(self, limit: int = READ_BYTES) -> bytes:
        """Return the next bytes, at most `limit`; `b""` at the end."""
        if not self._waited:
            # Otherwise a child that writes faster than we read would block all other tasks.
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

    def receive_nowait(self) -> bytes:
        """Return bytes that are already there; `b""` if there are none, which need not be the end."""
        try:
            return os.read(self._fd, READ_BYTES) if self._fd >= 0 else b""
        except OSError:
            return b""

    @property
    def open(self) -> bool:
        """Whether neither end is known to be closed."""
        return self._fd >= 0 and not self._ended

    def close(self) -> None:
        """Close it; a child that continues to write gets SIGPIPE."""
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
            BrokenPipeError: the reader has exited, or the pipe was closed on our side.
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
        """Return the bytes that the reader left in the pipe when it exited; 0 where the system cannot tell."""
        return wire.unread(self._probe) if self._probe >= 0 else 0

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
            # A reader that exits with 0 without reading everything has lost the rest. The pipe is opened again for
            # reading, which does not hide the end of input from any reader, so that the rest can be counted.
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
        """The last signal that we sent; exit code 0 after it does not mean success."""
        self._process = process
        self._exited = anyio.Event()
        self._pidfd = -1
        with contextlib.suppress(OSError, AttributeError):
            self._pidfd = os.pidfd_open(process.pid)

    @classmethod
    def start(cls, name: str, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: bool = False) -> Child:
        """Start `argv`.

        Args:
            name: its name in logs and errors.
            argv: program and arguments. No secrets: any user can read them.
            env: its complete environment.
            stdin: whether it gets input; without, its input is empty.

        Raises:
            OSError: the program cannot be started.
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
        """Wait for its exit and return its code, negative for a signal."""
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
        """Kill what it forked into its process group; for a child that has exited."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def end(self, *, term_after: float, kill_after: float) -> int:
        """Wait `term_after` seconds for its exit, then send SIGTERM, wait `kill_after` seconds, then SIGKILL."""
        with anyio.move_on_after(term_after):
            return await self.wait()
        self.send_signal(signal.SIGTERM)
        with anyio.move_on_after(kill_after):
            return await self.wait()
        self.send_signal(signal.SIGKILL)
        return await self.wait()

    def dispose(self) -> None:
        """Kill what is left of its process group, and close our ends. Must be called however a run ends."""
        # Also after a normal exit: processes that it forked would outlive the run.
        self.send_signal_to_rest()
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        reap_adopted()
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
    """Pass each line from `pipe` to `log`, masked, until the end."""
    lines = LineSplitter(lambda line: log(log_text(line.decode("utf-8", "replace").rstrip("\r"), masker)))
    while chunk := await pipe.receive(LOG_LINE_BYTES):
        lines.feed(chunk)
    lines.end()


def log_text(text: str, masker: TextMasker, *, limit: int = LOG_LINE_BYTES) -> str:
    """Return `text` for the log: masked, and cut after `limit` characters, with a mark."""
    whole = len(text) <= limit + LONGEST_SECRET_BYTES
    masked = masker.mask(text if whole else text[: limit + LONGEST_SECRET_BYTES])
    if whole and len(masked) <= limit:
        return masked
    return masked[: min(limit, len(masked) - (0 if whole else LONGEST_SECRET_BYTES))] + " [cut]"
