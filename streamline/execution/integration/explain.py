"""A plan in words: what runs where, what starts from which position, and how safely everything arrives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamline.connectors.singer.state import rows_have_bookmarks
from streamline.execution.delivery import Delivery, Grade, joined
from streamline.execution.integration.delivery import delivery_of, proof_of
from streamline.execution.integration.explanation import (
    BatchWords,
    DestinationWords,
    EdgeWords,
    FlowExplanation,
    PluginWords,
    ProcessWords,
    SourceWords,
    Start,
    StreamWords,
    TableWords,
    TransformerWords,
)
from streamline.execution.integration.route_builder import RouteBuilder
from streamline.flow.items import REST
from streamline.project.lockfile import read_lock

if TYPE_CHECKING:
    from streamline.connectors.plugins import Plugin
    from streamline.connectors.singer.capabilities import Capabilities
    from streamline.connectors.singer.selection import SelectedStream
    from streamline.connectors.singer.stages.stream_plan import StreamPlan
    from streamline.execution.integration.plan import GroupPlan, Plan, SinkPlan, SourcePlan
    from streamline.execution.run import Run
    from streamline.pipeline.model import PipelineModel
    from streamline.state.store import Bookmark


def explain(context: Run, model: PipelineModel, plan: Plan) -> FlowExplanation:
    """Put a plan into words. Nothing is started; bookmarks' values are not masked yet."""
    destinations = [_destination(context, plan, sink) for sink in plan.sinks.values()]
    transformers = {
        each.block.uuid: TransformerWords(each.block.uuid, each.lane, int(each.block.configuration.get("workers") or 0))
        for path in plan.paths.values()
        for each in path.all_transforms()
    }
    return FlowExplanation(
        pipeline=plan.pipeline,
        sources=[_source(context, model, plan, source) for source in plan.sources.values()],
        transformers=list(transformers.values()),
        destinations=destinations,
        edges=[
            _edge(plan, source, words)
            for source in plan.sources
            for words in destinations
            if words.block in plan.paths[source].all_sinks()
        ],
        callbacks=[callback.uuid for callback in model.callbacks.values() if not callback.upstream],
    )


# -- plugins


def _plugin(context: Run, plugin: Plugin, capabilities: Capabilities | None) -> PluginWords:
    version = capabilities.about.get("version") if capabilities is not None else None
    if plugin.kind == "builtin":
        from streamline.version import __version__

        version = version or __version__
        runs = "comes with Streamline"
    elif plugin.kind == "pip":
        version = version or _locked_version(context, plugin)
        runs = f"in its environment {context.project.shown(context.project.work_dir / 'venvs' / plugin.name)}"
    else:
        from pathlib import Path

        words = [context.project.shown(Path(word)) if word.startswith("/") else word for word in plugin.argv]
        runs = f"command: {' '.join(words)}"
    return PluginWords(plugin.name, str(version) if version else None, runs)


def _locked_version(context: Run, plugin: Plugin) -> str | None:
    """Return the version of the plugin's own package, the first that its entry requires."""
    import re

    locked = read_lock(context.project.root).get(plugin.name)
    if locked is None or not locked.pip:
        return None
    name = re.match(r"[A-Za-z0-9._-]+", locked.pip[0])
    wanted = _normal(name[0]) if name else ""
    return next((version for package, version in locked.packages.items() if _normal(package) == wanted), None)


def _normal(package: str) -> str:
    return package.lower().replace("_", "-").replace(".", "-")


# -- sources


def _source(context: Run, model: PipelineModel, plan: Plan, source: SourcePlan) -> SourceWords:
    saved = context.store.bookmarks(plan.pipeline, source.id)
    process_of = {stream.id: group for group in source.groups for stream in group.streams}
    return SourceWords(
        block=source.id,
        plugin=_plugin(context, source.plugin, source.capabilities),
        streams=[_stream(stream, source, process_of[stream.id], saved) for stream in source.selected],
        processes=[
            ProcessWords(group.id, [stream.id for stream in group.streams], _why_together(source, group))
            for group in source.groups
        ],
        max_parallel=source.max_parallel,
        batch=_batch(context, plan, source),
        mappers=[f"{each.block.uuid} ({each.plugin.name})" for each in plan.mappers.get(source.id, ())],
        start=_start_of_all(source, saved) if source.catalog is None else None,
        ends=_ends(source),
        left_out=list(source.left_out),
        notes=[*_conditions(model, source.id), *source.notes],
    )


