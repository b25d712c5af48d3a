"""io_config.yaml: connection profiles. A missing variable or secret is an error only when its key is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from streamline.project.render import Renderer, check_deferred
from streamline.project.secrets import Masker
from streamline.project.suggest import suggestion
from streamline.project.template_values import InsertedValues
from streamline.project.vaults import LateValues
from streamline.project.yamlfile import PathKey, YamlFile, load_yaml, read_text

IO_CONFIG_FILE = "io_config.yaml"


class Profile(Mapping[str, Any]):
    """A connection profile.

    Reading a key raises a ConfigError if the profile does not have the key, or if its value uses an environment
    variable that is not set, or a secret of a cloud service (`aws_secret_var`, …) that cannot be read.

    Args:
        file: io_config.yaml, rendered.
        name: the profile's name.
        late: the deferred calls of cloud services.
        masker: masks the secrets of deferred calls once they are read.
    """

    def __init__(self, file: YamlFile, name: str, late: LateValues | None = None, masker: Masker | None = None) -> None:
        self.file = file
        self.name = name
        self._values = file.mapping((name,))
        self._late = late
        self._masker = masker

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            self.file.fail(
                f"the profile '{self.name}' has no '{key}'",
                (self.name,),
                hint=suggestion(key, self._values, what="keys"),
                code="profile.setting_missing",
            )
        return self._complete(self._values[key], (self.name, key))

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def raw(self) -> Mapping[str, Any]:
        """The parsed profile, for its keys. Values may contain placeholders of deferred calls."""
        return self._values

    def at(self, *path: str) -> Any:
        """Return the value at an existing path of keys. Other values are not read."""
        value: Any = self._values
        for key in path:
            value = value[key]
        return self._complete(value, (self.name, *path))

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key; `default` if the profile does not have the key."""
        return self[key] if key in self._values else default

    def _complete(self, value: Any, path: tuple[PathKey, ...]) -> Any:
        if isinstance(value, dict):
            return {key: self._complete(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._complete(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "\ue000" not in value:
            return value
        where = self.file.where(path)
        text: str = check_deferred(value, where)
        if self._late is not None:
            text, secrets = self._late.complete(text, where)
            if self._masker is not None:
                for secret in secrets:
                    self._masker.add(secret)
        return text


def load_profile(path: Path, renderer: Renderer, name: str = "default") -> Profile:
    """Load a profile of io_config.yaml. Values with secret-like keys are masked from now on.

    Raises:
        ConfigError: the file cannot be read, rendered or parsed, or has no such profile.
    """
    shown = renderer.project.shown(path) if renderer.project is not None else str(path)
    late, inserted = LateValues(), InsertedValues()
    text = renderer.render_text(
        read_text(path, shown=shown), where=shown, defer_unset=True, names=late.names(), inserted=inserted
    )
    mage = renderer.project is not None and renderer.project.mage
    file = load_yaml(path, text=text, rendered=True, shown=shown, allow_duplicates=mage)
    inserted.put_back(file)
    profiles = [key for key, value in file.mapping().items() if isinstance(value, dict)]
    if name not in profiles:
        file.fail(
            f"profile '{name}' not found", hint=suggestion(name, profiles, what="profiles"), code="profile.not_found"
        )
    masker = renderer.secrets.masker if renderer.secrets is not None else None
    if masker is not None:
        masker.add_config(file.mapping((name,)))
    return Profile(file, name, late, masker)
