"""The lease: one holder per pipeline, taken back by the system when the holder dies, however it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamline.errors import LeaseHeld
from streamline.state import open_store
from streamline.state.lease import lock_path
from streamline.state.sqlite import _may_live
from streamline.state.store import LeaseInfo, Store
from tests.support.failures import fails

URL = "sqlite:///.streamline/state.db"

HOLDER = """
import subprocess, sys
from pathlib import Path
from streamline.state import open_store
store = open_store("sqlite:///.streamline/state.db", Path(sys.argv[1]))
lease = store.acquire_lease("shop", "run-1")
child = subprocess.Popen(["sleep", "60"], close_fds=False)
print(child.pid, flush=True)
sys.stdin.read()
lease.release()
store.close()
print("released", flush=True)
sys.stdin.close()
child.kill()
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(URL, tmp_path)
    yield store
    store.close()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease of `shop`, and has a child that it started without closing anything."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    with contextlib.suppress(ProcessLookupError):  # a holder that was let go has ended it itself
        os.kill(child, signal.SIGKILL)


def test_a_second_process_is_refused_and_told_who_holds_it(store: Store, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(LeaseHeld) as caught:
        store.acquire_lease("shop", "run-2")
    assert "run-1" in str(caught.value)
    assert str(holder.pid) in str(caught.value)
    assert "since 20" in str(caught.value)
    assert caught.value.exit_code == 1
    info = store.lease_holder("shop")
    assert info is not None
    assert (info.run_id, info.pid) == ("run-1", holder.pid)


def test_another_pipeline_is_free(store: Store, holder: subprocess.Popen[str]) -> None:
    store.acquire_lease("other", "run-2").release()


def test_a_killed_holder_frees_it_though_its_child_lives(store: Store, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert store.lease_holder("shop") is None
    with store.acquire_lease("shop", "run-2"):
        info = store.lease_holder("shop")
        assert info is not None
        assert info.run_id == "run-2"


def test_releasing_frees_it_for_others(store: Store, holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.close()
    assert holder.stdout.readline() == "released\n"
    with store.acquire_lease("shop", "run-2") as lease:
        assert lease.run_id == "run-2"
    assert store.lease_holder("shop") is None
    lease.release()


def test_one_process_cannot_take_it_twice(store: Store) -> None:
    with store.acquire_lease("shop", "run-1"), fails("run.lease_held", "run-1"):
        store.acquire_lease("shop", "run-2")
    store.acquire_lease("shop", "run-2").release()


def test_a_forked_child_does_not_keep_it(store: Store) -> None:
    lease = store.acquire_lease("shop", "run-1")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        lease.release()
        store.acquire_lease("shop", "run-2").release()
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_a_holder_that_has_not_said_its_name_is_still_a_holder(store: Store, tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / ".streamline" / "locks" / "shop.lock"
    path.parent.mkdir()
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with fails("run.lease_held", "has not recorded its run id"):
            store.acquire_lease("shop", "run-2")


def test_a_lease_may_outlive_its_store(tmp_path: Path) -> None:
    store = open_store(URL, tmp_path)
    lease = store.acquire_lease("shop", "run-1")
    store.close()
    lease.release()
    again = open_store(URL, tmp_path)
    again.acquire_lease("shop", "run-2").release()
    again.close()


def test_names_of_pipelines_make_distinct_safe_files(tmp_path: Path) -> None:
    names = ["a", "a/b", "a%2fb", "..", "a b", "żółw", "A"]
    paths = {lock_path(tmp_path, name) for name in names}
    assert len(paths) == len(names)
    assert {path.parent for path in paths} == {tmp_path}


def test_of_a_holder_on_this_machine_it_is_known_whether_it_lives() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    here = os.uname().nodename
    lives = [
        _may_live(LeaseInfo(pipeline="p", run_id="r", pid=pid, host=host, since=""))
        for pid, host in ((child, here), (os.getpid(), here), (child, f"not-{here}"))
    ]
    assert lives == [False, True, True]
