"""A sink that writes on a thread of its own: what is sent waits in an inbox with bounded room, a writer takes it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from streamline.connectors.inbox import Inbox, Sent
from streamline.errors import StreamlineError
from streamline.flow.items import BadRecord, Item, MessageBatch, Position
from streamline.flow.protocols import Failed, Proven, Refused

PATIENCE = 1.0
"""Seconds after which the thread looks whether it is still wanted."""


class StreamWriter(Protocol):
    """Writes what a sink is sent; used in the sink's thread. What it raises fails the sink."""

    def take(self, source: str, batch: MessageBatch) -> None:
        """Take messages."""
        ...

    def reach(self, source: str, position: Position) -> None:
        """Take a position."""
        ...

    def patience(self) -> float | None:
        """Return the seconds until `rest` is to be called again; None: nothing waits."""
        ...

    def rest(self, *, hurry: bool) -> None:
        """Go on with what waits, since nothing more has come.

        Args:
            hurry: prove all of it now.
        """
        ...


class ThreadSink:
    """The end of a sink with a thread. Implements `flow.protocols.RefusingSink` and `HandingOverSink`.

    A subclass opens its writer, which calls `_refuse`, `_prove` and `_pause`; what it wrote before a failure may be
    written again.

    Args:
        id: uuid of its block.
        room: messages that wait in memory, fewer if they are large; what is sent at a time is taken whole.
        note: writes a line to the run's log, with its level.
    """

    def __init__(self, id: str, *, room: int, note: Callable[[str, str], None] = lambda message, level: None) -> None:
        self.id = id
        self.refused: Refused = lambda source, records: None
        self._note = note
        self._inbox = Inbox(room)
        self._failure: Exception | None = None
        self._seconds: float | None = None
        self._wanted: dict[str, int] = {}
        """By source: the position that is to be proven as soon as it is sent."""
        self._reports = threading.Lock()
        self._numbers: dict[str, int] = {}
        """Of positions whose proof is not reported."""

    async def run(self, proven: Proven, failed: Failed) -> None:
        """See `Sink.run`."""
        self._proven, self._failed = proven, failed
        self._loop = asyncio.get_running_loop()
        self._limited, self._ended = asyncio.Event(), asyncio.Event()
        self._room = asyncio.Event()
        threading.Thread(target=self._run, name=f"sink {self.id}", daemon=True).start()
        try:
            ended = asyncio.ensure_future(self._ended.wait())
            limited = asyncio.ensure_future(self._limited.wait())
            await asyncio.wait([ended, limited], return_when=asyncio.FIRST_COMPLETED)
            if not self._ended.is_set():
                await asyncio.wait([ended], timeout=self._seconds)
            if not self._ended.is_set():
                self._fail(StreamlineError("it did not end in time", where=self.id, code="streaming_sink.slow_end"))
        finally:
            ended.cancel()
            limited.cancel()
            self._inbox.abandon()

    async def send(self, source: str, items: Sequence[Item]) -> None:
        """See `Sink.send`."""
        while self._failure is None and not self._inbox.put(source, items):
            self._room.clear()
            if not self._inbox.full:
                continue
            await self._room.wait()
        if self._failure is not None:
            raise self._failure
        wanted = self._wanted.get(source)
        if wanted is not None and any(isinstance(item, Position) and item.number >= wanted for item in items):
            del self._wanted[source]
            self._inbox.hurry()

    async def source_ended(self, source: str) -> None:
        """See `Sink.source_ended`."""
        self._inbox.hurry()

    def limit(self, seconds: float) -> None:
        """See `Sink.limit`."""
        self._seconds = seconds
        if hasattr(self, "_limited"):
            self._limited.set()

    def hurry(self, source: str, number: int) -> None:
        """See `HandingOverSink.hurry`."""
        self._wanted[source] = number
        self._inbox.hurry()

    def forget(self, source: str, keys: Collection[str], number: int) -> None:
        """See `HandingOverSink.forget`; a message may be written twice."""

    async def close(self) -> None:
        """See `Sink.close`."""
        self._inbox.end()
        await self._ended.wait()

    def _open(self) -> StreamWriter:
        """Make the writer; called in the thread."""
        raise NotImplementedError

    def _free(self) -> None:
        """Free what the writer holds; called last in the thread, also after a failure. What it raises is told."""

    # -- in the event loop, called by the thread

    def _report(self) -> None:
        with self._reports:
            numbers, self._numbers = self._numbers, {}
        if self._failure is None:
            for source, number in numbers.items():
                self._proven(source, number)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._inbox.abandon()
            self._failed(error)
        self._room.set()
        self._ended.set()

    # -- in the sink's thread

    def _run(self) -> None:
        error: Exception | None = None
        try:
            self._write(self._open())
        except Exception as raised:
            error = raised
        try:
            self._free()
        except Exception as raised:
            self._tell(str(raised), "WARNING")
        if error is not None and not self._inbox.abandoned:
            self._in_loop(partial(self._fail, error))
        else:
            self._in_loop(self._end)

    def _write(self, writer: StreamWriter) -> None:
        while True:
            sent, hurry = self._inbox.take(writer.patience())
            if sent:
                self._in_loop(self._room.set)
            for each in sent:
                _take(writer, each)
            if self._inbox.abandoned:
                return
            writer.rest(hurry=hurry)
            if self._inbox.ended:
                return

    def _refuse(self, source: str, record: BadRecord) -> None:
        """Refuse a message, and wait for what that means; raises what `refused` does."""
        answer: Future[None] = Future()

        def refuse() -> None:
            try:
                self.refused(source, [record])
            except BaseException as error:
                answer.set_exception(error)
            else:
                answer.set_result(None)

        self._in_loop(refuse)
        while True:
            try:
                answer.result(PATIENCE)
                return
            except TimeoutError:
                if self._inbox.abandoned:
                    raise

    def _pause(self, seconds: float) -> bool:
        """Wait; False: the sink is to end at once."""
        return self._inbox.pause(seconds)

    def _tell(self, message: str, level: str) -> None:
        self._in_loop(partial(self._note, message, level))

    def _prove(self, numbers: dict[str, int]) -> None:
        with self._reports:
            unreported = bool(self._numbers)
            self._numbers.update(numbers)
        if not unreported:
            self._in_loop(self._report)

    def _end(self) -> None:
        self._room.set()
        self._ended.set()

    def _in_loop(self, call: Callable[[], object]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)


def _take(writer: StreamWriter, sent: Sent) -> None:
    source, items = sent
    for item in items:
        if isinstance(item, MessageBatch):
            writer.take(source, item)
        elif isinstance(item, Position):
            writer.reach(source, item)
