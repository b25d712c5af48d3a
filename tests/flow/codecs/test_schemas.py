"""Scales of decimals, as taps write them."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.flow.codecs.schemas import decimal_scale, is_decimal


@pytest.mark.parametrize(
    ("prop", "scale"),
    [
        ({"type": "number", "multipleOf": 0.01}, 2),
        ({"type": "number", "multipleOf": 1e-10}, 10),
        ({"type": "number", "multipleOf": 10}, 0),
        ({"type": "number", "multipleOf": 0}, None),
        ({"type": "number", "multipleOf": True}, None),
        ({"type": "string", "format": "singer.decimal", "scale": 4}, 4),
        ({"type": "string", "format": "singer.decimal", "scale": 0}, 0),
        ({"type": "string", "format": "singer.decimal", "scale": -1}, None),
        ({"type": "string", "format": "singer.decimal", "scale": True}, None),
        ({"type": "string", "x-singer.decimal": {"scale": 3}, "scale": 5}, 3),
        ({"anyOf": [{"type": "null"}, {"type": "number", "multipleOf": 0.1}]}, 1),
        ({"type": "number"}, None),
    ],
)
def test_the_digits_after_the_point(prop: dict[str, Any], scale: int | None) -> None:
    assert decimal_scale(prop) == scale
    assert is_decimal(prop) is (scale is not None or prop["type"] == "string")
