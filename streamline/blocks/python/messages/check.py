"""What can be said about a transformer block of a streaming pipeline before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamline.blocks.python.check import check_block
from streamline.blocks.python.file import BlockFile
from streamline.blocks.python.function import Shape, shape_of
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.pipeline.model import Block
    from streamline.project.render import ProjectFolder


def check_transformer(project: ProjectFolder, block: Block, file: BlockFile, where: str) -> None:
    """Check a block's file, which is only read, and its configuration.

    Args:
        where: `file:line` of the block in metadata.yaml.

    Raises:
        ConfigError: the file cannot be read or is not Python; it does not have one function with @transformer; the
            function takes what no transformer is given; or `workers` are asked for.
    """
    check_block(project, block)
    shape_of(file, Shape.ROWS)
    if block.configuration.get("workers"):
        raise ConfigError(
            "configuration.workers: transformers of streaming pipelines run on one thread each",
            where=where,
            hint="leave `workers` out; for Kafka sources, `instances` at the top of metadata.yaml starts processes",
            code="transformer.setting_invalid",
        )
