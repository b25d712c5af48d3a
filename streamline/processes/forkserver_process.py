"""The runner's end of the fork server: its process, the requests to it, its events and its output."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from streamline.processes import wire
from streamline.processes.forkserver import BOOT, ForkServerSettings
from streamline.processes.line_splitter import LineSplitter
from streamline.processes.worker_process import READ_BYTES, WorkerProcess

_TAIL_LINES = 12


class ForkServerProcess:
    """The fork server's process, used by the pool's thread; the constructor starts it.

    Args:
        python: another interpreter than this one.
        preload: modules to import.
        env: its whole environment, and that of everything it forks.
        on_line: called with each line that it writes itself.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        *,
        python: str | None,
        preload: list[str],
        env: dict[str, str],
        on_line: Callable[[bytes], None],
    ) -> None:
        self.control, theirs = socket.socketpair()
        self.control.setblocking(False)
        self.output, written = os.pipe()
        os.set_blocking(self.output, False)
        self.ready = False
        self.ended = False
        self._in = bytearray()
        self._out: deque[tuple[bytes, WorkerProcess | None]] = deque()
        self._tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        self._on_line = on_line
        self._lines = LineSplitter(self._line)
        settings: ForkServerSettings = {
            "control": theirs.fileno(),
            "parent": os.getpid(),
            "path": [os.path.abspath(path) for path in sys.path] if python is None else None,  # noqa: PTH100
            "home": str(Path(__file__).parents[2]),
            "preload": preload,
        }
        try:
            self._process = subprocess.Popen(
                # -P: the working folder is no place for imports.
                [python or sys.executable or "python3", "-P", "-c", BOOT, json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                env=env,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except BaseException:
            self.control.close()
            os.close(self.output)
            raise
        finally:
            theirs.close()
            os.close(written)

    def ask(self, request: int, number: int, value: int, worker: WorkerProcess | None = None) -> None:
        """Send a request, now or when there is room, with the descriptors of `worker`."""
        self._out.append((wire.RECORD.pack(request, number, value), worker))
        self.write()

    def write(self) -> None:
        """Send as many queued requests as the socket takes."""
        try:
            while self._out:
                record, worker = self._out[0]
                if worker is None:
                    self.control.send(record)
                else:
                    fds = array.array("i", worker.descriptors)
                    self.control.sendmsg([record], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                    worker.handed_over()
                self._out.popleft()
        except BlockingIOError:
            pass
        except OSError:  # reading will find its end
            self._out.clear()

    @property
    def unsent(self) -> bool:
        """Whether requests are queued."""
        return bool(self._out)

    def read(self) -> list[tuple[int, int, int]]:
        """Return the server's events: kind, the worker's number, a value; see `wire`."""
        with contextlib.suppress(BlockingIOError):
            try:
                data = self.control.recv(READ_BYTES)
            except ConnectionResetError:
                data = b""
            self.ended = not data
            self._in += data
        whole = len(self._in) - len(self._in) % wire.RECORD.size
        events: list[tuple[int, int, int]] = list(wire.RECORD.iter_unpack(bytes(self._in[:whole])))
        del self._in[:whole]
        if any(event == wire.READY for event, _, _ in events):
            self.ready = True
        return events

    def read_output(self) -> bool:
        """Pass on its output; False at the end."""
        try:
            chunk = os.read(self.output, READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._lines.feed(chunk)
        return bool(chunk)

    def _line(self, line: bytes) -> None:
        self._tail.append(line)
        self._on_line(line)

    def last_lines(self) -> str:
        """Return the last lines of output, to append to a message."""
        text = b"\n".join(self._tail).decode("utf-8", "replace").strip()
        return f":\n{text}" if text else ""

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def close(self) -> int:
        """Wait for its exit, kill it if that takes long, and return its exit code."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        for _ in range(64):
            before = len(self._tail)
            if not self.read_output():
                break
            if len(self._tail) == before:
                break
        self._lines.end()
        self.control.close()
        os.close(self.output)
        return code
