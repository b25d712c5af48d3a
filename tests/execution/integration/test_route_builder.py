"""What is put between a source and its destinations, and how its streams are stopped alone."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from streamline.connectors.singer.stages.destination import DestinationStage
from streamline.connectors.singer.stages.source import SourceStage
from streamline.connectors.singer.stages.undeclared import UndeclaredStage
from streamline.connectors.singer.state import StateParts
from streamline.execution.integration.plan import MapperPlan, Plan
from streamline.execution.integration.route_builder import ByPolicy, RouteBuilder, _keys_of
from streamline.flow.items import BadRecord, Item, Position, Schema
from streamline.flow.protocols import Stage
from streamline.flow.router import Route
from streamline.flow.stages.versions import VersionStage
from streamline.project.secrets import Masker
from tests.execution.integration.plans import (
    Schemas,
    block,
    catalog,
    context,
    group,
    path,
    plan,
    plugin,
    sink,
    source,
    stream,
)

USERS = stream("shop-users", stream="users", key_properties=["id"])
ORDERS = stream("orders", "FULL_TABLE", key_properties=["id"])
REPLACED = {"orders": {"load_method": "replace"}, "*": {}}


def planned(*uuids: str, **values: Any) -> Plan:
    load = source(USERS, ORDERS)
    return plan(load, sinks=[sink(load, uuid=uuid, **values) for uuid in uuids or ("export",)])


def builder(made: Plan, *, validate: bool = False) -> RouteBuilder:
    bus = SimpleNamespace(publish=lambda event: None)
    run = context(store=Schemas(), run={"bus": bus, "masker": Masker(), "warn": lambda *args: None})
    return RouteBuilder(run, made, validate=validate, version=7)


def route(made: Plan) -> Route:
    (load,) = made.sources.values()
    pools = {uuid: SimpleNamespace(id=uuid) for uuid in made.sinks}
    return builder(made).route(load.groups[0], made.paths["load"], cast(Any, pools))


def kinds(stages: list[Stage]) -> set[type]:
    return {type(stage) for stage in stages}


def mapped(made: Plan) -> Plan:
    mapper = MapperPlan(block=block("map", "transformer"), spec=cast(Any, None), plugin=plugin("mapper"), config={})
    made.mappers = {"load": [mapper]}
    return made


def test_several_processes_share_streams_that_no_catalog_declares() -> None:
    made = planned()
    assert UndeclaredStage not in kinds(route(made).stages)
    made.sources["load"].groups = [group(USERS, id="load.users"), group(ORDERS, id="load.orders")]
    assert UndeclaredStage in kinds(route(made).stages)
    assert UndeclaredStage not in kinds(route(mapped(made)).stages)


def test_a_stream_is_declared_by_the_catalog_or_by_being_selected() -> None:
    made = planned()
    load = made.sources["load"]
    load.catalog = catalog(ORDERS, stream("items"))
    load.groups = [group(USERS, id="load.users"), group(ORDERS, id="load.orders")]
    (undeclared,) = [stage for stage in route(made).stages if isinstance(stage, UndeclaredStage)]
    assert [undeclared._declared(name) for name in ("users", "items", "x")] == [True, True, False]


def test_streams_that_are_not_selected_are_dropped() -> None:
    made = planned()
    assert SourceStage not in kinds(route(made).stages)
    made.sources["load"].catalog = catalog(USERS, ORDERS, stream("items"))
    assert SourceStage in kinds(route(made).stages)
    made.sources["load"].groups = [group()]
    assert SourceStage not in kinds(route(made).stages), "dead letters from behind a transformer"


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({}, False),
        ({"streams": {"users": {}}}, True),
        ({"source_column": True}, True),
    ],
)
def test_what_a_destination_changes_has_a_stage(values: dict[str, Any], changes: bool) -> None:
    load = source(stream("users"), stream("orders"))
    made = plan(load, sinks=[sink(load, **values)])
    (branch,) = route(made).branches or [route(made)]
    assert (DestinationStage in kinds(branch.stages)) is changes


@pytest.mark.parametrize(
    ("names", "streams", "replaced"),
    [
        (["activate-version"], REPLACED, True),
        (["activate-version"], {"*": {"load_method": "append"}}, False),
        ([], {"*": {"load_method": "append"}}, False),
    ],
)
def test_only_a_table_that_is_replaced_gets_versions(names: list[str], streams: Any, replaced: bool) -> None:
    whole = route(planned(names=names, streams=streams))
    stages = [stage for each in (whole, *whole.branches) for stage in each.stages]
    (versions,) = [stage for stage in stages if isinstance(stage, VersionStage)]
    assert (versions._replace("orders"), versions._replace("users")) == (replaced, False)
    assert not versions._replace("unknown")


@pytest.mark.parametrize("holds", [True, False])
def test_a_target_that_holds_rows_until_their_version_is_active_is_told_of_it(holds: bool) -> None:
    names = ["activate-version", *(["held-versions"] if holds else [])]
    whole = route(planned(names=names, streams=REPLACED))
    stages = [stage for each in (whole, *whole.branches) for stage in each.stages]
    (versions,) = [stage for stage in stages if isinstance(stage, VersionStage)]
    assert versions._holds_rows is holds


@pytest.mark.parametrize(
    ("policies", "quarantines"), [(["quarantine"] * 2, True), (["quarantine", "fail"], False), (["pass"] * 2, False)]
)
def test_a_transformer_sets_records_aside_if_all_destinations_do(
    policies: list[str], quarantines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        "streamline.blocks.python.live.transform.TransformStage", lambda file, **values: given.update(values)
    )
    load = source(USERS, ORDERS)
    sinks = [sink(load, uuid=uuid, on_bad_record=policy) for uuid, policy in zip("ab", policies, strict=True)]
    way = path("a", "b", transforms=["clean"])
    transform = SimpleNamespace(file=None, block=way.transforms[0].block)
    made = plan(load, sinks=sinks, paths={"load": way})
    run = RouteBuilder(
        context(store=Schemas(), run={"started": datetime(2024, 1, 2, 3, tzinfo=UTC)}), made, validate=False, version=7
    )
    run._transform(load.groups[0], way, cast(Any, transform))
    assert given["set_aside"]("users") is quarantines
    assert (given["keywords"]["ds"], given["keywords"]["hr"]) == ("2024-01-02", "03")


def test_the_key_of_a_schema_is_that_of_the_destination_where_it_has_one() -> None:
    load = source(USERS, ORDERS)
    export = sink(load, streams={"users": {"unique_constraints": ["email"]}, "orders": {}})
    keys = [_keys_of(load, export, Schema(name, {}, ["id"])) for name in ("users", "orders", "unknown")]
    assert keys == [("email",), ["id"], ["id"]]
    assert _keys_of(load, export, Schema("orders", {}, None)) == ()


# -- BATCH messages


def dialects(made: Plan, *, validate: bool = False) -> set[str]:
    for export in made.sinks.values():
        export.batch_dialects = frozenset({"sdk", "pipelinewise"})
    return set(builder(made, validate=validate).passed_dialects("load"))


def test_files_pass_where_nobody_looks_at_their_records() -> None:
    append = {"*": {"load_method": "append"}}
    both = {"sdk", "pipelinewise"}
    assert dialects(planned(streams=append)) == both
    assert dialects(planned(streams=append), validate=True) == set()
    assert dialects(planned(streams=append, on_bad_record="fail")) == set()
    assert dialects(planned(streams={"users": {"on_bad_record": "fail"}, **append})) == set()
    assert dialects(planned(streams=append, schema_change="freeze")) == set()
    assert dialects(planned(streams=append, source_column=True)) == set()
    assert dialects(mapped(planned(streams=append))) == set()
    transformed = planned(streams=append)
    transformed.paths = {"load": path("export", transforms=["clean"])}
    assert dialects(transformed) == set()
    # One dialect has no field for a version.
    assert dialects(planned(streams=REPLACED, names=["activate-version"])) == {"sdk"}


def test_files_pass_only_if_all_destinations_take_them() -> None:
    made = planned("export", "other", streams={"*": {"load_method": "append"}})
    assert dialects(made) == {"sdk", "pipelinewise"}
    made.sinks["other"].batch_dialects = frozenset({"sdk"})
    assert set(builder(made).passed_dialects("load")) == {"sdk"}


def test_another_sources_settings_do_not_hold_files_up() -> None:
    load, more = source(stream("users", key_properties=["id"])), source(ORDERS, uuid="more")
    export = sink(load, more, names=["activate-version"], streams=REPLACED)
    assert dialects(plan(load, more, sinks=[export])) == {"sdk", "pipelinewise"}
    export = sink(load, more, streams={"orders": {"columns": ["id"]}, "*": {"load_method": "append"}})
    assert dialects(plan(load, more, sinks=[export])) == {"sdk", "pipelinewise"}


# -- one stream fails


def keys_of(made: Plan, name: str, text: bytes, *keys: str) -> Any:
    policy = builder(made).stops(made.groups()[0])
    assert policy is not None
    parts = StateParts(text) if text else dict.fromkeys(keys, b"1")
    return policy.keys_of(name, Position("load", 1, parts))


def test_a_stream_is_stopped_with_its_bookmark() -> None:
    load = source(USERS, ORDERS, stream("parts"))
    made = plan(load, sinks=[sink(load)])
    both = b'{"bookmarks":{"shop-users":1,"lsn":2}}'
    assert keys_of(made, "users", both) == ["shop-users"]
    # It is read whole by every run, or shares the bookmark of another.
    assert keys_of(made, "orders", both) == []
    assert sorted(keys_of(made, "parts", both)) == ["lsn", "shop-users"]
    assert sorted(keys_of(made, "unknown", both)) == ["lsn", "shop-users"]
    assert keys_of(made, "users", b'{"lsn":2}') is None


def test_streams_of_one_log_and_of_no_catalog_are_not_stopped_alone() -> None:
    for streams in ((stream("users", "LOG_BASED"), ORDERS), ()):
        made = planned()
        made.sources["load"].groups = [group(*streams)]
        assert builder(made).stops(made.groups()[0]) is None


# -- schemas of destinations


def test_a_schema_is_saved_for_the_next_run_once() -> None:
    made = planned()
    building = builder(made)
    pools = cast(Any, {"export": SimpleNamespace(id="export")})
    building.route(made.groups()[0], made.paths["load"], pools)
    (_, _, _, stage) = building._schemas[0]
    stage.newest["users"] = {"x": 1}
    for _ in range(2):
        building.save_schemas()
    store = cast(Schemas, building._context.store)
    assert (store.kept, store.saves) == ({"export < load": {"users": {"x": 1}}}, 1)


# -- policies by stream


class Refusing:
    async def process(self, item: Item) -> list[Item]:
        return [BadRecord("users", b"{}", "odd", "validate"), item]

    async def finish(self) -> list[Item]:
        return []

    async def close(self) -> None:
        pass


def test_each_stream_passes_the_stage_of_its_policy() -> None:
    stage = ByPolicy({"users": "fail", "orders": "pass"}.__getitem__, {"fail": cast(Stage, Refusing())}, sink="export")
    schema, other, position = Schema("users", {}), Schema("orders", {}), Position("load", 1, {})
    assert anyio.run(stage.process, position) == [position]
    assert anyio.run(stage.process, other) == [other]
    (bad, rest) = anyio.run(stage.process, schema)
    assert (bad.sink, rest) == ("export", schema)
