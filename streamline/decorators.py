"""The decorators of block files: each marks a function or class with its kind.

The decorated function is returned unchanged, so that files can import it and tests can call it. All decorators work
with and without parentheses (`@transformer`, `@transformer()`); `callback` takes the statuses to be called for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, overload

import msgspec

T = TypeVar("T", bound=Callable[..., Any])

MARK = "__streamline_block__"


class Mark(msgspec.Struct, frozen=True):
    """A decorator's name and arguments."""

    kind: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}


class Decorator(Protocol):
    """A decorator with or without parentheses."""

    @overload
    def __call__(self, function: T, /) -> T: ...
    @overload
    def __call__(self, *args: Any, **kwargs: Any) -> Callable[[T], T]: ...


def marks_of(value: Any) -> tuple[Mark, ...]:
    """Return the marks of a function or class, in the order in which they were applied."""
    # `vars`, not `getattr`: a subclass does not inherit its parent's marks.
    marks = vars(value).get(MARK, ()) if hasattr(value, "__dict__") else ()
    return marks if isinstance(marks, tuple) else ()


NAMES: dict[str, Decorator] = {}
"""All decorators by name. They are injected into block files."""

LEGACY: dict[str, Decorator] = {}
"""Decorators of older Mage files: `on_success` is `callback('success')`. They are injected too."""


def _decorator(kind: str, names: dict[str, Decorator] = NAMES) -> Decorator:
    def decorate(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and callable(args[0]):
            return _mark(args[0], Mark(kind))
        return lambda function: _mark(function, Mark(kind, args, kwargs))

    decorate.__name__ = decorate.__qualname__ = kind
    decorate.__doc__ = f"Mark a function or class as `{kind}`."
    names[kind] = decorate
    return decorate


def _mark(function: T, mark: Mark) -> T:
    setattr(function, MARK, (*marks_of(function), mark))
    marked = _marked.get()
    if marked is not None:
        marked.append(function)
    return function


_marked: ContextVar[list[Any] | None] = ContextVar("marked", default=None)


@contextmanager
def collecting() -> Iterator[list[Any]]:
    """Collect the functions and classes that are marked inside the `with` block, in order.

    The namespace of a file keeps only the last of two functions with the same name; the list has both.
    """
    marked: list[Any] = []
    token = _marked.set(marked)
    try:
        yield marked
    finally:
        _marked.reset(token)


data_loader = _decorator("data_loader")
transformer = _decorator("transformer")
data_exporter = _decorator("data_exporter")
sensor = _decorator("sensor")
custom = _decorator("custom")
test = _decorator("test")
callback = _decorator("callback")
condition = _decorator("condition")
data_integration_source = _decorator("data_integration_source")
data_integration_destination = _decorator("data_integration_destination")
data_integration_config = _decorator("data_integration_config")
data_integration_selected_streams = _decorator("data_integration_selected_streams")
data_integration_catalog = _decorator("data_integration_catalog")
streaming_source = _decorator("streaming_source")
streaming_sink = _decorator("streaming_sink")
window = _decorator("window")

on_success = _decorator("on_success", LEGACY)
on_failure = _decorator("on_failure", LEGACY)
preprocesser = _decorator("preprocesser", LEGACY)

CALLBACKS = ("callback", "on_success", "on_failure")
"""The decorators of callbacks."""

STATUSES = ("success", "failure", "cancelled")
"""The statuses that a callback can be called for; the default of `@callback` is success."""


def decorator_of(block_type: str) -> str:
    """Return the name of the decorator for a block type."""
    return "condition" if block_type == "conditional" else block_type


__all__ = [
    *NAMES,
    *LEGACY,
    "CALLBACKS",
    "LEGACY",
    "MARK",
    "NAMES",
    "STATUSES",
    "Mark",
    "collecting",
    "decorator_of",
    "marks_of",
]
