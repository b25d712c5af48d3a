"""What becomes of a task whose process does not survive it, and of everything that the process started."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from streamline.processes import exit_reason
from streamline.processes.job import Failure, Outcome
from streamline.processes.shared_page import Ending
from tests.processes.conftest import MakeBench
from tests.processes.pools import Bench, alive
from tests.support.processes import wait_until

ROOT = Path(__file__).parents[2]
STAYS = "import os, signal, time\n[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]\n"
WAIT = "while True: time.sleep(0.01)\n"


def start(bench: Bench, code: str, **more: Any) -> tuple[Future[Outcome], int]:
    """A task that is under way: it has printed a number, which is given as well."""
    future = bench.pool.submit(bench.job(code, **more))
    wait_until(bench.lines, "the task is up")
    return future, int(bench.lines()[0])


def failure(future: Future[Outcome]) -> Failure:
    found = future.result(60).failure
    assert found is not None
    return found


# Ways to die.


@pytest.mark.parametrize("code", [0, 3, 255])
def test_os_exit(bench: Bench, code: int) -> None:
    found = bench.fail(f"import os\ndef run(port):\n    print('so far')\n    os._exit({code})")
    assert found.message == f"the process exited with code {code}"
    assert found.code == "block.exited"
    assert found.retry
    assert bench.lines() == ["so far"]
    assert bench.run("def run(port): return 1") == 1


@pytest.mark.parametrize("call", ["os.kill(os.getpid(), 9)", "os.killpg(0, 9)", "signal.raise_signal(9)"])
def test_killing_itself(bench: Bench, call: str) -> None:
    assert bench.fail(f"import os, signal\ndef run(port):\n    {call}").code == "block.killed"


def test_the_line_of_a_crash_is_the_innermost_of_the_users_own_code(bench: Bench) -> None:
    (bench.root / "lib" / "site-packages").mkdir(parents=True)
    (bench.root / "lib" / "site-packages" / "deep.py").write_text("import os\ndef go():\n\n    os.abort()\n")
    (bench.root / "helper.py").write_text("import deep\ndef go():\n    deep.go()\n")
    found = bench.fail(f"""
        import sys
        def run(port):
            sys.path[:0] = [{str(bench.root)!r}, {str(bench.root / "lib" / "site-packages")!r}]
            import helper
            helper.go()
    """)
    assert found.where == bench.place(3, "helper")


def test_killed_by_somebody_else(bench: Bench) -> None:
    future, pid = start(bench, f"import os, time\ndef run(port):\n    print(os.getpid())\n    {WAIT}")
    os.kill(pid, signal.SIGKILL)
    found = failure(future)
    assert found.message.startswith("the process was killed by SIGKILL (signal 9)")
    assert found.code == "block.killed"


def test_terminated(bench: Bench) -> None:
    future, pid = start(bench, f"import os, time\ndef run(port):\n    print(os.getpid())\n    {WAIT}")
    os.kill(pid, signal.SIGTERM)
    found = failure(future)
    assert "SIGTERM" in found.message
    assert found.code == "block.killed"


def test_segmentation_fault(bench: Bench) -> None:
    found = bench.fail("""
        import ctypes
        def run(port):
            print("so far")
            return below()
        def below():
            ctypes.string_at(0)
    """)
    assert found.message == "the process crashed (SIGSEGV: segmentation fault)"
    assert found.code == "block.crashed"
    assert found.where == bench.place(6)
    assert found.trace is not None
    assert f'File "{bench.root}/block.py", line 4, in run\n    return below()\n' in found.trace
    assert found.trace.index("in run") < found.trace.index("in below")
    assert bench.lines() == ["so far"], "faulthandler's output is in the failure"


def test_abort_in_a_file_whose_name_is_not_english(bench: Bench) -> None:
    found = bench.fail("import os\ndef run(port):\n    os.abort()", name="größe_\U0001f600")
    assert "SIGABRT" in found.message
    assert found.code == "block.crashed"
    assert found.where == bench.place(3, "größe_\U0001f600")


def test_killed_for_memory_is_told_apart() -> None:
    class Counter(exit_reason.OutOfMemoryCounter):
        def __init__(self, *, certain: bool, available: bool = True) -> None:
            self.certain, self.available = certain, available
            self._known, self.kills = 7, 7

        def _count(self) -> int:
            return self.kills

    def killed(memory: Counter) -> Failure:
        return exit_reason.exit_failure(9, Ending.UNKNOWN, None, memory)

    memory = Counter(certain=True)
    assert killed(memory).code == "block.killed"
    memory.kills += 1
    assert killed(memory).code == "block.out_of_memory"
    assert killed(memory).code == "block.killed", "each kill counts once"
    memory = Counter(certain=False)
    memory.kills += 1
    assert killed(memory).message.endswith("; the kernel has just killed a process for that reason")
    unknown = killed(Counter(certain=False, available=False))
    assert unknown.code == "block.killed"
    assert unknown.message.endswith("(signal 9), perhaps because the system ran out of memory")


# Ordinary ends that are failures all the same.


def test_exceptions_have_the_users_line_and_traceback(bench: Bench) -> None:
    found = bench.fail("def run(port):\n    return {}['total']")
    assert found.message == "KeyError: 'total'"
    assert found.where == bench.place(2)
    assert found.trace is not None
    assert found.trace.splitlines()[1] == f'  File "{bench.root}/block.py", line 2, in run'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("assert 1 == 2, 'they differ'", "AssertionError: they differ"),
        ("raise SystemExit(4)", "SystemExit: 4 (the code called sys.exit)"),
        ("return run(port)", "RecursionError: maximum recursion depth exceeded"),
        ("return bytearray(1 << 60)", "MemoryError"),
        ("raise KeyboardInterrupt", "interrupted"),
        ("raise GeneratorExit", "GeneratorExit"),
        (
            "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0, '__module__': 'm'})",
            "Odd: <exception str() failed>",
        ),
        ("raise type('Odd', (Exception,), {'__module__': 3})", "Odd"),
        ("raise ValueError('x' * 10_000_000)", "xxx […] xxx"),
    ],
)
def test_whatever_is_raised_fails_the_task_and_not_the_process(bench: Bench, body: str, message: str) -> None:
    pid = bench.run("import os\ndef run(port): return os.getpid()")
    found = bench.fail(f"def run(port):\n    {body}")
    assert message in found.message
    assert len(found.message) < 20_000
    assert found.where == bench.place(2)
    assert bench.run("import os\ndef run(port): return os.getpid()") == pid


@pytest.mark.parametrize("function", ["no.such.module:f", "tests.processes.performers:no_such"])
def test_a_function_that_does_not_exist(bench: Bench, function: str) -> None:
    assert "no" in bench.fail("", function=function).message


def test_a_block_that_closes_what_it_did_not_open(bench: Bench) -> None:
    found = bench.fail("import os\ndef run(port): os.closerange(3, 100)")
    assert found.message == "the process lost its connection to the runner"
    assert bench.run("def run(port): return 1") == 1


# Never returning.


@pytest.mark.parametrize(
    "stuck",
    [
        "time.sleep(600)",
        "while True: pass",
        "re.match('(a*)*b', 'a' * 60)",
        "threading.Lock().acquire(); lock.acquire()",
    ],
    ids=["sleeping", "spinning", "in C", "waiting"],
)
def test_a_task_that_does_not_return_in_time(bench: Bench, stuck: str) -> None:
    head = "import re, threading, time\nlock = threading.Lock(); lock.acquire()\n"
    found = bench.fail(f"{head}def run(port):\n    print('up')\n    {stuck}", timeout=0.5)
    assert found.message == "timed out after 0.5 s"
    assert found.code == "block.timeout"
    assert found.where == bench.place(5)
    assert found.trace is not None
    assert "line 5, in run" in found.trace
    assert bench.lines() == ["up"]


def test_the_line_of_a_timeout_is_known_even_to_a_block_that_turned_faulthandler_off(bench: Bench) -> None:
    found = bench.fail(
        "import faulthandler, time\ndef run(port):\n    faulthandler.disable()\n    time.sleep(600)", timeout=0.5
    )
    assert found.where == bench.place(4)


def test_a_timeout_counts_from_when_a_task_has_its_worker(bench: Bench) -> None:
    bench.job("import time\ndef run(port): time.sleep(0.4)")
    futures = [bench.pool.submit(bench.again(timeout=30)) for _ in range(2)]
    futures += [bench.pool.submit(bench.again(timeout=1.0)) for _ in range(3)]
    assert [future.result(60).failure for future in futures] == [None] * 5


# Being cancelled.


def test_a_cancelled_task_gets_what_ctrl_c_gives(bench: Bench) -> None:
    code = f"""
        import time
        def run(port):
            try:
                print(1)
                {WAIT.strip()}
            except KeyboardInterrupt:
                print("cleaned up")
                raise
    """
    future, _ = start(bench, code, id="mine")
    bench.pool.cancel("mine", 60)
    assert failure(future).code == "block.interrupted"
    assert not failure(future).retry
    assert bench.lines() == ["1", "cleaned up"]
    assert bench.run("import time\ndef run(port): time.sleep(0.05); return 1") == 1


def test_a_task_that_finishes_all_the_same_has_finished(bench: Bench) -> None:
    code = f"""
        import time
        def run(port):
            try:
                print(1)
                {WAIT.strip()}
            except KeyboardInterrupt:
                return "done"
    """
    future, _ = start(bench, code, id="mine")
    bench.pool.cancel("mine", 60)
    result = future.result(60)
    assert result.failure is None
    assert result.value == "done"


def test_a_task_that_ignores_signals_is_killed(bench: Bench) -> None:
    body = "    print(1)\n    while True:\n        try: time.sleep(600)\n        except BaseException: pass\n"
    future, _ = start(bench, f"{STAYS}def run(port):\n{body}", id="mine")
    bench.pool.cancel("mine", 0.1)
    assert failure(future).message == "cancelled, and killed because it did not stop"
    assert failure(future).where == bench.place(6)


def test_a_task_that_waits_never_begins_when_it_is_cancelled(bench: Bench) -> None:
    code = "import time\ndef run(port):\n    print(1)\n    open(__file__ + '.ran', 'a').write('x')\n    time.sleep(0.2)"
    first, _ = start(bench, code)
    second = bench.pool.submit(bench.again(id="second"))
    bench.pool.cancel("second")
    assert failure(second).code == "block.cancelled"
    assert first.result(60).failure is None
    bench.pool.cancel("second")
    bench.pool.cancel("nobody")
    assert (bench.root / "block.py.ran").read_text() == "x"


def test_asyncio_code_is_cancelled_as_asyncio_does_it(bench: Bench) -> None:
    code = """
        import asyncio
        async def main():
            try:
                print(1, flush=True)
                await asyncio.sleep(600)
            finally:
                print("finally")
        def run(port): asyncio.run(main())
    """
    future, _ = start(bench, code, id="mine")
    bench.pool.cancel("mine", 60)
    assert failure(future).code == "block.interrupted"
    assert bench.lines() == ["1", "finally"]


# What a task leaves behind.

CHILD = f"{STAYS}print('up', flush=True)\n{WAIT}"
LEFT = {
    "child": "p = subprocess.Popen([sys.executable, '-c', CHILD], stdout=-1); p.stdout.readline(); return p.pid",
    "session": "p = subprocess.Popen([sys.executable, '-c', CHILD], stdout=-1, start_new_session=True); "
    "p.stdout.readline(); return p.pid",
    "fork": "r, w = os.pipe()\n    pid = os.fork()\n    if not pid: os.write(w, b'x'); time.sleep(600)\n"
    "    os.read(r, 1); return pid",
    "daemon": """r, w = os.pipe()
    if not os.fork():
        os.setsid()
        if os.fork(): os._exit(0)
        os.chdir('/'); os.umask(0); [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]
        os.write(w, b'%d\\n' % os.getpid()); os.closerange(0, 50); time.sleep(600)
    os.wait()
    return int(os.read(r, 20))""",
}


@pytest.mark.parametrize("kind", LEFT)
def test_processes_left_behind_are_gone_when_the_task_is_done(bench: Bench, kind: str) -> None:
    pid = bench.run(f"import os, signal, subprocess, sys, time\nCHILD = {CHILD!r}\ndef run(port):\n    {LEFT[kind]}")
    assert not alive(pid)
    assert bench.run("def run(port): return 1") == 1


@pytest.mark.parametrize("kind", LEFT)
@pytest.mark.parametrize("end", ["os._exit(1)", "time.sleep(600)", "raise ValueError"])
def test_they_are_gone_as_well_when_it_failed(bench: Bench, kind: str, end: str) -> None:
    code = f"import os, signal, subprocess, sys, time\nCHILD = {CHILD!r}\ndef leave():\n    {LEFT[kind]}\n"
    bench.fail(f"{code}def run(port):\n    print(leave())\n    {end}", timeout=1)
    assert not alive(int(bench.lines()[0]))


def test_threads_left_behind_end_with_the_task(bench: Bench) -> None:
    code = """
        import os, threading, time
        def run(port):
            path = __file__ + ".ticks"
            def tick():
                while True: open(path, "a").write("x"); time.sleep(0.002)
            threading.Thread(target=tick, daemon=True).start()
            while not os.path.exists(path): time.sleep(0.002)
            return os.getpid()
    """
    pid = bench.run(code)
    ticks = (bench.root / "block.py.ticks").stat().st_size
    assert not alive(pid)
    assert bench.run("import os\ndef run(port): return os.getpid()") != pid
    assert (bench.root / "block.py.ticks").stat().st_size == ticks


def test_a_thread_that_was_waited_for_is_nothing_left_behind(bench: Bench) -> None:
    code = (
        "import os, threading\ndef run(port): t = threading.Thread(target=int); t.start(); t.join(); return os.getpid()"
    )
    assert len({bench.run(code) for _ in range(20)}) == 1


def test_children_that_ended_unattended_are_nothing_left_behind(bench: Bench) -> None:
    code = """
        import os, subprocess, sys
        def run(port):
            sys.modules["kept"] = p = subprocess.Popen(["true"], stdout=-1)
            p.stdout.read(); os.waitid(os.P_PID, p.pid, os.WEXITED | os.WNOWAIT)
            return os.getpid()
    """
    assert len({bench.run(code) for _ in range(5)}) == 1


def test_a_forked_process_that_comes_back_from_the_block_ends_there(bench: Bench) -> None:
    code = """
        import os
        def run(port):
            pid = os.fork()
            if pid: os.waitpid(pid, 0)
            print("parent" if pid else "child")
            port.secret("secret of " + ("parent" if pid else "child"))
            if not pid: raise ValueError("in the child")
            return "from the parent"
    """
    assert bench.run(code) == "from the parent"
    assert "ValueError: in the child" in bench.lines()
    assert bench.lines().count("child") == bench.lines().count("parent") == 1
    assert [one for one in bench.said if one[0] == "secret"] == [("secret", "secret of parent")]
    assert bench.run("def run(port): return 2") == 2


def test_a_forked_process_may_end_itself(bench: Bench) -> None:
    code = """
        import os
        def run(port):
            pid = os.fork()
            if not pid: os._exit(5)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """
    assert bench.run(code) == 5


# The ends of the others.

RUNNER = """
import sys, threading
from pathlib import Path
from tests.processes.pools import Bench
bench = Bench(Path(sys.argv[1]), 3, preload=sys.argv[3:])
if sys.argv[2] == "busy":
    bench.job(Path(sys.argv[1], "given.py").read_text())
    for _ in range(3): bench.pool.submit(bench.again())
    while len(bench.lines()) < 3: threading.Event().wait(0.005)
