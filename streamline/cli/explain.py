"""`streamline explain`: what a run would do, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App, pass_app
from streamline.cli.explain_batch import show_batch_plan
from streamline.cli.output import cell, count, json_option, moment, print_json, print_table

if TYPE_CHECKING:
    from streamline.execution.integration.explanation import (
        DestinationWords,
        Explanation,
        PluginWords,
        SourceWords,
        Start,
    )
    from streamline.execution.run import RunOptions
    from streamline.pipeline.model import PipelineModel

VALUE_WIDTH = 100
"""Characters of a bookmark that are shown to people."""


@click.command("explain")
@click.argument("pipeline")
@json_option
@pass_app
def command(app: App, pipeline: str, as_json: bool) -> int:
    """Show the plan of PIPELINE.

    Of an integration pipeline: processes, parallelism, where each stream starts, delivery grades, and why. Plugins are
    asked what they can do, and taps for their streams, where that is not known yet. Of a batch pipeline: the order,
    what runs side by side, where outputs are stored, what each block is held to. Nothing is moved, nothing runs.
    """
    from streamline.cli.blocks import load_model
    from streamline.execution.run import RunOptions
    from streamline.pipeline.model import BATCH_TYPES

    model = load_model(app, pipeline)
    for warning in (*app.project.warnings, *model.warnings):
        click.echo(f"Warning: {warning}", err=True)
    if model.type in BATCH_TYPES:
        return show_batch_plan(app, model, as_json=as_json)
    return show_plan(app, model, RunOptions(debug=app.debug), as_json=as_json)


def show_plan(app: App, model: PipelineModel, options: RunOptions, *, as_json: bool) -> int:
    """Make the plan of a run with these options and print it. No lease is needed, and nothing moves.

    Returns:
        the exit code, 0.

    Raises:
        ConfigError: something can't be done as it is written.
    """
    import anyio

    from streamline.blocks.connector.source import private_folder
    from streamline.execution.integration.explain import explain
    from streamline.execution.integration.planner import make_plan
    from streamline.execution.run import open_run

    project = app.project
    with (
        app.store() as store,
        private_folder(project, "explain") as folder,
        open_run(project, store, model.uuid, folder.name, options, run_dir=folder) as context,
    ):
        explanation = explain(context, anyio.run(make_plan, context, model))
    if as_json:
        import msgspec

        print_json(_masked(app, msgspec.to_builtins(explanation)))
    else:
        _show(app, explanation)
    return 0


def _masked(app: App, value: Any) -> Any:
    """`value` with its texts masked: a bookmark or a command may hold what is secret elsewhere."""
    if isinstance(value, str):
        return app.mask(value)
    if isinstance(value, list):
        return [_masked(app, each) for each in value]
    if isinstance(value, dict):
        return {key: _masked(app, each) for key, each in value.items()}
    return value


def _show(app: App, explanation: Explanation) -> None:
    def say(text: str) -> None:
        click.echo(app.mask(text))

    sources, destinations = len(explanation.sources), len(explanation.destinations)
    say(f"{explanation.pipeline}: {count(sources, 'source')}, {count(destinations, 'destination')}")
    for source in explanation.sources:
        _show_source(app, source)
    for transformer in explanation.transformers:
        where = (
            f"{count(transformer.workers, 'worker process', 'worker processes')}"
            if transformer.workers
            else "a worker thread"
        )
        say(f"\nTransformer {transformer.block}: {transformer.lane} lane, in {where}")
    for destination in explanation.destinations:
        _show_destination(app, destination)
    say("\nDelivery")
    for edge in explanation.edges:
        way = " -> ".join([edge.source, *edge.through, edge.destination])
        say(f"  {way}: {edge.delivery.grade}; {edge.delivery.why}")


def _show_source(app: App, source: SourceWords) -> None:
    def say(text: str) -> None:
        click.echo(app.mask(f"  {text}"))

    click.echo(f"\nSource {source.block}: {_plugin(app, source.plugin)}")
    if source.start is not None:
        say(f"streams: what the tap sends; it has no catalog. It starts from {_start(source.start)}")
    if source.streams:
        print_table(
            ["STREAM", "REPLICATION", "KEY", "STARTS FROM", "PROCESS"],
            [
                [
                    stream.stream,
                    _method(stream.replication_method, stream.bookmark_properties),
                    stream.key_properties,
                    app.mask(_start(stream.start)),
                    stream.process,
                ]
                for stream in source.streams
            ],
        )
    for stream in source.streams:
        if stream.columns is not None:
            say(f"{stream.stream}: only the columns {', '.join(stream.columns)}")
        if stream.from_store:
            say(f"{stream.stream}: from the store: {_settings(stream.from_store)}")
    processes = count(len(source.processes), "tap process", "tap processes")
    most = min(source.max_parallel, len(source.processes))
    say(f"{processes}, at most {most} at once (max_parallel: {source.max_parallel})")
    for process in source.processes:
        say(f"  {process.id}: {', '.join(process.streams) or 'all streams'} ({process.why})")
    if source.mappers:
        say(f"mappers behind each: {', '.join(source.mappers)}")
    if source.ends:
        say(f"the tap is asked to end {source.ends}")
    batch = f"passed on as files ({', '.join(source.batch.passed)})" if source.batch.passed else "expanded into records"
    say(f"BATCH messages, if it sends any: {batch}; {source.batch.why}")
    if source.left_out:
        say(f"left out, though LOG_BASED and with a position: {', '.join(source.left_out)}")
    for note in source.notes:
        say(f"note: {note}")


def _show_destination(app: App, destination: DestinationWords) -> None:
    def say(text: str) -> None:
        click.echo(app.mask(f"  {text}"))

    click.echo(f"\nDestination {destination.block}: {_plugin(app, destination.plugin)}")
    if destination.tables:
        print_table(
            ["STREAM", "TABLE", "KEY", "LOAD", "WHY", "BAD RECORDS", "SCHEMA CHANGE", "DELIVERY", "PROCESS"],
            [
                [
                    table.stream,
                    table.table,
                    table.key,
                    table.load_method,
                    table.why,
                    table.on_bad_record,
                    table.schema_change,
                    table.delivery.grade,
                    table.process,
                ]
                for table in destination.tables
            ],
        )
    else:
        policies = f"on_bad_record: {destination.on_bad_record}, schema_change: {destination.schema_change}"
        say(f"tables: known when the SCHEMAs come; {policies}")
    for table in destination.tables:
        if table.from_store:
            say(f"{table.stream}: from the store: {_settings(table.from_store)}")
    say(f"{count(len(destination.processes), 'target process', 'target processes')} ({destination.processes_why})")
    if destination.session_interval is not None:
        say(f"sessions: closed and started anew every {destination.session_interval:g} s while records are unproven")
    say(f"what proves: {destination.proof}")
    for note in destination.notes:
        say(f"note: {note}")


def _plugin(app: App, plugin: PluginWords) -> str:
    version = f" {plugin.version}" if plugin.version else ""
    return app.mask(cell(f"{plugin.name}{version}, {plugin.runs}"))


def _method(method: str | None, properties: list[str]) -> str:
    shown = method or "the tap decides"
    return f"{shown} ({', '.join(properties)})" if properties else shown


def _start(start: Start) -> str:
    if start.kind == "start":
        return f"the start ({start.why})"
    value = start.value or ""
    if len(value) > VALUE_WIDTH:
        value = value[:VALUE_WIDTH] + "…"
    if start.kind == "override":
        return f"the override: {value}"
    saved = f" ({moment(start.saved_at)})" if start.saved_at else f" ({start.why})"
    return f"the store: {value}{saved}"


def _settings(settings: dict[str, Any]) -> str:
    import json

    return ", ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()
    )


__all__ = ["command", "show_batch_plan", "show_plan"]
