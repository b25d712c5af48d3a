"""Refuses a stream that the catalog does not declare where several processes of its tap send it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from streamline.errors import StreamlineError
from streamline.flow.items import Item, Position, Schema
from streamline.flow.protocols import ImmediateStage


class UndeclaredStage(ImmediateStage):
    """Lets only one process send a stream that has no key, or a bookmark of its own, and that no catalog declares.

    Every process may send the same records of such a stream, and a bookmark of one is none of the other.

    Args:
        process: id of the tap process.
        declared: whether the catalog has a stream of this name.
        senders: the processes that have sent each undeclared stream; shared by the processes of a tap.
        start: the bookmarks that the process was started with.
        on_shared: called with a stream whose bookmarks of several processes contradict each other.
    """

    def __init__(
        self,
        process: str,
        *,
        declared: Callable[[str], bool],
        senders: dict[str, set[str]],
        start: Mapping[str, bytes],
        on_shared: Callable[[str], object],
    ) -> None:
        self._process = process
        self._declared = declared
        self._senders = senders
        self._start = start
        self._on_shared = on_shared
        self._sent: set[str] = set()

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`.

        Raises:
            StreamlineError: another process has sent the stream.
        """
        if isinstance(item, Position):
            for stream in self._sent:
                moved = stream in item.parts and item.parts[stream] != self._start.get(stream)
                if moved and len(self._senders[stream]) > 1:
                    self._on_shared(stream)
                    raise self._error(stream, "has a bookmark of its own")
        elif isinstance(item, Schema) and not self._declared(item.stream):
            self._sent.add(item.stream)
            senders = self._senders.setdefault(item.stream, set())
            if not item.key_properties and senders.difference({self._process}):
                raise self._error(item.stream, "has no key")
            senders.add(self._process)
        return [item]

    @staticmethod
    def _error(stream: str, reason: str) -> StreamlineError:
        return StreamlineError(
            f"several processes of the tap send it, but it {reason}, and the catalog does not declare it",
            where=f"stream {stream!r}",
            hint="remove run_in_parallel from the source's streams",
            code="stream.in_several_processes",
        )
