"""Plans of integration pipelines, as small as a test needs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from streamline.blocks.connector.spec import DestinationSpec, SourceSpec
from streamline.connectors.plugins import Plugin
from streamline.connectors.singer.capabilities import Capabilities
from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.selection import SelectedStream
from streamline.connectors.singer.settings import parse_streams
from streamline.execution.integration.destination_plan import plan_sink
from streamline.execution.integration.plan import GroupPlan, PathPlan, Plan, SinkPlan, SourcePlan, TransformPlan
from streamline.execution.run import Run, RunOptions
from streamline.pipeline.model import Block
from streamline.state.store import Bookmark
from tests.connectors.singer import fakes


def block(uuid: str, type: str, **values: Any) -> Block:
    default = {"uuid": uuid, "name": uuid, "type": type, "language": "yaml", "upstream": [], "downstream": []}
    rest = {"configuration": {}, "retry_config": None, "timeout": None, "file": None, "content": None}
    return msgspec.convert({**default, **rest, "executor_type": None, "extra": {}, "path": (), **values}, Block)


def stream(id: str, method: str | None = "INCREMENTAL", key: str | None = None, **values: Any) -> SelectedStream:
    """A stream whose messages have its id as their name, unless `stream` says otherwise."""
    name = values.setdefault("stream", id)
    default = {"names": (name, id), "bookmark_properties": [key] if key else []}
    return SelectedStream(id=id, replication_method=method, **{**default, **values})


def catalog(*streams: SelectedStream) -> Catalog:
    return Catalog(
        {
            "streams": [
                {"tap_stream_id": each.id, "stream": each.stream, "parent_stream": each.parent} for each in streams
            ]
        }
    )


def group(*streams: SelectedStream, id: str = "load", source: str = "load", **rows: str) -> GroupPlan:
    texts = {name.replace("rest", "*"): text.encode() for name, text in rows.items()}
    return GroupPlan(id=id, source=source, streams=streams, catalog=None, state=b"{}", rows=texts)


def plugin(name: str = "tap-x", **values: Any) -> Plugin:
    return fakes.program(Path(), [], name, **values)


def source(*selected: SelectedStream, uuid: str = "load", **values: Any) -> SourcePlan:
    """A source with one process, which offers what it reads."""
    default: dict[str, Any] = {
        "block": block(uuid, "data_loader"),
        "spec": SourceSpec(source="tap-x"),
        "plugin": plugin(),
        "config": {},
        "capabilities": Capabilities(),
        "catalog": catalog(*selected),
        "selected": list(selected),
        "groups": [group(*selected, id=uuid, source=uuid)],
        "max_parallel": 1,
        "keep_config": lambda config: None,
    }
    # Fresh: what a run notes in them must not reach another test.
    notes: dict[str, Any] = {"notes": [], "cause_of": {}, "forgotten": set(), "keyless": set(), "senders": {}}
    return SourcePlan(**{**default, **notes, **values})


def path(*sinks: str, transforms: Sequence[str] = (), branches: Sequence[PathPlan] = ()) -> PathPlan:
    plans = [
        cast(TransformPlan, SimpleNamespace(block=block(uuid, "transformer", language="python"))) for uuid in transforms
    ]
    return PathPlan(transforms=plans, sinks=list(sinks), branches=list(branches))


def sink(
    *sources: SourcePlan,
    uuid: str = "export",
    names: Sequence[str] = (),
    about: dict[str, Any] | None = None,
    streams: Any = None,
    target: Plugin | None = None,
    blocks: dict[str, Any] | None = None,
    **spec: Any,
) -> SinkPlan:
    """A destination that all these sources feed.

    Args:
        names: its capabilities.
        blocks: values of its block.
        spec: keys of its block's file.
    """
    return plan_sink(
        block(uuid, "data_exporter", **(blocks or {})),
        DestinationSpec(destination="target-x", streams=parse_streams(streams, "destination"), **spec),
        target or plugin("target-x"),
        Capabilities(names=frozenset(names), about=about or {}),
        {each.id: each for each in sources},
        {each.id: path(uuid) for each in sources},
    )


def plan(*sources: SourcePlan, sinks: Sequence[SinkPlan], paths: dict[str, PathPlan] | None = None) -> Plan:
    every = path(*(each.id for each in sinks))
    return Plan(
        pipeline="p",
        sources={each.id: each for each in sources},
        mappers={},
        paths=paths or {each.id: every for each in sources},
        sinks={each.id: each for each in sinks},
    )


class Schemas:
    """A state store that holds the schemas of blocks alone, and counts their saves."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.saves = 0

    def last_schemas(self, pipeline: str, block: str) -> dict[str, Any]:
        return dict(self.kept.get(block, {}))

    def save_schema(self, pipeline: str, block: str, stream: str, schema: dict[str, Any]) -> None:
        self.saves += 1
        self.kept.setdefault(block, {})[stream] = schema


def bookmark(stream: str, value: str = "1", **values: Any) -> Bookmark:
    fields = {"pipeline": "p", "block": "load", "run_id": "r0", "saved_at": "", "epoch": 0}
    return Bookmark(stream=stream, value=value, **{**fields, **values})


def context(*, store: Any = None, run: dict[str, Any] | None = None, **options: Any) -> Run:
    """An open run without folder and log.

    Args:
        run: attributes of the run.
        options: of the run.
    """
    values: dict[str, Any] = {"pipeline": "p", "run_id": "r1", "interrupted": None, "notes": [], **(run or {})}
    values.setdefault("note", lambda source, message, level="INFO": values["notes"].append((source, message)))
    return cast(Run, SimpleNamespace(store=store, options=RunOptions(**options), **values))
