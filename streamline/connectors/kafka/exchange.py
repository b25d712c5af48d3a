"""What passes between the event loop and the thread that owns a consumer: whole polls one way, requests the other."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from streamline.flow.items import Item, MessageBatch, Position

T = TypeVar("T")

WAITING_POLLS = 2
"""Polls that may wait for the event loop."""


class ThreadEnded(Exception):
    """The thread does no more work."""


class Exchange:
    """The boundary. Each method says on which side it is called."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._polls: deque[list[Item]] = deque()
        self._requests: deque[Callable[[], None]] = deque()
        self._stopped = False
        self._held = False
        self._ended = False
        self._failure: Exception | None = None
        self._closing = False
        self._closed = False
        self._tasks: set[asyncio.Future[None]] = set()

    # -- in the event loop

    def open(self) -> None:
        """Bind it to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()

    async def take(self) -> list[Item] | None:
        """Return what was read next; None at the end.

        Raises:
            Exception: the thread failed; what it had read before has been returned.
        """
        assert self._wake is not None
        while True:
            with self._changed:
                if self._stopped:
                    return None
                if self._polls and not self._held:
                    items = self._polls.popleft()
                    self._changed.notify_all()
                    return items
                if self._ended and (not self._polls or self._failure is not None):
                    if self._failure is not None:
                        raise self._failure
                    return None
                self._wake.clear()
            await self._wake.wait()

    def drop(self, keys: Collection[str]) -> None:
        """Drop what waits of these partitions."""
        with self._changed:
            for items in self._polls:
                items[:] = [left for item in items if (left := _without(item, keys)) is not None]

    def stop(self) -> None:
        """Hand over nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._wake is not None:
            self._wake.set()

    def close(self) -> None:
        """Have the thread end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    async def cancel_tasks(self) -> None:
        """Cancel what was spawned, and await its end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- in any thread

    def ask(self, work: Callable[[], T]) -> Future[T]:
        """Have the consumer's thread do something.

        Returns:
            what it returns; `ThreadEnded` if the thread will not do it.
        """
        future: Future[T] = Future()

        def run() -> None:
            if self._closed:
                future.set_exception(ThreadEnded())
                return
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        with self._changed:
            if self._closed:
                future.set_exception(ThreadEnded())
            else:
                self._requests.append(run)
                self._changed.notify_all()
        return future

    # -- in the consumer's thread

    @property
    def stopped(self) -> bool:
        """Whether nothing more is handed over."""
        return self._stopped

    @property
    def closing(self) -> bool:
        """Whether the thread is to end."""
        return self._closing

    @property
    def room(self) -> bool:
        """Whether the loop takes one more poll."""
        return len(self._polls) < WAITING_POLLS

    def put(self, items: list[Item]) -> None:
        """Hand over what was read."""
        with self._changed:
            self._polls.append(items)
        self._wake_loop()

    def hold(self, held: bool) -> None:
        """Hold back what waits, or no longer."""
        with self._changed:
            self._held = held
        self._wake_loop()

    def end(self, failure: Exception | None = None) -> None:
        """Note that nothing more is read."""
        with self._changed:
            if not self._ended:
                self._ended, self._failure = True, failure
        self._wake_loop()

    def serve(self) -> None:
        """Do what was asked for."""
        while self._requests:
            self._requests.popleft()()

    def wait(self, seconds: float) -> None:
        """Wait until something is asked for, or the thread is to end; at most so long."""
        with self._changed:
            if not (self._requests or self._closing):
                self._changed.wait(seconds)

    def wait_for_room(self, seconds: float) -> None:
        """As `wait`, also until there is room."""
        with self._changed:
            self._changed.wait_for(lambda: self.room or self._requests or self._closing or self._stopped, seconds)

    def notify(self) -> None:
        """End a `wait`; in any thread."""
        with self._changed:
            self._changed.notify_all()

    def call(self, function: Callable[..., object], *args: Any) -> bool:
        """Call a function in the loop soon; False: the loop has ended."""
        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False
        return True

    def spawn(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Run a coroutine in the loop; False: the loop has ended."""

        def start() -> None:
            task = asyncio.ensure_future(work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return self.call(start)

    def refuse(self) -> None:
        """Answer all requests, also later ones, with `ThreadEnded`."""
        with self._changed:
            self._closed = True
        self.serve()
        self.end()

    def _wake_loop(self) -> None:
        if self._wake is not None:
            self.call(self._wake.set)


def _without(item: Item, keys: Collection[str]) -> Item | None:
    """Return what is left of an item without some partitions."""
    if isinstance(item, Position):
        parts = {key: value for key, value in item.parts.items() if key not in keys}
        return Position(item.source, item.number, parts, item.withheld)
    if isinstance(item, MessageBatch) and item.origins is not None:
        kept: Sequence[int] = [
            index
            for index, origin in enumerate(item.origins)
            if origin is None or f"{origin.topic}/{origin.partition}" not in keys
        ]
        if not kept:
            return None
        return MessageBatch(
            item.stream, [item.data[index] for index in kept], [item.origins[index] for index in kept], item.sink
        )
    return item
