"""The protocol between the runner, the fork server and the workers.

Runner and fork server exchange fixed-size records over a stream socket; file descriptors for a new worker travel
with the request (SCM_RIGHTS). Runner and worker exchange frames: a kind, a length, and that many bytes.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import struct
import sys
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

RECORD = struct.Struct("<BIi")
"""A request or an event, the number of a worker, and a value."""

FORK, SIGNAL, END, LEAVE = range(1, 5)
"""Requests to the fork server: fork a worker (with its descriptors); send one a signal (value); kill one with all its
children; exit, after the idle workers have."""

READY, EXITED, NOT_FORKED = range(11, 14)
"""Events from it: everything is preloaded; a worker exited with all its children (value: its wait status); a fork
failed (value: errno)."""

FRAME = struct.Struct("<cQ")
"""Kind and length of a frame's payload."""

HELLO, SECRET, LOG, RESULT = b"H", b"S", b"L", b"R"
"""Sent by a worker: it is ready; a secret (UTF-8); a line for the log (`pack_log`); a result (pickled Outcome, and
what the job left behind that needs a fresh worker, or None)."""

JOB, PAYLOAD = b"J", b"P"
"""Sent to a worker, one after the other: a job without its payload (`pack_job`); the pickled payload."""

FORK_DESCRIPTORS = 4
"""Sent with FORK: the worker's socket, its output, the shared page, the file for crash traces."""


def pack_job(function: str, source_root: str, keep_state: bool) -> bytes:
    """Return a job without its payload."""
    return f"{int(keep_state)}\0{function}\0{source_root}".encode("utf-8", "surrogateescape")


def unpack_job(payload: bytes) -> tuple[str, str, bool]:
    """Return what was packed: function, source root, whether the worker keeps its state."""
    keep, function, root = payload.decode("utf-8", "surrogateescape").split("\0", 2)
    return function, root, keep == "1"


_LOG = struct.Struct("<QH")


def pack_log(line: str, level: str, before: int) -> bytes:
    """Return a line for the log. Not pickled: text may be an instance of a user's own class.

    Args:
        before: how many bytes of output came before it.
    """
    name = str.encode(level, "utf-8", "replace")[:1000]
    return _LOG.pack(before, len(name)) + name + str.encode(line, "utf-8", "replace")


def unpack_log(payload: bytes) -> tuple[str, str, int]:
    """Return what was packed: line, level, bytes before it."""
    before, length = _LOG.unpack_from(payload)
    name, line = payload[_LOG.size : _LOG.size + length], payload[_LOG.size + length :]
    return line.decode("utf-8", "replace"), name.decode("utf-8", "replace"), before


def unread(pipe: int) -> int:
    """Return how many bytes are in a pipe, given either end."""
    count = array.array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def send_frame(connection: socket.socket, kind: bytes, payload: bytes) -> None:
    """Write one frame to a blocking socket."""
    if len(payload) < 1 << 16:
        connection.sendall(FRAME.pack(kind, len(payload)) + payload)
    else:
        connection.sendall(FRAME.pack(kind, len(payload)))
        connection.sendall(payload)


def receive_frame(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """Return the next frame from a blocking socket; None if the other side has closed it."""
    head = _receive(connection, FRAME.size)
    if head is None:
        return None
    kind, length = FRAME.unpack(head)
    payload = _receive(connection, length)
    return None if payload is None else (kind, bytes(payload))


def _receive(connection: socket.socket, length: int) -> bytearray | None:
    data = bytearray(length)
    view = memoryview(data)
    filled = 0
    while filled < length:
        count = connection.recv_into(view[filled:])
        if not count:
            return None
        filled += count
    return data


class Frames:
    """Splits a stream of bytes into frames."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._kind = b""
        self._payload: bytearray | None = None
        self._missing = 0

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Add `data`; return the frames that are complete now."""
        frames = []
        view = memoryview(data)
        while len(view) or (self._payload is not None and not self._missing):
            if self._payload is None:
                needed = FRAME.size - len(self._head)
                self._head += view[:needed]
                view = view[needed:]
                if len(self._head) < FRAME.size:
                    break
                self._kind, self._missing = FRAME.unpack(self._head)
                self._head.clear()
                self._payload = bytearray()
            taken = view[: self._missing]
            self._payload += taken
            self._missing -= len(taken)
            view = view[len(taken) :]
            if self._missing:
                break
            frames.append((self._kind, bytes(self._payload)))
            self._payload = None
        return frames


_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(signal_number: int) -> None:
    """Have the system send us `signal_number` when the thread that started this process ends (Linux)."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parents end, however they detached themselves (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def hide_memory() -> None:
    """Keep other processes of this user from reading our environment, memory and open files (Linux).

    Programs that this process executes are not hidden.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        # The core of ctypes: importing all of it takes five times as long, and every command calls this.
        import _ctypes

        address = _ctypes.dlsym(_ctypes.dlopen(None), "prctl")  # type: ignore[arg-type]  # None: this process
        _ctypes.call_cdeclfunction(address, (option, value, 0, 0, 0))
