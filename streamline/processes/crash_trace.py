"""Which line of the user's code a worker is at, kept where it survives the worker.

Three sources, the later ones better: a thread notes the main thread's line every 50 ms; `os._exit` and signals that a
process sends to itself are noted as they are called; `faulthandler` writes the stack when the process crashes, and
when the runner asks for it by a signal, which works even where C code never lets go of the interpreter.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import re
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

INTERVAL = 0.05
_TICKS_UNTIL_ASLEEP = 40
_SIZE = 8192
_SLOT = 4000
_HEAD = struct.Struct("<H")
_READS = struct.Struct("<QQ")
_READS_AT = 16
_SLOTS_AT = 32
_LOOKS = 1000

DUMP_SIGNAL = int(getattr(signal, "SIGRTMAX", signal.SIGUSR2)) - (2 if hasattr(signal, "SIGRTMAX") else 0)
"""Asks a worker for its stack. One of the realtime signals, which programs hardly ever use."""

_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")
_NOT_THE_USERS = (f"{os.sep}.streamline{os.sep}", f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def is_users(path: str, project: str) -> bool:
    """Whether a file of code is the project's own, and nothing that was installed into its folder."""
    if not path.startswith(project.rstrip(os.sep) + os.sep):
        return False
    return not any(part in path for part in _NOT_THE_USERS)


def users_line(frame: FrameType | None, project: str) -> str | None:
    """`file:line` of the innermost frame in the project's code, from `frame` outwards."""
    while frame is not None:
        path = frame.f_code.co_filename
        if is_users(path, project):
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def anonymous_file() -> int:
    """A descriptor of an empty file that has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("streamline", os.MFD_CLOEXEC)
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Note(msgspec.Struct, frozen=True):
    """What a worker noted last.

    Args:
        how: `""`: it was seen there; `_exit`: it called `os._exit`; `signal`: it sent itself a signal; `cut off`: it
            could not reach the runner any more; `broken`: it failed itself, and has printed why.
        where: `file:line` in the user's code; None where no such line was found.
    """

    how: str = ""
    where: str | None = None


class Notes:
    """A page of memory that worker and runner share. One side writes, the other reads, also after a death.

    The worker writes its note. The runner writes how much of the worker's output it has read, from which the worker
    knows how much there has been in all: a line for the log belongs behind so much of it.

    Args:
        fd: of a file that is or will be 8 KiB long; stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        if os.fstat(fd).st_size < _SIZE:
            os.ftruncate(fd, _SIZE)
        self._memory = mmap.mmap(fd, _SIZE)
        self._slot = 0
        self._reads = 0
        self._total = 0

    def begin_read(self) -> None:
        """The runner is about to read; what is being read is neither in the pipe nor counted."""
        self._reads += 1
        _READS.pack_into(self._memory, _READS_AT, self._reads, self._total)

    def end_read(self, count: int) -> None:
        """It has read `count` bytes."""
        self._reads += 1
        self._total += count
        _READS.pack_into(self._memory, _READS_AT, self._reads, self._total)

    def written(self, waiting: Callable[[], int]) -> int:
        """How many bytes have been written in all. `waiting` tells how many are in the pipe."""
        found = 0
        for _ in range(_LOOKS):  # a runner that was stopped in the middle is not waited for
            reads, total = _READS.unpack_from(self._memory, _READS_AT)
            found = total + waiting()
            if reads % 2 == 0 and _READS.unpack_from(self._memory, _READS_AT) == (reads, total):
                break
        return found

    def write(self, how: str, where: str | None) -> None:
        """Replace the note. A reader never sees half of it: there are two places, and one byte that says which."""
        text = f"{how}\n{where or ''}".encode("utf-8", "replace")[:_SLOT]
        slot = 1 - self._slot
        start = _SLOTS_AT + slot * (_SLOT + _HEAD.size)
        self._memory[start : start + _HEAD.size + len(text)] = _HEAD.pack(len(text)) + text
        self._memory[0] = slot
        self._slot = slot

    def read(self) -> Note:
        """The last note."""
        start = _SLOTS_AT + (self._memory[0] & 1) * (_SLOT + _HEAD.size)
        (length,) = _HEAD.unpack(self._memory[start : start + _HEAD.size])
        start += _HEAD.size
        how, _, where = self._memory[start : start + min(length, _SLOT)].decode("utf-8", "replace").partition("\n")
        return Note(how, where or None)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


