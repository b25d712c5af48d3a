"""Opens source blocks for commands: of any pipeline, in YAML or Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamline.cli.app import App
from streamline.cli.blocks import say, tap_log

if TYPE_CHECKING:
    from streamline.blocks.connector.prepared import PreparedSource
    from streamline.blocks.connector.source import OpenedSource
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.state.store import Store


def open_sources(
    app: App,
    model: PipelineModel,
    store: Store,
    blocks: Sequence[Block],
    folder: Path,
    *,
    layered: bool = True,
    refresh: bool = False,
) -> list[OpenedSource]:
    """Open source blocks: what they say, what their taps can do, their catalogs.

    Args:
        folder: private (0700), for files.
        layered: with the block's catalog.json and the catalog of its function, instead of what the tap discovers alone.
        refresh: discover even if a catalog is kept.

    Raises:
        ConfigError: something is wrong, or a block uses an output that is not stored.
        DiscoveryFailed: a tap failed.
    """
    import anyio

    from streamline.blocks.connector.prepared import PreparedSource
    from streamline.errors import StreamlineError
    from streamline.execution.batch.outside_run import prepared_blocks

    prepared = prepared_blocks(app.project, model, blocks, store, folder)

    async def open_all() -> list[OpenedSource]:
        opened = []
        for block in blocks:
            known = prepared[block.uuid]
            if isinstance(known, StreamlineError):
                raise known
            assert isinstance(known, PreparedSource)
            opened.append(await _open(app, model, store, block, known, folder, layered=layered, refresh=refresh))
        return opened

    return anyio.run(open_all)


async def _open(
    app: App,
    model: PipelineModel,
    store: Store,
    block: Block,
    prepared: PreparedSource,
    folder: Path,
    *,
    layered: bool,
    refresh: bool,
) -> OpenedSource:
    from streamline.blocks.connector.source import catalogs_of, open_source

    where = app.project.shown(block.file) if block.file is not None else block.uuid
    over, discovered = catalogs_of(prepared, where)
    return await open_source(
        app.project,
        model,
        block,
        store,
        folder,
        spec=prepared.spec,
        layered=layered,
        refresh=refresh,
        over=over if layered else None,
        discovered=discovered,
        notify=say,
        log=tap_log(app),
    )
