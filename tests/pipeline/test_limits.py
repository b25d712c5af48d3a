"""Limits of dynamic children and of blocks at once: the pipeline's over the project's, key by key."""

from __future__ import annotations

from pathlib import Path

from streamline.pipeline.limits import DynamicLimits, block_run_limit, dynamic_limits
from streamline.pipeline.model import PipelineModel
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project


def make(root: Path, project: str, pipeline: str) -> tuple[Project, PipelineModel]:
    (root / "streamline.yaml").write_text(project)
    (root / "pipelines/p").mkdir(parents=True, exist_ok=True)
    (root / "pipelines/p/metadata.yaml").write_text(pipeline)
    opened = Project.open(root)
    return opened, load_pipeline(opened, "p")


def test_without_any_there_is_no_limit(tmp_path: Path) -> None:
    project, model = make(tmp_path, "name: x\n", "concurrency_config: {}\ndynamic_blocks: null\n")
    assert dynamic_limits(project, model) == DynamicLimits(max_children=None, on_exceeded="fail", max_concurrent=None)
    assert block_run_limit(project, model) is None


def test_the_pipeline_s_win_over_the_project_s_key_by_key(tmp_path: Path) -> None:
    project, model = make(
        tmp_path,
        "dynamic_blocks: {max_child_block_runs: 100, max_concurrent_child_block_runs: 4, "
        "on_max_child_block_runs_exceeded: limit}\nconcurrency_config: {block_run_limit: 3}\n",
        "dynamic_blocks: {max_child_block_runs: 5, max_concurrent_child_block_runs: null}\n",
    )
    assert dynamic_limits(project, model) == DynamicLimits(max_children=5, on_exceeded="limit", max_concurrent=4)
    assert block_run_limit(project, model) == 3
    project, model = make(
        tmp_path, "concurrency_config: {block_run_limit: 3}\n", "concurrency_config: {block_run_limit: 1}"
    )
    assert block_run_limit(project, model) == 1


def test_what_mage_writes_loads_without_a_word(tmp_path: Path) -> None:
    _, model = make(
        tmp_path,
        "name: x\n",
        "concurrency_config: {block_run_limit: 1, pipeline_run_limit: 1, pipeline_run_limit_all_triggers: 2, "
        "on_pipeline_run_limit_reached: wait}\n",
    )
    assert [one for one in model.warnings if "keys" in one] == []


def test_a_misspelt_limit_is_warned_of(tmp_path: Path) -> None:
    _, model = make(tmp_path, "name: x\n", "dynamic_blocks: {max_children: 3}\nconcurrency_config: {limit: 3}\n")
    assert "dynamic_blocks.max_children (line 1), concurrency_config.limit (line 2)" in model.warnings[0]
