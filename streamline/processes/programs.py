"""Programs that a job runs (Rscript, dbt): started in a session of their own, ended with the job.

Their output goes line by line to the job's own output, and so to the run's log.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from streamline.processes.exit_reason import signal_name
from streamline.processes.line_splitter import LineSplitter
from streamline.processes.orphans import RUN_ID_VARIABLE

_CHUNK = 1 << 16
_TAIL_LINES = 25
_TAIL_LINE = 2000
# Only Linux can kill a process when its parent ends: prctl(PR_SET_PDEATHSIG, SIGKILL), which survives exec. The process
# calls it itself, since running Python between fork and exec is not safe where there are threads.
_TIED = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or os._exit(1);os.execv(sys.argv[2],sys.argv[2:])"
)


class ProgramExit(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended.

    Args:
        code: its exit code, negative for the signal that killed it.
        tail: the last lines of its output.
    """

    code: int
    tail: list[str]

    def describe(self, name: str) -> str:
        """Return a message, such as `Rscript was killed by SIGKILL (perhaps the system ran out of memory)`."""
        if self.code >= 0:
            return f"{name} exited with code {self.code}"
        guesses: dict[int, str] = {
            signal.SIGKILL: " (perhaps the system ran out of memory)",
            signal.SIGSEGV: " (segmentation fault)",
        }
        guess = guesses.get(-self.code, "")
        return f"{name} was killed by {signal_name(-self.code)}{guess}"


def run_program(
    argv: Sequence[str], *, cwd: Path, run_id: str, env: Mapping[str, str], keep_stdout: bool
) -> ProgramExit:
    """Run a program to its end.

    Args:
        argv: its absolute path and its arguments. No secrets: any user can read them.
        run_id: set in its environment, so that a later run finds it if this one is killed.
        env: its environment.
        keep_stdout: whether the tail includes its standard output.

    Raises:
        OSError: it cannot be started.
    """
    tied = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid())] if sys.platform == "linux" else []
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    process = subprocess.Popen(
        [*tied, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if keep_stdout else subprocess.PIPE,
        env={**env, RUN_ID_VARIABLE: run_id},
        cwd=cwd,
        start_new_session=True,
    )
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    try:
        _pass_on(process, tail)
        return ProgramExit(code=process.wait(), tail=list(tail))
    finally:
        # Also after a normal exit: nothing in its process group may outlive the job.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _pass_on(process: subprocess.Popen[bytes], tail: deque[str]) -> None:
    """Copy the program's output to our own streams, until it has exited and no more output is there."""
    lines = LineSplitter(lambda line: tail.append(line[:_TAIL_LINE].decode("utf-8", "replace").rstrip("\r")))
    with selectors.DefaultSelector() as selector:
        # The tail is that of the last stream: stderr if there are two.
        pipes = [(process.stdout, sys.stdout), (process.stderr, sys.stderr)]
        streams = [(pipe, out) for pipe, out in pipes if pipe is not None]
        for pipe, out in streams:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, (out, pipe is streams[-1][0]))
        while selector.get_map():
            # A daemon that it forked may keep the pipes open; its own output is there when it has exited.
            ended = process.poll() is not None
            ready = selector.select(0 if ended else 0.2)
            if ended and not ready:
                break
            for key, _ in ready:
                out, kept = key.data
                try:
                    chunk = os.read(key.fd, _CHUNK)
                except BlockingIOError:
                    continue
                if not chunk:
                    selector.unregister(key.fileobj)
                    continue
                _write(out, chunk)
                if kept:
                    lines.feed(chunk)
    lines.end()


def _write(out: object, chunk: bytes) -> None:
    """Write bytes to one of our streams, which in a test or a notebook may take only text."""
    binary = getattr(out, "buffer", None)
    with contextlib.suppress(OSError, ValueError):
        if binary is not None:
            binary.write(chunk)
        elif hasattr(out, "write"):
            out.write(chunk.decode("utf-8", "replace"))
        if hasattr(out, "flush"):
            out.flush()
