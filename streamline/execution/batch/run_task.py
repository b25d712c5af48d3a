"""Runs one task in a worker process: opens its inputs, calls the block, stores what it returned."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.call import BlockCall, Input, block_output
from streamline.blocks.python.block import evaluate, forget, poll
from streamline.blocks.python.callback import call_back
from streamline.blocks.python.function import UserError, user_error
from streamline.blocks.registry import prepare_block, run_block, run_block_tests
from streamline.errors import ConfigError, StreamlineError
from streamline.execution.batch.inputs import child_key, item_metadata, open_input, open_ref
from streamline.execution.batch.run_variables import execution_date
from streamline.execution.batch.task import Failure, Task, TaskResult, exports_folder
from streamline.io.config import use_renderer
from streamline.outputs.dynamic import items_of
from streamline.outputs.manifest import summary
from streamline.outputs.store import open_output, pack, project_key, unpack, write_output
from streamline.pipeline.model import Block, PipelineModel
from streamline.pipeline.reader import load_pipeline
from streamline.processes.job import Outcome
from streamline.processes.worker import Port, failure_of_known
from streamline.project.current import set_current
from streamline.project.project import Project
from streamline.project.render import Renderer
from streamline.project.yamlfile import load_yaml

if TYPE_CHECKING:
    from streamline.outputs.store import Output


def run_task(task: Task, port: Port) -> Outcome:
    """Run a task in a worker process.

    User errors and wrong configuration are failures in the TaskResult, which is the outcome's value; other exceptions
    are bugs of the engine and are raised.
    """
    began = time.perf_counter()
    result = TaskResult()
    try:
        _run_task(task, port, result)
    except UserError as error:
        result.failure = Failure(message=error.summary, where=error.where, hint=error.hint, trace=error.trace)
    except StreamlineError as error:
        result.failure = failure_of_known(error)
    result.seconds = time.perf_counter() - began
    return Outcome(value=result, failure=result.failure, seconds=result.seconds)


def _run_task(task: Task, port: Port, result: TaskResult) -> None:
    project, model = _pipeline(task.project, task.pipeline, task.run_id)
    project.secrets.masker.on_add = port.secret
    block = model.find(task.block)
    if block is None:
        raise ConfigError(
            f"the pipeline '{model.uuid}' no longer has a block '{task.block}'",
            where=model.yaml.shown,
            hint="the file was changed during the run; run the pipeline again",
            code="block.unknown",
        )
    if project.mage:
        task = _with_set_variables(task, model)
    inputs = [open_input(ref, mage=project.mage) for ref in task.inputs]
    date = _date(task, project)
    renderer = _renderer(project, task, inputs, date)
    variables = _variables(task, renderer)

    def where(path: Sequence[str | int]) -> str:
        return model.where(task.block, "configuration", *path)

    block = msgspec.structs.replace(block, configuration=renderer.render(block.configuration, where))
    project.secrets.masker.add_config(block.configuration)

    def warn(text: str) -> None:
        result.warnings.append(text)
        port.log(text, "WARNING")

    os.chdir(project.root)
    # `from utils.x import y` and, as in Mage projects, `from my_project.utils.x import y`. At the end: a project's
    # `json.py` or folder `transformers` does not hide an installed package from other packages.
    sys.path += [str(project.root), str(project.root.parent)]
    # Secrets and connection profiles that a block reads without naming a project are this project's.
    set_current(project)
    use_renderer(renderer)
    logger = _logger(task, port)
    try:
        with _scratch_folder(task.run_dir) as make_scratch:
            call = BlockCall(
                project=project,
                pipeline=task.pipeline,
                block=block,
                inputs=inputs,
                kwargs=_keyword_arguments(task, project, block, variables, date, logger),
                variables=variables,
                renderer=renderer,
                make_scratch=make_scratch,
                run_id=task.run_id,
                attempt=task.attempt,
                log=port.log,
                warn=warn,
                refresh=task.refresh,
                results=result.results,
            )
            _KINDS[task.kind](task, call, result)
            result.gate = call.gate if result.gate is None else result.gate
    finally:
        forget()  # frees what the block's module holds: the next task may be far away
        set_current(None)
        use_renderer(None)
        logger.handlers.clear()


@contextmanager
def _scratch_folder(parent: str) -> Iterator[Callable[[], Path]]:
    """Yield what makes the call's private folder, once; delete it afterwards. Most calls need none."""
    folders: list[Path] = []

    def make() -> Path:
        if not folders:
            folders.append(Path(tempfile.mkdtemp(prefix="block-", dir=parent)))
        return folders[0]

    try:
        yield make
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _run(task: Task, call: BlockCall, result: TaskResult) -> None:
    value = run_block(call)
    output = _store(task, call, value, result)
    if task.dynamic:
        _count_items(output, call, result)
    if task.run_tests:
        _test(call, output, result)


