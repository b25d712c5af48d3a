"""What a block's `configuration` says to the runner."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamline.pipeline.block_settings import BlockSettings, block_settings
from streamline.pipeline.model import PipelineModel
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from tests.support.failures import refuses


def load(root: Path, **configurations: Any) -> PipelineModel:
    """A pipeline `parent` → `child` and `other`, with a sensor `wait`."""
    (root / "streamline.yaml").write_text("name: x\n")
    blocks: list[dict[str, Any]] = [
        {"uuid": "parent", "type": "data_loader"},
        {"uuid": "child", "type": "transformer", "upstream_blocks": ["parent"]},
        {"uuid": "other", "type": "transformer", "upstream_blocks": ["parent"]},
        {"uuid": "end", "type": "custom", "upstream_blocks": ["child"]},
        {"uuid": "wait", "type": "sensor"},
    ]
    folders = {"data_loader": "data_loaders", "transformer": "transformers", "custom": "custom", "sensor": "sensors"}
    for block in blocks:
        path = root / folders[block["type"]] / f"{block['uuid']}.py"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        if block["uuid"] in configurations:
            block["configuration"] = configurations[block["uuid"]]
    (root / "pipelines/p").mkdir(parents=True, exist_ok=True)
    (root / "pipelines/p/metadata.yaml").write_text(yaml.safe_dump({"blocks": blocks}, sort_keys=False))
    return load_pipeline(Project.open(root), "p")


def settings(root: Path, uuid: str, **configurations: Any) -> BlockSettings:
    model = load(root, **configurations)
    return block_settings(model, model.block(uuid))


def test_without_a_configuration(tmp_path: Path) -> None:
    assert settings(tmp_path, "wait") == BlockSettings(interval=60, give_up_after=None)
    assert settings(tmp_path, "parent", parent={"dynamic": False, "reduce_output": None}) == BlockSettings()


@pytest.mark.parametrize(
    "configuration",
    [
        {"dynamic": True},
        {"dynamic": {"parent": True}},
        {"dynamic": {"parent": ["child", "other"], "modes": [{"type": "stream", "poll_interval": 5}]}},
    ],
)
def test_the_forms_of_dynamic(tmp_path: Path, configuration: dict[str, Any]) -> None:
    assert settings(tmp_path, "parent", parent=configuration).dynamic
    assert not settings(tmp_path, "parent", parent=configuration).reduce_output


@pytest.mark.parametrize(
    "configurations",
    [
        {"child": {"reduce_output": True}},
        {"child": {"dynamic": {"reduce_output": True}}},
        {"child": {"dynamic": {"reduce_output": ["end"]}}},
        {"end": {"dynamic": {"reduce_output_upstream": ["child"]}}},
    ],
)
def test_the_forms_of_reduce_output(tmp_path: Path, configurations: dict[str, Any]) -> None:
    assert settings(tmp_path, "child", **configurations).reduce_output
    assert not settings(tmp_path, "child", **configurations).dynamic
    assert not settings(tmp_path, "end", **configurations).reduce_output


def test_where_it_runs_and_what_is_kept(tmp_path: Path) -> None:
    found = settings(tmp_path, "end", end={"isolated": True, "secret_output": True, "anything": "goes"})
    assert (found.isolated, found.secret_output) == (True, True)


def test_a_sensor_s_numbers(tmp_path: Path) -> None:
    found = settings(tmp_path, "wait", wait={"interval": 0.5, "timeout": 30})
    assert (found.interval, found.give_up_after) == (0.5, 30)


@pytest.mark.parametrize(
    ("uuid", "configuration", "code", "name"),
    [
        ("parent", {"dynamic": "true"}, "setting.invalid", "dynamic"),
        ("parent", {"dynamic": 1}, "setting.invalid", "the number 1"),
        ("parent", {"dynamic": {"parents": True}}, "setting.unknown", "'parents'"),
        ("parent", {"dynamic": {"parent": ["child"]}}, "setting.invalid", "'other'"),
        ("parent", {"dynamic": {"parent": ["chidl"]}}, "graph.unknown_block", "'chidl'"),
        ("parent", {"dynamic": {"parent": "child"}}, "setting.invalid", "dynamic.parent"),
        ("child", {"dynamic": {"reduce_output_upstream": ["parent"]}}, "setting.invalid", "'other'"),
        ("child", {"reduce_output": "{{ variables('x') }}"}, "setting.invalid", "reduce_output"),
        ("child", {"isolated": "yes"}, "setting.invalid", "isolated"),
        ("child", {"secret_output": 1}, "setting.invalid", "secret_output"),
        ("wait", {"interval": "{{ variables('pause') }}"}, "setting.invalid", "interval"),
        ("wait", {"interval": 0}, "setting.invalid", "the number 0"),
        ("wait", {"timeout": "soon"}, "setting.invalid", "timeout"),
        ("wait", {"interval": math.inf}, "setting.invalid", "the number inf"),
    ],
)
def test_what_cannot_be_names_its_line(tmp_path: Path, uuid: str, configuration: Any, code: str, name: str) -> None:
    with refuses(code, name) as caught:
        load(tmp_path, **{uuid: configuration})
    lines = (tmp_path / "pipelines/p/metadata.yaml").read_text().splitlines()
    assert caught.value.where is not None
    name, _, line = caught.value.where.rpartition(":")
    assert name == "pipelines/p/metadata.yaml"
    start = next(at for at, text in enumerate(lines, 1) if text == f"- uuid: {uuid}")
    assert start < int(line) < start + 8