elif sys.argv[2] == "idle":
    bench.run("def run(port): return 1")
print(bench.run_id, flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("state", ["busy", "idle", "starting"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_runner(tmp_path: Path, state: str, number: int) -> None:
    from streamline.processes.orphans import processes_of

    code = f"{STAYS}import subprocess, sys\nCHILD = {CHILD!r}\ndef leave():\n    {LEFT['daemon']}\n"
    child = "subprocess.Popen([sys.executable, '-c', CHILD], start_new_session=True, stdout=-1).stdout.readline()"
    (tmp_path / "given.py").write_text(f"{code}def run(port):\n    leave(); {child}; print(1)\n    {WAIT}")
    preload = ["tests.processes.slow"] if state == "starting" else []
    argv = [sys.executable, "-c", RUNNER, str(tmp_path), state, *preload]
    runner = subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True)
    assert runner.stdout is not None
    run_id = runner.stdout.readline().strip()
    wait_until(lambda: processes_of([run_id]), "there is something to outlive it")
    if state == "busy":
        assert len(processes_of([run_id])) >= 10, "the fork server, three workers, two of each worker's own"
    runner.send_signal(number)
    runner.wait()
    runner.stdout.close()
    wait_until(lambda: not processes_of([run_id]), "nothing is left")


def test_a_process_that_the_host_forked_keeps_no_worker_alive(tmp_path: Path) -> None:
    from streamline.processes.orphans import processes_of

    fork = "import os\npid = os.fork()\nif not pid: bench.pool.close(); threading.Event().wait()\n"
    code = RUNNER.replace("print(", f"{fork}print(pid, ")
    argv = [sys.executable, "-c", code, str(tmp_path), "idle"]
    runner = subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True)
    assert runner.stdout is not None
    pid, run_id = runner.stdout.readline().split()
    try:
        assert processes_of([run_id])
        runner.kill()
        runner.wait()
        assert alive(int(pid))
        wait_until(lambda: not processes_of([run_id]), "nothing is left")
    finally:
        os.kill(int(pid), signal.SIGKILL)
        runner.stdout.close()


def server_of(bench: Bench) -> int:
    """The process id of the pool's fork server."""
    parent = bench.run("import os\ndef run(port): return os.getppid()", name="asked")
    assert isinstance(parent, int)
    return parent


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_pool_survives_its_fork_server(bench: Bench, number: int) -> None:
    server = server_of(bench)
    code = f"{STAYS}import subprocess, sys\nCHILD = {CHILD!r}\ndef leave():\n    {LEFT['daemon']}\n"
    future, child = start(bench, f"{code}def run(port):\n    print(leave())\n    {WAIT}")
    waiting = bench.pool.submit(bench.job("def run(port): return 'done'", name="waiting"))
    os.kill(server, number)
    found = failure(future)
    assert found.code == "block.fork_server_exited"
    assert found.retry
    assert not alive(child)
    assert waiting.result(60).value == "done"
    assert server_of(bench) != server
    assert not alive(server)


def test_a_fork_server_that_goes_while_nothing_runs_is_replaced(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that is executed: the tests' own, which are forked and adopted, are not always seen to go.
    monkeypatch.setattr("streamline.processes.forkserver_process.subprocess", subprocess)
    bench = make_bench()
    for _ in range(5):
        server = server_of(bench)
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: server not in bench.processes(), "it is gone")  # noqa: B023
        # A task that is sent before anybody noticed may be lost to it.
        bench.outcome(bench.job("def run(port): return 1"))
        assert server_of(bench) != server


def test_a_preloaded_module_that_kills_the_fork_server_is_left_out(make_bench: MakeBench, tmp_path: Path) -> None:
    (tmp_path / "kills.py").write_text("import os\nprint('about to die')\nos.abort()\n")
    sys.path.append(str(tmp_path))
    try:
        bench = make_bench(preload=["kills"])
        assert bench.run("def run(port): return 1") == 1
        assert "about to die" in bench.lines()
        assert "SIGABRT" in bench.fail("def run(port):\n    import kills").message
    finally:
        sys.path.remove(str(tmp_path))


@pytest.mark.parametrize("module", ["no_such_module", "tests.processes.raises"])
def test_a_preloaded_module_that_cannot_be_imported_is_left_to_who_needs_it(make_bench: MakeBench, module: str) -> None:
    assert make_bench(preload=[module]).run("def run(port): return 1") == 1


def test_a_worker_that_cannot_be_made_fails_a_task_and_not_the_pool(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    bench.run("def run(port): pass")
    with monkeypatch.context() as patch:
        patch.setattr("streamline.processes.worker_process._anonymous_file", fail)
        bench.fail("import os\ndef run(port): os._exit(1)")
        assert bench.fail("").message == "cannot start a worker process: Too many open files"
    assert bench.run("def run(port): return 1") == 1


def test_an_interpreter_that_is_not_there(make_bench: MakeBench) -> None:
    found = make_bench(python="/no/such/python").fail("")
    assert found.code == "block.worker_not_started"
    assert "/no/such/python" in found.message
    assert not found.retry


def test_an_interpreter_that_is_no_such_thing(make_bench: MakeBench) -> None:
    bench = make_bench(python="/bin/false")
    found = bench.fail("")
    assert "keeps exiting" in found.message
    assert bench.fail("").message == found.message, "it is not tried for ever"


def test_another_interpreter_works(make_bench: MakeBench, tmp_path: Path) -> None:
    link = tmp_path / "python"
    link.write_text(f'#!/bin/sh\nexport SEEN=1\nexport PYTHONPATH={ROOT}\nexec {sys.executable} "$@"\n')
    link.chmod(0o755)
    bench = make_bench(python=str(link))
    assert bench.run("import os\ndef run(port): return os.environ['SEEN']") == "1"


def test_a_flood_of_deaths(make_bench: MakeBench) -> None:
    bench = make_bench(4)
    bench.job("import os, random\ndef run(port):\n    if random.random() < 0.3: os._exit(1)\n    return 1")
    outcomes = [future.result(60) for future in [bench.pool.submit(bench.again()) for _ in range(200)]]
    codes = {None if outcome.failure is None else outcome.failure.code for outcome in outcomes}
    assert codes == {None, "block.exited"}


def test_tasks_come_to_an_end_whatever_happens_to_their_processes(make_bench: MakeBench) -> None:
    bench = make_bench(3)
    bench.job("import os, time\ndef run(port): print(os.getpid(), os.getppid()); time.sleep(0.005)")
    futures = [bench.pool.submit(bench.again()) for _ in range(150)]
    stop = threading.Event()

    def shoot() -> None:
        turn = 0
        while not stop.wait(0.02):
            turn += 1
            seen = bench.lines()
            if seen:
                worker, server = map(int, seen[-1].split())
                # Far apart, as the pool gives up on fork servers that end before anything got done.
                target = server if turn % 10 == 0 and turn < 30 else worker
                with contextlib.suppress(ProcessLookupError):
                    os.kill(target, signal.SIGKILL)

    shooter = threading.Thread(target=shoot)
    shooter.start()
    try:
        results = [future.result(60) for future in futures]
    finally:
        stop.set()
        shooter.join()
    assert any(one.failure is None for one in results)
