"""Names under which windows stand in the state of their partition, and what all kinds of windows of one have in common.

Names of all windows begin alike, and with a letter for their form. What else the state has is the partition's highest
time, and values that the function has set by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from streamline.blocks.python.messages.keyed_state import BlockState, Changes
from streamline.errors import StreamlineError

OWN = b"\x00u"
"""Begins the names of what the function has set by itself, before the key."""

_META = b"\x00w"
_WINDOWS = b"\x00x"
_JSON = msgspec.json.Encoder()

Closed = tuple[bytes, int, int, Any]
"""Key, start and end of a window that has closed, and what it holds."""

Direct = tuple[int, int, Callable[[bytes, Any], None]]
"""Messages with times from the first to before the second are in one window only, which is open; what adds them."""


class PartitionMeta(msgspec.Struct):
    """What is kept of a partition.

    Args:
        highest: the highest time of its messages, in microseconds since 1970.
        number: of the newest entry that was added for messages.
    """

    highest: int | None = None
    number: int = 0


_META_DECODER = msgspec.json.Decoder(PartitionMeta)


class PartitionWindows(ABC):
    """The open windows of a partition. Changes are gathered in memory, and put into the state by `flush`.

    Args:
        form: letter of the kind of windows and of what they hold.
    """

    def __init__(self, state: BlockState, form: bytes, block: str) -> None:
        self.state = state
        self.place = state.place
        self.tag = _WINDOWS + form
        self.meta = PartitionMeta()
        self.changes: Changes = {}
        """To be put into the state by the next flush."""
        raw = state.read(_META)
        if raw is not None:
            self.meta = _META_DECODER.decode(raw)
        self._kept = raw
        for first, last in ((_WINDOWS, self.tag), (after(self.tag), after(_WINDOWS))):
            if any(True for _ in state.restored(first, last)):
                raise StreamlineError(
                    f"the state of {self.place} has open windows of another form: @window was changed to or from "
                    "sessions, or fold was added or removed",
                    where=block,
                    hint="undo the change; or give the block another name, or delete its state topic: the open windows "
                    "are then lost, unless the positions are reset as well",
                    code="window.form_changed",
                )

    @abstractmethod
    def add(self, key: bytes, at: int, message: Any, watermark: int | None) -> bool:
        """Add a message to the windows of its time; False: all of them are closed.

        Args:
            message: where windows keep messages: as `encoded_message` has written it.
        """

    @property
    def direct(self) -> Direct:
        """How messages of the newest time are added without `add`, until a window closes or `add` is called."""
        return NONE_DIRECT

    @property
    @abstractmethod
    def earliest(self) -> int | None:
        """No open window ends before this; None: there is none."""

    @abstractmethod
    def closed(self, watermark: int) -> Iterator[Closed]:
        """Yield the windows that end no later than the watermark, by their ends, and forget each."""

    @abstractmethod
    def collect(self) -> None:
        """Add to `changes` what has changed in the windows."""

    def flush(self) -> None:
        """See `Index.flush`."""
        self.collect()
        meta = _JSON.encode(self.meta)
        if meta != self._kept:
            self.changes[_META] = self._kept = meta
        if self.changes:
            self.state.put(self.place, self.changes)
            self.changes = {}


def _not_direct(key: bytes, message: Any) -> None:
    raise AssertionError(f"no window takes {message!r} of {key!r}")


NONE_DIRECT: Direct = (0, 0, _not_direct)
"""There is no such window."""


def after(prefix: bytes) -> bytes:
    """Return the first name behind all that begin with a prefix."""
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")


def packed(number: int) -> bytes:
    """Return a number as bytes that sort as numbers do."""
    return (number + (1 << 63)).to_bytes(8, "big")


def unpacked(name: bytes, at: int) -> int:
    """Return the number that `packed` has put at a place in a name, or at its end (-8)."""
    return int.from_bytes(name[at:][:8], "big") - (1 << 63)
