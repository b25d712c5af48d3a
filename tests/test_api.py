"""Pipelines from scripts: made, looked at and run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import streamline
from streamline import ConfigError, LeaseHeld, Pipeline, PipelineFailed, PipelineType, StreamlineError, get_repo_path
from tests.support.batch import BatchProject
from tests.support.failures import fails, refuses
from tests.support.processes import wait_until

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchProject]:
    made = BatchProject(tmp_path / "shop")
    monkeypatch.chdir(made.root)
    monkeypatch.delenv("ENV", raising=False)
    yield made
    made.close()


@pytest.fixture
def pipeline(project: BatchProject) -> Pipeline:
    """Three blocks in a row: a list, its numbers doubled, and the sum of these written to a file."""
    project.block(
        "load", "@data_loader\ndef load(*args, **kwargs): return [1, 2, kwargs.get('last', 3)]\n", type="data_loader"
    )
    project.block("double", "@transformer\ndef double(numbers, *args): return [2 * one for one in numbers]\n")
    project.block(
        "write",
        """
        @data_exporter
        def write(numbers, *args, **kwargs):
            with open('log.txt', 'a') as file:
                print(sum(numbers), kwargs['env'], file=file)
        """,
        type="data_exporter",
    )
    return Pipeline.get("p")


def test_create_as_documented(project: BatchProject) -> None:
    made = Pipeline.create(
        "my_pipeline",
        repo_path=str(project.root),
        pipeline_type=PipelineType.PYTHON,
        description="My data pipeline",
        tags=["etl", "production"],
    )
    folder = project.root / "pipelines" / "my_pipeline"
    assert sorted(path.name for path in folder.iterdir()) == ["__init__.py", "metadata.yaml", "requirements.txt"]
    assert (made.uuid, made.name, made.type, made.description) == (
        "my_pipeline",
        "my_pipeline",
        "python",
        "My data pipeline",
    )
    assert made.tags == ["etl", "production"]
    assert Path(made.dir_path) == folder
    assert Path(made.config_path) == folder / "metadata.yaml"
    assert Pipeline.get_all_pipelines(project.root) == ["my_pipeline"]


def test_create_in_the_project_around(project: BatchProject, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / "data_loaders").mkdir(exist_ok=True)
    monkeypatch.chdir(project.root / "data_loaders")
    assert Pipeline.create("here").repo_path == str(project.root)
    assert get_repo_path() == str(project.root)


@pytest.mark.parametrize(
    ("name", "uuid"),
    [("My pipeline!", "my_pipeline_"), ("7 days", "letter_7_days"), ("with-dash", "with-dash"), ("As_Is", "As_Is")],
)
def test_a_name_becomes_a_folder_s(project: BatchProject, name: str, uuid: str) -> None:
    made = Pipeline.create(name)
    assert (made.uuid, made.name) == (uuid, name)
    assert Pipeline.get(uuid).name == name


@pytest.mark.parametrize(
    ("given", "type_"),
    [
        (PipelineType.INTEGRATION, "integration"),
        (PipelineType.DBT, "dbt"),
        (PipelineType.PYSPARK, "python"),
        ("standard", "python"),
    ],
)
def test_types(project: BatchProject, given: Any, type_: str) -> None:
    assert Pipeline.create("typed", pipeline_type=given).type == PipelineType(type_)


def test_what_cannot_be_created_or_got(project: BatchProject, tmp_path: Path) -> None:
    Pipeline.create("once")
    with refuses("pipeline.exists", "'once'"):
        Pipeline.create("once")
    with refuses("pipeline.type_unknown", "'steaming'"):
        Pipeline.create("typed", pipeline_type="steaming")
    with refuses("pipeline.not_found", "'one'", "'once'"):
        Pipeline.get("one")
    assert Pipeline.get("one", check_if_exists=True) is None
    assert not Pipeline.exists("one")
    (tmp_path / "bare").mkdir()
    with refuses("project.not_found", "streamline init"):
        Pipeline.create("p", repo_path=tmp_path / "bare")


def test_run_in_order(pipeline: Pipeline, project: BatchProject) -> None:
    result = pipeline.execute_sync(global_vars={"env": "prod", "last": 10})
    assert result.status == "completed"
    assert project.lines() == ["26 prod"]
    assert project.statuses(result.run_id) == dict.fromkeys(("load", "double", "write"), "completed")


def test_mages_arguments_are_accepted(pipeline: Pipeline, project: BatchProject) -> None:
    pipeline.execute_sync(
        analyze_outputs=False,
        build_block_output_stdout=None,
        global_vars={"env": "test"},
        retry_config=None,
        run_sensors=True,
        run_tests=True,
        update_status=False,
    )
    asyncio.run(
        pipeline.execute(
            analyze_outputs=False,
            build_block_output_stdout=None,
            global_vars={"env": "test"},
            parallel=True,
            run_sensors=True,
            run_tests=True,
            update_status=False,
        )
    )
    assert project.lines() == ["12 test", "12 test"]


MEETING = """
import pathlib, time
@data_loader
def load(*args, **kwargs):
    me, other = kwargs['block_uuid'], {'a': 'b', 'b': 'a'}[kwargs['block_uuid']]
    with open('log.txt', 'a') as file:
        file.write(f'{me} begins\\n')
    if kwargs['meet']:
        pathlib.Path(me).touch()
        until = time.monotonic() + 30
        while not pathlib.Path(other).exists():
            assert time.monotonic() < until, f'{other} never came'
            time.sleep(0.01)
    with open('log.txt', 'a') as file:
        file.write(f'{me} ends\\n')
