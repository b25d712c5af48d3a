"""Tasks: a group that raises the first error of its tasks by itself, and work that is cancelled as anyio does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")


async def keep_shields(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; if the caller's task is cancelled meanwhile, cancel it by an anyio scope, and wait for its end.

    `asyncio.Task.cancel` breaks anyio's shields: what must not be cut short, such as the last save, would be.
    """
    scope = anyio.CancelScope()

    async def run() -> T:
        with scope:
            return await work
        raise asyncio.CancelledError

    task = asyncio.ensure_future(run())
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            scope.cancel()
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """Open an anyio task group whose first error is raised by itself.

    If several tasks raised, the other errors are dropped: those tasks were cancelled, or failed because of the first.
    """
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        raise first_of(group) from None


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in nested groups; a cancellation or an exit only if there is nothing else."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = next((each for each in error.exceptions if isinstance(each, Exception)), error.exceptions[0])
    return error
