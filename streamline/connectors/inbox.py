"""What is sent to a sink, on its way from the event loop to the sink's thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeAlias

from streamline.flow.codecs.sizes import WAITING_BYTES, size_of
from streamline.flow.items import Item, MessageBatch

Sent: TypeAlias = tuple[str, Sequence[Item]]
"""A source's id, and items of it."""


class Inbox:
    """A queue with room for so many messages.

    Args:
        limit: messages that may wait, fewer if they are large; what is sent at a time is taken whole.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._sent: list[Sent] = []
        self._messages = 0
        self._nbytes = 0
        self._hurry = False
        self._ending = False
        self._idle = False
        self.abandoned = False
        """Whether the sink is to end at once."""
        self.ended = False
        """Whether everything was taken, and there will be no more."""

    # -- the event loop

    @property
    def full(self) -> bool:
        """Whether nothing more is taken now."""
        return self._messages >= self._limit or self._nbytes >= WAITING_BYTES

    def put(self, source: str, items: Sequence[Item]) -> bool:
        """Take items; False: there is no room."""
        with self._changed:
            if self.full:
                return False
            self._sent.append((source, items))
            for item in items:
                if isinstance(item, MessageBatch):
                    self._messages += len(item.data)
                    self._nbytes += size_of(item.data)
            self._wake()
            return True

    def hurry(self) -> None:
        """Have everything made durable now."""
        with self._changed:
            self._hurry = True
            self._wake()

    def end(self) -> None:
        """Note that nothing more is sent."""
        with self._changed:
            self._ending = self._hurry = True
            self._wake()

    def abandon(self) -> None:
        """Have the thread end at once."""
        with self._changed:
            self.abandoned = True
            self._changed.notify_all()

    def _wake(self) -> None:
        if self._idle:
            self._changed.notify_all()

    # -- the sink's thread

    def take(self, seconds: float | None) -> tuple[list[Sent], bool]:
        """Wait for items, so many seconds at most; return all that there are, and whether there is a hurry."""
        with self._changed:
            self._idle = True
            self._changed.wait_for(lambda: self._sent or self._hurry or self.abandoned, seconds)
            self._idle = False
            sent, hurry = self._sent, self._hurry
            self._sent, self._messages, self._nbytes, self._hurry = [], 0, 0, False
            self.ended = self._ending
            return sent, hurry

    def pause(self, seconds: float) -> bool:
        """Wait; False: the sink is to end at once."""
        with self._changed:
            return not self._changed.wait_for(lambda: self.abandoned, seconds)
