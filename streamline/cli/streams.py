"""`streamline streams`: the streams of a pipeline, and their settings, which operators can change in the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App, change, pass_app
from streamline.cli.blocks import Side, blocks_of, load_model, pick_block, say, side_of, sources_of, tap_log
from streamline.cli.output import json_option, print_json, print_table
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.blocks.connector.source import Source
    from streamline.connectors.singer.catalog import Catalog, CatalogStream
    from streamline.connectors.singer.settings import Layer, Resolved
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.state.store import Store

block_option = click.option("--block", metavar="UUID", help="The block that is meant; needed where there are several.")
pipeline_argument = click.argument("pipeline")


@click.group("streams")
def command() -> None:
    """Show and change the settings of streams.

    What is set here is kept in the state store and lies over the blocks' YAML. Changes need the pipeline not to be
    running.
    """


@command.command("list")
@pipeline_argument
@click.argument("stream", required=False)
@block_option
@json_option
@pass_app
def list_(app: App, pipeline: str, stream: str | None, block: str | None, as_json: bool) -> None:
    """List the streams of PIPELINE's sources, how they are read, and what is set for them.

    STREAM is a name or a glob. Settings of destinations are listed under the streams that reach them; a setting that
    stands in the store is marked with '(store)'.
    """
    model = load_model(app, pipeline)
    with app.store() as store:
        rows = _listed(app, model, store, stream, block)
    if as_json:
        print_json(rows)
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
                "; ".join(_setting_text(name, one) for name, one in row["settings"].items()),
            ]
            for row in rows
        ],
        empty="There is no such stream." if stream else "There is no stream.",
    )


@command.command("set")
@pipeline_argument
@click.argument("stream")
@click.argument("settings", nargs=-1, required=True, metavar="KEY=VALUE...")
@block_option
@pass_app
def set_(app: App, pipeline: str, stream: str, settings: tuple[str, ...], block: str | None) -> None:
    """Change settings of STREAM (a name or a glob) in the store.

    VALUE is JSON or text; lists may be written a,b. An empty VALUE takes back what the store has, so that the YAML
    counts again.
    """
    model = load_model(app, pipeline)
    pairs = [_pair(text) for text in settings]
    side, target = _meant(model, block, [key for key, _ in pairs])
    with change(app, pipeline, "streams-set") as (store, _):
        known = _known_streams(app, model, store, side, target)
        name = known.canonical(stream)
        from streamline.connectors.singer.settings import check_setting

        values = {
            key: check_setting(side, key, _value(key, text), where=f"{key}={text}") for key, text in pairs if text
        }
        known.check(name, values, [key for key, text in pairs if not text])
        _write(store, model, target, name, values, [key for key, text in pairs if not text])
    shown = ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
    back = ", ".join(key for key, text in pairs if not text)
    click.echo(f"{target.uuid} {name}: " + "; ".join(filter(None, [shown, back and f"{back} taken back"])))


@command.command("select")
@pipeline_argument
@click.argument("streams", nargs=-1, required=True, metavar="STREAM|GLOB...")
@click.option("--off", is_flag=True, help="Take them out instead.")
@click.option("--only", is_flag=True, help="Take out all others.")
@click.option("--default", "back", is_flag=True, help="Take back what was selected here; the YAML counts again.")
@block_option
@pass_app
def select(
    app: App, pipeline: str, streams: tuple[str, ...], off: bool, only: bool, back: bool, block: str | None
) -> None:
    """Select streams of a source (names or globs), in the store."""
    if off + only + back > 1:
        raise click.UsageError("--off, --only and --default exclude each other.")
    model = load_model(app, pipeline)
    source_block = pick_block(model, "source", block)
    with change(app, pipeline, "streams-select") as (store, _):
        known = _known_streams(app, model, store, "source", source_block)
        names = [known.canonical(name) for name in streams]
        stored = store.stream_settings(model.uuid, source_block.uuid)
        taken_back = [name for name, values in stored.items() if "selected" in values] if only else []
        changes = {"*": False, **dict.fromkeys(names, True)} if only else dict.fromkeys(names, not off)
        if back:
            changes, taken_back = {}, names
        known.check_selection(changes, taken_back)
        for name in taken_back:
            store.unset_stream_setting(model.uuid, source_block.uuid, name, "selected")
        for name, selected in changes.items():
            store.set_stream_setting(model.uuid, source_block.uuid, name, "selected", selected)
    word = "as the YAML says" if back else "not selected" if off else "the only ones selected" if only else "selected"
    click.echo(f"{source_block.uuid}: {', '.join(names)} {word}")


class _Known:
    """The streams that a block's settings can be about, and what would become of them with a change."""

    def __init__(
        self, catalogs: Sequence[Catalog], source: Source | None, stored: Mapping[str, Any], block: str
    ) -> None:
        self._catalogs = catalogs
        self._source = source
        self._stored = {name: dict(values) for name, values in stored.items()}
        self._block = block

    def canonical(self, name: str) -> str:
        """The id of the stream that a name means; a glob, and a name that is in the store already, stays."""
        from streamline.connectors.singer.catalog import is_glob, matches, unknown_stream

        for catalog in self._catalogs:
            if (found := catalog.find(name)) is not None:
                return found.id
        streams = [stream for catalog in self._catalogs for stream in catalog]
        if is_glob(name):
            if streams and not any(matches(name, (stream.id, stream.stream)) for stream in streams):
                raise ConfigError(f"no stream matches {name!r}", where=self._block)
            return name
        if name in self._stored or not self._catalogs:
            return name
        raise unknown_stream(name, streams, where=self._block)

    def check(self, name: str, values: Mapping[str, Any], taken_back: Sequence[str]) -> None:
        """Refuse what could not be honoured at the next run."""
        changed = dict(self._stored)
        changed[name] = {
            **{key: value for key, value in changed.get(name, {}).items() if key not in taken_back},
            **values,
        }
        self._choose(changed)

    def check_selection(self, changes: Mapping[str, bool], taken_back: Sequence[str]) -> None:
        """The same for selections."""
        changed = {
            name: {key: value for key, value in values.items() if name not in taken_back or key != "selected"}
            for name, values in self._stored.items()
        }
        for name, selected in changes.items():
            changed[name] = {**changed.get(name, {}), "selected": selected}
        self._choose(changed)

    def _choose(self, stored: Mapping[str, Any]) -> None:
        if self._source is None:
            return
        from streamline.connectors.singer.selection import choose
        from streamline.connectors.singer.settings import STORE, parse_layer

        source = self._source
        layers = [source.spec.streams, parse_layer(stored, "source", origin=STORE)]
        choose(source.require_catalog(), layers, tap=source.traits, where=source.where)


