"""`streamline dead-letters`: records that were refused on the way, and are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from streamline.cli.app import App, change, pass_app, require_pipeline
from streamline.cli.letter_view import letter_json, letter_lines, letter_table
from streamline.cli.output import count, json_option, print_json, print_table
from streamline.errors import ConfigError, PipelineFailed

if TYPE_CHECKING:
    from streamline.execution.streaming.letters import Letters
    from streamline.state.store import DeadLetter, Store

pipeline_argument = click.argument("pipeline")
ids_argument = click.argument("ids", metavar="[ID]...", nargs=-1, type=int)
stream_option = click.option("--stream", "-s", metavar="STREAM", help="Only those of this stream or topic.")
block_option = click.option("--block", metavar="UUID", help="Only those of this source block.")


MOST_REASONS = 20
"""Messages of which it is told why they did not arrive."""


@click.group("dead-letters")
def command() -> None:
    """Show, retry and discard dead letters: records that were refused on the way.

    A record that breaks its stream's schema, that a target refuses, or that a block fails on, is kept here with the
    reason, and does not stop the others. So is a message of a streaming pipeline, here or in the pipeline's dead-letter
    topic.
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
    with _opened(app, pipeline) as (kept, messages):
        letters = kept.find(block=block, stream=stream, limit=limit)
    if as_json:
        print_json([letter_json(letter, messages=messages, whole=False) for letter in letters])
        return
    heads, rows = letter_table(letters, messages=messages)
    print_table(heads, rows, empty=f"{pipeline} has no dead letters.")


@command.command("show")
@pipeline_argument
@ids_argument
@stream_option
@block_option
@json_option
@pass_app
def show(app: App, pipeline: str, ids: tuple[int, ...], stream: str | None, block: str | None, as_json: bool) -> None:
    """Show dead letters with their records: those with the IDs, or all."""
    with _opened(app, pipeline) as (kept, messages):
        letters = _chosen(kept, pipeline, ids, stream, block)
    if as_json:
        print_json([letter_json(letter, messages=messages, whole=True) for letter in letters])
        return
    for letter in letters:
        for line in letter_lines(letter, messages=messages):
            click.echo(line)
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
    with _opened_to_discard(app, pipeline) as kept:
        discarded = kept.discard(_chosen(kept, pipeline, ids, stream, block))
    click.echo(f"Discarded {count(discarded, 'dead letter')}.")


@command.command("retry")
@pipeline_argument
@ids_argument
@stream_option
@block_option
@click.option(
    "--overwrite",
    is_flag=True,
    help="Of a streaming pipeline: send also letters whose key was written since, to destinations that replace by key.",
)
@pass_app
def retry(
    app: App, pipeline: str, ids: tuple[int, ...], stream: str | None, block: str | None, overwrite: bool
) -> None:
    """Send dead letters again, now: those with the IDs, or all.

    The pipeline must not be running. What arrives is no longer a dead letter; what is refused again stays one, and
    makes the exit code 1. Messages of one key are sent in their order; if one of them is refused, those behind it wait.
    """
    with change(app, pipeline, "retry") as (store, lease), _letters(app, store, pipeline) as (kept, messages):
        letters = _chosen(kept, pipeline, ids, stream, block)
        if not letters:
            click.echo(f"{pipeline} has no dead letters.")
        elif messages:
            _retry_messages(app, store, pipeline, lease.run_id, letters, overwrite=overwrite)
        elif overwrite:
            raise click.UsageError("--overwrite is for streaming pipelines")
        else:
            _retry_records(app, store, pipeline, lease.run_id, letters)


