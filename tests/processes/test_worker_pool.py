"""Workers carry out tasks one after the other, and nothing of one reaches the next."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from streamline.processes.job import Outcome
from streamline.processes.worker_pool import WorkerPool
from tests.processes.conftest import MakeBench
from tests.processes.pools import Bench

ROOT = Path(__file__).parents[2]


def test_a_task_comes_back_with_its_result_and_how_long_it_took(bench: Bench) -> None:
    result = bench.outcome(bench.job("def run(port): return 6 * 7"))
    assert result.failure is None
    assert result.value == 42
    assert result.seconds > 0


def test_one_worker_takes_task_after_task_and_keeps_its_modules(bench: Bench) -> None:
    code = "import sys, os\ndef run(port): n = sys.modules.setdefault('seen', [0]); n[0] += 1; return os.getpid(), n[0]"
    (first, one), (second, two) = bench.run(code), bench.run(code)
    assert first == second
    assert (one, two) == (1, 2)


def test_no_more_tasks_run_at_once_than_there_are_workers_and_all_get_done(make_bench: MakeBench) -> None:
    bench = make_bench(3)
    code = """
        import os, time
        def run(port):
            open(f"{os.path.dirname(__file__)}/now-{os.getpid()}", "x").close()
            time.sleep(0.01)
            count = len([name for name in os.listdir(os.path.dirname(__file__)) if name.startswith("now-")])
            os.remove(f"{os.path.dirname(__file__)}/now-{os.getpid()}")
            return count
    """
    bench.job(code)
    futures = [bench.pool.submit(bench.again()) for _ in range(60)]
    counts = [future.result(60).value for future in futures]
    assert len(counts) == 60
    assert 1 <= max(counts) <= 3


def test_the_worker_that_was_used_last_is_used_next(make_bench: MakeBench) -> None:
    bench = make_bench(2)
    code = """
        import os, time
        def run(port):
            meet(2)
            return os.getpid()
    """
    bench.job(code)
    both = [bench.pool.submit(bench.again()) for _ in range(2)]
    assert len({future.result(60).value for future in both}) == 2
    assert len({bench.outcome(bench.again()).value for _ in range(5)}) == 1


CHANGES = {
    "environment": ("os.environ['ADDED'] = '1'; del os.environ['HOME']; os.environ['PATH'] = '/x'", "dict(os.environ)"),
    "environment, exchanged": ("os.environ = {}", "dict(os.environ)"),
    "time zone": ("os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()", "time.strftime('%z', time.localtime(0))"),
    "path": ("sys.path.insert(0, '/x')", "list(sys.path)"),
    "path, exchanged": ("sys.path = ['/x']", "list(sys.path)"),
    "arguments": ("sys.argv[:] = ['x']", "list(sys.argv)"),
    "folder": ("os.chdir('/')", "os.getcwd()"),
    "folder that is gone": ("os.mkdir('/tmp/gone%d' % os.getpid()); os.chdir('/tmp/gone%d' % os.getpid()); "
        "os.rmdir('/tmp/gone%d' % os.getpid())", "os.getcwd()"),
    "umask": ("os.umask(0o007)", "(lambda old: (os.umask(old), old)[1])(os.umask(0))"),
    "handlers": ("[signal.signal(n, lambda *_: None) for n in (2, 10, 14, 15)]",
        "[str(signal.getsignal(n)) for n in (10, 14, 15)]"),
    "interrupt": ("signal.signal(2, signal.SIG_IGN)", "signal.getsignal(2) is signal.default_int_handler"),
    "mask": ("signal.pthread_sigmask(signal.SIG_BLOCK, [2, 15])",
        "sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))"),
    "alarm": ("signal.setitimer(signal.ITIMER_REAL, 0.05)", "time.sleep(0.1)"),
    "filters": ("import warnings; warnings.simplefilter('error')", "len(__import__('warnings').filters)"),
    "recursion": ("sys.setrecursionlimit(50_000)", "sys.getrecursionlimit()"),
    "trace": ("sys.settrace(lambda *_: None)", "sys.gettrace() is None"),
    "collection": ("import gc; gc.disable()", "__import__('gc').isenabled()"),
    "locale": ("import locale; locale.setlocale(locale.LC_ALL, 'C')", "__import__('locale').setlocale(0)"),
    "decimals": ("import decimal; decimal.getcontext().prec = 3", "__import__('decimal').getcontext().prec"),
    "logging": ("import logging; logging.basicConfig(level=1); logging.disable(50)",
        "(lambda l: (l.root.handlers, l.root.level, l.root.manager.disable))(__import__('logging'))"),
    "streams": ("sys.stdout = sys.stderr = None", "(sys.stdout.fileno(), sys.stderr.fileno())"),
    "output": ("os.dup2(os.open('/dev/null', os.O_WRONLY), 1)", "os.fstat(1).st_ino == os.fstat(2).st_ino"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_block_changes_is_put_back(bench: Bench, what: str) -> None:
    change, look = CHANGES[what]
    head = "import os, signal, sys, time\n"
    before = bench.run(f"{head}def run(port): return {look}, os.getpid()")
    bench.run(f"{head}def run(port): {change}; return None")
    after = bench.run(f"{head}def run(port): return {look}, os.getpid()")
    assert after == before, "the same, and in the same process"


@pytest.mark.parametrize("change", ["os.nice(1)", "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"])
def test_a_process_that_cannot_be_put_back_is_replaced(bench: Bench, change: str) -> None:
    look = "import os, resource\ndef run(port): return os.nice(0), resource.getrlimit(resource.RLIMIT_NOFILE)"
    before = bench.run(look)
    bench.run(f"import os, resource\ndef run(port): {change}; return None")
    assert bench.run(look) == before


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_closed_streams_are_open_again_for_the_next(bench: Bench, stream: str) -> None:
    bench.run(f"import sys\ndef run(port): sys.{stream}.close()")
    bench.run(f"import sys\ndef run(port): print('heard', file=sys.{stream})")
    assert bench.lines() == ["heard"]


def test_workers_draw_different_random_numbers(make_bench: MakeBench) -> None:
    pytest.importorskip("numpy")
    bench = make_bench(2, preload=["numpy.random", "random"])
    code = """
        import os, random, time, numpy
        def run(port):
            meet(2)
            return random.random(), float(numpy.random.rand())
    """
    bench.job(code)
    futures = [bench.pool.submit(bench.again()) for _ in range(2)]
    (one, other), (third, fourth) = (future.result(60).value for future in futures)
    assert one != third
    assert other != fourth


def test_a_worker_does_at_its_end_what_tasks_registered(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.run("""
        import atexit, pathlib, sys, tempfile
        def run(port):
            folder = sys.modules.setdefault("kept", tempfile.TemporaryDirectory(dir=pathlib.Path(__file__).parent))
            atexit.register(pathlib.Path(__file__).with_name("farewell").touch)
    """)
    bench.pool.close()
    assert (bench.root / "farewell").exists()
    assert [path for path in bench.root.iterdir() if path.name.startswith("tmp")] == []


def test_libraries_that_have_threads_work_in_workers(make_bench: MakeBench) -> None:
    bench = make_bench(2, preload=["pandas", "pyarrow.parquet", "polars", "duckdb"])
    code = """
        import io, duckdb, numpy as np, pandas as pd, polars as pl, pyarrow as pa, pyarrow.parquet as pq
        def run(port):
            file = io.BytesIO()
            frame = pd.DataFrame({"a": np.arange(200_000), "b": np.random.rand(200_000)})
            pq.write_table(pa.Table.from_pandas(frame), file)
            file.seek(0)
            table = pq.read_table(file)
            polars = pl.from_arrow(table).group_by(pl.col("a") % 7).agg(pl.col("b").sum()).sort("a")
            rows = duckdb.from_arrow(table).aggregate("a % 7, sum(b)", "a % 7").fetchall()
            return polars.height, len(rows), (np.random.rand(300, 300) @ np.random.rand(300, 300)).shape
    """
    bench.job(code)
    futures = [bench.pool.submit(bench.again(timeout=60)) for _ in range(6)]
    for future in futures:
        result = future.result(120)
        assert result.failure is None
        assert result.value == (7, 7, (300, 300))


def test_multiprocessing_works_in_a_block(bench: Bench) -> None:
    code = """
        import math
        from concurrent.futures import ProcessPoolExecutor
        def run(port):
            with ProcessPoolExecutor(2) as pool:
                return list(pool.map(math.sqrt, [4, 9]))
    """
    assert bench.run(code) == [2.0, 3.0]
    assert bench.run("import asyncio\nasync def f(): return await asyncio.to_thread(int, '3')\n"
                     "def run(port): return asyncio.run(f())") == 3  # fmt: skip


def test_workers_and_their_children_hold_nothing_but_what_is_theirs(make_bench: MakeBench) -> None:
    bench = make_bench(3)
    code = """
        import os, subprocess, sys, time
        def run(port):
            meet(3)
            look = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
            mine = len(os.listdir("/proc/self/fd"))
            theirs = subprocess.run([sys.executable, "-c", look], capture_output=True, close_fds=False, text=True)
            return mine, theirs.stdout
    """
    bench.job(code)
    futures = [bench.pool.submit(bench.again()) for _ in range(3)]
    seen = [future.result(60).value for future in futures]
    assert len({count for count, _ in seen}) == 1, "the last one has no more than the first"
    assert {text for _, text in seen} == {"[0, 1, 2, 3]\n"}, "3 is the folder that is being listed"


def children_of_this() -> list[str]:
    """Ids of this process's children, zombies included."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            if entry.name.isdecimal() and (entry / "stat").read_text().rpartition(")")[2].split()[1] == str(
                os.getpid()
            ):
                found.append(entry.name)
    return found


