"""A transformer block as a stage of a flow of messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from streamline.blocks.python.messages.worker import MessageCall, MessageWorker
from streamline.flow.items import Item, MessageBatch
from streamline.flow.keyed_state import Place

AHEAD = 2
"""Batches that wait for the function, or for being sent on, while more are taken."""


class MessageTransform:
    """Calls a transformer block's function with the messages of one route, in order; other items stay where they are.

    Implements `flow.protocols.FlushableStage`: while the function works on a batch, the next one is taken.

    Args:
        worker: of the block; its routes share it.
        set_aside: refuse messages that the function raises on. If not, the first of them ends the flow.
        place: of the state that all messages of the source use; None: that of their partition.
    """

    def __init__(self, worker: MessageWorker, *, set_aside: bool = True, place: Place | None = None) -> None:
        self.block = worker.block
        self._worker = worker
        self._set_aside = set_aside
        self._place = place
        self._queue: deque[MessageCall | Item] = deque()
        self._calls = 0
        self._failure: Exception | None = None
        """Raised by the next call, after the items before it."""
        self._closed = False
        worker.users += 1

    async def start(self) -> None:
        """Load the block's file, if no other route has; an error in it is found before any message is read.

        Raises:
            ConfigError: it cannot be read, is not Python, or has no function decorated with @transformer.
            PipelineFailed: it raised while it was loaded, or took too long.
        """
        call = MessageCall(None)
        self._worker.submit(call)
        await self._worker.result(call)

    @property
    def pending(self) -> bool:
        """Whether items are held back, or a call is running."""
        return bool(self._queue) or self._failure is not None

    async def process(self, item: Item) -> Sequence[Item]:
        """Take an item, and return those that are ready.

        Raises:
            PipelineFailed: the function raised, and nothing is set aside; or on too many messages in a row; or it took
                too long.
        """
        if isinstance(item, MessageBatch) and item.data:
            self._submit(MessageCall(item, set_aside=self._set_aside, place=self._place))
        else:
            self._queue.append(item)
        return await self._ready(AHEAD)

    def _submit(self, call: MessageCall) -> None:
        self._worker.submit(call)
        self._queue.append(call)
        self._calls += 1

    async def flush(self) -> Sequence[Item]:
        """Return everything that is held back; raises as `process`."""
        return await self._ready(0)

    async def finish(self) -> Sequence[Item]:
        """Return everything that is held back; raises as `process`."""
        items: list[Item] = []
        while self.pending:
            items += await self._ready(0)
        return items

    async def close(self) -> None:
        """Leave the block's thread, which ends when no route uses it. A running call is left to end by itself."""
        if not self._closed:
            self._closed = True
            self._worker.release()

    async def _ready(self, most: int) -> list[Item]:
        """Return finished items in order; wait while more than `most` calls are not."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        items: list[Item] = []
        while self._queue:
            head = self._queue[0]
            if isinstance(head, MessageCall):
                if self._calls <= most and not head.future.done():
                    break
                self._calls -= 1
                try:
                    items += await self._worker.result(head)
                except Exception as error:
                    self._queue.popleft()
                    if not items:
                        raise
                    self._failure = error
                    break
            else:
                items.append(head)
            self._queue.popleft()
        return items
