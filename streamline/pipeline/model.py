"""A pipeline's metadata.yaml as structs.

Mage's files load unmodified: what means nothing here is kept. A run never writes the file.
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
"""Types whose blocks run one after the other, on stored outputs."""
TYPE_NAMES = {"standard": "python", "batch": "python", "pyspark": "python"} | {one: one for one in PIPELINE_TYPES}

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
"""Where the files of each type of block live."""


class RetryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often a failed block is tried again, and after how long.

    Args:
        retries: tries after the first one.
        delay: seconds before the first of them.
        max_delay: what a delay grows to at most, in seconds.
        exponential_backoff: each delay is twice the one before.
    """

    retries: int = 0
    delay: float = 5
    max_delay: float = 60
    exponential_backoff: bool = True

    def delay_before(self, attempt: int) -> float:
        """Seconds to wait before the try number `attempt` (1 is the first one that is not the original)."""
        doublings = min(attempt - 1, 60) if self.exponential_backoff else 0
        return min(self.delay * 2.0**doublings, self.max_delay)


class Block(msgspec.Struct, kw_only=True):
    """One block of a pipeline.

    Args:
        uuid: its name, unique in the pipeline.
        type: a key of `FOLDERS`.
        language: a name in `kinds.languages()`.
        upstream: uuids whose outputs it gets, in the order of its arguments. For a callback or conditional: the
            blocks that it watches or gates.
        downstream: uuids that get its output.
        configuration: as written; not rendered.
        retry_config: its own laid over the pipeline's, key by key; None if neither says anything.
        timeout: seconds, or None.
        file: its file, which exists; None if its content stands in metadata.yaml.
        content: text in place of a file.
        name: for display.
        executor_type: as written.
        extra: keys that mean nothing here, and those that only some kinds of blocks read.
        path: where it stands in metadata.yaml.
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
        name: for display.
        type: one of `PIPELINE_TYPES`.
        blocks: by uuid, in the file's order.
        callbacks: callback blocks; without upstream they belong to the whole pipeline.
        conditionals: conditional blocks; `upstream` are the blocks that they gate.
        variables: as written; not rendered.
        retry_config: the pipeline's own laid over the project's, key by key.
        data_integration: as written.
        options: every other known key that has a meaning for some type of pipeline (`delivery`, `on_error`,
            `concurrency_config`, …), as written.
        extra: unknown keys, kept.
        path: the pipeline's folder.
        yaml: metadata.yaml.
        warnings: what the user should hear once.
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
        """The blocks' uuids, each after all of its upstream blocks."""
        return topological_order(self.upstream())

    def upstream(self) -> dict[str, list[str]]:
        """Each block's upstream blocks."""
        return {uuid: block.upstream for uuid, block in self.blocks.items()}

    def block(self, uuid: str) -> Block:
        """The block of that uuid.

        Raises:
            ConfigError: there is none.
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
        """`file:line` of a block's entry, or of a key in it."""
        for group in (self.blocks, self.callbacks, self.conditionals):
            if uuid in group:
                return self.yaml.where((*group[uuid].path, *keys))
        return self.yaml.shown


def pipeline_folder(project: Project, uuid: str) -> Path:
    """The folder of the pipeline `uuid`, whether it exists or not.

    Raises:
        ConfigError: the name would lead elsewhere.
    """
    if not uuid or uuid in (".", "..") or any(sign in uuid for sign in "/\\\0"):
        raise ConfigError(
            f"'{uuid}' cannot be a pipeline's name",
            hint="use letters, digits, '_' and '-'",
            code="pipeline.invalid_name",
        )
    return project.root / "pipelines" / uuid
