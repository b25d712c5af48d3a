"""A source of the lines of the standard input.

What was read and is not proven stays in this process, so that another attempt of the same run can give it again. A
process that ends loses it.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Collection, Mapping

import anyio.to_thread
import msgspec

from streamline.connectors.files.records import COLUMNS, Record, Splitter
from streamline.connectors.files.settings import RecordSettings
from streamline.errors import StreamlineError
from streamline.flow.items import MessageBatch, Origin, Position
from streamline.flow.protocols import Emit

COUNT = "records"
"""Key of the only part of its position: records since the process began."""

CHUNK_BYTES = 1 << 18
WAIT_SECONDS = 0.2
"""After which it is looked whether the source was stopped."""


class Given(msgspec.Struct, frozen=True):
    """A batch, and the count of records behind it."""

    batch: MessageBatch
    count: int


class Input:
    """A file descriptor that is read once, whatever number of sources read it, one after the other."""

    def __init__(self, fd: int = 0) -> None:
        self.fd = fd
        self.unproven: deque[Given] = deque()
        """What was given and is not proven."""
        self._records: deque[Record] = deque()
        self._splitter: Splitter | None = None
        self._columns: bytes | None = None
        self._count = 0
        self._ended = False

    def next(self, id: str, settings: RecordSettings) -> Given | None:
        """Return the next batch; None: there is none yet, or, with `ended`, no more.

        Raises:
            StreamlineError: a record is too long, or the descriptor cannot be read.
        """
        if not self._records and not self._ended:
            self._fill(settings)
        if not self._records:
            return None
        records = [self._records.popleft() for _ in range(min(settings.batch_size, len(self._records)))]
        headers: list[tuple[str, bytes | None]] | None = [(COLUMNS, self._columns)] if self._columns else None
        origins: list[Origin | None] = [Origin("stdin", -1, -1, None, record.value, headers) for record in records]
        self._count += len(records)
        given = Given(MessageBatch(id, [record.value for record in records], origins), self._count)
        self.unproven.append(given)
        return given

    @property
    def ended(self) -> bool:
        """Whether there is no more."""
        return self._ended and not self._records

    def proven(self, count: int) -> None:
        """Note that so many records are proven."""
        while self.unproven and self.unproven[0].count <= count:
            self.unproven.popleft()

    def _fill(self, settings: RecordSettings) -> None:
        if self._splitter is None:
            self._splitter = Splitter(settings.format, 0, max_bytes=settings.max_record_bytes, name="stdin")
        try:
            if not select.select([self.fd], [], [], WAIT_SECONDS)[0]:
                return
            chunk = os.read(self.fd, CHUNK_BYTES)
        except (OSError, ValueError) as error:
            raise StreamlineError(f"cannot read the standard input: {error}", code="stdin.unreadable") from None
        self._ended = not chunk
        records = self._splitter.feed(chunk) if chunk else self._splitter.finish()
        if settings.format == "csv" and settings.columns is None and self._columns is None and records:
            self._columns = records.pop(0).value
        self._records.extend(records)


INPUT = Input()
"""The standard input of this process."""


class StdinSource:
    """Reads lines until the end of the input. Implements `flow.protocols.Source`."""

    def __init__(self, id: str, settings: RecordSettings, input: Input = INPUT) -> None:
        self.id = id
        self.stopped: str | None = None
        self._settings = settings
        self._input = input

    async def run(self, emit: Emit) -> None:
        """See `Source.run`.

        Raises:
            StreamlineError: the input cannot be read.
        """
        number = 0
        again = deque(self._input.unproven)
        while self.stopped is None:
            if again:
                given: Given | None = again.popleft()
            else:
                given = await anyio.to_thread.run_sync(self._input.next, self.id, self._settings)
            if given is not None:
                number += 1
                # A copy: transformers may change the lists of what another attempt gives again.
                batch = given.batch.only(range(given.batch.count))
                await emit([batch, Position(self.id, number, {COUNT: b"%d" % given.count})])
            elif self._input.ended:
                return

    def stop(self, reason: str) -> None:
        """See `Source.stop`."""
        self.stopped = self.stopped or reason

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`."""
        if COUNT in parts:
            self._input.proven(int(parts[COUNT]))

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`; nobody else reads it."""
