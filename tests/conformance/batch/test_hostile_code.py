"""User code at its worst: the run ends with a clear word about which block and which line, its other branches done."""

from __future__ import annotations

import re
import signal

import pytest

from tests.support.batch import BatchProject, failed
from tests.support.processes import wait_until
from tests.support.project import Completed


def run(project: BatchProject, code: str, **entry: object) -> Completed:
    """Run a block `bad` with one behind it, and another branch that is well."""
    project.block("good", "@data_loader\ndef load():\n    return 'good'\n", type="data_loader")
    project.block("bad", code, type="data_loader", **entry)
    project.block("behind", "@transformer\ndef behind(x):\n    return x\n", upstream=["bad"])
    project.block("after", "@transformer\ndef after(x):\n    return x + '!'\n", upstream=["good"])
    completed = project.run()
    assert project.statuses() == {
        "good": "completed",
        "bad": "failed",
        "behind": "upstream_failed",
        "after": "completed",
    }, completed
    assert project.output("after") == "good!"
    return completed


def test_it_raises(project: BatchProject) -> None:
    code = "def inner(x):\n    return x['total']\n\n@data_loader\ndef load():\n    return inner({})\n"
    completed = failed(run(project, code), "bad: data_loaders/bad.py:2: KeyError: 'total'")
    # The traceback is the user's own, from the first line of theirs on.
    assert re.search(r'File "data_loaders/bad.py", line 6, in load\n.*line 2, in inner', completed.err, re.DOTALL)


def test_it_asserts(project: BatchProject) -> None:
    code = "@data_loader\ndef load():\n    assert 1 > 2, 'one is not more'\n"
    failed(run(project, code), "bad: data_loaders/bad.py:3: AssertionError: one is not more")


def test_it_calls_os_exit(project: BatchProject) -> None:
    code = "import os\n\n@data_loader\ndef load():\n    os._exit(3)\n"
    failed(run(project, code), "bad: data_loaders/bad.py: .*code 3")


def test_it_calls_sys_exit(project: BatchProject) -> None:
    code = "import sys\n\n@data_loader\ndef load():\n    sys.exit('enough')\n"
    failed(run(project, code), "bad: data_loaders/bad.py:5: SystemExit: enough")


def test_it_is_killed_for_memory(project: BatchProject) -> None:
    # As the kernel's OOM killer does it, which cannot be had for one process without harming others.
    code = """
    import os, subprocess, time

    @data_loader
    def load():
        held = bytearray(10_000_000)
        time.sleep(0.2)
        subprocess.run(['kill', '-KILL', str(os.getpid())])
        time.sleep(60)
    """
    failed(run(project, code), "bad: data_loaders/bad.py: .*SIGKILL.*memory")


def test_there_is_no_memory_for_it(project: BatchProject) -> None:
    code = """
    import resource

    @data_loader
    def load():
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        return bytearray(1 << 40)
    """
    failed(run(project, code), "bad: data_loaders/bad.py:7: MemoryError")


def test_its_interpreter_crashes(project: BatchProject) -> None:
    code = "import ctypes\n\n@data_loader\ndef load():\n    ctypes.string_at(0)\n"
    completed = failed(run(project, code), r"bad: .*(SIGSEGV|segmentation)")
    assert "crash_trace.py" not in completed.text


def test_it_prints_22_megabytes(project: BatchProject) -> None:
    code = """
    @data_loader
    def load():
        for _ in range(22):
            print(('x' * 99 + '\\n') * 10_000, end='')
        raise ValueError('done with printing')
    """
    completed = failed(run(project, code), "ValueError: done with printing", "the rest of the output is in the log")
    assert len(completed.out) < 3_000_000
    assert len(project.logs()) < 19_000_000


def test_it_returns_what_cannot_be_stored(project: BatchProject) -> None:
    code = "import threading\n\n@data_loader\ndef load():\n    return {'rows': [1], 'lock': threading.Lock()}\n"
    failed(run(project, code), r"bad: data_loaders/bad.py.*\['lock'\].*cannot pickle '_thread.lock' object")


def test_it_recurses_for_ever(project: BatchProject) -> None:
    code = "@data_loader\ndef load(*args):\n    return load()\n"
    completed = failed(
        run(project, code), "bad: data_loaders/bad.py:3: RecursionError: maximum recursion depth exceeded"
    )
    assert len(completed.err.splitlines()) < 80


def test_it_recurses_for_ever_without_a_limit(project: BatchProject) -> None:
    code = """
    import sys

    class Deep:
        def __getattr__(self, name):
            return getattr(self, name + 'x')

    @data_loader
    def load():
        sys.setrecursionlimit(10**9)
        return Deep().anything
    """
    failed(run(project, code, timeout=30), "bad: ")


