"""A disk that fills in the middle of a run: told as that, nothing lost, and the next run goes on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from streamline.cli.main import main
from streamline.state import open_store
from streamline.state.connection import SQLiteConnection
from streamline.telemetry import runlog
from tests.conformance.integration.common import rows_tap, upto
from tests.conftest import MakeProject
from tests.support.project import Project, target

BAD = [n for n in upto(300) if n % 5 == 0]
GOOD = [n for n in upto(300) if n % 5]


def run(project: Project) -> tuple[int, dict[str, Any]]:
    """Run the pipeline in this process; return its exit code and what it prints as JSON."""
    result = CliRunner().invoke(main, ["--project", str(project.root), "run", "p", "--json"])
    return result.exit_code, json.loads(result.stdout)


def letters(project: Project) -> list[int]:
    """Return the ids of the records that were refused."""
    with contextlib.closing(open_store("sqlite:///.streamline/state.db", project.root)) as store:
        return sorted(json.loads(letter.record)["id"] for letter in store.dead_letters("p"))


def test_a_state_store_without_space_ends_the_run_and_the_next_one_goes_on(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": n, "text": "text" if n % 5 else [f"{n} " * 1000]} for n in upto(300)]
    project = make_project(
        rows_tap({"numbers": rows}, {"page": 10}), target("keyed", {"flush": 5}, on_bad_record="quarantine")
    )
    opened = SQLiteConnection.__init__

    def limited(self: SQLiteConnection, path: Path) -> None:
        opened(self, path)
        with self.read() as db:
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            db.execute(f"PRAGMA max_page_count={pages + 30}")

    with monkeypatch.context() as patch:
        patch.setattr(SQLiteConnection, "__init__", limited)
        code, result = run(project)

    assert (code, result["error"]["code"]) == (1, "disk.full")
    assert result["error"]["where"] == str(project.root / ".streamline/state.db")
    assert re.search(r"\d KiB ", result["error"]["message"])
    saved = project.position() or 0
    assert saved < 300
    assert set(upto(saved)) <= {*project.ids(), *letters(project)}

    code, result = run(project)

    assert (code, result["status"]) == (0, "completed")
    assert project.ids() == GOOD
    assert letters(project) == BAD
    assert project.position() == 300


def test_a_log_without_space_ends_nothing_and_says_what_is_missing(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(rows_tap({"numbers": 20}), target())
    written = os.write
    log = f"{project.root}/.streamline/runs"
    refused: list[int] = []

    def write(descriptor: int, data: bytes) -> int:
        if len(refused) == 2 or not str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith(log):
            return written(descriptor, data)
        refused.append(descriptor)
        if len(refused) == 1:
            return written(descriptor, data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runlog.os, "write", write)
    code, result = run(project)

    assert code == 0
    assert project.ids() == upto(20)
    (warning,) = result["warnings"]
    assert warning.endswith("run.log: lines are missing: No space left on device")
    (path,) = Path(log).glob("*/run.log")
    torn, note, *rest = path.read_text().splitlines()
    assert len(torn) == 10
    assert note.endswith("(lines that could not be written: 1)")
    assert rest
