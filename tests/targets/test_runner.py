"""When the loop of a target makes a flush."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from targets.common import runner
from tests.support.connectors import lines, record, schema, state


class CountingSink:
    """A sink that counts rows and flushes."""

    def __init__(self) -> None:
        self.rows = 0
        self.flushed: list[int] = []

    def schema(self, stream: str, schema: dict[str, Any], key_properties: list[str]) -> None: ...

    def write(self, block: runner.Block) -> None:
        self.rows += len(block.records)

    def activate(self, stream: str, version: int, *, keep_old: bool) -> None: ...

    def flush(self) -> bool:
        self.flushed.append(self.rows)
        return True

    def prepare(self) -> None: ...

    def finish(self) -> None: ...


def test_few_large_rows_are_flushed_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [lines([schema("t", {"id": "integer"})])]
    pieces += [lines([record("t", {"id": n, "x": "x" * 100}), state(n)]) for n in range(6)]
    given = iter(pieces)
    monkeypatch.setattr(runner, "_read", lambda: next(given, b""))
    monkeypatch.setattr(runner, "_is_ready", lambda seconds: True)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    sink = CountingSink()
    runner.Runner(sink, batch_rows=1000, batch_bytes=300, flush_seconds=1000).run()
    assert sink.flushed == [1, 3, 5], "two rows are more than 300 bytes, and so are the SCHEMA and one"
