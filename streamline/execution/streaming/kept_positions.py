"""The positions that sources of a streaming pipeline keep themselves, for commands that change positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from streamline.connectors.stream_connector import MovingConnector
from streamline.execution.flow_runs import open_planning
from streamline.execution.run import RunOptions
from streamline.execution.streaming.planner import context_of, make_plan
from streamline.pipeline.model import PipelineModel
from streamline.project.project import Project


def self_kept(project: Project, model: PipelineModel) -> list[str]:
    """Return the sources that keep their positions themselves, such as consumer groups.

    Raises:
        ConfigError: the pipeline cannot be planned.
    """
    with open_planning(project, model, RunOptions(), "state") as run:
        return [uuid for uuid, source in make_plan(run, model).sources.items() if source.traits.keeps_positions]


def set_kept(project: Project, model: PipelineModel, changed: Mapping[str, Mapping[str, bytes]]) -> None:
    """Set positions where their sources keep them.

    Args:
        changed: parts by source; those that are `FORGOTTEN` are deleted.

    Raises:
        StreamlineError: they cannot be set now, because somebody reads with them or the system does not answer.
    """
    with open_planning(project, model, RunOptions(), "state") as run:
        plan = make_plan(run, model)
        for uuid, parts in changed.items():
            source = plan.sources[uuid]
            context = context_of(run, plan.pipeline, plan.settings, uuid)
            connector = cast(MovingConnector, source.connector)
            connector.set_positions(source.config, context, source.where, parts)
