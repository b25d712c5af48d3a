"""The thread of a transformer block. All routes that lead through the block use it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from streamline.blocks.python.function import UserError
from streamline.blocks.python.messages.caller import MessageCaller, MessageSettings
from streamline.errors import PipelineFailed
from streamline.flow.items import Item, MessageBatch
from streamline.flow.keyed_state import Place


class MessageCall:
    """Messages that the function will be called with.

    Args:
        batch: None: it has none.
        work: done instead, with what calls the function; None: nothing but loading the block's file.
        place: see `BlockState.open`.

    Attributes:
        future: what becomes of them.
        thread: the thread that has the call.
    """

    def __init__(
        self,
        batch: MessageBatch | None,
        *,
        set_aside: bool = True,
        work: Callable[[MessageCaller], list[Item]] | None = None,
        place: Place | None = None,
    ) -> None:
        self.batch = batch
        self.set_aside = set_aside
        self.work = work
        self.place = place
        self.future: Future[list[Item]] = Future()
        self.thread: _Thread | None = None

    def run(self, caller: MessageCaller) -> list[Item]:
        """Do it, in the thread."""
        if self.batch is not None:
            return caller.run(self.batch, set_aside=self.set_aside, place=self.place)
        return self.work(caller) if self.work is not None else []


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
        call.thread = self._thread
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
        timeout, thread = self.settings.timeout, call.thread
        while timeout is not None and thread is not None and not waiting.done():
            # Of the call that runs, whose ever it is: those behind it wait for it, too.
            left = timeout if thread.since is None else thread.since + timeout - time.monotonic()
            if left <= 0:
                raise self._timed_out(thread, timeout)
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

    def _timed_out(self, thread: _Thread, timeout: float) -> PipelineFailed:
        """Leave the thread behind; the next attempt gets another one."""
        error = PipelineFailed(
            f"transformer {self.block} timed out after {timeout:g} s",
            blocks=[self.block],
            where=self.settings.block.name,
            hint="raise the block's timeout, or let one call do less: lower batch_size in the source",
            code="block.timeout",
        )
        thread.abandon(error)
        if thread is self._thread:
            self._end()
        return error

    def _end(self) -> None:
        if self._thread is not None:
            self._thread.calls.put(None)
            self._thread = None


class _Thread:
    def __init__(self, settings: MessageSettings) -> None:
        self.calls: queue.SimpleQueue[MessageCall | None] = queue.SimpleQueue()
        self.since: float | None = None
        """`time.monotonic()` when the current call of the function began; None: none runs."""
        self._settings = settings
        # A daemon: a function that never returns must not keep the process from ending.
        threading.Thread(target=self._run, name=f"block {settings.block.uuid}", daemon=True).start()

    def abandon(self, error: Exception) -> None:
        """Let the calls that wait fail."""
        with contextlib.suppress(queue.Empty):
            while True:
                call = self.calls.get_nowait()
                if call is not None and call.future.set_running_or_notify_cancel():
                    call.future.set_exception(error)

    def _began(self) -> None:
        self.since = time.monotonic()

    def _waits(self) -> None:
        self.since = None

    def _run(self) -> None:
        caller: MessageCaller | None = None
        while (call := self.calls.get()) is not None:
            if not call.future.set_running_or_notify_cancel():
                continue
            self._began()
            try:
                if caller is None:
                    caller = MessageCaller(self._settings, self._began, self._waits)
                items = call.run(caller)
            except BaseException as error:  # every exception goes to whoever waits for the call
                self.since = None
                call.future.set_exception(error)
            else:
                self.since = None
                call.future.set_result(items)
        if caller is not None:
            caller.close()


def _seen(waiting: asyncio.Future[list[Item]]) -> None:
    """Take note of an error that nobody waits for any more."""
    if not waiting.cancelled():
        waiting.exception()