def _retry_messages(
    app: App, store: Store, pipeline: str, run_id: str, letters: list[DeadLetter], *, overwrite: bool
) -> None:
    from streamline.execution.run import Interrupted
    from streamline.execution.streaming.resend import INTERRUPTED, resend

    def notify(message: str) -> None:
        click.echo(f"Note: {message}", err=True)

    outcome = resend(app.project, store, pipeline, run_id, letters, overwrite=overwrite, notify=notify)
    reasons = [f"{number}: refused again: {error}" for number, error in outcome.errors.items()]
    reasons += [f"{number}: not sent: {reason}" for number, reason in outcome.unsendable.items()]
    for reason in reasons[:MOST_REASONS]:
        click.echo(reason, err=True)
    if len(reasons) > MOST_REASONS:
        click.echo(f"and {len(reasons) - MOST_REASONS:,} more", err=True)
    click.echo(
        f"Sent again: {count(outcome.arrived, 'message')}; refused again: {outcome.refused}; not sent: "
        f"{len(outcome.unsendable)}; waiting behind these: {outcome.held}"
    )
    if outcome.interrupted is not None:
        raise Interrupted(outcome.interrupted, INTERRUPTED)
    if outcome.failure is not None:
        raise outcome.failure
    if remaining := outcome.refused + len(outcome.unsendable) + outcome.held:
        raise PipelineFailed(
            f"{remaining} of {count(len(letters), 'dead letter')} remain",
            where=pipeline,
            hint=f"the reasons are above; `streamline dead-letters show {pipeline}` has the messages and tracebacks",
            code="dead_letter.refused_again",
        )


def _retry_records(app: App, store: Store, pipeline: str, run_id: str, letters: list[DeadLetter]) -> None:
    from streamline.execution.integration.resend import resend

    if newer := _loaded_since(store, pipeline, letters):
        click.echo(
            f"Note: {', '.join(newer)}: a record that arrives now overwrites the row of its key, also a newer one.",
            err=True,
        )
    if app.load_pipeline(pipeline).stores_outputs:
        from streamline.execution.connector_blocks.letters import plan_letters
    else:
        from streamline.execution.integration.resend import plan_letters
    errors = resend(app.project, store, pipeline, run_id, letters, plan_letters)
    arrived = [letter.id for letter in letters if letter.id not in errors]
    store.discard_dead_letters(pipeline, arrived)
    click.echo(f"Sent again: {count(len(arrived), 'record')}; refused again: {len(errors)}")
    _fail_if_refused(pipeline, len(errors), len(letters))


def _fail_if_refused(pipeline: str, refused: int, letters: int) -> None:
    if refused:
        raise PipelineFailed(
            f"{count(refused, 'record')} of {letters} refused again",
            where=pipeline,
            hint=f"`streamline dead-letters list {pipeline}` says why.",
            code="dead_letter.refused_again",
        )


@contextmanager
def _opened(app: App, pipeline: str) -> Iterator[tuple[Letters, bool]]:
    """Open a pipeline's dead letters, and say whether they are messages.

    Raises:
        ConfigError: there is no such pipeline.
    """
    with app.store() as store:
        require_pipeline(app, store, pipeline)
        with _letters(app, store, pipeline) as opened:
            yield opened


@contextmanager
def _opened_to_discard(app: App, pipeline: str) -> Iterator[Letters]:
    """Open a pipeline's dead letters, to discard some.

    Raises:
        LeaseHeld: the pipeline is running, and parks messages whose keys have letters: it would not learn of this.
    """
    known = pipeline in app.project.pipelines()
    if known and app.load_pipeline(pipeline).options.get("park"):
        with change(app, pipeline, "discard") as (store, _), _letters(app, store, pipeline) as (kept, _):
            yield kept
    else:
        with _opened(app, pipeline) as (kept, _):
            yield kept


@contextmanager
def _letters(app: App, store: Store, pipeline: str) -> Iterator[tuple[Letters, bool]]:
    from streamline.execution.engine import takes
    from streamline.execution.streaming.letters import StoredLetters

    if pipeline not in app.project.pipelines():
        yield StoredLetters(store, pipeline), False
        return
    model = app.load_pipeline(pipeline)
    if not takes(model, "until_caught_up"):  # it moves no messages
        yield StoredLetters(store, pipeline), False
        return
    from streamline.execution.streaming.letter_box import pipeline_letters

    with pipeline_letters(app.project, store, model) as kept:
        yield kept, True


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
    kept: Letters, pipeline: str, ids: tuple[int, ...], stream: str | None, block: str | None
) -> list[DeadLetter]:
    """Return the dead letters that the arguments name.

    Raises:
        ConfigError: an id does not exist.
    """
    letters = kept.find(block=block, stream=stream, ids=list(ids) if ids else None)
    missing = sorted(set(ids) - {letter.id for letter in letters})
    if missing:
        raise ConfigError(
            f"dead letter not found: {', '.join(map(str, missing))}",
            where=pipeline,
            hint=f"`streamline dead-letters list {pipeline}` lists them.",
            code="dead_letter.not_found",
        )
    return letters
