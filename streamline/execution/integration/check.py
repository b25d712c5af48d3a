"""Checks a pipeline without running it: its files are read and rendered, and every tap and target is started once.

A source is asked for its streams, or, if it has no discovery, started and stopped after its first message. A
destination gets the initial STATE and the end of its input, and has to exit with 0. No record reaches a target.
"""

from __future__ import annotations

from streamline.blocks.connector.spec import SourceSpec, load_spec
from streamline.blocks.connector.stored_settings import move_stored_settings
from streamline.blocks.python.function import BlockFile
from streamline.connectors.singer.discovery import read_catalog_file
from streamline.errors import StreamlineError
from streamline.execution.checklist import Checklist
from streamline.execution.connector_check import Connectable, ConnectorCheck, kind_of
from streamline.execution.integration.planner import make_plan
from streamline.execution.integration.topology import check_hook
from streamline.execution.run import Run
from streamline.pipeline.model import Block, PipelineModel
from streamline.project.render import Renderer


async def check_pipeline(context: Run, model: PipelineModel, checklist: Checklist) -> None:
    """Check every block, then the plan."""
    await _IntegrationCheck(context, model, checklist).run()


class _IntegrationCheck:
    def __init__(self, context: Run, model: PipelineModel, checklist: Checklist) -> None:
        self._context = context
        self._model = model
        self._checklist = checklist
        self._connectors = ConnectorCheck(context, model, checklist)
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
        await self._connectors.connect(prepared)
        if not any(each.problem is not None and each.what != "destination" for each in self._done):
            await self._plan()

    # -- what is written

    async def _prepare(self, block: Block) -> Connectable | None:
        """Read and render a block and find its plugin; None if that failed, or there is no plugin to connect to."""
        what = {"data_loader": "source", "data_exporter": "destination"}.get(block.type, "transformer")
        try:
            if block.language != "yaml":
                await self._load_transformer(block)
                return None
            spec = load_spec(block, self._renderer)
            what = kind_of(spec)
            if isinstance(spec, SourceSpec):
                path = self._model.path / block.uuid / "catalog.json"
                read_catalog_file(path, shown=self._context.project.shown(path))
            return Connectable(block=block, spec=spec, plugin=await self._connectors.plugin(spec))
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

    async def _load_transformer(self, block: Block) -> None:
        if block.type != "transformer" or block.language != "python":
            return  # the plan says what may stand in a pipeline
        from streamline.blocks.python.live.transform import TransformStage

        file = BlockFile(block.uuid, str(block.file or self._model.yaml.path), block.content)
        stage = TransformStage(
            file, configuration=block.configuration, timeout=block.timeout or self._checklist.timeout
        )
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
