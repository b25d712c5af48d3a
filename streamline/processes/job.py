"""A job for a worker process, and its outcome."""

from __future__ import annotations

from typing import Any

import msgspec


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a function in a worker process.

    Args:
        id: unique in its pool.
        name: passed to the pool's listeners with the id, such as the name of a block.
        function: `module:name`; it is called with (payload, port).
        payload: its argument; anything that can be pickled.
        source_root: the folder of the user's code. Failures name lines of files in it.
        timeout: seconds; None: no limit.
        keep_state: the worker keeps its state (environment, threads, context variables) for the next job; if it ends
            between two jobs, the pool's other jobs fail. By default the state is restored, and a worker with something
            that cannot be restored is replaced.
    """

    id: str
    name: str
    function: str
    payload: Any
    source_root: str
    timeout: float | None = None
    keep_state: bool = False


class Failure(msgspec.Struct, kw_only=True):
    """Why a job failed.

    Args:
        message: one line, such as `KeyError: 'total'` or `timed out after 5 s`.
        where: `file:line` in the user's code, where it is known.
        trace: the user's traceback.
        hint: what to do about it.
        code: names the failure, see docs/errors.md.
        retry: whether another attempt could succeed.
    """

    message: str
    where: str | None = None
    trace: str | None = None
    hint: str | None = None
    code: str = "block.failed"
    retry: bool = True


class Outcome(msgspec.Struct, kw_only=True):
    """What a job returned, or why it failed.

    A job's function may return an Outcome to report a failure together with a value; anything else that it returns
    is the value.

    Args:
        value: what the function returned.
        failure: None if the job succeeded.
        seconds: how long the call took, without the time in the queue.
    """

    value: Any = None
    failure: Failure | None = None
    seconds: float = 0.0
