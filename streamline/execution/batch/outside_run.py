"""What source and destination blocks say outside of a run.

Where they use outputs of upstream blocks, these are the outputs that were stored last; of a block that runs once per
item, those of its first call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from streamline.blocks.call import block_output, block_text
from streamline.blocks.connector.prepared import Prepared, PreparedDestination, PreparedSource
from streamline.blocks.connector.spec import DestinationSpec, SourceSpec, load_spec
from streamline.errors import ConfigError, StreamlineError
from streamline.execution.batch.fanout import Finished, calls_of
from streamline.execution.batch.inputs import open_input
from streamline.execution.batch.output_layout import OutputLayout
from streamline.execution.batch.plan import plan_of
from streamline.execution.batch.resume import stored_block
from streamline.execution.batch.task import InputRef, Task
from streamline.execution.run import Run, RunOptions, new_run_id, open_run
from streamline.pipeline.model import BATCH_TYPES
from streamline.project.render import Renderer

if TYPE_CHECKING:
    from streamline.execution.batch.task import TaskResult
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.processes.job import Failure
    from streamline.project.project import Project
    from streamline.state.store import Store


def renderer_of(
    project: Project, model: PipelineModel, block: Block, variables: Mapping[str, Any] | None = None
) -> Renderer:
    """Return what renders a source or destination block in YAML.

    Args:
        variables: those that a run would be given.
    """
    known = {**project.variables, **model.variables}
    if model.type not in BATCH_TYPES:
        return Renderer(project, known, project.secrets)
    inputs = [open_input(ref, mage=project.mage) for ref in stored_inputs(project, model, block)]
    return Renderer(
        project,
        known,
        project.secrets,
        block_output(inputs, block.uuid),
        names={"execution_date": datetime.now(UTC)},
        runtime=variables,
    )


def prepared_blocks(
    project: Project,
    model: PipelineModel,
    blocks: Sequence[Block],
    store: Store,
    folder: Path,
    variables: Mapping[str, Any] | None = None,
    notify: Callable[[str], None] | None = None,
) -> dict[str, Prepared | StreamlineError]:
    """Prepare source and destination blocks, by uuid. User code runs, and outputs are read, in worker processes.

    Args:
        folder: private (0700), for their files.
        variables: those that a run would be given.

    Returns:
        What each says (a destination without what it exports), or why that is not known.
    """
    prepared: dict[str, Prepared | StreamlineError] = {}
    in_workers = [block for block in blocks if block.language == "python" or _uses_outputs(block)]
    for block in blocks:
        if block not in in_workers:
            try:
                prepared[block.uuid] = _prepared_yaml(block, renderer_of(project, model, block, variables))
            except StreamlineError as error:
                prepared[block.uuid] = error
    if in_workers:
        options = RunOptions(variables=dict(variables or {}), parallel=False)
        with open_run(project, store, model.uuid, new_run_id(), options, run_dir=folder) as run:
            results = asyncio.run(_in_workers(run, model, in_workers))
        for block, result in zip(in_workers, results, strict=True):
            prepared[block.uuid] = cast(Prepared, result.prepared) if result.failure is None else _error(result.failure)
    return prepared


def prepared_block(
    project: Project, model: PipelineModel, block: Block, store: Store, folder: Path
) -> PreparedSource | PreparedDestination:
    """Prepare one block. Args: see `prepared_blocks`.

    Raises:
        ConfigError: something in it is wrong, or it needs an output that is not stored.
        StreamlineError: its code raised.
    """
    prepared = prepared_blocks(project, model, [block], store, folder)[block.uuid]
    if isinstance(prepared, StreamlineError):
        raise prepared
    return prepared


def stored_inputs(project: Project, model: PipelineModel, block: Block) -> tuple[InputRef, ...]:
    """Return the inputs of a block's first call, as earlier runs left them; to read one that is missing is an error."""
    layout = OutputLayout(project, model.uuid, "")
    plans = plan_of(project, model, [model.blocks[name] for name in block.upstream]).blocks
    stored: dict[str, Finished] = {}
    remedies = {name: f"run it first: streamline run {model.uuid} --block-uuid {name}" for name in block.upstream}
    for name in block.upstream:
        try:
            stored[name] = stored_block(model, plans[name], layout, needed_by=block.uuid)
        except ConfigError as error:
            remedies[name] = error.hint or remedies[name]
    call = next((call for call in calls_of(list(stored.values())) if call.verdict is None), None)
    known = dict(zip(stored, call.inputs, strict=True)) if call is not None else {}
    return tuple(
        known.get(name) or InputRef(block=name, type=model.blocks[name].type, remedy=remedies[name])
        for name in block.upstream
    )


def _uses_outputs(block: Block) -> bool:
    try:
        return bool(block.upstream) and "block_output" in block_text(block)
    except ConfigError:
        return False  # reported where the file is read


def _prepared_yaml(block: Block, renderer: Renderer) -> Prepared:
    spec = load_spec(block, renderer)
    if isinstance(spec, SourceSpec):
        return PreparedSource(spec=spec)
    assert isinstance(spec, DestinationSpec)
    return PreparedDestination(spec=spec, exports=[])


async def _in_workers(run: Run, model: PipelineModel, blocks: Sequence[Block]) -> list[TaskResult]:
    # Imported here: blocks in YAML need no workers.
    from streamline.execution.batch.block_log import BlockLines
    from streamline.execution.batch.calls import RunFacts
    from streamline.execution.batch.executor import LocalExecutor

    facts = RunFacts(
        run=run,
        execution_date=datetime.now(UTC),
        variables={**model.variables, **run.options.variables},
        runtime=tuple(run.options.variables),
    )
    plan = plan_of(run.project, model, blocks)
    with LocalExecutor(plan, facts, BlockLines(run), run.masker) as executor:
        tasks = (
            Task(
                id=block.uuid,
                kind="prepare",
                project=str(run.project.root),
                pipeline=model.uuid,
                block=block.uuid,
                run_id=run.run_id,
                run_dir=str(run.run_dir),
                inputs=stored_inputs(run.project, model, block),
                variables=facts.variables,
                runtime=facts.runtime,
                execution_date=facts.execution_date,
                timeout=block.timeout,
                extra={"settings_only": True},
            )
            for block in blocks
        )
        return await asyncio.gather(*(executor.run(task, isolated=plan.blocks[task.block].isolated) for task in tasks))


def _error(failure: Failure) -> StreamlineError:
    kind = StreamlineError if failure.retry else ConfigError
    message = f"{failure.message}\n{failure.trace}" if failure.trace else failure.message
    return kind(message, where=failure.where, hint=failure.hint, code=failure.code)
