"""Settings for `streamline.io`: a profile of io_config.yaml, the environment, AWS Secrets Manager.

`config['POSTGRES_HOST']` in a block file, a notebook or a plain script. The file is rendered as pipelines render it:
`env_var`, `variables`, `secret` (`mage_secret_var`), `aws_secret_var` and its like, `json_value`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from streamline.errors import ConfigError
from streamline.io.config_keys import ConfigKey, VerboseConfigKey, nested_settings
from streamline.project.current import current_folder
from streamline.project.ioconfig import IO_CONFIG_FILE, Profile, load_profile
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from streamline.project.project import Project
    from streamline.project.render import Renderer

__all__ = [
    "AWSSecretLoader",
    "BaseConfigLoader",
    "ConfigFileLoader",
    "ConfigKey",
    "EnvironmentVariableLoader",
    "SettingMissingError",
    "VerboseConfigKey",
    "conceal",
    "use_renderer",
]

T = TypeVar("T")
_renderer: Renderer | None = None


def use_renderer(renderer: Renderer | None) -> Renderer | None:
    """Render profiles by this from now on, in this process: what runs a block calls it with the run's renderer.

    Returns the one before.

    So `variables('x')` in io_config.yaml is the run's, and secrets that a profile holds are masked in the run's log.
    """
    global _renderer
    before, _renderer = _renderer, renderer
    return before


def conceal(settings: Mapping[str, Any]) -> None:
    """Mask what is secret among settings that a block file gives itself, in the run's log, from now on."""
    if _renderer is not None and _renderer.secrets is not None:
        _renderer.secrets.masker.add_config(settings)


class SettingMissingError(ConfigError, KeyError):
    """A setting that is not there was read. It is a KeyError too, as for any mapping."""

    code = "profile.setting_missing"

    __str__ = ConfigError.__str__


