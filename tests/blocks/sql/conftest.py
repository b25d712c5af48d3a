"""Fixtures of the tests of SQL blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.blocks.sql.provider_scenarios")

from tests.blocks.sql.workshop import SqlProject  # noqa: E402


@pytest.fixture
def shop(tmp_path: Path) -> SqlProject:
    """An empty project."""
    return SqlProject(tmp_path / "shop")
