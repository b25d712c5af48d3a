"""The wheel as it is published: built from this checkout, installed in a fresh environment, run there."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pytest
from uv import find_uv_bin

from tests.services.require import missing
from tests.support.connectors import ROOT, clean_environment


def call(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=clean_environment(), check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; its dependencies are those of the tests' own environment."""
    if find_spec("hatchling") is None:
        missing("hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (wheel,) = folder.glob("streamline-*.whl")
    venv = folder / "venv"
    uv = find_uv_bin()
    call(uv, "venv", "--offline", "--no-config", "-p", sys.executable, venv, cwd=folder)
    call(uv, "pip", "install", "--offline", "--no-config", "--no-deps", "-p", venv / "bin/python", wheel, cwd=folder)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv


def test_connectors_run_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    (packages,) = environment.glob("lib/python*/site-packages")
    names = {path.name for path in packages.iterdir()}
    assert {"streamline", "streamline_taps", "streamline_targets", "streamline_kit"} <= names
    with sqlite3.connect(tmp_path / "shop.db") as db:
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")
        db.execute("INSERT INTO orders VALUES (1, 'tea'), (2, 'cake')")
    db.close()
    program = environment / "bin/streamline"
    folder = tmp_path / "project"
    call(program, "init", folder, cwd=tmp_path)
    config = {"path": str(tmp_path / "shop.db")}
    (folder / "data_loaders/shop.yaml").write_text(json.dumps({"source": "sqlite", "config": config}))
    config = {"path": str(tmp_path / "warehouse.duckdb")}
    (folder / "data_exporters/warehouse.yaml").write_text(json.dumps({"destination": "duckdb", "config": config}))
    blocks = [
        {"uuid": "shop", "type": "data_loader", "language": "yaml", "upstream_blocks": []},
        {"uuid": "warehouse", "type": "data_exporter", "language": "yaml", "upstream_blocks": ["shop"]},
    ]
    (folder / "pipelines/load").mkdir(parents=True)
    metadata = {"name": "load", "uuid": "load", "type": "integration", "blocks": blocks}
    (folder / "pipelines/load/metadata.yaml").write_text(json.dumps(metadata))
    call(program, "run", "load", cwd=folder)
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as db:
        assert db.execute("SELECT id, item FROM orders ORDER BY id").fetchall() == [(1, "tea"), (2, "cake")]
