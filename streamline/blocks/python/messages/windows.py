"""Windows over event time: which ones a message belongs to, and when they close.

Windows are kept in the block's keyed state: under each key, its open windows with their messages. A window closes when
the watermark of its partition passes its end: the highest time seen there, minus the lateness. It is counted by
partition, because all messages of a key are in one: what a window holds then depends neither on which partitions an
instance owns, nor on one that is behind or silent. The highest time is in the state, too: a restart changes nothing.
"""

from __future__ import annotations

import datetime as dt
import heapq
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from streamline.blocks.python.messages.keyed_state import BlockState
from streamline.errors import ConfigError
from streamline.flow.codecs.message_data import dump_data, load_data
from streamline.flow.items import BadRecord, Item, MessageBatch, Origin

_HIGHEST = b"\x00highest"
"""Key of the highest time of a partition. Keys of messages have this beginning only if somebody wants it."""

_MICROSECONDS = 1_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_JSON = msgspec.json.Encoder()


class Window(msgspec.Struct, frozen=True):
    """A window, as the function gets it: from `start` to before `end`, which is the last message and the gap of a
    session."""

    start: dt.datetime
    end: dt.datetime


class WindowSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `@window(…)` says. Times are in microseconds.

    Args:
        size, step: a window of `size` begins every `step`; None: sessions.
        gap: a session ends so long after its last message.
        key: the field that has the message's key; None: it is not checked.
        time: the field that has the time; None: the message's own.
        lateness: a window closes so long after its end.
    """

    size: int = 0
    step: int = 0
    gap: int | None = None
    key: str | None = None
    time: str | None = None
    lateness: int = 0


class OpenWindow(msgspec.Struct, array_like=True):
    """A window that is open. `last` is the time of a session's last message."""

    start: int
    end: int
    messages: list[msgspec.Raw]
    last: int = 0


_DECODER = msgspec.json.Decoder(list[OpenWindow])


def window_settings(args: tuple[Any, ...], given: Mapping[str, Any], where: str) -> WindowSettings:
    """Read the arguments of `@window`.

    Raises:
        ConfigError: they are wrong.
    """

    def wrong(what: str) -> ConfigError:
        return ConfigError(
            f"@window: {what}",
            where=where,
            hint="for example @window(tumbling=60, key='user', time='at', lateness=5)",
            code="window.invalid",
        )

    def duration(name: str, value: Any, *, least: int = 1) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value * _MICROSECONDS < 2**60:
            raise wrong(f"{name} must be a number of seconds, not {value!r}")
        return round(value * _MICROSECONDS)

    kinds = [name for name in ("tumbling", "sliding", "session") if name in given]
    unknown = given.keys() - {"tumbling", "sliding", "session", "key", "time", "lateness"}
    if args or unknown or len(kinds) != 1:
        raise wrong("it takes one of tumbling, sliding and session, and key, time and lateness, by their names")
    for name in ("key", "time"):
        if not isinstance(given.get(name), str | None):
            raise wrong(f"{name} must be the name of a field")
    common: dict[str, Any] = {
        "key": given.get("key"),
        "time": given.get("time"),
        "lateness": duration("lateness", given.get("lateness", 0), least=0),
    }
    value = given[kinds[0]]
    if kinds == ["session"]:
        return WindowSettings(gap=duration("session", value), **common)
    if kinds == ["tumbling"]:
        size = duration("tumbling", value)
        return WindowSettings(size=size, step=size, **common)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise wrong("sliding must be (size, step)")
    size, step = duration("sliding", value[0]), duration("sliding", value[1])
    if step > size:
        raise wrong("the step of sliding is larger than its size: messages between would be in no window")
    return WindowSettings(size=size, step=step, **common)


class _Index:
    """The open windows of a partition by their ends, and its highest time."""

    def __init__(self, state: BlockState) -> None:
        self.ends: list[tuple[int, bytes]] = []
        self.highest: int | None = None
        for key, value in state.items():
            if key == _HIGHEST:
                self.highest = msgspec.json.decode(value, type=int)
            else:
                self.ends += [(window.end, key) for window in _DECODER.decode(value)]
        heapq.heapify(self.ends)


