"""Find the source and destination blocks for commands about streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import click

from streamline.blocks.connector.role import connector_role
from streamline.cli.app import App
from streamline.errors import ConfigError
from streamline.pipeline.model import check_fits

if TYPE_CHECKING:
    from streamline.pipeline.model import Block, PipelineModel

Side = Literal["source", "destination"]
SIDES: tuple[Side, ...] = ("source", "destination")


def blocks_of(model: PipelineModel, side: Side) -> list[Block]:
    """Return the pipeline's sources or destinations, in the order of metadata.yaml; of a streaming pipeline its taps or
    targets.

    Raises:
        ConfigError: it is a streaming pipeline without taps and targets.
    """
    blocks = [block for block in model.blocks.values() if connector_role(block) is not None]
    if model.moves_messages:
        blocks = [block for block in blocks if names_plugin(block)]
    if model.moves_messages and not blocks:
        raise ConfigError(
            f"a pipeline of type {model.type} has no catalog of streams",
            where=model.uuid,
            hint=f"its sources and sinks: streamline explain {model.uuid}; whether they answer: streamline check "
            f"{model.uuid}",
            code="pipeline.no_catalog",
        )
    return [block for block in blocks if connector_role(block) == side]


def names_plugin(block: Block) -> bool:
    """Return whether a block of a streaming pipeline is a tap or a target."""
    from streamline.connectors.registry import find_stream_connector
    from streamline.project.yamlfile import load_yaml

    if block.language != "yaml" or block.file is None:
        return False
    try:
        keys = load_yaml(block.file).mapping()
    except ConfigError:
        return False  # reported where the file is used
    name = keys.get("source") or keys.get("destination")
    return isinstance(name, str) and find_stream_connector(name) is None


def sources_of(model: PipelineModel) -> list[Block]:
    """Return the pipeline's sources.

    Raises:
        ConfigError: the pipeline has no source.
    """
    sources = blocks_of(model, "source")
    if not sources:
        for block in model.blocks.values():
            check_fits(model.type, block.type, block.language, where=model.where(block.uuid))
        raise ConfigError(
            "the pipeline has no source",
            where=model.uuid,
            hint=f"streamline add source NAME --pipeline {model.uuid}",
            code="pipeline.no_source",
        )
    return sources


def side_of(model: PipelineModel, uuid: str) -> Side:
    """Return whether a block is a source or a destination.

    Raises:
        ConfigError: the block is neither, or does not exist.
    """
    for side in SIDES:
        if any(block.uuid == uuid for block in blocks_of(model, side)):
            return side
    from streamline.project.suggest import suggestion

    known = [block.uuid for side in SIDES for block in blocks_of(model, side)]
    raise ConfigError(
        f"there is no source or destination '{uuid}'",
        where=model.uuid,
        hint=suggestion(uuid, known, what="blocks"),
        code="block.not_found",
    )


def pick_block(model: PipelineModel, side: Side, uuid: str | None) -> Block:
    """Return the block that `--block` names, or the pipeline's only source or destination.

    Raises:
        ConfigError: there is no such block, or more than one.
    """
    blocks = sources_of(model) if side == "source" else blocks_of(model, side)
    if uuid is not None:
        if side_of(model, uuid) != side:
            raise ConfigError(f"'{uuid}' is not a {side}", where=model.uuid, code="block.not_found")
        return next(block for block in blocks if block.uuid == uuid)
    if len(blocks) == 1:
        return blocks[0]
    if not blocks:
        raise ConfigError(f"the pipeline has no {side}", where=model.uuid, code="block.not_found")
    raise ConfigError(
        f"the pipeline has {len(blocks)} {side}s",
        where=model.uuid,
        hint=f"add --block {'|'.join(block.uuid for block in blocks)}",
        code="block.ambiguous",
    )


def tap_log(app: App) -> Callable[[str], None] | None:
    """Return a function that shows a tap's log lines with `--debug`, else None: errors include the last lines."""
    return say if app.debug else None


def say(line: str) -> None:
    """Print a (masked) line to stderr."""
    click.echo(click.style(line, dim=True), err=True)
