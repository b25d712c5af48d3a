"""Positions of source blocks that wait for the blocks downstream of them.

A source's position counts only once everything that was made of its records has been done: it is held with the run,
in the journal, and saved when every block downstream of the source has completed in that run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from streamline.execution.batch.fanout import COMPLETED, SKIPPED
from streamline.execution.batch.journal import Journal, Positioned, Withdrawn
from streamline.state.store import Bookmark, BookmarkOverride, BookmarkSave, DeadLetter, Store

if TYPE_CHECKING:
    from streamline.execution.batch.plan import BatchPlan
    from streamline.execution.events import BlockOutcome


class Held(msgspec.Struct, kw_only=True):
    """The positions of one source that are not saved yet.

    Args:
        block: the source block.
        bookmarks: by stream.
        dropped: streams whose saved bookmark is deleted.
        overrides: stored overrides that have had their effect.
    """

    block: str
    bookmarks: dict[str, BookmarkSave] = {}
    dropped: set[str] = set()
    overrides: list[BookmarkOverride] = []

    def add(
        self, bookmarks: Iterable[BookmarkSave], dropped: Iterable[str], overrides: Iterable[BookmarkOverride]
    ) -> None:
        """Put newer positions in the place of older ones."""
        for bookmark in bookmarks:
            self.bookmarks[bookmark.stream] = bookmark
            self.dropped.discard(bookmark.stream)
        for stream in dropped:
            self.bookmarks.pop(stream, None)
            self.dropped.add(stream)
        self.overrides += [override for override in overrides if override not in self.overrides]


def held_of(positions: Iterable[Positioned]) -> dict[str, Held]:
    """Return what is held by key, from what a journal records."""
    held: dict[str, Held] = {}
    for each in positions:
        held.setdefault(each.key, Held(block=each.block)).add(each.bookmarks, each.dropped, each.overrides)
    return held


class PendingPositions:
    """Holds the positions of a run's sources.

    Args:
        journal: records them, for `--resume`; None: the run is never resumed.
        past: what the journal records of the run before it was resumed, by key.
    """

    def __init__(
        self,
        store: Store,
        plan: BatchPlan,
        run_id: str,
        journal: Journal | None,
        past: Mapping[str, Held] | None = None,
    ) -> None:
        self._store = store
        self._plan = plan
        self._pipeline = plan.model.uuid
        self._run_id = run_id
        self._journal = journal
        self._held: dict[str, Held] = dict(past or {})
        self._identities: dict[str, str] = {}
        self._lock = threading.Lock()

    def store_for(self, block: str, key: str | None = None) -> Store:
        """Return the state store as a flow of a source block sees it: with the positions of this run.

        Args:
            key: what the positions are kept under, if not the block's uuid: a child's key.
        """
        view: Any = _PendingStore(self, self._store, block, key or block)
        stored: Store = view
        return stored

    def proven_by(self, source: str) -> list[str]:
        """Return the blocks that prove a source's positions: the destinations that its records reach, else itself."""
        return self._plan.destinations(source) or [source]

    def sources_of(self, destination: str) -> list[str]:
        """Return the keys of the sources whose records reach a destination."""
        sources = [
            uuid
            for uuid, plan in self._plan.blocks.items()
            if plan.connector == "source" and destination in self._plan.destinations(uuid)
        ]
        held = [key for key, each in self._held.items() if each.block in sources]
        return list(dict.fromkeys([*sources, *held]))

    def note_destination(self, destination: str, identity: str) -> None:
        """Note where a destination has written in this run."""
        self._identities[destination] = identity

    def forget(self, key: str) -> None:
        """Forget what is held under a key, because the source reads again from where the run began."""
        with self._lock:
            if self._held.pop(key, None) is not None and self._journal is not None:
                self._journal.add(Withdrawn(key=key))

    def held(self, key: str) -> Held | None:
        """Return what is held under a key."""
        return self._held.get(key)

    def hold(
        self,
        key: str,
        block: str,
        bookmarks: Sequence[BookmarkSave],
        dropped: Sequence[str],
        overrides: Sequence[BookmarkOverride],
    ) -> None:
        """Hold positions; they survive the death of this process where the run can be resumed."""
        proven_by = self.proven_by(block)
        bookmarks = [
            bookmark
            if list(bookmark.sinks) == proven_by
            else structs.replace(bookmark, sinks=proven_by, destinations={})
            for bookmark in bookmarks
        ]
        with self._lock:
            if self._journal is not None:
                self._journal.add(
                    Positioned(
                        key=key,
                        block=block,
                        bookmarks=list(bookmarks),
                        dropped=list(dropped),
                        overrides=list(overrides),
                    )
                )
            self._held.setdefault(key, Held(block=block)).add(bookmarks, dropped, overrides)

    def save_settled(self, outcomes: Mapping[str, BlockOutcome]) -> dict[str, list[str]]:
        """Save the positions of sources of which all downstream blocks have completed; return the streams by block.

        A block that was skipped has not dealt with the records: they come again, unless the source says otherwise.
        """
        settled = self.settled(outcomes)
        saved: dict[str, list[str]] = {}
        with self._lock:
            for key in [key for key, held in self._held.items() if held.block in settled]:
                held = self._held[key]
                self._store.save(
                    self._pipeline,
                    key,
                    self._run_id,
                    [self._with_destinations(held.block, bookmark) for bookmark in held.bookmarks.values()],
                    (),
                    held.overrides,
                    sorted(held.dropped),
                )
                del self._held[key]
                saved.setdefault(held.block, []).extend(held.bookmarks)
        return saved

    def _with_destinations(self, source: str, bookmark: BookmarkSave) -> BookmarkSave:
        """Return a bookmark with where its destinations are, if that is not known for each table already."""
        if bookmark.destinations:
            return bookmark
        known = {uuid: self._identities[uuid] for uuid in self.proven_by(source) if uuid in self._identities}
        return structs.replace(bookmark, destinations=known)

    def settled(self, outcomes: Mapping[str, BlockOutcome]) -> set[str]:
        """Return the sources whose held positions can be saved."""
        return {held.block for held in self._held.values() if self._settled(held.block, outcomes)}

    def _settled(self, block: str, outcomes: Mapping[str, BlockOutcome]) -> bool:
        allowed = (COMPLETED, SKIPPED) if self._plan.blocks[block].advance_on_skip else (COMPLETED,)
        if block not in outcomes or outcomes[block].status != COMPLETED:
            return False
        downstream = self._plan.downstream(block)
        return all(uuid in outcomes and outcomes[uuid].status in allowed for uuid in downstream)


