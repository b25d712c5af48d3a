"""Connect a pipeline's blocks: complete their upstream and downstream lists from each other, and check them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from streamline.pipeline.graph import downstream_of, find_cycle
from streamline.project.suggest import suggestion, words
from streamline.project.yamlfile import PathKey, YamlFile, kind_of

if TYPE_CHECKING:
    from streamline.pipeline.model import Block

IDLE_TYPES = words("markdown scratchpad chart extension global_data_product hook group ai")
"""Block types of Mage's notebook that never run."""


class Links:
    """The upstream and downstream lists of a pipeline's blocks.

    Args:
        yaml: metadata.yaml.
        mage: what only contradicts itself is a warning, and `upstream_blocks` count, as in Mage.
    """

    def __init__(self, yaml: YamlFile, *, mage: bool) -> None:
        self._yaml = yaml
        self._mage = mage
        self._warnings: dict[str, None] = {}
        self._dropped: dict[str, None] = {}
        self._idle = _idle_blocks(yaml.mapping())

    def warnings(self) -> list[str]:
        """Return the warnings about the lists that were read."""
        dropped = [f"{name} ({self._idle[name]['type']})" for name in self._dropped]
        idle = f"{self._yaml.shown}: blocks that do not run are ignored: {', '.join(dropped)}"
        return [*self._warnings, *([idle] if dropped else [])]

    def names(self, entry: dict[str, Any], key: str, path: tuple[PathKey, ...]) -> list[str]:
        """Return the uuids of a block's list, each once.

        Raises:
            ConfigError: it is not a list of texts, or contains a uuid twice.
        """
        value = entry.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._yaml.error(f"{key} must be a list of uuids, not {kind_of(value)}", (*path, key))
        for index, name in enumerate(value):
            if not isinstance(name, str):
                message = f"{key} must be a list of uuids, but contains {kind_of(name)}"
                raise self._yaml.error(message, (*path, key, index), hint=quoted(name))
        if len(set(value)) != len(value):
            duplicate = next(name for name in value if value.count(name) > 1)
            self._contradiction(
                f"duplicate '{duplicate}' in {key}", (*path, key), hint="remove it", code="graph.duplicate"
            )
        return list(dict.fromkeys(value))

    def known(
        self, blocks: dict[str, Block], names: Sequence[str], path: tuple[PathKey, ...], key: str = "upstream_blocks"
    ) -> list[str]:
        """Return the names of blocks that run.

        Raises:
            ConfigError: the pipeline has no such block.
        """
        kept = []
        for index, name in enumerate(names):
            if name in blocks:
                kept.append(name)
            elif name in self._idle:
                self._dropped[name] = None
            else:
                self._contradiction(
                    f"there is no block '{name}' in this pipeline",
                    (*path, key, index),
                    hint=suggestion(name, blocks, what="blocks"),
                    code="graph.unknown_block",
                )
        return kept

    def connect(self, blocks: dict[str, Block]) -> None:
        """Complete the lists of all blocks.

        Raises:
            ConfigError: a list names an unknown block or a global data product, two lists contradict each other, or
                there is a cycle.
        """
        self._refuse_products(blocks)
        for block in blocks.values():
            block.upstream = self.known(blocks, block.upstream, block.path)
            block.downstream = self.known(blocks, block.downstream, block.path, "downstream_blocks")
        self._refuse_contradictions(blocks, "downstream_blocks", "upstream_blocks")
        self._refuse_contradictions(blocks, "upstream_blocks", "downstream_blocks")
        for uuid, block in blocks.items():
            for name in block.downstream:
                if not self._has_list(blocks[name], "upstream_blocks") and uuid not in blocks[name].upstream:
                    blocks[name].upstream.append(uuid)
        upstream = {uuid: block.upstream for uuid, block in blocks.items()}
        cycle = find_cycle(upstream)
        if cycle is not None:
            raise self._yaml.error(
                f"dependency cycle: {' → '.join(cycle)}",
                blocks[cycle[0]].path,
                hint="remove one of these upstream_blocks",
                code="graph.cycle",
            )
        for uuid, children in downstream_of(upstream).items():
            blocks[uuid].downstream = children

    def _has_list(self, block: Block, key: str) -> bool:
        return self._yaml.mapping(block.path).get(key) is not None

    def _refuse_contradictions(self, blocks: dict[str, Block], key: str, opposite: str) -> None:
        """Refuse a block in a list of this key whose own list of the opposite key lacks the block that names it."""
        neighbours = {"upstream_blocks": attrgetter("upstream"), "downstream_blocks": attrgetter("downstream")}
        for uuid, block in blocks.items():
            for name in neighbours[key](block):
                listed = neighbours[opposite](blocks[name])
                if uuid not in listed and self._has_list(blocks[name], opposite):
                    self._contradiction(
                        f"'{uuid}' has '{name}' in {key}, but the {opposite} of '{name}' are {listed}",
                        (*block.path, key),
                        hint="correct one of the two lists, or remove it",
                        code="graph.contradiction",
                    )

    def _refuse_products(self, blocks: dict[str, Block]) -> None:
        for product, entry in self._idle.items():
            if entry["type"] != "global_data_product":
                continue
            below = entry.get("downstream_blocks") or []
            for uuid, block in blocks.items():
                if product in block.upstream or uuid in below:
                    raise self._yaml.error(
                        f"the input of '{uuid}' is the global data product '{product}', which Streamline does not run",
                        (*block.path, "upstream_blocks"),
                        hint=f"put a data_loader in place of '{product}': one that runs the other pipeline "
                        "(trigger_pipeline) and reads its output (get_variable)",
                        code="block.global_data_product",
                    )

    def _contradiction(self, message: str, path: Sequence[PathKey], *, hint: str, code: str) -> None:
        if not self._mage:
            raise self._yaml.error(message, path, hint=hint, code=code)
        self._warnings[f"{self._yaml.where(path)}: {message}"] = None


def _idle_blocks(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the entries of blocks that never run, by uuid."""
    idle: dict[str, dict[str, Any]] = {}
    for key, default in (("widgets", "chart"), ("blocks", None)):
        entries = data.get(key)
        for entry in entries if isinstance(entries, list) else ():
            kind = entry.get("type") or default if isinstance(entry, dict) else None
            uuid = (entry.get("uuid") or entry.get("name")) if isinstance(entry, dict) else None
            if isinstance(uuid, str) and isinstance(kind, str) and kind in IDLE_TYPES:
                idle[uuid] = {**entry, "type": kind}
    return idle


def quoted(value: object) -> str:
    """Return the hint for a value that must be text."""
    reason = " (yes, no, on, off, true and false are booleans in YAML)" if isinstance(value, bool) else ""
    return f"put it in quotes{reason}"
