"""A tap of a streaming pipeline: one process after the other, each with the state that the one before has reached."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import anyio
import msgspec

from streamline.connectors.singer.state import join_state, state_of
from streamline.errors import ConfigError
from streamline.flow.items import FORGOTTEN, Item, Position
from streamline.flow.protocols import Emit, Source

LONGEST_BACKOFF = 300.0
"""Seconds between two polls that fail, at most."""


class ReadFiles(Protocol):
    """Files of BATCH messages that were read."""

    async def delete_all(self) -> None:
        """Delete those that are left."""
        ...


class Poll(msgspec.Struct, frozen=True):
    """One tap process.

    Args:
        source: its positions are numbered from 1 on.
        files: what it left in files, if it can do so; it is read when the process has ended.
    """

    source: Source
    files: ReadFiles | None = None


OpenPoll = Callable[[Mapping[str, bytes], bytes], Poll]
"""Called with the parts of the position that a poll starts from, and with the STATE that has them."""


class PolledTap:
    """Polls a tap: implements `flow.protocols.Source`.

    A poll starts from the last position of the one before, saved or not: sinks keep the order. A poll that fails is
    tried again with backoff, from the last position that it gave.

    Args:
        open_poll: makes the next process.
        start: the saved parts of its position.
        state: the STATE that has them.
        interval: seconds from the start of a poll to that of the next; None: one poll, which is left running.
        polls: ends after so many that ended well; None: only when it is stopped. Without an interval it is one.
        retries: polls in a row that may fail before it fails itself; None: any number.
        awaited: whether a key of its position must be saved before the next poll starts: a tap that reads a log may
            release what lies before the state that it is given.
        note: called with what goes wrong.
    """

    def __init__(
        self,
        id: str,
        open_poll: OpenPoll,
        *,
        start: Mapping[str, bytes],
        state: bytes,
        interval: float | None,
        polls: int | None = None,
        retries: int | None = None,
        awaited: Callable[[str], bool] = lambda key: False,
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.id = id
        self._open_poll = open_poll
        self._rows = dict(start)
        self._state = state
        self._saved = dict(start)
        self._interval = interval
        self._polls = polls if interval is not None else 1
        self._retries = retries
        self._awaited = awaited
        self._note = note
        self._number = 0
        self._poll: Source | None = None
        self._stopping: str | None = None
        self._wake = anyio.Event()

    @property
    def stopped(self) -> str | None:
        """See `Source.stopped`."""
        return self._stopping

    def stop(self, reason: str) -> None:
        """End the poll that is running, and begin no other; see `Source.stop`."""
        if self._stopping is None:
            self._stopping = reason
            self._wake.set()
            if self._poll is not None:
                self._poll.stop(reason)

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`."""
        for key, value in parts.items():
            if value == FORGOTTEN:
                self._saved.pop(key, None)
            else:
                self._saved[key] = value
        self._wake.set()
        if self._poll is not None:
            await self._poll.confirm(parts)

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`. A tap can't leave out streams while it runs."""

    async def run(self, emit: Emit) -> None:
        """Poll until it is stopped, or has polled as often as it should.

        Raises:
            StreamlineError: polls failed, more in a row than it retries.
            ConfigError: the first poll found that its tap does not accept its config.
        """
        failed = done = 0
        while self._stopping is None:
            began = anyio.current_time()
            error = await self._run_poll(emit)
            if error is None or self._stopping is not None:
                failed = 0
                done += 1
                if done == self._polls:
                    return
                due = began + (self._interval or 0.0)
            else:
                failed += 1
                if (isinstance(error, ConfigError) and not done) or (
                    self._retries is not None and failed > self._retries
                ):
                    raise error
                delay = min(LONGEST_BACKOFF, max(self._interval or 0.0, 2.0 ** min(failed - 1, 10)))
                self._note(f"the poll failed: {error}; the next begins in {delay:g} s")
                due = anyio.current_time() + delay
            await self._sleep_until(due)

    async def _run_poll(self, emit: Emit) -> Exception | None:
        """Run one process; return its error."""
        poll = self._open_poll(dict(self._rows), self._state)
        taker: list[Exception] = []
        first = self._number

        async def take(items: Sequence[Item]) -> None:
            numbered = [self._numbered(item, first) if isinstance(item, Position) else item for item in items]
            try:
                await emit(numbered)
            except Exception as error:
                taker.append(error)
                raise

        self._poll = poll.source
        try:
            await poll.source.run(take)
        except Exception as error:
            if taker:
                raise
            return error
        finally:
            self._poll = None
            if poll.files is not None:
                with anyio.CancelScope(shield=True):
                    await poll.files.delete_all()
        return None

    def _numbered(self, position: Position, first: int) -> Position:
        """Return a position with a number that rises over all polls; it is where the next one starts."""
        for key, value in position.parts.items():
            if value == FORGOTTEN:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
        shown = {key for key, value in position.parts.items() if value != FORGOTTEN}
        # A tap gets back what it wrote, unless it showed a part of its bookmarks only.
        self._state = state_of(position.parts) if shown == self._rows.keys() else join_state(self._rows)
        self._number = first + position.number
        return msgspec.structs.replace(position, source=self.id, number=self._number)

    async def _sleep_until(self, due: float) -> None:
        """Wait for the next poll's time, and until what it must not overtake is saved."""
        while self._stopping is None:
            left = due - anyio.current_time()
            if left <= 0 and self._is_saved():
                return
            self._wake = anyio.Event()
            with anyio.move_on_after(left if left > 0 else 1.0):
                await self._wake.wait()

    def _is_saved(self) -> bool:
        return all(self._saved.get(key) == value for key, value in self._rows.items() if self._awaited(key))
