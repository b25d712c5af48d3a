"""How streams reach a destination: tables, processes, and who proves what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamline.blocks.connector.spec import DestinationSpec
from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.settings import parse_streams
from streamline.connectors.singer.stages.stream_plan import CASE_CAPABILITY
from streamline.execution.integration.destination_plan import check_exclusive_files, proving_sinks
from streamline.execution.integration.plan import SinkPlan
from tests.execution.integration.plans import plugin, sink, source, stream
from tests.support.failures import refuses

USERS = stream("users", "FULL_TABLE", key_properties=["id"])
ORDERS = stream("orders", "FULL_TABLE", key_properties=["id"])
VERSIONS = ["activate-version"]


def test_a_destination_plans_the_streams_that_it_exports() -> None:
    load, more = source(USERS, ORDERS), source(ORDERS, uuid="more")
    export = sink(load, more, streams={"users": {"destination_table": "people"}})
    assert list(export.plans) == [("load", "users")]
    assert export.plan_of("more", "orders") is None
    assert (export.stream_of("load", "people"), export.stream_of("load", "other")) == ("users", "other")


def test_records_bear_their_source_where_that_is_set() -> None:
    load = source(USERS)
    assert sink(load, source_column=True).plans["load", "users"].source == "load"
    assert sink(load).plans["load", "users"].source is None


def test_a_setting_of_a_stream_that_no_source_has_is_refused() -> None:
    with refuses("stream.unknown", "usrs"):
        sink(source(USERS), source(ORDERS, uuid="more"), streams={"usrs": {}})
    # Its names are not known before the run.
    sink(source(USERS, catalog=None), source(ORDERS, uuid="more"), streams={"usrs": {}})


def test_what_the_source_says_of_a_stream_decides_how_it_is_loaded() -> None:
    load = source(USERS, stream("orders", key_properties=["id"]), stream("events"))
    export = sink(load, names=VERSIONS)
    methods = {name: plan.load_method for (_, name), plan in export.plans.items()}
    assert methods == {"users": "replace", "orders": "upsert", "events": "append"}
    unknown = export.plan_of("load", "unknown")
    assert unknown is not None


def test_a_column_that_the_catalog_does_not_have_is_refused() -> None:
    settings = {"users": {"columns": ["id", "nme"]}}
    entry = {"tap_stream_id": "users", "stream": "users", "schema": {"properties": {"id": {}, "name": {}}}}
    with refuses("stream.column_unknown", "'nme'"):
        sink(source(USERS, catalog=Catalog({"streams": [entry]})), streams=settings)
    for unknown in (None, Catalog({"streams": []})):
        assert sink(source(USERS, catalog=unknown), streams=settings if unknown is None else None).plans


# -- who proves a bookmark


def specs(**streams: Any) -> dict[str, DestinationSpec]:
    return {
        uuid: DestinationSpec(destination="target-x", streams=parse_streams(names, "destination"))
        for uuid, names in streams.items()
    }


def test_a_bookmark_is_proven_by_the_destinations_that_export_its_stream() -> None:
    feeds = specs(one={"users": {}}, two={"orders": {}}, all=None)
    assert proving_sinks(USERS, [USERS, ORDERS], feeds) == ["one", "all"]
    assert proving_sinks(None, [USERS, ORDERS], feeds) == ["one", "two", "all"]


def test_a_bookmark_that_no_destination_exports_is_proven_by_those_of_its_children() -> None:
    child, grandchild = stream("items", parent="orders"), stream("parts", parent="items")
    selected = [USERS, ORDERS, child, grandchild]
    assert proving_sinks(ORDERS, selected, specs(one={"users": {}}, two={"items": {}})) == ["two"]
    assert proving_sinks(ORDERS, selected, specs(one={"parts": {}}, two={"users": {}})) == ["one"]
    assert proving_sinks(ORDERS, selected, specs(one={"users": {}})) == []


# -- one table for several sources


def test_tables_of_two_sources_are_refused_where_one_would_undo_the_other() -> None:
    load, more = source(USERS), source(USERS, uuid="more")
    with refuses("destination.table_shared", "'users' of load and 'users' of more"):
        sink(load, more, streams={"users": {"load_method": "replace"}}, names=VERSIONS)
    other_key = source(stream("users", key_properties=["email"]), uuid="more")
    with refuses("destination.table_shared", "['id'] and ['email']"):
        sink(load, other_key)
    sink(load, other_key, streams={"users": {"load_method": "upsert", "unique_constraints": ["id"]}})
    # Two tables.
    sink(load, source(ORDERS, uuid="more"), streams={"*": {"load_method": "replace"}}, names=VERSIONS)


def test_that_rows_of_two_sources_may_overwrite_each_other_is_noted() -> None:
    def notes(**values: Any) -> list[str]:
        load, more = source(USERS), source(USERS, uuid="more")
        sink(load, more, **values)
        return [*load.notes, *more.notes]

    (note,) = notes(streams={"users": {"load_method": "upsert"}})
    assert "'users' of load and 'users' of more" in note
    assert notes(streams={"users": {"load_method": "append"}}) == []
    assert notes(streams={"users": {"load_method": "upsert"}}, source_column=True) == []


def test_two_streams_of_one_source_get_no_table_together_and_two_of_two_sources_do() -> None:
    streams = {"*": {"destination_table": "all", "load_method": "append"}}
    with refuses("destination.table_shared", "'users' and 'orders'"):
        sink(source(USERS, ORDERS), streams=streams)
    sink(source(USERS), source(ORDERS, uuid="more"), streams=streams)


@pytest.mark.parametrize(
    ("sources", "shared"),
    [
        ([source(USERS), source(USERS, uuid="more")], True),
        ([source(USERS), source(ORDERS, uuid="more")], False),
        ([source(USERS, ORDERS)], False),
        ([source(stream("a-users", stream="users"), stream("b-users", stream="users"))], True),
    ],
)
def test_a_table_is_shared_by_sources_and_by_streams_of_one_name(sources: list[Any], shared: bool) -> None:
    assert sink(*sources, streams={"*": {"load_method": "append"}}).shares_table(sources[0], "users") is shared


def test_a_table_of_another_name_is_shared_by_that_name() -> None:
    load, more = source(USERS), source(stream("people", key_properties=["id"]), uuid="more")
    export = sink(load, more, streams={"users": {"destination_table": "people"}, "people": {}})
    assert export.shares_table(load, "users")
    assert export.shares_table(more, "people")
    assert not export.shares_table(load, "orders")


def test_a_target_that_takes_names_for_one_though_their_case_differs_is_told_of_the_first() -> None:
    load = source(stream("Users"), stream("users"), stream("orders"))
    export = sink(load, names=[CASE_CAPABILITY])
    assert [export.same_but_case(load, name) for name in ("Users", "users", "orders", "x")] == [
        *(None, "Users", None),
        None,
    ]
    assert sink(load).same_but_case(load, "users") is None
    renamed = sink(load, names=[CASE_CAPABILITY], streams={"users": {"destination_table": "ORDERS"}, "*": {}})
    assert renamed.same_but_case(load, "orders") == "ORDERS"
    assert renamed.same_but_case(load, "users") is None


# -- files that one process opens


def files(uuid: str, path: Any = "x.db", schema: Any = None, settings: Any = None) -> SinkPlan:
    properties = {"path": schema if schema is not None else {"x-exclusive": True}}
    about = {"settings": settings if settings is not None else {"properties": properties}}
    return sink(source(USERS), uuid=uuid, config={"path": path}, about=about)


def test_two_destinations_with_one_exclusive_file_are_refused(tmp_path: Path) -> None:
    with refuses("destination.file_shared", "'a' and 'b'", "x.db"):
        check_exclusive_files([files("a"), files("b", "./x.db")], tmp_path)
    check_exclusive_files([files("a"), files("b", "y.db")], tmp_path)
    check_exclusive_files([files("a"), files("a")], tmp_path)


@pytest.mark.parametrize(
    "value",
    [{"path": 7}, {"schema": {}}, {"schema": "text"}, {"settings": []}, {"settings": {"properties": []}}],
    ids=str,
)
def test_a_setting_that_names_no_exclusive_file_may_be_shared(tmp_path: Path, value: dict[str, Any]) -> None:
    check_exclusive_files([files("a", **value), files("b", **value)], tmp_path)


# -- the target's own load method

OURS: dict[str, Any] = {"names": VERSIONS, "about": {"load_methods": ["append", "upsert", "replace"]}}


FOLLOWED = stream("orders", key_properties=["id"])


def methods(export: SinkPlan) -> dict[str, str]:
    return {name: made.load_method for (_, name), made in export.plans.items()}


def test_a_target_of_ours_replaces_by_versions_and_not_by_its_config() -> None:
    load = source(USERS, ORDERS)
    export = sink(load, config={"load_method": "replace", "path": "x"}, **OURS)
    assert (export.config, methods(export)) == ({"path": "x"}, {"users": "replace", "orders": "replace"})

    load = source(USERS, FOLLOWED)
    streams = {"users": {"load_method": "replace", "x": 1}, "orders": {"load_method": "append"}}
    export = sink(load, config={"streams": streams}, **OURS)
    assert export.config["streams"] == {"users": {"load_method": None, "x": 1}, "orders": {"load_method": "append"}}
    assert methods(export)["users"] == "replace"
    assert methods(export)["orders"] != "replace"


def test_a_stream_may_be_exempt_from_the_replacement_of_all() -> None:
    config = {"load_method": "replace", "streams": {"orders": {"load_method": "append"}, "users": None}}
    export = sink(source(USERS, FOLLOWED), config=config, **OURS)
    assert export.config == {"streams": {"orders": {"load_method": "append"}, "users": None}}
    assert methods(export)["users"] == "replace"
    assert methods(export)["orders"] != "replace"


@pytest.mark.parametrize(
    "more", [{"names": VERSIONS}, {"about": {"load_methods": ["replace"]}}, {**OURS, "about": {"load_methods": []}}]
)
def test_another_targets_config_is_left_alone(more: dict[str, Any]) -> None:
    export = sink(source(USERS), config={"load_method": "replace"}, **more)
    assert export.config == {"load_method": "replace"}
    assert export.overwrites


@pytest.mark.parametrize(
    ("method", "overwrites"), [("overwrite", True), ("Replace", True), ("append", False), (None, False)]
)
def test_a_target_whose_config_replaces_tables_must_not_start_twice(method: str | None, overwrites: bool) -> None:
    export = sink(source(USERS), config={"load_method": method} if method else {})
    assert export.overwrites is overwrites
    # Each session would drop what the one before has written.
    assert export.session_interval(endless=True) == (None if overwrites else 60)
    assert export.session_interval(endless=False) is None
    assert sink(source(USERS), session_interval=5).session_interval(endless=False) == 5


def test_a_setting_of_a_stream_beats_that_of_the_destination() -> None:
    export = sink(source(USERS, ORDERS), on_bad_record="fail", streams={"users": {"on_bad_record": "pass"}, "*": {}})
    assert export.setting("on_bad_record", "load", "users") == "pass"
    assert export.setting("on_bad_record", "load", "orders") == "fail"
    assert sink(source(USERS), on_bad_record="fail", streams=["users"]).setting("on_bad_record", "load", "x") == "fail"


# -- processes


@pytest.mark.parametrize(
    ("parallel", "allowed", "slots", "processes"),
    [
        (["users"], 3, {"users": 1, "orders": 0, "items": 0}, 2),
        (["users", "orders"], 3, {"users": 1, "orders": 2, "items": 0}, 3),
        # All of them: none is left for the first process.
        (["users", "orders", "items"], 3, {"users": 0, "orders": 1, "items": 2}, 3),
        (["users", "orders", "items"], 2, {"users": 0, "orders": 1, "items": 0}, 2),
        (["users"], 1, {"users": 0, "orders": 0}, 1),
        (["users"], None, {"users": 0, "orders": 0}, 1),
        ([], 3, {"users": 0, "orders": 0}, 1),
    ],
)
def test_tables_get_processes_of_their_own_as_far_as_the_target_allows(
    parallel: list[str], allowed: int | None, slots: dict[str, int], processes: int
) -> None:
    load = source(USERS, ORDERS, stream("items"))
    streams = {**{name: {"run_in_parallel": True} for name in parallel}, "*": {}}
    export = sink(load, streams=streams, target=plugin("target-x", max_processes=allowed))
    assert export.processes == processes
    assert {table: export.slot_of(table) for table in slots} == slots
