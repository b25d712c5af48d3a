"""The source and destination blocks that commands about streams mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import click

from streamline.cli.app import App
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.pipeline.model import Block, PipelineModel

Side = Literal["source", "destination"]

_TYPES: dict[Side, str] = {"source": "data_loader", "destination": "data_exporter"}


def load_model(app: App, pipeline: str) -> PipelineModel:
    """The pipeline.

    Raises:
        ConfigError: there is none of that name, or its metadata.yaml is wrong.
    """
    from streamline.pipeline.reader import load_pipeline

    return load_pipeline(app.project, pipeline)


def blocks_of(model: PipelineModel, side: Side) -> list[Block]:
    """The pipeline's sources or destinations, in its order."""
    return [one for one in model.blocks.values() if one.type == _TYPES[side] and one.language == "yaml"]


def sources_of(model: PipelineModel) -> list[Block]:
    """The pipeline's sources.

    Raises:
        ConfigError: it has none.
    """
    found = blocks_of(model, "source")
    if not found:
        raise ConfigError(
            "the pipeline has no source",
            where=model.uuid,
            hint=f"add one: streamline add source NAME --pipeline {model.uuid}",
            code="pipeline.no_source",
        )
    return found


def side_of(model: PipelineModel, uuid: str) -> Side:
    """Which kind of block a uuid is.

    Raises:
        ConfigError: it is neither source nor destination, or does not exist.
    """
    for side in ("source", "destination"):
        if any(one.uuid == uuid for one in blocks_of(model, side)):
            return side
    from streamline.project.suggest import suggestion

    known = [one.uuid for side in _TYPES for one in blocks_of(model, side)]
    raise ConfigError(
        f"there is no source or destination '{uuid}'",
        where=model.uuid,
        hint=suggestion(uuid, known, what="blocks"),
        code="block.not_found",
    )


def pick_block(model: PipelineModel, side: Side, uuid: str | None) -> Block:
    """The block that `--block` names, or the only one of its kind.

    Raises:
        ConfigError: there is no such block, or more than one.
    """
    found = sources_of(model) if side == "source" else blocks_of(model, side)
    if uuid is not None:
        if side_of(model, uuid) != side:
            raise ConfigError(f"'{uuid}' is no {side}", where=model.uuid, code="block.not_found")
        return next(one for one in found if one.uuid == uuid)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"the pipeline has no {side}", where=model.uuid, code="block.not_found")
    raise ConfigError(
        f"the pipeline has {len(found)} {side}s",
        where=model.uuid,
        hint=f"add --block {'|'.join(one.uuid for one in found)}",
        code="block.ambiguous",
    )


def tap_log(app: App) -> Callable[[str], None] | None:
    """What takes the lines of a tap's log: they are shown with `--debug` only (an error shows the last ones)."""
    return say if app.debug else None


def say(line: str) -> None:
    """Show a (masked) line apart from what the command prints."""
    click.echo(click.style(line, dim=True), err=True)
