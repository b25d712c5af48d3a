"""Warn about unknown keys in metadata.yaml. They are preserved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from streamline.pipeline.limits import CONCURRENCY_KEYS, DYNAMIC_KEYS
from streamline.project.suggest import almost, words

if TYPE_CHECKING:
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.yamlfile import PathKey, YamlFile

_SETTINGS = words("dynamic reduce_output isolated secret_output")
_MORE_SETTINGS = {
    "sensor": words("interval timeout"),
    "dbt": words("dbt dbt_project_name dbt_profile_target file_path"),
}
# Users may add their own keys: only a key that is very similar to a known one counts as misspelled.
_ALIKE = 0.8
_ALMOST = 0.85


class UnknownKeys:
    """Collects unknown keys while a file is read."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], None] = {}

    def add(self, file: YamlFile, path: tuple[PathKey, ...], known: Iterable[str], section: str = "") -> None:
        """Add the key at the end of `path`.

        Args:
            known: the valid keys, for a suggestion.
            section: a prefix that tells where the key is.
        """
        key = str(path[-1])
        similar = almost(key, known, _ALIKE)
        line = file.where(path).rpartition(":")[2]
        guess = f"; did you mean '{similar}'?" if similar else ""
        self._keys[(file.shown, f"{section}{key} (line {line}{guess})")] = None

    def add_all(self, file: YamlFile, path: tuple[PathKey, ...], known: frozenset[str], section: str = "") -> None:
        """Add the unknown keys of the mapping at `path`."""
        for key in file.mapping(path):
            if key not in known:
                self.add(file, (*path, key), known, section)

    def add_limits(self, file: YamlFile) -> None:
        """Add the unknown keys of `dynamic_blocks` and `concurrency_config`."""
        self.add_all(file, ("dynamic_blocks",), DYNAMIC_KEYS, "dynamic_blocks.")
        self.add_all(file, ("concurrency_config",), CONCURRENCY_KEYS, "concurrency_config.")

    def refuse_misspelt(self, file: YamlFile, effective: frozenset[str], known: frozenset[str]) -> None:
        """Refuse an unknown key at the top of the file that looks like a key with effect which is not there.

        A streaming pipeline would run without end with another setting than the one that was meant.

        Raises:
            ConfigError: there is one; the error names its line.
        """
        for key in file.mapping():
            similar = almost(str(key), effective - set(file.mapping()), _ALIKE) if key not in known else None
            if similar is not None:
                file.fail(f"unknown key '{key}'", (key,), hint=f"did you mean '{similar}'?", code="setting.unknown")

    def warnings(self) -> list[str]:
        """Return one warning per file."""
        keys: dict[str, list[str]] = {}
        for file, key in self._keys:
            keys.setdefault(file, []).append(key)
        return [f"{file}: unknown keys are ignored: {', '.join(names)}" for file, names in keys.items()]


def misspelt_settings(model: PipelineModel, block: Block) -> list[str]:
    """Return warnings for keys of a block's configuration that look misspelled. They may be the author's own keys."""
    known = _SETTINGS | _MORE_SETTINGS.get(block.type, frozenset())
    warnings = []
    for key in block.configuration:
        similar = almost(str(key), known - set(block.configuration), _ALMOST) if key not in known else None
        if similar is not None:
            where = model.where(block.uuid, "configuration", key)
            warnings.append(
                f"{where}: unknown key '{key}' in the configuration of '{block.uuid}'; did you mean '{similar}'?"
            )
    return warnings
