"""How many blocks of a pipeline may run at once, and how many children a dynamic block may have.

`dynamic_blocks` and `concurrency_config` stand in a pipeline's metadata.yaml or, for all pipelines, in the project's
own file; the pipeline's win, key by key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import msgspec

from streamline.project.suggest import suggestion, words
from streamline.project.yamlfile import YamlFile, kind_of

if TYPE_CHECKING:
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project

T = TypeVar("T")
OnExceeded = Literal["fail", "limit"]

DYNAMIC_KEYS = words("max_child_block_runs on_max_child_block_runs_exceeded max_concurrent_child_block_runs")
# The others limit runs of whole pipelines: for schedules.
CONCURRENCY_KEYS = words(
    "block_run_limit pipeline_run_limit pipeline_run_limit_all_triggers on_pipeline_run_limit_reached"
)


class DynamicLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a dynamic block's children are held to.

    Args:
        max_children: how many a dynamic block may have; None: any number.
        on_exceeded: where its output has more items, the block fails, or only so many are taken.
        max_concurrent: how many of its children run at once; None: as many as other blocks may.
    """

    max_children: int | None = None
    on_exceeded: OnExceeded = "fail"
    max_concurrent: int | None = None


def dynamic_limits(project: Project, model: PipelineModel) -> DynamicLimits:
    """The limits for the children of a pipeline's dynamic blocks.

    Raises:
        ConfigError: one of them is not what it should be; it names file and line.
    """
    files = (model.yaml, project.yaml)
    what: OnExceeded | None = _first(
        _choice(file, "dynamic_blocks", "on_max_child_block_runs_exceeded") for file in files
    )
    return DynamicLimits(
        max_children=_first(_count(file, "dynamic_blocks", "max_child_block_runs") for file in files),
        on_exceeded=what or "fail",
        max_concurrent=_first(_count(file, "dynamic_blocks", "max_concurrent_child_block_runs") for file in files),
    )


def block_run_limit(project: Project, model: PipelineModel) -> int | None:
    """How many blocks of the pipeline may run at once; None: as many as the machine has room for.

    Raises:
        ConfigError: it is no whole number above 0; it names file and line.
    """
    return _first(_count(file, "concurrency_config", "block_run_limit") for file in (model.yaml, project.yaml))


def _first(values: Iterable[T | None]) -> T | None:
    # All are looked at, so that a wrong value is seen whatever stands before it.
    return next((value for value in list(values) if value is not None), None)


def _count(file: YamlFile, section: str, key: str) -> int | None:
    value = file.mapping((section,)).get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        file.fail(
            f"{key} must be a whole number above 0, not {kind_of(value)}",
            (section, key),
            hint="leave it out where there should be no limit",
        )
    return int(value)


def _choice(file: YamlFile, section: str, key: str) -> OnExceeded | None:
    value = file.mapping((section,)).get(key)
    if value is None:
        return None
    for one in get_args(OnExceeded):
        if value == one:
            chosen: OnExceeded = one
            return chosen
    shown = f"'{value}'" if isinstance(value, str) else kind_of(value)
    hint = suggestion(str(value), get_args(OnExceeded), what="it can be")
    return file.fail(f"{key} cannot be {shown}", (section, key), hint=hint)
