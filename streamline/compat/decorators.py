"""Decorators of Mage that Streamline's own do not have.

Those for charts and extensions return what they are given, as they do there when they are imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def collect_decorated_objs(decorated_objs: list[Any]) -> Callable[[T], T]:
    """A decorator that appends what it marks to the list."""

    def collect(marked: T) -> T:
        decorated_objs.append(marked)
        return marked

    return collect


def _unmarked(marked: T) -> T:
    return marked


extension = data_source = preprocesser_functions = _unmarked
x = y = xy = columns = configuration = render = _unmarked
