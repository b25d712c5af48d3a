"""Checks a streaming pipeline without running it: its files are read, and every source and sink is connected to."""

from __future__ import annotations

from functools import partial

from streamline.connectors.stream_connector import Side
from streamline.errors import ConfigError, StreamlineError
from streamline.execution.checklist import Checklist, Problem
from streamline.execution.flow_runs import renderer_of
from streamline.execution.imports import imports_of
from streamline.execution.run import Run
from streamline.execution.streaming.plan import SinkPlan, SourcePlan
from streamline.execution.streaming.planner import context_of, make_plan
from streamline.execution.streaming.repartitions import check_repartition
from streamline.execution.streaming.shared_groups import check_groups
from streamline.execution.streaming.singer import check_plugins_now, is_plugin
from streamline.pipeline.model import PipelineModel


def check_pipeline(run: Run, model: PipelineModel, checklist: Checklist) -> None:
    """Check the plan, the file of each transformer, and each source and sink."""
    try:
        plan = make_plan(run, model)
    except ConfigError as error:
        checklist.failed("plan", None, error)
        return
    try:
        check_groups(run, plan)
    except ConfigError as error:
        checklist.failed("plan", None, error)
        return
    checklist.passed("plan", None, f"delivery: {plan.settings.delivery}")
    renderer = renderer_of(run, model)
    imports = imports_of(run, model)
    for block in [*(transform.block for transform in plan.transforms.values()), *model.callbacks.values()]:
        from streamline.blocks.registry import check_block

        try:
            check_block(run.project, model, block, renderer)
            imports.check(block)
        except StreamlineError as error:
            checklist.failed(block.type, block.uuid, error)
        else:
            checklist.passed(block.type, block.uuid, "its file can be loaded")
    unreachable: dict[str, StreamlineError] = {}
    ends: list[tuple[Side, SourcePlan | SinkPlan]] = [
        *(("source", source) for source in plan.sources.values()),
        *(("destination", sink) for sink in plan.sinks.values()),
    ]
    context = partial(context_of, run, plan.pipeline, plan.settings)
    between = {end.id for each in plan.repartitions.values() for end in (each.sink, each.source)}
    check_plugins_now(run, model, plan, checklist)
    for side, end in ends:
        if is_plugin(end) or end.id in between:
            continue
        try:
            imports.check(end.block)
            if end.traits.cluster in unreachable:  # once is enough to wait for
                before = unreachable[end.traits.cluster]
                raise StreamlineError(
                    before.message, where=end.where("bootstrap_server"), hint=before.hint, code="kafka.unreachable"
                )
            detail = end.connector.check(side, end.config, context(end.id), end.where)
        except StreamlineError as error:
            problem: Problem = "configuration" if isinstance(error, ConfigError) else "connection"
            if error.code == "kafka.unreachable" and end.traits.cluster is not None:
                unreachable[end.traits.cluster] = error
            checklist.failed(side, end.id, error, problem, plugin=end.name)
        else:
            checklist.passed(side, end.id, detail, plugin=end.name)
    if unreachable:
        return  # repartition topics and state are on the cluster, too
    for repartition in plan.repartitions.values():
        try:
            detail = check_repartition(run, plan, repartition, context)
        except StreamlineError as error:
            checklist.failed("repartition", repartition.block, error, "connection")
        else:
            checklist.passed("repartition", repartition.block, detail)
    for state in plan.states.values():
        from streamline.execution.streaming.states import open_changelog

        if state.log is None:
            checklist.passed("state", state.block, "state in the state store")
            continue
        try:
            detail = open_changelog(run, plan, state, state.log, context).check()
        except StreamlineError as error:
            checklist.failed("state", state.block, error, "connection")
        else:
            checklist.passed("state", state.block, detail)