def _conditions(model: PipelineModel, source: str) -> list[str]:
    gates = [gate.uuid for gate in model.conditionals.values() if source in gate.upstream]
    return [f"runs only if {' and '.join(gates)} {'returns' if len(gates) == 1 else 'return'} true"] if gates else []


def _stream(stream: SelectedStream, source: SourcePlan, group: GroupPlan, saved: dict[str, Bookmark]) -> StreamWords:
    return StreamWords(
        stream=stream.id,
        replication_method=stream.replication_method,
        bookmark_properties=list(stream.bookmark_properties),
        key_properties=list(stream.key_properties),
        start=_start(stream.id, source, group, saved),
        process=group.id,
        columns=stream.columns,
    )


def _start(stream: str, source: SourcePlan, group: GroupPlan, saved: dict[str, Bookmark]) -> Start:
    value = group.rows.get(stream)
    text = value.decode("utf-8", "surrogateescape") if value is not None else None
    cause = source.cause_of.get(stream)
    if cause == "override":
        return Start("override", "the override's value", text)
    if text is not None and stream in saved:
        return Start("store", "the last proof", text, saved[stream].saved_at, saved[stream].run_id)
    if cause is not None:
        noted = any(note.startswith(f"stream {stream}: ") for note in source.notes)
        return Start("start", "its position belongs to another replication method or key" if noted else "full refresh")
    if REST in group.rows and not rows_have_bookmarks(group.rows):
        rest = group.rows[REST].decode("utf-8", "surrogateescape")
        return Start("store", "the tap keeps one state for all streams", rest)
    return Start("start", "no position is saved")


def _start_of_all(source: SourcePlan, saved: dict[str, Bookmark]) -> Start:
    """Return the start of a tap whose streams are not known: that of its whole state."""
    (group,) = source.groups
    if not group.rows:
        return Start("start", "full refresh" if saved else "no position is saved")
    state = group.state.decode("utf-8", "surrogateescape")
    if "override" in source.cause_of.values():
        return Start("override", "the override's value", state)
    return Start("store", "the last proof", state)


def _why_together(source: SourcePlan, group: GroupPlan) -> str:
    """Say why these streams share a process, or this one has its own."""
    if not group.streams:
        return "the tap has no catalog"
    wanting = [stream.id for stream in source.selected if stream.run_in_parallel]
    if len(source.groups) == 1:
        if not wanting:
            return "no stream sets run_in_parallel"
        if len(group.streams) == 1:
            return "it is the only stream"
        if not rows_have_bookmarks(group.rows):
            return "the tap's state is not split by stream"
    if len(group.streams) == 1:
        return "run_in_parallel" if group.streams[0].run_in_parallel else "run_in_parallel is not set"
    reasons = []
    if sum(stream.replication_method == "LOG_BASED" for stream in group.streams) > 1:
        reasons.append("LOG_BASED streams share one log")
    parents = sorted({stream.id for stream in group.streams} & {stream.parent for stream in group.streams})
    if parents:
        reasons.append(f"a parent stays with its children ({', '.join(parents)})")
    if not any(stream.run_in_parallel for stream in group.streams):
        reasons.append("none of the others sets run_in_parallel" if reasons else "run_in_parallel is not set")
    return "; ".join(reasons) or "they share a parent"


def _ends(source: SourcePlan) -> str:
    words = []
    if source.spec.max_duration is not None:
        words.append(f"after {source.spec.max_duration:g} s (max_duration)")
    if source.spec.idle_timeout is not None:
        words.append(f"after {source.spec.idle_timeout:g} s of silence (idle_timeout)")
    return " or ".join(words)


