"""Decorators mark functions and leave them as they are."""

from __future__ import annotations

import pytest

from streamline import decorators
from streamline.decorators import LEGACY, NAMES, Mark, collecting, marks_of


@pytest.mark.parametrize("name", [*NAMES, *LEGACY])
def test_every_name_works_bare_and_called(name: str) -> None:
    decorate = getattr(decorators, name)

    def function(value: int) -> int:
        return value + 1

    def other(value: int) -> int:
        return value + 2

    assert decorate(function) is function
    assert decorate("success", retries=2)(other) is other
    assert (function(1), other(1)) == (2, 3)
    assert marks_of(function) == (Mark(name),)
    assert marks_of(other) == (Mark(name, ("success",), {"retries": 2}),)


def test_a_function_may_bear_several_marks_and_a_class_does_not_inherit_them() -> None:
    @decorators.test
    @decorators.transformer
    def both() -> None: ...

    @decorators.streaming_source
    class Source: ...

    class Derived(Source): ...

    assert [mark.kind for mark in marks_of(both)] == ["transformer", "test"]
    assert [mark.kind for mark in marks_of(Source)] == ["streaming_source"]
    assert marks_of(Derived) == ()


def test_what_is_marked_meanwhile_is_gathered_also_what_loses_its_name() -> None:
    def check() -> int:
        return 1

    with collecting() as marked:
        decorators.test(check)
        check = decorators.test()(lambda: 2)

    decorators.test(lambda: 3)
    assert [each() for each in marked] == [1, 2]
