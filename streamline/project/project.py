"""A project: its folder and its settings in streamline.yaml."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.errors import ConfigError
from streamline.project.entries import PluginEntry, read_entry
from streamline.project.suggest import suggestion, words
from streamline.project.yamlfile import YamlFile, load_yaml, read_text

if TYPE_CHECKING:
    from streamline.project.render import Renderer
    from streamline.project.secrets import Secrets

PROJECT_FILE = "streamline.yaml"
MAGE_PROJECT_FILE = "metadata.yaml"
WORK_DIR = ".streamline"
FOREIGN_VARIABLE = "STREAMLINE_ALLOW_FOREIGN_PROJECT"
"""Set to 1: use a project in a parent folder that belongs to another user."""

DEFAULT_STATE = "sqlite:///.streamline/state.db"

_KNOWN = words(
    "name description plugins state executor variables variables_dir features dynamic_blocks retry_config "
    "concurrency_config compat"
)
# Keys of Mage's project metadata.yaml, which are ignored without a warning.
_MAGE_KNOWN = _KNOWN | words(
    "project_type project_uuid remote_variables_dir variables_retention_period help_improve_mage emr_config "
    "spark_config notification_config openai_api_key ai_config ldap_config s3_config queue_config pipelines deny_list "
    "logging_config state_file workspace_config projects active_projects cache_enabled kernels "
    "azure_container_instance_config ecs_config gcp_cloud_run_config k8s_executor_config user_id "
    "standardize_dbt_naming execution_framework"
)


class Project:
    """A project. Templates in its settings are rendered when they are read.

    Args:
        root: the project's folder.
        yaml: streamline.yaml, or the metadata.yaml of a Mage project.

    Attributes:
        mage: where Mage reads a pipeline differently, read it as Mage does: the settings are in Mage's metadata.yaml,
            or have `compat: mage`.
    """

    def __init__(self, root: Path, yaml: YamlFile) -> None:
        self.root = root
        self.yaml = yaml
        self.warnings: list[str] = list(yaml.duplicates)
        settings = yaml.mapping()
        if yaml.path.name == PROJECT_FILE:
            yaml.refuse_unknown(_KNOWN)
        else:
            unknown = sorted(set(settings) - _MAGE_KNOWN)
            if unknown:
                self.warnings.append(f"{yaml.shown}: unknown keys are ignored: {', '.join(unknown)}")
        if settings.get("compat") not in (None, "mage"):
            yaml.fail("compat must be mage", ("compat",), hint="remove it, or write mage", code="setting.invalid")
        self.mage = yaml.path.name != PROJECT_FILE or settings.get("compat") == "mage"
        for key in ("name", "description", "state", "executor", "variables_dir"):
            value = settings.get(key)
            if value is not None and not isinstance(value, str):
                yaml.fail(f"{key} must be text", (key,), hint="put it in quotes", code="setting.invalid")
        self.name: str = settings.get("name") or root.name
        self.variables: dict[str, Any] = yaml.mapping(("variables",))
        self.work_dir = root / WORK_DIR
        self._dotenv: Mapping[str, str] = {}
        self.plugins: dict[str, PluginEntry] = {
            name: read_entry(yaml, name, entry, rendered=False) for name, entry in yaml.mapping(("plugins",)).items()
        }

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """Return the project that contains the folder `start` (by default the current folder).

        Raises:
            ConfigError: neither the folder nor a parent is a project, the project's file is invalid, or it is in a
                parent and belongs to another user.
        """
        here = (start or Path.cwd()).absolute()
        for folder in (here, *here.parents):
            path = project_file(folder)
            if path is not None:
                if folder != here:
                    _refuse_foreign(folder, here)
                return cls._at(path)
        raise ConfigError(
            "not inside a project: no streamline.yaml in this folder or above",
            where=str(here),
            hint="cd into a project, add --project DIR, or create a project: streamline init DIR",
            code="project.not_found",
        )

    @classmethod
    def open(cls, folder: Path) -> Project:
        """Return the project in `folder`.

        Raises:
            ConfigError: the folder is not a project, or the project's file is invalid.
        """
        root = folder.absolute()
        path = project_file(root)
        if path is None:
            raise ConfigError(
                "not a project: the folder has no streamline.yaml" if root.is_dir() else "folder not found",
                where=str(folder),
                hint=f"to create a project: streamline init {folder}",
                code="project.not_found",
            )
        return cls._at(path)

    @classmethod
    def _at(cls, path: Path) -> Project:
        text = None if path.is_file() else ""
        project = cls(
            path.parent, load_yaml(path, text=text, shown=path.name, allow_duplicates=path.name == MAGE_PROJECT_FILE)
        )
        project._read_dotenv(path)
        return project

    def _read_dotenv(self, project_file: Path) -> None:
        from streamline.project.dotenv import FILE, load_dotenv

        files = [path for path in (self.root / FILE, project_file) if path.is_file()]
        if all(owner_of(path) in (os.geteuid(), 0) for path in files) or os.environ.get(FOREIGN_VARIABLE) == "1":
            self._dotenv = load_dotenv(self.root)
        elif (self.root / FILE).is_file():
            self.warnings.append(
                f"{FILE} is not read: the project belongs to another user; if you trust its owner, set "
                f"{FOREIGN_VARIABLE}=1"
            )

    @property
    def state_url(self) -> str:
        """The URL of the state store, rendered."""
        return str(self._setting("state") or DEFAULT_STATE)

    @property
    def executor(self) -> str:
        """The executor of the blocks, rendered; the default is `local`."""
        return str(self._setting("executor") or "local")

    @functools.cached_property
    def secrets(self) -> Secrets:
        """The project's secrets, with the masker that the whole process shares."""
        from streamline.project.secrets import Secrets

        secrets = Secrets(self.work_dir)
        secrets.masker.add_config(self._dotenv)
        return secrets

    @functools.cached_property
    def renderer(self) -> Renderer:
        """The renderer of the project's settings: it knows variables and secrets, but no block outputs."""
        from streamline.project.render import Renderer

        return Renderer(self, self.variables, self.secrets)

    def plugin(self, name: str) -> PluginEntry:
        """Return the rendered entry of a declared plugin.

        Raises:
            ConfigError: the plugin is not declared, or a template in its entry fails.
        """
        if name not in self.plugins:
            raise ConfigError(
                f"the plugin '{name}' is not declared",
                where=self.yaml.shown,
                hint=suggestion(name, self.plugins),
                code="plugin.unknown",
            )
        path = ("plugins", name)
        raw = self.yaml.mapping(("plugins",))[name]
        return read_entry(self.yaml, name, self.renderer.render(raw, self.yaml.where, path), rendered=True)

    def pipelines(self) -> list[str]:
        """Return the names of the project's pipelines, sorted."""
        folder = self.root / "pipelines"
        if not folder.is_dir():
            return []
        return sorted(path.parent.name for path in folder.glob("*/metadata.yaml") if path.is_file())

    def ensure_work_dir(self) -> Path:
        """Create `.streamline/` if needed, readable by the owner only (mode 0700).

        Raises:
            ConfigError: `.streamline` exists and is not a folder.
        """
        try:
            self.work_dir.mkdir(mode=0o700, exist_ok=True)
        except FileExistsError:
            raise ConfigError(
                "is not a folder; state, stored outputs and logs are kept there",
                where=str(self.work_dir),
                hint="move or delete the file; the folder is created when needed",
                code="project.work_folder_invalid",
            ) from None
        if self.work_dir.stat().st_mode & 0o077:
            self.work_dir.chmod(0o700)
        return self.work_dir

    def path(self, *parts: str) -> Path:
        """Return a path; relative paths start at the project's folder."""
        return self.root.joinpath(*(os.path.expanduser(part) for part in parts))  # noqa: PTH111

    def shown(self, path: Path) -> str:
        """Return a path for messages: relative to the project if it is inside."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def _setting(self, key: str) -> Any:
        value = self.yaml.mapping().get(key)
        if isinstance(value, str) and "{" in value:
            value = self.renderer.render(value, self.yaml.where, (key,))
            if not isinstance(value, str):
                self.yaml.fail(
                    f"{key} must be text, but it renders to {type(value).__name__}", (key,), code="setting.invalid"
                )
        return value


def project_file(folder: Path) -> Path | None:
    """Return the project file of `folder`: streamline.yaml, or a Mage project's metadata.yaml; None: not a project.

    A Mage project's may be missing, if there are io_config.yaml and pipelines/.
    """
    own = folder / PROJECT_FILE
    if own.is_file():
        return own
    mage = folder / MAGE_PROJECT_FILE
    # A pipeline's metadata.yaml has the same name, but is in pipelines/<p>/.
    if folder.parent.name == "pipelines":
        return None
    signs = ((folder / "pipelines").is_dir(), (folder / "io_config.yaml").is_file())
    if all(signs) or (any(signs) and mage.is_file()):
        return mage
    return (
        mage
        if mage.is_file() and _has_key(mage, ("project_type:", "project_uuid:", "variables_dir:", "features:"))
        else None
    )


def _refuse_foreign(folder: Path, start: Path) -> None:
    """Refuse a project that another user made in a folder above, where everybody may write: it can start programs."""
    trusted = (os.geteuid(), 0, owner_of(start))
    parts = [folder / name for name in (PROJECT_FILE, MAGE_PROJECT_FILE, "io_config.yaml", "pipelines", WORK_DIR)]
    foreign = next((path for path in parts if path.exists() and owner_of(path) not in trusted), None)
    if foreign is None or os.environ.get(FOREIGN_VARIABLE) == "1":
        return
    raise ConfigError(
        "the project in this parent folder belongs to another user",
        where=str(foreign),
        hint=f"cd into a project of your own; or, if you trust its owner, set {FOREIGN_VARIABLE}=1 or name it with "
        "--project",
        code="project.foreign_owner",
    )


def owner_of(path: Path) -> int:
    """Return the user id of a file's owner."""
    return path.stat().st_uid


def _has_key(path: Path, keys: Iterable[str]) -> bool:
    text = read_text(path)
    return any(line.startswith(key) for line in text.splitlines() for key in keys)
