"""io_config.yaml: connection profiles, rendered as one text; what it lacks is an error when it is read, not before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from streamline.project.nearest import suggestion
from streamline.project.render import Renderer, check_deferred
from streamline.project.yamlfile import PathKey, YamlFile, load_yaml, read_text

IO_CONFIG_FILE = "io_config.yaml"


class Profile(Mapping[str, Any]):
    """One profile's values.

    Reading a key raises a ConfigError if the profile does not have it, or if its value needs an environment variable
    that is not set.
    """

    def __init__(self, file: YamlFile, name: str) -> None:
        self.file = file
        self.name = name
        self._values = file.mapping((name,))

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            self.file.fail(
                f"the profile '{self.name}' has no '{key}'",
                (self.name,),
                hint=suggestion(key, self._values, what="keys"),
            )
        return self._complete(self._values[key], (self.name, key))

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str, default: Any = None) -> Any:
        """The value; `default` if the profile does not have the key."""
        return self[key] if key in self._values else default

    def _complete(self, value: Any, path: tuple[PathKey, ...]) -> Any:
        if isinstance(value, dict):
            return {key: self._complete(one, (*path, key)) for key, one in value.items()}
        if isinstance(value, list):
            return [self._complete(one, (*path, index)) for index, one in enumerate(value)]
        return check_deferred(value, self.file.where(path)) if isinstance(value, str) else value


def load_profile(path: Path, renderer: Renderer, name: str = "default") -> Profile:
    """A profile of an io_config.yaml. Its secrets (by the keys' names) are masked from then on.

    Raises:
        ConfigError: the file cannot be read, rendered or parsed, or has no such profile.
    """
    shown = renderer.project.shown(path) if renderer.project is not None else str(path)
    text = renderer.render_text(read_text(path, shown=shown), where=shown, defer_unset=True)
    file = load_yaml(path, text=text, rendered=True, shown=shown)
    profiles = [key for key, value in file.mapping().items() if isinstance(value, dict)]
    if name not in profiles:
        file.fail(f"there is no profile '{name}'", hint=suggestion(name, profiles, what="profiles"))
    if renderer.secrets is not None:
        renderer.secrets.masker.add_config(file.mapping((name,)))
    return Profile(file, name)
