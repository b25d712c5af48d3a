"""Checks a batch pipeline without running it: its blocks' files, what they import, and the databases that they name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from streamline.blocks.connector.role import connector_role
from streamline.blocks.registry import check_block
from streamline.errors import ConfigError, StreamlineError
from streamline.execution.batch.plan import make_plan
from streamline.execution.batch.templates import Templates
from streamline.execution.checklist import Checklist
from streamline.execution.imports import Imports
from streamline.extensions import load_object
from streamline.pipeline.block_settings import block_settings
from streamline.pipeline.kinds import kind_of
from streamline.project.project import Project
from streamline.project.render import Renderer

if TYPE_CHECKING:
    from streamline.pipeline.kinds import Connection
    from streamline.pipeline.model import Block, PipelineModel


def check_batch(project: Project, model: PipelineModel, checklist: Checklist, runtime: Mapping[str, Any]) -> None:
    """Check every block, then what they need, then the plan.

    Args:
        given: variables that a run would be given.
    """
    _BatchCheck(project, model, checklist, dict(runtime)).run()


class _BatchCheck:
    def __init__(self, project: Project, model: PipelineModel, checklist: Checklist, runtime: dict[str, Any]) -> None:
        self._project = project
        self._runtime = runtime
        self._templates = Templates(project, model, runtime)
        self._model = model
        self._checklist = checklist
        self._done = checklist.results
        self._good = checklist.passed
        self._failed = checklist.failed
        self._blocks = [model.blocks[uuid] for uuid in model.order()]
        self._blocks += [*model.conditionals.values(), *model.callbacks.values()]
        self._isolated = {uuid for uuid, block in model.blocks.items() if block_settings(model, block).isolated}
        self._own_python: str | None = None

    def run(self) -> None:
        if self._isolated:
            self._own_python = self._environment()
        self._imports = Imports(self._project, self._model, self._blocks, self._python_of)
        renderer = self._renderer({})
        self._variables()
        for block in self._blocks:
            self._block(block, renderer)
        self._connections()
        self._connectors()
        if not any(each.problem == "configuration" for each in self._done):
            self._plan()

    def _renderer(self, more: dict[str, object]) -> Renderer:
        variables = {**self._project.variables, **self._model.variables, **more}
        names = {"execution_date": datetime.now(UTC)}
        return Renderer(self._project, variables, self._project.secrets, names=names, runtime=self._runtime)

    def _variables(self) -> None:
        wrong = list(self._templates.variable_errors())
        for error in wrong:
            self._failed("variables", None, error)
        if not wrong and self._templates.in_variables():
            self._good("variables", None, "their templates can be rendered")

    def _environment(self) -> str | None:
        """Return the interpreter of the pipeline's isolated blocks; None if it cannot be made."""
        from streamline.pipeline.isolated import REQUIREMENTS_FILE, isolated_python

        shown = self._project.shown(self._model.path / REQUIREMENTS_FILE)
        try:
            python = isolated_python(self._project, self._model, self._checklist.notify)
        except StreamlineError as error:
            self._failed("environment", None, error)
            return None
        where = "Streamline's own environment has everything" if python == sys.executable else "installed"
        self._good("environment", None, f"{shown}: {where}")
        return python

    def _block(self, block: Block, renderer: Renderer) -> None:
        """Check a block's code without running it, its configuration's templates, and its imports."""
        python = self._python_of(block)
        kind = kind_of(block)
        try:
            check_block(self._project, self._model, block, renderer)
            if kind is not None and kind.verify is not None:
                load_object(kind.verify)(self._project, block)
            self._templates.check_block(block)
            self._imports.check(block)
        except StreamlineError as error:
            self._failed(block.type, block.uuid, error)
            return
        installed = ", and what it imports is installed" if python is not None and kind and kind.imports else ""
        checked = kind.checked if kind is not None else "can be read"
        self._good(block.type, block.uuid, f"{self._shown(block)} {checked}{installed}")

    def _python_of(self, block: Block) -> str | None:
        return self._own_python if block.uuid in self._isolated else sys.executable

    def _connections(self) -> None:
        """Connect once to each database that blocks name."""
        renderer = self._renderer({"execution_date": ""})
        seen: set[tuple[object, ...]] = set()
        for block in self._blocks:
            # A block with an error has been reported.
            if any(each.block == block.uuid and not each.ok for each in self._done):
                continue
            kind = kind_of(block)
            if kind is None or kind.connection is None:
                continue
            connection: Connection | None = load_object(kind.connection)(self._project, self._model, block, renderer)
            if connection is None:
                continue
            if connection.error is not None:
                self._failed("profile", None, connection.error, plugin=connection.name)
            elif connection.key not in seen and connection.test is not None:
                seen.add(connection.key)
                self._connect(connection.name, connection.test)

    def _connectors(self) -> None:
        """Connect to what sources and destinations name."""
        failed = {each.block for each in self._done if not each.ok}
        blocks = [block for block in self._blocks if connector_role(block) is not None and block.uuid not in failed]
        if blocks:
            from streamline.execution.connector_blocks.check import check_connectors  # most pipelines have none

            check_connectors(self._project, self._model, blocks, self._checklist, self._runtime)

    def _connect(self, name: str, test: Callable[[], str]) -> None:
        try:
            detail = test()
        except ConfigError as error:
            self._failed("profile", None, error, plugin=name)
        except StreamlineError as error:
            self._failed("profile", None, error, "connection", plugin=name)
        else:
            self._good("profile", None, detail, name)

    def _plan(self) -> None:
        try:
            plan = make_plan(self._project, self._model, self._runtime)
        except StreamlineError as error:
            self._failed("plan", None, error)
            return
        number = len(plan.blocks)
        self._good("plan", None, f"{number:,} block{'s' if number != 1 else ''} can run")

    # -- results

    def _shown(self, block: Block) -> str:
        return self._project.shown(block.file) if block.file is not None else self._model.where(block.uuid, "content")
