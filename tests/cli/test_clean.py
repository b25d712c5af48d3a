"""`streamline clean`."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.conformance.integration.common import INCREMENTAL, rows_tap
from tests.conftest import MakeProject
from tests.support.processes import wait_until
from tests.support.project import Project, tap, target


def folders(project: Project) -> list[str]:
    return sorted(path.name for path in (project.root / ".streamline" / "runs").iterdir())


def test_clean_deletes_what_old_runs_left_and_nothing_else(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 5}), target())
    project.run().expect(0)
    (old,) = folders(project)
    long_ago = time.time() - 40 * 86400
    for path in [*(project.root / ".streamline" / "runs" / old).iterdir(), project.root / ".streamline" / "runs" / old]:
        os.utime(path, (long_ago, long_ago))
    project.run().expect(0)
    (new,) = set(folders(project)) - {old}

    project.command("clean").expect(0, "1 run")

    assert folders(project) == [new]
    assert len(project.runs()) == 2
    assert project.position() == 5
    project.command("clean", "--older-than", "soon").expect(2, "--older-than")


def test_clean_leaves_alone_what_runs(make_project: MakeProject) -> None:
    config = {"rows": 50, "state_every": 10, "wait_at": 20, "wait_for": "go", "spy": "spy"}
    project = make_project(tap("counts", config, streams={"numbers": INCREMENTAL}), target())
    running = project.start("run", "p")
    wait_until(project.spied, "the run's tap is there")

    project.command("clean", "--older-than", "0").expect(0, "0 runs")

    project.write("go", "")
    running.finish().expect(0)
    project.command("clean", "--older-than", "0").expect(0, "1 run")
    assert folders(project) == []


def test_clean_deletes_nothing_through_a_link(make_project: MakeProject, tmp_path: Path) -> None:
    project = make_project(rows_tap({"numbers": 5}), target())
    (tmp_path / "photos" / "old").mkdir(parents=True)
    (project.root / ".streamline").mkdir()
    (project.root / ".streamline" / "runs").symlink_to(tmp_path / "photos")
    project.command("clean", "--older-than", "0").expect(2, "symbolic link")
    assert (tmp_path / "photos" / "old").is_dir()
