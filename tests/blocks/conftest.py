"""What tests of blocks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.blocks.python.python_calls import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An empty project."""
    return Workshop(tmp_path / "workshop")
