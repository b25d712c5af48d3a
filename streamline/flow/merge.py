"""Joins the paths of one source that lead into the same sink."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streamline.flow.items import ActivateVersion, Item, Position, Schema


class Merge:
    """Selects what one sink is sent of several paths of one source.

    Records pass as they come. A `Position` and an `ActivateVersion` count for the records before them on all paths, so
    they pass when the last path has reached them. Paths may give a stream different SCHEMAs: one is sent again when
    records of its path follow those of another.

    Args:
        paths: number of paths.
    """

    def __init__(self, paths: int) -> None:
        self._paths = paths
        self._reached: dict[int, Position] = {}
        self._sent = 0
        self._schemas: dict[tuple[int, str], Schema] = {}
        self._current: dict[str, Schema] = {}
        self._activated: dict[tuple[str, int], set[int]] = {}

    def take(self, path: int, items: Sequence[Item]) -> list[Item]:
        """Return what the sink is sent when a path (counted from 0) has come to `items`."""
        sent: list[Item] = []
        for item in items:
            if isinstance(item, Position):
                self._reached[path] = item
                sent += self._next(finished=False)
            elif isinstance(item, Schema):
                self._schemas[path, item.stream] = self._current[item.stream] = item
                sent.append(item)
            elif isinstance(item, ActivateVersion):
                if self._is_last(path, item):
                    sent.append(item)
            else:
                schema = self._schemas.get((path, item.stream))
                if schema is not None and schema != self._current[item.stream]:
                    self._current[item.stream] = schema
                    sent.append(schema)
                sent.append(item)
        return sent

    def finish(self) -> list[Item]:
        """Return the last position, after all paths have finished: none of them holds anything back."""
        return self._next(finished=True)

    def _next(self, *, finished: bool) -> list[Item]:
        """Return the position that all paths have reached, if it is new. What one of them withholds is withheld."""
        reached = self._reached.values()
        if not reached or (len(reached) < self._paths and not finished):
            return []
        choose = max if finished else min
        position = choose(reached, key=lambda each: each.number)
        if position.number <= self._sent:
            return []
        self._sent = position.number
        withheld = frozenset[str]().union(*(each.withheld for each in reached))
        return [position if withheld == position.withheld else msgspec.structs.replace(position, withheld=withheld)]

    def _is_last(self, path: int, item: ActivateVersion) -> bool:
        activation = item.stream, item.version
        reached = self._activated.setdefault(activation, set())
        reached.add(path)
        if len(reached) < self._paths:
            return False
        del self._activated[activation]
        return True
