"""What the blocks of an integration pipeline are, and how they are joined."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from msgspec.structs import replace

from streamline.blocks.connector.mage_config import CATALOG_FILE, destination_settings
from streamline.blocks.connector.spec import DestinationSpec, MapperSpec, SourceSpec, load_spec
from streamline.blocks.registry import check_block
from streamline.errors import ConfigError
from streamline.execution.integration.plan import PathPlan, TransformPlan
from streamline.execution.places import check_places, leading_mappers, leads_nowhere, misplaced_mapper
from streamline.pipeline.graph import reachable
from streamline.pipeline.model import Block, PipelineModel, check_fits
from streamline.project.project import Project
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
    specs = Specs({}, {}, {}, {})
    for uuid in model.order():
        block = model.blocks[uuid]
        check_fits(model.type, block.type, block.language, where=model.where(uuid))
        if block.language == "yaml":
            match load_spec(block, renderer, streaming=False):
                case SourceSpec() as source:
                    specs.sources[uuid] = (block, source)
                case DestinationSpec() as destination:
                    if renderer.project is not None and renderer.project.mage and not destination.streams.entries:
                        catalog = model.path / CATALOG_FILE
                        destination.streams = destination_settings(catalog, renderer.project.shown(catalog))
                    specs.destinations[uuid] = (block, destination)
                case MapperSpec() as mapper:
                    specs.mappers[uuid] = (block, mapper)
        else:
            # Imported here: most integration pipelines have no Python block.
            from streamline.blocks.python.function import BlockFile, shape_of

            file = BlockFile(uuid, str(block.file or model.yaml.path), block.content)
            specs.transforms[uuid] = TransformPlan(block=block, file=file, lane=shape_of(file).lane)
    return specs


def check_hooks(project: Project, model: PipelineModel) -> None:
    """Check all conditionals and callbacks; raise errors as `check_hook`."""
    renderer = Renderer(project, {**project.variables, **model.variables}, project.secrets)
    for hook in (*model.conditionals.values(), *model.callbacks.values()):
        check_hook(project, model, hook, renderer)


def check_hook(project: Project, model: PipelineModel, hook: Block, renderer: Renderer) -> None:
    """Check a conditional or callback without running it.

    Raises:
        ConfigError: its file is wrong, or it gates a block that is no source.
    """
    if hook.type == "conditional":
        for index, uuid in enumerate(hook.upstream):
            if model.blocks[uuid].type != "data_loader":
                raise ConfigError(
                    f"the conditional '{hook.uuid}' gates '{uuid}', but in an integration pipeline it gates a source",
                    where=model.where(hook.uuid, "upstream_blocks", index),
                    hint="name sources under its upstream_blocks: a destination that is left out would miss records",
                    code="block.wrong_pipeline",
                )
    check_block(project, model, hook, renderer)


def without(model: PipelineModel, sources: Collection[str]) -> PipelineModel:
    """Return a pipeline without some sources and the blocks that only they feed."""
    kept = [uuid for uuid, block in model.blocks.items() if block.type == "data_loader" and uuid not in sources]
    downstream = {uuid: block.downstream for uuid, block in model.blocks.items()}
    gone = {*sources, *reachable(sources, downstream)} - reachable(kept, downstream)
    return replace(
        model,
        blocks={
            uuid: replace(
                block,
                upstream=[above for above in block.upstream if above not in gone],
                downstream=[below for below in block.downstream if below not in gone],
            )
            for uuid, block in model.blocks.items()
            if uuid not in gone
        },
        conditionals={},
    )


def find_paths(model: PipelineModel, specs: Specs) -> tuple[dict[str, PathPlan], dict[str, list[str]]]:
    """Return each source's path to its destinations, and the mappers directly after it, by source uuid.

    Raises:
        ConfigError: a block leads nowhere, or stands where it can't.
    """
    downstream = check_places(
        model,
        sources=specs.sources,
        destinations=specs.destinations,
        between=[*specs.transforms, *specs.mappers],
    )
    mappers: dict[str, list[str]] = {}
    paths: dict[str, PathPlan] = {}
    for source in specs.sources:
        mappers[source], after = leading_mappers(specs.mappers, downstream, source)
        paths[source] = _path(model, specs, after, downstream)
        if not paths[source].all_sinks():
            raise leads_nowhere(model, source, "source")
    return paths, mappers


def _path(model: PipelineModel, specs: Specs, after: list[str], downstream: dict[str, list[str]]) -> PathPlan:
    transforms: list[TransformPlan] = []
    while len(after) == 1 and after[0] in specs.transforms:
        transforms.append(specs.transforms[after[0]])
        after = downstream[after[0]]
    sinks: list[str] = []
    branches: list[PathPlan] = []
    for uuid in after:
        if uuid in specs.mappers:
            raise misplaced_mapper(model, uuid)
        if uuid in specs.destinations:
            sinks.append(uuid)
        else:
            branches.append(_path(model, specs, [uuid], downstream))
    return PathPlan(transforms=transforms, sinks=sinks, branches=branches)
