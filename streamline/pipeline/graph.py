"""Topological order, cycles and reachability in a graph of blocks. The graph maps each block to its upstream blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Upstream = Mapping[str, Sequence[str]]


def find_cycle(upstream: Upstream) -> list[str] | None:
    """Return the blocks of a cycle in data flow order, the first repeated at the end; None if there is no cycle.

    The cycle starts with its block that comes first in `upstream`.
    """
    position = {node: index for index, node in enumerate(upstream)}
    done: set[str] = set()
    for start in upstream:
        if start in done:
            continue
        # Depth first without recursion: a pipeline may be a chain of thousands of blocks.
        trail: list[str] = []
        on_trail: set[str] = set()
        stack: list[tuple[str, int]] = [(start, 0)]
        while stack:
            node, index = stack.pop()
            if index == 0:
                if node in done:
                    continue
                if node in on_trail:
                    cycle = trail[: trail.index(node) - 1 if trail.index(node) else None : -1]
                    first = min(range(len(cycle)), key=lambda index: position[cycle[index]])
                    return [*cycle[first:], *cycle[: first + 1]]
                trail.append(node)
                on_trail.add(node)
            parents = upstream.get(node, ())
            if index < len(parents):
                stack.append((node, index + 1))
                stack.append((parents[index], 0))
            else:
                done.add(node)
                on_trail.discard(node)
                trail.pop()
    return None


def topological_order(upstream: Upstream) -> list[str]:
    """Return every block after all of its upstream blocks, otherwise in the given order.

    Raises:
        ValueError: there is a cycle.
    """
    pending = {node: len(set(parents)) for node, parents in upstream.items()}
    children = downstream_of(upstream)
    order: list[str] = []
    ready = [node for node, count in pending.items() if count == 0]
    position = {node: index for index, node in enumerate(upstream)}
    import heapq

    heap = [position[node] for node in ready]
    names = list(upstream)
    heapq.heapify(heap)
    while heap:
        node = names[heapq.heappop(heap)]
        order.append(node)
        for child in children[node]:
            pending[child] -= 1
            if pending[child] == 0:
                heapq.heappush(heap, position[child])
    if len(order) != len(pending):
        raise ValueError("the graph has a cycle")
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
