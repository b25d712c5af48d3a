"""Limits: how many blocks of a pipeline run at once, and how many children a dynamic block may have.

`dynamic_blocks` and `concurrency_config` are set in a pipeline's metadata.yaml or, for all pipelines, in
streamline.yaml. The pipeline's values take precedence, key by key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import msgspec

from streamline.project.suggest import words
from streamline.project.yamlfile import YamlFile, kind_of

if TYPE_CHECKING:
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project

T = TypeVar("T")
OnExceeded = Literal["fail", "limit"]

DYNAMIC_KEYS = words("max_child_block_runs on_max_child_block_runs_exceeded max_concurrent_child_block_runs")
# The other keys limit whole pipeline runs, which only schedules start concurrently.
CONCURRENCY_KEYS = words(
    "block_run_limit pipeline_run_limit pipeline_run_limit_all_triggers on_pipeline_run_limit_reached"
)


class DynamicLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits for the children of dynamic blocks.

    Args:
        max_children: the maximum number of children of a block; None: no limit.
        on_exceeded: with more items than that, fail the block, or use only the first `max_children` items.
        max_concurrent: how many children of a block run at once; None: the limit of all blocks applies.
    """

    max_children: int | None = None
    on_exceeded: OnExceeded = "fail"
    max_concurrent: int | None = None


def dynamic_limits(project: Project, model: PipelineModel) -> DynamicLimits:
    """Return the limits for the children of a pipeline's dynamic blocks.

    Raises:
        ConfigError: a limit is invalid; the error names file and line.
    """
    files = (model.yaml, project.yaml)
    on_exceeded: OnExceeded | None = _first(
        _choice(file, "dynamic_blocks", "on_max_child_block_runs_exceeded") for file in files
    )
    return DynamicLimits(
        max_children=_first(_count(file, "dynamic_blocks", "max_child_block_runs") for file in files),
        on_exceeded=on_exceeded or "fail",
        max_concurrent=_first(_count(file, "dynamic_blocks", "max_concurrent_child_block_runs") for file in files),
    )


def block_run_limit(project: Project, model: PipelineModel) -> int | None:
    """Return how many blocks of the pipeline may run at once; None: as many as the machine has resources for.

    Raises:
        ConfigError: the limit is not a whole number above 0; the error names file and line.
    """
    return _first(_count(file, "concurrency_config", "block_run_limit") for file in (model.yaml, project.yaml))


def _first(values: Iterable[T | None]) -> T | None:
    # Evaluate all, so that an invalid value is reported even if another takes precedence.
    return next((value for value in list(values) if value is not None), None)


def _count(file: YamlFile, section: str, key: str) -> int | None:
    value = file.mapping((section,)).get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        file.fail(
            f"{key} must be a whole number above 0, not {kind_of(value)}",
            (section, key),
            hint="remove it for no limit",
        )
    return int(value)


def _choice(file: YamlFile, section: str, key: str) -> OnExceeded | None:
    value = file.mapping((section,)).get(key)
    if value is None:
        return None
    if value in ("fail", "limit"):
        return cast("OnExceeded", value)
    shown = f"'{value}'" if isinstance(value, str) else kind_of(value)
    return file.fail(f"{key} must be fail or limit, not {shown}", (section, key))
