"""A SCHEMA that no target can make a table of stops its stream."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from streamline.errors import StreamlineError
from streamline.flow.items import Schema
from streamline.flow.stages.schema_check import SchemaCheckStage

GOOD = {"properties": {"id": {}, "note": {}}}


@pytest.mark.parametrize(
    ("schema", "keys", "code"),
    [
        (GOOD, ["id"], None),
        (GOOD, [], None),
        ({"properties": {}}, [], None),
        ({"type": "object"}, [], "stream.schema_unusable"),
        ({"properties": [1]}, [], "stream.schema_unusable"),
        ({"properties": {"id": {}, "": {}}}, ["id"], "stream.schema_unusable"),
        (GOOD, ["id", "number"], "stream.schema_unusable"),
    ],
)
def test_a_schema_is_usable(schema: dict[str, Any], keys: list[str], code: str | None) -> None:
    item = Schema("orders", schema, keys)
    stage = SchemaCheckStage(lambda item: item.key_properties or ())
    if code is None:
        assert anyio.run(stage.process, item) == [item]
        return
    with pytest.raises(StreamlineError) as caught:
        anyio.run(stage.process, item)
    assert caught.value.code == code
