"""A project for tests of batch pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.batch import BatchProject


@pytest.fixture
def project(tmp_path: Path) -> Iterator[BatchProject]:
    """A project whose pipeline `p` has no blocks yet; what it leaves running is ended after the test."""
    made = BatchProject(tmp_path / "shop")
    yield made
    made.close()
