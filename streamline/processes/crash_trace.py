"""The stack of a worker, written by `faulthandler` when it crashes, and on a signal before it is killed.

The signal works even where C code never releases the interpreter. What ends without either (`os._exit`, SIGKILL from
outside) leaves its exit status alone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
from pathlib import Path

import msgspec

DUMP_SIGNAL = int(getattr(signal, "SIGRTMAX", signal.SIGUSR2)) - (2 if hasattr(signal, "SIGRTMAX") else 0)
"""Asks a worker for its stack. One of the realtime signals, which programs hardly ever use."""

_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")
_INSTALLED = (f"{os.sep}.streamline{os.sep}", f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

_ENGINE = f"{Path(__file__).parents[1]}{os.sep}"
"""Where the engine's own files are: their frames tell a user nothing."""


class Trace(msgspec.Struct, frozen=True):
    """A stack that faulthandler wrote: the user's innermost line, and all from the user's outermost frame on."""

    where: str
    text: str


def is_user_code(path: str, root: str) -> bool:
    """Return whether a file is the user's own code under `root`, and not a package that was installed there."""
    return path.startswith(root.rstrip(os.sep) + os.sep) and not any(part in path for part in _INSTALLED)


def enable(traces: int) -> None:
    """Write the main thread's stack to the file `traces` on a crash and on `DUMP_SIGNAL`."""
    with contextlib.suppress(Exception):
        faulthandler.enable(traces, all_threads=False)
        faulthandler.register(DUMP_SIGNAL, traces, all_threads=False, chain=False)


def read_trace(fd: int, root: str) -> Trace | None:
    """Return the last stack in the file `fd`; None where there is none with a frame of the user's code under `root`."""
    data = os.pread(fd, 1 << 18, 0).decode("ascii", "replace")
    last = max(data.rfind("(most recent call first):"), 0)
    frames = [(_unescape(path), int(line), name) for path, line, name in _FRAME.findall(data, last)]
    own = [number for number, frame in enumerate(frames) if is_user_code(frame[0], root)]
    if not own:
        return None
    import linecache

    lines = ["Stack (most recent call last):"]
    for path, number, name in reversed(frames[: own[-1] + 1]):
        if path.startswith(_ENGINE) and not is_user_code(path, root):
            continue
        lines.append(f'  File "{path}", line {number}, in {name}')
        if source := linecache.getline(path, number).strip():
            lines.append(f"    {source}")
    return Trace(f"{frames[own[0]][0]}:{frames[own[0]][1]}", "\n".join(lines))


def _unescape(path: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1] or match[2] or match[3], 16)), path)
