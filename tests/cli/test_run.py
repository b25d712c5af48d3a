"""`streamline run`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from streamline.cli.app import App
from streamline.cli.main import main
from streamline.cli.run import read_variables, show_result
from streamline.errors import ConfigError
from streamline.execution.run import RunResult
from tests.cli.conftest import Shop
from tests.cli.test_batch_plans import batch, block
from tests.support.failures import refuses


def test_help_groups_options_by_the_type_of_pipeline() -> None:
    text = CliRunner().invoke(main, ["run", "--help"]).output
    general, _, rest = text.partition("Options for dbt and python pipelines")
    of_batch, _, rest = rest.partition("Options for integration and streaming pipelines")
    of_streams, _, of_connectors = rest.partition("Options for integration, python and streaming pipelines")
    assert "--runtime-vars" in general
    assert "--debug" in general
    assert "--stream" not in general
    assert "--block-uuid" in of_batch
    assert "--resume" in general
    assert "--stream" in of_streams
    assert "--full-refresh" in of_connectors


def test_one_block_at_a_time(tmp_path: Path) -> None:
    shop = batch(tmp_path, block("custom", "a"), block("custom", "b"))
    result = shop("run", "p", "--block-uuid", "a", "--block-uuid", "b", code=2)
    assert "--block-uuid: give one, not 2: a, b" in result.stderr


def test_a_dry_run_looks_at_templates_as_a_run_does(tmp_path: Path) -> None:
    shop = batch(tmp_path, block("custom", "a"), variables={"x": "{{ env_var('NOPE_X') }}"})
    assert "pipelines/p/metadata.yaml:1: variables.x: " in shop.refuses(
        "environment_variable.not_set", "run", "p", "--dry-run"
    )
    shop("run", "p", "--dry-run", "--runtime-vars", "x=1")


def test_variables_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "vars.json"
    file.write_text('{"token": "hush", "day": 3}')
    assert read_variables((f"@{file}", "day=4")) == {"token": "hush", "day": 4}
    for content in ("{", "[1]"):
        file.write_text(content)
        with pytest.raises(ConfigError) as caught:
            read_variables((f"@{file}",))
        assert caught.value.code == "variable.file_unreadable"
        assert caught.value.exit_code == 2
    file.unlink()
    with refuses("variable.file_unreadable"):
        read_variables((f"@{file}",))


def test_a_file_where_the_project_keeps_its_things(tmp_path: Path) -> None:
    shop = batch(tmp_path, block("custom", "a"))
    (tmp_path / ".streamline").write_text("")
    for command in (("run", "p"), ("test", "p")):
        assert ".streamline:" in shop.refuses("project.work_folder_invalid", *command)
    for more in (("runs", "list"), ("state", "list", "p")):
        assert ".streamline/state.db:" in shop.refuses("store.not_opened", *more, code=1)


def test_help_names_all_kinds_of_blocks() -> None:
    assert "Python, SQL, R and dbt blocks" in CliRunner().invoke(main, ["--help"]).output.replace("\n  ", " ")


@pytest.mark.parametrize("terminal", [True, False])
def test_the_result_of_many_streams_fits_a_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shop: Shop
) -> None:
    monkeypatch.setattr("streamline.cli.run.is_terminal", lambda: terminal)
    monkeypatch.setenv("LINES", "24")
    streams: list[dict[str, Any]] = [
        {"block": "load", "stream": f"s{number}", "read": number, "quarantined": 0} for number in range(70)
    ]
    streams[4]["failed"] = True
    streams[3]["quarantined"] = 2
    tables = [
        {"block": "export", "table": f"t{number}", "sent": number, "written": number, "quarantined": 0}
        for number in range(70)
    ]
    summary = {"records": 2415, "quarantined": 2, "streams": streams, "tables": tables, "seconds": 3.0}
    result = RunResult(run_id="r", status="completed", summary=summary)

    show_result(App(str(shop.root)), result, as_json=False, planned={"load": 70})

    lines = capsys.readouterr().out.splitlines()
    if not terminal:
        assert len(lines) == 141
        return
    assert len(lines) < 24
    assert lines[:3] == [
        "load  s4: 4 records read, failed",
        "load  s3: 3 records read, 2 records quarantined",
        "load  s69: 69 records read",
    ]
    assert "and 62 more streams: 2,009 records read" in lines
    assert [line for line in lines if line.startswith("and 62 more tables: 1,891 records written; ")]
