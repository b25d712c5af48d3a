"""Start Python programs without paying for their imports: forked from a server that has imported the libraries.

A program that is started here has its own process id, session, arguments, folder, environment and standard streams, and
`/proc` shows them as it would for a program that was executed. Only the start of the interpreter and the first import
of libraries are shared. Tests about the interpreter's start, or about what is imported, start a real process.

The runner of a batch pipeline starts a fork server of its own, which imports pandas. `spare` forks one ahead, as a
child of the command, and the command uses it in place of a new interpreter. `fork_servers` does the same for the pools
that tests make in their own process: the server forks one, and it becomes the tests' child by adoption.

Bundled connectors and fakes that a command starts are forked as well, where it is told to (`connectors`): by a child of
the command that was forked before the command had threads, and as that child's siblings, so that the command waits for
them and signals them as ever.

A fork copies the tables of all pages. Commands that need no tables of data (`lean`) are forked from a server that has
imported none of the large libraries.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

REPOSITORY = Path(__file__).parents[2]
LIBRARIES = (
    *("anyio._backends._asyncio", "jinja2", "jsonschema_rs", "msgspec", "orjson", "singer", "sqlite3", "uvloop"),
    *("yaml",),
)
TABLE_LIBRARIES = ("duckdb", "pandas", "pyarrow.compute", "pyarrow.csv", "pyarrow.json", "pyarrow.parquet")
_TABLES = ("duckdb", "numpy", "pandas", "polars", "pyarrow")
START_VARIABLES = {"LANG": "C.UTF-8", "STREAMLINE_TERM_SECONDS": "0.5", "STREAMLINE_INTERRUPT_SECONDS": "1"}
"""Variables that are read when the interpreter starts or a module is imported. Other values need a real process."""
real = False
"""Execute every program instead: for runs of many kills, whose moments should fall into its start as well."""
_ROOM = 1 << 14
_PDEATHSIG = 1
_SUBREAPER = 36
_CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine, 0)
_CLONE_PARENT = 0x8000
_CONNECTORS = [str(REPOSITORY / folder / "run.py") for folder in ("taps", "targets")]
_BARE = [sys.executable, "-S", "-E", "-s"]
_FAKES = str(REPOSITORY / "tests" / "conformance" / "hostile") + os.sep
_adoption = threading.Lock()


class Process:
    """A program that was started; the part of `subprocess.Popen` that tests use."""

    def __init__(self, argv: Sequence[str], status: socket.socket) -> None:
        self.args = argv
        self.returncode: int | None = None
        self._status = status
        self.pid = int.from_bytes(status.recv(4), "big")
        if not self.pid:
            raise RuntimeError("the server of preloaded processes is gone")

    def poll(self) -> int | None:
        """Return the exit code, None while the process runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code (negative: the signal that killed it)."""
        if self.returncode is None:
            self._status.settimeout(timeout)
            try:
                data = self._status.recv(4)
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0) from None
            self.returncode = int.from_bytes(data, "big", signed=True) if data else -signal.SIGKILL
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the end is known."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Server:
    """The lean server, and its child with the large libraries."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._connections: dict[bool, socket.socket] = {}

    def start(self, request: dict[str, Any], files: Sequence[int], *, lean: bool = False) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with self._lock:
            if self._pid != os.getpid():
                self._begin()
            socket.send_fds(self._connections[lean], [json.dumps(request).encode()], [*files, theirs.fileno()])
        theirs.close()
        return ours

    def _begin(self) -> None:
        servers: list[socket.socket] = []
        for lean in (True, False):
            self._connections[lean], theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._connections[lean].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            servers.append(theirs)
        self._pid = os.getpid()
        env = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, str(REPOSITORY), *(str(theirs.fileno()) for theirs in servers), "_" * _ROOM],
            env={**env, **START_VARIABLES, "_": "_" * _ROOM},
            pass_fds=[theirs.fileno() for theirs in servers],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        for theirs in servers:
            theirs.close()
        atexit.register(self._end, process, [*self._connections.values()])

    @staticmethod
    def _end(process: subprocess.Popen[bytes], connections: list[socket.socket]) -> None:
        for connection in connections:
            connection.close()
        process.wait(10)


_server = _Server()
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from tests.support.preloaded import serve; serve()"


