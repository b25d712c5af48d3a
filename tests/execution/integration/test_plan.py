"""Names of streams and bookmarks, and the blocks on a path."""

from __future__ import annotations

from tests.execution.integration.plans import catalog, path, plan, sink, source, stream

USERS = stream("shop-users", stream="users", names=("shop-users", "users", "alias"))
OLD = stream("old-users", stream="users")


def test_a_stream_is_found_by_any_of_its_names() -> None:
    load = source(USERS, OLD)
    assert [load.find(name) for name in ("shop-users", "users", "alias", "old-users", "x")] == [
        *(USERS, USERS, USERS, OLD),
        None,
    ]
    assert load.bearers("users") == [USERS, OLD]
    assert load.bearers("alias") == [USERS]
    assert load.keys_of("alias") == ("shop-users", "users", "alias")
    assert load.keys_of("x") == ("x",)


def test_the_bookmarks_of_a_stream_are_its_own_and_those_of_all_streams_that_drive_it() -> None:
    shops, orders, items = stream("shops"), stream("orders", parent="shops"), stream("items", parent="orders")
    load = source(items, catalog=catalog(shops, orders, items))
    assert load.bookmarks_of("items") == ("items", "orders", "shops")
    assert load.bookmarks_of("x") == ("x",)
    assert source(items, catalog=None).parents_of("items") == ("orders",)
    assert source(items, catalog=catalog(items)).parents_of("items") == ("orders",)
    circle = source(items, catalog=catalog(stream("orders", parent="items"), items))
    assert circle.parents_of("items") == ("orders", "items")


def test_paths_name_what_is_on_them() -> None:
    way = path("a", transforms=["one"], branches=[path("b"), path("c", "a", transforms=["two"])])
    assert way.all_sinks() == ["a", "b", "c"]
    assert [way.transforms_before(uuid) for uuid in "abc"] == [["one"], ["one"], ["one", "two"]]
    assert [each.block.uuid for each in way.all_transforms()] == ["one", "two"]
    assert way.blocks() == ["one", "b", "two", "c", "a"]


def test_a_plan_knows_which_sources_feed_a_destination() -> None:
    load, more = source(USERS), source(OLD, uuid="more")
    export = sink(load, more, streams={"users": {"load_method": "append"}})
    made = plan(load, more, sinks=[export], paths={"load": path("export"), "more": path("other")})
    assert made.feeding("export") == [load]
    assert [each.id for each in made.groups()] == ["load", "more"]
    assert made.mappers_of("load") == []
