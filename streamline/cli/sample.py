"""`streamline sample`: show the first records of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App, pass_app
from streamline.cli.blocks import pick_block, tap_log
from streamline.cli.opened_sources import open_sources
from streamline.cli.output import count, json_option, print_json, print_table
from streamline.pipeline.reader import load_pipeline

if TYPE_CHECKING:
    from streamline.blocks.connector.source import OpenedSource


@click.command("sample")
@click.argument("pipeline")
@click.argument("stream")
@click.option("--block", metavar="UUID", help="The source block; required if there are several.")
@click.option("--records", "-n", default=10, show_default=True, type=click.IntRange(min=1), help="Number of records.")
@click.option(
    "--timeout", default=120.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="Seconds to wait."
)
@json_option
@pass_app
def command(
    app: App, pipeline: str, stream: str, block: str | None, records: int, timeout: float, as_json: bool
) -> None:
    """Show the first records of STREAM of a source of PIPELINE.

    Reads only this stream, from its beginning, and stops the tap after the requested number of records. Writes nothing
    and changes no bookmark.
    """
    import anyio

    from streamline.blocks.connector.source import private_folder
    from streamline.connectors.singer.build import Workspace
    from streamline.connectors.singer.sample import sample

    model = load_pipeline(app.project, pipeline)
    source_block = pick_block(model, "source", block)
    log = tap_log(app)

    async def read(source: OpenedSource) -> list[bytes]:
        workspace = Workspace(
            run_dir=folder,
            root=app.project.root,
            masker=app.project.secrets.masker,
            log=lambda _, line: log(line) if log is not None else None,
        )
        return await sample(
            source.plugin,
            source.config,
            stream,
            workspace,
            catalog=source.catalog,
            streams=source.spec.streams,
            capabilities=source.capabilities,
            records=records,
            timeout=timeout,
            where=source.where,
            on_config_change=source.keep_config,
        )

    with app.store() as store, private_folder(app.project, "sample") as folder:
        (source,) = open_sources(app, model, store, [source_block], folder)
        sampled = anyio.run(read, source)
    if as_json:
        import msgspec

        print_json([msgspec.Raw(record) for record in sampled])
        return
    rows = [_decoded(record) for record in sampled]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print_table(columns, [[_shown(row.get(column)) for column in columns] for row in rows])
    click.echo(f"{stream}: {count(len(rows), 'record')} shown." if rows else f"{stream} has no records.", err=True)


def _decoded(record: bytes) -> dict[str, Any]:
    from streamline.flow.codecs import jsontext

    value = jsontext.decode(record)
    return value if isinstance(value, dict) else {"record": value}


def _shown(value: object) -> object:
    from streamline.flow.codecs import jsontext

    # A number is shown with all its digits.
    return value if value is None or isinstance(value, bool | str) else jsontext.encode(value).decode()
