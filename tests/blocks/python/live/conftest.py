"""Fixtures for tests of transformer blocks in a live pipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.blocks.python.live.kitchen import Kitchen


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    """Makes stages of a block's code."""
    return Kitchen(tmp_path)
