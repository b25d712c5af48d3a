"""What the tests of this folder share."""

from __future__ import annotations

from typing import Any

from tests.support.project import Block, tap

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
COLUMNS = {"id": "integer", "text": "string"}


def upto(last: int) -> list[int]:
    """1…last."""
    return list(range(1, last + 1))


def rows_tap(content: dict[str, Any], config: dict[str, Any] | None = None, /, **keys: Any) -> Block:
    """The tap of configured rows. In `content` a stream's value may be a number of made-up rows, or a list of rows."""
    specs = {
        name: spec if isinstance(spec, dict) else {"properties": COLUMNS, "replication_key": "id", "rows": spec}
        for name, spec in content.items()
    }
    return tap("rows", {"streams": specs, **(config or {})}, **{"streams": dict.fromkeys(specs, INCREMENTAL), **keys})
