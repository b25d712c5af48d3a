"""The taps and targets of a streaming plan: which blocks they are, and what they have to be asked before a run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread
import msgspec

from streamline.connectors.singer.connector import SingerConnector
from streamline.errors import ConfigError, StreamlineError
from streamline.execution.flow_runs import renderer_of
from streamline.execution.run import Run, checking_options
from streamline.execution.streaming.delivery import deliveries_of
from streamline.execution.streaming.plan import EndPlan, Plan

if TYPE_CHECKING:
    from streamline.execution.checklist import Checklist
    from streamline.execution.connector_blocks.streams import Ends
    from streamline.pipeline.model import PipelineModel


_TAP_OPTIONS = {
    "streams": "--stream",
    "full_refresh": "--full-refresh",
    "bookmarks": "--bookmark",
    "accept_gap": "--accept-gap",
    "refresh_catalog": "--refresh-catalog",
}


def is_plugin(end: EndPlan) -> bool:
    """Return whether a source or sink is a tap or a target."""
    return isinstance(end.connector, SingerConnector)


def has_plugins(plan: Plan) -> bool:
    """Return whether a plan has taps, targets, or messages in Singer's format."""
    return any(is_plugin(end) or _is_singer(end) for end in (*plan.sources.values(), *plan.sinks.values()))


async def plan_plugins(run: Run, model: PipelineModel, plan: Plan, *, show: bool = False) -> bool:
    """Ask taps and targets what they can do, and plan what they read and write.

    Args:
        show: the plan is only shown.

    Returns:
        False: the run was interrupted meanwhile.

    Raises:
        StreamlineError: something cannot be done as it is written, or a tap does not say what it has.
    """
    if not any(is_plugin(source) for source in plan.sources.values()):
        _refuse_options(run, model)
    if not has_plugins(plan):
        return True
    # Imported here: other pipelines need no plugins.
    from streamline.execution.connector_blocks.streams import plan_singer, unless_interrupted

    work = plan_singer(run, model, renderer_of(run, model), plan.variables, _ends(plan), show=show)
    plan.singer = await unless_interrupted(run, work)
    if plan.singer is None:
        return False
    for uuid, source in plan.sources.items():
        if is_plugin(source):
            source.name = plan.singer.plan.sources[uuid].plugin.name
    for uuid, sink in plan.sinks.items():
        if is_plugin(sink):
            sink.name = plan.singer.plan.sinks[uuid].plugin.name
            sink.traits = msgspec.structs.replace(sink.traits, replaces=plan.singer.replaces(uuid))
    plan.deliveries = deliveries_of(plan)
    if not show:
        for block, note in plan.singer.notes:
            run.warn(block, note)
        await anyio.to_thread.run_sync(plan.singer.keep_destinations, run)
    return True


async def check_plugins(run: Run, model: PipelineModel, plan: Plan, checklist: Checklist) -> None:
    """Connect to taps and targets, as `streamline check` does in other pipelines."""
    from streamline.blocks.connector.spec import load_spec
    from streamline.execution.connector_check import Connectable, ConnectorCheck

    check = ConnectorCheck(run, model, checklist)
    connectable: list[Connectable] = []
    renderer = renderer_of(run, model)
    blocks = [
        *(("source", source.block) for source in plan.sources.values() if is_plugin(source)),
        *(("mapper", mapper) for mappers in plan.mappers.values() for mapper in mappers),
        *(("destination", sink.block) for sink in plan.sinks.values() if is_plugin(sink)),
    ]
    for what, block in blocks:
        try:
            spec = load_spec(block, renderer)
            connectable.append(
                Connectable(block=block, spec=spec, plugin=await check.plugin(spec), checks_streams=True)
            )
        except StreamlineError as error:
            checklist.failed(what, block.uuid, error)
    await check.connect(connectable)


def check_plugins_now(run: Run, model: PipelineModel, plan: Plan, checklist: Checklist) -> None:
    """`check_plugins`, where no event loop runs."""
    if any(is_plugin(end) for end in (*plan.sources.values(), *plan.sinks.values())):
        anyio.run(partial(check_plugins, run, model, plan, checklist))


def plan_plugins_now(run: Run, model: PipelineModel, plan: Plan) -> None:
    """`plan_plugins` to show the plan, where no event loop runs."""
    if has_plugins(plan):
        anyio.run(partial(plan_plugins, run, model, plan, show=True))


def _refuse_options(run: Run, model: PipelineModel) -> None:
    """Refuse options about the bookmarks of taps."""
    given = [flag for name, flag in _TAP_OPTIONS.items() if getattr(run.options, name)]
    if given:
        with checking_options():
            raise ConfigError(
                f"{given[0]} is about sources that are taps, and this pipeline has none",
                where=model.uuid,
                hint="leave it out",
                code="run.option_refused",
            )


def _ends(plan: Plan) -> Ends:
    from streamline.execution.connector_blocks.streams import Ends

    every = [*plan.sources.values(), *plan.sinks.values()]
    return Ends(
        taps={uuid: end.block for uuid, end in plan.sources.items() if is_plugin(end)},
        targets={uuid: end.block for uuid, end in plan.sinks.items() if is_plugin(end)},
        sources={uuid: end.block for uuid, end in plan.sources.items() if not is_plugin(end)},
        sinks={uuid: (end.block, end.name, end.config) for uuid, end in plan.sinks.items() if not is_plugin(end)},
        sinks_of={uuid: plan.sinks_of(uuid) for uuid in plan.sources},
        singer=frozenset(end.id for end in every if _is_singer(end)),
        mappers=plan.mappers,
    )


def _is_singer(end: EndPlan) -> bool:
    return not is_plugin(end) and end.config.get("format") == "singer"
