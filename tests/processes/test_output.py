"""What blocks print, log and learn reaches the runner: in order, whole, in bounded memory."""

from __future__ import annotations

import resource
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.processes import child, line_splitter, wire
from streamline.processes.job import Job
from streamline.processes.line_splitter import LineSplitter
from streamline.processes.shared_page import SharedPage
from tests.processes.conftest import MakeBench
from tests.processes.pools import Bench


@given(st.lists(st.binary(max_size=20)), st.integers(1, 7))
def test_lines_are_what_split_gives_however_they_come(parts: list[bytes], size: int) -> None:
    text = b"\n".join(parts)
    found: list[bytes] = []
    splitter = LineSplitter(found.append)
    for start in range(0, len(text), size):
        splitter.feed(text[start : start + size])
    splitter.end()
    expected = text.split(b"\n")
    assert found == (expected if expected[-1] else expected[:-1])


@given(st.lists(st.integers(0, 3 * 40), max_size=6), st.integers(1, 100))
def test_long_lines_are_cut_and_others_are_not(lengths: list[int], size: int) -> None:
    whole, line_splitter.LONGEST = line_splitter.LONGEST, 40
    try:
        found: list[bytes] = []
        splitter = LineSplitter(found.append)
        text = b"".join(bytes([65 + n]) * length + b"\n" for n, length in enumerate(lengths))
        for start in range(0, len(text), size):
            splitter.feed(text[start : start + size])
        splitter.end()
    finally:
        line_splitter.LONGEST = whole
    assert found == [bytes([65 + n]) * min(length, 40) for n, length in enumerate(lengths)]


def test_a_line_that_was_cut_is_cut_by_the_log_as_well() -> None:
    cut = ("😀" * line_splitter.LONGEST).encode()[: line_splitter.LONGEST].decode("utf-8", "replace")
    masker = type("", (), {"mask": staticmethod(lambda text: text)})()
    assert child.log_text(cut, masker).endswith(" [cut]")


@given(st.lists(st.tuples(st.sampled_from([b"R", b"L", b"S"]), st.binary(max_size=30))), st.integers(1, 40))
def test_frames_come_out_as_they_went_in(frames: list[tuple[bytes, bytes]], size: int) -> None:
    data = b"".join(wire.FRAME.pack(kind, len(payload)) + payload for kind, payload in frames)
    reader = wire.Frames()
    found = [frame for start in range(0, len(data), size) for frame in reader.feed(data[start : start + size])]
    assert found == frames


def test_lines_bear_their_task_and_come_before_its_end(make_bench: MakeBench) -> None:
    lines: list[tuple[Job | None, bytes]] = []
    bench = make_bench(2, on_line=lambda job, line: lines.append((job, line)))
    code = """
        import os, sys
        def run(port):
            meet(2)
            for n in range(500): print(n, "näh")
            print("to stderr", file=sys.stderr)
            os.write(1, b"bytes \\xff\\n")
            os.system("echo from a child")
            print("no newline", end="")
    """
    bench.job(code, name="b")
    jobs = [bench.again("b") for _ in range(2)]
    futures = [bench.pool.submit(job) for job in jobs]
    for job, future in zip(jobs, futures, strict=True):
        assert future.result(60).failure is None
        mine = [line for writer, line in lines if writer is job]
        wanted = [f"{n} näh".encode() for n in range(500)]
        assert mine == [*wanted, b"to stderr", b"bytes \xff", b"from a child", b"no newline"]


