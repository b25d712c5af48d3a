"""Fixtures of the tests of SQL blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.blocks.sql.workshop import SqlProject


@pytest.fixture
def shop(tmp_path: Path) -> SqlProject:
    """An empty project."""
    return SqlProject(tmp_path / "shop")
