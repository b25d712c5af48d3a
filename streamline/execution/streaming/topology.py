"""What the blocks of a streaming pipeline are: sources, transformers, sinks; each file read and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.connector.json_values import json_value
from streamline.blocks.connector.spec import open_spec
from streamline.blocks.python.file import BlockFile
from streamline.connectors.registry import (
    Role,
    connector_name,
    find_connector,
    find_stream_connector,
    stream_connector_names,
)
from streamline.connectors.stream_connector import Side, StreamConnector, StreamContext
from streamline.errors import ConfigError
from streamline.execution.places import check_places, leading_mappers, leads_nowhere, misplaced_mapper
from streamline.execution.streaming.plan import PYTHON, SinkPlan, SourcePlan, TransformPlan
from streamline.execution.streaming.settings import key_path
from streamline.pipeline.graph import reachable
from streamline.pipeline.model import Block, PipelineModel, check_fits
from streamline.project.suggest import nearest, suggestion
from streamline.project.yamlfile import YamlFile

if TYPE_CHECKING:
    from streamline.project.render import Renderer

SINGER = "singer"
"""The connector of taps and targets."""

_ROLES: dict[str, Role] = {"source": "tap", "destination": "target"}
_SIDES: dict[str, Side] = {"data_loader": "source", "data_exporter": "destination"}


class Blocks(msgspec.Struct):
    """The blocks by what they are, and what is downstream of each; `mappers` are by tap, in their order."""

    sources: dict[str, SourcePlan] = {}
    transforms: dict[str, TransformPlan] = {}
    sinks: dict[str, SinkPlan] = {}
    downstream: dict[str, list[str]] = {}
    mappers: dict[str, list[Block]] = {}


def read_blocks(model: PipelineModel, renderer: Renderer, context: Callable[[str], StreamContext]) -> Blocks:
    """Read every block's file. Nothing is connected, and no user code runs.

    Args:
        context: returns what the connector of a block is described with.

    Raises:
        ConfigError: a file is wrong, or a block stands where it cannot.
    """
    for uuid in model.order():
        block = model.blocks[uuid]
        check_fits(model.type, block.type, block.language, where=model.where(uuid))
    by_type = {
        kind: [uuid for uuid in model.order() if model.blocks[uuid].type == kind]
        for kind in ("data_loader", "transformer", "data_exporter")
    }
    downstream = check_places(
        model, sources=by_type["data_loader"], destinations=by_type["data_exporter"], between=by_type["transformer"]
    )
    for what, kind in (("source", "data_loader"), ("transformer", "transformer")):
        for uuid in by_type[kind]:
            if not reachable([uuid], downstream).intersection(by_type["data_exporter"]):
                raise leads_nowhere(model, uuid, what)
    sources = {uuid: read_source(model, model.blocks[uuid], renderer, context(uuid)) for uuid in by_type["data_loader"]}
    yaml = {uuid for uuid in by_type["transformer"] if model.blocks[uuid].language == "yaml"}
    transforms = [uuid for uuid in by_type["transformer"] if uuid not in yaml]
    mappers, downstream = _without_mappers(model, sources, yaml, downstream)
    return Blocks(
        sources=sources,
        transforms={uuid: _transform(model, model.blocks[uuid], renderer) for uuid in transforms},
        sinks={uuid: _sink(model, model.blocks[uuid], renderer, context(uuid)) for uuid in by_type["data_exporter"]},
        # Readers of the data first: what changes it comes after them.
        downstream={uuid: sorted(below, key=transforms.__contains__) for uuid, below in downstream.items()},
        mappers={uuid: [model.blocks[mapper] for mapper in behind] for uuid, behind in mappers.items() if behind},
    )


def _without_mappers(
    model: PipelineModel, sources: Mapping[str, SourcePlan], mappers: set[str], downstream: dict[str, list[str]]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the mappers behind each tap, of whose processes they are a part, and what is downstream of the others.

    Raises:
        ConfigError: a mapper is not directly behind a tap, or not alone there.
    """
    singer = find_stream_connector(SINGER)
    behind: dict[str, list[str]] = {}
    others = {uuid: below for uuid, below in downstream.items() if uuid not in mappers}
    for uuid, source in sources.items():
        if source.connector is singer:
            behind[uuid], others[uuid] = leading_mappers(mappers, downstream, uuid)
    misplaced = next((each for below in others.values() for each in below if each in mappers), None)
    if misplaced is not None:
        raise misplaced_mapper(model, misplaced)
    return behind, others


