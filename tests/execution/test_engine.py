"""A type of pipeline is one entry of the table of engines: every command and the API find it there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from click.testing import CliRunner

import streamline
from streamline.cli.main import main
from streamline.errors import ConfigError
from streamline.execution import engine
from streamline.execution.batch.explain import BatchExplanation
from streamline.execution.checklist import Checklist
from streamline.execution.engine import ENGINES, FLAGS, types_taking
from streamline.execution.events import Bus, RunPlanned
from streamline.execution.run import RunOptions, RunResult, Stop
from streamline.pipeline.model import PipelineModel
from streamline.project.project import Project
from tests.support.batch import BatchProject
from tests.support.failures import refuses

ROOT = Path(streamline.__file__).parent


class FakeEngine:
    """Runs nothing, and says so."""

    uvloop = False
    seen: ClassVar[list[RunOptions]] = []

    async def run(
        self, project: Project, model: PipelineModel, options: RunOptions, bus: Bus, stop: Stop | None = None
    ) -> RunResult:
        self.seen.append(options)
        bus.publish(RunPlanned(run_id="r1", pipeline=model.uuid, blocks=[]))
        return RunResult(run_id="r1", status="completed", summary={"blocks": {}})

    def explain(self, project: Project, model: PipelineModel, options: RunOptions, *, dry_run: bool = False) -> Any:
        return BatchExplanation(pipeline=model.uuid, type=model.type, at_once=7, outputs="none", steps=[], blocks=[])

    def check(self, project: Project, model: PipelineModel, options: RunOptions, checklist: Checklist) -> None:
        checklist.passed("plan", None, "it can run")

    def test(self, project: Project, model: PipelineModel, options: RunOptions, bus: Bus) -> list[Any]:
        raise ConfigError("nothing to test", code="output.never_stored")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchProject:
    """A pipeline of a type that one entry adds."""
    made = BatchProject(tmp_path / "shop")
    made.block("a", "@data_loader\ndef load():\n    return 1\n", type="data_loader")
    entry = engine._Entry(f"{__name__}:FakeEngine", frozenset({"resume"}))
    monkeypatch.setitem(ENGINES, "dbt", entry)
    file = made.root / "pipelines" / "p" / "metadata.yaml"
    text, changed = re.subn(r"^type: python$", "type: dbt", file.read_text(), flags=re.MULTILINE)
    assert changed == 1
    file.write_text(text)
    FakeEngine.seen.clear()
    return made


def command(project: BatchProject, *args: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["--project", str(project.root), *args])
    return result.exit_code, result.output


def test_the_command_line_asks_the_engine(project: BatchProject) -> None:
    code, text = command(project, "run", "p", "--resume")
    assert (code, text.splitlines()) == (0, ["p: run r1", "completed: no blocks"])
    assert FakeEngine.seen[0].resume
    code, text = command(project, "run", "p", "--json")
    assert json.loads(text)["status"] == "completed"
    assert "at most 7 at once" in command(project, "explain", "p")[1]
    assert "at most 7 at once" in command(project, "run", "p", "--dry-run")[1]
    assert "1 of 1 ok" in command(project, "check", "p")[1]
    assert command(project, "test", "p")[0] == 2


def test_options_that_it_does_not_take_are_refused(project: BatchProject) -> None:
    code, text = command(project, "run", "p", "--stream", "s", "--json")
    assert code == 2
    assert "run.option_refused" in text
    assert not FakeEngine.seen


def test_the_api_asks_the_engine(project: BatchProject) -> None:
    assert streamline.Pipeline("p", project.root).execute_sync({"x": 1}).run_id == "r1"
    assert FakeEngine.seen[0].variables == {"x": 1}
    with refuses("run.option_refused", "does not run alone"):
        streamline.Pipeline("p", project.root).execute_block("a")


def test_every_option_that_not_all_take_is_taken_by_one() -> None:
    assert all(types_taking(option) for option in FLAGS)
    fields = {field.name for field in msgspec.structs.fields(RunOptions)}
    assert {option for entry in ENGINES.values() for option in entry.options} == set(FLAGS)
    assert set(FLAGS) < fields


@pytest.mark.parametrize(
    "file", ["api.py", "triggers.py", *(f"cli/{each.name}" for each in (ROOT / "cli").glob("*.py"))]
)
def test_nothing_above_the_engines_looks_at_a_pipelines_type(file: str) -> None:
    assert not re.search(r"(model|pipeline)\.type (==|!=|in|not in) ", (ROOT / file).read_text("utf-8"))
