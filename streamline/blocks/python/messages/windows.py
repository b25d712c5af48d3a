"""Puts messages into windows over event time, and calls the function with those that close.

A window closes when the watermark of its partition passes its end: the highest time seen there, minus the lateness. It
is counted by partition, because all messages of a key are in one: what a window holds then depends neither on which
partitions an instance owns, nor on one that is behind or silent. The highest time is in the state, too: a restart
changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from streamline.blocks.python.file import UserError
from streamline.blocks.python.messages.fixed_windows import FixedWindows
from streamline.blocks.python.messages.keyed_state import BlockState
from streamline.blocks.python.messages.session_windows import SessionWindows
from streamline.blocks.python.messages.window_contents import Folding, encoded_message, fits
from streamline.blocks.python.messages.window_settings import (
    Window,
    WindowSettings,
    as_datetime,
    message_microseconds,
    microseconds,
)
from streamline.blocks.python.messages.window_store import OWN, PartitionWindows
from streamline.flow.codecs.message_data import dump_data
from streamline.flow.items import BadRecord, Item, MessageBatch, Origin

_MOST_TIMES = 20_000
"""Texts of times that are remembered."""

_WRAPPER = frozenset(["data", "metadata"])
_MISSING: Any = object()

_Resolved = tuple[Sequence[bytes], Sequence[int | None]]
"""Keys and times of messages."""


class WindowFunction(Protocol):
    """The block's function, as windows need it."""

    def close_window(self, key: str, window: Window, contents: Any, stream: str) -> list[Any]:
        """Call it with a window that has closed, and return its messages.

        Raises:
            PipelineFailed: it raised.
        """
        ...

    def error(self, error: BaseException) -> UserError:
        """Return an exception of the user's code as the user sees it."""
        ...

    def worked(self) -> None:
        """Note that the messages after those have been taken that user's code has raised on."""
        ...

    def raised(self, error: UserError) -> None:
        """Count a message that user's code has raised on.

        Raises:
            PipelineFailed: they are too many in a row.
        """
        ...


