"""Where sources and destinations stand in a pipeline that moves records."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping

from streamline.errors import ConfigError
from streamline.pipeline.graph import downstream_of
from streamline.pipeline.model import PipelineModel


def check_places(
    model: PipelineModel, *, sources: Collection[str], destinations: Collection[str], between: Collection[str]
) -> dict[str, list[str]]:
    """Check that records begin at sources and end at destinations; return each block's downstream blocks.

    Args:
        between: the blocks that records pass.

    Raises:
        ConfigError: there is no source or no destination, or a block stands where it cannot.
    """
    downstream = downstream_of({uuid: model.blocks[uuid].upstream for uuid in model.order()})
    for uuid in destinations:
        if downstream[uuid]:
            raise ConfigError(
                f"destination '{uuid}' has blocks after it", where=model.where(uuid), code="graph.wrong_place"
            )
    if not sources or not destinations:
        missing = "source" if not sources else "destination"
        raise ConfigError(
            f"the pipeline has no {missing}",
            where=model.yaml.shown,
            hint=f"add one: streamline add {missing} NAME --pipeline {model.uuid}",
            code="pipeline.no_destination" if sources else "pipeline.no_source",
        )
    for uuid in (*destinations, *between):
        if not model.blocks[uuid].upstream:
            raise ConfigError(
                f"block '{uuid}' has nothing before it",
                where=model.where(uuid),
                hint="name the block that feeds it under upstream_blocks",
                code="graph.wrong_place",
            )
    for uuid in sources:
        if model.blocks[uuid].upstream:
            raise ConfigError(
                f"source '{uuid}' has blocks before it",
                where=model.where(uuid, "upstream_blocks"),
                hint="a source is where records begin",
                code="graph.wrong_place",
            )
    return downstream


def leading_mappers(
    mappers: Container[str], downstream: Mapping[str, list[str]], source: str
) -> tuple[list[str], list[str]]:
    """Return the mappers directly after a source, and the blocks after them."""
    leading: list[str] = []
    after = downstream[source]
    while len(after) == 1 and after[0] in mappers:
        leading.append(after[0])
        after = downstream[after[0]]
    return leading, after


def misplaced_mapper(model: PipelineModel, uuid: str) -> ConfigError:
    """Return the error of a mapper that is not directly after a tap, or not alone there."""
    return ConfigError(
        f"mapper '{uuid}' must be the only block directly downstream of its source, a tap",
        where=model.where(uuid),
        hint="put it between the tap and all other blocks; for one destination only, use a transformer",
        code="graph.wrong_place",
    )


def leads_nowhere(model: PipelineModel, uuid: str, what: str) -> ConfigError:
    """Return the error of a block whose records reach no destination."""
    return ConfigError(
        f"{what} '{uuid}' leads to no destination",
        where=model.where(uuid),
        hint="name it under a destination's upstream_blocks",
        code="pipeline.no_destination",
    )
