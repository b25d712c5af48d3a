"""Pools that are closed after their test, and that leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes.pools import Bench

MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(size: int = 1, **more: Any) -> Bench:
        bench = Bench(tmp_path, size, **more)
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.pool.close()
    assert [pid for bench in made for pid in bench.processes()] == []


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()
