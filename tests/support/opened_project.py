"""Projects to read in tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from streamline.project.project import Project

MakeProject = Callable[..., Project]


def maker(folder: Path) -> MakeProject:
    """Return a function that writes files (path → text) into a project below `folder` and opens it."""

    def make(settings: str = "name: shop\n", **files: str) -> Project:
        root = folder / "shop"
        root.mkdir(exist_ok=True)
        (root / "streamline.yaml").write_text(settings)
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Project.open(root)

    return make
