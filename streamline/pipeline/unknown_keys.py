"""Unknown keys in metadata.yaml: they are kept, with one warning."""

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
# Users may have keys of their own: only a key that is nearly one of ours counts as misspelled.
_ALIKE = 0.8
_ALMOST = 0.85


class UnknownKeys:
    """Collects them while a file is read."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], None] = {}

    def add(self, file: YamlFile, path: tuple[PathKey, ...], known: Iterable[str], section: str = "") -> None:
        """Note the key that `path` ends in.

        Args:
            known: keys that could have been meant.
            section: what it stands in, where its name alone would not say.
        """
        key = str(path[-1])
        near = almost(key, known, _ALIKE)
        line = file.where(path).rpartition(":")[2]
        guess = f"; did you mean '{near}'?" if near else ""
        self._found[(file.shown, f"{section}{key} (line {line}{guess})")] = None

    def add_all(self, file: YamlFile, path: tuple[PathKey, ...], known: frozenset[str], section: str = "") -> None:
        """Note the keys of the mapping at `path` that are not known."""
        for key in file.mapping(path):
            if key not in known:
                self.add(file, (*path, key), known, section)

    def add_limits(self, file: YamlFile) -> None:
        """Note those in the sections that hold limits."""
        self.add_all(file, ("dynamic_blocks",), DYNAMIC_KEYS, "dynamic_blocks.")
        self.add_all(file, ("concurrency_config",), CONCURRENCY_KEYS, "concurrency_config.")

    def warnings(self) -> list[str]:
        """A sentence per file."""
        files = dict.fromkeys(file for file, _ in self._found)
        said = {file: ", ".join(words for one, words in self._found if one == file) for file in files}
        return [f"{file}: keys that mean nothing here are kept: {words}" for file, words in said.items()]


def misspelt_settings(model: PipelineModel, block: Block) -> list[str]:
    """Warnings for keys of a block's configuration that are almost ones that are read. They may be its author's own."""
    known = _SETTINGS | _MORE_SETTINGS.get(block.type, frozenset())
    found = []
    for key in block.configuration:
        near = almost(str(key), known - set(block.configuration), _ALMOST) if key not in known else None
        if near is not None:
            where = model.where(block.uuid, "configuration", key)
            said = f"'{key}' in the configuration of '{block.uuid}'"
            found.append(f"{where}: {said} means nothing; did you mean '{near}'?")
    return found
