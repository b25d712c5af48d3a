"""Starts taps and targets with their configs, and sees that they answer. No record reaches a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import anyio
import anyio.to_thread
import msgspec

from streamline.blocks.connector.source import OpenedSource, open_source
from streamline.blocks.connector.spec import DestinationSpec, MapperSpec, SourceSpec, Spec
from streamline.connectors.plugins import Plugin, resolve_plugin
from streamline.connectors.registry import Role
from streamline.connectors.singer.build import tap_command, target_sink
from streamline.connectors.singer.capabilities import Capabilities, probe
from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.sample import catalog_to_look
from streamline.connectors.singer.selection import choose
from streamline.connectors.singer.tap import TapProcess
from streamline.errors import ConfigError, StreamlineError
from streamline.execution.checklist import Checklist, Problem
from streamline.execution.flow_runs import workspace_of
from streamline.execution.run import Run
from streamline.flow.items import Item
from streamline.flow.tasks import task_group
from streamline.pipeline.model import Block, PipelineModel

AT_ONCE = 4
"""Sources that are connected to at the same time."""


class Connectable(msgspec.Struct, kw_only=True):
    """A block whose configuration is right: what is needed to start its plugin.

    Args:
        over: of a source: laid over the block's catalog.json.
        discovered: of a source: what the tap has discovered already.
        checks_streams: of a source: check that its streams exist; else the plan does that.
    """

    block: Block
    spec: Spec
    plugin: Plugin
    over: Catalog | None = None
    discovered: Catalog | None = None
    checks_streams: bool = False


class ConnectorCheck:
    """Connects to what blocks name."""

    def __init__(self, context: Run, model: PipelineModel, checklist: Checklist) -> None:
        self._context = context
        self._model = model
        self._checklist = checklist
        self._timeout = checklist.timeout

    async def plugin(self, spec: Spec) -> Plugin:
        """Return the plugin that a block names; it is installed if need be.

        Raises:
            ConfigError: there is none.
        """
        return await anyio.to_thread.run_sync(self._resolve, *_named(spec))

    async def connect(self, blocks: Sequence[Connectable]) -> None:
        """Connect to each; the results are in the checklist."""
        limit = anyio.CapacityLimiter(AT_ONCE)
        async with task_group() as tasks:
            for each in blocks:
                if isinstance(each.spec, SourceSpec):
                    tasks.start_soon(self._connect, each, limit)
        # One after the other: two blocks may write to one file, which one process at a time may open.
        limiter = anyio.CapacityLimiter(1)
        for each in blocks:
            if not isinstance(each.spec, SourceSpec):
                await self._connect(each, limiter)

    def _resolve(self, name: str, role: Role) -> Plugin:
        notify = partial(self._context.note, "streamline")
        return resolve_plugin(self._context.project, name, role, notify=notify).for_run(self._context.run_id)

    async def _connect(self, connectable: Connectable, limit: anyio.CapacityLimiter) -> None:
        uuid, plugin, what = connectable.block.uuid, connectable.plugin, kind_of(connectable.spec)
        async with limit:
            try:
                with anyio.fail_after(self._timeout):
                    detail = await (self._source(connectable) if what == "source" else self._receiver(connectable))
            except TimeoutError:
                error = StreamlineError(
                    f"timed out: no answer within {self._timeout:g} s",
                    where=plugin.name,
                    hint="check the address that it connects to, or raise --timeout",
                    code="plugin.timeout",
                )
                self._checklist.failed(what, uuid, error, "connection", plugin.name)
            except StreamlineError as error:
                problem: Problem = "configuration" if isinstance(error, ConfigError) else "connection"
                self._checklist.failed(what, uuid, error, problem, plugin.name)
            else:
                self._checklist.passed(what, uuid, detail, plugin.name)

    async def _source(self, connectable: Connectable) -> str:
        context, block, spec = self._context, connectable.block, connectable.spec
        assert isinstance(spec, SourceSpec)
        source = await open_source(
            context.project,
            self._model,
            block,
            context.store,
            context.run_dir,
            spec=spec,
            run_id=context.run_id,
            refresh=True,
            over=connectable.over,
            discovered=connectable.discovered,
            log=lambda line: context.child_line(block.uuid, line),
        )
        if source.capabilities.discover is not False and source.catalog is not None:
            count = len(source.catalog)
            detail = f"{count:,} streams" if count != 1 else "1 stream"
            if not connectable.checks_streams:
                return detail
            selected = choose(source.catalog, spec.streams, tap=source.traits, where=source.where)
            return f"{detail}, {len(selected):,} selected"
        return await self._first_message(source)

    async def _first_message(self, source: OpenedSource) -> str:
        """Start a tap that has no discovery, and stop it once it has said something."""
        context, plugin, capabilities = self._context, source.plugin, source.capabilities
        catalog: Mapping[str, object] | None = None
        if source.catalog is not None:
            selected = choose(source.catalog, source.spec.streams, tap=source.traits, where=source.where)
            catalog = catalog_to_look(source.catalog, selected, source.traits)
        workspace = workspace_of(context)
        tap = TapProcess(
            tap_command(
                source.block.uuid, plugin, source.config, workspace, capabilities=capabilities, catalog=catalog
            ),
            run_dir=workspace.run_dir,
            masker=workspace.masker,
            log=workspace.log_of(source.block.uuid),
            on_config_change=source.keep_config,
        )

        async def stop(items: Sequence[Item]) -> None:
            if items:
                tap.stop("it has answered")

        await tap.run(stop)
        return "no discovery; stopped after its first message" if tap.stopped else "it sent nothing"

    async def _receiver(self, connectable: Connectable) -> str:
        """Start a target or a mapper with its config, send it nothing but the initial state, and see it end well."""
        context, block, plugin = self._context, connectable.block, connectable.plugin
        capabilities = await probe(plugin, store=context.store, masker=context.masker)
        failures: list[Exception] = []
        target = target_sink(
            block.uuid,
            plugin,
            connectable.spec.config,
            workspace_of(context),
            echoes=False,
            drain_seconds=self._timeout,
        )
        async with task_group() as tasks:
            tasks.start_soon(target.run, lambda source, number: None, failures.append)
            await target.close()
        if failures:
            raise failures[0]
        return f"started with its config and exited with 0{_about(capabilities)}"


def kind_of(spec: Spec) -> str:
    """Return what a block is: source, destination or mapper."""
    if isinstance(spec, SourceSpec):
        return "source"
    return "destination" if isinstance(spec, DestinationSpec) else "mapper"


def _named(spec: Spec) -> tuple[str, Role]:
    if isinstance(spec, SourceSpec):
        return spec.source, "tap"
    if isinstance(spec, MapperSpec):
        return spec.mapper, "mapper"
    return spec.destination, "target"


def _about(capabilities: Capabilities) -> str:
    names = ", ".join(sorted(capabilities.names))
    return f"; capabilities: {names}" if names else ""
