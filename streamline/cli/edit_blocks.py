"""`streamline remove` and `streamline rename`: change the blocks of a pipeline, with all that is kept of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamline.cli.add import only_pipeline
from streamline.cli.app import App, change, pass_app, with_children
from streamline.cli.output import count, print_diff
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.pipeline.edit_blocks import Edited
    from streamline.pipeline.model import PipelineModel
    from streamline.state.store import Bookmark, DeadLetter, Store

pipeline_option = click.option(
    "--pipeline", "-p", metavar="PIPELINE", help="The pipeline; optional if there is only one."
)


@click.command("remove")
@click.argument("block")
@pipeline_option
@click.option("--force", is_flag=True, help="Remove it though blocks use it, or it has dead letters.")
@click.option("--delete-files", is_flag=True, help="Delete its file and its catalog.json, too.")
@pass_app
def remove(app: App, block: str, pipeline: str | None, force: bool, delete_files: bool) -> None:
    """Remove BLOCK from metadata.yaml, and print the change.

    Blocks that used it get their input from its upstream blocks. Its stored output is deleted and the positions of a
    source are reset; their history stays.
    """
    from streamline.cli.app import change_id
    from streamline.execution.batch.output_layout import remove_output
    from streamline.pipeline.edit_blocks import find_block, remove_block
    from streamline.pipeline.reader import load_pipeline

    pipeline = pipeline or only_pipeline(app.project)
    with change(app, pipeline, "remove") as (store, _):
        model = load_pipeline(app.project, pipeline, fileless=block)
        find_block(model, block)
        letters = _letters_of(store, pipeline, block)
        if letters and not force:
            raise ConfigError(
                f"'{block}' has {count(len(letters), 'dead letter')}, which can't be sent again without it",
                where=pipeline,
                hint=f"first retry or discard them: streamline dead-letters list {pipeline}; or add --force: they "
                "stay listed",
                code="block.in_use",
            )
        edited = remove_block(app.project, pipeline, block, connect=force, delete_files=delete_files)
        run_id = change_id("remove")
        streams = [
            stream
            for key in with_children(store, pipeline, block)
            for stream in store.reset(pipeline, key, run_id=run_id)
        ]
        had_output = remove_output(app.project, pipeline, block)
    _print_edit(app, model, edited)
    if streams:
        click.echo(
            f"Reset the {_positions(len(streams))} of {block}; to bring them back, add the block again and use: "
            f"streamline state rollback {pipeline} --block {block}"
        )
    if had_output:
        click.echo(f"Deleted the stored output of {block}")
    if letters:
        click.echo(f"Kept {count(len(letters), 'dead letter')}: streamline dead-letters list {pipeline}")


@click.command("rename")
@click.argument("block")
@click.argument("name")
@pipeline_option
@click.option(
    "--force",
    is_flag=True,
    help="Copy a file that other pipelines use; rename a source whose name is in its destination's rows.",
)
@pass_app
def rename(app: App, block: str, name: str, pipeline: str | None, force: bool) -> None:
    """Rename BLOCK to NAME in metadata.yaml, with its file, and print the change.

    Positions, their history and proofs, dead letters and stored outputs go with it: the next run continues where the
    last one ended. A block that was renamed in an editor can be renamed with this command afterwards: it then moves
    what is kept of it.
    """
    from streamline.execution.batch.output_layout import rename_output
    from streamline.pipeline.edit_blocks import Edited, find_block, rename_block

    pipeline = pipeline or only_pipeline(app.project)
    with change(app, pipeline, "rename") as (store, _):
        model = app.load_pipeline(pipeline)
        by_hand = model.find(block) is None and model.find(name) is not None and _is_known(store, model, block)
        if not by_hand:
            find_block(model, block)
        if not force:
            _refuse_source_column(app, model, name if by_hand else block)
        if _bookmarks(store, pipeline, name) or _letters_of(store, pipeline, name):
            raise ConfigError(
                f"'{name}' has positions or dead letters of its own",
                where=pipeline,
                hint=f"choose another name; or see: streamline state list {pipeline} --block {name}, and "
                f"streamline dead-letters list {pipeline}",
                code="block.exists",
            )
        with store.renamed_block(pipeline, block, name):
            edited = (
                Edited(before="", after="") if by_hand else rename_block(app.project, pipeline, block, name, copy=force)
            )
        rename_output(app.project, pipeline, block, name)
        in_topic = _rename_in_topic(app, store, pipeline, block, name)
        streams = _bookmarks(store, pipeline, name)
        letters = _letters_of(store, pipeline, name)
    if by_hand and not streams and not letters and in_topic == 0:
        find_block(model, block)
    _print_edit(app, model, edited)
    kept = [
        *([_positions(len(streams))] if streams else []),
        *([count(len(letters) + (in_topic or 0), "dead letter")] if letters or in_topic else []),
    ]
    if kept:
        click.echo(f"{name} has the {' and '.join(kept)} of {block}")
    if edited.mentions:
        click.echo(
            f"Note: change what means the block '{block}' in {', '.join(edited.mentions)}",
            err=True,
        )


def _rename_in_topic(app: App, store: Store, pipeline: str, block: str, name: str) -> int | None:
    """Rename a block in the dead letters that a topic keeps; return how many there were, None if it failed."""
    from streamline.errors import StreamlineError
    from streamline.execution.streaming.letter_box import pipeline_letters
    from streamline.execution.streaming.letters import TopicLetters

    model = app.load_pipeline(pipeline)
    if not _has_letter_topic(model):
        return 0
    try:
        with pipeline_letters(app.project, store, model) as letters:
            return letters.rename(block, name) if isinstance(letters, TopicLetters) else 0
    except StreamlineError as error:
        click.echo(
            f"Note: dead letters in the topic may still name the block '{block}': {error.message}; use this command "
            "once more when that is mended",
            err=True,
        )
        return None


def _has_letter_topic(model: PipelineModel) -> bool:
    return bool(model.options.get("dead_letter"))  # streaming pipelines alone have it


def _is_known(store: Store, model: PipelineModel, block: str) -> bool:
    """Return whether something may be kept of a block: positions that it reads from or has proven, or letters."""
    pipeline = model.uuid
    if _has_letter_topic(model) or _letters_of(store, pipeline, block):
        return True
    return any(each.partition(":")[0] == block for each in store.bookmark_blocks(pipeline)) or any(
        block in bookmark.sinks
        for source in store.bookmark_blocks(pipeline)
        for bookmark in store.bookmarks(pipeline, source).values()
    )


def _bookmarks(store: Store, pipeline: str, block: str) -> list[Bookmark]:
    """Return the positions of a block and of its children."""
    return [each for key in with_children(store, pipeline, block) for each in store.bookmarks(pipeline, key).values()]


def _letters_of(store: Store, pipeline: str, block: str) -> list[DeadLetter]:
    """Return the dead letters of a source, and those that a transformer or destination has refused."""
    return [
        letter for letter in store.dead_letters(pipeline) if block in (letter.block, letter.stage, letter.destination)
    ]


def _refuse_source_column(app: App, model: PipelineModel, source: str) -> None:
    """Refuse to rename a source whose name is part of the key of rows in a destination.

    Raises:
        ConfigError: it is.
    """
    from streamline.blocks.connector.spec import load_destination
    from streamline.cli.blocks import blocks_of
    from streamline.cli.stream_change import upstream_sources
    from streamline.execution.batch.outside_run import renderer_of

    for destination in () if model.moves_messages else blocks_of(model, "destination"):
        fed = source in (block.uuid for block in upstream_sources(model, destination))
        if not fed or destination.language != "yaml":
            continue
        if load_destination(destination, renderer_of(app.project, model, destination)).source_column:
            raise ConfigError(
                f"the rows in '{destination.uuid}' hold the name '{source}' as part of their key (source_column)",
                where=model.where(destination.uuid),
                hint="with --force the rows that are there keep the old name, and rows that change are added beside "
                f"them; to load all of them anew, run {model.uuid} with --full-refresh after that",
                code="block.in_use",
            )


def _positions(number: int) -> str:
    return count(number, "position")


def _print_edit(app: App, model: PipelineModel, edited: Edited) -> None:
    shown = app.project.shown
    print_diff(edited.before, edited.after, model.yaml.shown)
    for file, target in edited.files:
        click.echo(f"Deleted {shown(file)}" if target is None else f"Renamed {shown(file)} to {shown(target)}")
    for file in edited.kept:
        click.echo(f"Kept {shown(file)}")
