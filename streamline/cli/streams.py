"""`streamline streams`: the streams of a pipeline, and their settings, which stand in the blocks' YAML files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App, pass_app
from streamline.cli.blocks import Side, blocks_of, pick_block, side_of, sources_of
from streamline.cli.opened_sources import open_sources
from streamline.cli.output import json_option, masked_values, print_json, print_table
from streamline.cli.stream_change import StreamChange, move_stored, upstream_sources, upstream_tables
from streamline.errors import ConfigError
from streamline.pipeline.reader import load_pipeline

if TYPE_CHECKING:
    from streamline.blocks.connector.source import OpenedSource
    from streamline.connectors.singer.settings import Resolved, StreamSettings
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.state.store import Store

block_option = click.option("--block", metavar="UUID", help="The block; needed where there are several.")
pipeline_argument = click.argument("pipeline")


@click.group("streams")
def command() -> None:
    """Show and change the settings of streams.

    The settings stand under `streams:` in the blocks' YAML files. Changes are made there; the next run reads them.
    """


@command.command("list")
@pipeline_argument
@click.argument("stream", required=False)
@block_option
@json_option
@pass_app
def list_(app: App, pipeline: str, stream: str | None, block: str | None, as_json: bool) -> None:
    """List the streams of PIPELINE's sources, how they are read, and their settings.

    STREAM is a name or a glob. Settings of destinations are listed under the streams that reach them.
    """
    model = load_pipeline(app.project, pipeline)
    with app.store() as store:
        move_stored(app, model, store)
        rows = _listed(app, model, store, stream, block)
    if as_json:
        print_json(masked_values(rows))
        return
    several = len({row["block"] for row in rows}) > 1
    print_table(
        [*(["BLOCK"] if several else []), "STREAM", "SELECTED", "METHOD", "BOOKMARK", "KEY", "PARALLEL", "SETTINGS"],
        [
            [
                *([row["block"]] if several else []),
                row["stream"],
                row["selected"],
                row.get("replication_method"),
                row.get("bookmark_properties"),
                row.get("key_properties"),
                row.get("run_in_parallel"),
                "; ".join(_setting_text(name, setting["value"]) for name, setting in row["settings"].items()),
            ]
            for row in rows
        ],
        empty="There is no such stream." if stream else "No stream is known: no source discovers one.",
    )


@command.command("set")
@pipeline_argument
@click.argument("stream")
@click.argument("settings", nargs=-1, required=True, metavar="KEY=VALUE...")
@block_option
@pass_app
def set_(app: App, pipeline: str, stream: str, settings: tuple[str, ...], block: str | None) -> None:
    """Change settings of STREAM (a name or a glob) in its block's YAML file, and print the change.

    VALUE is JSON or text; lists may be written a,b or [a, b]. An empty VALUE removes the setting.
    """
    from streamline.blocks.connector.stream_edits import set_settings
    from streamline.connectors.singer.settings import check_setting

    model = load_pipeline(app.project, pipeline)
    pairs = [_pair(text) for text in settings]
    side, target = _block_to_set(model, block, [key for key, _ in pairs])
    values = {key: check_setting(side, key, _value(key, text), where=f"{key}={text}") for key, text in pairs if text}
    unset = [key for key, text in pairs if not text]
    with app.store() as store:
        change = StreamChange(app, model, store, side, target)
        change.write(
            lambda entries: set_settings(entries, change.name(stream, entries), values, unset),
            keep_selection=not any(key == "selected" for key, _ in pairs),
        )


@command.command("select")
@pipeline_argument
@click.argument("streams", nargs=-1, required=True, metavar="STREAM|GLOB...")
@click.option("--off", is_flag=True, help="Deselect them.")
@click.option("--only", is_flag=True, help="Deselect all others.")
@click.option("--default", "default", is_flag=True, help="Select them if the catalog does.")
@block_option
@pass_app
def select(
    app: App, pipeline: str, streams: tuple[str, ...], off: bool, only: bool, default: bool, block: str | None
) -> None:
    """Select streams of a source (names or globs) in its YAML file, and print the change."""
    if off + only + default > 1:
        raise click.UsageError("--off, --only and --default exclude each other.")
    from streamline.blocks.connector.stream_edits import select_streams
    from streamline.connectors.singer.settings import DEFAULT

    model = load_pipeline(app.project, pipeline)
    with app.store() as store:
        change = StreamChange(app, model, store, "source", pick_block(model, "source", block))
        change.write(
            lambda entries: select_streams(
                entries, [change.name(name, entries) for name in streams], DEFAULT if default else not off, only=only
            )
        )


def _block_to_set(model: PipelineModel, block: str | None, keys: Sequence[str]) -> tuple[Side, Block]:
    """Return the block to change: `--block`, or the only one on the side that has these settings."""
    from streamline.connectors.singer.settings import setting_names
    from streamline.project.suggest import suggestion

    sides: list[Side] = ["source", "destination"]
    if block is not None:
        side = side_of(model, block)
        return side, pick_block(model, side, block)
    known = {side: setting_names(side) for side in sides}
    for key in keys:
        if not any(key in names for names in known.values()):
            names = sorted({name for names in known.values() for name in names})
            raise ConfigError(
                f"streams have no setting {key!r}", hint=suggestion(key, names, what="settings"), code="setting.unknown"
            )
    possible = [side for side in sides if all(key in known[side] for key in keys)]
    if not possible:
        raise ConfigError(
            "these settings belong to different blocks", hint="set them one by one", code="block.ambiguous"
        )
    if len(possible) > 1:
        uuids = [each.uuid for side in possible for each in blocks_of(model, side)]
        raise ConfigError(
            f"source and destination both have {', '.join(keys)}",
            where=model.uuid,
            hint=f"add --block {'|'.join(uuids)}",
            code="block.ambiguous",
        )
    return possible[0], pick_block(model, possible[0], None)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise click.UsageError(f"'{text}' is not KEY=VALUE.")
    return key.strip(), value


def _value(key: str, text: str) -> Any:
    lists = ("bookmark_properties", "unique_constraints", "columns", "partition_keys")
    try:
        value = json.loads(text)
    except ValueError:
        if key not in lists:
            return text
        listed = text.strip()
        if listed.startswith("[") and listed.endswith("]"):  # as in YAML
            listed = listed[1:-1]
        return [item.strip() for item in listed.split(",") if item.strip()]
    # A name that looks like a number is still a name.
    return value if isinstance(value, list | dict | bool) or key == "max_bad_records" else text


def _listed(
    app: App, model: PipelineModel, store: Store, stream: str | None, block: str | None
) -> list[dict[str, Any]]:
    side = side_of(model, block) if block is not None else None
    destinations = [each for each in blocks_of(model, "destination") if block in (None, each.uuid)]
    from streamline.blocks.connector.source import private_folder

    if side == "source":
        wanted = [pick_block(model, "source", block)]
    elif side == "destination":
        wanted = upstream_sources(model, destinations[0])
    else:
        alone = model.stores_outputs and destinations and not blocks_of(model, "source")
        wanted = [] if alone else sources_of(model)
    with private_folder(app.project, "streams") as folder:
        opened = {source.block.uuid: source for source in open_sources(app, model, store, wanted, folder)}
    rows = []
    if side != "destination":
        for source in opened.values():
            rows += _source_rows(source, stream)
    if side != "source":
        for destination in destinations:
            feeding = [opened[each.uuid] for each in upstream_sources(model, destination) if each.uuid in opened]
            streams = [each for source in feeding for each in source.catalog or ()]
            names = [(each.id, each.stream, tuple(dict.fromkeys((each.id, *each.names)))) for each in streams]
            names += [(uuid, uuid, (uuid,)) for uuid in upstream_tables(model, destination)]
            settings = _destination_settings(app, model, store, destination)
            rows += _destination_rows(settings, destination, names, stream, all_=side is not None or not wanted)
    return rows


def _source_rows(source: OpenedSource, wanted: str | None) -> list[dict[str, Any]]:
    from streamline.connectors.singer.selection import choose, user_names
    from streamline.connectors.singer.settings import resolve

    if source.catalog is None:
        return []
    settings = source.spec.streams
    try:
        selected_streams = choose(source.catalog, settings, tap=source.traits, where=source.where)
        chosen = {each.id: each for each in selected_streams}
    except ConfigError as error:
        # The list helps to correct what is wrong.
        chosen = {}
        click.echo(f"warning: {error}", err=True)
    rows = []
    for stream in source.catalog:
        if not _is_wanted(wanted, (stream.id, stream.stream)):
            continue
        selected = chosen.get(stream.id)
        rows.append(
            {
                "block": source.block.uuid,
                "stream": stream.id,
                "name": stream.stream,
                "selected": selected is not None,
                "replication_method": selected.replication_method if selected else stream.replication_method,
                "bookmark_properties": selected.bookmark_properties if selected else [],
                "key_properties": selected.key_properties if selected else stream.key_properties,
                "columns": selected.columns if selected else None,
                "run_in_parallel": selected.run_in_parallel if selected else False,
                "settings": _settings(resolve(settings, user_names(stream, source.catalog))),
            }
        )
    return rows


def _destination_settings(app: App, model: PipelineModel, store: Store, block: Block) -> StreamSettings:
    from streamline.blocks.connector.source import private_folder
    from streamline.execution.batch.outside_run import prepared_block

    with private_folder(app.project, "streams") as folder:
        return prepared_block(app.project, model, block, store, folder).spec.streams


def _destination_rows(
    settings: StreamSettings,
    block: Block,
    streams: Sequence[tuple[str, str, tuple[str, ...]]],
    wanted: str | None,
    *,
    all_: bool,
) -> list[dict[str, Any]]:
    """Return the rows of a destination.

    Args:
        streams: id, stream name and all names of the streams that reach it.
        all_: also those without settings.
    """
    from streamline.connectors.singer.settings import resolve, resolve_destination

    rows = []
    for id_, stream, names in streams:
        resolved = resolve(settings, names)
        if _is_wanted(wanted, (id_, stream)) and (all_ or resolved.values):
            rows.append(
                {
                    "block": block.uuid,
                    "stream": id_,
                    "name": stream,
                    "selected": resolve_destination(settings, names) is not None,
                    "settings": _settings(resolved),
                }
            )
    return rows


def _is_wanted(wanted: str | None, names: tuple[str, ...]) -> bool:
    from streamline.connectors.singer.catalog import matches

    return wanted is None or wanted in names or matches(wanted, names)


def _settings(resolved: Resolved) -> dict[str, dict[str, Any]]:
    return {name: {"value": value, "where": resolved.origins[name].where} for name, value in resolved.values.items()}


def _setting_text(name: str, value: Any) -> str:
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"
