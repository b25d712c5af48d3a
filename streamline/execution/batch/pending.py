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

from streamline.errors import ConfigError
from streamline.execution.batch.fanout import COMPLETED, SKIPPED, CallKey, Finished
from streamline.execution.batch.journal import Journal, Positioned, Withdrawn
from streamline.state.store import Bookmark, BookmarkOverride, BookmarkSave, DeadLetter, StateChange, Store

if TYPE_CHECKING:
    from streamline.execution.batch.plan import BatchPlan


class Held(msgspec.Struct, kw_only=True):
    """The positions of one source that are not saved yet.

    Args:
        block: the source block.
        call: which of its calls.
        into: the destination that has written all records before them, as they were read; None: they were stored.
        bookmarks: by stream.
        dropped: streams whose saved bookmark is deleted.
        overrides: stored overrides that have had their effect.
        gaps: streams of the same log that are not read: they have a gap when the positions are saved.
    """

    block: str
    call: CallKey = ()
    into: str | None = None
    bookmarks: dict[str, BookmarkSave] = {}
    dropped: set[str] = set()
    overrides: list[BookmarkOverride] = []
    gaps: set[str] = set()

    @property
    def empty(self) -> bool:
        """Whether nothing has moved."""
        return not (self.bookmarks or self.dropped or self.overrides or self.gaps)

    def add(
        self, bookmarks: Iterable[BookmarkSave], dropped: Iterable[str], overrides: Iterable[BookmarkOverride]
    ) -> None:
        """Put newer positions in the place of older ones."""
        for bookmark in bookmarks:
            before = self.bookmarks.get(bookmark.stream)
            if before is not None and bookmark.cause == "run":  # it goes on from a refresh or an override
                bookmark = structs.replace(bookmark, cause=before.cause)
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
        of_key = held.setdefault(each.key, Held(block=each.block, call=each.call, into=each.into))
        of_key.add(each.bookmarks, each.dropped, each.overrides)
        of_key.gaps.update(each.gaps)
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
        self._calls: dict[str, CallKey] = {}
        self._lock = threading.Lock()

    def store_for(self, block: str, key: str, written: dict[str, dict[str, str]] | None = None) -> Store:
        """Return the state store as a flow of a block sees it: with the positions of this run.

        Args:
            key: what the positions are kept under: the block's uuid, of a child with its own key.
            written: of a destination that writes stored outputs: is given their positions, by block and stream.
        """
        view: Any = _PendingStore(self, self._store, block, key, written if written is not None else {})
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

    def begin(self, key: str, block: str, call: CallKey, into: str | None = None) -> None:
        """Begin to read a source.

        Positions whose records were stored are forgotten: what was stored is replaced. What a destination has written
        as it was read stays written.

        Args:
            call: which of the block's calls reads it.
            into: the destination that writes the records as they are read; None: they are stored.

        Raises:
            ConfigError: another child's positions are kept under this key.
        """
        with self._lock:
            if self._calls.setdefault(key, call) != call:
                raise ConfigError(
                    f"two items of a dynamic block have the key {key.partition(':')[2]!r}, under which positions are "
                    "kept",
                    where=self._plan.model.where(block),
                    hint="give each item a `key`, or a `block_uuid` in its metadata, that no other item has",
                    code="source.duplicate_item",
                )
            for other, held in list(self._held.items()):
                # Where another item was read under this call's number, that item is no longer there.
                replaced = other == key and (into is None or held.into != into)
                if replaced or (other != key and held.block == block and held.call == call):
                    self._withdraw(other)
            self._held[key] = self._held.get(key) or Held(block=block, call=call, into=into)

    def begun(self, key: str) -> bool:
        """Return whether a source was begun in this part of the run."""
        return key in self._calls

    def _withdraw(self, key: str) -> None:
        if not self._held.pop(key).empty and self._journal is not None:
            self._journal.add(Withdrawn(key=key))

    def held(self, key: str) -> Held | None:
        """Return what is held under a key."""
        return self._held.get(key)

    def hold(
        self,
        key: str,
        bookmarks: Sequence[BookmarkSave],
        dropped: Sequence[str],
        overrides: Sequence[BookmarkOverride],
    ) -> None:
        """Hold positions of a source that was begun; they survive this process where the run can be resumed."""
        held = self._held[key]
        proven_by = self.proven_by(held.block)
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
                        block=held.block,
                        call=held.call,
                        into=held.into,
                        bookmarks=list(bookmarks),
                        dropped=list(dropped),
                        overrides=list(overrides),
                    )
                )
            held.add(bookmarks, dropped, overrides)

    def hold_gaps(self, key: str, streams: Sequence[str]) -> None:
        """Hold that these streams have a gap once the positions of a source that was begun are saved."""
        held = self._held[key]
        with self._lock:
            if self._journal is not None:
                gaps = list(streams)
                self._journal.add(Positioned(key=key, block=held.block, call=held.call, into=held.into, gaps=gaps))
            held.gaps.update(streams)

    def save_settled(self, finished: Mapping[str, Finished]) -> None:
        """Save the positions of sources of which all downstream blocks have completed.

        A block that was skipped has not dealt with the records: they come again, unless the source says otherwise.

        Args:
            finished: the blocks that have ended.

        Raises:
            StreamlineError: they cannot be saved.
        """
        with self._lock:
            for key, held in list(self._held.items()):
                if held.empty or not self._settled(held, finished):
                    continue
                if held.gaps:
                    # Before the positions: a run that is killed between the two must not leave an unknown gap.
                    self._store.mark_gap(self._pipeline, key, sorted(held.gaps))
                self._store.save(
                    self._pipeline,
                    key,
                    self._run_id,
                    [self._with_destinations(held.block, bookmark) for bookmark in held.bookmarks.values()],
                    (),
                    held.overrides,
                    sorted(held.dropped),
                )
                # What an operator sets from now on is not overwritten when the run is resumed.
                self._withdraw(key)

    def _with_destinations(self, source: str, bookmark: BookmarkSave) -> BookmarkSave:
        """Return a bookmark with where its destinations are, if that is not known for each table already."""
        if bookmark.destinations:
            return bookmark
        known = {uuid: self._identities[uuid] for uuid in self.proven_by(source) if uuid in self._identities}
        return structs.replace(bookmark, destinations=known)

    def settled(self, finished: Mapping[str, Finished]) -> set[str]:
        """Return the sources whose held positions can be saved."""
        with self._lock:
            return {held.block for held in self._held.values() if self._settled(held, finished)}

    def _settled(self, held: Held, finished: Mapping[str, Finished]) -> bool:
        own = finished.get(held.block)
        if own is None or not any(each.key == held.call and each.status == COMPLETED for each in own.instances):
            return False
        if any(each.status not in (COMPLETED, SKIPPED) for each in own.instances):
            return False  # its output is none until all children have completed
        allowed = (COMPLETED, SKIPPED) if self._plan.blocks[held.block].advance_on_skip else (COMPLETED,)
        return all(
            uuid in finished
            and not finished[uuid].limited
            and all(each.status in allowed for each in finished[uuid].instances if _meet(each.key, held.call))
            for uuid in self._plan.downstream(held.block)
        )


