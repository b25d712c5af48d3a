"""Each test of the suite runs once with every implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamline.connectors.singer import tap as tap_module
from streamline.connectors.singer import target as target_module
from streamline.flow.protocols import PositionStore
from tests.protocols.cases import SINKS, SOURCES, STORES, SinkCase, SourceCase


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: how processes fare on the others is tested beside them."""
    return "asyncio"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits ten seconds for what ignores TERM."""
    for module in (tap_module, target_module):
        for name in ("TERM_SECONDS", "LINGER_SECONDS"):
            monkeypatch.setattr(module, name, 0.3)


@pytest.fixture(params=SOURCES, ids=lambda case: case.name)
def source_case(request: pytest.FixtureRequest, tmp_path: Path) -> SourceCase:
    folder = tmp_path / "source"
    folder.mkdir()
    case: SourceCase = request.param(folder)
    return case


@pytest.fixture(params=SINKS, ids=lambda case: case.name)
def sink_case(request: pytest.FixtureRequest, tmp_path: Path) -> SinkCase:
    folder = tmp_path / "sink"
    folder.mkdir()
    case: SinkCase = request.param(folder)
    return case


@pytest.fixture(params=STORES)
def position_store(request: pytest.FixtureRequest, tmp_path: Path) -> PositionStore:
    make: Any = STORES[request.param]
    store: PositionStore = make(tmp_path)
    return store
