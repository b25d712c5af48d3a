"""The current project: the project of the block that runs in this process, else that of the current folder.

The code of a block may change the working directory before it uses the project (`get_repo_path()`, a secret, a
connection profile), and the secrets that it reads must reach the run's masker.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.project.project import Project

REPO_PATH_VARIABLE = "MAGE_REPO_PATH"
"""The environment variable with the project's folder, as in Mage."""

_current: list[Project] = []


def set_current(project: Project | None) -> Project | None:
    """Set the current project of this process; None: unset it. Return the one before."""
    before = _current[0] if _current else None
    _current[:] = [project] if project is not None else []
    return before


def current_project() -> Project:
    """Return the current project.

    Raises:
        ConfigError: there is no project, or its file is invalid.
    """
    if _current:
        return _current[0]
    from streamline.project.project import Project

    named = os.environ.get(REPO_PATH_VARIABLE)
    return Project.open(Path(named)) if named else Project.find()


def in_mage_project() -> bool:
    """Return whether the current project is read as Mage reads it."""
    try:
        return current_project().mage
    except ConfigError:
        return False


def current_folder() -> Path:
    """Return the folder of the current project without reading its file; outside a project, the current folder."""
    if _current:
        return _current[0].root
    named = os.environ.get(REPO_PATH_VARIABLE)
    if named:
        return Path(named).absolute()
    from streamline.project.project import project_file

    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if project_file(folder) is not None), here)
