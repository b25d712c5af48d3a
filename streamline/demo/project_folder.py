"""Create the demo project in a new folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from streamline.demo import shop
from streamline.errors import ConfigError

TEMPLATE = Path(__file__).with_name("project")
STREAMING = Path(__file__).with_name("streaming_project")
GITIGNORE = ".streamline/\n*.db\n*.duckdb\n"


def make_project(root: Path) -> None:
    """Write the project and its shop database. Raises as `copy_project` does."""
    copy_project(TEMPLATE, root)
    shutil.copyfile(shop.__file__, root / "shop.py")
    shop.create(root / shop.DATABASE)


def copy_project(template: Path, root: Path) -> None:
    """Write a project.

    Raises:
        ConfigError: `root` is a file, or a folder with something in it.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError(
            "the demo makes a fresh folder, and this one is not empty",
            where=str(root),
            hint="name another one: streamline demo DIR; or delete this one",
            code="project.exists",
        )
    shutil.copytree(template, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".gitignore").write_text(GITIGNORE, encoding="utf-8")