def test_a_pool_gives_back_all_descriptors_and_processes(tmp_path: Path) -> None:
    def once() -> None:
        bench = Bench(tmp_path, 2)
        bench.fail("import os\ndef run(port): os._exit(1)")
        bench.run("def run(port): print('x')")
        bench.pool.close()
        bench.pool.close()
        assert bench.processes() == []

    once()  # what is opened once and for all
    before = len(list(Path("/proc/self/fd").iterdir()))
    children = set(children_of_this())
    once()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert set(children_of_this()) <= children  # other tests of this process may have left some


def test_a_closed_pool_takes_no_tasks(bench: Bench) -> None:
    bench.pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        bench.pool.submit(bench.job("def run(port): pass"))


def test_closing_ends_what_runs_and_what_waits(bench: Bench) -> None:
    bench.job("import time\ndef run(port): print('up'); time.sleep(600)")
    futures = [bench.pool.submit(bench.again()) for _ in range(3)]
    while not bench.said:
        threading.Event().wait(0.005)
    bench.pool.close()
    for future in futures:
        failure = future.result(0).failure
        assert failure is not None
        assert failure.code == "block.cancelled"


def test_several_pools_at_once_from_threads_that_come_and_go(tmp_path: Path) -> None:
    found: list[Any] = []
    made: list[tuple[Bench, Future[Outcome]]] = []

    def begin(name: str) -> None:
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name, 2)
        made.append((bench, bench.pool.submit(bench.job(f"def run(port): return {name!r}"))))

    threads = [threading.Thread(target=begin, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for bench, future in made:
        found.append(future.result(60).value)
        found.append(bench.outcome(bench.again()).value)  # still up, though the thread that made it is gone
    for bench, _ in made:
        bench.pool.close()
        assert bench.processes() == []
    assert sorted(found) == ["a", "a", "b", "b", "c", "c"]


HOST = """
import sys
from pathlib import Path
from tests.processes.pools import Bench
bench = Bench(Path(sys.argv[1]))
print(bench.run("def run(port): return 'from a worker'"))
{end}
"""


@pytest.mark.parametrize("end", ["bench.pool.close()", "", "raise SystemExit(0)"], ids=["closed", "left", "exit"])
@pytest.mark.parametrize("host", ["script", "stdin", "-c", "unguarded thread"])
def test_any_program_can_be_the_host(tmp_path: Path, host: str, end: str) -> None:
    code = HOST.format(end=end)
    if host == "unguarded thread":
        code = f"import threading\ndef go():\n  {code.replace(chr(10), chr(10) + '  ')}\n"
        code += "t = threading.Thread(target=go)\nt.start()\nt.join()\n"
    script = tmp_path / "script.py"
    script.write_text(code)
    argv = {"script": [str(script)], "stdin": ["-"], "-c": ["-c", code], "unguarded thread": [str(script)]}[host]
    ran = subprocess.run(
        [sys.executable, *argv, str(tmp_path)],
        input=code,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ran.stdout == "from a worker\n", ran.stderr
    assert ran.returncode == 0


def test_blocked_signals_of_the_thread_that_makes_a_pool_reach_no_worker(tmp_path: Path) -> None:
    import signal

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD])
    try:
        bench = Bench(tmp_path)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    look = "import signal\ndef run(port): return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    assert bench.run(look) == []
    assert "code 3" in bench.fail("import os\ndef run(port): os._exit(3)").message
    bench.pool.close()


def test_variables_that_cannot_be_handed_over_are_wrong_configuration(bench: Bench) -> None:
    bench.job("def run(port): pass")
    failure = bench.pool.submit(bench.again(arguments=threading.Lock())).result(0).failure
    assert failure is not None
    assert failure.code == "block.unpicklable_arguments"
    assert "cannot pickle '_thread.lock'" in failure.message


def test_results_that_cannot_be_handed_back_fail_their_task_alone(bench: Bench) -> None:
    assert bench.fail("def run(port): return lambda: 1").code == "block.unpicklable_result"
    one_of_its_own = """
        import sys, types
        module = sys.modules["mine"] = types.ModuleType("mine")
        module.Mine = type("Mine", (), {"__module__": "mine"})
        def run(port): return module.Mine()
    """
    failure = bench.fail(one_of_its_own)
    assert failure.code == "block.unpicklable_result"
    assert "ModuleNotFoundError" in failure.message
    assert bench.run("def run(port): return 1") == 1


def test_large_tasks_and_results_pass(bench: Bench) -> None:
    bench.job("def run(port): return b'x' * 50_000_000")
    outcome = bench.outcome(bench.again(arguments="y" * 30_000_000))
    assert len(outcome.value) == 50_000_000


def test_the_pool_needs_a_worker(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        WorkerPool(0, run_id="r", on_line=print, on_secret=print)


def test_tasks_sent_in_vain_are_not_waited_for(bench: Bench) -> None:
    bench.job("import time\ndef run(port): time.sleep(0.1)")
    first, second = bench.pool.submit(bench.again()), bench.pool.submit(bench.again())
    assert second.cancel()
    assert first.result(60).failure is None
    assert bench.run("def run(port): return 2") == 2
