"""Topological order, cycles and reachability in a graph of blocks. The graph maps each block to its upstream blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush

Upstream = Mapping[str, Sequence[str]]


def find_cycle(upstream: Upstream) -> list[str] | None:
    """Return the blocks of a cycle in data flow order, the first repeated at the end; None if there is no cycle.

    The cycle starts with its block that comes first in `upstream`.
    """
    try:
        TopologicalSorter(upstream).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1][1:]
        first = cycle.index(next(node for node in upstream if node in cycle))
        return [*cycle[first:], *cycle[: first + 1]]
    return None


def topological_order(upstream: Upstream) -> list[str]:
    """Return every block after all of its upstream blocks, otherwise in the given order.

    Raises:
        ValueError: there is a cycle.
    """
    position = {node: index for index, node in enumerate(upstream)}
    sorter = TopologicalSorter(upstream)
    sorter.prepare()
    ready: list[tuple[int, str]] = []
    order: list[str] = []
    while sorter.is_active():
        for node in sorter.get_ready():
            heappush(ready, (position[node], node))
        _, node = heappop(ready)
        order.append(node)
        sorter.done(node)
    return order


def downstream_of(upstream: Upstream) -> dict[str, list[str]]:
    """Return each block's downstream blocks, in the given order."""
    children: dict[str, list[str]] = {node: [] for node in upstream}
    for node, parents in upstream.items():
        for parent in dict.fromkeys(parents):
            children[parent].append(node)
    return children


def reachable(start: Iterable[str], edges: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the nodes reachable from `start` along `edges`, without `start` unless a cycle leads back to it."""
    reached: set[str] = set()
    stack = [child for node in start for child in edges.get(node, ())]
    while stack:
        node = stack.pop()
        if node not in reached:
            reached.add(node)
            stack.extend(edges.get(node, ()))
    return reached
