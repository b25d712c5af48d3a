"""Opens a source block: loads it, asks its tap what it can do, and gets its catalog."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import msgspec

from streamline.blocks.connector.mage_config import CATALOG_FILE
from streamline.blocks.connector.rotated_config import keep_written_back, with_written_back
from streamline.blocks.connector.spec import SourceSpec, load_source
from streamline.connectors.plugins import Plugin, resolve_plugin
from streamline.connectors.singer.capabilities import Capabilities, check_config, probe, tap_traits
from streamline.connectors.singer.catalog import Catalog, unknown_name
from streamline.connectors.singer.catalog_changes import CatalogWatch
from streamline.connectors.singer.discovery import Discovery, DiscoveryFailed, read_catalog_file
from streamline.connectors.singer.selection import TapTraits
from streamline.connectors.singer.settings import NO_SETTINGS
from streamline.errors import ConfigError
from streamline.project.render import Renderer

if TYPE_CHECKING:
    from streamline.blocks.connector.prepared import PreparedSource
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project
    from streamline.state.store import Store

Log = Callable[[str], None]


class OpenedSource(msgspec.Struct):
    """A source block with its tap's capabilities and catalog.

    Args:
        config: the tap's config, with what it wrote back in earlier runs.
        catalog: None for a tap without discovery.
        where: the block's file, for errors.
        keep_config: keeps the config that the tap wrote back into its file.
        changes: how the catalog differs from the one that was kept, in words.
        seen: names of streams that the tap has discovered, now or earlier.
        watch: compares the SCHEMAs of a run with the catalog.
    """

    block: Block
    spec: SourceSpec
    plugin: Plugin
    config: dict[str, Any]
    capabilities: Capabilities
    catalog: Catalog | None
    where: str
    keep_config: Callable[[dict[str, Any]], None]
    changes: list[str] = []
    seen: frozenset[str] = frozenset()
    watch: CatalogWatch | None = None

    @property
    def traits(self) -> TapTraits:
        """Return what selection needs to know about the tap."""
        return tap_traits(self.plugin, self.capabilities, self.config)

    def require_catalog(self) -> Catalog:
        """Return the catalog.

        Raises:
            ConfigError: the tap has no discovery, and the block no catalog.json.
        """
        if self.catalog is None:
            raise ConfigError(
                f"{self.plugin.name} has no discovery, so its streams are not known before a run",
                where=self.where,
                hint=f"describe them in {self.block.uuid}/catalog.json in the pipeline's folder",
                code="tap.no_discovery",
            )
        return self.catalog


async def open_source(
    project: Project,
    model: PipelineModel,
    block: Block,
    store: Store,
    run_dir: Path,
    *,
    spec: SourceSpec | None = None,
    run_id: str | None = None,
    layered: bool = True,
    refresh: bool = False,
    over: Catalog | None = None,
    discovered: Catalog | None = None,
    notify: Log | None = None,
    log: Log | None = None,
) -> OpenedSource:
    """Load a source block, ask its tap what it can do, and get its catalog.

    Args:
        run_dir: a folder (0700) for private files.
        spec: what the block says, where it was read already.
        run_id: the run that the tap's processes belong to, so that a later run can end what a killed one left.
        layered: lay the block's catalog.json over what the tap discovers.
        refresh: discover even if a catalog is kept.
        over: laid over the block's catalog.json.
        discovered: what the tap has discovered already; it is not asked again.
        notify: called with a sentence about each step that takes long.
        log: called with each masked line that the tap logs.

    Raises:
        ConfigError: something about the block, its plugin or its catalog is wrong.
        DiscoveryFailed: its tap failed to discover its streams.
    """
    masker = project.secrets.masker
    if spec is None:
        spec = load_source(block, Renderer(project, {**project.variables, **model.variables}, project.secrets))
    given = spec.config
    source = spec.source
    where = project.shown(block.file) if block.file else block.uuid

    def resolve() -> Plugin:
        return resolve_plugin(project, source, "tap", notify=notify, where=where)

    plugin = await anyio.to_thread.run_sync(resolve)
    if run_id is not None:
        plugin = plugin.for_run(run_id)
    config = with_written_back(given, store, masker, pipeline=model.uuid, block=block.uuid)
    capabilities = await probe(plugin, store=store, masker=masker)
    check_config(plugin, config, capabilities, where=where)

    def keep_config(written: dict[str, Any]) -> None:
        # Compared with what the user wrote, not with what was rotated before: only the user's change may win later.
        keep_written_back(given, written, store, masker, pipeline=model.uuid, block=block.uuid)

    discovery = Discovery(
        plugin,
        config,
        capabilities=capabilities,
        store=store,
        run_dir=run_dir,
        masker=masker,
        # What a function of the block asked for was asked before it said anything about streams.
        streams=spec.streams if discovered is None else NO_SETTINGS,
        log=log,
        config_changed=keep_config,
        discovered=discovered,
    )
    path = catalog_file(project, model, block)
    own = read_catalog_file(path, shown=project.shown(path)) if layered else None
    try:
        answer = await discovery.catalog(own, over, refresh=refresh)
    except (ConfigError, DiscoveryFailed) as error:
        if error.where != plugin.name:
            raise
        error.message, error.where = f"{plugin.name}: {error.message}", where
        raise
    if over is not None and answer.catalog is not None:
        _check_bookmarks(over, answer.catalog)
    # Discovery may have rotated a token already.
    config = with_written_back(given, store, masker, pipeline=model.uuid, block=block.uuid)
    return OpenedSource(
        block=block,
        spec=spec,
        plugin=plugin,
        config=config,
        capabilities=answer.capabilities,
        catalog=answer.catalog,
        where=where,
        keep_config=keep_config,
        changes=answer.changes,
        seen=answer.seen,
        watch=answer.watch,
    )


def _check_bookmarks(over: Catalog, catalog: Catalog) -> None:
    """Refuse bookmark columns, in what a block's function returned, that their streams do not have.

    Raises:
        ConfigError: naming the first.
    """
    for stream in over:
        known = catalog.get(stream.id) or stream
        # Only this key is surely the user's: a tap's own catalog may name keys that its schema lacks.
        if not stream.entry.get("bookmark_properties") or known.replication_method == "LOG_BASED":
            continue
        for column in stream.replication_keys:
            if known.properties and column not in known.properties:
                raise unknown_name("column", column, known.properties, of=stream.id, where=over.where)


def catalogs_of(prepared: PreparedSource, where: str) -> tuple[Catalog | None, Catalog | None]:
    """Return what is laid over a block's catalog.json, and what the tap has discovered already; None: nothing.

    Args:
        where: the block, for errors.
    """
    over, discovered = prepared.catalog, prepared.discovered
    return (
        Catalog(over, where=prepared.catalog_where or where) if over is not None else None,
        Catalog(discovered, where=where) if discovered is not None else None,
    )


def catalog_file(project: Project, model: PipelineModel, block: Block) -> Path:
    """Return the file with a source block's own catalog, which need not exist: in projects of Mage the pipeline's."""
    path = own_catalog_file(model, block)
    return model.path / CATALOG_FILE if project.mage and not path.is_file() else path


def own_catalog_file(model: PipelineModel, block: Block) -> Path:
    """Return the place of a block's catalog.json."""
    return model.path / block.uuid / "catalog.json"


@contextlib.contextmanager
def private_folder(project: Project, purpose: str) -> Iterator[Path]:
    """A folder (0700) for a command's private files; it is gone afterwards, also when the command is terminated."""
    runs = project.ensure_work_dir() / "runs"
    runs.mkdir(mode=0o700, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=runs))

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield folder
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(folder, ignore_errors=True)