def _store(task: Task, call: BlockCall, value: Any, result: TaskResult) -> Output:
    key = functools.partial(project_key, call.project.work_dir)
    if task.output is None:
        result.inline = pack(value)
        return unpack(result.inline)
    path = call.block.file
    try:
        manifest = write_output(Path(task.output), value, run_id=task.run_id, secrets_key=key, durable=task.durable)
    except StreamlineError as error:
        error.where = error.where or call.where
        raise
    except Exception as error:
        # A generator's own code runs while it is stored.

        if path is None:
            raise
        raise user_error(error, str(path)) from None
    result.outputs = summary(manifest)
    return open_output(Path(task.output), key)


def _count_items(output: Output, call: BlockCall, result: TaskResult) -> None:
    try:
        items = items_of(output)
    except StreamlineError as error:
        raise StreamlineError(
            error.message, where=error.where or call.where, hint=error.hint, code=error.code
        ) from error
    result.items = len(items)
    result.described = any(items.metadata(number) for number in range(result.items))


def _test(call: BlockCall, output: Output, result: TaskResult) -> None:
    result.tests = run_block_tests(call, output)
    failed = [test for test in result.tests if test.error is not None]
    if failed:
        total = len(result.tests)
        lines = "; ".join(f"{test.name}: {test.error}" for test in failed)
        result.failure = Failure(
            message=f"{len(failed)} of {total} test{'s' if total > 1 else ''} failed: {lines}",
            where=failed[0].where,
            trace="\n".join(f"{test.name}:\n{test.trace}" for test in failed if test.trace) or None,
            code="block.test_failed",
            retry=False,
        )


def _tests(task: Task, call: BlockCall, result: TaskResult) -> None:
    assert task.own is not None
    _test(call, open_ref(task.own), result)


def _poll(task: Task, call: BlockCall, result: TaskResult) -> None:
    result.gate = bool(task.extra.get("skip")) or poll(call)
    if not result.gate:
        return
    output = _store(task, call, True, result)
    if task.run_tests:
        _test(call, output, result)


def _condition(task: Task, call: BlockCall, result: TaskResult) -> None:
    result.gate = evaluate(call)


def _prepare(task: Task, call: BlockCall, result: TaskResult) -> None:
    from streamline.blocks.connector.prepared import PreparedDestination, PreparedSource  # most blocks are neither

    prepared = prepare_block(call)
    if isinstance(prepared, PreparedDestination) and not task.extra.get("settings_only"):
        from streamline.blocks.connector.exports import with_streams

        live = [number for number, ref in enumerate(task.inputs) if ref.live]
        prepared = with_streams(call, prepared, exports_folder(task), live)
    elif isinstance(prepared, PreparedSource) and task.child is not None:
        prepared = msgspec.structs.replace(prepared, key=child_key(task.items or task.inputs) or f"#{task.child}")
    result.prepared = prepared


def _callback(task: Task, call: BlockCall, result: TaskResult) -> None:
    extra = dict(task.extra)
    failure = extra.pop("failure", None)
    call.kwargs.update(extra)
    own = open_input(task.own, mage=call.project.mage) if task.own is not None else None
    call_back(call, task.callback_for or "success", failure, own)


_KINDS: Mapping[str, Callable[[Task, BlockCall, TaskResult], None]] = {
    "run": _run,
    "prepare": _prepare,
    "poll": _poll,
    "condition": _condition,
    "callback": _callback,
    "tests": _tests,
}