"""


def test_independent_blocks_side_by_side(project: BatchProject) -> None:
    for name in ("a", "b"):
        project.block(name, MEETING, type="data_loader")
    pipeline = Pipeline("p")
    asyncio.run(pipeline.execute({"meet": True}))
    for name in ("a", "b"):
        (project.root / name).unlink()
    pipeline.execute_sync({"meet": True}, parallel=True)
    assert len(project.lines()) == 8


def test_independent_blocks_one_by_one(project: BatchProject) -> None:
    for name in ("a", "b"):
        project.block(name, MEETING, type="data_loader")
    pipeline = Pipeline("p")
    pipeline.execute_sync({"meet": False})
    asyncio.run(pipeline.execute({"meet": False}, parallel=False))
    assert project.lines() == ["a begins", "a ends", "b begins", "b ends"] * 2


def test_inside_a_running_event_loop(pipeline: Pipeline, project: BatchProject) -> None:
    async def notebook() -> list[str]:
        ticks = []

        async def tick() -> None:
            while True:
                ticks.append("tick")
                await asyncio.sleep(0.01)

        beside = asyncio.create_task(tick())
        await pipeline.execute()
        beside.cancel()
        pipeline.execute_sync()
        return ticks

    assert len(asyncio.run(notebook())) > 3  # execute() did not hold up the loop
    assert project.lines() == ["12 dev", "12 dev"]


def test_in_a_thread(pipeline: Pipeline, project: BatchProject) -> None:
    thread = threading.Thread(target=pipeline.execute_sync)
    thread.start()
    thread.join()
    assert project.lines() == ["12 dev"]


def test_a_failure_names_block_place_and_reason(pipeline: Pipeline, project: BatchProject) -> None:
    project.write("transformers/double.py", "@transformer\ndef double(numbers, *args):\n    return numbers['total']\n")
    for run in (pipeline.execute_sync, lambda: asyncio.run(pipeline.execute())):
        with pytest.raises(PipelineFailed) as caught:
            run()
        assert caught.value.blocks == ["double"]
        assert "the pipeline 'p' failed: double: transformers/double.py:3: TypeError: list indices" in str(caught.value)
        assert "streamline runs show" in str(caught.value)
    assert project.lines() == []


def test_secrets_are_masked_in_a_failure(pipeline: Pipeline, project: BatchProject) -> None:
    project.write(
        "transformers/double.py",
        "@transformer\ndef double(numbers, *args, **kwargs):\n    raise ValueError(kwargs['password'])\n",
    )
    with pytest.raises(PipelineFailed) as caught:
        pipeline.execute_sync(global_vars={"password": "Tops3cret"})
    assert "Tops3cret" not in str(caught.value)
    assert "********" in str(caught.value)


def test_tests_count_when_they_are_asked_for(pipeline: Pipeline, project: BatchProject) -> None:
    project.write(
        "transformers/double.py",
        "@transformer\ndef double(numbers, *args): return numbers\n"
        "@test\ndef test_many(output, *args): assert len(output) > 5, 'too few'\n",
    )
    pipeline.execute_sync()
    with pytest.raises(PipelineFailed, match=r"double.*too few"):
        pipeline.execute_sync(run_tests=True)


def test_what_is_wrong_before_anything_runs(pipeline: Pipeline, project: BatchProject) -> None:
    project.write("transformers/double.py", "def double(numbers): return numbers\n")
    with refuses("block.function_missing", "transformers/double.py"):
        pipeline.execute_sync()
    assert project.lines() == []


def test_files_that_changed_since_count(pipeline: Pipeline, project: BatchProject) -> None:
    pipeline.execute_sync()
    project.write(
        "transformers/double.py", "@transformer\ndef treble(numbers, *args): return [3 * one for one in numbers]\n"
    )
    project.entries["blocks"].pop()
    project.block(
        "write_all",
        "@data_exporter\ndef write(n, *args): open('log.txt', 'a').write(f'{n}\\n')\n",
        type="data_exporter",
    )
    pipeline.execute_sync()
    assert project.lines() == ["12 dev", "[3, 6, 9]"]
    assert list(pipeline.blocks_by_uuid) == ["load", "double", "write_all"]


def test_retries_given_by_the_caller(project: BatchProject) -> None:
    code = """
        import os
        @data_loader
        def load(*args, **kwargs):
            open('log.txt', 'a').write(f"{kwargs['retry']['attempts']}\\n")
            if kwargs['retry']['attempts'] < 3:
                raise OSError('not yet')
    """
    project.block("load", code, type="data_loader")
    Pipeline("p").execute_sync(retry_config={"retries": 2, "delay": 0})
    assert project.lines() == ["1", "2", "3"]
    with pytest.raises(ConfigError, match=r"retry_config: .*tries"):
        Pipeline("p").execute_sync(retry_config={"tries": 2})


def test_sensors_left_out(project: BatchProject) -> None:
    project.block("wait", "@sensor\ndef wait(*args, **kwargs): return False\n", type="sensor")
    project.block("load", "@data_loader\ndef load(*args): return 1\n", type="data_loader", upstream=["wait"])
    Pipeline("p").execute_sync(run_sensors=False)
    assert project.output("load") == 1


def test_only_one_run_at_a_time(pipeline: Pipeline, project: BatchProject) -> None:
    project.block(
        "again",
        """
        from streamline import LeaseHeld, Pipeline
        @custom
        def again(*args, **kwargs):
            try:
                Pipeline.get('p').execute_sync()
            except LeaseHeld:
                return 'held'
        """,
        type="custom",
    )
    pipeline.execute_sync()
    assert project.output("again") == "held"
    assert issubclass(LeaseHeld, StreamlineError)


def test_blocks_to_look_at(pipeline: Pipeline, project: BatchProject) -> None:
    double = pipeline.get_block("double")
    assert double is not None
    assert (double.uuid, double.type, double.language) == ("double", "transformer", "python")
    assert double.upstream_block_uuids == ["load"]
    assert [block.uuid for block in double.downstream_blocks] == ["write"]
    assert double.file_path == str(project.root / "transformers" / "double.py")
    assert pipeline.get_block("nothing") is None
    assert pipeline.has_block("load")


def test_one_block_on_what_is_stored(pipeline: Pipeline, project: BatchProject) -> None:
    double = pipeline.get_block("double")
    assert double is not None
    with refuses("block.no_stored_output", "'load'", "'double'"):
        double.execute_sync()
    pipeline.execute_sync()
    project.write("transformers/double.py", "@transformer\ndef double(numbers, *args): return 'a', 'b'\n")
    assert double.execute_sync() == {"output": ["a", "b"]}
    assert project.lines() == ["12 dev"]
    with refuses("graph.unknown_block", "'dubble'"):
        pipeline.execute_block("dubble")


def test_the_output_of_a_block_is_read_without_running_it(pipeline: Pipeline, project: BatchProject) -> None:
    with fails("block.no_stored_output"):
        pipeline.output("load")
    pipeline.execute_sync()
    assert pipeline.output("double") == [2, 4, 6]
    assert project.lines() == ["12 dev"]
    done = project.command("output", "p", "double", "-n", "2").expect(0, "3 rows, 2 shown")
    assert done.out.split() == ["2", "4"]
    assert project.command("output", "p", "write").expect(0, "no output").out == ""
    project.write(
        "transformers/double.py",
        "import pandas as pd\n@transformer\ndef double(x, *args):\n"
        "    return pd.DataFrame({'id': [1, 2], 'total': [0.045, None], 'day': pd.Timestamp('2026-01-02')})\n",
    )
    pipeline.execute_block("double")
    done = project.command("output", "p", "double").expect(0, "2 rows")
    assert done.out.splitlines()[1].split() == ["1", "0.045", "2026-01-02", "00:00:00"]
    rows = json.loads(project.command("output", "p", "double", "--json").out)
    assert rows[0] == {"id": 1, "total": 0.045, "day": "2026-01-02 00:00:00"}


def test_run_by_name(pipeline: Pipeline, project: BatchProject) -> None:
    streamline.run("p", str(project.root), last=4)
    streamline.run(
        "p", project_path=project.root, block_uuid="write", analyze_outputs=False, update_status=False, env="x"
    )
    assert project.lines() == ["14 dev", "14 x"]


def test_an_integration_pipeline(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from streamline.cli.main import main

    root = tmp_path / "made"
    assert CliRunner().invoke(main, ["init", str(root)]).exit_code == 0
    pipeline = Pipeline("example", root)
    assert pipeline.type is PipelineType.INTEGRATION
    assert pipeline.execute_sync().status == "completed"

    async def both() -> list[str]:
        return [(await pipeline.execute()).status, pipeline.execute_sync().status]

    assert asyncio.run(both()) == ["completed", "completed"]
    with refuses("run.option_refused"):
        pipeline.execute_block("read_orders")


def test_variables_in_the_file(pipeline: Pipeline, project: BatchProject) -> None:
    file = project.root / "pipelines" / "p" / "metadata.yaml"
    file.write_text("# kept\n" + file.read_text())
    pipeline.update_global_variable("last", 5)
    pipeline.update_global_variable("names", ["a", {"b": None}])
    assert pipeline.variables == {"last": 5, "names": ["a", {"b": None}]}
    pipeline.execute_sync()
    assert project.lines() == ["16 dev"]
    pipeline.delete_global_variable("names")
    pipeline.delete_global_variable("nothing")
    assert Pipeline("p").variables == {"last": 5}
    assert file.read_text().startswith("# kept\n")
    with refuses("variable.not_yaml"):
        pipeline.update_global_variable("last", object())


def test_many_that_set_variables_at_once(pipeline: Pipeline) -> None:
    threads = [
        threading.Thread(target=pipeline.__class__("p").update_global_variable, args=(f"v{n}", n)) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Pipeline("p").variables == {f"v{n}": n for n in range(8)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_script_as_it_always_does(project: BatchProject, number: signal.Signals) -> None:
    project.block(
        "load",
        "import time\n@data_loader\ndef load(*args):\n    open('began', 'w').close()\n    time.sleep(60)\n",
        type="data_loader",
    )
    code = """
        from streamline import Pipeline
        try:
            Pipeline('p').execute_sync()
        except Exception as error:
            print('an ordinary error', repr(error))
        print('and on')
    """
    script = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((project.root / "began").exists, "the block to begin")
    script.send_signal(number)
    out, _ = script.communicate(timeout=30)
    assert out == ""
    assert script.returncode in (128 + number, -number)
    assert project.statuses() == {"load": "cancelled"}
