"""`streamline output`: show what a block returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from streamline.cli.app import App, pass_app
from streamline.cli.output import count, json_option, print_json, print_table

if TYPE_CHECKING:
    from streamline.outputs.streams import StoredStream


@click.command("output")
@click.argument("pipeline")
@click.argument("block")
@click.option("--rows", "-n", default=10, show_default=True, type=click.IntRange(min=1), help="Number of rows.")
@json_option
@pass_app
def command(app: App, pipeline: str, block: str, rows: int, as_json: bool) -> None:
    """Show what BLOCK of the batch pipeline PIPELINE returned when it last completed. No block runs.

    Of a frame, a list, and each stream (of a source, or of a value in the same shape) the first rows are shown; of a
    dynamic block's child the outputs of every call.
    """
    from streamline.api import Pipeline, stored_streams

    opened = Pipeline(pipeline, app.project.root)
    streams = stored_streams(opened, block)
    if streams is not None:
        _print_streams(block, streams, rows, as_json=as_json)
        return
    value = opened.output(block)
    if value is None and not as_json:
        click.echo(f"{block}: no output (None).", err=True)
        return
    tables = _tables(value, rows)
    if tables:
        _print_tables(block, tables, as_json=as_json)
        return
    records, total = _records(value, rows)
    if as_json:
        print_json(_plain(records))
    elif records and all(isinstance(record, dict) for record in records):
        columns = list(dict.fromkeys(str(column) for record in records for column in record))
        print_table(columns, [[record.get(column) for column in columns] for record in records])
    else:
        for record in records:
            click.echo(app.mask(str(record)))
    click.echo(f"{block}: {count(total, 'row')}, {len(records):,} shown.", err=True)


class _Table(NamedTuple):
    """A stream: its name, how many rows it has, its columns, and the first rows."""

    stream: str
    total: int
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def _print_streams(block: str, streams: Sequence[StoredStream], most: int, *, as_json: bool) -> None:
    from streamline.outputs.stream_frames import first_rows

    tables = [_Table(stream.name, stream.rows, stream.columns, first_rows(stream, most)) for stream in streams]
    _print_tables(block, tables, as_json=as_json)


def _tables(value: Any, most: int) -> list[_Table]:
    """Return the streams of a value in the shape of a source's output; [] for another value."""
    tables = []
    for stream in value if isinstance(value, list) else [value]:
        match stream:
            case {"stream": {"stream": str(name)} | str(name), "columns": list(columns), "rows": list(rows)} if all(
                isinstance(row, list | tuple) and len(row) == len(columns) for row in rows[:most]
            ):
                tables.append(_Table(name, len(rows), list(map(str, columns)), rows[:most]))
            case _:
                return []
    return tables


def _print_tables(block: str, tables: Sequence[_Table], *, as_json: bool) -> None:
    if as_json:
        print_json([{**table._asdict(), "rows": _plain(table.rows)} for table in tables])
    else:
        for number, table in enumerate(tables):
            if number:
                click.echo()
            click.echo(f"{table.stream}: {count(table.total, 'row')}, {len(table.rows):,} shown")
            print_table(table.columns, table.rows)
    total, shown = sum(table.total for table in tables), sum(len(table.rows) for table in tables)
    click.echo(f"{block}: {count(len(tables), 'stream')}, {count(total, 'row')}, {shown:,} shown.", err=True)


def _records(value: Any, most: int) -> tuple[list[Any], int]:
    """Return the first rows of a value, and the number of all."""
    if isinstance(value, list):
        return value[:most], len(value)
    if hasattr(value, "to_pylist"):  # Arrow
        return value.slice(0, most).to_pylist(), len(value)
    if hasattr(value, "to_dicts"):  # Polars
        return value.head(most).to_dicts(), len(value)
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # pandas
        return value.head(most).to_dict("records"), len(value)
    return [value], 1


def _plain(records: Sequence[Any]) -> list[Any]:
    """Return JSON values; what JSON has no type for becomes text."""
    import msgspec

    return [msgspec.to_builtins(record, enc_hook=str, str_keys=True) for record in records]