class Windows:
    """The windows of a block.

    Args:
        function: is called with the windows that close.
    """

    def __init__(self, settings: WindowSettings, state: BlockState, block: str, function: WindowFunction) -> None:
        self._settings = settings
        self._state = state
        self._block = block
        self._function = function
        self._folding = Folding(settings.fold, function.error, block) if settings.fold is not None else None
        self._times: dict[str, int] = {}
        state.prefix = OWN

    def run(self, batch: MessageBatch) -> list[Item]:
        """Take messages of one partition. Return what the windows give that they close, and messages in none."""
        origins = batch.made_of_all()
        errors: dict[int, str] = {}
        keys, times = self._alike(batch.data, origins) or self._each(batch.data, origins, errors)
        partition = self._partition()
        if partition is None:  # then they have no keys
            return [self._refused(batch, number, error) for number, error in errors.items()]
        refused: list[Item] = []
        returned: list[Any] = []
        lineage: list[Origin | None] = []
        lateness, keeps, most = self._settings.lateness, self._folding is None, self._state.max_bytes
        highest = partition.meta.highest
        watermark = None if highest is None else highest - lateness
        worked = False
        first, last, take = partition.direct
        for number, (key, at, message) in enumerate(zip(keys, times, batch.data, strict=True)):
            if at is None:
                if number in errors:
                    refused.append(self._refused(batch, number, errors[number]))
                continue
            try:
                if keeps:
                    message = encoded_message(message)
                    if not fits(message, key, most):
                        raise ValueError(f"it is larger than the state's topic takes ({most:,} bytes)")
                if first <= at < last:
                    take(key, message)
                else:
                    if not partition.add(key, at, message, watermark):
                        raise _late(at, watermark)
                    first, last, take = partition.direct
                worked = True
            except UserError as error:
                if worked:
                    self._function.worked()
                    worked = False
                self._function.raised(error)
                reason = f"{error.summary} ({error.where})"
                refused.append(self._refused(batch, number, reason, error.trace or None))
                continue
            except ValueError as error:
                refused.append(self._refused(batch, number, str(error)))
                continue
            if highest is None or at > highest:
                partition.meta.highest = highest = at
                watermark = at - lateness
                earliest = partition.earliest
                if earliest is not None and earliest <= watermark:
                    rows = self._closed(partition, watermark, batch.stream)
                    returned += rows
                    lineage += [origins[number]] * len(rows)
                    first, last, take = partition.direct
        if worked:
            self._function.worked()
        if not returned:
            return refused
        return [MessageBatch(batch.stream, returned, None, batch.sink, lineage if any(lineage) else None), *refused]

    def _alike(self, data: Sequence[Any], origins: Sequence[Origin | None]) -> _Resolved | None:
        """Return keys and times of messages that are all as most are; None: they have to be looked at one by one."""
        key_field, time_field, times = self._settings.key, self._settings.time, self._times
        if time_field is None or self._state.any_key or not _WRAPPER.isdisjoint((key_field, time_field)):
            return None
        if set(map(type, data)) != {dict} or None in origins:
            return None
        try:
            keys = [origin.key for origin in origins if origin is not None]
            if None in keys or (key_field is not None and [each[key_field].encode() for each in data] != keys):
                return None
            texts = [each[time_field] for each in data]
            if set(map(type, texts)) != {str}:
                return None
            for text in dict.fromkeys(texts):
                if text not in times:
                    self._time(text, time_field)
            return [key for key in keys if key is not None], [times[text] for text in texts]
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def _each(self, data: Sequence[Any], origins: Sequence[Origin | None], errors: dict[int, str]) -> _Resolved:
        """Return keys and times of messages; a message without a time is a tombstone, or has an error."""
        keys = [b""] * len(data)
        times: list[int | None] = [None] * len(data)
        for number, (message, origin) in enumerate(zip(data, origins, strict=True)):
            if message is not None:  # a tombstone has no time
                try:
                    keys[number], times[number] = self._resolved(message, origin)
                except ValueError as error:
                    errors[number] = str(error)
        return keys, times

    def _resolved(self, data: Any, origin: Origin | None) -> tuple[bytes, int]:
        """Return a message's key and time.

        Raises:
            ValueError: it has none, or its key is another one than `key` says.
        """
        key_field, time_field = self._settings.key, self._settings.time
        fields = data if type(data) is dict and "metadata" not in data else _fields(data)
        key = origin.key if origin is not None else None
        if key_field is not None:
            value = fields.get(key_field, _MISSING)
            named = (value if type(value) is str else str(value)).encode("utf-8", "surrogateescape")
            if self._state.any_key and value is not _MISSING:
                key = named
            elif named != key:
                raise _wrong_key(key_field, value, key)
        if key is None:
            raise _no_key()
        if time_field is None:
            return key, _own_time(origin)
        value = fields.get(time_field, _MISSING)
        known = self._times.get(value) if type(value) is str else None
        return key, known if known is not None else self._time(value, time_field)

    def _partition(self) -> PartitionWindows | None:
        """Return the windows of the partition that is open; None: the messages are of none."""
        state, settings = self._state, self._settings
        if not state.has_place:
            return None
        partition = state.indexes.get(state.place)
        if not isinstance(partition, PartitionWindows):
            if settings.gap is not None:
                partition = SessionWindows(settings.gap, state, self._folding, self._block)
            else:
                partition = FixedWindows(settings, state, self._folding, self._block)
            state.indexes[state.place] = partition
        return partition

    def _closed(self, partition: PartitionWindows, watermark: int, stream: str) -> list[Any]:
        rows: list[Any] = []
        begin, keep, close = self._state.begin_window, self._state.keep, self._function.close_window
        first = last = None
        for key, start, end, contents in partition.closed(watermark):
            if end != last or start != first:
                first, last = start, end
                window = Window(as_datetime(start), as_datetime(end))
            begin(key)
            rows += close(key.decode("utf-8", "surrogateescape"), window, contents, stream)
            keep()
        return rows

    def _time(self, value: Any, name: str) -> int:
        if value is _MISSING:
            raise _no_field(name)
        at = microseconds(value, name)
        if type(value) is str:
            if len(self._times) >= _MOST_TIMES:
                self._times.clear()
            self._times[value] = at
        return at

    def _refused(self, batch: MessageBatch, number: int, error: str, trace: str | None = None) -> BadRecord:
        origin, inferred = batch.made_of(number)
        record, form = dump_data(batch.data[number])
        return BadRecord(
            batch.stream,
            record,
            error,
            self._block,
            sink=batch.sink,
            origin=origin,
            trace=trace,
            form=form,
            inferred=inferred,
        )


def _late(at: int, watermark: int | None) -> ValueError:
    assert watermark is not None
    return ValueError(
        f"late: its time is {as_datetime(at).isoformat()}, its windows are closed, and the watermark is at "
        f"{as_datetime(watermark).isoformat()}"
    )


def _fields(data: Any) -> Mapping[str, Any]:
    """Return the fields of a message that may be `{data, metadata}`."""
    if isinstance(data, dict) and data.keys() == _WRAPPER:
        data = data["data"]
    return data if isinstance(data, dict) else {}


def _own_time(origin: Origin | None) -> int:
    if origin is None or origin.time is None:
        raise ValueError("the message has no time; name the field that has it: @window(…, time='at')")
    return message_microseconds(origin.time)


def _no_key() -> ValueError:
    return ValueError("the message has no key: a window's state belongs to the partition of its key")


def _wrong_key(name: str, value: Any, key: bytes | None) -> ValueError:
    if value is _MISSING:
        return _no_field(name)
    if key is None:
        return _no_key()
    return ValueError(
        f"{name} is {value!r}, and the message's key is {key!r}: a window's key has to be the message's own"
    )


def _no_field(name: str) -> ValueError:
    return ValueError(f"the message has no field {name!r}, which @window names")