class BaseConfigLoader(Mapping[str, Any]):
    """Settings by name, read-only. `[key]` raises where there is none, `get` gives the default.

    Subclasses define `__getitem__`, `__iter__` and `__len__`. For code written against Mage, whose
    loaders need `contains` and `get` only, those two are enough.
    """

    def contains(self, key: str, **kwargs: Any) -> bool:
        """Return whether there is such a setting."""
        return any(name == key for name in self)

    @overload
    def get(self, key: str, /) -> Any | None: ...
    @overload
    def get(self, key: str, /, default: T) -> Any | T: ...
    def get(self, key: str, /, default: Any = None) -> Any:
        """Return the setting; `default` if there is none. A value that cannot be read (an unset `env_var`) fails."""
        try:
            return self[key]
        except SettingMissingError:
            return default

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.contains(key)

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            raise SettingMissingError(f"there is no setting '{key}'", hint=suggestion(key, self, what="settings"))
        return self.get(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return sum(1 for _ in self)


class ConfigFileLoader(BaseConfigLoader):
    """One profile of an io_config.yaml.

    A profile in the older nested form (`PostgreSQL: {host: …}`) is read by the same flat names (`POSTGRES_HOST`).
    A value is rendered when the file is read, but what it lacks (an unset `env_var`, a secret of a cloud service) is
    an error only when its key is read.

    Args:
        filepath: the file; by default io_config.yaml of the project that the working directory lies in.
        profile: the profile's name.
        config: settings given as they are, in place of a file.

    Raises:
        ConfigError: no such file or profile; the file cannot be rendered or parsed.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str] | None = None,
        profile: str = "default",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.profile = profile
        self.version: Any = None
        self.filepath: Path | None = None
        self._profile: Profile | None = None
        self._values: Mapping[str, Any]
        if config is not None:
            self._values = config
            conceal(config)
        else:
            self.filepath, renderer = _file_and_renderer(filepath)
            self._profile = load_profile(self.filepath, renderer, profile)
            self._values, self.version = self._profile.raw, self._profile.file.mapping().get("version")
        self._nested = _flat_names(self._values)

    @property
    def root(self) -> Path | None:
        """Return where relative paths in the file start: the project around it; None where there is none."""
        project = _project_around(self.filepath.parent) if self.filepath is not None else None
        return project.root if project is not None else None

    @property
    def origin(self) -> str:
        """Return how errors name the profile."""
        if self.filepath is None:
            return "the settings given"
        root = self.root
        shown = self.filepath.relative_to(root) if root is not None else self.filepath
        return f"{shown}, profile '{self.profile}'"

    @property
    def config(self) -> dict[str, Any]:
        """Return the profile as it stands in the file. Every value is read, so whatever is missing is an error."""
        return {key: self[key] for key in self._values}

    def contains(self, key: str, **kwargs: Any) -> bool:
        """Return whether the profile has this setting."""
        return key in self._values or str(key) in self._nested

    def __getitem__(self, key: str) -> Any:
        name = str(key)
        path = (name,) if name in self._values else self._nested.get(name)
        if path is None:
            where = str(self.filepath) if self.filepath is not None else None
            raise SettingMissingError(
                f"the profile '{self.profile}' has no '{name}'", where=where, hint=suggestion(name, self, what="keys")
            )
        if self._profile is not None:
            return self._profile.at(*path)
        value: Any = self._values
        for part in path:
            value = value[part]
        return value

    def __iter__(self) -> Iterator[str]:
        yield from self._values
        yield from (key for key in self._nested if key not in self._values)

    def __repr__(self) -> str:
        return f"ConfigFileLoader({str(self.filepath) if self.filepath else None!r}, {self.profile!r})"


class EnvironmentVariableLoader(BaseConfigLoader):
    """The environment's variables as settings."""

    def contains(self, key: str, **kwargs: Any) -> bool:
        """Return whether the variable is set."""
        return str(key) in os.environ

    def __getitem__(self, key: str) -> str:
        if str(key) not in os.environ:
            raise SettingMissingError(f"the environment variable {key} is not set")
        return os.environ[str(key)]

    def __iter__(self) -> Iterator[str]:
        return iter(os.environ)


class AWSSecretLoader(BaseConfigLoader):
    """Secrets of AWS Secrets Manager as settings, by name or ARN. They cannot be listed.

    Args:
        client: arguments of the client, such as `region_name` and `endpoint_url`.

    Raises:
        ConfigError: no client library (extra `s3`).
    """

    def __init__(self, **client: Any) -> None:
        from streamline.project.extras import need

        session = need("botocore.session", "s3", "AWSSecretLoader", package="boto3").get_session()
        client.setdefault("region_name", os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"))
        self._errors = need("botocore.exceptions", "s3", "AWSSecretLoader", package="boto3")
        self.client = session.create_client("secretsmanager", **client)

    def contains(
        self, key: str, version_id: str | None = None, version_stage_label: str | None = None, **kwargs: Any
    ) -> bool:
        """Return whether there is such a secret, in that version where one is named."""
        return self._find(key, version_id, version_stage_label) is not None

    def get(
        self,
        key: str,
        /,
        default: Any = None,
        *,
        version_id: str | None = None,
        version_stage_label: str | None = None,
    ) -> Any:
        """Return the secret, text or bytes; `default` if there is none."""
        secret = self._find(key, version_id, version_stage_label)
        return default if secret is None else secret

    def __getitem__(self, key: str) -> str | bytes:
        secret = self._find(key)
        if secret is None:
            raise SettingMissingError(f"AWS Secrets Manager has no secret '{key}'")
        return secret

    def _find(self, key: str, version: str | None = None, stage: str | None = None) -> str | bytes | None:
        request = {"SecretId": str(key), "VersionId": version, "VersionStage": stage}
        try:
            answer = self.client.get_secret_value(**{name: value for name, value in request.items() if value})
        except self.client.exceptions.ResourceNotFoundException:
            return None
        except (self._errors.ClientError, self._errors.BotoCoreError) as error:
            raise ConfigError(
                f"AWS Secrets Manager does not give '{key}': {error}", code="secret.vault_failed"
            ) from error
        value: str | bytes = answer["SecretString"] if "SecretString" in answer else answer["SecretBinary"]
        conceal({"secret": value})
        return value


def _file_and_renderer(filepath: str | os.PathLike[str] | None) -> tuple[Path, Renderer]:
    """Return the file, and what renders it: the run's renderer in a block, else one for the project around the file."""
    if filepath is None:
        project = _renderer.project if _renderer is not None else None
        path = (project.root if project is not None else current_folder()) / IO_CONFIG_FILE
    else:
        path = Path(os.path.abspath(os.path.expanduser(filepath)))  # noqa: PTH100, PTH111 - `..` stays the user's
    if _renderer is not None and _renderer.project is not None and path.is_relative_to(_renderer.project.root):
        return path, _renderer
    return path, _renderer_for(path)


def _renderer_for(path: Path) -> Renderer:
    from streamline.project.project import WORK_DIR
    from streamline.project.render import Renderer
    from streamline.project.secrets import Secrets

    project = _project_around(path.parent)
    if project is not None:
        return project.renderer
    return Renderer(None, secrets=Secrets(path.parent / WORK_DIR))


def _project_around(folder: Path) -> Project | None:
    from streamline.project.project import Project, project_file

    for parent in (folder, *folder.parents):
        if project_file(parent) is not None:
            return Project.open(parent)
    return None


def _flat_names(values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Flat names of the nested settings, and where they stand. Keys are looked at, values are not."""
    names: dict[str, tuple[str, ...]] = {}
    for heading in values:
        settings, branch = nested_settings(heading), values[heading]
        if settings is None:
            continue
        if not isinstance(branch, Mapping):
            if heading == VerboseConfigKey.AIRTABLE:
                names["AIRTABLE_ACCESS_TOKEN"] = (heading,)
            continue
        names |= {settings[setting]: (heading, setting) for setting in branch if setting in settings}
        redshift = branch.get(VerboseConfigKey.REDSHIFT) if heading == VerboseConfigKey.AWS else None
        if isinstance(redshift, Mapping):
            inner = nested_settings(VerboseConfigKey.REDSHIFT) or {}
            names |= {
                inner[setting]: (heading, str(VerboseConfigKey.REDSHIFT), setting)
                for setting in redshift
                if setting in inner
            }
    return names
