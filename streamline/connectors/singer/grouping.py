"""Which streams of a source share a tap process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from streamline.connectors.singer.catalog import CatalogStream
from streamline.connectors.singer.selection import SelectedStream

SHARED = "*"
"""The id of the group of streams that did not ask for a process of their own."""


class StreamGroup(msgspec.Struct, frozen=True):
    """Streams that one tap process reads.

    Args:
        id: unique in its source: the first stream's id, or `*` for the shared group.
        streams: in the catalog's order.
        parallel: it has a process of its own because a stream in it has `run_in_parallel`.
    """

    id: str
    streams: tuple[SelectedStream, ...]
    parallel: bool


def group_streams(
    streams: Sequence[SelectedStream], *, shardable: bool = True, parents: Mapping[str, str] | None = None
) -> list[StreamGroup]:
    """Group streams, one tap process each; `max_parallel` limits how many run at once.

    Streams with `run_in_parallel` get a process of their own, the others share one. A child stays with its parent
    and its siblings, whose requests it shares; LOG_BASED streams stay together, because they share one log.

    Args:
        streams: the selected streams, in order.
        shardable: False for a tap whose state is not kept apart by stream under `bookmarks`: it is never sharded.
        parents: parents of streams that are not selected themselves (id → parent's id), for longer lines of descent.
    """
    if not streams:
        return []
    if not shardable:
        return [StreamGroup(SHARED, tuple(streams), parallel=False)]
    families = _Families()
    for child, parent in (parents or {}).items():
        families.join(child, parent)
    log: str | None = None
    for stream in streams:
        if stream.parent is not None:
            families.join(stream.id, stream.parent)
        if stream.replication_method == "LOG_BASED":
            families.join(stream.id, log if log is not None else stream.id)
            log = stream.id
    together: dict[str, list[SelectedStream]] = {}
    for stream in streams:
        together.setdefault(families.head(stream.id), []).append(stream)
    if len(together) == 1:
        return [StreamGroup(SHARED, tuple(streams), parallel=False)]
    alone = [family for family in together.values() if any(stream.run_in_parallel for stream in family)]
    taken = {stream.id for family in alone for stream in family}
    shared = tuple(stream for stream in streams if stream.id not in taken)
    groups = [StreamGroup(family[0].id, tuple(family), parallel=True) for family in alone]
    return [StreamGroup(SHARED, shared, parallel=False), *groups] if shared else groups


def owner(
    streams: Sequence[SelectedStream], others: Iterable[SelectedStream], catalog: Iterable[CatalogStream]
) -> Callable[[str], bool]:
    """Return a function that tells whether a bookmark belongs to one tap process.

    Those of its own streams do, under their ids or names, and those of no stream that is known. Without streams (the
    tap has no catalog) all do.

    Args:
        others: the streams of the tap's other processes.
        catalog: all streams that the tap offers.
    """
    if not streams:
        return lambda key: True
    offered = list(catalog)
    ids = {stream.id for stream in offered}
    own = {stream.id for stream in streams}
    own |= {name for stream in streams for name in (stream.stream, *stream.names) if name not in ids}
    foreign = ids | {name for stream in others for name in (stream.id, stream.stream, *stream.names)}
    foreign |= {name for stream in offered for name in stream.names}
    return lambda key: key in own or key not in foreign


class _Families:
    """Sets of streams that belong together (union–find)."""

    def __init__(self) -> None:
        self._heads: dict[str, str] = {}

    def head(self, stream: str) -> str:
        while (above := self._heads.get(stream, stream)) != stream:
            stream = above
        return stream

    def join(self, stream: str, other: str) -> None:
        self._heads[self.head(stream)] = self.head(other)
