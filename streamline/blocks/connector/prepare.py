"""Works out, in a worker process, what a source or destination block of a batch pipeline reads or writes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from streamline.blocks.call import GATES
from streamline.blocks.connector.decorated import prepare_destination, prepare_source
from streamline.blocks.connector.functions import reads_arguments
from streamline.blocks.connector.inputs import Inputs, read_inputs
from streamline.blocks.connector.prepared import Export, Prepared, PreparedDestination, PreparedSource
from streamline.blocks.connector.role import connector_role
from streamline.blocks.connector.source import own_catalog_file
from streamline.blocks.connector.spec import DestinationSpec, MapperSpec, SourceSpec, load_spec
from streamline.blocks.connector.upstream import StreamsInput
from streamline.blocks.python.check import block_tree
from streamline.connectors.singer.catalog import Catalog, layer
from streamline.connectors.singer.discovery import read_catalog_file
from streamline.errors import ConfigError
from streamline.pipeline.reader import load_pipeline
from streamline.project.yamlfile import PathKey

if TYPE_CHECKING:
    from streamline.blocks.call import BlockCall, Input, UpstreamOutput
    from streamline.pipeline.model import PipelineModel

ReadModel = Callable[[], "PipelineModel"]


def prepare(call: BlockCall) -> Prepared:
    """Return what the block reads or writes.

    Raises:
        ConfigError: its file is wrong, or what its code returned.
        UserError: its code raised.
        StreamlineError: its code asked the source for its streams, and that failed.
    """
    block = call.block
    model = functools.cache(lambda: load_pipeline(call.project, call.pipeline))

    def where(path: Sequence[PathKey]) -> str:
        return model().where(block.uuid, "configuration", *path)

    inputs = read_inputs(block, where, mage=call.project.mage)
    if block.language != "python":
        return _prepare_yaml(call, inputs, model)
    role = connector_role(block) or "destination"
    tree = block_tree(call.project, block)
    arguments = [
        _argument(upstream, inputs)
        for upstream in call.inputs
        if inputs.passes(upstream.uuid) and reads_arguments(tree, upstream.uuid, role)
    ]
    if role == "source":
        return prepare_source(call, arguments, model)
    prepared = prepare_destination(call, arguments, _exports(call, inputs, model))
    return _with_own_catalog(prepared, call, model())


def _prepare_yaml(call: BlockCall, inputs: Inputs, model: ReadModel) -> Prepared:
    match load_spec(call.block, call.renderer, streaming=False):
        case SourceSpec() as source:
            return PreparedSource(spec=source)
        case DestinationSpec() as destination:
            prepared = PreparedDestination(spec=destination, exports=_exports(call, inputs, model))
            return _with_own_catalog(prepared, call, model())
        case MapperSpec():
            raise mapper_refused(call.where)


def mapper_refused(where: str) -> ConfigError:
    """Return the error for a mapper in a batch pipeline."""
    return ConfigError(
        "mappers run in integration and streaming pipelines only",
        where=where,
        hint="change the records in a transformer in Python or SQL",
        code="block.wrong_pipeline",
    )


def _argument(upstream: Input, inputs: Inputs) -> UpstreamOutput:
    settings = inputs.of(upstream.uuid)
    return StreamsInput(upstream, settings) if settings.streams or settings.catalog else upstream


def _exports(call: BlockCall, inputs: Inputs, model: ReadModel) -> list[Export]:
    """Return the upstream outputs that a destination writes: not those that only say whether to go on."""
    exports = []
    for index, upstream in enumerate(call.inputs):
        settings = inputs.of(upstream.uuid)
        if settings.input_only or upstream.type in GATES:
            continue
        if upstream.type == "data_exporter" and connector_role(model().block(upstream.uuid)) == "destination":
            continue  # destinations have no output
        streams = list(settings.streams) or None
        exports.append(Export(index=index, block=upstream.uuid, streams=streams, where=settings.where))
    return exports


def _with_own_catalog(prepared: PreparedDestination, call: BlockCall, model: PipelineModel) -> PreparedDestination:
    """Lay what a destination's functions returned over its catalog.json."""
    path = own_catalog_file(model, call.block)
    own = read_catalog_file(path, shown=call.project.shown(path))
    if own is None:
        return prepared
    if prepared.catalog is None:
        prepared.catalog, prepared.catalog_where = own.data, own.where or ""
    else:
        prepared.catalog = layer(own, Catalog(prepared.catalog, where=prepared.catalog_where)).data
    return prepared
