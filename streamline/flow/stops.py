"""Stops a stream that failed on its way to the sinks, while the other streams of its source go on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import msgspec

from streamline.errors import PipelineFailed, StreamFailed
from streamline.flow.items import Item, Position


class StopPolicy(msgspec.Struct, frozen=True):
    """How the streams of a source are told apart.

    Args:
        keys_of: the keys of a position that cover a stream's records; None if they cannot be told apart from those of
            other streams.
        on_stopped: called once with each stream that was stopped, and why.
    """

    keys_of: Callable[[str, Position], Collection[str] | None]
    on_stopped: Callable[[str, Exception], None]


class StoppedStreams:
    """The streams that were stopped on one path from a source to a sink.

    What comes of them is dropped, and their parts of later positions stay as they were. Paths that branch off
    (`branch`) lose what their stem has lost.

    Args:
        policy: None if no stream can be stopped alone.
    """

    def __init__(self, policy: StopPolicy | None, stem: StoppedStreams | None = None) -> None:
        self._policy = policy
        self._stem = stem
        self._errors: dict[str, Exception] = {}
        self._newest: Position | None = None
        self._last: dict[str, Position | None] = {}
        """The last position before each stream was stopped."""
        self.rewinds = False
        """Whether a key keeps its last value before the stop, instead of being withheld. Only where a position has one
        path: the same position must not have two values."""

    def branch(self) -> StoppedStreams:
        """Return those of a path that branches off."""
        return StoppedStreams(self._policy, self)

    def add(self, item: Item | None, error: Exception) -> None:
        """Stop the stream that an error is about: a `StreamFailed` says which, otherwise it is the item's.

        Raises:
            Exception: the error, if it is not about one stream, or if no stream can be stopped alone.
        """
        if isinstance(error, StreamFailed):
            stream = error.stream
        elif isinstance(error, PipelineFailed) or item is None or isinstance(item, Position):
            raise error
        else:
            stream = item.stream
        if self._policy is None:
            raise error
        if not self.has(stream):
            self._errors[stream] = error
            self._policy.on_stopped(stream, error)

    def has(self, stream: str) -> bool:
        """Return whether a stream was stopped."""
        return any(stream in path._errors for path in self._paths())

    def drops(self, item: Item) -> bool:
        """Return whether an item is of a stream that was stopped."""
        return not isinstance(item, Position) and self.has(item.stream)

    def position(self, position: Position) -> Position:
        """Return what of a position may be saved.

        Raises:
            Exception: the error of a stream that was stopped, if its part cannot be told from those of others.
        """
        before, self._newest = self._newest, position
        held: set[str] = set()
        earlier: dict[str, Position] = {}
        for stream, error in [each for path in self._paths() for each in path._errors.items()]:
            assert self._policy is not None
            keys = self._policy.keys_of(stream, position)
            if keys is None:
                raise error
            last = self._last.setdefault(stream, before)
            for key in keys:
                if not self.rewinds or last is None or key not in last.parts:
                    held.add(key)
                elif key not in earlier or last.number < earlier[key].number:
                    earlier[key] = last
        if not held and not earlier:
            return position
        parts = {**position.parts, **{key: last.parts[key] for key, last in earlier.items()}} if earlier else None
        withheld = position.withheld | held
        return msgspec.structs.replace(position, parts=parts or position.parts, withheld=withheld)

    def _paths(self) -> Iterator[StoppedStreams]:
        path: StoppedStreams | None = self
        while path is not None:
            yield path
            path = path._stem
