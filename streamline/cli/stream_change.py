"""A change of a block's stream settings, checked against what its tap offers before it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamline.blocks.connector.role import exported_upstream
from streamline.cli.app import App
from streamline.cli.blocks import Side, blocks_of
from streamline.cli.opened_sources import open_sources
from streamline.cli.output import print_diff
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.blocks.connector.stream_edits import Entries
    from streamline.connectors.singer.catalog import Catalog, CatalogStream
    from streamline.connectors.singer.settings import StreamSettings
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.state.store import Store


class StreamChange:
    """A change of the stream settings of one block.

    Raises:
        ConfigError: the block's file can't be edited by commands, or its tap can't be asked for its streams.
    """

    def __init__(self, app: App, model: PipelineModel, store: Store, side: Side, block: Block) -> None:
        from streamline.blocks.connector.source import private_folder
        from streamline.blocks.connector.stream_edits import editable_file

        self._app = app
        self._model = model
        self._side = side
        self._block = block
        self._file: Path = editable_file(app.project, block)
        self._shown = app.project.shown(self._file)
        move_stored(app, model, store)
        feeding = [block] if side == "source" else upstream_sources(model, block)
        with private_folder(app.project, "streams") as folder:
            sources = open_sources(app, model, store, feeding, folder)
        self._source = sources[0] if side == "source" else None
        catalogs = [source.catalog for source in sources if source.catalog is not None]
        # Where the streams of one tap are not known, any name may be right.
        self._complete = len(catalogs) == len(sources) and not (side == "destination" and upstream_tables(model, block))
        self._catalogs = catalogs if self._complete else []

    def name(self, name: str, entries: Entries) -> str:
        """Return the name under which a stream's settings stand, or are to stand: its id. Globs stay.

        Raises:
            ConfigError: there is no such stream.
        """
        from streamline.connectors.singer.catalog import is_glob, matches, unknown_stream

        for catalog in self._catalogs:
            if (stream := catalog.find(name)) is not None:
                return next((known for known in self._names(stream, catalog) if known in entries), stream.id)
        streams = [stream for catalog in self._catalogs for stream in catalog]
        if is_glob(name):
            if streams and not any(matches(name, (stream.id, stream.stream)) for stream in streams):
                raise ConfigError(f"no stream matches {name!r}", where=self._block.uuid, code="stream.unknown")
            return name
        if name in entries or not self._complete:
            return name
        raise unknown_stream(name, streams, where=self._block.uuid)

    def write(self, change: Callable[[Entries], None], *, keep_selection: bool = False) -> None:
        """Change the file, unless the next run could not honour the change, and print the difference.

        Args:
            keep_selection: streams that are not selected stay so, though they are named now.

        Raises:
            ConfigError: the change can't be honoured; the file is as it was.
        """
        from streamline.blocks.connector.stream_edits import edit_streams
        from streamline.project.yamledit import edit_file

        def edited(text: str) -> str:
            before = self._selected(text, strict=False)
            changed = edit_streams(text, self._side, change, shown=self._shown)
            added = [] if before is None else [id_ for id_ in self._selected(changed) or () if id_ not in before]
            if keep_selection and added:

                def deselect(entries: Entries) -> None:
                    change(entries)
                    for id_ in added:
                        entries.setdefault(self.name(id_, entries), {})["selected"] = False

                changed = edit_streams(text, self._side, deselect, shown=self._shown)
            self._check(changed)
            return changed

        before, after = edit_file(self._file, edited, shown=self._shown)
        if not print_diff(before, after, self._shown):
            click.echo(f"{self._shown} says so already.")

    def _names(self, stream: CatalogStream, catalog: Catalog) -> tuple[str, ...]:
        from streamline.connectors.singer.selection import user_names

        if self._side == "source":
            return user_names(stream, catalog)
        return tuple(dict.fromkeys((stream.id, stream.stream, *stream.names)))

    def _settings(self, text: str) -> StreamSettings:
        from streamline.blocks.connector.spec import DestinationSpec, SourceSpec, load_spec
        from streamline.execution.batch.outside_run import renderer_of

        renderer = renderer_of(self._app.project, self._model, self._block)
        spec = load_spec(self._block, renderer, text=text)
        assert isinstance(spec, SourceSpec | DestinationSpec)
        return spec.streams

    def _selected(self, text: str, *, strict: bool = True) -> list[str] | None:
        """Return the ids of the streams that are selected; None where the settings are wrong and need not be right."""
        from streamline.connectors.singer.selection import selected_streams
        from streamline.connectors.singer.settings import resolve_destination

        try:
            settings = self._settings(text)
        except ConfigError:
            if strict:
                raise
            return None
        if self._side == "source":
            return [stream.id for catalog in self._catalogs for stream in selected_streams(catalog, settings)]
        return [
            stream.id
            for catalog in self._catalogs
            for stream in catalog
            if resolve_destination(settings, self._names(stream, catalog)) is not None
        ]

    def _check(self, text: str) -> None:
        from streamline.connectors.singer.selection import choose

        settings = self._settings(text)
        if self._source is not None:
            choose(self._source.require_catalog(), settings, tap=self._source.traits, where=self._source.where)


def move_stored(app: App, model: PipelineModel, store: Store) -> None:
    from streamline.blocks.connector.stored_settings import move_stored_settings

    move_stored_settings(app.project, model, store)


def upstream_sources(model: PipelineModel, destination: Block) -> list[Block]:
    """Return the sources whose records reach a destination."""
    if model.stores_outputs:  # what comes from other blocks is not their streams
        above = set(exported_upstream(destination))
    else:
        above = {destination.uuid}
        for uuid in reversed(model.order()):
            if uuid in above:
                above.update(model.blocks[uuid].upstream)
    return [block for block in blocks_of(model, "source") if block.uuid in above]


def upstream_tables(model: PipelineModel, destination: Block) -> list[str]:
    """Return the upstream blocks of a batch pipeline whose outputs a destination exports as streams of their names."""
    if not model.stores_outputs:
        return []
    sources = {block.uuid for block in blocks_of(model, "source")}
    return [uuid for uuid in exported_upstream(destination) if uuid not in sources]
