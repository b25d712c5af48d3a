"""`streamline dead-letters`: records that were refused on the way, and are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App, change, pass_app, require_pipeline
from streamline.cli.output import count, json_option, moment, print_json, print_table
from streamline.errors import ConfigError, PipelineFailed

if TYPE_CHECKING:
    from streamline.processes.job import Failure
    from streamline.state.store import DeadLetter, Store

pipeline_argument = click.argument("pipeline")
ids_argument = click.argument("ids", metavar="[ID]...", nargs=-1, type=int)
stream_option = click.option("--stream", "-s", metavar="STREAM", help="Only those of this stream.")
block_option = click.option("--block", metavar="UUID", help="Only those of this block.")


@click.group("dead-letters")
def command() -> None:
    """Show, retry and discard dead letters: records that were refused on the way.

    A record that breaks its stream's schema, that a target refuses, or that a block fails on, is kept here with the
    reason, and does not stop the others.
    """


@command.command("list")
@pipeline_argument
@stream_option
@block_option
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest so many.")
@json_option
@pass_app
def list_(app: App, pipeline: str, stream: str | None, block: str | None, limit: int | None, as_json: bool) -> None:
    """List a pipeline's dead letters, the oldest first."""
    with app.store() as store:
        require_pipeline(app, store, pipeline)
        letters = store.dead_letters(pipeline, block=block, stream=stream, limit=limit)
    if as_json:
        print_json([_as_json(letter, record=False) for letter in letters])
        return
    print_table(
        ["ID", "BLOCK", "STREAM", "STAGE", "DESTINATION", "ERROR", "TIMES", "LAST"],
        [
            [
                letter.id,
                letter.block,
                letter.stream,
                letter.stage,
                letter.destination or "",
                letter.error,
                letter.times,
                moment(letter.time),
            ]
            for letter in letters
        ],
        empty=f"{pipeline} has no dead letters.",
    )


@command.command("show")
@pipeline_argument
@ids_argument
@stream_option
@block_option
@json_option
@pass_app
def show(app: App, pipeline: str, ids: tuple[int, ...], stream: str | None, block: str | None, as_json: bool) -> None:
    """Show dead letters with their records: those with the IDs, or all."""
    with app.store() as store:
        require_pipeline(app, store, pipeline)
        letters = _chosen(store, pipeline, ids, stream, block)
    if as_json:
        print_json([_as_json(letter, record=True) for letter in letters])
        return
    for letter in letters:
        click.echo(f"{letter.id}  {letter.block}  {letter.stream}  {_stage(letter)}  run {letter.run_id}")
        click.echo(f"  error:  {letter.error}")
        click.echo(f"  record: {letter.record}")
    if not letters:
        click.echo(f"{pipeline} has no dead letters.", err=True)


@command.command("discard")
@pipeline_argument
@ids_argument
@stream_option
@block_option
@click.option("--all", "everything", is_flag=True, help="All of the pipeline.")
@pass_app
def discard(
    app: App, pipeline: str, ids: tuple[int, ...], stream: str | None, block: str | None, everything: bool
) -> None:
    """Delete dead letters for good: those with the IDs, of a stream or block, or --all."""
    if not (ids or stream or block or everything):
        raise click.UsageError("name the dead letters: IDs, --stream, --block, or --all")
    with app.store() as store:
        require_pipeline(app, store, pipeline)
        letters = _chosen(store, pipeline, ids, stream, block)
        discarded = store.discard_dead_letters(pipeline, [letter.id for letter in letters])
    click.echo(f"Discarded {count(discarded, 'dead letter')}.")


@command.command("retry")
@pipeline_argument
@ids_argument
@stream_option
@block_option
@pass_app
def retry(app: App, pipeline: str, ids: tuple[int, ...], stream: str | None, block: str | None) -> None:
    """Send dead letters again, now: those with the IDs, or all.

    The pipeline must not be running. What arrives is no longer a dead letter; what is refused again stays one, and
    makes the exit code 1.
    """
    from streamline.execution.integration.resend import resend

    with change(app, pipeline, "retry") as (store, lease):
        letters = _chosen(store, pipeline, ids, stream, block)
        if not letters:
            click.echo(f"{pipeline} has no dead letters.")
            return
        if newer := _loaded_since(store, pipeline, letters):
            click.echo(
                f"Note: {', '.join(newer)}: a record that arrives now overwrites the row of its key, also a newer one.",
                err=True,
            )
        if app.load_pipeline(pipeline).stores_outputs:
            from streamline.execution.connector_blocks.letters import plan_letters
        else:
            from streamline.execution.integration.resend import plan_letters
        errors = resend(app.project, store, pipeline, lease.run_id, letters, plan_letters)
        arrived = [letter.id for letter in letters if letter.id not in errors]
        store.discard_dead_letters(pipeline, arrived)
    click.echo(f"Sent again: {count(len(arrived), 'record')}; refused again: {len(errors)}")
    if errors:
        raise PipelineFailed(
            f"{count(len(errors), 'record')} of {len(letters)} refused again",
            where=pipeline,
            hint=f"`streamline dead-letters list {pipeline}` says why.",
            code="dead_letter.refused_again",
        )


def _loaded_since(store: Store, pipeline: str, letters: list[DeadLetter]) -> list[str]:
    """Return the streams of which records may have been loaded after those that were refused, also by the same run."""
    newer = set()
    for block in {letter.block for letter in letters}:
        saved = store.bookmarks(pipeline, block)
        for letter in letters:
            if letter.block == block:
                bookmarks = [saved[letter.stream]] if letter.stream in saved else list(saved.values())
                if any(each.saved_at >= letter.time or each.run_id == letter.run_id for each in bookmarks):
                    newer.add(letter.stream)
    return sorted(newer)


def _chosen(
    store: Store, pipeline: str, ids: tuple[int, ...], stream: str | None, block: str | None
) -> list[DeadLetter]:
    """Return the dead letters that the arguments name.

    Raises:
        ConfigError: an id does not exist.
    """
    letters = store.dead_letters(pipeline, block=block, stream=stream, ids=list(ids) if ids else None)
    missing = sorted(set(ids) - {letter.id for letter in letters})
    if missing:
        raise ConfigError(
            f"dead letter not found: {', '.join(map(str, missing))}",
            where=pipeline,
            hint=f"`streamline dead-letters list {pipeline}` lists them.",
            code="dead_letter.not_found",
        )
    return letters


def _stage(letter: DeadLetter) -> str:
    """Return where a dead letter was refused, as text."""
    if letter.destination is not None:
        return f"{letter.stage} for {letter.destination}"
    return f"{letter.stage} (its output)" if letter.output else letter.stage


def _failure(letter: DeadLetter) -> Failure:
    """Return why the record was refused."""
    from streamline.processes.job import Failure

    return Failure(
        message=letter.error,
        code="record.invalid"
        if letter.stage == "validate"
        else "record.schema_changed"
        if letter.stage == "schema_change"
        else "record.refused",
    )


def _as_json(letter: DeadLetter, *, record: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": letter.id,
        "block": letter.block,
        "stream": letter.stream,
        "stage": letter.stage,
        "destination": letter.destination,
        "error": letter.error,
        "code": _failure(letter).code,
        "time": letter.time,
        "run_id": letter.run_id,
        "times": letter.times,
    }
    if record:
        from msgspec import Raw

        shown["record"] = Raw(letter.record.encode())
    return shown
