"""Callbacks: functions that are told how the block that they belong to, or the whole pipeline, has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from streamline.blocks.call import BlockCall, StoredOutput
from streamline.blocks.python.block import invoke, load
from streamline.blocks.python.file import PythonFile, UserError, name_of
from streamline.decorators import CALLBACKS, marks_of
from streamline.errors import StreamlineError
from streamline.outputs.frames import Frames
from streamline.processes.job import Failure

_RESERVED = ("parent_block_uuid", "__error", "__input", "failed_blocks")


class BlockError(Exception):
    """What callbacks get as `__error`: its text is the failure in one line.

    Args:
        message: `KeyError: 'total'`, or what ended the process.
        where: `file:line`, where it is known.
        trace: the traceback of the block's code, if that raised.
    """

    def __init__(self, message: str, where: str | None = None, trace: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.trace = trace


def call_back(call: BlockCall, status: str, error: Failure | None, own: StoredOutput | None) -> None:
    """Call the functions of the block's file for this status. Their failures are warnings.

    The first positional argument is the output of the block that the callback belongs to, or None; functions with
    `**kwargs` also get `parent_block_uuid`, after a failure `__error` (a `BlockError`), and `__input`: that output by
    the block's name and as `df_1`.

    Args:
        call: the callback's own block; `kwargs` may hold `parent_block_uuid`.
        status: `success`, `failure` or `cancelled`.
        error: what the block failed of.
        own: its output, if it has one.
    """
    parent = call.kwargs.get("parent_block_uuid") or getattr(own, "uuid", None)
    given = _Parent(parent or "", own)
    kwargs: dict[str, Any] = {**call.kwargs, "parent_block_uuid": parent, "__input": _Outputs(given)}
    if error is not None:
        kwargs["__error"] = BlockError(error.message, error.where, error.trace)
    try:
        file = load(call, [given])
        wanted = [each for each in file.marked(*CALLBACKS) if status in statuses_of(each)]
    except (UserError, StreamlineError) as problem:
        _warn(call, None, problem)
        return
    for function in wanted:
        _call(call, file, function, given, kwargs)


def statuses_of(function: Any) -> set[str]:
    """Return the statuses that a marked function is called for."""
    statuses: set[str] = set()
    for mark in marks_of(function):
        if mark.kind in ("on_success", "on_failure"):
            statuses.add(mark.kind.removeprefix("on_"))
        elif mark.kind == "callback":
            statuses.update(_names((*mark.args, *mark.kwargs.values())) or ["success"])
    return statuses


def _call(
    call: BlockCall, file: PythonFile, function: Callable[..., Any], given: _Parent, kwargs: Mapping[str, Any]
) -> None:
    try:
        what = f"a callback gets the output of '{given.uuid}'" if given.uuid else "a pipeline's callback gets None"
        invoke(call, file, function, [given], kwargs=kwargs, spare=True, given=what, reserved=_RESERVED)
    except (UserError, StreamlineError) as problem:
        _warn(call, name_of(function), problem)


def _warn(call: BlockCall, function: str | None, problem: UserError | StreamlineError) -> None:
    what = f"the callback '{call.block.uuid}'" + (f" failed in {function}()" if function else " failed")
    if isinstance(problem, UserError):
        call.warn(f"{problem.where}: {what}: {problem.summary}")
        if problem.trace:
            call.log(problem.trace)
    else:
        call.warn(f"{problem.where or call.where}: {what}: {problem.message}")


def _names(values: Any) -> list[str]:
    names: list[str] = []
    for value in values:
        if isinstance(value, str):
            names.append(str(getattr(value, "value", value)))  # an enum of text, as Mage has
        elif isinstance(value, (list, tuple, set, frozenset)):
            names.extend(_names(value))
    return names


class _Parent:
    """The block that the callback belongs to, as an input."""

    type = "data_loader"

    def __init__(self, uuid: str, own: StoredOutput | None) -> None:
        self.uuid = uuid
        self._own = own

    def value(self, frames: Frames | None = None) -> Any:
        return None if self._own is None else self._own.value(frames)

    def values(self) -> list[Any]:
        return [None] if self._own is None else self._own.values()

    def count(self) -> int:
        return 1 if self._own is None else self._own.count()


class _Outputs(Mapping[str, Any]):
    """The parent's output by its names, read when it is asked for."""

    def __init__(self, given: _Parent) -> None:
        self._given = given

    def __getitem__(self, name: str) -> Any:
        if name not in ("df_1", self._given.uuid):
            raise KeyError(name)
        return self._given.value()

    def __iter__(self) -> Iterator[str]:
        return iter([self._given.uuid, "df_1"] if self._given.uuid else ["df_1"])

    def __len__(self) -> int:
        return 2 if self._given.uuid else 1
