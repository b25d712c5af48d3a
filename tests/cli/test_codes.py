"""`--json` shows the code of each failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.integration.common import rows_tap
from tests.conftest import MakeProject
from tests.support.batch import BatchProject
from tests.support.project import target


@pytest.fixture
def project(tmp_path: Path) -> BatchProject:
    """One block that fails."""
    made = BatchProject(tmp_path / "shop")
    made.block("a", "@data_loader\ndef load():\n    raise ValueError('no')\n", type="data_loader")
    return made


def shown(project: Any, code: int, *args: str) -> Any:
    completed = project.command(*args, "--json")
    assert completed.code == code, completed
    return json.loads(completed.out)


def test_of_a_run_and_its_record(project: BatchProject) -> None:
    assert shown(project, 1, "run", "p")["errors"]["a"]["code"] == "block.failed"
    recorded = shown(project, 0, "runs", "show")
    assert recorded["code"] == "block.failed"
    assert [block["code"] for block in recorded["blocks"]] == ["block.failed"]


def test_of_what_a_worker_process_died_of(project: BatchProject) -> None:
    project.write("data_loaders/a.py", "import os\n@data_loader\ndef load():\n    os._exit(3)\n")
    assert shown(project, 1, "run", "p")["errors"]["a"]["code"] == "block.exited"


def test_of_an_integration_run(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"orders": 3}, {"fail_at_start": {"stream": "orders"}}), target())
    result = shown(project, 1, "run", "p")
    (failure,) = result["errors"].values()
    assert failure["code"].startswith("tap.")
    assert shown(project, 0, "runs", "show")["code"] == failure["code"]


def test_of_what_is_wrong_before_anything_runs(project: BatchProject) -> None:
    assert shown(project, 2, "run", "p", "--stream", "s")["error"]["code"] == "run.option_refused"
    project.write("data_loaders/a.py", "def load(:\n")
    assert shown(project, 2, "run", "p")["error"]["code"]


def test_of_checks(project: BatchProject) -> None:
    project.write("data_loaders/a.py", "def load(:\n")
    checks = shown(project, 2, "check", "p")["checks"]
    assert all((check["code"] is None) == check["ok"] for check in checks)


def test_of_tests(project: BatchProject) -> None:
    project.write(
        "data_loaders/a.py",
        "@data_loader\ndef load():\n    return 1\n@test\ndef test_output(value, *args):\n    assert value == 2\n",
    )
    project.run().expect(0)
    (block,) = shown(project, 1, "test", "p")["blocks"]
    assert [test["code"] for test in block["tests"]] == ["block.test_failed"]
