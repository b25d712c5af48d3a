"""A task group that raises what went wrong in it, and not a group around that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """An anyio task group of tasks that fail for one reason: the first error is raised by itself.

    Where several tasks raised at the same time, the others are lost; they were cancelled, or failed for the first.
    """
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        raise first_of(group) from None


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in a group of groups; a cancellation or an exit only where there is nothing else."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = next((each for each in error.exceptions if isinstance(each, Exception)), error.exceptions[0])
    return error
