"""The model of a pipeline: metadata.yaml as structs.

Mage's files load unmodified; unknown keys are preserved. A run never writes the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError
from streamline.pipeline.graph import topological_order
from streamline.project.suggest import suggestion
from streamline.project.yamlfile import PathKey, YamlFile

if TYPE_CHECKING:
    from streamline.project.project import Project

PIPELINE_TYPES = ("python", "integration", "streaming", "dbt")
BATCH_TYPES = ("python", "dbt")
"""Pipeline types whose blocks store their outputs and run once their upstream blocks are done."""
TYPE_NAMES = {"standard": "python", "batch": "python", "pyspark": "python"} | {name: name for name in PIPELINE_TYPES}

FOLDERS = {
    "data_loader": "data_loaders",
    "transformer": "transformers",
    "data_exporter": "data_exporters",
    "sensor": "sensors",
    "custom": "custom",
    "dbt": "dbts",
    "callback": "callbacks",
    "conditional": "conditionals",
}
"""Folders of block files, by block type."""


class _Fitting(msgspec.Struct, frozen=True):
    """The block types of a type of pipeline with their languages, and the same in words."""

    blocks: dict[str, tuple[str, ...]]
    words: str


_FITTING = {
    "integration": _Fitting(
        {
            "data_loader": ("yaml",),
            "data_exporter": ("yaml",),
            "transformer": ("yaml", "python"),
            "conditional": ("python",),
            "callback": ("python",),
        },
        "sources and destinations (data_loader and data_exporter in YAML), transformers in Python, mappers "
        "(transformers in YAML), callbacks, and conditionals of sources",
    ),
    "streaming": _Fitting(
        {
            "data_loader": ("yaml", "python"),
            "data_exporter": ("yaml", "python"),
            "transformer": ("yaml", "python"),
            "callback": ("python",),
        },
        "sources and sinks (data_loader and data_exporter in YAML or Python), transformers in Python, mappers of taps "
        "(transformers in YAML), and callbacks",
    ),
}
"""Of the types of pipelines that do not run every block."""


def check_fits(pipeline_type: str, block_type: str, language: str, *, where: str) -> None:
    """Check that pipelines of a type run blocks of this type and language.

    Raises:
        ConfigError: they do not.
    """
    fitting = _FITTING.get(pipeline_type)
    if fitting is None or language in fitting.blocks.get(block_type, ()):
        return
    raise ConfigError(
        f"{'an' if pipeline_type == 'integration' else 'a'} {pipeline_type} pipeline does not run a {block_type} in "
        f"{language}",
        where=where,
        hint=f"it runs {fitting.words}; other blocks need a pipeline of type python",
        code="block.wrong_pipeline",
    )


class RetryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often a failed block is retried, and how long to wait before each retry.

    Args:
        retries: the maximum number of retries.
        delay: seconds before the first retry.
        max_delay: the maximum delay in seconds.
        exponential_backoff: double the delay for each further retry.
    """

    retries: int = 0
    delay: float = 5
    max_delay: float = 60
    exponential_backoff: bool = True

    def delay_before(self, attempt: int) -> float:
        """Return the seconds to wait before retry number `attempt` (the first is 1)."""
        doublings = min(attempt - 1, 60) if self.exponential_backoff else 0
        return min(self.delay * 2.0**doublings, self.max_delay)


