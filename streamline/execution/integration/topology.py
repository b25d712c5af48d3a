"""What the blocks of an integration pipeline are, and how they are joined."""

from __future__ import annotations

import msgspec

from streamline.blocks.connector.spec import DestinationSpec, MapperSpec, SourceSpec, load_spec
from streamline.errors import ConfigError
from streamline.execution.integration.plan import PathPlan, TransformPlan
from streamline.pipeline.model import Block, PipelineModel
from streamline.project.render import Renderer


class Specs(msgspec.Struct):
    """The pipeline's blocks by what they are."""

    sources: dict[str, tuple[Block, SourceSpec]] = {}
    destinations: dict[str, tuple[Block, DestinationSpec]] = {}
    mappers: dict[str, tuple[Block, MapperSpec]] = {}
    transforms: dict[str, TransformPlan] = {}


def read_blocks(model: PipelineModel, renderer: Renderer) -> Specs:
    """Read every block's file.

    Raises:
        ConfigError: a file is wrong, or a block can't stand in an integration pipeline.
    """
    from streamline.blocks.python.function import BlockFile, shape_of

    _refuse_conditionals(model)
    specs = Specs({}, {}, {}, {})
    for uuid in model.order():
        block = model.blocks[uuid]
        if block.language == "yaml" and block.type in ("data_loader", "data_exporter", "transformer"):
            match load_spec(block, renderer):
                case SourceSpec() as source:
                    specs.sources[uuid] = (block, source)
                case DestinationSpec() as destination:
                    specs.destinations[uuid] = (block, destination)
                case MapperSpec() as mapper:
                    specs.mappers[uuid] = (block, mapper)
        elif block.type == "transformer" and block.language == "python":
            file = BlockFile(uuid, str(block.file or model.yaml.path), block.content)
            specs.transforms[uuid] = TransformPlan(block=block, file=file, lane=shape_of(file).lane)
        else:
            raise ConfigError(
                f"a {block.type} in {block.language} can't stand in an integration pipeline",
                where=model.where(uuid),
                hint="it takes sources and destinations (data_loader and data_exporter in YAML), transformers in "
                "Python, and mappers (transformers in YAML)",
            )
    return specs


def _refuse_conditionals(model: PipelineModel) -> None:
    """Refuse what would be ignored and must not be.

    Raises:
        ConfigError: blocks are gated, or watched.
    """
    for what, blocks in (("conditional", model.conditionals), ("callback", model.callbacks)):
        for uuid in blocks:
            raise ConfigError(
                f"the {what} '{uuid}' can't be kept: this version runs the live pipe of an integration pipeline only",
                where=model.where(uuid),
                hint=f"take it out of `{what}s:`",
            )


def find_paths(model: PipelineModel, specs: Specs) -> tuple[dict[str, PathPlan], dict[str, list[str]]]:
    """Each source's way to its destinations, and the mappers right behind it, by source uuid.

    Raises:
        ConfigError: a block leads nowhere, or stands where it can't.
    """
    downstream: dict[str, list[str]] = {uuid: [] for uuid in model.blocks}
    for uuid in model.order():
        for upstream in model.blocks[uuid].upstream:
            downstream[upstream].append(uuid)
    for uuid in specs.destinations:
        if downstream[uuid]:
            raise ConfigError(f"destination '{uuid}' has blocks after it", where=model.where(uuid))
    for uuid in (*specs.destinations, *specs.transforms, *specs.mappers):
        if not model.blocks[uuid].upstream:
            raise ConfigError(
                f"block '{uuid}' has nothing before it",
                where=model.where(uuid),
                hint="name the block that feeds it under upstream_blocks",
            )
    for uuid in specs.sources:
        if model.blocks[uuid].upstream:
            raise ConfigError(
                f"source '{uuid}' has blocks before it",
                where=model.where(uuid, "upstream_blocks"),
                hint="in an integration pipeline a source is where records begin",
            )
    if not specs.sources or not specs.destinations:
        missing = "source" if not specs.sources else "destination"
        raise ConfigError(
            f"the pipeline has no {missing}",
            where=model.yaml.shown,
            hint=f"add one: streamline add {missing} NAME --pipeline {model.uuid}",
        )
    mappers: dict[str, list[str]] = {}
    paths: dict[str, PathPlan] = {}
    for source in specs.sources:
        mappers[source], after = _leading_mappers(model, specs, downstream, source)
        paths[source] = _path(model, specs, after, downstream)
        if not paths[source].all_sinks():
            raise ConfigError(
                f"source '{source}' leads to no destination",
                where=model.where(source),
                hint="name it under a destination's upstream_blocks",
            )
    return paths, mappers


def _leading_mappers(
    model: PipelineModel, specs: Specs, downstream: dict[str, list[str]], source: str
) -> tuple[list[str], list[str]]:
    """Mappers right behind a source, and the blocks after them."""
    found: list[str] = []
    after = downstream[source]
    while len(after) == 1 and after[0] in specs.mappers:
        found.append(after[0])
        after = downstream[after[0]]
    return found, after


def _path(model: PipelineModel, specs: Specs, after: list[str], downstream: dict[str, list[str]]) -> PathPlan:
    transforms: list[TransformPlan] = []
    while len(after) == 1 and after[0] in specs.transforms:
        transforms.append(specs.transforms[after[0]])
        after = downstream[after[0]]
    sinks: list[str] = []
    branches: list[PathPlan] = []
    for uuid in after:
        if uuid in specs.mappers:
            raise ConfigError(
                f"mapper '{uuid}' must stand right behind its source, alone",
                where=model.where(uuid),
                hint="put it between the source and everything else; what only one destination needs, do in a "
                "transformer",
            )
        if uuid in specs.destinations:
            sinks.append(uuid)
        else:
            branches.append(_path(model, specs, [uuid], downstream))
    return PathPlan(transforms=transforms, sinks=sinks, branches=branches)
