"""The unit of work: one call of one block, in a form that any machine with the same storage could run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from streamline.blocks.call import TestOutcome
from streamline.processes.job import Failure

if TYPE_CHECKING:
    from streamline.blocks.connector.prepared import Prepared

__all__ = ["Failure", "InputRef", "Kind", "Task", "TaskResult", "exports_folder"]

Kind = Literal["run", "prepare", "poll", "condition", "callback", "tests"]


class InputRef(msgspec.Struct, frozen=True, kw_only=True):
    """The location of an input.

    Args:
        block: the upstream block's uuid.
        type: its type.
        folder: the folder of its stored output; None, and no `inline`: there is none.
        remedy: what to do where there is none.
        inline: the output itself, where it must not be stored (`secret_output`).
        item: which item of a dynamic parent's output; None: all of it.
        child: it is the output of a dynamic block's child.
        described: the output has metadata for that item: keyword arguments of the child.
        parts: the outputs of several children, as a list; then the other fields are empty.
        live: it is not stored: a destination gets it as it is read.
        run_id: the run that wrote the folder; the output of another run is an error. None: any run's.
    """

    block: str
    type: str
    folder: str | None = None
    remedy: str | None = None
    inline: bytes | None = None
    item: int | None = None
    child: bool = False
    described: bool = False
    parts: tuple[InputRef, ...] | None = None
    live: bool = False
    run_id: str | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One call of one block.

    Args:
        id: unique in the run.
        kind: `run` the block; `prepare` a source or destination; `poll` a sensor once; evaluate a `condition`; call a
            `callback`; `tests` of its stored output alone.
        project: the project's folder.
        pipeline: its uuid.
        block: uuid of the block that runs, as in metadata.yaml (a callback's or conditional's own for those kinds).
        inputs: in the order of `upstream_blocks`; of a condition: those of the block that it gates; of a callback:
            those of the block that it belongs to; of `tests`: none.
        output: the folder for the output; None: the output comes back inline.
        durable: whether the output survives a power cut once the task is done.
        own: the stored output that `tests` check, or that a callback gets.
        variables: pipeline, trigger and runtime variables, later ones override earlier ones; values from YAML may
            still contain templates.
        runtime: names of the variables that were given from outside; they are never rendered.
        child: number of the child of a dynamic block, from 0.
        call: the items that it gets, as in `fanout.CallKey`.
        items: of a source: these items, also where it gets something made of them; empty: they are not known.
        execution_date: when the run started (UTC).
        attempt: 1 is the first.
        run_tests: run the block's tests after the block.
        refresh: sources are asked for their catalogs, even where one is kept.
        dynamic: count the output's items.
        timeout: seconds.
        callback_for: `success`, `failure` or `cancelled`, for callbacks; with `extra` for their keyword arguments.
        extra: further keyword arguments; of `prepare` with `settings_only`: what a destination exports is not read.
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
    call: tuple[tuple[str, int], ...] = ()
    items: tuple[InputRef, ...] = ()
    execution_date: datetime
    attempt: int = 1
    run_tests: bool = False
    refresh: bool = False
    dynamic: bool = False
    timeout: float | None = None
    callback_for: str | None = None
    extra: dict[str, Any] = {}


class TaskResult(msgspec.Struct, kw_only=True):
    """The result of a task.

    Args:
        failure: None if the task succeeded.
        inline: the output, if the task has no output folder.
        prepared: of a source or destination: what it reads or writes.
        gate: False: the downstream blocks are skipped; None: the block does not decide.
        items: of a dynamic block: the number of items in its output.
        described: of a dynamic block: whether its output has metadata for its items. The metadata stays with the
            output: it may contain objects of the user's classes, which the runner must not load.
        tests: the results of the tests.
        results: what the block lists as its results (dbt's nodes); JSON values.
        warnings: shown at the end of the run.
        seconds: how long the call took, without the wait for a worker.
        outputs: a summary of the manifest's outputs, for `runs show`: `[{"name", "kind", "rows"}]`.
    """

    failure: Failure | None = None
    inline: bytes | None = None
    prepared: Prepared | None = None
    gate: bool | None = None
    items: int | None = None
    described: bool = False
    tests: list[TestOutcome] = []
    results: list[Any] = []
    warnings: list[str] = []
    seconds: float = 0.0
    outputs: list[dict[str, Any]] = []


def exports_folder(task: Task) -> Path:
    """Return the folder for the files of upstream outputs that were converted for a destination."""
    return Path(task.run_dir) / "exports" / task.id.replace(":", "-")