class Block(msgspec.Struct, kw_only=True):
    """One block of a pipeline.

    Args:
        uuid: the block's name, unique in the pipeline.
        type: a key of `FOLDERS`.
        language: a name in `kinds.languages()`.
        upstream: the upstream blocks, in the order of the function's arguments. For a callback or conditional: the
            blocks that it watches or gates.
        downstream: the downstream blocks.
        configuration: as in the file, templates not rendered.
        retry_config: the block's settings merged over the pipeline's, key by key; None: neither has any.
        timeout: seconds; None: no limit.
        file: the block's file, which exists; None: the code is `content` in metadata.yaml.
        content: the block's code, if it has no file.
        name: the name to display.
        executor_type: as in the file.
        extra: unknown keys, and keys that only some block kinds read.
        path: the path of the block's entry in metadata.yaml.
    """

    uuid: str
    type: str
    language: str
    upstream: list[str]
    downstream: list[str]
    configuration: dict[str, Any]
    retry_config: RetryConfig | None
    timeout: float | None
    file: Path | None
    content: str | None
    name: str
    executor_type: str | None
    extra: dict[str, Any]
    path: tuple[PathKey, ...]


class PipelineModel(msgspec.Struct, kw_only=True):
    """A pipeline.

    Args:
        uuid: the name of its folder.
        name: the name to display.
        type: one of `PIPELINE_TYPES`.
        blocks: by uuid, in the file's order.
        callbacks: callback blocks; those without upstream blocks watch the whole pipeline.
        conditionals: conditional blocks; `upstream` are the blocks that they gate.
        variables: as in the file, templates not rendered.
        retry_config: the pipeline's settings merged over the project's, key by key.
        data_integration: as in the file.
        options: all known keys with a value (`delivery`, `on_error`, `concurrency_config`, …), as in the file.
        extra: unknown keys.
        path: the pipeline's folder.
        yaml: metadata.yaml.
        warnings: warnings to show to the user once.
    """

    uuid: str
    name: str
    type: str
    blocks: dict[str, Block]
    callbacks: dict[str, Block]
    conditionals: dict[str, Block]
    variables: dict[str, Any]
    retry_config: RetryConfig | None
    data_integration: dict[str, Any]
    description: str | None
    tags: list[str]
    created_at: str | None
    options: dict[str, Any]
    extra: dict[str, Any]
    path: Path
    yaml: YamlFile
    warnings: list[str]

    def order(self) -> list[str]:
        """Return the blocks' uuids, each after all of its upstream blocks."""
        return topological_order(self.upstream())

    def upstream(self) -> dict[str, list[str]]:
        """Return each block's upstream blocks."""
        return {uuid: block.upstream for uuid, block in self.blocks.items()}

    def find(self, uuid: str) -> Block | None:
        """Return a block, callback or conditional; None if there is none of this name."""
        return self.blocks.get(uuid) or self.callbacks.get(uuid) or self.conditionals.get(uuid)

    @property
    def stores_outputs(self) -> bool:
        """Whether its blocks store what they return."""
        return self.type in BATCH_TYPES

    @property
    def moves_messages(self) -> bool:
        """Whether its blocks pass messages on as they come, of which no catalog tells."""
        return self.type == "streaming"

    def block(self, uuid: str) -> Block:
        """Return a block.

        Raises:
            ConfigError: the pipeline has no block of this name.
        """
        if uuid not in self.blocks:
            raise ConfigError(
                f"the pipeline '{self.uuid}' has no block '{uuid}'",
                where=self.yaml.shown,
                hint=suggestion(uuid, self.blocks, what="blocks"),
                code="graph.unknown_block",
            )
        return self.blocks[uuid]

    def where(self, uuid: str, *keys: PathKey) -> str:
        """Return `file:line` of a block's entry, or of a key in it."""
        block = self.find(uuid)
        return self.yaml.where((*block.path, *keys)) if block is not None else self.yaml.shown


def pipeline_folder(project: Project, uuid: str) -> Path:
    """Return the folder of a pipeline, which need not exist.

    Raises:
        ConfigError: the name is not a valid folder name.
    """
    if not uuid or uuid in (".", "..") or any(char in uuid for char in "/\\\0"):
        raise ConfigError(
            f"invalid pipeline name '{uuid}'",
            hint="use letters, digits, '_' and '-'",
            code="pipeline.invalid_name",
        )
    return project.root / "pipelines" / uuid