def test_it_never_returns(project: BatchProject) -> None:
    code = "import time\n\n@data_loader\ndef load():\n    while True:\n        time.sleep(0.01)\n"
    failed(run(project, code, timeout=1), r"bad: data_loaders/bad.py:[56]: .* 1 s")


def test_it_never_returns_and_cannot_be_interrupted(project: BatchProject) -> None:
    code = """
    import signal, time

    @data_loader
    def load():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        while True:
            pass
    """
    failed(run(project, code, timeout=1), r"bad: data_loaders/bad.py:[89]: .* 1 s")


def test_its_generator_raises_half_way(project: BatchProject) -> None:
    code = "@data_loader\ndef load():\n    yield [1]\n    raise ValueError('half way')\n"
    failed(run(project, code), "bad: data_loaders/bad.py:4: ValueError: half way")
    assert not (project.root / ".streamline" / "data" / "p" / "bad").exists()


def test_it_raises_while_it_is_loaded(project: BatchProject) -> None:
    code = "import no_such_module\n\n@data_loader\ndef load():\n    return 1\n"
    failed(run(project, code), "bad: data_loaders/bad.py:1: ModuleNotFoundError: No module named 'no_such_module'")


def test_it_raises_something_that_cannot_be_pickled(project: BatchProject) -> None:
    code = """
    import threading

    class Odd(Exception):
        def __init__(self, lock):
            super().__init__(lock)

        def __str__(self):
            raise RuntimeError('no words')

    @data_loader
    def load():
        raise Odd(threading.Lock())
    """
    failed(run(project, code), "bad: data_loaders/bad.py:13: .*Odd")


def test_it_changes_its_surroundings(project: BatchProject) -> None:
    project.keys["concurrency_config"] = {"block_run_limit": 1}
    project.block(
        "first",
        """
        import os, signal, sys, threading, subprocess, time

        @data_loader
        def load():
            os.environ['LEFT'] = 'behind'
            os.chdir('/')
            sys.path.insert(0, '/left/behind')
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            threading.Thread(target=time.sleep, args=(60,)).start()
            child = subprocess.Popen(['sleep', '60'])
            return child.pid
        """,
        type="data_loader",
    )
    project.block(
        "second",
        """
        import os, signal, sys, threading

        @transformer
        def look(pid):
            return [
                os.environ.get('LEFT'), os.getcwd(), '/left/behind' in sys.path, threading.active_count() > 3,
                signal.getsignal(signal.SIGTERM) == signal.SIG_IGN, os.path.exists(f'/proc/{pid}'),
            ]
        """,
    )
    project.run().expect(0)
    assert project.output("second") == [None, str(project.root), False, False, False, False]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_interrupts_what_runs(project: BatchProject, number: signal.Signals, code: int) -> None:
    project.block(
        "wait",
        """
        import pathlib, time

        @data_loader
        def load():
            try:
                pathlib.Path('begun').touch()
                time.sleep(60)
            finally:
                pathlib.Path('cleaned').touch()
        """,
        type="data_loader",
    )
    project.block("behind", "@transformer\ndef behind(x):\n    return x\n")
    project.block(
        "heard",
        """
        @callback('cancelled')
        def heard(*args, **kwargs):
            open('log.txt', 'a').write(f"cancelled {kwargs['parent_block_uuid']}\\n")
        """,
        type="callback",
        upstream=["wait"],
    )
    running = project.start("run", "p")
    wait_until((project.root / "begun").exists, "the block begins")
    running.signal(number)
    completed = running.finish().expect(code, "interrupted")
    assert (project.root / "cleaned").exists(), completed
    assert project.statuses()["wait"] == "cancelled"
    assert project.statuses()["behind"] in ("cancelled", "upstream_failed")
    assert project.lines() == ["cancelled wait"]
    assert project.runs()[0]["status"] == "cancelled"
    project.assert_nothing_left(completed)


def test_a_killed_runner_leaves_nothing_behind(project: BatchProject) -> None:
    project.block(
        "wait",
        """
        import pathlib, subprocess, time

        @data_loader
        def load():
            subprocess.Popen(['sleep', '60'], start_new_session=True)
            pathlib.Path('begun').touch()
            time.sleep(60)
        """,
        type="data_loader",
    )
    running = project.start("run", "p")
    wait_until((project.root / "begun").exists, "the block begins")
    running.kill()
    project.write("data_loaders/wait.py", "@data_loader\ndef load():\n    return 1\n")
    project.run().expect(0)
    assert [run["status"] for run in project.runs()] == ["completed", "killed"]
