"""A DuckDB file that another process has open."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from streamline.databases.base import DatabaseError
from streamline.databases.registry import database

HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


@pytest.fixture
def holder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the run `r1` that has w.duckdb open until its input ends."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "w.duckdb")]
    env = {**os.environ, "STREAMLINE_RUN_ID": "r1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield process
        process.kill()


@pytest.fixture
def refused(holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB's first refusal is raised again as long as the process has the file open: an attempt takes long."""
    connect = duckdb.connect
    refusals: list[Exception] = []

    def connect_or_refuse(*args: Any, **options: Any) -> duckdb.DuckDBPyConnection:
        if refusals and holder.poll() is None:
            raise refusals[0]
        try:
            return connect(*args, **options)
        except duckdb.Error as error:
            refusals.append(error)
            raise

    monkeypatch.setattr("duckdb.connect", connect_or_refuse)


@pytest.fixture
def slept(holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, refused: None) -> list[float]:
    """Seconds passed to `time.sleep`, which returns at once. After 90 of them the process closes the file."""
    found: list[float] = []

    def sleep(seconds: float) -> None:
        found.append(seconds)
        if sum(found) > 90:
            holder.kill()
            holder.wait()

    monkeypatch.setattr("time.sleep", sleep)
    return found


def open_it(folder: Path) -> None:
    database("duckdb", {"DUCKDB_DATABASE": "w.duckdb"}, root=folder).close()


def test_another_program_is_waited_for_a_minute(
    tmp_path: Path, slept: list[float], holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLINE_RUN_ID", "r2")
    with pytest.raises(DatabaseError, match=rf"another process \(PID {holder.pid}\) has .*w\.duckdb open"):
        open_it(tmp_path)
    assert 55 < sum(slept) < 65


def test_another_block_of_the_run_is_waited_for_longer_and_the_log_says_so(
    tmp_path: Path,
    slept: list[float],
    holder: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("STREAMLINE_RUN_ID", "r1")
    open_it(tmp_path)
    assert sum(slept) > 90
    [said] = caplog.messages
    assert said.endswith(f"w.duckdb, which another process has open (process {holder.pid}, of this run)")


def test_no_progress_bar_is_printed(tmp_path: Path) -> None:
    with closing(database("duckdb", {"DUCKDB_DATABASE": "w.duckdb"}, root=tmp_path)) as opened:
        table = opened.query("SELECT current_setting('enable_progress_bar') AS shown")
    assert table is not None
    assert table.to_pylist() == [{"shown": False}]
