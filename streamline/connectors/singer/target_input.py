"""The messages for a target, and which positions its echoes prove.

Nothing here does I/O: `target.py` has the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from streamline.connectors.singer.bookmark_hashes import marks_of
from streamline.connectors.singer.echo_account import WHOLE, EchoAccount, Marks
from streamline.connectors.singer.messages import activate_version_line, schema_line, state_line
from streamline.connectors.singer.state import START, numbered, split_state, state_of, without_currently_syncing
from streamline.flow.codecs import jsontext
from streamline.flow.items import REST, ActivateVersion, Buffer, FileBatch, Item, Position, RawBatch, Schema
from streamline.flow.protocols import Proven


class Feed(msgspec.Struct, kw_only=True):
    """How one source's streams and bookmarks are named in a target.

    Args:
        keys_of: a stream's name in messages → the keys that its bookmark may have; none if it cannot be told.
        parents_of: a stream's name in messages → keys of bookmarks that may cover its records as well.
        owns: whether the source's process owns a bookmark.
        name_of: the key of a bookmark → its name in a state that is merged of several sources.
    """

    source: str
    keys_of: Callable[[str], Sequence[str]]
    owns: Callable[[str], bool]
    name_of: Callable[[str], str] = str
    parents_of: Callable[[str], Sequence[str]] = lambda stream: ()


class SentCounts:
    """Counts what a target is sent and confirms, by the name of the stream that it sees. This one counts nothing."""

    def sent(self, source: str, stream: str, records: int) -> None:
        """Count records that are about to be written."""

    def confirmed(self, source: str, stream: str, records: int) -> None:
        """Count records that the target has proven."""

    def position_sent(self, source: str, number: int) -> None:
        """Note that all records before a position were counted."""


class TargetInput:
    """The messages for one target over its sessions: SCHEMAs, records, and STATEs that are merged of its sources.

    Args:
        feeds: the sources that feed it.
        state: the proven state, by source, that it starts from.
        counts: counts what is sent and confirmed.
    """

    def __init__(self, feeds: Sequence[Feed], state: Mapping[str, bytes], counts: SentCounts) -> None:
        self.on_proof: Proven = lambda source, number: None
        """Called with each position that is newly proven."""
        self._feeds = {feed.source: feed for feed in feeds}
        self._counts = counts
        self._account = EchoAccount()
        self._schemas: dict[str, Schema] = {}
        """The SCHEMA of each stream by which the target reads its records now."""
        self._schemas_of: dict[tuple[str, str], Schema] = {}
        """The newest SCHEMA of each source's stream."""
        self._proven: dict[str, bytes] = dict(state)
        self._newest: dict[str, bytes] = dict(state)
        self._deferred: dict[str, Position] = {}
        self._withheld: dict[str, frozenset[str]] = {}
        self._proof_time = time.monotonic()

    def new_session(self) -> None:
        """Begin the account of a new process."""
        self._account = EchoAccount()
        self._proof_time = time.monotonic()

    def opening(self) -> list[Buffer]:
        """Return the first lines of a session: the proven state and, in later sessions, the SCHEMAs."""
        value = self._merged(self._proven)
        self._account.start(marks_of(value))
        return [state_line(value), *(schema_line(schema) for schema in self._schemas.values())]

    # -- what is sent

    def lines(self, source: str, items: Sequence[Item]) -> list[Buffer]:
        """Return the lines for a source's items, which have no rows and tables any more."""
        feed = self._feeds[source]
        # The account has to know of everything before it is written: the echo may come at once.
        buffers: list[Buffer] = []
        for item in items:
            if isinstance(item, RawBatch):
                self._account_for(feed, item.stream, item.count)
                buffers += self._schema_again(feed.source, item.stream)
                buffers += item.slices
            elif isinstance(item, Position):
                self._counts.position_sent(feed.source, item.number)
                if self._account.wants_place():
                    self._deferred.pop(feed.source, None)
                    buffers += self._place(feed, item)
                else:
                    self._deferred[feed.source] = item
            elif isinstance(item, Schema):
                self._schemas[item.stream] = self._schemas_of[feed.source, item.stream] = item
                buffers.append(schema_line(item))
            elif isinstance(item, ActivateVersion):
                # What it deletes must be proven as much as what was written.
                self._account_for(feed, item.stream)
                buffers.append(activate_version_line(item))
            elif isinstance(item, FileBatch):
                self._account_for(feed, item.stream, item.count or 0)
                buffers += self._schema_again(feed.source, item.stream)
                buffers.append(item.raw)
        return buffers

    def waits(self, source: str) -> bool:
        """Return whether the last position of a source was not sent yet."""
        return source in self._deferred

    def source_ended(self, source: str) -> list[Buffer]:
        """Return the lines for the last position of a source, if it waits."""
        position = self._deferred.pop(source, None)
        return self._place(self._feeds[source], position) if position is not None else []

    def _place(self, feed: Feed, position: Position) -> list[Buffer]:
        self._newest[feed.source] = state_of(position.parts)
        value = self._merged(self._newest)
        marks = marks_of(value)
        serial = self._account.serial
        if serial is not None and WHOLE not in marks:
            value = numbered(value, serial)
            marks = marks_of(value)
        released = self._withheld.get(feed.source, frozenset()) - position.withheld
        self._withheld[feed.source] = position.withheld
        self._proof(self._account.place(position, marks, [feed.name_of(key) for key in released]))
        return [state_line(value)]

    def _schema_again(self, source: str, stream: str) -> list[Buffer]:
        """Return a source's SCHEMA, where another source has sent the stream a different one since."""
        own, current = self._schemas_of.get((source, stream)), self._schemas.get(stream)
        if own is None or current is None or own is current or _same(own, current):
            return []
        self._schemas[stream] = own
        return [schema_line(own)]

    def _account_for(self, feed: Feed, stream: str, records: int = 0) -> None:
        keys, parents = feed.keys_of(stream), feed.parents_of(stream)
        self._account.sent(feed.source, stream, [*map(feed.name_of, keys)], [*map(feed.name_of, parents)], records)
        if records:
            self._counts.sent(feed.source, stream, records)

    def _merged(self, states: Mapping[str, bytes]) -> bytes:
        """Merge the states of all sources: each bookmark from the process that owns it.

        What stands beside a source's bookmarks is part of it, under the source's name: the target must echo every
        change of a position.
        """
        if len(self._feeds) == 1:
            (source,) = self._feeds
            return states.get(source) or START
        rows: dict[str, bytes] = {}
        beside: dict[str, bytes] = {}
        for source, feed in self._feeds.items():
            parts = split_state(states.get(source) or START)
            rest = without_currently_syncing(parts.pop(REST)) if REST in parts else None
            rows.update({feed.name_of(key): text for key, text in parts.items() if feed.owns(key)})
            if rest is not None and parts:
                beside[source] = rest
            elif rest is not None:
                rows[f"{source}:{REST}"] = rest
        members = {"bookmarks": jsontext.join_members(rows)}
        if beside:
            members["beside_bookmarks"] = jsontext.join_members(beside)
        return jsontext.join_members(members)

    # -- what is proven

    @property
    def unproven(self) -> bool:
        """Whether records were sent that are not proven."""
        return self._account.unproven

    @property
    def seconds_without_proof(self) -> float:
        """Seconds since the session began, or since something was proven in it."""
        return time.monotonic() - self._proof_time

    def recognises(self, marks: Marks) -> bool:
        """Return whether the target was sent these marks; for the log only."""
        return self._account.recognises(marks)

    def echoed(self, marks: Marks) -> None:
        """Note that the target printed a STATE."""
        self._proof(self._account.echo(marks))

    def ended(self) -> None:
        """Note that the target exited with 0 after the end of its input."""
        self._proof(self._account.ended())

    def _proof(self, positions: Mapping[str, Position]) -> None:
        for (feeding, stream), records in self._account.take_confirmed().items():
            self._counts.confirmed(feeding, stream, records)
        if positions:
            self._proof_time = time.monotonic()
            for source, position in positions.items():
                self._proven[source] = state_of(position.parts)
                self.on_proof(source, position.number)


def _same(left: Schema, right: Schema) -> bool:
    return (left.schema, left.key_properties) == (right.schema, right.key_properties)
