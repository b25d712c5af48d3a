"""`streamline explain`: what a run would do, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App, pass_app
from streamline.cli.output import (
    cell,
    count,
    json_option,
    masked,
    masked_values,
    moment,
    print_json,
    print_table,
    print_text,
)

if TYPE_CHECKING:
    from streamline.execution.batch.explain import BatchExplanation, BlockWords
    from streamline.execution.engine import PlanExplanation
    from streamline.execution.integration.explanation import (
        DestinationWords,
        FlowExplanation,
        PluginWords,
        SourceWords,
        Start,
    )
    from streamline.execution.streaming.explain import StreamExplanation

VALUE_WIDTH = 100
"""Characters of a bookmark that are shown in the terminal."""

_DELAYS = 5
"""Retry delays that are listed; of more only the last is shown."""


@click.command("explain")
@click.argument("pipeline")
@json_option
@pass_app
def command(app: App, pipeline: str, as_json: bool) -> int:
    """Show the plan of PIPELINE.

    Of an integration pipeline: processes, parallelism, where each stream starts, delivery grades, and why. Plugins are
    asked for their capabilities, and taps for their streams, where these are not known yet. Of a batch pipeline: the
    order, what runs in parallel, where outputs are stored, the limits of each block. Of a streaming pipeline: where
    messages are decoded and copied, where positions and dead letters are kept, delivery grades, and why. Nothing
    moves, nothing runs.
    """
    from streamline.execution.engine import engine_of
    from streamline.execution.run import RunOptions

    model = app.load_pipeline(pipeline)
    show_plan(app, engine_of(model).explain(app.project, model, RunOptions(debug=app.debug)), as_json=as_json)
    return 0


def show_plan(app: App, explanation: PlanExplanation, *, as_json: bool) -> None:
    """Print a plan."""
    if as_json:
        import msgspec

        print_json(masked_values(msgspec.to_builtins(explanation)))
    else:
        _VIEWS[explanation.view](app, explanation)


def _show_flow(app: App, explanation: FlowExplanation) -> None:
    sources, destinations = len(explanation.sources), len(explanation.destinations)
    print_text(f"{explanation.pipeline}: {count(sources, 'source')}, {count(destinations, 'destination')}")
    for source in explanation.sources:
        _show_source(source)
    for transformer in explanation.transformers:
        where = (
            f"{count(transformer.workers, 'worker process', 'worker processes')}"
            if transformer.workers
            else "a worker thread"
        )
        print_text(f"\nTransformer {transformer.block}: {transformer.lane} lane, in {where}")
    for destination in explanation.destinations:
        _show_destination(destination)
    print_text("\nDelivery")
    for edge in explanation.edges:
        way = " -> ".join([edge.source, *edge.through, edge.destination])
        print_text(f"  {way}: {edge.delivery.grade}; {edge.delivery.why}")
    if explanation.callbacks:
        print_text(f"\nCalled when the pipeline ends: {', '.join(explanation.callbacks)}")


def _show_source(source: SourceWords) -> None:
    print_text(f"\nSource {source.block}: {_plugin(source.plugin)}")
    if source.start is not None:
        _say(f"streams: what the tap sends; it has no catalog. It starts from {_start(source.start)}")
    if source.streams:
        print_table(
            ["STREAM", "REPLICATION", "KEY", "STARTS FROM", "PROCESS"],
            [
                [
                    stream.stream,
                    _method(stream.replication_method, stream.bookmark_properties),
                    stream.key_properties,
                    _start(stream.start),
                    stream.process,
                ]
                for stream in source.streams
            ],
        )
    for stream in source.streams:
        if stream.columns is not None:
            _say(f"{stream.stream}: only the columns {', '.join(stream.columns)}")
    processes = count(len(source.processes), "tap process", "tap processes")
    most = min(source.max_parallel, len(source.processes))
    _say(f"{processes}, at most {most} at once (max_parallel: {source.max_parallel})")
    for process in source.processes:
        _say(f"  {process.id}: {', '.join(process.streams) or 'all streams'} ({process.why})")
    if source.mappers:
        _say(f"mappers behind each: {', '.join(source.mappers)}")
    if source.ends:
        _say(f"the tap is asked to end {source.ends}")
    batch = f"passed on as files ({', '.join(source.batch.passed)})" if source.batch.passed else "expanded into records"
    _say(f"BATCH messages, if it sends any: {batch}; {source.batch.why}")
    if source.left_out:
        _say(f"left out, though LOG_BASED and with a position: {', '.join(source.left_out)}")
    for note in source.notes:
        _say(f"note: {note}")


def _show_destination(destination: DestinationWords) -> None:
    print_text(f"\nDestination {destination.block}: {_plugin(destination.plugin)}")
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
        _say(f"tables: known when the SCHEMAs come; {policies}")
    _say(f"{count(len(destination.processes), 'target process', 'target processes')} ({destination.processes_why})")
    if destination.session_interval is not None:
        _say(f"sessions: closed and started anew every {destination.session_interval:g} s while records are unproven")
    _say(f"what proves: {destination.proof}")
    for note in destination.notes:
        _say(f"note: {note}")


def _plugin(plugin: PluginWords) -> str:
    version = f" {plugin.version}" if plugin.version else ""
    return cell(f"{plugin.name}{version}, {plugin.runs}")


def _say(text: str) -> None:
    print_text(f"  {text}")


def _method(method: str | None, properties: list[str]) -> str:
    shown = method or "the tap decides"
    return f"{shown} ({', '.join(properties)})" if properties else shown


def _start(start: Start) -> str:
    if start.kind == "start":
        return f"the start ({start.why})"
    value = masked(start.value or "")  # before it is cut: a part of a secret would not be recognized
    if len(value) > VALUE_WIDTH:
        value = value[:VALUE_WIDTH] + "…"
    if start.kind == "override":
        return f"the override: {value}"
    saved = f" ({moment(start.saved_at)})" if start.saved_at else f" ({start.why})"
    return f"the store: {value}{saved}"


# -- streaming pipelines


def _show_stream(app: App, explanation: StreamExplanation) -> None:
    counts = [
        count(len(explanation.sources), "source"),
        count(len(explanation.transformers), "transformer"),
        count(len(explanation.destinations), "destination"),
    ]
    print_text(f"{explanation.pipeline}: {', '.join(counts)}; delivery: {explanation.delivery}")
    for source in explanation.sources:
        print_text(f"\nSource {source.block}: {source.connector}")
        if source.reads is not None:
            _say(f"reads {source.reads}")
        _say(f"positions: {'in ' if source.replays else ''}{source.positions}")
        _say("values are decoded for the blocks that use them" if source.decoded else "values pass as they come")
        if source.mappers:
            _say(f"mappers behind it: {', '.join(source.mappers)}")
        if not source.replays:
            _say("it cannot be read again: what is in flight when the run fails is lost")
    for transformer in explanation.transformers:
        print_text(f"\nTransformer {transformer.block}: fed by {', '.join(transformer.sources)}")
        if transformer.copies:
            _say("it gets copies: other blocks have the same messages")
        if transformer.repartition is not None:
            repartition = transformer.repartition
            _say(f"its messages have the key {repartition.field}: they come by the topic {repartition.topic}")
        if transformer.state == "state store":
            _say("state: in the state store, saved in one transaction with the positions")
        elif transformer.state is not None:
            topic = transformer.state.replace("{stream}", "TOPIC")
            _say(f"state: in the compacted topic {topic}, with a copy in this project")
    for destination in explanation.destinations:
        print_text(f"\nDestination {destination.block}: {destination.connector}")
        if destination.writes is not None:
            _say(f"writes {destination.writes}")
        _say(f"what proves: {destination.proof}")
        if destination.copies:
            _say("it gets copies: other blocks have the same messages")
    print_text("\nDelivery")
    for edge in explanation.edges:
        way = " -> ".join([edge.source, *edge.through, edge.destination])
        print_text(f"  {way}: {edge.delivery.grade}; {edge.delivery.why}")
        if edge.delivery.better is not None:
            print_text(f"    more with: {edge.delivery.better}")
    print_text(f"\nCheckpoints: every {explanation.checkpoint_interval:g} s")
    refused = "the run stops at it" if explanation.dead_letters is None else f"goes to {explanation.dead_letters}"
    print_text(f"A message that cannot be processed or delivered: {refused} (on_error: {explanation.on_error})")
    if explanation.dead_letters is not None and explanation.delivery == "exactly-once":
        _say("`dead-letters retry` delivers them at least once: it is not part of the transactions")
    if explanation.instances > 1:
        print_text(f"Instances: {explanation.instances} processes share the partitions")
    if explanation.callbacks:
        print_text(f"Called when the pipeline ends: {', '.join(explanation.callbacks)}")


# -- batch pipelines


def _show_tasks(app: App, explanation: BatchExplanation) -> None:
    blocks = count(len(explanation.blocks), "block")
    click.echo(f"{explanation.pipeline}: {blocks}, at most {explanation.at_once} at once")
    if not explanation.blocks:
        return
    click.echo()
    print_table(
        ["STEP", "BLOCK", "TYPE", "AFTER", "RUNS", "BY", "OUTPUT"],
        [
            (
                block.step,
                block.block,
                block.connector or block.type,
                block.after,
                _runs(block),
                block.engine,
                _output(block, explanation),
            )
            for block in sorted(explanation.blocks, key=lambda block: block.step)
        ],
    )
    click.echo("\nBlocks of one step run in parallel; each starts as soon as its upstream blocks are done.")
    click.echo(f"Outputs are stored in {cell(explanation.outputs)}/.")
    special = [(block.block, _special(block, explanation)) for block in explanation.blocks]
    if any(lines for _, lines in special):
        click.echo()
    for block, lines in special:
        if lines:
            print_text(f"{block}: {'; '.join(lines)}")
    if explanation.callbacks:
        click.echo(f"\nCalled when the pipeline ends: {', '.join(explanation.callbacks)}")


def _runs(block: BlockWords) -> str:
    return f"once per item of {' × '.join(block.per_item_of)}" if block.per_item_of else "once"


def _output(block: BlockWords, explanation: BatchExplanation) -> str:
    return block.output.removeprefix(f"{explanation.outputs}/") + "/" if block.output else "never stored"


def _special(block: BlockWords, explanation: BatchExplanation) -> list[str]:
    """Describe a block's special settings."""
    lines = []
    if block.conditions:
        lines.append(f"runs only if {' and '.join(block.conditions)} {_returns(len(block.conditions))} true")
    if block.dynamic:
        lines.append("downstream blocks run once per item of its output")
    if block.per_item_of and explanation.max_children is not None:
        more = "fails" if explanation.on_exceeded == "fail" else "ignores the rest"
        lines.append(f"at most {explanation.max_children:,} children (if there are more, it {more})")
    if block.per_item_of and explanation.children_at_once is not None:
        lines.append(f"{explanation.children_at_once:,} of them in parallel")
    if block.gathers:
        lines.append("its outputs are gathered into one list, in the items' order")
    if block.asked_every is not None:
        until = f", timeout {block.gives_up_after:g} s" if block.gives_up_after is not None else ""
        lines.append(f"checked every {block.asked_every:g} s until it returns true{until}")
    if block.reads is not None:
        lines.append(f"reads {cell(block.reads)}")
    if block.pipes_into is not None:
        lines.append(f"its records go to {block.pipes_into} as they are read")
    if block.writes is not None:
        lines.append(f"writes {cell(block.writes)}")
    if block.retries:
        delays = ", ".join(f"{delay:g}" for delay in block.retries[:_DELAYS])
        if len(block.retries) > _DELAYS:
            delays += f", … {block.retries[-1]:g}"
        times = count(len(block.retries), "time")
        lines.append(f"on failure retried up to {times}, after {delays} s")
    if block.timeout is not None:
        lines.append(f"timeout {block.timeout:g} s")
    if block.callbacks:
        lines.append(f"{' and '.join(block.callbacks)} called when it ends")
    return lines


def _returns(number: int) -> str:
    return "returns" if number == 1 else "return"


_VIEWS: dict[str, Callable[[App, Any], None]] = {
    "flow": _show_flow,
    "stream": _show_stream,
    "tasks": _show_tasks,
}
