"""Table versions: when an ACTIVATE_VERSION is sent to the target, and versions for taps that send none.

A target that gets ACTIVATE_VERSION deletes the rows of other versions (many: of all lower ones). Versions may go down:
taps make them of the time of day. Classic taps send the message after a stream's last record. Others (Singer SDK) send
it right after the SCHEMA: a run that fails later would have deleted rows without writing new ones. So an
ACTIVATE_VERSION before its version's first record is held until the tap has succeeded.

Some targets show the rows of a new version only once it is activated: they cannot tell the end of a failed tap from a
good one. What the tap itself never activates is activated for them when it has succeeded, without deleting old rows.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

import msgspec

from streamline.flow.codecs.envelope import rewrite, rewrite_files, version_of
from streamline.flow.items import (
    REST,
    ActivateVersion,
    ArrowBatch,
    Batch,
    FileBatch,
    Item,
    Position,
    RawBatch,
    RowBatch,
    Schema,
)
from streamline.flow.protocols import ImmediateStage


def new_version(after: int = 0) -> int:
    """Return a table version for one attempt of one run: milliseconds since 1970, higher than `after`.

    Args:
        after: the version of the previous attempt, whose rows are stale, too.
    """
    return max(time.time_ns() // 1_000_000, after + 1)


class VersionStage(ImmediateStage):
    """Holds ACTIVATE_VERSIONs until their stream is complete, and replaces tables for taps without versions.

    While a stream's message is held, its bookmark is withheld in every `Position`. If the source fails, held messages
    are never sent, because `finish` is not called.

    Args:
        bookmarks_of: a stream's name in the messages → the keys of bookmarks that may cover its records.
        endless: the source never ends; held messages are sent at the next position, and no table is replaced.
        replace: whether this run replaces the table of a stream (named as in the messages). Where the tap sends
            no versions of its own, its records get `version`, which is activated at the end.
        version: the version of this attempt, see `new_version`.
        holds_rows: the target shows rows of a new version once it is activated, and reads `keep_old`.
        shared: whether others write to the table of a stream, too. The tap's versions would delete their rows, so they
            do not reach the target.
    """

    def __init__(
        self,
        *,
        bookmarks_of: Callable[[str], Collection[str]] = lambda stream: (stream,),
        endless: bool = False,
        replace: Callable[[str], bool] | None = None,
        version: int = 0,
        holds_rows: bool = False,
        shared: Callable[[str], bool] = lambda stream: False,
    ) -> None:
        self._bookmarks_of = bookmarks_of
        self._endless = endless
        self._replace = replace if replace is not None and not endless else lambda _: False
        self._version = version
        self._holds_rows = holds_rows
        self._shared = shared
        self._held: dict[str, ActivateVersion] = {}
        self._replacing: dict[str, bool] = {}  # each stream seen so far: does it get our version?
        self._moved: dict[str, int | None] = {}  # stream -> the version that the tap gave its newest records
        self._seen: dict[str, set[int]] = defaultdict(set)  # stream -> versions of records
        self._activated: dict[str, int] = {}  # stream -> the version that was activated last
        self._unactivated: dict[str, int] = {}  # stream -> the version of records that came after that
        self._newest: Position | None = None
        self._newest_withheld = False

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, RawBatch | RowBatch | ArrowBatch | FileBatch):
            return [self._records(item)]
        if isinstance(item, ActivateVersion):
            return self._activate(item)
        if isinstance(item, Position):
            return self._position(item)
        if isinstance(item, Schema):
            self._replaces(item.stream)
        return [item]

    async def finish(self) -> Sequence[Item]:
        """Return the held messages, then the newest position again, with nothing withheld."""
        # A stream with a SCHEMA and no record is an empty table: the target's table is emptied, too.
        own = [ActivateVersion(stream, self._version) for stream, ours in self._replacing.items() if ours]
        items: list[Item] = [*self._held.values(), *own, *map(self._activation, self._to_activate())]
        self._held.clear()
        self._replacing.clear()
        if self._newest is not None and self._newest_withheld:
            items.append(msgspec.structs.replace(self._newest, number=self._newest.number + 1))
            self._newest_withheld = False
        return items

    def _to_activate(self) -> list[tuple[str, int]]:
        """Return streams with versions that the tap has not activated: some mappers drop the message that does it."""
        return [
            (stream, version)
            for stream, version in self._unactivated.items()
            if not self._replacing.get(stream) and (self._holds_rows or self._replace(stream))
        ]

    def _activation(self, unactivated: tuple[str, int]) -> ActivateVersion:
        stream, version = unactivated
        self._note_activated(stream, version)
        return ActivateVersion(stream, version, keep_old=not self._replace(stream))

    def _note_activated(self, stream: str, version: int) -> None:
        self._activated[stream] = version
        self._unactivated.pop(stream, None)

    def _resumes(self, stream: str, version: int, position: Position) -> bool:
        """Return whether the tap will go on with this version: then its bookmark holds it."""
        text = str(version).encode()
        return any(text in position.parts.get(key, b"") for key in (*self._bookmarks_of(stream), REST))

    def _replaces(self, stream: str) -> bool:
        ours = self._replacing.get(stream)
        if ours is None:
            ours = self._replacing[stream] = self._replace(stream)
        return ours

    def _records(self, batch: Batch | FileBatch) -> Batch | FileBatch:
        stream = batch.stream
        version = version_of(batch) if isinstance(batch, RawBatch) else batch.version
        if version is not None and self._shared(stream):
            batch, version = _with_version(batch, None), None
        first = stream not in self._moved
        self._moved[stream] = version
        if version is not None:
            self._seen[stream].add(version)
            if version != self._activated.get(stream):
                self._unactivated[stream] = version
        if not self._replaces(stream):
            return batch
        if version is not None and first:
            self._replacing[stream] = False
            return batch
        return _with_version(batch, self._version)

    def _activate(self, item: ActivateVersion) -> Sequence[Item]:
        stream = item.stream
        if self._shared(stream):
            return []
        if self._replaces(stream):
            if stream in self._moved:
                return []  # its records have our version, which is activated at the end
            self._replacing[stream] = False
        is_new = item.version not in self._seen[stream]
        if is_new or item.version == self._unactivated.get(stream):
            self._note_activated(stream, item.version)
        if is_new and self._moved.get(stream, item.version) is not None:
            self._held[stream] = item
            return []
        if self._held.get(stream, item).version == item.version:
            self._held.pop(stream, None)
        return [item]

    def _position(self, item: Position) -> Sequence[Item]:
        self._newest = item
        # Rows that the target holds back may be lost with their version, unless the tap continues it.
        unproven = [each for each in self._to_activate() if self._holds_rows and not self._resumes(*each, item)]
        if self._endless:
            held = [*self._held.values(), *map(self._activation, unproven)]
            self._held.clear()
            return [*held, item]
        streams = [*self._held, *(stream for stream, ours in self._replacing.items() if ours)]
        streams += [stream for stream, _ in unproven]
        self._newest_withheld = bool(streams)
        if not streams:
            return [item]
        withheld = item.withheld.union(*map(self._bookmarks_of, streams))
        return [msgspec.structs.replace(item, withheld=withheld)]


def _with_version(batch: Batch | FileBatch, version: int | None) -> Batch | FileBatch:
    if isinstance(batch, RawBatch):
        return rewrite(batch, version=version)
    if isinstance(batch, FileBatch):
        return rewrite_files(batch, version=version)
    return msgspec.structs.replace(batch, version=version)
