"""Where the flows of an integration run keep their positions and refused records: the state store's tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from streamline.flow.items import FORGOTTEN, BadRecord
from streamline.state.store import BookmarkOverride, BookmarkSave, Cause, DeadLetter, StateChange, Store


class SourceAccount(msgspec.Struct, kw_only=True):
    """What the store is told about one tap process's positions.

    Args:
        block: uuid of the source block.
        owned: the parts of a position that are this process's.
        sinks_of: a bookmark's key → uuids of the destination blocks that prove it; it needs one.
        destinations: a bookmark's key, its value → the identity of each destination that it reaches.
        replication: stream → (method, key) that it is read with.
        rows: the bookmarks that stand in the store, as the tap knows them.
        forgotten: is given the keys of those that the tap dropped.
        keyless: the streams whose SCHEMA names no key, so that equal records are not one.
        bookmarks_of: a stream's name in messages → the keys of the bookmarks that cover its records.
        cause_of: stream → why its next bookmark replaces the old one.
        overrides: stream → stored overrides that its next bookmark consumes.
        left_out: streams of the same log that are not read; once a position is saved they have a gap.
    """

    block: str
    owned: Callable[[Mapping[str, bytes]], Mapping[str, bytes]]
    sinks_of: Callable[[str], Sequence[str]]
    destinations: Callable[[str, bytes], Mapping[str, str]]
    replication: Mapping[str, tuple[str | None, str | None]]
    rows: dict[str, bytes]
    forgotten: set[str] = set()
    keyless: set[str] = set()
    bookmarks_of: Callable[[str], Sequence[str]] = lambda stream: (stream,)
    cause_of: dict[str, Cause] = {}
    overrides: dict[str, list[BookmarkOverride]] = {}
    left_out: list[str] = []

    def moves_log(self, streams: Collection[str]) -> bool:
        """Return whether one of these bookmarks stands in the log that LOG_BASED streams share."""
        # Of a key that is no stream's, such as that of a whole state, it is not known.
        return any(self.replication.get(stream, (None, None))[0] in ("LOG_BASED", None) for stream in streams)


class RunStore:
    """A `flow.protocols.PositionStore` over the state store.

    Args:
        accounts: by source id.
        before_save: called before positions and refused records are saved.
    """

    def __init__(
        self,
        store: Store,
        *,
        pipeline: str,
        run_id: str,
        accounts: Mapping[str, SourceAccount],
        before_save: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._run_id = run_id
        self._accounts = dict(accounts)
        self._before_save = before_save
        self._starts = {source: dict(account.rows) for source, account in accounts.items()}
        self._copies: Counter[tuple[str, str, str, str | None, bool, int]] = Counter()

    def save(
        self, source: str, parts: Mapping[str, bytes], refused: Sequence[BadRecord], number: int = 0
    ) -> Mapping[str, bytes]:
        """See `PositionStore.save`."""
        return self.save_rows(source, parts, [self._letter(source, bad) for bad in refused])

    def save_rows(
        self,
        source: str,
        parts: Mapping[str, bytes],
        letters: Sequence[DeadLetter],
        state: Sequence[StateChange] = (),
    ) -> Mapping[str, bytes]:
        """Save parts of a source's position, and dead letters and changes of state before it; see
        `PositionStore.save`."""
        account = self._accounts[source]
        own = account.owned(parts)
        owned = {stream: text for stream, text in own.items() if text != FORGOTTEN and account.sinks_of(stream)}
        saved = account.rows.keys() | account.cause_of.keys()
        dropped = [stream for stream, text in own.items() if text == FORGOTTEN and stream in saved]
        moved = {stream: text for stream, text in owned.items() if account.rows.get(stream) != text}
        # An override or a full refresh is done with when the stream's first position is saved, moved or not.
        begun = [stream for stream in owned if stream in account.cause_of or stream in account.overrides]
        streams = list(dict.fromkeys([*moved, *begun]))
        if account.left_out and account.moves_log(moved):
            # Before the position: a run that is killed between the two must not leave an unknown gap.
            self._store.mark_gap(self._pipeline, account.block, account.left_out)
            account.left_out = []
        if streams or letters or dropped or state:
            self._before_save()
            self._store.save(
                self._pipeline,
                account.block,
                self._run_id,
                [self._bookmark(account, stream, owned[stream]) for stream in streams],
                letters,
                [override for stream in streams for override in account.overrides.get(stream, ())],
                dropped,
                state,
            )
        account.rows.update(moved)
        account.forgotten.difference_update(owned)
        account.forgotten.update(dropped)
        for stream in dropped:
            account.rows.pop(stream, None)
        for stream in begun:
            account.overrides.pop(stream, None)
        return {**moved, **dict.fromkeys(dropped, FORGOTTEN)}

    @staticmethod
    def _bookmark(account: SourceAccount, stream: str, text: bytes) -> BookmarkSave:
        method, key = account.replication.get(stream, (None, None))
        return BookmarkSave(
            stream=stream,
            value=text.decode("utf-8", "surrogateescape"),
            sinks=account.sinks_of(stream),
            replication_method=method,
            replication_key=key,
            cause=account.cause_of.get(stream, "run"),
            destinations=account.destinations(stream, text),
        )

    def _letter(self, source: str, bad: BadRecord) -> DeadLetter:
        account = self._accounts[source]
        copy = ""
        if bad.stream in account.keyless:
            # Its number among equal ones since the place from which it was read: another run may read it again.
            place = (source, bad.stream, bad.stage, bad.sink, bad.output, hash(bad.record))
            self._copies[place] += 1
            start = [self._starts[source].get(key) for key in account.bookmarks_of(bad.stream)]
            copy = f"{self._copies[place]} {start}"
        return DeadLetter(
            pipeline=self._pipeline,
            block=account.block,
            stream=bad.stream,
            run_id=self._run_id,
            record=bad.record.decode("utf-8", "replace"),
            error=bad.error,
            stage=bad.stage,
            destination=bad.sink,
            output=bad.output,
            copy=copy,
        )
