"""Messages on their way from a source's thread to the event loop, and what comes back: room, proof, the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from streamline.flow.codecs.jsontext import decode, encode
from streamline.flow.codecs.sizes import WAITING_BYTES, size_of

POSITION = "position"
"""Key of the part of a source's position that the user's class gave."""

DELIVERED = "delivered"
"""Key of the part that counts the messages which were given without a position."""


class Stop(BaseException):
    """The source is to end. Raised by the handler in the user's code, which has no reason to catch it."""


class Taken(msgspec.Struct):
    """What the loop takes at a time.

    Args:
        parts: of the position after these messages; empty if there is none yet.
        awaited: the source's thread waits for the proof.
    """

    data: list[Any]
    parts: dict[str, bytes]
    awaited: bool


class Handover:
    """A buffer between the thread (or threads) of a source and the event loop.

    Args:
        limit: the most messages that wait to be taken; they are fewer if they are large.
        start: saved parts of the source's position.
        waits: a call without a position returns when its messages are proven.
    """

    def __init__(self, limit: int, start: Mapping[str, bytes], *, waits: bool) -> None:
        self._limit = limit
        self._waits = waits
        self._changed = threading.Condition()
        self._data: list[Any] = []
        self._nbytes = 0
        self._position = start.get(POSITION)
        self._counted = int(start.get(DELIVERED, b"0"))
        """Messages that were given without a position."""
        self._delivered = self._counted
        """How many of these are proven."""
        self._awaited = False
        self._fresh = False
        """Whether there is something to take."""
        self._saved: bytes | None = None
        """A position that was saved and that the user's class was not told of yet."""
        self._stopped = False
        self._closed = False
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: asyncio.Future[None] | None = None
        self.on_saved: Callable[[Any], None] | None = None
        """Called in the source's thread with a position that was saved."""

    # -- the source's thread

    def put(self, messages: Sequence[Any], position: Any = None) -> None:
        """Give messages; returns when there is room, or when they are proven.

        Raises:
            Stop: the source is to end. None of the messages was taken, or their proof did not come.
            TypeError: the position is no JSON value.
        """
        text = encode(position) if position is not None else None
        nbytes = size_of(messages)
        with self._changed:
            self._wait_until(self._has_room)
            if self._stopped:
                raise Stop
            self._data += messages
            self._nbytes += nbytes
            self._fresh = True
            wanted = self._counted
            if text is not None:
                self._position = text
            elif self._waits and messages:
                self._counted += len(messages)
                self._awaited = True
                wanted = self._counted
            self._wake()
            if wanted > self._delivered and text is None and self._waits:
                self._wait_until(lambda: self._delivered >= wanted or self._closed)
                if self._delivered < wanted:
                    raise Stop

    @property
    def stopped(self) -> bool:
        """Whether the source is to end."""
        return self._stopped

    def end(self) -> None:
        """Note that the thread gives no more."""
        with self._changed:
            self._ended = True
            self._wake()

    def wait_closed(self) -> None:
        """Wait for the end of the flow; the user's class is told of positions that are saved until then."""
        with self._changed:
            self._wait_until(lambda: self._closed)
            self._tell()

    def _has_room(self) -> bool:
        return self._stopped or (len(self._data) < self._limit and self._nbytes < WAITING_BYTES)

    def _wait_until(self, done: Callable[[], bool]) -> None:
        while True:
            self._tell()
            if done():
                return
            self._changed.wait()

    def _tell(self) -> None:
        """Tell the user's class what was saved; the lock is held by the caller, and not meanwhile."""
        while self._saved is not None:
            saved, self._saved = self._saved, None
            if self.on_saved is not None:
                self._changed.release()
                try:
                    self.on_saved(decode(saved))
                finally:
                    self._changed.acquire()

    def _wake(self) -> None:
        waiting = self._waiting
        if waiting is not None:
            assert self._loop is not None
            self._waiting = None
            self._loop.call_soon_threadsafe(_wake, waiting)

    # -- the event loop

    def take(self) -> Taken | None:
        """Take all that waits; None: there is nothing."""
        with self._changed:
            if not self._fresh:
                return None
            taken = Taken(self._data, {}, self._awaited)
            self._data, self._nbytes, self._awaited, self._fresh = [], 0, False, False
            if self._position is not None:
                taken.parts[POSITION] = self._position
            if self._counted:
                taken.parts[DELIVERED] = b"%d" % self._counted
            self._changed.notify_all()
            return taken

    async def wait(self) -> bool:
        """Wait until something can be taken; False: there will be no more."""
        with self._changed:
            if self._fresh:
                return True
            if self._ended or self._stopped:
                return False
            self._loop = asyncio.get_running_loop()
            self._waiting = waiting = self._loop.create_future()
        try:
            await waiting
        finally:
            with self._changed:
                self._waiting = None
        return True

    def confirm(self, parts: Mapping[str, bytes]) -> None:
        """Note what was saved."""
        with self._changed:
            if POSITION in parts:
                self._saved = parts[POSITION]
            if DELIVERED in parts:
                self._delivered = max(self._delivered, int(parts[DELIVERED]))
            self._changed.notify_all()

    def stop(self) -> None:
        """Take no more messages."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            self._wake()

    def close(self) -> None:
        """Note that nothing more will be proven."""
        with self._changed:
            self._stopped = self._closed = True
            self._changed.notify_all()
            self._wake()


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