class _PendingStore:
    """The state store, with a source's positions held back. All else goes to the store."""

    def __init__(self, pending: PendingPositions, store: Store, block: str, key: str) -> None:
        self._pending = pending
        self._store = store
        self._block = block
        self._key = key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _named(self, block: str) -> str:
        return self._key if block == self._block else block

    def bookmarks(self, pipeline: str, block: str) -> dict[str, Bookmark]:
        """See `Store.bookmarks`."""
        found = self._store.bookmarks(pipeline, self._named(block))
        held = self._pending.held(self._key) if block == self._block else None
        if held is None:
            return found
        epochs = {stream: bookmark.epoch for stream, bookmark in found.items()}
        moved = {
            stream: Bookmark(
                pipeline=pipeline,
                block=self._key,
                stream=stream,
                value=save.value,
                run_id=self._pending._run_id,
                saved_at="",
                epoch=epochs.get(stream, 0),
                sinks=list(save.sinks),
                replication_method=save.replication_method,
                replication_key=save.replication_key,
            )
            for stream, save in held.bookmarks.items()
        }
        return {stream: each for stream, each in {**found, **moved}.items() if stream not in held.dropped}

    def epochs(self, pipeline: str, block: str) -> dict[str, int]:
        """See `Store.epochs`."""
        return self._store.epochs(pipeline, self._named(block))

    def save(
        self,
        pipeline: str,
        block: str,
        run_id: str,
        bookmarks: Sequence[BookmarkSave],
        dead_letters: Sequence[DeadLetter] = (),
        consumed_overrides: Sequence[BookmarkOverride] = (),
        dropped: Sequence[str] = (),
    ) -> None:
        """See `Store.save`: refused records are stored now, positions are held."""
        if block != self._block:  # a table of another block, which has no position
            if dead_letters:
                self._store.save(pipeline, block, run_id, (), dead_letters)
            return
        if dead_letters:
            self._store.save(pipeline, self._key, run_id, (), dead_letters)
        if bookmarks or consumed_overrides or dropped:
            self._pending.hold(self._key, self._block, bookmarks, dropped, consumed_overrides)

    def mark_gap(self, pipeline: str, block: str, streams: Sequence[str]) -> None:
        """See `Store.mark_gap`."""
        self._store.mark_gap(pipeline, self._named(block), streams)

    def consumed_overrides(self, pipeline: str, block: str) -> set[BookmarkOverride]:
        """See `Store.consumed_overrides`."""
        held = self._pending.held(self._key) if block == self._block else None
        consumed = self._store.consumed_overrides(pipeline, self._named(block))
        return consumed | set(held.overrides) if held is not None else consumed

    def destinations(self, pipeline: str, block: str) -> dict[str, dict[str, str]]:
        """See `Store.destinations`."""
        found = self._store.destinations(pipeline, self._named(block))
        held = self._pending.held(self._key) if block == self._block else None
        if held is None:
            return found
        return {**found, **{stream: dict(save.destinations) for stream, save in held.bookmarks.items()}}

    def save_destinations(self, pipeline: str, block: str, stream: str, destinations: Mapping[str, str]) -> None:
        """See `Store.save_destinations`."""
        self._store.save_destinations(pipeline, self._named(block), stream, destinations)
