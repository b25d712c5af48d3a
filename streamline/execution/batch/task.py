"""The unit of work: one call of one block, in a form that any machine with the same storage could carry out."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from streamline.blocks.call import TestOutcome
from streamline.processes.job import Failure

__all__ = ["Failure", "InputRef", "Kind", "Task", "TaskResult"]

Kind = Literal["run", "poll", "condition", "callback", "tests"]


class InputRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where an input is.

    Args:
        block: the upstream block's uuid.
        type: its type.
        folder: the folder of its stored output.
        inline: the output itself, where it must not be stored (`secret_output`).
        item: which item of a dynamic parent's output; None: all of it.
        child: it is the output of a dynamic block's child.
        described: the output says something about that item: keyword arguments of the child.
        parts: the outputs of several children, gathered into a list; then the other fields are empty.
        run_id: the run that wrote the folder; another's output is not read. None: whoever's.
    """

    block: str
    type: str
    folder: str | None = None
    inline: bytes | None = None
    item: int | None = None
    child: bool = False
    described: bool = False
    parts: tuple[InputRef, ...] | None = None
    run_id: str | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One call of one block.

    Args:
        id: unique in the run.
        kind: `run` the block; `poll` a sensor once; evaluate a `condition`; call a `callback`; `tests` of its stored
            output alone.
        project: the project's folder.
        pipeline: its uuid.
        block: uuid of the block that runs, as in metadata.yaml (a callback's or conditional's own for those kinds).
        inputs: in the order of `upstream_blocks`; of a condition: those of the block that it gates; of a callback:
            those of the block that it belongs to; of `tests`: none.
        output: the folder for the output; None: the output comes back inline.
        durable: whether the output is to survive a power cut when the task is done.
        own: the stored output that `tests` look at, or that a callback is given.
        variables: pipeline, trigger and runtime variables, the later winning; values still may hold templates where
            they come from YAML.
        runtime: names of those variables that were given from outside; they are never rendered.
        child: number of the child of a dynamic block, from 0.
        execution_date: when the run began (UTC).
        attempt: 1 is the first.
        run_tests: run the block's tests after it.
        dynamic: count the output's items.
        timeout: seconds.
        callback_for: `success`, `failure` or `cancelled`, for callbacks; with `extra` for their keyword arguments.
        extra: further keyword arguments.
    """

    id: str
    kind: Kind
    project: str
    pipeline: str
    block: str
    run_id: str
    run_dir: str
    inputs: tuple[InputRef, ...] = ()
    output: str | None = None
    durable: bool = True
    own: InputRef | None = None
    variables: dict[str, Any] = {}
    runtime: tuple[str, ...] = ()
    child: int | None = None
    execution_date: datetime
    attempt: int = 1
    run_tests: bool = False
    dynamic: bool = False
    timeout: float | None = None
    callback_for: str | None = None
    extra: dict[str, Any] = {}


class TaskResult(msgspec.Struct, kw_only=True):
    """What came of a task.

    Args:
        failure: None if it went well.
        inline: the output, where the task asked for it so.
        gate: False: the blocks behind this one are skipped; None: it has no say.
        items: of a dynamic block: how many items its output has.
        described: of a dynamic block: whether its output says something about its items. What it says stays with the
            output: it may hold objects of the user's classes, which are none of the runner's business.
        tests: what came of the tests.
        results: what the block lists as its results (dbt's nodes); JSON values.
        warnings: to be shown at the end of the run.
        seconds: how long the call took, without the waiting for a worker.
        outputs: the manifest's outputs in short, for `runs show`: `[{"name", "kind", "rows"}]`.
    """

    failure: Failure | None = None
    inline: bytes | None = None
    gate: bool | None = None
    items: int | None = None
    described: bool = False
    tests: list[TestOutcome] = []
    results: list[Any] = []
    warnings: list[str] = []
    seconds: float = 0.0
    outputs: list[dict[str, Any]] = []
