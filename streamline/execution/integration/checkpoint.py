"""Saves proven positions, off the event loop and no more often than the store can take them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import anyio
import anyio.to_thread
import msgspec

from streamline.connectors.singer.state import join_state, without_currently_syncing
from streamline.flow.items import REST, BadRecord, Position
from streamline.flow.ledger import Ledger
from streamline.state.store import BookmarkOverride, BookmarkSave, Cause, DeadLetter, Store

SAVE_INTERVAL = 0.1
"""Seconds between two saves; what is proven meanwhile is saved with the next."""

MAX_PENDING_LETTERS = 2_000
"""Dead letters that wait for a position; more are saved without one."""


class SourceAccount(msgspec.Struct, kw_only=True):
    """What is needed to save one source's positions.

    Args:
        source: the id in positions.
        block: uuid of the source block.
        owns: whether a bookmark belongs to this tap process.
        shared: the source's streams are read by several tap processes.
        sinks: uuids of the destination blocks that it feeds.
        replication: stream → (method, key) that it is read with.
        rows: the bookmarks that stand in the store, as the tap knows them.
        cause_of: stream → why its next bookmark replaces the old one.
        overrides: stream → stored overrides that its next bookmark consumes.
        left_out: streams of the same log that are not read; once a position is confirmed they have a gap.
        confirm: tells the source the state that is durable now.
        positioned: called with the position that was saved, and whether nothing unproven is left before it.
    """

    source: str
    block: str
    owns: Callable[[str], bool]
    shared: bool
    sinks: Sequence[str]
    replication: Mapping[str, tuple[str | None, str | None]]
    rows: dict[str, bytes]
    cause_of: dict[str, Cause] = {}
    overrides: dict[str, list[BookmarkOverride]] = {}
    left_out: list[str] = []
    confirm: Callable[[bytes], Awaitable[None]] | None = None
    positioned: Callable[[Position], Awaitable[None]] | None = None


class PositionSaver:
    """Takes proofs and refused records, and writes both to the store, in one transaction where they belong together.

    Args:
        on_saved: called with the source id whenever a position of it was saved.
        before_letters: called in a worker thread before refused records are saved.
    """

    def __init__(
        self,
        store: Store,
        *,
        pipeline: str,
        run_id: str,
        accounts: Sequence[SourceAccount],
        ledger: Ledger,
        on_saved: Callable[[str], None],
        before_letters: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._run_id = run_id
        self._accounts = {account.source: account for account in accounts}
        self._ledger = ledger
        self._on_saved = on_saved
        self._before_letters = before_letters
        self._waiting: dict[str, Position] = {}
        self._letters: dict[str, list[DeadLetter]] = {}
        self._wake = anyio.Event()
        self._saving = anyio.Lock()

    def proven(self, sink: str, positions: Mapping[str, Position]) -> None:
        """A sink has proven these positions; see `TargetProcess`."""
        ready = self._ledger.proven(sink, positions)
        if ready:
            self._waiting.update(ready)
            self._wake.set()

    def refuse(self, source: str, block: str, records: Sequence[BadRecord]) -> None:
        """Records that were taken out of the flow: they go to the dead letters of `block`."""
        letters = self._letters.setdefault(source, [])
        letters += [
            DeadLetter(
                pipeline=self._pipeline,
                block=block,
                stream=bad.stream,
                run_id=self._run_id,
                record=bad.record.decode("utf-8", "replace"),
                error=bad.error,
                stage=bad.stage,
                destination=bad.sink,
                output=bad.output,
            )
            for bad in records
        ]
        if len(letters) >= MAX_PENDING_LETTERS:
            self._wake.set()

    async def run(self) -> None:
        """Save until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            await self.flush()
            await anyio.sleep(SAVE_INTERVAL)

    async def flush(self) -> None:
        """Save everything that is proven now, and all refused records."""
        async with self._saving:
            # A cancellation (`run` is cancelled at the end) must not come between two sources: what was taken out of
            # `_waiting` would be saved by nobody.
            with anyio.CancelScope(shield=True):
                for source in dict.fromkeys([*self._waiting, *self._letters]):
                    position, letters = self._waiting.pop(source, None), self._letters.pop(source, [])
                    try:
                        await self._save(self._accounts[source], position, letters)
                    except BaseException:
                        # What could not be saved is tried again with the next; no later position overtakes it.
                        self._letters[source] = letters + self._letters.get(source, [])
                        if position is not None:
                            self._waiting.setdefault(source, position)
                        raise

    async def _save(self, account: SourceAccount, position: Position | None, letters: list[DeadLetter]) -> None:
        rows = _rows(account, position) if position is not None else {}
        changed = {stream: text for stream, text in rows.items() if account.rows.get(stream) != text}
        # An override or a full refresh is done with when the stream's first position is saved, moved or not.
        begun = [stream for stream in rows if stream in account.cause_of or stream in account.overrides]
        saves = []
        overrides: list[BookmarkOverride] = []
        for stream in dict.fromkeys([*changed, *begun]):
            method, key = account.replication.get(stream, (None, None))
            saves.append(
                BookmarkSave(
                    stream=stream,
                    value=rows[stream].decode("utf-8", "surrogateescape"),
                    sinks=account.sinks,
                    replication_method=method,
                    replication_key=key,
                    cause=account.cause_of.get(stream, "run"),
                )
            )
            overrides += account.overrides.get(stream, [])
        if account.left_out and self._moves_log(account, changed):
            # Before the position: a run that is killed between the two must not leave a gap that nobody knows of.
            await anyio.to_thread.run_sync(self._store.mark_gap, self._pipeline, account.block, account.left_out)
            account.left_out = []
        if letters:
            await anyio.to_thread.run_sync(self._before_letters)
        if saves or letters:
            # Letters belong to destination blocks; the store keeps their own names, in the same transaction.
            await anyio.to_thread.run_sync(
                self._store.save, self._pipeline, account.block, self._run_id, saves, letters, overrides
            )
        account.rows.update(changed)
        for stream in begun:
            account.overrides.pop(stream, None)
        if position is None:
            return
        if changed and account.confirm is not None:
            await account.confirm(join_state(account.rows))
        if account.positioned is not None:
            await account.positioned(position)
        self._on_saved(account.source)

    @staticmethod
    def _moves_log(account: SourceAccount, changed: Collection[str]) -> bool:
        """Whether the position in the log that LOG_BASED streams share is among what changed."""
        return any(
            stream == REST or account.replication.get(stream, (None, None))[0] in ("LOG_BASED", None)
            for stream in changed
        )


def _rows(account: SourceAccount, position: Position) -> dict[str, bytes]:
    """The bookmarks of a position that are this process's to save."""
    rows = {
        stream: text
        for stream, text in position.parts.items()
        if stream not in position.withheld and (stream == REST or account.owns(stream))
    }
    if account.shared and REST in rows:
        rest = without_currently_syncing(rows.pop(REST))
        if rest is not None:
            rows[REST] = rest
    return rows