def start(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: int,
    stdout: IO[bytes],
    stderr: IO[bytes],
    spare: bool = False,
    connectors: bool = False,
    lean: bool = False,
) -> Process | subprocess.Popen[bytes]:
    """Start `[interpreter, file or -m module, argument…]` in a session of its own.

    Args:
        argv: the interpreter is the tests' own.
        stdin: a file descriptor.
        spare: the program is a command that may start a fork server for batch pipelines.
        connectors: it is a command that may start bundled connectors or fakes.
        lean: neither it nor what is forked from it needs the large libraries.
    """
    if real or argv[0] != sys.executable or not _usual(env):
        return subprocess.Popen(
            argv, cwd=cwd, env=dict(env), stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
    request = {"argv": list(argv), "cwd": str(cwd), "env": dict(env), "spare": spare, "connectors": connectors}
    return Process(argv, _server.start(request, [stdin, stdout.fileno(), stderr.fileno()], lean=lean))


def _usual(env: Mapping[str, str]) -> bool:
    """Return whether the interpreter would start with this environment as the server did."""
    names = [name for name in env if name in START_VARIABLES or name.startswith(("LC_", "PYTHON"))]
    return {name: env[name] for name in names if name != "PYTHONPATH"}.items() <= START_VARIABLES.items()


def run(argv: Sequence[str], *, given: bytes, cwd: Path, env: Mapping[str, str]) -> tuple[int, bytes, bytes]:
    """Run a program to its end.

    Args:
        argv: as `start` takes it.
        given: its standard input, through a pipe.

    Returns:
        exit code (negative: the signal that killed it), standard output, standard error.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        reading, writing = os.pipe()
        try:
            env = {name: value for name, value in env.items() if not name.startswith("LC_")} | {"LANG": "C.UTF-8"}
            process = start(argv, cwd=cwd, env=env, stdin=reading, stdout=out, stderr=err)
        finally:
            os.close(reading)
        with contextlib.suppress(BrokenPipeError), open(writing, "wb") as file:
            file.write(given)
        code = process.wait()
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


def streamline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the `streamline` command in a folder to its end, with the environment of the tests."""
    argv = [sys.executable, "-m", "streamline", *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHON"))}
    env |= {**START_VARIABLES, "PYTHONPATH": str(REPOSITORY)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as null:
        process = start(
            argv, cwd=folder, env=env, stdin=null.fileno(), stdout=out, stderr=err, spare=True, connectors=True
        )
        code = process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(argv, code, out.read().decode(), err.read().decode())


class Piped:
    """A program with pipes to its standard input and from its standard output.

    Args:
        argv: as `start` takes it.
    """

    def __init__(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        given, writing = os.pipe()
        reading, printed = os.pipe()
        env = {name: value for name, value in env.items() if not name.startswith("LC_")} | {"LANG": "C.UTF-8"}
        with open(printed, "wb") as stdout, open(given, "rb") as stdin, open(os.devnull, "wb") as stderr:
            self.process = start(argv, cwd=cwd, env=env, stdin=stdin.fileno(), stdout=stdout, stderr=stderr)
        self.stdin = os.fdopen(writing, "wb")
        self.stdout = os.fdopen(reading, "rb")

    def write(self, data: bytes) -> None:
        """Write to its standard input, at once."""
        self.stdin.write(data)
        self.stdin.flush()

    def finish(self) -> tuple[int, bytes]:
        """Close its input; return its exit code and the rest of its output."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        with self.stdout:
            rest = self.stdout.read()
        return self.process.wait(), rest


# What follows runs in the server and in what it forks.


def serve() -> NoReturn:
    """Answer requests until the tests' process is gone."""
    connection, connection_with_tables = (socket.socket(fileno=int(number)) for number in sys.argv[2:4])
    connection.set_inheritable(False)
    connection_with_tables.set_inheritable(False)
    modules = _modules_of_commands()
    # A module that is None cannot be imported; nor can, then, a module of ours that needs it.
    sys.modules.update(dict.fromkeys(_TABLES))  # type: ignore[arg-type]
    _import(*LIBRARIES, *modules)
    for name in _TABLES:
        del sys.modules[name]
    from streamline.project.yamlfile import load_yaml

    load_yaml(Path("any.yaml"), text="a: 1")  # compiles its expressions at the first use
    with_tables = os.fork()
    if not with_tables:
        connection.close()
        connection = connection_with_tables
        _import(*TABLE_LIBRARIES, *modules)
    else:
        connection_with_tables.close()
    # jsonschema_rs collects garbage at the end, which copies every page that is shared with this server.
    atexit._clear()
    atexit.register(logging.shutdown)
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    gc.collect()
    gc.freeze()
    woken, waker = os.pipe()
    for fd in (woken, waker):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([connection, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(running)
        if connection in ready:
            data, fds, _, _ = socket.recv_fds(connection, 1 << 20, 4)
            if not data:
                if with_tables:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(with_tables, 0)
                os._exit(0)
            request = json.loads(data)
            adopted = "parent" in request
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                for fd in (woken, waker):
                    os.close(fd)
                connection.close()
                for status in running.values():
                    status.close()
                if adopted:
                    _adopted(request, fds)
                _become(request, fds)
            if not adopted:
                running[pid] = socket.socket(fileno=fds.pop())
                with contextlib.suppress(OSError):
                    running[pid].send(pid.to_bytes(4, "big"))
            for fd in fds:
                os.close(fd)


def _import(*names: str) -> None:
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _reap(running: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if pid in running:
                with contextlib.suppress(OSError), running.pop(pid) as connection:
                    connection.send(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))


def _modules_of_commands() -> list[str]:
    from streamline.cli.main import COMMANDS

    commands = [lazy.target.partition(":")[0] for lazy in COMMANDS.values()]
    rooms = ("blocks", "connectors", "execution", "flow", "outputs", "pipeline", "processes", "project", "state")
    files = [file for room in rooms for file in (REPOSITORY / "streamline" / room).rglob("*.py")]
    modules = [".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in files if file.stem[0] != "_"]
    return commands + modules


def _become(request: dict[str, Any], fds: list[int]) -> NoReturn:
    """Be the program."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):  # under nohup, SIGHUP is ignored
            signal.signal(number, signal.SIG_DFL)
        for target, fd in enumerate(fds[:3]):
            os.dup2(fd, target)
        for fd in fds:
            os.close(fd)
        os.chdir(request["cwd"])
        _take_on(request["argv"], request["env"])
        if request["spare"]:
            _fork_spare()
        if request["connectors"] and _CLONE:
            _fork_starter()
        bare = request["argv"][: len(_BARE)] == _BARE
        code = _main(request["argv"][len(_BARE) if bare else 1 :], request["cwd"])
    except BaseException:
        traceback.print_exc()
    finally:
        _exit(code)


def _take_on(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Have this command line and environment, in `/proc` too."""
    os.environ.clear()
    os.environ.update(env)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    arguments, arguments_end, environment, environment_end = map(int, fields[45:49])
    words = [f"{name}={value}" for name, value in env.items()]
    for texts, begin, end in ((argv, arguments, arguments_end), (words, environment, environment_end)):
        block = b"".join(os.fsencode(text) + b"\0" for text in texts)
        room = end - begin
        if len(block) < room:
            ctypes.memmove(begin, block.ljust(room, b"\0"), room)


def _main(argv: list[str], cwd: str) -> int:
    module = argv[1] if argv[0] == "-m" else None
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [str(Path(argv[0]).parent) if module is None else cwd, *paths, *sys.path[2:]]
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    sys.argv[:] = argv if module is None else argv[1:]
    sys.orig_argv[:] = [sys.executable, *argv]
    gc.enable()
    if module:
        _reset_logging()
    try:
        if module is None:
            runpy.run_path(argv[0], run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _reset_logging() -> None:
    """Undo what singer-python does to the root logger when it is imported."""
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)


def _exit(code: int) -> NoReturn:
    """Do what the interpreter does at its end, except for taking itself apart."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(code)


class _Forked:
    """A fork server or connector that was forked; the part of `subprocess.Popen` that its owner uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                raise subprocess.TimeoutExpired("forked process", timeout or 0)
            else:
                time.sleep(0.001)
        return self.returncode

    def poll(self) -> int | None:
        if self.returncode is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(0)
        return self.returncode


class _Subprocess:
    """Takes the place of `subprocess` in the module that starts fork servers."""

    DEVNULL = subprocess.DEVNULL
    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self, fork: Callable[[bytes, list[int]], int | None]) -> None:
        self._fork = fork

    def Popen(self, argv: list[str], **keys: Any) -> _Forked | subprocess.Popen[bytes]:
        """Start a fork server; a real process if it wants another interpreter."""
        if argv[:3] == [sys.executable, "-P", "-c"]:
            settings = json.loads(argv[4])
            request = {"argv": argv, "env": dict(keys["env"]), "settings": settings, "cwd": os.getcwd()}  # noqa: PTH109
            pid = self._fork(json.dumps(request).encode(), [keys["stdout"], settings["control"]])
            if pid is not None:
                return _Forked(pid)
        return subprocess.Popen(argv, **keys)


def _fork_spare() -> None:
    """Fork a process that waits to be the fork server of this one."""
    from streamline.processes import forkserver_process

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        ours.close()
        # Ctrl-C is for its parent.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _prctl(_PDEATHSIG, signal.SIGKILL)
        data, fds, _, _ = socket.recv_fds(theirs, 1 << 20, 2)
        if not data:
            os._exit(0)
        theirs.close()
        _be_fork_server(json.loads(data), fds)
    theirs.close()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    def use(message: bytes, fds: list[int]) -> int | None:
        if ours.fileno() < 0:
            return None  # a second pool
        with ours:
            socket.send_fds(ours, [message], fds)
        return pid

    forkserver_process.subprocess = _Subprocess(use)  # type: ignore[assignment]


class _Starting:
    """Takes the place of `subprocess` in the module that starts connectors."""

    Popen: Any
    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self, starter: socket.socket) -> None:
        self.Popen = self._popen
        self._starter = starter
        self._turn = threading.Lock()

    def _popen(self, argv: list[str], **keys: Any) -> _Forked | subprocess.Popen[bytes]:
        fake = argv[: len(_BARE)] == _BARE and argv[len(_BARE)].startswith(_FAKES)
        bundled = argv[0] == sys.executable and argv[1] in _CONNECTORS and _usual(keys["env"])
        if not fake and not bundled:
            return subprocess.Popen(argv, **keys)
        request = {"argv": argv, "cwd": str(keys["cwd"]), "env": keys["env"], "spare": False, "connectors": False}
        with self._turn:
            files = [keys["stdin"], keys["stdout"], keys["stderr"]]
            socket.send_fds(self._starter, [json.dumps(request).encode()], files)
            return _Forked(int.from_bytes(self._starter.recv(4), "big"))


def _fork_starter() -> None:
    """Fork a process that forks connectors, which are children of this one."""
    from streamline.processes import child

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    if os.fork():
        theirs.close()
        child.subprocess = _Starting(ours)  # type: ignore[assignment]
        return
    ours.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prctl(_PDEATHSIG, signal.SIGKILL)
    while True:
        data, fds, _, _ = socket.recv_fds(theirs, 1 << 20, 3)
        if not data:
            os._exit(0)
        pid = _fork_sibling()
        if not pid:
            theirs.close()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _become(json.loads(data), fds)
        theirs.send(pid.to_bytes(4, "big"))
        for fd in fds:
            os.close(fd)


def _fork_sibling() -> int:
    """Fork a child of this process's parent. This process has one thread."""
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid: int = ctypes.PyDLL(None).syscall(_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    if pid:
        python.PyOS_AfterFork_Parent()
    else:
        python.PyOS_AfterFork_Child()
    return pid


def _be_fork_server(request: dict[str, Any], fds: list[int]) -> NoReturn:
    from streamline.processes import forkserver

    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for target, fd in enumerate((null, fds[0], fds[0])):
            os.dup2(fd, target)
        os.close(null)
        os.close(fds[0])
        os.chdir(request["cwd"])
        _take_on(request["argv"], request["env"])
        settings = request["settings"]
        settings["control"] = fds[1]
        sys.path[:] = settings["path"]
        sys.path_importer_cache.clear()
        _reset_logging()
        if os.environ.get("PYTHONUNBUFFERED"):
            for name, fd in (("stdout", 1), ("stderr", 2)):
                raw = io.FileIO(fd, "w", closefd=False)
                setattr(sys, name, io.TextIOWrapper(raw, "utf-8", write_through=True))  # type: ignore[type-var]
        forkserver.serve(settings)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)


@contextlib.contextmanager
def fork_servers() -> Iterator[None]:
    """Fork servers of pools in this process are forked from the preloaded one, and adopted."""
    from streamline.processes import forkserver_process

    def use(message: bytes, fds: list[int]) -> int:
        request = {**json.loads(message), "parent": os.getpid()}
        with _adoption:
            # What an ancestor left behind in these milliseconds would come to us, too.
            _prctl(_SUBREAPER, 1)
            try:
                with _server.start(request, fds) as status:
                    return int.from_bytes(status.recv(4), "big")
            finally:
                _prctl(_SUBREAPER, 0)

    forkserver_process.subprocess = _Subprocess(use)  # type: ignore[assignment]
    try:
        yield
    finally:
        forkserver_process.subprocess = subprocess


def _adopted(request: dict[str, Any], fds: list[int]) -> NoReturn:
    """Fork the fork server and end, so that the system gives it to the process that asked for it."""
    status = fds.pop()
    pid = os.fork()
    if pid:
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while os.getppid() != request["parent"]:
        time.sleep(0.0005)
    os.write(status, os.getpid().to_bytes(4, "big"))
    os.close(status)
    _be_fork_server(request, fds)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