def read_source(model: PipelineModel, block: Block, renderer: Renderer, context: StreamContext) -> SourcePlan:
    """Read the file of a source block, as `read_blocks` does."""
    name, connector, config, where = _read(model, block, renderer)
    traits = connector.describe_source(config, context, where)
    return SourcePlan(block=block, name=name, connector=connector, config=config, where=where, traits=traits)


def _sink(model: PipelineModel, block: Block, renderer: Renderer, context: StreamContext) -> SinkPlan:
    name, connector, config, where = _read(model, block, renderer)
    traits = connector.describe_sink(config, context, where)
    return SinkPlan(block=block, name=name, connector=connector, config=config, where=where, traits=traits)


def _read(
    model: PipelineModel, block: Block, renderer: Renderer
) -> tuple[str, StreamConnector, dict[str, Any], Callable[..., str]]:
    """Return the name of a block's connector, the connector, the config, and what names the lines of its keys."""
    if block.language == "python":
        from streamline.blocks.python.streaming import python_connector

        python: StreamConnector = python_connector(_file_of(model, block, renderer), block.configuration)
        return PYTHON, python, block.configuration, lambda *keys: model.where(block.uuid, *key_path(keys))
    file = open_spec(block, renderer)
    name, key = _name(file, _SIDES[block.type], renderer)
    connector = find_stream_connector(name)
    if key != "connector_type" and find_connector(connector_name(name, _ROLES[key])) is not None:
        connector = None  # `source: files` is the tap, in every pipeline
    singer = connector is None and key != "connector_type"
    if singer:
        connector = find_stream_connector(SINGER)
    if connector is None:
        hint = suggestion(name, stream_connector_names(), what="connectors")
        raise file.error(
            f"there is no connector '{name}' for streaming pipelines", (key,), hint=hint, code="connector.unknown"
        )

    def where(*keys: Any) -> str:
        return file.where(key_path(keys))

    def refuse(got: str, hint: str) -> ConfigError:
        return file.error(got, hint=hint, code="setting.invalid")

    config = {
        each: json_value(renderer.part(file, each), refuse)
        for each in file.mapping()
        if each != "connector_type" and (singer or each not in ("source", "destination"))
    }
    if renderer.secrets is not None:
        renderer.secrets.masker.add_config(config)
    return name, connector, config, where


def _name(file: YamlFile, side: Side, renderer: Renderer) -> tuple[str, str]:
    """Return the connector that a file names, and the key that does."""
    keys = file.mapping()
    named = [key for key in ("connector_type", "source", "destination") if key in keys]
    wrong = next((key for key in named if key not in ("connector_type", side)), None)
    if wrong is not None:
        raise file.error(
            f"the block is a {side}, and its file names a {wrong}",
            (wrong,),
            hint=f"write `{side}:` or `connector_type:`, or change the block's type in metadata.yaml",
            code="block.wrong_kind",
        )
    if len(named) != 1:
        near = nearest("connector_type", map(str, keys), limit=1)
        raise file.error(
            f"a block of a streaming pipeline names its connector once: `connector_type:` or `{side}:`",
            tuple(named[1:2]),
            hint=f"did you mean `connector_type:` instead of `{near[0]}:`?"
            if near and not named
            else "for example `connector_type: kafka`",
            code="block.wrong_kind",
        )
    name = renderer.part(file, named[0])
    if not isinstance(name, str) or not name.strip():
        raise file.error(f"{named[0]} must be a name", (named[0],), code="setting.invalid")
    return name.strip(), named[0]


def _file_of(model: PipelineModel, block: Block, renderer: Renderer) -> BlockFile:
    path = str(block.file or model.yaml.path)
    shown = renderer.project.shown(block.file) if renderer.project is not None and block.file is not None else None
    return BlockFile(block.uuid, path, block.content, shown)


def _transform(model: PipelineModel, block: Block, renderer: Renderer) -> TransformPlan:
    from streamline.blocks.python.messages.check import check_transformer

    file = _file_of(model, block, renderer)
    if renderer.project is not None:
        check_transformer(renderer.project, block, file, model.where(block.uuid))
    return TransformPlan(block=block, file=file)