class Windows:
    """Puts messages into windows, and calls the function with those that close.

    Args:
        call: calls the function with a key, a window and its messages, and returns what it gives.
    """

    def __init__(
        self,
        settings: WindowSettings,
        state: BlockState,
        block: str,
        call: Callable[[str, Window, list[Any]], list[Any]],
    ) -> None:
        self._settings = settings
        self._state = state
        self._block = block
        self._call = call
        self._of_batch: dict[bytes, list[OpenWindow]] = {}

    def run(self, batch: MessageBatch) -> list[Item]:
        """Take messages of one partition. Return what the windows give that they close, and messages in none."""
        state = self._state
        state.begin(batch, 0, batch.count)
        index = state.indexes.setdefault(state.place, None) or _Index(state)
        state.indexes[state.place] = index
        refused: list[Item] = []
        returned: list[Any] = []
        lineage: list[Origin | None] = []
        before = index.highest
        for number, data in enumerate(batch.data):
            if data is None:
                continue  # a tombstone has no time
            origin, inferred = batch.made_of(number)
            try:
                key, at = self._key(data, origin), self._time(data, origin)
                record, form = dump_data(data)
                if form != "json":
                    raise ValueError("windows keep messages as JSON, and this one has none")
                self._add(index, key, at, msgspec.Raw(record))
            except ValueError as error:
                record, form = dump_data(data)
                bad = BadRecord(
                    batch.stream,
                    record,
                    str(error),
                    self._block,
                    sink=batch.sink,
                    origin=origin,
                    form=form,
                    inferred=inferred,
                )
                refused.append(bad)
                continue
            if index.highest is None or at > index.highest:
                index.highest = at
                rows = self._closed(index)
                returned += rows
                lineage += [origin] * len(rows)
        for key, windows in self._of_batch.items():
            state.change(key, _JSON.encode(windows) if windows else None)
        self._of_batch = {}
        if index.highest != before:
            state.change(_HIGHEST, _JSON.encode(index.highest))
        state.keep()
        if not returned:
            return refused
        return [MessageBatch(batch.stream, returned, None, batch.sink, lineage if any(lineage) else None), *refused]

    def _key(self, data: Any, origin: Origin | None) -> bytes:
        if origin is None or origin.key is None:
            raise ValueError("the message has no key: a window's state belongs to the partition of its key")
        if self._settings.key is not None:
            value = _field(data, self._settings.key)
            if str(value).encode("utf-8", "surrogateescape") != origin.key:
                raise ValueError(
                    f"{self._settings.key} is {value!r}, and the message's key is {origin.key!r}: a window's key has "
                    "to be the message's own"
                )
        return origin.key

    def _time(self, data: Any, origin: Origin | None) -> int:
        name = self._settings.time
        if name is None:
            if origin is None or origin.time is None:
                raise ValueError("the message has no time; name the field that has it: @window(…, time='at')")
            return origin.time * 1000
        value = _field(data, name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return round(value * _MICROSECONDS)
        if isinstance(value, str):
            try:
                value = dt.datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(f"{name} is {value!r}: neither ISO 8601 nor seconds since 1970") from None
        at: dt.datetime | None = value if isinstance(value, dt.datetime) else None
        if at is None:
            raise ValueError(f"{name} is {value!r}: neither ISO 8601 nor seconds since 1970")
        if at.tzinfo is None:
            at = at.replace(tzinfo=dt.UTC)
        return (at - _EPOCH) // dt.timedelta(microseconds=1)

    def _add(self, index: _Index, key: bytes, at: int, record: msgspec.Raw) -> None:
        """Put a message into its windows.

        Raises:
            ValueError: all of them are closed.
        """
        settings = self._settings
        watermark = None if index.highest is None else index.highest - settings.lateness
        windows = self._open(key)
        if settings.gap is not None:
            added = self._add_to_session(windows, at, settings.gap, record, watermark)
        else:
            added = []
            start = at - at % settings.step
            while start + settings.size > at:
                end = start + settings.size
                if watermark is None or end > watermark:
                    window = next((each for each in windows if each.start == start), None)
                    if window is None:
                        window = OpenWindow(start, end, [])
                        windows.append(window)
                        added.append(end)
                    window.messages.append(record)
                elif start == at - at % settings.step:
                    raise _late(at, watermark)
                start -= settings.step
        for end in added:
            heapq.heappush(index.ends, (end, key))

    def _open(self, key: bytes) -> list[OpenWindow]:
        """Return the open windows of a key; they are changed in place, and written when the batch is done."""
        windows = self._of_batch.get(key)
        if windows is None:
            raw = self._state.read(key)
            windows = self._of_batch[key] = _DECODER.decode(raw) if raw is not None else []
        return windows

    def _add_to_session(
        self, windows: list[OpenWindow], at: int, gap: int, record: msgspec.Raw, watermark: int | None
    ) -> list[int]:
        """Put a message into a session, which may join others; return the ends that are new."""
        near = [each for each in windows if each.start - gap < at < each.end]
        if not near and watermark is not None and at + gap <= watermark:
            raise _late(at, watermark)
        session = OpenWindow(at, at + gap, [record], at)
        for each in sorted(near, key=lambda window: window.start):
            windows.remove(each)
        messages = [message for each in sorted(near, key=lambda window: window.start) for message in each.messages]
        session.start = min([at, *(each.start for each in near)])
        session.last = max([at, *(each.last for each in near)])
        session.end = session.last + gap
        session.messages = [*messages, record]
        windows.append(session)
        return [session.end]

    def _closed(self, index: _Index) -> list[Any]:
        """Call the function with the windows that the watermark has passed, the earliest first."""
        assert index.highest is not None
        watermark = index.highest - self._settings.lateness
        returned: list[Any] = []
        while index.ends and index.ends[0][0] <= watermark:
            end, key = heapq.heappop(index.ends)
            windows = self._open(key)
            closed = [each for each in windows if each.end == end]
            # There is none if it is a session that has grown since.
            windows[:] = [each for each in windows if each.end != end]
            for each in sorted(closed, key=lambda window: window.start):
                window = Window(_datetime(each.start), _datetime(each.end))
                messages = [load_data(bytes(message), "json") for message in each.messages]
                returned += self._call(key.decode("utf-8", "surrogateescape"), window, messages)
        return returned


def _late(at: int, watermark: int) -> ValueError:
    return ValueError(
        f"late: its time is {_datetime(at).isoformat()}, its windows are closed, and the watermark is at "
        f"{_datetime(watermark).isoformat()}"
    )


def _datetime(microseconds: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=microseconds)


def _field(data: Any, name: str) -> Any:
    if isinstance(data, dict) and data.keys() == {"data", "metadata"}:
        data = data["data"]
    if not isinstance(data, dict) or name not in data:
        raise ValueError(f"the message has no field {name!r}, which @window names")
    return data[name]
