"""docs/batch-pipelines.md: what it shows runs, and every key that it names is one."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from streamline.blocks.registry import block_template
from streamline.pipeline.model import FOLDERS
from streamline.pipeline.reader import _BLOCK_KEYS, _PIPELINE_KEYS
from tests.cli.conftest import Shop
from tests.support.preloaded import streamline

PAGE = Path(__file__).parents[1] / "docs" / "batch-pipelines.md"
SNIPPETS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
FILES = {
    found[1]: text
    for language, text in SNIPPETS
    if (found := re.match(r"(?:#|--) ((?:\w+/)+[\w.]+)\n", text)) and language in ("yaml", "python", "sql")
}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """The page's files as a project."""
    (tmp_path / "streamline.yaml").write_text("name: shop\n")
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Shop(tmp_path)


def test_its_files_can_be_put_into_a_made_project() -> None:
    from streamline.project.starter_project import TEMPLATE

    assert FILES
    assert [name for name in FILES if (TEMPLATE / name).exists()] == []


def run(shop: Shop, *arguments: str) -> subprocess.CompletedProcess[str]:
    return streamline(shop.root, "run", "orders", *arguments)


def test_the_pipeline_runs_as_printed(shop: Shop) -> None:
    done = run(shop, "--test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted((shop.root / "report.csv").read_text().splitlines()) == ["Ada,12.5", "Grace,12.0", "customer,total"]


def test_so_do_its_sensor_condition_and_callbacks(shop: Shop) -> None:
    metadata = yaml.safe_load(FILES["pipelines/orders/metadata.yaml"])
    for language, text in SNIPPETS:
        if language == "yaml" and text.startswith(("conditionals:", "callbacks:")):
            metadata |= yaml.safe_load(text)
    metadata["blocks"].insert(0, {"uuid": "file_is_there", "type": "sensor", "downstream_blocks": ["load_sales"]})
    (shop.root / "pipelines/orders/metadata.yaml").write_text(yaml.safe_dump(metadata, sort_keys=False))
    (shop.root / "inbox").mkdir()
    done = run(shop)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "write_totals is done" in done.stdout


@pytest.mark.parametrize("text", [text for language, text in SNIPPETS if language == "python"])
def test_python_is_python(text: str) -> None:
    ast.parse(text)


@pytest.mark.parametrize("text", [text for language, text in SNIPPETS if language == "yaml"])
def test_yaml_is_yaml_with_known_keys(text: str) -> None:
    data = yaml.safe_load(text)
    if "default" in data:
        return
    assert set(data) <= _PIPELINE_KEYS
    for block in data.get("blocks", []):
        assert set(block) <= _BLOCK_KEYS


def test_every_kind_of_block_has_its_place_in_the_page() -> None:
    text = PAGE.read_text()
    for kind in FOLDERS:
        assert f"`{kind}`" in text
        if kind != "dbt":
            assert block_template(kind, "python", "python")([])