_OURS = f"{Path(__file__).parents[1]}{os.sep}"
"""Where the engine's own files are: their frames say nothing to a user."""


class Trace(msgspec.Struct, frozen=True):
    """A stack that faulthandler wrote: the user's innermost line, and all from the user's outermost frame on."""

    where: str
    text: str


def read_trace(fd: int, project: str) -> Trace | None:
    """The last stack in the file `fd`; None where there is none that touches the user's code."""
    data = os.pread(fd, 1 << 18, 0).decode("ascii", "replace")
    last = max(data.rfind("(most recent call first):"), 0)
    frames = [(_unescape(path), int(line), name) for path, line, name in _FRAME.findall(data, last)]
    own = [number for number, frame in enumerate(frames) if is_users(frame[0], project)]
    if not own:
        return None
    import linecache

    lines = ["Stack (most recent call last):"]
    for path, number, name in reversed(frames[: own[-1] + 1]):
        if path.startswith(_OURS) and not is_users(path, project):
            continue
        lines.append(f'  File "{path}", line {number}, in {name}')
        if source := linecache.getline(path, number).strip():
            lines.append(f"    {source}")
    return Trace(f"{frames[own[0]][0]}:{frames[own[0]][1]}", "\n".join(lines))


def _unescape(path: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1] or match[2] or match[3], 16)), path)


class Watch:
    """The worker's side: notes where the main thread is while a task runs. Made in the main thread of a worker.

    Args:
        notes: where to.
        traces: descriptor of the file for faulthandler.
    """

    def __init__(self, notes: Notes, traces: int) -> None:
        self._notes = notes
        self._traces = traces
        self._pid = os.getpid()
        self._main = threading.main_thread().ident
        self._project: str | None = None
        self._final = False
        self._asleep = False
        self._wake = threading.Event()
        setattr(os, "_exit", self._noting(os._exit, "_exit", lambda *_: True))  # noqa: B010
        os.kill = self._noting(os.kill, "signal", lambda pid, *_: pid in (self._pid, 0, -self._pid))
        os.killpg = self._noting(os.killpg, "signal", lambda group, *_: group in (self._pid, 0))
        signal.raise_signal = self._noting(signal.raise_signal, "signal", lambda *_: True)
        os.register_at_fork(after_in_child=faulthandler.disable)
        # Not threading.Thread: the user's code is not to meet it in threading.enumerate().
        import _thread

        begun = _thread.allocate_lock()
        begun.acquire()
        _thread.start_new_thread(self._look, (begun.release,))
        begun.acquire()  # it is there, and is not taken for one that a task has left behind

    def begin(self, project: str) -> None:
        """A task of this project begins."""
        # Every time: the task before may have switched it off.
        with contextlib.suppress(Exception):
            faulthandler.enable(self._traces, all_threads=False)
            faulthandler.register(DUMP_SIGNAL, self._traces, all_threads=False, chain=False)
        self._notes.write("", None)
        self._project = project
        if self._asleep:
            self._wake.set()

    def end(self) -> None:
        """It is over."""
        self._project = None

    def _look(self, begun: Callable[[], None]) -> None:
        begun()
        idle = 0
        while True:
            if idle > _TICKS_UNTIL_ASLEEP:
                self._asleep = True
                self._wake.wait(None if self._project is None else 0)
                self._wake.clear()
                self._asleep = False
                idle = 0
            time.sleep(INTERVAL)
            project = self._project
            idle = idle + 1 if project is None else 0
            if project is None or self._final:
                continue
            frame = sys._current_frames().get(self._main or 0)
            where = users_line(frame, project)
            del frame
            if where is not None and not self._final and self._project is project:
                self._notes.write("", where)

    def _noting(self, function: Callable[..., Any], how: str, fatal: Callable[..., bool]) -> Any:
        def noting(*args: Any, **kwargs: Any) -> Any:
            # Children that user code forks come by here, too; their end is nobody else's.
            if self._project is None or os.getpid() != self._pid or not fatal(*args, *kwargs.values()):
                return function(*args, **kwargs)
            self._final = True
            self._notes.write(how, users_line(sys._getframe(1), self._project))
            try:
                return function(*args, **kwargs)
            finally:  # it was not the end
                self._final = False
                self._notes.write("", users_line(sys._getframe(1), self._project))

        noting.__name__ = function.__name__
        noting.__doc__ = function.__doc__
        return noting
