"""`streamline state`: the positions that a pipeline continues from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

import click

from streamline.cli.app import App, change, choose_block, choose_blocks, known_blocks, pass_app, require_pipeline
from streamline.cli.output import count, json_option, moment, print_json, print_table
from streamline.errors import ConfigError, disk_errors
from streamline.flow.items import REST

if TYPE_CHECKING:
    from streamline.state.store import Bookmark, BookmarkSave, Store

block_option = click.option("--block", metavar="UUID", help="The source block; needed where there are several.")
pipeline_argument = click.argument("pipeline")
stream_argument = click.argument("stream")
optional_stream = click.argument("stream", required=False)


@click.group("state")
def command() -> None:
    """Show and change the positions that a pipeline continues from.

    A position is kept for each stream, as the tap wrote it. Every change can be rolled back. The stream '*' holds
    what a tap keeps outside its streams' bookmarks. Changes need the pipeline not to be running.
    """


@command.command("list")
@pipeline_argument
@optional_stream
@block_option
@json_option
@pass_app
def list_(app: App, pipeline: str, stream: str | None, block: str | None, as_json: bool) -> None:
    """List the streams' bookmarks."""
    with app.store() as store:
        require_pipeline(app, store, pipeline)
        bookmarks = _bookmarks(store, pipeline, choose_blocks(app, store, pipeline, block), stream)
    if as_json:
        print_json([_as_json(bookmark) for bookmark in bookmarks])
        return
    several = len({bookmark.block for bookmark in bookmarks}) > 1
    print_table(
        [*(["BLOCK"] if several else []), "STREAM", "BOOKMARK", "SAVED", "RUN", "PROVEN BY"],
        [
            [
                *([bookmark.block] if several else []),
                bookmark.stream,
                bookmark.value + (" (gap: can only be read again with --full-refresh)" if bookmark.gap else ""),
                moment(bookmark.saved_at),
                bookmark.run_id,
                bookmark.sinks,
            ]
            for bookmark in bookmarks
        ],
        empty=f"{pipeline} has no saved positions.",
    )


@command.command("get")
@pipeline_argument
@optional_stream
@block_option
@json_option
@pass_app
def get(app: App, pipeline: str, stream: str | None, block: str | None, as_json: bool) -> None:
    """Print a stream's bookmark as the tap wrote it; without STREAM the whole state, as the tap gets it."""
    with app.store() as store:
        require_pipeline(app, store, pipeline)
        block = choose_block(app, store, pipeline, stream, block)
        if stream is not None:
            bookmark = _bookmark(store, pipeline, block, stream)
            if as_json:
                print_json(_as_json(bookmark))
            else:
                click.echo(bookmark.value)
            return
        click.echo(_singer_state(list(store.bookmarks(pipeline, block).values())))


@command.command("set")
@pipeline_argument
@stream_argument
@click.argument("value")
@block_option
@pass_app
def set_(app: App, pipeline: str, stream: str, value: str, block: str | None) -> None:
    """Set a stream's bookmark to VALUE: JSON, as the tap would write it; '-' reads it from stdin.

    For one column of the bookmark there is `streamline run --bookmark STREAM.COLUMN=VALUE`.
    """
    if value == "-":
        value = sys.stdin.read()
    with change(app, pipeline, "set") as (store, lease):
        block = choose_block(app, store, pipeline, stream, block)
        saved = store.bookmarks(pipeline, block)
        old = saved.get(stream)
        value = _check_value(value, stream, old)
        store.set_bookmark(pipeline, block, stream, value, run_id=lease.run_id)
    click.echo(f"{stream}: {value} (was: {old.value if old else 'no bookmark'})")
    if old is None:
        from streamline.project.suggest import nearest

        # A stream without a bookmark may be one that was never read: only the tap knows.
        for near in nearest(stream, saved, limit=1):
            undo = f"`streamline state reset {pipeline} {stream} --block {block}`"
            click.echo(f"Note: did you mean '{near}', which has a bookmark? {undo} undoes this", err=True)


