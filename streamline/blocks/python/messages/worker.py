"""The thread of a transformer block. All routes that lead through the block use it."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from concurrent.futures import Future

from streamline.blocks.python.function import UserError
from streamline.blocks.python.messages.caller import MessageCaller, MessageSettings
from streamline.errors import PipelineFailed
from streamline.flow.items import Item, MessageBatch


class MessageCall:
    """Messages that the function will be called with.

    Args:
        batch: None only loads the block's file.

    Attributes:
        future: what becomes of them.
        since: `time.monotonic()` when the current call of the function began; None before.
    """

    def __init__(self, batch: MessageBatch | None, *, set_aside: bool = True) -> None:
        self.batch = batch
        self.set_aside = set_aside
        self.future: Future[list[Item]] = Future()
        self.since: float | None = None

    def began(self) -> None:
        """Note that a call of the function begins."""
        self.since = time.monotonic()


class MessageWorker:
    """Runs the function of a transformer block on a thread of its own: what its module holds (connections, caches) is
    used by one thread. The file is loaded once.

    The thread ends with the last stage that uses it; a stage after that loads the file again.
    """

    def __init__(self, settings: MessageSettings) -> None:
        self.settings = settings
        self.users = 0
        """Stages that are not closed."""
        self._thread: _Thread | None = None

    @property
    def block(self) -> str:
        """The block's uuid."""
        return self.settings.block.uuid

    def submit(self, call: MessageCall) -> None:
        """Run a call after those before it."""
        if self._thread is None:
            self._thread = _Thread(self.settings)
        self._thread.calls.put(call)

    def release(self) -> None:
        """Note that a stage is closed."""
        self.users -= 1
        if self.users <= 0:
            self._end()

    async def result(self, call: MessageCall) -> list[Item]:
        """Wait for what becomes of the messages of a call.

        Raises:
            ConfigError: the file cannot be used.
            PipelineFailed: the function raised on too much, or took too long.
        """
        waiting = asyncio.wrap_future(call.future)
        waiting.add_done_callback(_seen)
        timeout = self.settings.timeout
        while timeout is not None and not waiting.done():
            left = timeout if call.since is None else call.since + timeout - time.monotonic()
            if left <= 0:
                raise self._timed_out(timeout)
            await asyncio.wait([waiting], timeout=left)
        try:
            return await asyncio.shield(waiting)
        except UserError as error:  # while the file was loaded
            trace = f"\n{error.trace}" if error.trace else ""
            raise PipelineFailed(
                f"transformer {self.block} failed while its file was loaded: {error.summary}{trace}",
                blocks=[self.block],
                where=error.where,
                hint=error.hint,
                code="transformer.failed",
            ) from None

    def _timed_out(self, timeout: float) -> PipelineFailed:
        self._end()  # the thread is left behind; the next attempt gets another one
        return PipelineFailed(
            f"transformer {self.block} timed out after {timeout:g} s",
            blocks=[self.block],
            where=self.settings.block.name,
            hint="raise the block's timeout, or let one call do less: lower batch_size in the source",
            code="block.timeout",
        )

    def _end(self) -> None:
        if self._thread is not None:
            self._thread.calls.put(None)
            self._thread = None


class _Thread:
    def __init__(self, settings: MessageSettings) -> None:
        self.calls: queue.SimpleQueue[MessageCall | None] = queue.SimpleQueue()
        self._settings = settings
        # A daemon: a function that never returns must not keep the process from ending.
        threading.Thread(target=self._run, name=f"block {settings.block.uuid}", daemon=True).start()

    def _run(self) -> None:
        caller: MessageCaller | None = None
        while (call := self.calls.get()) is not None:
            if not call.future.set_running_or_notify_cancel():
                continue
            try:
                call.began()
                if caller is None:
                    caller = MessageCaller(self._settings)
                caller.began = call.began
                items = caller.run(call.batch, set_aside=call.set_aside) if call.batch is not None else []
            except BaseException as error:  # every exception goes to whoever waits for the call
                call.future.set_exception(error)
            else:
                call.future.set_result(items)
        if caller is not None:
            caller.close()


def _seen(waiting: asyncio.Future[list[Item]]) -> None:
    """Take note of an error that nobody waits for any more."""
    if not waiting.cancelled():
        waiting.exception()
