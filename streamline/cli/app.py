"""Shared by the commands: the project, its state store, and the selection of blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import click

from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project
    from streamline.state.store import Lease, Store


class App:
    """One invocation of the command line.

    Args:
        project_dir: the value of `--project`.
        debug: whether `--debug` was given.
    """

    def __init__(self, project_dir: str | None = None, *, debug: bool = False) -> None:
        self.project_dir = project_dir
        self.debug = debug
        self.as_json = False
        """Whether the command prints JSON."""
        self.owns_process = False
        """Whether the process ends with the command."""
        self._children: list[int] | None = None

    @cached_property
    def project(self) -> Project:
        """The selected project.

        Raises:
            ConfigError: there is none, or its file is wrong.
        """
        from pathlib import Path

        from streamline.project.project import Project

        if self.owns_process:
            self._take_process()
        return Project.find() if self.project_dir is None else Project.open(Path(self.project_dir))

    def _take_process(self) -> None:
        """Hide the secrets in this process from connectors, and adopt what outlives the processes that it starts."""
        from streamline.processes import orphans, wire

        wire.hide_memory()
        wire.adopt_orphans()
        self._children = orphans.children()

    def end_children(self) -> None:
        """Kill all processes that the command has left."""
        if self._children is not None:
            from streamline.processes.orphans import end_children

            end_children(self._children)

    def mask(self, text: str) -> str:
        """Mask the project's secrets that have been read so far."""
        project = self.__dict__.get("project")
        secrets = None if project is None else project.__dict__.get("secrets")
        return text if secrets is None else str(secrets.masker.mask(text))

    def load_pipeline(self, pipeline: str) -> PipelineModel:
        """Read a pipeline; print its warnings, and the project's, on stderr.

        Raises:
            ConfigError: there is none of that name, or its metadata.yaml is wrong.
        """
        from streamline.cli.output import say
        from streamline.pipeline.reader import load_pipeline

        model = load_pipeline(self.project, pipeline)
        for warning in (*self.project.warnings, *model.warnings):
            say(f"Warning: {warning}", err=True)
        return model

    def store(self) -> AbstractContextManager[Store]:
        """Open the project's state store."""
        from streamline.state import project_store

        return project_store(self.project)


pass_app = click.make_pass_decorator(App, ensure=True)


def require_pipeline(app: App, store: Store, pipeline: str) -> None:
    """Refuse a pipeline that neither the project nor the store has.

    Raises:
        ConfigError: there is none; the hint suggests a similar name.
    """
    names = app.project.pipelines()
    if pipeline in names or store.bookmark_blocks(pipeline) or store.runs(pipeline, limit=1):
        return
    from streamline.project.suggest import suggestion

    raise ConfigError(
        f"pipeline '{pipeline}' not found",
        hint=suggestion(pipeline, names, what="pipelines"),
        code="pipeline.not_found",
    )


def source_blocks(app: App, pipeline: str) -> list[str]:
    """Return the uuids of the pipeline's source blocks; none if the project no longer has the pipeline.

    Raises:
        ConfigError: its metadata.yaml is wrong.
    """
    if pipeline not in app.project.pipelines():
        return []
    from streamline.blocks.connector.role import connector_role
    from streamline.pipeline.reader import load_pipeline

    model = load_pipeline(app.project, pipeline)
    if model.moves_messages:
        return [uuid for uuid, block in model.blocks.items() if block.type == "data_loader"]
    return [uuid for uuid, block in model.blocks.items() if connector_role(block) == "source"]


def choose_block(app: App, store: Store, pipeline: str, stream: str | None, block: str | None) -> str:
    """Choose the block whose positions a command uses: `--block`, or the only candidate.

    Raises:
        ConfigError: there is no such block, or more than one.
    """
    recorded = store.bookmark_blocks(pipeline)
    if block in recorded:
        return block
    if block is None and stream is not None:
        having = [uuid for uuid in recorded if stream in store.bookmarks(pipeline, uuid)]
        if len(having) == 1:
            return having[0]
    candidates = known_blocks(app, store, pipeline)
    from streamline.project.suggest import suggestion

    if block is not None:
        if block in candidates:
            return block
        raise ConfigError(
            f"no block '{block}' with positions",
            where=pipeline,
            hint=suggestion(block, candidates, what="blocks"),
            code="block.not_found",
        )
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise ConfigError(
            "no block of this pipeline has positions",
            where=pipeline,
            hint="it has no source block",
            code="pipeline.no_source",
        )
    raise ConfigError(
        "several blocks of this pipeline have positions",
        where=pipeline,
        hint=f"add --block {'|'.join(candidates)}",
        code="block.ambiguous",
    )


def known_blocks(app: App, store: Store, pipeline: str) -> list[str]:
    """Return the blocks that have, had or could have positions, sorted."""
    return sorted({*store.bookmark_blocks(pipeline), *source_blocks(app, pipeline)})


def choose_blocks(app: App, store: Store, pipeline: str, block: str | None) -> list[str]:
    """Choose a block as `choose_block` does, with its children (`block:key`); without a name all with positions."""
    recorded = store.bookmark_blocks(pipeline)
    if block is not None:
        _, *children = with_children(store, pipeline, block)
        own = [] if children and block not in recorded else [choose_block(app, store, pipeline, None, block)]
        return own + children
    return recorded


def with_children(store: Store, pipeline: str, block: str) -> list[str]:
    """Return what a block's positions are kept under: its uuid, and for each child that has some `block:key`."""
    return [block, *(uuid for uuid in store.bookmark_blocks(pipeline) if uuid.startswith(f"{block}:"))]


def change_id(verb: str) -> str:
    """Make an id for an operator's change; the history shows it in place of a run id."""
    from datetime import UTC, datetime

    return f"{verb}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"


@contextmanager
def change(app: App, pipeline: str, verb: str) -> Iterator[tuple[Store, Lease]]:
    """Open the store and hold the pipeline's lease, for a command that changes positions.

    Raises:
        ConfigError: there is no such pipeline.
        LeaseHeld: a run of it is in progress.
    """
    with app.store() as store:
        require_pipeline(app, store, pipeline)
        with store.acquire_lease(pipeline, change_id(verb)) as lease:
            from streamline.cli.kept_positions import KeptPositions

            kept = KeptPositions(app.project, store, pipeline)
            yield store, lease
            kept.set_changed(lease)