def _meet(call: CallKey, other: CallKey) -> bool:
    """Return whether one of two calls may have had output of the other: they do not differ on an axis."""
    places = dict(other)
    return all(places.get(axis, place) == place for axis, place in call)


class _PendingStore:
    """The state store, with a source's positions held back. All else goes to the store."""

    def __init__(
        self, pending: PendingPositions, store: Store, block: str, key: str, written: dict[str, dict[str, str]]
    ) -> None:
        self._written = written
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
        if block != self._block:
            return {}
        found = self._store.bookmarks(pipeline, self._key)
        held = self._pending.held(self._key)
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
        state: Sequence[StateChange] = (),
    ) -> None:
        """See `Store.save`: refused records are stored now, positions are held. Batch pipelines have no keyed state."""
        assert not state
        if dead_letters:
            self._store.save(pipeline, block, run_id, (), dead_letters)
        if block != self._block:  # stored output, which a destination writes
            self._written.setdefault(block, {}).update({bookmark.stream: bookmark.value for bookmark in bookmarks})
            return
        if bookmarks or consumed_overrides or dropped:
            self._pending.hold(self._key, bookmarks, dropped, consumed_overrides)

    def mark_gap(self, pipeline: str, block: str, streams: Sequence[str], *, at_start: bool = False) -> None:
        """See `Store.mark_gap`: the mark for a position that is held is held with it."""
        if at_start:
            self._store.mark_gap(pipeline, self._named(block), streams, at_start=True)
        else:
            self._pending.hold_gaps(self._key, streams)

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