@functools.lru_cache(maxsize=4)
def _pipeline(root: str, uuid: str, run_id: str) -> tuple[Project, PipelineModel]:
    # Read once per run and worker: changes in the files apply to the next run.
    project = Project.open(Path(root))
    return project, load_pipeline(project, uuid)


def _renderer(project: Project, task: Task, inputs: Sequence[Input], date: datetime) -> Renderer:
    runtime = {name: task.variables[name] for name in task.runtime if name in task.variables}
    return Renderer(
        project,
        {**project.variables, **task.variables},
        project.secrets,
        block_output(inputs, task.block),
        names={"execution_date": date},
        runtime=runtime,
    )


def _with_set_variables(task: Task, model: PipelineModel) -> Task:
    """Return the task with the variables that earlier blocks of the run have set (`set_global_variable`)."""
    status = model.yaml.path.stat()
    written = _written_variables(model.yaml.path, (status.st_mtime_ns, status.st_size))
    new = {name: value for name, value in written.items() if name not in task.runtime}
    return msgspec.structs.replace(task, variables={**task.variables, **new})


@functools.lru_cache(maxsize=2)
def _written_variables(path: Path, _: tuple[int, int]) -> dict[str, Any]:
    return load_yaml(path, allow_duplicates=True).mapping(("variables",))


def _variables(task: Task, renderer: Renderer) -> dict[str, Any]:
    """Return the variables with their templates rendered, except those that were given from outside."""
    final = set(task.runtime)
    return {
        name: value if name in final else renderer.render(value, f"variable {name}")
        for name, value in task.variables.items()
    }


def _date(task: Task, project: Project) -> datetime:
    """Return `execution_date`; a variable of that name overrides it (for a backfill)."""
    variable = task.variables.get("execution_date")
    if isinstance(variable, str) and "execution_date" not in task.runtime:
        renderer = Renderer(project, {**project.variables, **task.variables}, project.secrets)
        variable = renderer.render(variable, "variable execution_date")
    return execution_date(variable, task.execution_date)


def _times(task: Task, date: datetime) -> dict[str, Any]:
    """Return the keyword arguments that follow from `execution_date`."""
    seconds = task.variables.get("interval_seconds")
    has_interval = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    step = timedelta(seconds=seconds) if has_interval and seconds is not None else None
    return {
        "ds": date.strftime("%Y-%m-%d"),
        "hr": date.strftime("%H"),
        "interval_start_datetime": date,
        "interval_end_datetime": date + step if step else None,
        "interval_seconds": seconds,
        "interval_start_datetime_previous": date - step if step else None,
    }


def _keyword_arguments(
    task: Task, project: Project, block: Block, variables: Mapping[str, Any], date: datetime, logger: logging.Logger
) -> dict[str, Any]:
    times = _times(task, date)
    if project.mage:
        partition = task.execution_date.strftime("%Y%m%dT%H%M%S")
        times |= {"execution_partition": partition, "event": {}, "pipeline_run_id": task.run_id, "trigger_name": None}
    arguments: dict[str, Any] = {"env": os.environ.get("ENV") or "dev", **times, **variables}
    arguments["execution_date"] = date
    for ref in task.inputs:
        if ref.described:  # later parents override earlier ones
            arguments.update(item_metadata(ref))
    arguments.update(
        pipeline_uuid=task.pipeline,
        block_uuid=task.block,
        run_id=task.run_id,
        repo_path=str(project.root),
        logger=logger,
        configuration=block.configuration,
        context={},
        retry={"attempts": task.attempt},
    )
    if task.child is not None:
        arguments["dynamic_block_index"] = task.child
    return arguments


class _PortHandler(logging.Handler):
    def __init__(self, port: Port) -> None:
        super().__init__()
        self._port = port

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        except Exception:  # a wrong format string must not fail the block
            text = f"{record.msg} {record.args}"
        level = "ERROR" if record.levelno >= logging.ERROR else record.levelname
        self._port.log(text, level if level in ("DEBUG", "INFO", "WARNING", "ERROR") else "INFO")


def _logger(task: Task, port: Port) -> logging.Logger:
    # Not in logging's tree: blocks may change that, and it keeps every name forever.
    logger = logging.Logger(f"streamline.{task.pipeline}.{task.block}", logging.DEBUG)
    logger.addHandler(_PortHandler(port))
    return logger
