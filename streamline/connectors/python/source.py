"""A source that a user's class is: its `batch_read(handler)` runs on a thread of its own.

`handler(messages, position=…)` returns as soon as there is room; the position, any JSON value, is kept when the
messages before it are proven, and is the object's attribute `position` at the next start. `handler(messages)` returns
when the messages are durable, so that the class can acknowledge them where it read them.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import anyio.to_thread

from streamline.connectors.python.handover import POSITION, Handover, Stop
from streamline.connectors.python.user_class import UserClass, UserObject
from streamline.errors import StreamlineError
from streamline.flow.codecs.jsontext import decode
from streamline.flow.items import Item, MessageBatch, Position
from streamline.flow.protocols import Emit

BATCH_SIZE = 1_000
"""Messages of one call of a transformer, unless something else is set."""

WAITING_BATCHES = 5
"""Batches that wait in memory."""

STOP_SECONDS = 5.0
"""A source that does not return so long after it was stopped is left behind."""


class PythonSource:
    """Reads from an object of a user's class. Implements `flow.protocols.LastingSource`.

    Args:
        id: uuid of its block, and name of its stream.
        batch_size: bounds what waits in memory.
        start: saved parts of its position.
        waits: `handler` without a position returns when the messages are durable, not as soon as there is room.
        until_caught_up: becomes the object's attribute: it should return when it has read what there is.
        note: writes a line to the run's log, with its level.
    """

    def __init__(
        self,
        id: str,
        user_class: UserClass,
        *,
        batch_size: int = BATCH_SIZE,
        start: Mapping[str, bytes] | None = None,
        waits: bool = True,
        until_caught_up: bool = False,
        note: Callable[[str, str], None] = lambda message, level: None,
    ) -> None:
        self.id = id
        self.stopped: str | None = None
        self._class = user_class
        self._note = note
        start = start or {}
        saved = start.get(POSITION)
        self._attributes = {
            "position": None if saved is None else decode(saved),
            "until_caught_up": until_caught_up,
        }
        self._handover = Handover(batch_size * WAITING_BATCHES, start, waits=waits)
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._leaving = False

    async def run(self, emit: Emit) -> None:
        """See `Source.run`.

        Raises:
            StreamlineError: the user's code raised.
        """
        if self.stopped is not None:
            return
        self._loop = asyncio.get_running_loop()
        # A daemon: a source that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"source {self.id}", daemon=True)
        self._thread.start()
        number = 0
        try:
            while await self._handover.wait():
                taken = self._handover.take()
                if taken is None:
                    continue
                number += 1
                items: list[Item] = [MessageBatch(self.id, taken.data)] if taken.data else []
                await emit([*items, Position(self.id, number, taken.parts, awaited=taken.awaited)])
        except BaseException:
            self._handover.close()
            raise
        if self._failure is not None:
            raise self._failure

    def stop(self, reason: str) -> None:
        """See `Source.stop`. The next call of the handler raises; those that wait for proof go on waiting."""
        self.stopped = self.stopped or reason
        self._handover.stop()

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`."""
        self._handover.confirm(parts)

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`; nobody else reads its keys."""

    async def close(self) -> None:
        """See `LastingSource.close`."""
        self._leaving = True
        self._handover.close()
        thread = self._thread
        if thread is None:
            return
        await anyio.to_thread.run_sync(thread.join, STOP_SECONDS)
        if thread.is_alive():
            self._note(
                f"source {self.id} did not return within {STOP_SECONDS:g} s of being stopped, and is left behind; it "
                "can look at `handler.stopped` while it waits",
                "WARNING",
            )

    # -- the source's thread

    def _run(self) -> None:
        made: UserObject | None = None
        try:
            made = UserObject(self._class, self._attributes)
            self._handover.on_saved = self._saved(made)
            self._read(made)
        except Stop:
            pass
        except BaseException as error:  # raised again by `run`
            self._fail(error)
        finally:
            self._handover.end()
        if made is None:
            return
        try:
            self._handover.wait_closed()
            made.destroy()
        except StreamlineError as error:
            self._warn(error)

    def _read(self, made: UserObject) -> None:
        put = self._handover.put
        way, method = reading_method(made)
        if way == "BATCH_READ":

            def put_all(messages: Any, position: Any = None) -> None:
                put(_listed(messages), position)

            made.call("while it read", method, Handler(self._handover, put_all))
        elif way == "READ":

            def put_one(message: Any, position: Any = None) -> None:
                put([message], position)

            made.call("while it read", method, Handler(self._handover, put_one))
        else:

            async def put_async(messages: Any, position: Any = None) -> None:
                batch = messages if isinstance(messages, list) else [messages]
                await asyncio.to_thread(put, batch, position)

            def run() -> None:
                returned = method(Handler(self._handover, put_async))
                if inspect.isawaitable(returned):
                    asyncio.run(_awaited(returned))

            made.call("while it read", run)

    def _saved(self, made: UserObject) -> Callable[[Any], None] | None:
        commit = made.method("commit")
        if commit is None:
            return None

        def tell(position: Any) -> None:
            made.call("while it committed a position", commit, position)

        return tell

    def _fail(self, error: BaseException) -> None:
        if self.stopped is None and not self._leaving:
            self._failure = error
        else:
            self._warn(error)

    def _warn(self, error: BaseException) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._note, str(error), "WARNING")


class Handler:
    """What a source's reading method is given.

    Attributes:
        stopped: whether the source is to end; a call would raise.
    """

    def __init__(self, handover: Handover, put: Callable[..., Any]) -> None:
        self._handover = handover
        self._put = put

    def __call__(self, messages: Any, position: Any = None) -> Any:
        """Give messages (see the module)."""
        return self._put(messages, position)

    @property
    def stopped(self) -> bool:
        """Whether the source is to end."""
        return self._handover.stopped


READING = {"BATCH_READ": "batch_read", "READ": "read", "READ_ASYNC": "read_async"}
"""The method that reads, by `consume_method`."""


def reading_method(made: UserObject) -> tuple[str, Callable[..., Any]]:
    """Return how an object reads, and the method that does.

    Raises:
        StreamlineError: it has no such method.
    """
    consume = getattr(made.value, "consume_method", None) or "BATCH_READ"
    wanted = str(getattr(consume, "value", consume))
    others: Sequence[str] = [name for name in READING if name != wanted]
    for way in (wanted, *others):
        method = made.method(READING[way]) if way in READING else None
        if method is not None:
            return way, method
    raise made.no_method("batch_read(handler), read(handler) or read_async(handler)")


async def _awaited(returned: Any) -> None:
    await returned


def _listed(messages: Any) -> Sequence[Any]:
    """Return messages as a list.

    Raises:
        TypeError: they are none, but one message.
    """
    if type(messages) is list:
        return messages
    if isinstance(messages, Iterable) and not isinstance(messages, Mapping | str | bytes) and not _is_table(messages):
        return list(messages)
    raise TypeError(f"the handler takes a list of messages, not a {type(messages).__name__}")


def _is_table(messages: Any) -> bool:
    return hasattr(messages, "columns") or hasattr(messages, "schema")