@command.command("edit")
@pipeline_argument
@optional_stream
@block_option
@pass_app
def edit(app: App, pipeline: str, stream: str | None, block: str | None) -> None:
    """Edit a stream's bookmark in $VISUAL or $EDITOR."""
    with change(app, pipeline, "edit") as (store, lease):
        block = choose_block(app, store, pipeline, stream, block)
        if stream is None:
            streams = list(store.bookmarks(pipeline, block))
            if len(streams) != 1:
                raise ConfigError(
                    f"{block} has {count(len(streams), 'bookmark')}",
                    where=pipeline,
                    hint=f"name a stream: {', '.join(streams)}" if streams else "`streamline state set` creates one",
                    code="stream.ambiguous",
                )
            (stream,) = streams
        old = _bookmark(store, pipeline, block, stream)
        value = _edited(old, stream)
        if value is None:
            click.echo(f"{stream}: nothing changed")
            return
        store.set_bookmark(pipeline, block, stream, value, run_id=lease.run_id, cause="edit")
    click.echo(f"{stream}: {value} (was: {old.value})")


@command.command("reset")
@pipeline_argument
@optional_stream
@block_option
@pass_app
def reset(app: App, pipeline: str, stream: str | None, block: str | None) -> None:
    """Forget a stream's bookmark, or those of all, so that the next run reads everything again."""
    with change(app, pipeline, "reset") as (store, lease):
        if stream is None:
            blocks = choose_blocks(app, store, pipeline, block)
        else:
            blocks = [choose_block(app, store, pipeline, stream, block)]
            _bookmark(store, pipeline, blocks[0], stream)
        gone = [
            name
            for uuid in blocks
            for name in store.reset(pipeline, uuid, None if stream is None else [stream], run_id=lease.run_id)
        ]
    if not gone:
        click.echo(f"{pipeline} has no saved positions.")
        return
    click.echo(f"Reset {count(len(gone), 'bookmark')}: {', '.join(gone)}")
    only = f" --block {block}" if block else ""
    click.echo(f"`streamline state rollback {pipeline}{only}` restores them.")


@command.command("history")
@pipeline_argument
@optional_stream
@block_option
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(min=1), help="Show at most so many changes."
)
@json_option
@pass_app
def history(app: App, pipeline: str, stream: str | None, block: str | None, limit: int, as_json: bool) -> None:
    """List how bookmarks changed, the newest first.

    The last changes of each stream are kept, and of older ones the last of each run.
    """
    with app.store() as store:
        require_pipeline(app, store, pipeline)
        if block is not None:
            block = choose_block(app, store, pipeline, None, block)
        entries = store.history(pipeline, block, stream, limit)
    if as_json:
        from msgspec import Raw
        from msgspec.structs import asdict

        print_json(
            [
                {**asdict(entry), "value": None if entry.value is None else Raw(entry.value.encode())}
                for entry in entries
            ]
        )
        return
    several = len({entry.block for entry in entries}) > 1
    print_table(
        ["ID", *(["BLOCK"] if several else []), "STREAM", "BOOKMARK", "CAUSE", "RUN", "SAVED"],
        [
            [
                entry.id,
                *([entry.block] if several else []),
                entry.stream,
                entry.value,
                entry.cause,
                entry.run_id,
                moment(entry.saved_at),
            ]
            for entry in entries
        ],
        empty="No changes.",
    )


@command.command("rollback")
@pipeline_argument
@optional_stream
@block_option
@click.option("--to", metavar="ID", type=int, help="Restore the state right after this change of `state history`.")
@click.option("--run", "before_run", metavar="RUN", help="Restore the state before this run.")
@pass_app
def rollback(
    app: App, pipeline: str, stream: str | None, block: str | None, to: int | None, before_run: str | None
) -> None:
    """Restore earlier bookmarks: those before the run or command that last changed them, or of a given point.

    Without STREAM all of a block's bookmarks go back together. A rollback can itself be rolled back.
    """
    if to is not None and before_run is not None:
        raise click.UsageError("--to and --run exclude each other")
    with change(app, pipeline, "rollback") as (store, lease):
        if block is not None:
            block = choose_block(app, store, pipeline, stream, block)
        # All the changes that the block and the stream leave to choose from, the newest first.
        entries = store.history(pipeline, block, stream, sys.maxsize)
        if to is None and before_run is None and entries:
            before_run = entries[0].run_id
        blocks = list(dict.fromkeys(entry.block for entry in entries if to == entry.id or before_run == entry.run_id))
        changed: list[tuple[str, Bookmark | None]] = []
        for uuid in blocks or [choose_block(app, store, pipeline, stream, block)]:
            names = store.rollback(pipeline, uuid, stream, to=to, before_run=before_run, run_id=lease.run_id)
            after = store.bookmarks(pipeline, uuid)
            changed += [(name, after.get(name)) for name in names]
    if not changed:
        click.echo("Nothing changed: the bookmarks are what they were then.")
    for name, bookmark in changed:
        click.echo(f"{name}: {bookmark.value if bookmark else 'no bookmark'}")


