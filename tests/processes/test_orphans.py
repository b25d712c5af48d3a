"""What a killed run left is found by its id, and ended; nothing else is."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from streamline.processes import orphans
from streamline.processes.orphans import RUN_ID_VARIABLE, end_processes, processes_of, remove_private_files

Started = list["subprocess.Popen[bytes]"]

RUN = f"run-{token_hex(4)}-"
"""Other tests look for leftovers on the same machine at the same time."""


@pytest.fixture
def started() -> Iterator[Started]:
    processes: Started = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def start(started: Started, run_id: str, code: str = "print(flush=True); time.sleep(60)", **more: str) -> int:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import os, signal, sys, time\n" + code],
        env={RUN_ID_VARIABLE: run_id, **more},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    started.append(process)
    assert process.stdout is not None
    process.stdout.readline()  # it is up
    return process.pid


def test_processes_are_found_by_the_whole_id_of_their_run(started: Started) -> None:
    mine = start(started, f"{RUN}1")
    start(started, f"{RUN}11")
    start(started, f"{RUN}2", OTHER=f"{RUN_ID_VARIABLE}={RUN}1")
    also = start(started, f"{RUN}3")
    assert processes_of([f"{RUN}1"]) == [mine]
    assert sorted(processes_of([f"{RUN}1", f"{RUN}3"])) == sorted([mine, also])
    assert processes_of([f"{RUN}4"]) == []
    assert processes_of([]) == []


def test_they_are_ended_with_what_they_forked_and_others_are_not(started: Started) -> None:
    forks = "signal.signal(15, signal.SIG_IGN)\nif os.fork() == 0: os.setsid()\nprint(flush=True); time.sleep(60)"
    start(started, f"{RUN}1", forks)
    other = start(started, f"{RUN}2")
    assert end_processes([f"{RUN}1"]) >= 1
    assert processes_of([f"{RUN}1"]) == []
    assert processes_of([f"{RUN}2"]) == [other]
    assert end_processes([f"{RUN}1"]) == 0


def test_one_that_forks_without_end_is_ended_too(started: Started) -> None:
    code = """print(flush=True)
end = time.monotonic() + 30  # whatever becomes of the test, the machine is not left with it
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    os.setsid()
    time.sleep(0.01)
"""
    start(started, f"{RUN}1", code)
    end_processes([f"{RUN}1"])
    assert processes_of([f"{RUN}1"]) == []


@pytest.mark.parametrize("lists", [True, False])
def test_children_of_every_thread_are_listed(started: Started, monkeypatch: pytest.MonkeyPatch, *, lists: bool) -> None:
    if not lists:
        monkeypatch.setattr("os.path.exists", lambda path: False)
    pids = [start(started, RUN)]
    thread = threading.Thread(target=lambda: pids.append(start(started, RUN)))
    thread.start()
    thread.join()
    assert set(pids) <= set(orphans.children())


MISSED = """
import itertools, os, subprocess
from streamline.processes import orphans
listed, child = orphans.children, subprocess.Popen(["sleep", "60"])
answers = itertools.chain([list], itertools.repeat(listed))
orphans.children = lambda: next(answers)()
orphans.end_children(())
print(os.path.exists(f"/proc/{child.pid}"))
"""


def test_a_child_that_the_kernels_list_missed_is_ended() -> None:
    # In a process of its own: all of its children are ended.
    done = subprocess.run([sys.executable, "-c", MISSED], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_runs_folder_keeps_its_logs_only(tmp_path: Path) -> None:
    folder = tmp_path / f"{RUN}1"
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "file").write_text("x")
    (folder / "batches" / "deep").mkdir(parents=True)
    (folder / "batches" / "deep" / "1.jsonl").write_text("{}")
    (folder / "load.config.json").write_text("{}")
    (folder / ".load.config.json.tmp").write_text("{}")
    (folder / "run.log").write_text("log")
    (folder / "instance-0.log").write_text("log")
    (folder / "link").symlink_to(outside)

    remove_private_files(tmp_path / f"{RUN}1", "*.log")
    remove_private_files(tmp_path / f"{RUN}1", "*.log")
    remove_private_files(tmp_path / f"{RUN}2", "*.log")

    assert sorted(path.name for path in folder.iterdir()) == ["instance-0.log", "run.log"]
    assert (outside / "file").exists()


def test_one_file_that_cannot_be_removed_keeps_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"{RUN}1"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_text("secret")
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == "b":
            raise PermissionError
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    remove_private_files(tmp_path / f"{RUN}1", "run.log")
    assert [path.name for path in folder.iterdir()] == ["b"]