def test_what_c_code_printed_is_there_at_the_end_of_its_task(bench: Bench) -> None:
    bench.run("import ctypes\ndef run(port): ctypes.CDLL(None).printf(b'from C\\n')")
    assert bench.lines() == ["from C"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_line_is_written_at_once_and_whole(make_bench: MakeBench, unbuffered: str) -> None:
    bench = make_bench(env={"PYTHONUNBUFFERED": unbuffered, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    code = """
        import os, sys
        def run(port):
            for stream in (sys.stdout, sys.stderr):
                print("a", 1, "ü", file=stream)
                print("half", end=" ", file=stream)
            os.kill(os.getpid(), 9)
    """
    bench.fail(code)
    assert bench.lines() == ["a 1 ü", "a 1 ü"]


def test_a_hundred_megabytes(make_bench: MakeBench) -> None:
    seen = [0, 0]

    def count(job: Job | None, line: bytes) -> None:
        seen[0] += 1
        seen[1] += len(line) + 1

    bench = make_bench(on_line=count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bench.run("def run(port):\n    for n in range(100_000): print('x' * 999)\n    for n in range(10): print('x' * 9)")
    assert seen == [100_010, 100_000_100]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KiB


def test_one_line_of_fifty_megabytes_without_an_end(make_bench: MakeBench) -> None:
    seen: list[bytes] = []
    bench = make_bench(on_line=lambda job, line: seen.append(line))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bench.run("import sys\ndef run(port): sys.stdout.write('x' * 50_000_000)")
    bench.run("def run(port): print('next')")
    assert seen == [b"x" * line_splitter.LONGEST, b"next"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KiB


def test_a_child_that_prints_for_ever_does_not_keep_its_task_from_ending(bench: Bench) -> None:
    bench.run("import subprocess\ndef run(port): subprocess.Popen(['yes']); import time; time.sleep(0.05)")
    assert len(bench.processes()) <= 2, "the fork server, and perhaps a worker"
    assert set(bench.lines()) <= {"y", ""}
    assert bench.run("def run(port): return 1") == 1


def test_secrets_are_known_before_what_could_show_them(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.run("""
        import os
        def run(port):
            for n in range(300):
                os.write(1, b"before ")
                port.secret(f"secret {n} \\udcff")
                print(f"secret {n}", flush=True)
    """)
    known: set[str] = set()
    lines_seen = 0
    for what, *rest in bench.said:
        if what == "secret":
            known.add(rest[0].removesuffix(" \udcff"))
        else:
            lines_seen += 1
            assert rest[2].removeprefix("before ") in known
    assert lines_seen == 300


def test_secrets_of_a_task_that_dies_at_once_are_known(bench: Bench) -> None:
    bench.fail("import os\ndef run(port): port.secret('x'); print('has x'); os._exit(1)")
    assert [(one[0], one[-1]) for one in bench.said] == [("secret", "x"), ("line", "has x")]


def test_log_lines_come_between_the_lines_where_they_were_said(bench: Bench) -> None:
    job = bench.job("""
        class Text(str): pass
        def run(port):
            for n in range(200):
                print(n)
                port.log(Text(f"log {n}"), "WARNING")
                port.log("again")
    """)
    bench.outcome(job)
    whose = (job.id, "block")
    assert bench.said == [
        one
        for n in range(200)
        for one in (
            ("line", *whose, str(n)),
            ("log", *whose, f"log {n}", "WARNING"),
            ("log", *whose, "again", "INFO"),
        )
    ]


def test_output_that_is_being_read_is_counted_when_the_read_has_ended(tmp_path: Path) -> None:
    with (tmp_path / "page").open("w+b") as file:
        page = SharedPage(file.fileno())
    page.begin_read()
    later = threading.Timer(0.05, page.end_read, [5])  # a runner that others keep from the processor
    later.start()
    assert page.written(lambda: 0) == 5
    later.join()
    page.close()


def test_log_lines_are_lines_where_nobody_asked_for_them(make_bench: MakeBench) -> None:
    bench = make_bench(on_log=None)
    bench.run("def run(port): port.log('said')")
    assert bench.lines() == ["said"]


def test_threads_may_log_as_well_and_not_after_the_end(bench: Bench) -> None:
    code = """
        import threading
        def run(port):
            threads = [threading.Thread(target=lambda: [port.log(str(n)) for n in range(50)]) for _ in range(4)]
            [t.start() for t in threads]; [t.join() for t in threads]
            __import__("sys").modules["port"] = port
    """
    bench.run(code)
    assert sorted(one[3] for one in bench.said) == sorted(str(n) for n in range(50) for _ in range(4))
    bench.run("import sys\ndef run(port): sys.modules['port'].log('late')")
    assert len(bench.said) == 200


@pytest.mark.parametrize("which", ["on_line", "on_secret"])
def test_a_listener_that_fails_ends_nothing(
    make_bench: MakeBench, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space")

    bench = make_bench(**{which: fail})
    assert bench.run("def run(port): print('x'); port.secret('y'); return 1") == 1
    assert "no space" in caplog.text


def test_what_a_preloaded_module_prints_is_nobodys(make_bench: MakeBench) -> None:
    bench = make_bench(preload=["this"])
    bench.run("def run(port): pass")
    heard = threading.Event()
    while "The Zen of Python, by Tim Peters" not in bench.lines():
        heard.wait(0.005)
    assert {one[1:3] for one in bench.said} == {(None, None)}
