"""What tests of source and destination blocks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.blocks.connector.preparing import Preparing


@pytest.fixture
def shop(tmp_path: Path) -> Preparing:
    """A project with a tap and a target named `shop`."""
    return Preparing(tmp_path / "shop")