def _batch(context: Run, plan: Plan, source: SourcePlan) -> BatchWords:
    passed = sorted(RouteBuilder(context, plan, validate=False, version=0).passed_dialects(source.id))
    if passed:
        return BatchWords(passed, "every target accepts them, and no block must see the records")
    path = plan.paths[source.id]
    seeing = [*plan.mappers_of(source.id), *(each.block.uuid for each in path.all_transforms())]
    if seeing:
        return BatchWords([], f"{', '.join(seeing)} must see the records")
    sinks = [plan.sinks[sink] for sink in path.all_sinks()]
    unable = [sink.plugin.name for sink in sinks if not sink.batch_dialects]
    if unable:
        return BatchWords([], f"{', '.join(dict.fromkeys(unable))} does not list the capability `batch`")
    return BatchWords([], f"{', '.join(sink.id for sink in sinks)} must see the records, to check or change them")


# -- destinations


def _destination(context: Run, plan: Plan, sink: SinkPlan) -> DestinationWords:
    endless = any(source.endless for source in plan.feeding(sink.id))
    processes = [sink.id] if sink.processes == 1 else [f"{sink.id}.{number + 1}" for number in range(sink.processes)]
    return DestinationWords(
        block=sink.id,
        plugin=_plugin(context, sink.plugin, sink.capabilities),
        processes=processes,
        processes_why=_why_processes(sink),
        tables=[
            _table(plan, sink, key, stream, selected, processes)
            for key, stream in sink.plans.items()
            for selected in plan.sources[key[0]].sharing(key[1])
        ],
        on_bad_record=sink.spec.on_bad_record,
        schema_change=sink.spec.schema_change,
        session_interval=sink.session_interval(endless=endless),
        proof=proof_of(sink),
        notes=[_OVERWRITES] if sink.overwrites else [],
    )


_OVERWRITES = (
    "its config (load_method: overwrite) makes it drop its tables when it starts: they hold one run's records, and "
    "failures are not retried within the run"
)


def _why_processes(sink: SinkPlan) -> str:
    if sink.processes > 1:
        return "streams set run_in_parallel, and the target allows that many"
    wanting = [
        name
        for source, name in sink.plans
        if (settings := sink.settings_of(source, name)) is not None and settings.get("run_in_parallel")
    ]
    if wanting:
        return f"{sink.plugin.name} allows only one (max_processes), although {', '.join(wanting)} sets run_in_parallel"
    return "no stream sets run_in_parallel"


def _table(
    plan: Plan,
    sink: SinkPlan,
    key: tuple[str, str],
    stream: StreamPlan,
    selected: SelectedStream,
    processes: Sequence[str],
) -> TableWords:
    source, name = key
    table = stream.table or name
    keys = stream.keys if stream.keys is not None else selected.key_properties
    return TableWords(
        source=source,
        stream=selected.id,
        table=table,
        load_method=stream.load_method,
        why=stream.why,
        key=stream.with_source(keys),
        process=processes[sink.slot_of(table)],
        on_bad_record=sink.setting("on_bad_record", source, name),
        schema_change=sink.setting("schema_change", source, name),
        delivery=delivery_of(
            stream,
            keys,
            selected.replication_method,
            endless=plan.sources[source].endless,
            merges="upsert" in (sink.capabilities.about.get("load_methods") or ()),
        ),
    )


# -- edges


def _edge(plan: Plan, source: str, words: DestinationWords) -> EdgeWords:
    tables = [table for table in words.tables if table.source == source]
    if tables:
        delivery = joined({table.stream: table.delivery for table in tables})
    else:
        delivery = Delivery(
            Grade.AT_LEAST_ONCE, "the streams are unknown until the tap sends them; those with a key are upserted"
        )
    through = [*plan.mappers_of(source), *plan.paths[source].transforms_before(words.block)]
    return EdgeWords(source, through, words.block, delivery)