@command.command("export")
@pipeline_argument
@optional_stream
@block_option
@click.option("--singer", is_flag=True, help="A plain Singer state of one block, for any Singer runner.")
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="A file to write; stdout unless given.")
@pass_app
def export(app: App, pipeline: str, stream: str | None, block: str | None, singer: bool, output: str | None) -> None:
    """Print the positions as a document that `state import` reads: here, or in another project."""
    from streamline.cli.state_document import dump

    with app.store() as store:
        require_pipeline(app, store, pipeline)
        if singer:
            block = choose_block(app, store, pipeline, stream, block)
        bookmarks = _bookmarks(store, pipeline, choose_blocks(app, store, pipeline, block), stream)
    text = _singer_state(bookmarks) if singer else dump(pipeline, bookmarks)
    if output is None:
        click.echo(text)
        return
    from pathlib import Path

    with disk_errors(output):
        Path(output).write_text(text + "\n")
    click.echo(f"Wrote {count(len(bookmarks), 'bookmark')} to {output}", err=True)


@command.command("import")
@pipeline_argument
@click.argument("file", type=click.File("r", encoding="utf-8"), default="-")
@block_option
@click.option("--replace", is_flag=True, help="Delete the bookmarks of streams that the document does not name.")
@pass_app
def import_(app: App, pipeline: str, file: TextIO, block: str | None, replace: bool) -> None:
    """Import positions from FILE (or stdin): a document of `state export`, or any Singer state."""
    from streamline.cli.state_document import load

    document = load(file.read(), where=file.name)
    with change(app, pipeline, "import") as (store, lease):
        blocks = {
            choose_block(app, store, pipeline, None, name): bookmarks
            for name, bookmarks in _for_blocks(document, block, known_blocks(app, store, pipeline)).items()
        }
        for name, bookmarks in blocks.items():
            _check_import(name, bookmarks, {} if replace else store.bookmarks(pipeline, name))
        changed = [
            stream
            for name, bookmarks in blocks.items()
            for stream in store.import_state(pipeline, name, bookmarks, run_id=lease.run_id, replace=replace)
        ]
    total = sum(map(len, blocks.values()))
    click.echo(f"Imported {count(total, 'bookmark')}; changed: {', '.join(changed) or 'none'}")


def _check_import(block: str, bookmarks: list[BookmarkSave], saved: dict[str, Bookmark]) -> None:
    """Refuse bookmarks that cannot take the place of the saved ones.

    Raises:
        ConfigError: a bookmark is of another kind, or a state without `bookmarks` is to replace one that has them.
    """
    for bookmark in bookmarks:
        old = saved.get(bookmark.stream)
        if old is not None:
            _check_value(bookmark.value, bookmark.stream, old)
    streams = [stream for stream in saved if stream != REST]
    if streams and [bookmark.stream for bookmark in bookmarks] == [REST]:
        raise ConfigError(
            "the state has no bookmark for a stream, and the saved one has",
            where=block,
            hint=f'write {{"bookmarks": {{"{streams[0]}": …}}}}; --replace puts it in the place of what is saved',
            code="state.document_invalid",
        )


