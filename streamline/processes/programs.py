"""Programs that a block hands its work to (Rscript, dbt): started in a session of their own, ended with the block.

What they print goes where the block's own output goes, line by line as they write it, and so to the run's log.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from streamline.processes.orphans import RUN_ID_VARIABLE

_CHUNK = 1 << 16
_TAIL_LINES = 25
_TAIL_LINE = 2000
# Only Linux can tie a process's life to its parent's: prctl(PR_SET_PDEATHSIG, SIGKILL), which outlives the exec. The
# process does it itself, since running Python between fork and exec is not safe where there are threads.
_TIED = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or os._exit(1);os.execv(sys.argv[2],sys.argv[2:])"
)


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended.

    Args:
        code: its exit code, negative for the signal that killed it.
        tail: the last lines that it wrote to the streams that were read.
    """

    code: int
    tail: list[str]

    def words(self, name: str) -> str:
        """The end in words, such as `Rscript was killed by SIGKILL (perhaps the system ran out of memory)`."""
        if self.code >= 0:
            return f"{name} ended with code {self.code}"
        try:
            number = signal.Signals(-self.code)
        except ValueError:
            return f"{name} was killed by signal {-self.code}"
        guess = {
            signal.SIGKILL: " (perhaps the system ran out of memory)",
            signal.SIGSEGV: " (it touched memory that is not its own)",
        }.get(number, "")
        return f"{name} was killed by {number.name}{guess}"


def run_program(argv: Sequence[str], *, cwd: Path, run_id: str, env: Mapping[str, str], keep_stdout: bool) -> Ended:
    """Run a program to its end.

    Args:
        argv: its absolute path, and its arguments. Never secrets: any user can read them.
        cwd: where it runs.
        run_id: goes into its environment, so that a later run finds it should it be left behind.
        env: its environment.
        keep_stdout: whether the tail holds what it writes to standard output as well.

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
    tail: list[str] = []
    try:
        _pass_on(process, tail)
        return Ended(code=process.wait(), tail=tail)
    finally:
        # Also after a normal end: what it left in its group must not outlive the block.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _pass_on(process: subprocess.Popen[bytes], tail: list[str]) -> None:
    """Write what comes from the program to our own streams, until it has ended and nothing more is there."""
    with selectors.DefaultSelector() as selector:
        # The last stream that is given is the one whose end is remembered: stderr where there are two.
        pipes = [(process.stdout, sys.stdout), (process.stderr, sys.stderr)]
        given = [(pipe, out) for pipe, out in pipes if pipe is not None]
        for pipe, out in given:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, (out, pipe is given[-1][0]))
        rest = b""
        while selector.get_map():
            # A daemon that it forked may hold the pipes open for ever; its own output is there when it has ended.
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
                    *lines, rest = (rest + chunk).split(b"\n")
                    rest = rest[:_TAIL_LINE]
                    tail += [_shown(line) for line in lines[-_TAIL_LINES:]]
                    del tail[:-_TAIL_LINES]
        if rest:
            tail.append(_shown(rest))


def _write(out: object, chunk: bytes) -> None:
    """Write bytes to a stream of ours, which in a test or a notebook may take text alone."""
    binary = getattr(out, "buffer", None)
    with contextlib.suppress(OSError, ValueError):
        if binary is not None:
            binary.write(chunk)
        elif hasattr(out, "write"):
            out.write(chunk.decode("utf-8", "replace"))
        if hasattr(out, "flush"):
            out.flush()


def _shown(line: bytes) -> str:
    return line[:_TAIL_LINE].decode("utf-8", "replace").rstrip("\r")
