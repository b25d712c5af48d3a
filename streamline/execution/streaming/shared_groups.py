"""Whether another streaming pipeline of the project reads a topic as a member of the same consumer group."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from streamline.errors import ConfigError, StreamlineError
from streamline.execution.run import Run
from streamline.execution.streaming.plan import Plan, SourcePlan
from streamline.execution.streaming.planner import context_of
from streamline.execution.streaming.topics import shared_topic
from streamline.execution.streaming.topology import read_source
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from streamline.project.render import Renderer


def check_groups(run: Run, plan: Plan) -> None:
    """Compare the sources with those of the project's other streaming pipelines. Nothing is connected.

    Raises:
        ConfigError: two of them share a group and a topic of a cluster.
    """
    own = [source for source in plan.sources.values() if source.traits.cluster is not None]
    if not own:
        return
    for pipeline in run.project.pipelines():
        if pipeline == plan.pipeline or not _may_stream(run.project, pipeline):
            continue
        for other in _sources(run, plan, pipeline):
            for source in own:
                topic = shared_topic(source, other)
                if topic is not None:
                    raise ConfigError(
                        f"'{source.id}' reads {topic} in {source.traits.positions}, and so does '{other.id}' of "
                        f"pipeline '{pipeline}' ({other.where('consumer_group')}): each would get a part of the "
                        "messages",
                        where=source.where("consumer_group"),
                        hint="give one of them a `consumer_group` of its own",
                        code="kafka.group_shared",
                    )


def _may_stream(project: Project, pipeline: str) -> bool:
    try:
        return b"streaming" in (project.root / "pipelines" / pipeline / "metadata.yaml").read_bytes()
    except OSError:
        return False


def _sources(run: Run, plan: Plan, pipeline: str) -> Iterator[SourcePlan]:
    """Yield the sources of another pipeline. One that cannot be read cannot run either."""
    try:
        model = load_pipeline(run.project, pipeline)
    except StreamlineError:
        return
    if model.type != "streaming":
        return
    renderer = Renderer(run.project, {**run.project.variables, **model.variables}, run.project.secrets)
    context = partial(context_of, run, pipeline, plan.settings)
    for block in model.blocks.values():
        if block.type != "data_loader" or block.language != "yaml":
            continue
        try:
            yield read_source(model, block, renderer, context(block.uuid))
        except StreamlineError:
            continue
