"""How streams reach a destination: their tables, their processes, and what its target can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streamline.blocks.connector.spec import DestinationSpec
from streamline.connectors.plugins import Plugin
from streamline.connectors.singer.capabilities import Capabilities
from streamline.connectors.singer.selection import SelectedStream
from streamline.connectors.singer.settings import (
    Resolved,
    StreamSettings,
    check_destination_names,
    resolve,
    resolve_destination,
)
from streamline.connectors.singer.stages.stream_plan import StreamPlan, check_tables, plan_stream
from streamline.errors import ConfigError
from streamline.execution.integration.plan import PathPlan, SinkPlan, SourcePlan
from streamline.pipeline.model import Block


def plan_sink(
    block: Block,
    spec: DestinationSpec,
    plugin: Plugin,
    capabilities: Capabilities,
    sources: dict[str, SourcePlan],
    paths: dict[str, PathPlan],
) -> SinkPlan:
    """Return a destination's plan, for all sources that feed it.

    Raises:
        ConfigError: a setting that can't be honoured, or streams that would undo each other in one table.
    """
    feeding = [source for source in sources.values() if block.uuid in paths[source.id].all_sinks()]
    if all(source.catalog is not None for source in feeding):
        _check_names(spec.streams, feeding)
    planned: dict[tuple[str, str], StreamPlan | None] = {}
    stream_of: dict[tuple[str, str], str] = {}
    by_name = {
        (source.id, name): stream
        for source in feeding
        for stream in reversed(source.selected)
        for name in (*stream.names, stream.stream, stream.id)
    }

    config, replaced = _without_replace(spec.config, capabilities)

    def settings_of(source: str, name: str) -> Resolved | None:
        return resolve_destination(spec.streams, _names(name, by_name.get((source, name))))

    def plan_of(source: str, name: str) -> StreamPlan | None:
        key = (source, name)
        if key not in planned:
            plan = _plan_stream(
                name,
                by_name.get(key),
                sources[source],
                spec.streams,
                plugin,
                capabilities,
                replaced,
            )
            if plan is not None and spec.source_column:
                plan = msgspec.structs.replace(plan, source=source)
            planned[key] = plan
            if plan is not None:
                stream_of[source, plan.table or name] = name
        return planned[key]

    for source in feeding:
        for stream in source.selected:
            _check_sharing(source, stream, spec.streams, where=block.uuid)
            try:
                plan_of(source.id, source.name_in_messages(stream))
            except ConfigError as error:
                if not source.set_aside((stream.id, stream.stream, *stream.names), error):
                    raise
    known = {key: plan for key, plan in planned.items() if plan is not None}
    for source in feeding:
        _check_own_tables(source, known, by_name, where=block.uuid)
    check_shared_tables(known, sources, by_name, where=block.uuid)
    slots, processes = _slots(known, spec.streams, by_name, plugin, capabilities)
    return SinkPlan(
        block=block,
        spec=spec,
        plugin=plugin,
        config=config,
        capabilities=capabilities,
        processes=processes,
        slot_of=lambda table: slots.get(table, 0),
        settings_of=settings_of,
        plan_of=plan_of,
        stream_of=lambda source, table: stream_of.get((source, table), table),
        plans=known,
        replaces=capabilities.activate_version,
        batch_dialects=frozenset(
            dialect
            for dialect, takes in (("sdk", capabilities.batch), ("pipelinewise", capabilities.pipelinewise_batch))
            if takes
        ),
    )


def _check_sharing(source: SourcePlan, stream: SelectedStream, streams: StreamSettings, *, where: str) -> None:
    """Refuse other settings for a stream than for one of the same name, whose messages look the same.

    Raises:
        ConfigError: their settings differ, or only one of them is exported.
    """
    first = source.sharing(source.name_in_messages(stream))[0]
    own, others = (resolve_destination(streams, _names(each.id, each)) for each in (stream, first))
    if (own and own.values) != (others and others.values):
        raise ConfigError(
            f"streams {first.id!r} and {stream.id!r} have one name in the tap's messages, {stream.stream!r}, so they "
            "cannot have different settings",
            where=where,
            hint=f"give `streams:` an entry {stream.stream!r} for both, or read them in a source block each",
            code="stream.name_shared",
        )


def plan_sinks(
    destinations: Mapping[str, tuple[Block, DestinationSpec]],
    targets: Mapping[str, tuple[Plugin, Capabilities]],
    sources: dict[str, SourcePlan],
    paths: dict[str, PathPlan],
) -> dict[str, SinkPlan]:
    """Return the plans of all destinations, for the streams that none of them sets aside.

    Raises:
        ConfigError: see `plan_sink`.
    """
    while True:
        read = [source.selected for source in sources.values()]
        sinks = {
            uuid: plan_sink(block, spec, *targets[uuid], sources, paths) for uuid, (block, spec) in destinations.items()
        }
        # A stream that one destination has set aside must be in no other's plan.
        if read == [source.selected for source in sources.values()]:
            return sinks


def _check_names(streams: StreamSettings, feeding: Sequence[SourcePlan]) -> None:
    """Refuse names of streams that no source has; set those aside that were loaded before.

    Raises:
        ConfigError: see `check_destination_names`.
    """
    known = [(each.id, each.stream, *each.names) for source in feeding for each in source.catalog or ()]
    for source in feeding:
        streams = source.without_vanished(streams)
    for entry in streams.entries:
        gone = [(name,) for source in feeding for name in source.gone]
        try:
            check_destination_names(StreamSettings((entry,)), [*known, *gone])
        except ConfigError as error:
            losing = [source for source in feeding if source.set_aside((entry.pattern,), error)]
            if not losing:
                raise


def proving_sinks(
    stream: SelectedStream | None, selected: Sequence[SelectedStream], sinks: Mapping[str, DestinationSpec]
) -> list[str]:
    """Return the destinations that prove a stream's bookmark: those that export the stream.

    Where none does, those that export one of its children, which it drives.

    Args:
        stream: None for a bookmark of no known stream, which all of them prove.
        selected: the streams that the source reads.
        sinks: the destinations that the source feeds.
    """
    if stream is None:
        return list(sinks)

    def exporting(each: SelectedStream) -> list[str]:
        names = _names(each.id, each)
        return [uuid for uuid, spec in sinks.items() if resolve_destination(spec.streams, names) is not None]

    if own := exporting(stream):
        return own
    children = [each for each in selected if each.parent == stream.id]
    behind = {uuid for child in children for uuid in proving_sinks(child, selected, sinks)}
    return [uuid for uuid in sinks if uuid in behind]


def _check_own_tables(
    source: SourcePlan,
    plans: Mapping[tuple[str, str], StreamPlan],
    by_name: Mapping[tuple[str, str], SelectedStream],
    *,
    where: str,
) -> None:
    """Refuse streams of one source that share a table; a new one is left out for one that was loaded before.

    Raises:
        ConfigError: both are new, or both were loaded.
    """
    of_source = {name: plan for (of, name), plan in plans.items() if of == source.id}
    loaded_first = {**{name: plan for name, plan in of_source.items() if name in source.loaded}, **of_source}

    def is_new(stream: str, other: str, error: ConfigError) -> bool:
        selected = by_name.get((source.id, stream))
        if selected is None or stream in source.loaded or other not in source.loaded:
            return False
        source.leave_out((selected.id, selected.stream, *selected.names), error)
        return True

    check_tables(loaded_first, set_aside=is_new, where=where)


def check_shared_tables(
    plans: dict[tuple[str, str], StreamPlan],
    sources: dict[str, SourcePlan],
    by_name: dict[tuple[str, str], SelectedStream],
    *,
    where: str,
) -> None:
    """Refuse tables in which the records of two sources would undo each other; note those in which they may.

    Raises:
        ConfigError: one of them replaces the table, or they have different keys.
    """
    taken: dict[str, tuple[str, str]] = {}
    for key, plan in plans.items():
        source, name = key
        other = taken.setdefault(plan.table or name, key)
        if other[0] == source:
            continue
        words = f"{other[1]!r} of {other[0]} and {name!r} of {source}"
        hint = "give each a destination_table of its own, or a destination block"
        column = "source_column: true in the destination, which makes the source part of the key"
        if "replace" in (plan.load_method, plans[other].load_method):
            raise ConfigError(
                f"streams {words} would both be written to table {plan.table or name!r}, and each replaces it: "
                "one would delete the other's rows",
                where=plan.where or where,
                hint=f"{hint}. With load_method: append they may share it; with upsert if no key occurs in both, or "
                f"with {column}",
                code="destination.table_shared",
            )
        keys = [
            list(plans[table_key].keys or (by_name[table_key].key_properties if table_key in by_name else ()))
            for table_key in (other, key)
        ]
        if keys[0] != keys[1]:
            raise ConfigError(
                f"streams {words} would both be written to table {plan.table or name!r}, with different keys: "
                f"{keys[0]} and {keys[1]}",
                where=plan.where or where,
                hint=f"{hint} Or set the same unique_constraints for both.",
                code="destination.table_shared",
            )
        if plan.load_method == plans[other].load_method == "upsert" and plan.source is None:
            sources[source].notes.append(
                f"streams {words} are both merged into table {plan.table or name!r}: rows with the same "
                f"{', '.join(keys[0])} overwrite each other. If both have such rows, {hint}, or set {column}"
            )


def check_exclusive_files(sinks: Iterable[SinkPlan], folder: Path) -> None:
    """Refuse two destinations whose targets would wait for each other to close one file.

    A target names such a setting by `x-exclusive` in its `--about`.

    Args:
        sinks: the destinations.
        folder: the targets' working folder.

    Raises:
        ConfigError: two of them have the same file.
    """
    taken: dict[Path, str] = {}
    for sink in sinks:
        settings = sink.capabilities.about.get("settings")
        properties = settings.get("properties") if isinstance(settings, dict) else None
        for name, schema in properties.items() if isinstance(properties, dict) else ():
            value = sink.config.get(name)
            if not isinstance(value, str) or not isinstance(schema, dict) or not schema.get("x-exclusive"):
                continue
            file = (folder / value).resolve()
            other = taken.setdefault(file, sink.id)
            if other != sink.id:
                raise ConfigError(
                    f"destinations {other!r} and {sink.id!r} both write to {value}, which only one process can open",
                    where=sink.block.uuid,
                    hint="connect all sources to one of them, or give each a file of its own",
                    code="destination.file_shared",
                )


def _names(name: str, stream: SelectedStream | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys((stream.id, stream.stream, *stream.names))) if stream is not None else (name,)


def _plan_stream(
    name: str,
    stream: SelectedStream | None,
    source: SourcePlan,
    streams: StreamSettings,
    plugin: Plugin,
    capabilities: Capabilities,
    replaced: Callable[[str], bool],
) -> StreamPlan | None:
    resolved = resolve_destination(streams, _names(name, stream))
    if resolved is None:
        return None
    entry = source.catalog.get(stream.id) if stream is not None and source.catalog is not None else None
    return plan_stream(
        name,
        resolved,
        target=plugin.name,
        replaces=capabilities.activate_version,
        capabilities=capabilities.names,
        replication_method=stream.replication_method if stream is not None else None,
        key_properties=stream.key_properties if stream is not None else None,
        columns=list(entry.properties) if entry is not None else (),
        load_methods=_load_methods(capabilities),
        endless=source.endless,
        default_method="replace" if replaced(resolved.get("destination_table") or name) else None,
    )


def _without_replace(
    config: dict[str, Any], capabilities: Capabilities
) -> tuple[dict[str, Any], Callable[[str], bool]]:
    """Return the config of one of our own targets without `load_method: replace`, and which tables that was for.

    On its own such a target replaces a table when its input ends. It cannot tell whether the tap has failed; versions
    that are activated after a good end can.
    """
    if not capabilities.activate_version or "replace" not in (_load_methods(capabilities) or ()):
        return config, lambda table: False
    streams = config.get("streams")
    methods = {
        table: settings.get("load_method")
        for table, settings in (streams.items() if isinstance(streams, dict) else ())
        if isinstance(settings, dict)
    }
    default = config.get("load_method")
    rest = {name: value for name, value in config.items() if (name, value) != ("load_method", "replace")}
    if "replace" in methods.values():
        rest["streams"] = {
            table: {**settings, "load_method": None} if methods.get(table) == "replace" else settings
            for table, settings in config["streams"].items()
        }
    return rest, lambda table: (methods.get(table) or default) == "replace"


def _load_methods(capabilities: Capabilities) -> list[str] | None:
    """Return the load methods that a bundled target declares; other targets declare none."""
    listed = capabilities.about.get("load_methods")
    return [str(method) for method in listed] if isinstance(listed, list) and listed else None


def _slots(
    plans: dict[tuple[str, str], StreamPlan],
    streams: StreamSettings,
    by_name: dict[tuple[str, str], SelectedStream],
    plugin: Plugin,
    capabilities: Capabilities,
) -> tuple[dict[str, int], int]:
    """Assign tables to target processes; tables that did not ask for one of their own share the first."""
    allowed = plugin.max_processes or capabilities.max_processes or 1
    wanting = [
        plan.table or name
        for (source, name), plan in plans.items()
        if resolve(streams, _names(name, by_name.get((source, name)))).get("run_in_parallel")
    ]
    if allowed < 2 or not wanting:
        return {}, 1
    first = 0 if len(wanting) == len(plans) else 1
    processes = min(allowed, first + len(wanting))
    return {table: (first + number) % processes for number, table in enumerate(wanting)}, processes
