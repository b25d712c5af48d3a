"""Works out, in a worker process, what a source or destination block of a batch pipeline reads or writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamline.blocks.connector.prepared import Export, Prepared, PreparedDestination, PreparedSource
from streamline.blocks.connector.spec import DestinationSpec, SourceSpec, load_spec
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.blocks.call import BlockCall
    from streamline.pipeline.model import Block
    from streamline.project.project import Project
    from streamline.project.render import Renderer


def prepare(call: BlockCall) -> Prepared:
    """Return what the block reads or writes.

    Raises:
        ConfigError: its file is wrong.
        UserError: its code raised.
    """
    match load_spec(call.block, call.renderer):
        case SourceSpec() as source:
            return PreparedSource(spec=source)
        case DestinationSpec() as destination:
            exports = [Export(index=number, block=upstream.uuid) for number, upstream in enumerate(call.inputs)]
            return PreparedDestination(spec=destination, exports=exports)
        case _:
            raise ConfigError(
                "mappers run in integration pipelines only",
                where=call.where,
                hint="change the records in a transformer in Python or SQL",
                code="block.wrong_pipeline",
            )


def check(project: Project, block: Block, renderer: Renderer) -> None:
    """Check the block's file as far as that can be done before its upstream blocks have run.

    Raises:
        ConfigError: it is wrong.
    """
