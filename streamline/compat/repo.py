"""Where the project is, and its secrets, under Mage's names and signatures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from streamline.project.current import REPO_PATH_VARIABLE, current_folder, current_project, set_current
from streamline.project.project import MAGE_PROJECT_FILE, WORK_DIR, Project, project_file


def get_repo_path(*args: Any, absolute_path: bool = True, **kwargs: Any) -> str:
    """The project's folder. The other arguments, which choose among several projects there, are accepted."""
    folder = current_folder()
    return str(folder) if absolute_path else folder.name


def set_repo_path(repo_path: str) -> None:
    """Make another folder the project, for this process and its children."""
    folder = Path(repo_path).absolute()
    os.environ[REPO_PATH_VARIABLE] = str(folder)
    set_current(Project.open(folder) if project_file(folder) is not None else None)


def get_repo_name(repo_path: str | None = None, root_project: bool = False) -> str:
    """The name of the project's folder."""
    return Path(repo_path or get_repo_path()).name


def get_metadata_path(repo_path: str | None = None, root_project: bool = False) -> str:
    """The project's file of settings: streamline.yaml, or a metadata.yaml."""
    folder = Path(repo_path or get_repo_path())
    return str(project_file(folder) or folder / MAGE_PROJECT_FILE)


def get_variables_dir(repo_path: str | None = None, repo_config: Any = None, root_project: bool = False) -> str:
    """The folder of the stored outputs, `.streamline/data`; it is made if it is not there."""
    folder = Path(repo_path or get_repo_path()) / WORK_DIR
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "data").mkdir(mode=0o700, exist_ok=True)
    return str(folder / "data")


def get_data_dir() -> str:
    """`$MAGE_DATA_DIR`, else the folder of the stored outputs."""
    return os.environ.get("MAGE_DATA_DIR") or get_variables_dir()


class RepoConfig:
    """The settings of a project, as attributes; what the file does not set is None.

    Args:
        repo_path: the project's folder; by default the current project's.
        config_dict: settings in place of the file's.
        root_project: accepted and not used.
    """

    def __init__(
        self, repo_path: str | None = None, config_dict: dict[str, Any] | None = None, root_project: bool = False
    ) -> None:
        self.repo_path = repo_path or get_repo_path()
        self.repo_name = Path(self.repo_path).name
        self._settings: dict[str, Any] = dict(
            Project.open(Path(self.repo_path)).yaml.mapping() if config_dict is None else config_dict
        )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], root_project: bool = False) -> RepoConfig:
        """Return the settings of a mapping."""
        return cls(config_dict=config_dict)

    @property
    def variables_dir(self) -> str:
        """The folder of the stored outputs."""
        return get_variables_dir(self.repo_path)

    @property
    def metadata_path(self) -> str:
        """The project's file of settings."""
        return get_metadata_path(self.repo_path)

    def to_dict(self, remote: bool = False) -> dict[str, Any]:
        """Return the settings that are there."""
        return dict(self._settings)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._settings.get(name)


def get_repo_config(
    repo_path: str | None = None, context_data: dict[str, Any] | None = None, root_project: bool = False
) -> RepoConfig:
    """The project's settings."""
    return RepoConfig(repo_path)


def get_project_uuid() -> str | None:
    """`project_uuid` of the project's metadata.yaml, if it says one."""
    uuid = current_project().yaml.mapping().get("project_uuid")
    return None if uuid is None else str(uuid)


def get_secret_value(name: str, *args: Any, suppress_warning: bool = False, **kwargs: Any) -> str | None:
    """A secret of the project; None, with a line that says so, where there is none of that name.

    The other arguments, which choose among Mage's kinds of secrets, are accepted.
    """
    project = current_project()
    value = project.secrets.find(name)
    if value is None and not suppress_warning:
        from streamline.project.secrets import EnvironmentSecrets

        print(
            f"WARNING: Could not find secret value for secret {name}; it is read from "
            f"{EnvironmentSecrets.variable(name)} in the environment or {project.shown(project.secrets.file)}"
        )
    return value
