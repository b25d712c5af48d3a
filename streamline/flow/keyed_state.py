"""What a transformer's keyed state is kept in, as its block sees it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, Protocol


class Place(NamedTuple):
    """A source partition. Its state belongs to whoever owns it."""

    topic: str
    partition: int

    def __str__(self) -> str:
        """Return the key of its part of a position."""
        return f"{self.topic}/{self.partition}"


class StateStore(Protocol):
    """Keeps values by partition and key. One thread uses it, and it may block.

    What is read is what was saved, not what was changed since: the block has that.
    """

    max_bytes: int | None
    """The most bytes that a value may have; None: any number."""

    any_key: bool
    """Whether keys need not be those of messages: this process has all of the state."""

    def start(self) -> None:
        """Get ready, before anything is read.

        Raises:
            StreamlineError: it cannot be used.
        """
        ...

    def restore(self, place: Place) -> None:
        """Make the state of a partition ready that this process owns from now on.

        Raises:
            StreamlineError: it cannot be read.
        """
        ...

    def get(self, place: Place, key: bytes) -> bytes | None:
        """Return a value; None: the key has none."""
        ...

    def range(self, place: Place, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys from `first` to before `last`, in their order, with their values; nothing is saved meanwhile.
        It may be closed early."""
        ...

    def marks(self, places: Collection[Place]) -> Mapping[Place, int]:
        """Return where the logs of partitions stand, before more is written to them; those that are not known are
        left out."""
        ...

    def save(self, place: Place, changes: Mapping[bytes, bytes | None], mark: int | None) -> None:
        """Take changes whose position is saved.

        Args:
            mark: all that is in the log before this has been saved; None: not known.
        """
        ...

    def drop(self, place: Place) -> None:
        """Free what is held of a partition: another process may own it."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...
