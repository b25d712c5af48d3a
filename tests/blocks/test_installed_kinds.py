"""A kind of block from another package, added by its entry point alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.packages import Installation

PACKAGE = '''
"""Blocks written in JSON Lines: a data loader's file is its output."""

import json

from streamline.errors import ConfigError
from streamline.pipeline.kinds import Kind

KIND = Kind(
    name="jsonl",
    title="JSON Lines",
    suffixes=(".jsonl",),
    types=("data_loader",),
    run="jsonl_blocks:run",
    check="jsonl_blocks:check",
    template="jsonl_blocks:template",
)


def run(call):
    return [json.loads(line) for line in call.block.file.read_text().splitlines()]


def check(project, block, renderer):
    for number, line in enumerate(block.file.read_text().splitlines(), 1):
        try:
            json.loads(line)
        except ValueError as error:
            raise ConfigError(f"this is not JSON: {error}", where=f"{project.shown(block.file)}:{number}") from None


def template(block_type, pipeline_type):
    return (lambda upstream: '{"id": 1}\\n{"id": 2}\\n') if block_type == "data_loader" else None
'''
EXPORTER = """\
from pathlib import Path

@data_exporter
def export(rows, *args, **kwargs):
    Path("total.txt").write_text(str(sum(row["id"] for row in rows)))
"""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("installed")
    points = {"jsonl": "jsonl_blocks:KIND", "bad": "jsonl_blocks:run"}
    return Installation(folder, "jsonl-blocks", PACKAGE, {"streamline.blocks": points})


@pytest.fixture
def project(tmp_path: Path, installation: Installation) -> Path:
    (tmp_path / "streamline.yaml").write_text("name: shop\n")
    installation.streamline(tmp_path, "create", "p")
    installation.streamline(tmp_path, "add", "data_loader", "orders", "--language", "jsonl")
    installation.streamline(tmp_path, "add", "data_exporter", "total")
    (tmp_path / "data_exporters" / "total.py").write_text(EXPORTER)
    return tmp_path


def test_its_blocks_are_added_checked_explained_and_run(project: Path, installation: Installation) -> None:
    assert (project / "data_loaders" / "orders.jsonl").read_text() == '{"id": 1}\n{"id": 2}\n'
    installation.streamline(project, "check", "p")
    explained = json.loads(installation.streamline(project, "explain", "p", "--json"))
    assert {block["block"]: block["engine"] for block in explained["blocks"]}["orders"] == "JSON Lines"
    installation.streamline(project, "run", "p")
    assert (project / "total.txt").read_text() == "3"


def test_its_check_is_a_failure_of_the_block(project: Path, installation: Installation) -> None:
    (project / "data_loaders" / "orders.jsonl").write_text('{"id": 1}\nid: 2\n')
    assert "data_loaders/orders.jsonl:2: this is not JSON" in installation.streamline(project, "run", "p", code=2)


def test_only_its_types_can_be_written_in_it(project: Path, installation: Installation) -> None:
    metadata = project / "pipelines" / "p" / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("type: data_loader", "type: transformer"))
    (project / "transformers").mkdir(exist_ok=True)
    (project / "data_loaders" / "orders.jsonl").rename(project / "transformers" / "orders.jsonl")
    told = installation.streamline(project, "run", "p", code=2)
    assert "transformer" in told
    assert "JSON Lines" in told


def test_an_entry_point_that_is_no_kind(project: Path, installation: Installation) -> None:
    error = installation.streamline(project, "add", "data_loader", "x", "--language", "bad", code=2)
    assert "entry point bad of streamline.blocks, package jsonl-blocks" in error
