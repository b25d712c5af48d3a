"""Sessions of one partition.

The state has an entry for each key with open sessions. Messages, where they are kept, are in entries of their own, to
which nothing is added: each is of one session, which the time in its name tells, because sessions join and never part.
Open sessions are held in memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import msgspec

from streamline.blocks.python.messages.keyed_state import BlockState
from streamline.blocks.python.messages.window_contents import Folding, decoded_messages, joined, split
from streamline.blocks.python.messages.window_store import Closed, PartitionWindows, after, packed, unpacked
from streamline.flow.codecs.message_data import load_data

_JSON = msgspec.json.Encoder()

_SESSIONS = b"k"
_MESSAGES = b"m"


class _Session:
    """An open session.

    Args:
        start, last: times of its first and last message.
        value: what `fold` has made of its messages.

    Attributes:
        new: messages since the last flush.
        names: of entries with its messages.
    """

    __slots__ = ("last", "names", "new", "start", "value")

    def __init__(self, start: int, last: int, value: Any) -> None:
        self.start = start
        self.last = last
        self.value = value
        self.new: list[bytes] = []
        self.names: list[bytes] = []


class SessionWindows(PartitionWindows):
    """Sessions.

    Args:
        folding: None: sessions keep messages.
    """

    def __init__(self, gap: int, state: BlockState, folding: Folding | None, block: str) -> None:
        super().__init__(state, b"s" if folding is None else b"t", block)
        self._gap = gap
        self._folding = folding
        self._open: dict[bytes, list[_Session]] = {}
        self._touched: set[bytes] = set()
        self._stored: set[bytes] = set()
        """Keys with an entry in the state."""
        self._due: dict[bytes, int] = {}
        """When the sessions of a key are looked at next: no later than the first of them ends."""
        self._timers: list[tuple[int, bytes]] = []
        self._restore()

    def _restore(self) -> None:
        first = self.tag + _SESSIONS
        for name, value in self.state.restored(first, after(first)):
            key = name[len(first) :]
            sessions = self._open[key] = [_Session(*each) for each in load_data(value, "json")]
            self._stored.add(key)
            self._watch(key, min(session.last for session in sessions) + self._gap)
        first = self.tag + _MESSAGES
        for name, _ in self.state.restored(first, after(first)):
            time = unpacked(name, -16)
            for session in self._open.get(name[len(first) + 4 : -16], ()):
                if session.start <= time <= session.last:
                    session.names.append(name)

    def _watch(self, key: bytes, end: int) -> None:
        """See to it that the sessions of a key are looked at when the watermark passes an end."""
        due = self._due.get(key)
        if due is None or end < due:
            self._due[key] = end
            heapq.heappush(self._timers, (end, key))

    def add(self, key: bytes, at: int, message: Any, watermark: int | None) -> bool:
        """See `PartitionWindows.add`."""
        gap, folding = self._gap, self._folding
        sessions = self._open.get(key, [])
        near = sorted(
            (each for each in sessions if each.start - gap < at < each.last + gap), key=lambda session: session.start
        )
        if not near and watermark is not None and at + gap <= watermark:
            return False
        value = None
        if folding is not None:
            value = near[0].value if near else folding.initial
            for other in near[1:]:
                value = folding.merged(value, other.value)
            value = folding.added(value, message)
        session = near[0] if near else _Session(at, at, None)
        for other in near[1:]:
            session.new += other.new
            session.names += other.names
            session.last = max(session.last, other.last)
            sessions.remove(other)
        session.start, session.last, session.value = min(session.start, at), max(session.last, at), value
        if folding is None:
            session.new.append(message)
        if not near:
            sessions.append(session)
            self._open[key] = sessions
            self._watch(key, at + gap)
        self._touched.add(key)
        return True

    @property
    def earliest(self) -> int | None:
        """See `PartitionWindows.earliest`."""
        return self._timers[0][0] if self._timers else None

    def closed(self, watermark: int) -> Iterator[Closed]:
        """See `PartitionWindows.closed`."""
        ended: list[tuple[int, bytes, _Session]] = []
        while self._timers and self._timers[0][0] <= watermark:
            due, key = heapq.heappop(self._timers)
            if self._due.get(key) != due:
                continue  # they were looked at earlier
            del self._due[key]
            sessions = self._open.pop(key)
            left = [session for session in sessions if session.last + self._gap > watermark]
            ended += [(session.last + self._gap, key, session) for session in sessions if session not in left]
            if left:
                self._open[key] = left
                self._watch(key, min(session.last for session in left) + self._gap)
            if len(left) < len(sessions):
                self._touched.add(key)
        ended.sort(key=lambda each: (each[0], each[1]))
        for end, key, session in ended:
            yield key, session.start, end, self._contents(session)

    def _contents(self, session: _Session) -> Any:
        """Return what a session holds, and delete its messages from the state."""
        if self._folding is not None:
            return session.value
        messages: list[Any] = []
        for name in sorted(session.names, key=lambda name: name[-8:]):
            messages += decoded_messages(self.state.read(name) or b"[]")
            self.changes[name] = None
        return messages + decoded_messages(joined(session.new))

    def collect(self) -> None:
        """See `PartitionWindows.collect`."""
        most = self.state.max_bytes
        for key in self._touched:
            sessions = self._open.get(key)
            name = self.tag + _SESSIONS + key
            if sessions is None:
                if key in self._stored:
                    self._stored.remove(key)
                    self.changes[name] = None
                continue
            for session in sessions:
                if session.new:
                    self._add_messages(key, session, most)
            entry = [[each.start, each.last, each.value] for each in sessions]
            folding = self._folding
            self.changes[name] = _JSON.encode(entry) if folding is None else folding.encoded(entry, key, most)
            self._stored.add(key)
        self._touched.clear()

    def _add_messages(self, key: bytes, session: _Session, most: int | None) -> None:
        prefix = self.tag + _MESSAGES + len(key).to_bytes(4, "big") + key + packed(session.last)
        for chunk in split(session.new, key, most or 1 << 62):
            self.meta.number += 1
            name = prefix + packed(self.meta.number)
            self.changes[name] = chunk
            session.names.append(name)
        session.new = []
