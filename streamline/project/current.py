"""The project that code which names none is about: the one whose block runs here, else that of the current folder.

Block files ask for "the project" (`get_repo_path()`, a secret, a connection profile) from wherever they have changed
their working directory to, and secrets that they read have to reach the masker of the run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamline.project.project import Project

REPO_PATH_VARIABLE = "MAGE_REPO_PATH"
"""Names the project in the environment, as Mage reads it."""

_set: list[Project] = []


def set_current(project: Project | None) -> None:
    """Make `project` the one that is meant in this process; None: nobody's any more."""
    _set[:] = [project] if project is not None else []


def current_project() -> Project:
    """The project that is meant.

    Raises:
        ConfigError: there is none, or its file is wrong.
    """
    if _set:
        return _set[0]
    from streamline.project.project import Project

    named = os.environ.get(REPO_PATH_VARIABLE)
    return Project.open(Path(named)) if named else Project.find()


def current_folder() -> Path:
    """The folder of that project, found without reading its file; the current folder where there is no project."""
    if _set:
        return _set[0].root
    named = os.environ.get(REPO_PATH_VARIABLE)
    if named:
        return Path(named).absolute()
    from streamline.project.project import project_file

    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if project_file(folder) is not None), here)