def _for_blocks(
    document: dict[str | None, list[BookmarkSave]], block: str | None, known: list[str]
) -> dict[str | None, list[BookmarkSave]]:
    """Return which block each part of a document is for; None stands for the only candidate.

    A document of one block, or of none (a Singer state), may be for a block of another name.
    """
    only = next(iter(document.values())) if len(document) == 1 else None
    if block is not None:
        if block not in document and only is None:
            named = ", ".join(map(str, document)) or "no block"
            raise ConfigError(
                f"the document has nothing for the block '{block}'",
                hint=f"it names {named}",
                code="state.document_mismatch",
            )
        return {block: document.get(block) or only or []}
    if only is not None and next(iter(document)) not in known:
        return {None: only}
    return document


def _bookmarks(store: Store, pipeline: str, blocks: list[str], stream: str | None) -> list[Bookmark]:
    """Return the bookmarks of some blocks, of one stream or of all."""
    bookmarks = [bookmark for block in blocks for bookmark in store.bookmarks(pipeline, block).values()]
    if stream is None:
        return bookmarks
    chosen = [bookmark for bookmark in bookmarks if bookmark.stream == stream]
    if not chosen:
        raise _no_bookmark(pipeline, stream, [bookmark.stream for bookmark in bookmarks])
    return chosen


def _bookmark(store: Store, pipeline: str, block: str, stream: str) -> Bookmark:
    bookmarks = store.bookmarks(pipeline, block)
    if stream not in bookmarks:
        raise _no_bookmark(pipeline, stream, bookmarks)
    return bookmarks[stream]


def _no_bookmark(pipeline: str, stream: str, known: list[str] | dict[str, Bookmark]) -> ConfigError:
    from streamline.project.suggest import suggestion

    return ConfigError(
        f"stream '{stream}' has no bookmark",
        where=pipeline,
        hint=suggestion(stream, known, what="streams"),
        code="state.no_bookmark",
    )


def _singer_state(bookmarks: list[Bookmark]) -> str:
    from streamline.connectors.singer.state import join_state

    return join_state({bookmark.stream: bookmark.value.encode() for bookmark in bookmarks}).decode()


def _as_json(bookmark: Bookmark) -> dict[str, object]:
    from msgspec import Raw
    from msgspec.structs import asdict

    return {**asdict(bookmark), "value": Raw(bookmark.value.encode())}


def _check_value(text: str, stream: str, old: Bookmark | None) -> str:
    """Return the value to store: `text` without surrounding white space.

    Raises:
        ConfigError: it is not JSON, or not an object as taps write it.
    """
    import json

    from streamline.connectors.singer.bookmark_values import unlike_member

    text = text.strip()
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"the value is not JSON: {error}",
            where=stream,
            hint="write it as the tap does (see `state get`); for one column use"
            f" `streamline run --bookmark {stream}.COLUMN=VALUE`",
            code="state.invalid_value",
        ) from error
    if not isinstance(value, dict) and (old is None or old.value.lstrip().startswith("{")):
        raise ConfigError(
            f"a bookmark is a JSON object, {text} is not",
            where=stream,
            hint=f"it is now: {old.value}" if old else 'Singer taps write {"replication_key_value": …} or the like',
            code="state.invalid_value",
        )
    before = json.loads(old.value) if old is not None else {}
    if (name := unlike_member(before, value)) is not None:
        raise ConfigError(
            f"{name} is {json.dumps(before[name])}, and {json.dumps(value[name])} is of another kind",
            where=stream,
            hint="write it as the tap does (see `state get`), or `state reset` the stream first",
            code="state.invalid_value",
        )
    return text


def _edited(old: Bookmark, stream: str) -> str | None:
    """Return the bookmark as the user edited it; None if only white space changed."""
    compact = _reformat(old.value, -1)
    text = _reformat(old.value, 2) + "\n"
    while True:
        edited = click.edit(text, extension=".json")
        if edited is None or _reformat(edited, -1) == compact:
            return None
        try:
            return _reformat(_check_value(edited, stream, old), -1)
        except ConfigError as error:
            if not sys.stdin.isatty():
                raise
            click.echo(f"{error.message}", err=True)
            click.confirm("Edit again?", default=True, abort=True, err=True)
            text = edited


def _reformat(text: str, indent: int) -> str:
    """Return JSON text with other white space; -1 removes it. Text that is not JSON is returned as it is."""
    import msgspec

    try:
        return msgspec.json.format(text.encode(), indent=indent).decode()
    except msgspec.DecodeError:
        return text.strip()
