"""`streamline init`: a project that runs at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamline.cli.main import main
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from tests.support.preloaded import streamline


def init(folder: Path, *options: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["init", str(folder), *options])
    assert result.exit_code == code, result.output
    return result.output


def test_the_project_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "my shop"
    out = init(folder)
    project = Project.open(folder)
    assert project.name == "my_shop"
    assert project.warnings == []
    model = load_pipeline(project, "example")
    assert model.order() == ["read_orders", "add_total", "write_orders"]
    assert load_pipeline(project, "report").order() == ["load_orders", "total_by_customer", "write_report"]
    assert load_pipeline(project, "live").order() == ["stream_orders", "large_orders", "append_orders"]
    assert load_pipeline(project, "models").order() == ["load_orders", "customers"]
    for pipeline in project.pipelines():
        assert f"streamline run {pipeline}" in out
    assert f"cd '{folder}'" in out
    assert "/.streamline/" in (folder / ".gitignore").read_text()
    for name in ("__init__.py", "requirements.txt"):
        assert (folder / "pipelines/example" / name).exists()


def test_an_empty_project_has_no_examples(tmp_path: Path) -> None:
    assert "streamline create NAME" in init(tmp_path, "--empty")
    assert Project.open(tmp_path).pipelines() == []
    assert list(tmp_path.rglob("*.csv")) == []


def test_it_stands_beside_other_files(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / ".gitignore").write_text("*.log\n__pycache__/")
    init(tmp_path)
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines[:2] == ["*.log", "__pycache__/"]
    assert "/.streamline/" in lines
    assert lines.count("__pycache__/") == 1


@pytest.mark.parametrize(
    ("file", "says"),
    [("streamline.yaml", "is already a project"), ("data/orders.csv", "is not overwritten"), ("", "is a file")],
)
def test_nothing_is_overwritten(tmp_path: Path, file: str, says: str) -> None:
    folder = tmp_path / "shop"
    taken = folder / file if file else folder
    taken.parent.mkdir(parents=True, exist_ok=True)
    taken.write_text("name: mine\n")
    assert says in init(folder, code=2)
    assert taken.read_text() == "name: mine\n"
    if file:
        assert [path for path in folder.rglob("*") if path.is_file()] == [taken]


@pytest.mark.parametrize("pipeline", ["example", "report", "live", "models"])
def test_check_finds_nothing_wrong(tmp_path: Path, pipeline: str) -> None:
    init(tmp_path)
    result = CliRunner().invoke(main, ["--project", str(tmp_path), "check", pipeline])
    assert result.exit_code == 0, result.output


def run(folder: Path, pipeline: str) -> str:
    done = streamline(folder, "run", pipeline)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_integration_example_runs_at_once(tmp_path: Path) -> None:
    init(tmp_path)
    run(tmp_path, "example")
    written = "".join(path.read_text() for path in sorted((tmp_path / "output").rglob("*.jsonl")))
    assert written.count("\n") == 5
    assert '"total"' in written


def test_the_batch_example_runs_at_once(tmp_path: Path) -> None:
    init(tmp_path)
    assert "4 customers" in run(tmp_path, "report")
    lines = (tmp_path / "output/report.csv").read_text().splitlines()
    assert lines[:3] == ["customer,orders,total", "Grace,1,249.0", "Ada,2,78.8"]


def test_the_streaming_example_goes_on_where_it_ended(tmp_path: Path) -> None:
    init(tmp_path)
    run(tmp_path, "live")
    run(tmp_path, "live")
    numbers = [json.loads(line)["id"] for line in (tmp_path / "output/large_orders.jsonl").read_text().splitlines()]
    assert (numbers[0], numbers[-1]) == (4, 39)
    assert numbers == sorted(set(numbers))


def test_the_batch_example_s_condition_decides(tmp_path: Path) -> None:
    init(tmp_path)
    metadata = tmp_path / "pipelines/report/metadata.yaml"
    metadata.write_text(metadata.read_text().replace("at_least: 1", "at_least: 100"))
    assert "skipped" in run(tmp_path, "report")
    assert not (tmp_path / "output").exists()
