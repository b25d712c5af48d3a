"""A batch pipeline for tests that run one in their own process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.batch import BatchProject


@pytest.fixture
def project(tmp_path: Path) -> BatchProject:
    """Two blocks, one after the other."""
    made = BatchProject(tmp_path / "shop")
    made.block("a", "@data_loader\ndef load():\n    print('here')\n    return 1\n", type="data_loader")
    made.block("b", "@transformer\ndef b(x):\n    return x + 1\n")
    return made
