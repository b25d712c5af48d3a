"""Fixtures for processes that are ended."""

from __future__ import annotations

import pytest

from streamline.connectors.singer import target as target_module


@pytest.fixture
def impatient_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits ten seconds for a target that ignores TERM."""
    for name in ("TERM_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(target_module, name, 0.5)
