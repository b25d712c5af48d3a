"""`streamline discover`: list the streams of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App, pass_app
from streamline.cli.blocks import pick_block, sources_of
from streamline.cli.opened_sources import open_sources
from streamline.cli.output import count, json_option, print_json, print_table
from streamline.pipeline.reader import load_pipeline

if TYPE_CHECKING:
    from streamline.blocks.connector.source import OpenedSource
    from streamline.connectors.singer.catalog import CatalogStream


@click.command("discover")
@click.argument("pipeline")
@click.argument("block", required=False)
@json_option
@click.option("--block", "named", metavar="UUID", help="The same as BLOCK.")
@click.option("--cached", is_flag=True, help="Show the cached catalog if the tap and its configuration are unchanged.")
@pass_app
def command(app: App, pipeline: str, block: str | None, named: str | None, as_json: bool, cached: bool) -> None:
    """Discover the streams of the source BLOCK, or of all sources of PIPELINE.

    --json prints the tap's catalog; for several sources, an object {block: catalog}. Save it as
    pipelines/PIPELINE/BLOCK/catalog.json and edit it to override what the tap discovers.
    """
    from streamline.blocks.connector.source import private_folder

    model = load_pipeline(app.project, pipeline)
    uuid = block or named
    blocks = [pick_block(model, "source", uuid)] if uuid else sources_of(model)
    with app.store() as store, private_folder(app.project, "discover") as folder:
        sources = open_sources(app, model, store, blocks, folder, layered=False, refresh=not cached)
    if as_json:
        catalogs = {source.block.uuid: source.require_catalog().data for source in sources}
        print_json(catalogs if len(catalogs) > 1 else next(iter(catalogs.values())))
        return
    for source in sources:
        _show(source, headed=len(sources) > 1)


def _show(source: OpenedSource, *, headed: bool) -> None:
    catalog = source.require_catalog()
    if headed:
        click.echo(f"{source.block.uuid} ({source.plugin.name})")
    print_table(
        ["STREAM", "NAME", "COLUMNS", "KEY", "REPLICATION", "PARENT", "BY DEFAULT"],
        [_row(stream) for stream in catalog],
        empty="The tap has no streams.",
    )
    click.echo(f"{source.plugin.name} has {count(len(catalog), 'stream')}.", err=True)


def _row(stream: CatalogStream) -> list[Any]:
    method = stream.replication_method or "the tap decides"
    keys = stream.replication_keys or stream.valid_replication_keys
    by_default = "unsupported" if stream.unsupported else stream.selected_by_default
    return [
        stream.id,
        stream.stream,
        len(stream.properties) or None,
        stream.key_properties,
        f"{method} ({', '.join(keys)})" if keys else method,
        stream.parent,
        by_default,
    ]
