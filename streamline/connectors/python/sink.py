"""A sink that a user's class is: its `batch_write(messages)` runs on a thread of its own.

`batch_write` returning is the proof. Where there is a `flush()`, it is called at checkpoints, and what was written
before it counts when it returns.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

from streamline.connectors.python.user_class import UserClass, UserObject
from streamline.connectors.python.writer import Writer
from streamline.connectors.thread_sink import StreamWriter, ThreadSink

BATCH_SIZE = 1_000
"""Messages of one call, unless something else is set."""

WAITING_BATCHES = 5
"""Batches that wait in memory."""


class PythonSink(ThreadSink):
    """Writes to an object of a user's class.

    Args:
        id: uuid of its block.
        batch_size: the most messages of one call.
        waiting_batches: batches that wait in memory; what is sent at a time is taken whole.
        include_metadata: give `{data, metadata}` also of messages that come without.
        checkpoint_interval: seconds between two calls of `flush`.
        set_aside: messages after one that cannot be written are written. If not, it is refused before.
        note: writes a line to the run's log, with its level.
        memory: what the next attempt is to know.
    """

    def __init__(
        self,
        id: str,
        user_class: UserClass,
        *,
        batch_size: int = BATCH_SIZE,
        waiting_batches: int = WAITING_BATCHES,
        include_metadata: bool = False,
        checkpoint_interval: float = 1.0,
        set_aside: bool = True,
        note: Callable[[str, str], None] = lambda message, level: None,
        memory: MutableMapping[str, Any] | None = None,
    ) -> None:
        super().__init__(id, room=batch_size * waiting_batches, note=note)
        self._class = user_class
        self._made: UserObject | None = None
        self._writer = partial(
            Writer,
            batch_size=batch_size,
            include_metadata=include_metadata,
            interval=checkpoint_interval,
            set_aside=set_aside,
            memory={} if memory is None else memory,
        )

    def _open(self) -> StreamWriter:
        self._made = UserObject(self._class, {})
        return self._writer(self.id, self._made, self._refuse, self._prove, self._pause)

    def _free(self) -> None:
        if self._made is not None:
            self._made.destroy()
