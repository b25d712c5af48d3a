"""Projects to read in tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streamline.project.project import Project

MakeProject = Callable[..., Project]


@pytest.fixture
def new_project(tmp_path: Path) -> MakeProject:
    """Writes files (path → text) into a folder and opens it as a project."""

    def make(settings: str = "name: shop\n", **files: str) -> Project:
        root = tmp_path / "shop"
        root.mkdir(exist_ok=True)
        (root / "streamline.yaml").write_text(settings)
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Project.open(root)

    return make
