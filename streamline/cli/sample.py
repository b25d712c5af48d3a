"""`streamline sample`: the first records of a stream, straight from its tap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App, pass_app
from streamline.cli.blocks import load_model, pick_block, say, tap_log
from streamline.cli.output import count, json_option, print_json, print_table

if TYPE_CHECKING:
    from streamline.blocks.connector.source import OpenedSource


@click.command("sample")
@click.argument("pipeline")
@click.argument("stream")
@click.option("--block", metavar="UUID", help="The source block; needed where there are several.")
@click.option("--records", "-n", default=10, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option(
    "--timeout", default=120.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="Seconds to wait."
)
@json_option
@pass_app
def command(
    app: App, pipeline: str, stream: str, block: str | None, records: int, timeout: float, as_json: bool
) -> None:
    """Show the first records of STREAM.

    The tap of PIPELINE's source is started for this stream alone, from its beginning, and stopped once it has sent
    enough. Nothing is written, and no position moves.
    """
    import anyio

    from streamline.blocks.connector.source import open_source, private_folder
    from streamline.connectors.singer.sample import sample

    model = load_model(app, pipeline)
    source_block = pick_block(model, "source", block)

    async def run() -> tuple[OpenedSource, list[bytes]]:
        source = await open_source(app.project, model, source_block, store, folder, notify=say, log=tap_log(app))
        found = await sample(
            source.plugin,
            source.config,
            stream,
            catalog=source.catalog,
            streams=source.spec.streams,
            capabilities=source.capabilities,
            run_dir=folder,
            masker=app.project.secrets.masker,
            records=records,
            timeout=timeout,
            log=tap_log(app),
            where=source.where,
        )
        return source, found

    with app.store() as store, private_folder(app.project, "sample") as folder:
        _, found = anyio.run(run)
    if as_json:
        import msgspec

        print_json([msgspec.Raw(record) for record in found])
        return
    rows = [_decoded(record) for record in found]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print_table(columns, [[_shown(row.get(column)) for column in columns] for row in rows])
    click.echo(f"{stream}: {count(len(found), 'record')} shown." if found else f"{stream} has no records.", err=True)


def _decoded(record: bytes) -> dict[str, Any]:
    from streamline.flow.codecs import jsontext

    found = jsontext.decode(record)
    return found if isinstance(found, dict) else {"record": found}


def _shown(value: object) -> object:
    from streamline.flow.codecs import jsontext

    return jsontext.encode(value).decode() if isinstance(value, dict | list) else value
