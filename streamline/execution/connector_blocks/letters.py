"""Plans to send dead letters of batch pipelines again: records that a destination refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

from streamline.blocks.connector.prepared import PreparedDestination
from streamline.connectors.singer.selection import SelectedStream
from streamline.execution.batch.outside_run import prepared_block
from streamline.execution.connector_blocks.plans import destination_spec, plan_output, resolve_target
from streamline.execution.integration.destination_plan import plan_sinks
from streamline.execution.integration.plan import PathPlan, Plan
from streamline.execution.integration.schema_book import saved_schemas

if TYPE_CHECKING:
    from streamline.blocks.connector.spec import DestinationSpec
    from streamline.connectors.plugins import Plugin
    from streamline.connectors.singer.capabilities import Capabilities
    from streamline.execution.run import Run
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.state.store import DeadLetter


async def plan_letters(run: Run, model: PipelineModel, letters: Sequence[DeadLetter]) -> Plan:
    """Return the plan of a run that sends letters to the destinations that refused them.

    Letters of blocks and destinations that are gone are not in it.

    Raises:
        ConfigError: a destination is configured wrongly, or uses an output that is not stored.
    """
    destinations: dict[str, tuple[Block, DestinationSpec]] = {}
    targets: dict[str, tuple[Plugin, Capabilities]] = {}
    paths: dict[str, PathPlan] = {}
    streams: dict[str, dict[str, SelectedStream]] = {}
    for letter in letters:
        uuid, source = letter.destination, letter.block
        if uuid not in model.blocks or source not in model.blocks:
            continue
        block = model.blocks[uuid]
        if uuid not in destinations:
            prepare = partial(prepared_block, run.project, model, block, run.store, run.run_dir)
            prepared = await anyio.to_thread.run_sync(prepare)
            assert isinstance(prepared, PreparedDestination)
            spec = destination_spec(prepared)
            destinations[uuid] = (block, spec)
            targets[uuid] = await resolve_target(run, block, spec)
        path = paths.setdefault(source, PathPlan(transforms=[], sinks=[], branches=[]))
        if uuid not in path.sinks:
            path.sinks.append(uuid)
        schema = saved_schemas(run.store, model.uuid, source, uuid).get(letter.stream)
        streams.setdefault(source, {})[letter.stream] = SelectedStream(
            id=letter.stream,
            stream=letter.stream,
            names=(letter.stream,),
            key_properties=list(schema.key_properties or ()) if schema is not None else [],
        )
    sources = {source: plan_output(run, model.blocks[source], list(each.values())) for source, each in streams.items()}
    sinks = plan_sinks(destinations, targets, sources, paths)
    return Plan(pipeline=model.uuid, sources=sources, mappers={}, paths=paths, sinks=sinks)
