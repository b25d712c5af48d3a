"""Connects to what the source and destination blocks of a batch pipeline name, as far as that is known before a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from streamline.blocks.connector.prepared import Prepared, PreparedSource
from streamline.blocks.connector.source import catalogs_of, private_folder
from streamline.errors import StreamlineError
from streamline.execution.batch.outside_run import prepared_blocks
from streamline.execution.connector_check import Connectable, ConnectorCheck, kind_of
from streamline.execution.run import Run, RunOptions, open_run
from streamline.state import project_store

if TYPE_CHECKING:
    from streamline.execution.checklist import Checklist
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project


def check_connectors(
    project: Project, model: PipelineModel, blocks: Sequence[Block], checklist: Checklist, runtime: Mapping[str, Any]
) -> None:
    """Check source and destination blocks whose files are right. The functions of those in Python are called.

    Args:
        runtime: variables that a run would be given.
    """
    options = RunOptions(variables=dict(runtime))
    with project_store(project) as store, private_folder(project, "check") as folder:
        prepared = prepared_blocks(project, model, blocks, store, folder, runtime)
        with open_run(project, store, model.uuid, folder.name, options, run_dir=folder) as run:
            anyio.run(partial(_connect, run, model, blocks, prepared, checklist))


async def _connect(
    run: Run,
    model: PipelineModel,
    blocks: Sequence[Block],
    prepared: Mapping[str, Prepared | StreamlineError],
    checklist: Checklist,
) -> None:
    check = ConnectorCheck(run, model, checklist)
    connectable = []
    for block in blocks:
        known = prepared[block.uuid]
        what = "source" if block.type == "data_loader" else "destination"
        if isinstance(known, StreamlineError):
            if known.code == "block.no_stored_output":
                checklist.passed(what, block.uuid, f"not connected to, because {known.message}; {known.hint}")
            else:
                checklist.failed(what, block.uuid, known)
            continue
        try:
            plugin = await check.plugin(known.spec)
        except StreamlineError as error:
            checklist.failed(kind_of(known.spec), block.uuid, error)
            continue
        each = Connectable(block=block, spec=known.spec, plugin=plugin)
        if isinstance(known, PreparedSource):
            where = run.project.shown(block.file) if block.file is not None else block.uuid
            each.over, each.discovered = catalogs_of(known, where)
            each.checks_streams = True
        connectable.append(each)
    await check.connect(connectable)
