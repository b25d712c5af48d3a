"""Asks a source's tap for its catalog on behalf of the block's functions: only if one wants it, and once."""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio

from streamline.blocks.connector.source import OpenedSource, catalog_file, open_source
from streamline.blocks.connector.spec import SourceSpec
from streamline.connectors.singer.catalog import Catalog, layer, needs_discovery
from streamline.connectors.singer.discovery import read_catalog_file
from streamline.errors import StreamlineError
from streamline.flow.items import JSONObject
from streamline.state import project_store

if TYPE_CHECKING:
    from streamline.blocks.call import BlockCall
    from streamline.pipeline.model import PipelineModel


class AskedSource:
    """The source that a block names, with the config that its function returned.

    Attributes:
        discovered: the catalog that its tap discovered, as it is; None: it was not asked, or has no discovery.
        failure: why it could not be had; asked again, it is raised again.
    """

    def __init__(self, call: BlockCall, model: Callable[[], PipelineModel], spec: SourceSpec) -> None:
        self._call = call
        self._model = model
        self._spec = spec
        self._catalog: Catalog | None = None
        self.discovered: JSONObject | None = None
        self.failure: StreamlineError | None = None

    def catalog(self) -> JSONObject:
        """Return what the tap discovers; of a tap without discovery the block's catalog.json. The caller may change it.

        Raises:
            DiscoveryFailed: the tap failed to discover its streams.
            ConfigError: something about the plugin, its config or its catalog is wrong; there is no catalog.
        """
        return copy.deepcopy(self._known().data)

    def streams(self) -> list[str]:
        """Return the ids of the streams in that catalog. Raises errors as `catalog`."""
        return [stream.id for stream in self._known()]

    def layered(self, over: Catalog | None) -> Catalog | None:
        """Return the catalog that the block reads by, as far as it is known without asking the tap.

        Args:
            over: what the block's function returned.

        Raises:
            ConfigError: a stream without a schema in `over` or catalog.json does not exist.
        """
        if over is not None and not needs_discovery(over):
            return over
        if self._catalog is None:
            return None
        known = self._catalog
        for overlay in (self._own(), over):
            known = layer(known, overlay) if overlay is not None else known
        return known

    def _known(self) -> Catalog:
        if self.failure is not None:
            raise self.failure
        if self._catalog is None:
            try:
                self._catalog = self._ask()
            except StreamlineError as error:
                self.failure = error
                raise
        return self._catalog

    def _ask(self) -> Catalog:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            opened = self._open()
        else:  # the function that asks is `async def`
            with ThreadPoolExecutor(1) as thread:
                opened = thread.submit(self._open).result()
        for change in opened.changes:
            self._call.warn(f"{self._call.block.uuid}: {change}")
        if opened.catalog is not None:
            self.discovered = opened.catalog.data
            return opened.catalog
        return self._own() or opened.require_catalog()

    def _open(self) -> OpenedSource:
        call = self._call
        with project_store(call.project) as store:
            opening = functools.partial(
                open_source,
                call.project,
                self._model(),
                call.block,
                store,
                call.scratch,
                spec=self._spec,
                run_id=call.run_id,
                layered=False,
                refresh=call.refresh,
                notify=call.log,
                log=call.log,
            )
            return anyio.run(opening)

    def _own(self) -> Catalog | None:
        path = catalog_file(self._call.project, self._model(), self._call.block)
        return read_catalog_file(path, shown=self._call.project.shown(path))
