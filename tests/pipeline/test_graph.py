"""Order and reach in graphs of blocks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.pipeline.graph import downstream_of, find_cycle, reachable, topological_order

names = [f"n{number}" for number in range(8)]
graphs = st.dictionaries(st.sampled_from(names), st.lists(st.sampled_from(names), unique=True)).map(
    lambda drawn: {name: drawn.get(name, []) for name in names}
)


@given(graphs)
def test_every_block_comes_after_its_upstream_unless_there_is_a_cycle(upstream: dict[str, list[str]]) -> None:
    cycle = find_cycle(upstream)
    if cycle is None:
        order = topological_order(upstream)
        assert sorted(order) == names
        assert all(order.index(parent) < order.index(node) for node in names for parent in upstream[node])
    else:
        assert cycle[0] == cycle[-1]
        assert all(parent in upstream[child] for parent, child in pairwise(cycle))
        with pytest.raises(ValueError, match="cycle"):
            topological_order(upstream)


@given(graphs)
def test_reach_is_closed(upstream: dict[str, list[str]]) -> None:
    children = downstream_of(upstream)
    found = reachable(["n0"], children)
    assert set(children["n0"]) <= found
    assert all(set(children[node]) <= found for node in found)


def test_a_long_chain_is_no_trouble() -> None:
    chain = {f"{n}": [f"{n - 1}"] if n else [] for n in range(20_000)}
    assert find_cycle(chain) is None
    assert topological_order(chain)[-1] == "19999"


def test_among_equals_the_given_order_holds() -> None:
    assert topological_order({"c": [], "a": [], "b": ["c"]}) == ["c", "a", "b"]
