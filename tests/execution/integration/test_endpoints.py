"""Which bookmarks are a process's, and how they are named in a target."""

from __future__ import annotations

from typing import Any, cast

import pytest

from streamline.connectors.singer.target_input import Feed
from streamline.execution.integration import endpoints
from streamline.execution.integration.plan import GroupPlan, SourcePlan
from tests.execution.integration.plans import catalog, context, group, path, plan, sink, source, stream

USERS = stream("shop-users", stream="users")
ORDERS = stream("orders")


def shards(**rows: str) -> SourcePlan:
    """A source with a process for each of its two streams."""
    load = source(USERS, ORDERS)
    load.groups = [group(USERS, id="load.users", **rows), group(ORDERS, id="load.orders", **rows)]
    return load


def test_a_bookmark_belongs_to_the_process_that_reads_its_stream() -> None:
    load = shards()
    first, second = (endpoints.owner_of(each, load) for each in load.groups)
    assert [(first(key), second(key)) for key in ("shop-users", "users", "orders", "lsn")] == [
        (True, False),
        (True, False),
        (False, True),
        (True, True),
    ]


def test_another_processs_stream_has_its_bookmark_under_a_name_that_no_catalog_has() -> None:
    load = shards()
    load.groups[1] = group(stream("orders", names=("orders", "alias")), id="load.orders")
    first, second = (endpoints.owner_of(each, load) for each in load.groups)
    assert (first("alias"), second("alias")) == (False, True)


def dropped(load: SourcePlan, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], Any]:
    """The keys that the first process may drop, and which of any are streams'."""
    given: list[Any] = []
    monkeypatch.setattr(endpoints, "DroppedKeys", lambda keys, is_stream: given.append((set(keys), is_stream)))
    endpoints._dropped_keys(load, load.groups[0])
    return cast("tuple[set[str], Any]", given[0])


def test_a_process_may_drop_the_bookmarks_that_it_was_given_or_reads_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    load = source(USERS, ORDERS)
    load.groups = [group(USERS, ORDERS, users="1", lsn="2", rest="{}")]
    load.cause_of = {"orders": "full-refresh", "other": "override"}
    keys, is_stream = dropped(load, monkeypatch)
    assert keys == {"users", "lsn", "*", "orders"}
    assert [is_stream(key) for key in ("users", "shop-users", "lsn")] == [True, True, False]
    load.catalog = None
    assert dropped(load, monkeypatch)[1]("lsn")


def test_one_of_several_processes_drops_no_key_that_is_no_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    load = shards(users="1", lsn="2", rest="{}")
    load.cause_of = {"orders": "full-refresh", "shop-users": "full-refresh"}
    assert dropped(load, monkeypatch)[0] == {"users", "shop-users"}
    load.catalog = None
    assert "*" not in dropped(load, monkeypatch)[0]


# -- in a target


def feed(load: SourcePlan, of: GroupPlan, *, several_blocks: bool = False) -> Feed:
    return endpoints.feed_of(load, of, sink(load), several_blocks=several_blocks)


def test_a_streams_bookmark_has_any_of_its_names_unless_another_stream_has_the_name() -> None:
    load = source(USERS, ORDERS)
    assert feed(load, load.groups[0]).keys_of("users") == ("shop-users", "users")
    twins = source(USERS, stream("old-users", stream="users"))
    assert feed(twins, twins.groups[0]).keys_of("users") == ()


def test_bookmarks_of_one_name_do_not_meet_in_a_target() -> None:
    load = source(USERS, ORDERS)
    assert feed(load, load.groups[0]).name_of("lsn") == "lsn"
    assert feed(load, load.groups[0], several_blocks=True).name_of("users") == "load:users"
    divided = shards()
    names = feed(divided, divided.groups[0]).name_of
    assert [names(key) for key in ("users", "shop-users", "lsn", "orders")] == [
        "users",
        "shop-users",
        "load.users:lsn",
        "load.users:orders",
    ]
    twins = source(USERS, stream("old-users", stream="users"))
    twins.groups = [group(USERS, id="load.users"), group(stream("old-users", stream="users"), id="load.old")]
    assert feed(twins, twins.groups[0]).name_of("users") == "load.users:users"


def test_a_destination_is_started_for_the_groups_that_feed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    load, more = source(USERS), source(USERS, uuid="more")
    fed: dict[str, tuple[list[str], str]] = {}

    def target_sink(uuid: str, *args: Any, feeds: list[Feed], **values: Any) -> None:
        fed[uuid] = [each.source for each in feeds], feeds[0].name_of("lsn")

    monkeypatch.setattr(endpoints, "target_sink", target_sink)
    monkeypatch.setattr(endpoints, "workspace_of", lambda run: None)
    made = plan(
        load,
        more,
        sinks=[sink(load, more, streams=["users"]), sink(more, uuid="other")],
        paths={"load": path("export"), "more": path("export", "other")},
    )
    made.sinks["export"].spec.session_interval = 5.0
    endpoints.build_sinks(context(run={"progress": None}), made, [*load.groups, *more.groups])
    assert fed == {"export": (["load", "more"], "load:lsn"), "other": (["more"], "lsn")}
    fed.clear()
    endpoints.build_sinks(context(run={"progress": None}), made, load.groups)
    assert fed == {"export": (["load"], "lsn")}


def test_what_a_tap_wrote_back_is_kept_for_the_next_attempt() -> None:
    kept: list[dict[str, Any]] = []
    load = source(USERS, config={"a": 1, "token": "old"}, keep_config=kept.append, catalog=catalog(USERS))
    endpoints._keep_config(load, {"token": "new"})
    assert (kept, load.config) == ([{"token": "new"}], {"a": 1, "token": "new"})
