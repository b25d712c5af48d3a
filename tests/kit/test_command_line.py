"""What all bundled connectors have in common."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import preloaded
from tests.support.connectors import ROOT, clean_environment, command, run

CONNECTORS = ["tap-sqlite", "tap-files", "target-duckdb", "target-files"]


@pytest.mark.parametrize("name", CONNECTORS)
def test_about_lists_capabilities_and_settings(name: str, tmp_path: Path) -> None:
    about = json.loads(run(name, tmp_path, None, "--about", "--format=json").stdout)
    assert about["name"] == name
    assert "about" in about["capabilities"]
    assert about["settings"]["required"] in (["path"], [])
    assert all(setting["description"] for setting in about["settings"]["properties"].values())
    if name.startswith("tap"):
        assert {"catalog", "discover", "state", "multiple-bookmarks"} <= set(about["capabilities"])
    else:
        assert "activate-version" in about["capabilities"]
        assert about["max_processes"] == (1 if name == "target-duckdb" else 8)


@pytest.mark.parametrize("name", CONNECTORS)
def test_version_is_that_of_the_distribution(name: str, tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(name, tmp_path, None, "--version").stdout.decode().split() == [name, version]


@pytest.mark.parametrize("name", CONNECTORS)
def test_help_names_the_options(name: str, tmp_path: Path) -> None:
    text = run(name, tmp_path, None, "--help").stdout.decode()
    wanted = ["--config", "--about", "--version"]
    wanted += ["--catalog", "--properties", "--state", "--discover"] if name.startswith("tap") else []
    assert [option for option in wanted if option not in text] == []


@pytest.mark.parametrize("name", CONNECTORS)
def test_config_errors_are_one_line_and_exit_code_2(name: str, tmp_path: Path) -> None:
    outcome = run(name, tmp_path, {"path": "x", "pth": "x"})
    assert outcome.code == 2
    (line,) = outcome.errors
    assert line.startswith(f"ERROR {name}: ")
    assert re.search("'pth'.*'path'", line)
    outcome = run(name, tmp_path, {"path": 7})
    assert outcome.code == 2
    assert "setting 'path' must be string, not 7" in outcome.stderr
    outcome = run(name, tmp_path, {})
    assert outcome.code == 2
    assert "setting 'path' is missing" in outcome.stderr
    outcome = run(name, tmp_path, None)
    assert outcome.code == 2
    assert "--config FILE is missing" in outcome.stderr


def test_unknown_connector_names_the_known_ones(tmp_path: Path) -> None:
    outcome = run("tap-nothing", tmp_path, None)
    assert outcome.code == 2
    assert outcome.errors == ["ERROR unknown tap 'nothing'; available: files, sqlite"]
    outcome = preloaded.run(command("target-nothing")[:2], given=b"", cwd=tmp_path, env=clean_environment())
    assert outcome == (2, b"", b"ERROR no target named; available: duckdb, files\n")


def test_no_connector_imports_streamline() -> None:
    files = [file for folder in ("taps", "targets", "kit") for file in (ROOT / folder).rglob("*.py")]
    assert len({file.relative_to(ROOT).parts[0] for file in files}) == 3
    assert [str(file) for file in files if re.search(r"^\s*(from|import) streamline\b", file.read_text(), re.M)] == []


def test_the_kit_imports_neither_taps_nor_targets() -> None:
    text = "\n".join(file.read_text() for file in (ROOT / "kit").rglob("*.py"))
    assert re.findall(r"^\s*(?:from|import) (?:taps|targets)\b.*", text, re.M) == []


@pytest.mark.parametrize("name", CONNECTORS)
def test_runs_where_the_engine_cannot_be_imported(name: str, tmp_path: Path) -> None:
    """Under the folder names of the wheel, and with nothing of the checkout on the path."""
    site = tmp_path / "site"
    for folder in ("taps", "targets", "kit"):
        shutil.copytree(ROOT / folder, site / f"streamline_{folder}", ignore=shutil.ignore_patterns("__pycache__"))
    installed = site / f"streamline_{name.partition('-')[0]}s"
    broken = tmp_path / "broken" / "streamline"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('a connector must not import streamline')")
    arguments = [str(installed / "run.py"), name, "--about", "--format=json"]
    environment = {**clean_environment(), "PYTHONPATH": str(broken.parent)}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, cwd=tmp_path, env=environment, check=True, text=True
    )
    assert json.loads(done.stdout)["name"] == name


def test_a_closed_standard_output_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "big.jsonl").write_text('{"a": 1}\n' * 50_000)
    config = tmp_path / "config.json"
    config.write_text('{"path": "big.jsonl"}')
    with subprocess.Popen(
        command("tap-files", "--config", config),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=clean_environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 1
    assert "ERROR tap-files: standard output was closed by its reader" in errors
    assert "Traceback" not in errors
