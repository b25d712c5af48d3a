"""A source of the messages that others send by HTTP.

It has no log: what is not proven when the process dies is not given again. So a sender is answered with 2xx when all
sinks have proven its messages, and sends them again if it is not.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from typing import Any, Protocol

import msgspec

from streamline.connectors.http.listen_settings import ListenSettings
from streamline.connectors.http.webhook import Headers, Webhook
from streamline.connectors.stream_connector import StreamContext
from streamline.flow.codecs.sizes import WAITING_BYTES
from streamline.flow.items import MessageBatch, Origin, Position
from streamline.flow.protocols import Emit

TAKEN = "messages"
"""Key of the only part of its position: messages that were ever taken."""

ROOM_BYTES = 4 * WAITING_BYTES
"""Of messages that are not proven; a single body may be larger."""

MESSAGE_BYTES = 500
"""What a message takes beside its value."""

BATCH_BYTES = 1 << 20
"""Of a batch, unless one request has more."""


class Given(msgspec.Struct):
    """The messages of one request.

    Args:
        count: messages that were taken up to its end.
        nbytes: its room.
        answer: set when it is known whether they are proven.
    """

    origins: list[Origin | None]
    count: int
    nbytes: int
    answer: asyncio.Future[bool]


class Server(Protocol):
    """What `Listener` is for the source."""

    async def start(self) -> str:
        """Listen; return the address."""
        ...

    async def ended(self) -> None:
        """Raise when it has ended by itself."""
        ...

    async def close(self) -> None:
        """Finish the answers, and end."""
        ...


class HttpSource:
    """Listens for requests. Implements `flow.protocols.LastingSource` and `webhook.Taker`.

    Where a request is answered before its messages are proven, these stay in this process, and another attempt of the
    same run gives them again.
    """

    def __init__(
        self, settings: ListenSettings, context: StreamContext, listen: Callable[[ListenSettings, Webhook], Server]
    ) -> None:
        self.id = context.block
        self.stopped: str | None = None
        self._settings = settings
        self._context = context
        self._proven = settings.respond == "proven"
        self._server = listen(settings, Webhook(settings, self, context.note))
        memory: MutableMapping[str, Any] = context.memory
        saved = int(context.start.get(TAKEN, b"0"))
        kept: deque[Given] = memory.setdefault("unproven", deque())
        while kept and kept[0].count <= saved:
            kept.popleft()
        self._unproven = kept
        """What was taken and is not proven, in order."""
        self._waiting = deque(kept)
        """What of it was not given in this attempt."""
        self._count = kept[-1].count if kept else saved
        self._room = sum(each.nbytes for each in kept)
        self._changed = asyncio.Event()
        self.ending = False
        """See `Taker.ending`."""

    async def run(self, emit: Emit) -> None:
        """See `Source.run`.

        Raises:
            StreamlineError: it cannot listen.
        """
        if self.stopped is not None:
            return
        if self._context.until_caught_up:
            self._context.note("with --until-caught-up nothing is read by HTTP: there is no end to reach", "INFO")
            return
        await self._listen()
        failed = asyncio.ensure_future(self._server.ended())
        try:
            await self._move(emit, failed)
        finally:
            self.ending = True
            if not failed.cancel():
                failed.exception()  # it is known

    def stop(self, reason: str) -> None:
        """See `Source.stop`. What was taken is given; new requests are refused."""
        self.stopped = self.stopped or reason
        self.ending = True
        self._changed.set()

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`."""
        proven = int(parts.get(TAKEN, b"0"))
        while self._unproven and self._unproven[0].count <= proven:
            given = self._unproven.popleft()
            self.free(given.nbytes)
            _settle(given, proven=True)
        self._changed.set()

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`; nobody else reads it."""

    async def close(self) -> None:
        """See `LastingSource.close`: answers what is still open."""
        self.ending = True
        if self._proven:
            for given in self._unproven:
                _settle(given, proven=False)
            self._unproven.clear()
        await self._server.close()

    # -- requests

    def reserve(self, nbytes: int, held: int) -> bool:
        """See `Taker.reserve`."""
        if self._room > held and self._room + nbytes > ROOM_BYTES:
            return False
        self._room += nbytes
        return True

    def free(self, nbytes: int) -> None:
        """See `Taker.free`."""
        self._room -= nbytes

    def take(
        self, values: Sequence[bytes], path: str, headers: Headers | None, nbytes: int
    ) -> asyncio.Future[bool] | None:
        """See `Taker.take`."""
        if self.ending:
            return None
        now = int(time.time() * 1000)
        self._count += len(values)
        self._room += MESSAGE_BYTES * len(values)
        given = Given(
            [Origin(path, -1, -1, None, value, headers, now) for value in values],
            self._count,
            nbytes + MESSAGE_BYTES * len(values),
            asyncio.get_running_loop().create_future(),
        )
        if not self._proven:
            _settle(given, proven=True)
        self._unproven.append(given)
        self._waiting.append(given)
        self._changed.set()
        return given.answer

    # -- the flow

    async def _listen(self) -> None:
        settings, note = self._settings, self._context.note
        address = await self._server.start()
        note(f"listens for POST at {', '.join(address + path for path in settings.paths)}", "INFO")
        if settings.open and settings.host not in ("127.0.0.1", "::1", "localhost"):
            note("whoever reaches this address can send messages: set `auth` or `signature`", "WARNING")

    async def _move(self, emit: Emit, failed: asyncio.Future[None]) -> None:
        """Give what was taken, until it is stopped."""
        number = 0
        while True:
            if not self._waiting:
                if self.stopped is not None:
                    return
                if failed.done():
                    failed.result()
                await self._wait(failed)
                continue
            origins, count = self._next()
            number += 1
            values: list[Any] = [origin.value for origin in origins if origin is not None]
            position = Position(self.id, number, {TAKEN: b"%d" % count}, awaited=self._proven)
            await emit([MessageBatch(self.id, values, origins), position])
            # Requests that come meanwhile are proven together.
            while self._proven and self._unproven and self._unproven[0].count <= count and self.stopped is None:
                if failed.done():
                    break
                await self._wait(failed)

    async def _wait(self, failed: asyncio.Future[Any]) -> None:
        self._changed.clear()
        changed: asyncio.Future[Any] = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((changed, failed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    def _next(self) -> tuple[list[Origin | None], int]:
        given = self._waiting.popleft()
        origins, count, nbytes = list(given.origins), given.count, given.nbytes
        while self._waiting and nbytes + self._waiting[0].nbytes <= BATCH_BYTES:
            given = self._waiting.popleft()
            origins += given.origins
            count, nbytes = given.count, nbytes + given.nbytes
        return origins, count


def _settle(given: Given, *, proven: bool) -> None:
    if not given.answer.done():
        given.answer.set_result(proven)
