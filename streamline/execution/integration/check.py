"""Checks a pipeline without running it: its files are read and rendered, and every tap and target is started once.

A source is asked for its streams, or, if it has no discovery, started and stopped after its first message. A
destination gets the initial STATE and the end of its input, and has to exit with 0. No record reaches a target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import anyio
import anyio.to_thread
import msgspec

from streamline.blocks.connector.source import OpenedSource, open_source
from streamline.blocks.connector.spec import DestinationSpec, MapperSpec, SourceSpec, Spec, load_spec
from streamline.blocks.connector.stored_settings import move_stored_settings
from streamline.blocks.python.function import BlockFile
from streamline.connectors.plugins import Plugin, resolve_plugin
from streamline.connectors.registry import Role
from streamline.connectors.singer.build import tap_command, target_sink
from streamline.connectors.singer.capabilities import Capabilities, probe
from streamline.connectors.singer.discovery import read_catalog_file
from streamline.connectors.singer.sample import catalog_to_look
from streamline.connectors.singer.selection import choose
from streamline.connectors.singer.tap import TapProcess
from streamline.errors import ConfigError, StreamlineError
from streamline.execution.checklist import Checklist, Problem
from streamline.execution.integration.endpoints import workspace_of
from streamline.execution.integration.planner import make_plan
from streamline.execution.integration.topology import check_hook
from streamline.execution.run import Run
from streamline.flow.items import Item
from streamline.flow.tasks import task_group
from streamline.pipeline.model import Block, PipelineModel
from streamline.project.render import Renderer

AT_ONCE = 4
"""Sources that are connected to at the same time."""


class _Prepared(msgspec.Struct):
    """A block whose configuration is right: what is needed to start its plugin."""

    block: Block
    spec: Spec
    plugin: Plugin


async def check_pipeline(context: Run, model: PipelineModel, checklist: Checklist) -> None:
    """Check every block, then the plan."""
    await _IntegrationCheck(context, model, checklist).run()


class _IntegrationCheck:
    def __init__(self, context: Run, model: PipelineModel, checklist: Checklist) -> None:
        self._context = context
        self._model = model
        self._checklist = checklist
        self._timeout = checklist.timeout
        variables = {**context.project.variables, **model.variables}
        self._renderer = Renderer(context.project, variables, context.project.secrets)
        self._done = checklist.results

    async def run(self) -> None:
        move_stored_settings(self._context.project, self._model, self._context.store)
        prepared = [
            prepared_block
            for uuid in self._model.order()
            if (prepared_block := await self._prepare(self._model.blocks[uuid]))
        ]
        for hook in (*self._model.conditionals.values(), *self._model.callbacks.values()):
            self._check_hook(hook)
        limit = anyio.CapacityLimiter(AT_ONCE)
        async with task_group() as tasks:
            for each in prepared:
                if isinstance(each.spec, SourceSpec):
                    tasks.start_soon(self._connect, each, limit)
        # One after the other: two blocks may write to one file, which one process at a time may open.
        limiter = anyio.CapacityLimiter(1)
        for each in prepared:
            if not isinstance(each.spec, SourceSpec):
                await self._connect(each, limiter)
        if not any(each.problem is not None and each.what != "destination" for each in self._done):
            await self._plan()

    # -- what is written

    async def _prepare(self, block: Block) -> _Prepared | None:
        """Read and render a block and find its plugin; None if that failed, or there is no plugin to connect to."""
        what = {"data_loader": "source", "data_exporter": "destination"}.get(block.type, "transformer")
        try:
            if block.language != "yaml":
                await self._load_transformer(block)
                return None
            spec = load_spec(block, self._renderer)
            what = _kind(spec)
            if isinstance(spec, SourceSpec):
                path = self._model.path / block.uuid / "catalog.json"
                read_catalog_file(path, shown=self._context.project.shown(path))
            plugin = await anyio.to_thread.run_sync(self._resolve, *_named(spec))
            return _Prepared(block, spec, plugin)
        except StreamlineError as error:
            self._checklist.failed(what, block.uuid, error)
            return None

    def _check_hook(self, hook: Block) -> None:
        try:
            check_hook(self._context.project, self._model, hook, self._renderer)
        except StreamlineError as error:
            self._checklist.failed(hook.type, hook.uuid, error)
        else:
            self._checklist.passed(hook.type, hook.uuid, "its file can be loaded")

    def _resolve(self, name: str, role: Role) -> Plugin:
        notify = partial(self._context.note, "streamline")
        return resolve_plugin(self._context.project, name, role, notify=notify).for_run(self._context.run_id)

    async def _load_transformer(self, block: Block) -> None:
        if block.type != "transformer" or block.language != "python":
            return  # the plan says what may stand in a pipeline
        from streamline.blocks.python.live.transform import TransformStage

        file = BlockFile(block.uuid, str(block.file or self._model.yaml.path), block.content)
        stage = TransformStage(file, configuration=block.configuration, timeout=block.timeout or self._timeout)
        try:
            await stage.start()
        finally:
            await stage.close()
        self._checklist.passed("transformer", block.uuid, "its file can be loaded")

    async def _plan(self) -> None:
        try:
            plan = await make_plan(self._context, self._model)
        except StreamlineError as error:
            self._checklist.failed("plan", None, error)
            return
        gone = [reason for source in plan.sources.values() for reason in source.gone.values()]
        for reason in gone:
            self._checklist.failed("plan", None, reason)
        if gone:
            return
        streams = sum(len(source.selected) for source in plan.sources.values())
        detail = f"{streams} streams selected" if streams != 1 else "1 stream selected"
        notes = [note for source in plan.sources.values() for note in source.notes]
        self._checklist.passed("plan", None, "; ".join([detail, *notes]))

    # -- what it connects to

    async def _connect(self, prepared: _Prepared, limit: anyio.CapacityLimiter) -> None:
        block, plugin = prepared.block, prepared.plugin
        what = _kind(prepared.spec)
        async with limit:
            try:
                with anyio.fail_after(self._timeout):
                    detail = await (self._source(prepared) if what == "source" else self._receiver(prepared))
            except TimeoutError:
                error = StreamlineError(
                    f"timed out: no answer within {self._timeout:g} s",
                    where=plugin.name,
                    hint="check the address that it connects to, or raise --timeout",
                    code="plugin.timeout",
                )
                self._checklist.failed(what, block.uuid, error, "connection", plugin.name)
            except StreamlineError as error:
                problem: Problem = "configuration" if isinstance(error, ConfigError) else "connection"
                self._checklist.failed(what, block.uuid, error, problem, plugin.name)
            else:
                self._checklist.passed(what, block.uuid, detail, plugin.name)

    async def _source(self, prepared: _Prepared) -> str:
        context, block, spec = self._context, prepared.block, prepared.spec
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
            log=lambda line: context.child_line(block.uuid, line),
        )
        if source.capabilities.discover is not False and source.catalog is not None:
            count = len(source.catalog)
            return f"{count:,} streams" if count != 1 else "1 stream"
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

    async def _receiver(self, prepared: _Prepared) -> str:
        """Start a target or a mapper with its config, send it nothing but the initial state, and see it end well."""
        context, block, plugin = self._context, prepared.block, prepared.plugin
        capabilities = await probe(plugin, store=context.store, masker=context.masker)
        failures: list[Exception] = []
        target = target_sink(
            block.uuid, plugin, prepared.spec.config, workspace_of(context), echoes=False, drain_seconds=self._timeout
        )
        async with task_group() as tasks:
            tasks.start_soon(target.run, lambda source, number: None, failures.append)
            await target.close()
        if failures:
            raise failures[0]
        return f"started with its config and exited with 0{_about(capabilities)}"


def _kind(spec: Spec) -> str:
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
