"""Finds the items of a batch that something fails on, by trying halves of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


def bisect(
    items: Sequence[T], error: E, run: Callable[[Sequence[T]], E | None], single: Callable[[T, E], None]
) -> None:
    """Try halves of items that failed, in order, down to single ones.

    Args:
        items: all of them failed together, with `error`.
        run: tries some of them; returns the error that they failed with.
        single: called with each item that failed alone.
    """
    if len(items) < 2:
        for item in items:
            single(item, error)
        return
    half = len(items) // 2
    for part in (items[:half], items[half:]):
        failure = run(part)
        if failure is not None:
            bisect(part, failure, run, single)
