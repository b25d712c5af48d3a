"""Starts Python programs without paying for their imports each time: forked from a process that has the libraries.

What runs is the program's own file, as `__main__`, in a process of its own with its own arguments, folder, environment
and standard streams. Only the interpreter's start and the libraries' first import are shared. For programs that are run
a hundred times by the tests; those that are about starting, signals or the environment's own start a real one.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

MODULES = ("duckdb", "msgspec", "orjson", "pyarrow.compute", "pyarrow.csv", "pyarrow.json", "pyarrow.parquet", "singer")

_server: tuple[subprocess.Popen[bytes], socket.socket] | None = None
_lock = threading.Lock()


def run(argv: Sequence[str], *, given: bytes, cwd: Path, env: Mapping[str, str]) -> tuple[int, bytes, bytes]:
    """Run `[interpreter, file, argument…]` to its end.

    Args:
        argv: the interpreter is the tests' own.
        given: its standard input, through a pipe.

    Returns:
        exit code (negative: the signal that killed it), standard output, standard error.
    """
    assert argv[0] == sys.executable
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        reading, writing = os.pipe()
        request = {"argv": list(argv[1:]), "cwd": str(cwd), "env": dict(env)}
        with _lock:
            connection = _started()
            data = json.dumps(request).encode()
            socket.send_fds(connection, [len(data).to_bytes(8, "big")], [reading, out.fileno(), err.fileno()])
            connection.sendall(data)
            os.close(reading)
            writer = threading.Thread(target=_write, args=(writing, given))
            writer.start()
            code = int(connection.makefile("rb", buffering=0).readline() or b"1")
            writer.join()
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


def _write(pipe: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(pipe, "wb") as file:
        file.write(data)


def _started() -> socket.socket:
    global _server
    if _server is None or _server[0].poll() is not None:
        ours, theirs = socket.socketpair()
        process = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        theirs.close()
        _server = (process, ours)
        atexit.register(_stop, process, ours)
    return _server[1]


def _stop(process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    connection.close()
    process.wait(10)


def serve(connection: socket.socket) -> None:
    """Answer requests until nobody asks any more."""
    for name in MODULES:
        with contextlib.suppress(ImportError):
            __import__(name)
    while True:
        head, fds, _, _ = socket.recv_fds(connection, 8, 3)
        if not head:
            return
        data = b""
        while len(data) < int.from_bytes(head, "big"):
            data += connection.recv(1 << 16)
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become(json.loads(data), fds)
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(request: dict[str, object], fds: list[int]) -> None:
    """Be the program; never returns."""
    code = 1
    try:
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
            os.close(fd)
        argv, env = request["argv"], request["env"]
        assert isinstance(argv, list)
        assert isinstance(env, dict)
        os.chdir(str(request["cwd"]))
        os.environ.clear()
        os.environ.update(env)
        sys.argv[:] = argv
        sys.path[0] = str(Path(argv[0]).parent)
        runpy.run_path(argv[0], run_name="__main__")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