def _known_streams(app: App, model: PipelineModel, store: Store, side: Side, block: Block) -> _Known:
    opened = _open(app, model, store, [block] if side == "source" else _feeding(model, block))
    catalogs = [source.catalog for source in opened if source.catalog is not None]
    # Where one tap's streams are not known, any name may be right.
    complete = len(catalogs) == len(opened)
    source = opened[0] if side == "source" else None
    stored = store.stream_settings(model.uuid, block.uuid)
    return _Known(catalogs if complete else [], source, stored, block.uuid)


def _open(app: App, model: PipelineModel, store: Store, blocks: Sequence[Block]) -> list[Source]:
    import anyio

    from streamline.blocks.connector.source import open_source, private_folder

    async def run() -> list[Source]:
        return [
            await open_source(app.project, model, block, store, folder, notify=say, log=tap_log(app))
            for block in blocks
        ]

    with private_folder(app.project, "streams") as folder:
        return anyio.run(run)


def _feeding(model: PipelineModel, destination: Block) -> list[Block]:
    """The sources whose records reach a destination."""
    above = {destination.uuid}
    for uuid in reversed(model.order()):
        if uuid in above:
            above.update(model.blocks[uuid].upstream)
    return [block for block in blocks_of(model, "source") if block.uuid in above]


