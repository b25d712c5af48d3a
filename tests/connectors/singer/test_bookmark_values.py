"""Which value of a bookmark may take the place of another."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from streamline.connectors.singer.bookmark_values import is_alike, unlike_member


@pytest.mark.parametrize(
    ("old", "new", "alike"),
    [
        (None, 5, True),
        ("2024-01-01", None, True),
        (5, Decimal("7.5"), True),
        (5, "5", False),
        (5, True, False),
        (False, True, True),
        ("2024-01-01", "2025-01-01T00:00:00Z", True),
        ("2024-01-01", "1700000000", True),
        ("2024-01-01", "soon", False),
        ("abc", "soon", True),
        ({"a": 1}, {"b": 2}, True),
        ({"a": 1}, [1], False),
    ],
)
def test_a_value_is_replaced_by_one_of_its_kind(old: Any, new: Any, alike: bool) -> None:
    assert is_alike(old, new) is alike


def test_the_member_that_is_of_another_kind_is_named() -> None:
    assert unlike_member({"a": 1, "b": 2, "c": 3}, {"a": 4, "b": "x", "d": []}) == "b"
    assert unlike_member({"a": 1}, {"a": 2, "b": "x"}) is None
    assert unlike_member([1], {"a": 1}) is unlike_member({"a": 1}, 5) is None
