"""The items that something fails on are found one by one, and the others run in order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.flow.bisection import bisect


@given(
    st.integers(1, 60).flatmap(lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1), min_size=1)))
)
def test_all_items_are_run_or_found_alone_in_order(case: tuple[int, set[int]]) -> None:
    count, bad = case
    done: list[int] = []
    alone: list[int] = []

    def run(items: Sequence[int]) -> ValueError | None:
        if bad.intersection(items):
            return ValueError()
        done.extend(items)
        return None

    bisect(range(count), ValueError(), run, lambda item, error: alone.append(item))
    assert alone == sorted(bad)
    assert done == [item for item in range(count) if item not in bad]


def test_what_single_raises_ends_it() -> None:
    def refuse(item: int, error: ValueError) -> None:
        raise error

    with pytest.raises(ValueError, match="second"):
        bisect([1, 2], ValueError("first"), lambda items: ValueError("second"), refuse)