def _meant(model: PipelineModel, block: str | None, keys: Sequence[str]) -> tuple[Side, Block]:
    """The block whose settings are meant: `--block`, or the only one on the side that has these settings."""
    from streamline.connectors.singer.settings import setting_names
    from streamline.project.suggest import suggestion

    if block is not None:
        side = side_of(model, block)
        return side, pick_block(model, side, block)
    sides: list[Side] = ["source", "destination"]
    known = {side: setting_names(side) for side in sides}
    for key in keys:
        if not any(key in names for names in known.values()):
            names = sorted({name for names in known.values() for name in names})
            raise ConfigError(f"streams have no setting {key!r}", hint=suggestion(key, names, what="settings"))
    possible = [side for side in sides if all(key in known[side] for key in keys)]
    if not possible:
        raise ConfigError("these settings belong to different blocks", hint="set them one by one")
    if len(possible) > 1:
        uuids = [one.uuid for side in possible for one in blocks_of(model, side)]
        raise ConfigError(
            f"source and destination both have {', '.join(keys)}",
            where=model.uuid,
            hint=f"add --block {'|'.join(uuids)}",
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
        return [one.strip() for one in text.split(",") if one.strip()] if key in lists else text
    # A name that looks like a number is still a name.
    return value if isinstance(value, list | dict | bool) or key == "max_bad_records" else text


def _write(
    store: Store, model: PipelineModel, block: Block, name: str, values: Mapping[str, Any], back: Sequence[str]
) -> None:
    for key in back:
        store.unset_stream_setting(model.uuid, block.uuid, name, key)
    for key, value in values.items():
        store.set_stream_setting(model.uuid, block.uuid, name, key, value)


def _listed(
    app: App, model: PipelineModel, store: Store, stream: str | None, block: str | None
) -> list[dict[str, Any]]:
    side = side_of(model, block) if block is not None else None
    destinations = [one for one in blocks_of(model, "destination") if block in (None, one.uuid)]
    wanted = sources_of(model) if side != "source" else [pick_block(model, "source", block)]
    opened = {source.block.uuid: source for source in _open(app, model, store, wanted)}
    rows = []
    if side != "destination":
        for source in opened.values():
            rows += _source_rows(source, stream)
    if side != "source":
        for destination in destinations:
            rows += _destination_rows(app, model, store, destination, opened, stream, all_=side is not None)
    return rows


def _source_rows(source: Source, wanted: str | None) -> list[dict[str, Any]]:
    from streamline.connectors.singer.selection import choose, user_names
    from streamline.connectors.singer.settings import resolve

    if source.catalog is None:
        return []
    try:
        chosen = {one.id: one for one in choose(source.catalog, source.layers, tap=source.traits, where=source.where)}
        problem = None
    except ConfigError as error:
        # A list is what one looks at to mend that.
        chosen, problem = {}, error
    if problem is not None:
        click.echo(f"warning: {problem}", err=True)
    rows = []
    for stream in source.catalog:
        if not _is_wanted(wanted, stream):
            continue
        selected = chosen.get(stream.id)
        resolved = resolve(source.layers, user_names(stream, source.catalog))
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
                "settings": _settings(resolved),
            }
        )
    return rows


def _destination_rows(
    app: App,
    model: PipelineModel,
    store: Store,
    block: Block,
    opened: Mapping[str, Source],
    wanted: str | None,
    *,
    all_: bool,
) -> list[dict[str, Any]]:
    from streamline.blocks.connector.spec import load_destination, stored_layer
    from streamline.connectors.singer.settings import resolve, resolve_destination
    from streamline.project.render import Renderer

    project = app.project
    renderer = Renderer(project, {**project.variables, **model.variables}, project.secrets)
    layers: list[Layer] = [
        load_destination(block, renderer).streams,
        stored_layer(store, model.uuid, block.uuid, "destination"),
    ]
    rows = []
    for source in (opened[one.uuid] for one in _feeding(model, block) if one.uuid in opened):
        for stream in source.catalog or ():
            names = tuple(dict.fromkeys((stream.id, *stream.names)))
            resolved = resolve(layers, names)
            if _is_wanted(wanted, stream) and (all_ or resolved.values):
                rows.append(
                    {
                        "block": block.uuid,
                        "stream": stream.id,
                        "name": stream.stream,
                        "selected": resolve_destination(layers, names) is not None,
                        "settings": _settings(resolved),
                    }
                )
    return rows


def _is_wanted(wanted: str | None, stream: CatalogStream) -> bool:
    from streamline.connectors.singer.catalog import matches

    names = (stream.id, stream.stream)
    return wanted is None or wanted in names or matches(wanted, names)


def _settings(resolved: Resolved) -> dict[str, dict[str, Any]]:
    return {
        name: {"value": value, "from": "store" if name in resolved.from_store else "yaml"}
        for name, value in resolved.values.items()
    }


def _setting_text(name: str, setting: Mapping[str, Any]) -> str:
    value = setting["value"]
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{name}={text}" + (" (store)" if setting["from"] == "store" else "")
