"""What a run reads: options for streams and bookmarks, and the positions of the next attempt."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from streamline.blocks.connector.source import OpenedSource
from streamline.blocks.connector.spec import SourceSpec
from streamline.connectors.singer.capabilities import Capabilities
from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.discovery import DiscoveryFailed
from streamline.connectors.singer.grouping import SHARED, StreamGroup
from streamline.connectors.singer.settings import parse_streams
from streamline.execution.flow_runs import rendered_variables
from streamline.execution.integration import planner
from streamline.execution.integration.plan import SourcePlan
from streamline.execution.integration.positions import BOOKMARK_VARIABLE, Positions
from streamline.execution.run import checking_options
from streamline.pipeline.model import PipelineModel, RetryConfig
from streamline.project.secrets import Masker
from streamline.state.store import Bookmark
from tests.execution.integration.plans import (
    block,
    bookmark,
    catalog,
    context,
    group,
    plan,
    plugin,
    sink,
    source,
    stream,
)
from tests.support.failures import refuses

USERS = stream("shop-users", stream="users")
ORDERS = stream("orders")


# -- the next attempt


def refreshed(load: SourcePlan, *saved: Bookmark) -> dict[str, bytes]:
    made = plan(load, sinks=[sink(load)])
    store = SimpleNamespace(bookmarks=lambda pipeline, block: {each.stream: each for each in saved})
    run = context(store=store)
    return anyio.run(planner.refresh_positions, run, made, load.groups[0]).rows


def test_the_next_attempt_starts_from_what_this_run_has_saved() -> None:
    load = source(USERS, ORDERS)
    load.groups = [group(USERS, ORDERS, orders="1")]
    assert refreshed(load, bookmark("orders", "2", run_id="r1")) == {"orders": b"2"}
    # What is in the store and was not used stays unused, as in a full refresh.
    assert refreshed(load, bookmark("shop-users", "2"), bookmark("orders", "2", run_id="r1")) == {"orders": b"2"}
    assert refreshed(load, bookmark("shop-users", "2", run_id="r1"))["shop-users"] == b"2"


def test_an_override_stands_until_this_run_has_saved_a_position_and_what_the_tap_dropped_is_gone() -> None:
    load = source(USERS, ORDERS)
    load.groups = [group(USERS, ORDERS, orders="override")]
    assert refreshed(load, bookmark("orders", "1")) == {"orders": b"override"}
    load.forgotten = {"orders"}
    assert refreshed(load) == {}


def test_one_of_several_processes_is_not_told_which_stream_was_syncing() -> None:
    load = source(USERS, ORDERS)
    rest = '{"currently_syncing":"users","x":1}'
    load.groups = [group(USERS, id="load.users", rest=rest)]
    assert refreshed(load, bookmark("*", rest, run_id="r1"))["*"] == rest.encode()
    load.groups = [*load.groups, group(ORDERS, id="load.orders")]
    assert refreshed(load, bookmark("*", rest, run_id="r1"))["*"] == b'{"x":1}'


# -- processes


@pytest.mark.parametrize(
    ("wanted", "allowed", "most"), [(None, None, 4), (2, None, 2), (8, None, 8), (8, 3, 3), (2, 3, 2), (None, 1, 1)]
)
def test_the_plugin_limits_processes(wanted: int | None, allowed: int | None, most: int) -> None:
    spec = cast(Any, SimpleNamespace(max_parallel=wanted))
    assert planner._max_parallel(spec, plugin(max_processes=allowed)) == most


def test_a_process_is_named_by_its_source_and_of_several_by_its_stream() -> None:
    def made(*groups: StreamGroup) -> list[str]:
        positions = Positions({"orders": b"1", "lsn": b"2"}, {}, {}, [], [])
        offered = catalog(USERS, ORDERS)
        traits = SimpleNamespace(library=None, multiple_bookmarks=False)
        apply = cast(Any, lambda *args, **values: SimpleNamespace(data={}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(planner, "apply_settings", apply)
            plans = [
                planner._group("load", each, groups, offered, positions, plugin(), cast(Any, traits)) for each in groups
            ]
        return [each.id for each in plans]

    alone = StreamGroup(SHARED, (USERS, ORDERS), parallel=False)
    assert made(alone) == ["load"]
    assert made(StreamGroup(SHARED, (USERS,), parallel=False), StreamGroup("or/ders 1", (ORDERS,), parallel=True)) == [
        "load.shared",
        "load.or_ders_1",
    ]


def planned(
    *,
    discovery: bool = True,
    streams: Any = None,
    spec: dict[str, Any] | None = None,
    saved: dict[str, Bookmark] | None = None,
    schemas: dict[str, Any] | None = None,
    only: Sequence[str] = (),
) -> SourcePlan:
    """A source that offers `users`, `orders` and what those drive, `items`, as it is planned."""
    entries = [{"tap_stream_id": name, "stream": name, "schema": {}} for name in ("users", "orders")]
    entries.append({"tap_stream_id": "items", "stream": "items", "schema": {}, "parent_stream": "orders"})
    opened = OpenedSource(
        block=block("load", "data_loader"),
        spec=SourceSpec(source="tap-x", streams=parse_streams(streams, "source"), **(spec or {})),
        plugin=plugin(),
        config={},
        capabilities=Capabilities(),
        catalog=Catalog({"streams": entries}) if discovery else None,
        where="load.yaml",
        keep_config=lambda config: None,
    )

    store = SimpleNamespace(bookmarks=lambda *args: saved or {}, last_schemas=lambda *args: schemas or {})
    run = context(store=store, streams=only)
    load = planner.choose_streams(run, opened, ["export"])
    planner.plan_groups(run, load, opened, lambda stream, selected: [], {}, show=False)
    return load


def test_a_source_reads_what_its_catalog_selects() -> None:
    load = planned()
    assert [each.id for each in load.selected] == ["users", "orders", "items"]
    (process,) = load.groups
    assert process.streams == tuple(load.selected)
    assert [entry["stream"] for entry in (process.catalog or {})["streams"]] == ["users", "orders", "items"]
    assert not load.endless
    assert planned(spec={"max_duration": 1.0}).endless
    assert planned(spec={"idle_timeout": 1.0}).endless


def test_a_stream_in_a_process_of_its_own_takes_what_it_drives_along() -> None:
    rest = '{"bookmarks":{},"currently_syncing":"users"}'
    streams = {"orders": {"run_in_parallel": True}, "*": {}}
    load = planned(streams=streams, saved={"*": bookmark("*", rest), "users": bookmark("users")})
    assert {each.id: [each.id for each in each.streams] for each in load.groups} == {
        "load.shared": ["users"],
        "load.orders": ["orders", "items"],
    }
    # None of several processes is told which stream was syncing; one alone is.
    assert [b"currently_syncing" in each.state for each in load.groups] == [False, False]
    (alone,) = planned(saved={"*": bookmark("*", rest), "users": bookmark("users")}).groups
    assert b"currently_syncing" in alone.state


def test_a_stream_that_is_gone_is_no_mistake_if_it_was_loaded_before() -> None:
    settings = {"users": {}, "old": {}}
    with refuses("stream.unknown", "'old'"):
        planned(streams=settings)
    loaded: list[dict[str, Any]] = [{"saved": {"old": bookmark("old")}}, {"schemas": {"old": {}}}]
    for before in loaded:
        load = planned(streams=settings, **before)
        assert ([each.id for each in load.selected], list(load.gone)) == (["users"], ["old"])
        # Without a stream to list, the others are not read in its place.
        assert planned(streams={"old": {}}, **before).selected == []
        assert planned(streams=settings, only=["users"], **before).gone == {}


def test_a_run_of_some_streams_starts_no_process_of_other_sources() -> None:
    assert [each.id for each in planned(only=["users"]).selected] == ["users"]
    other = planned(only=["x"])
    assert (other.selected, other.groups) == ([], [])


def test_a_tap_without_discovery_has_one_process_without_streams() -> None:
    load = planned(discovery=False)
    assert load.selected == []
    assert [(each.id, each.streams, each.catalog) for each in load.groups] == [("load", (), None)]


@pytest.mark.parametrize(
    ("library", "rows", "state"),
    [
        ("pipelinewise-singer-python", {}, b'"currently_syncing":null'),
        ("pipelinewise-singer-python", {"*": b'{"currently_syncing":"a"}'}, b'"currently_syncing":"a"'),
        (None, {}, None),
    ],
)
def test_pipelinewises_taps_find_the_key_that_they_look_up(
    library: str | None, rows: dict[str, bytes], state: bytes | None
) -> None:
    text = planner._start_state(rows, plugin(library=library))
    assert text.count(b"currently_syncing") == (1 if state else 0)
    assert state is None or state in text


def test_a_tap_without_state_reads_followed_streams_whole() -> None:
    def notes(state: bool, *streams: Any) -> list[str]:
        return planner._state_notes(plugin(), Capabilities(state=state), streams)

    assert notes(True, USERS) == []
    assert notes(False, stream("users", "FULL_TABLE"), stream("x", None)) == []
    (note,) = notes(False, USERS, stream("items", "LOG_BASED"), stream("other", "FULL_TABLE"))
    assert "shop-users, items again" in note


# -- options


def test_the_streams_of_a_run_are_looked_for_in_each_source() -> None:
    offered = catalog(USERS, ORDERS)
    assert planner._filter_for(context(), offered) == []
    assert planner._filter_for(context(streams=["users", "shop-*", "other"]), offered) == ["users", "shop-*"]
    assert planner._filter_for(context(streams=["other"]), offered) is None


def test_a_stream_that_no_source_has_is_refused() -> None:
    sources = {"load": source(USERS, ORDERS), "more": source(stream("items"), uuid="more")}
    planner.check_stream_options(context(streams=["users", "shop-users", "item*"]), sources)
    with refuses("stream.unknown", "usrs"):
        planner.check_stream_options(context(streams=["usrs"]), sources)


def test_streams_of_a_tap_without_discovery_cannot_be_selected() -> None:
    sources = {"load": source(USERS, catalog=None)}
    planner.check_stream_options(context(), sources)
    with refuses("tap.no_discovery", "--stream"):
        planner.check_stream_options(context(streams=["users"]), sources)


def check_bookmarks(*bookmarks: str, values: Any = None, own: bool = False, **source_values: Any) -> None:
    yaml: Any = SimpleNamespace(shown="metadata.yaml")
    model = cast(PipelineModel, SimpleNamespace(yaml=yaml, variables={BOOKMARK_VARIABLE: 1} if own else {}))
    sources = {"load": source(USERS, ORDERS, **source_values)}
    variables = {BOOKMARK_VARIABLE: values} if values else {}
    with checking_options():
        planner.check_bookmark_names(context(bookmarks=bookmarks), sources)
    planner.check_bookmark_blocks(model, sources, variables)


def test_a_bookmark_that_no_stream_uses_is_refused() -> None:
    check_bookmarks("users.id=1", "shop-users.id=1")
    with refuses("stream.unknown", "'usrs'"):
        check_bookmarks("usrs.id=1")
    check_bookmarks("usrs.id=1", catalog=None)
    with refuses("tap.no_state", "users.id=1"):
        check_bookmarks("users.id=1", capabilities=Capabilities(state=False))
    check_bookmarks(values={"load": {"users": {"id": 1}}})
    for own, where in ((False, "variables"), (True, "metadata.yaml")):
        with refuses("source.unknown", "'lod'") as caught:
            check_bookmarks(values={"lod": {"users": {"id": 1}}}, own=own)
        assert caught.value.where == where


def test_variables_are_rendered_where_blocks_may_use_them() -> None:
    def rendered(all_of_them: bool) -> dict[str, Any]:
        variables = {"a": 1, "given": 2, BOOKMARK_VARIABLE: 3}
        renderer = cast(Any, SimpleNamespace(variables=variables, render=lambda value, where: f"rendered {value}"))
        names = None if all_of_them else {BOOKMARK_VARIABLE}
        return rendered_variables(context(variables={"given": 2}), renderer, names)

    assert rendered(True) == {"a": "rendered 1", "given": 2, BOOKMARK_VARIABLE: "rendered 3"}
    assert rendered(False) == {"a": 1, "given": 2, BOOKMARK_VARIABLE: "rendered 3"}


@pytest.mark.parametrize(
    ("retry", "retries", "failures", "tries"),
    [(True, 2, 1, 2), (True, 2, 9, 3), (True, 0, 9, 1), (False, 2, 9, 1)],
)
def test_a_discovery_that_failed_is_tried_again_as_the_block_says(
    retry: bool, retries: int, failures: int, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    async def open_source(*args: Any, **values: Any) -> str:
        tried.append(1)
        if len(tried) <= failures:
            raise DiscoveryFailed("it broke")
        return "opened"

    monkeypatch.setattr(planner, "open_source", open_source)
    config = RetryConfig(retries=retries, delay=0.001)
    events: list[Any] = []
    project = {"project": None, "run_dir": None, "masker": Masker()}
    run = context(run={**project, "bus": SimpleNamespace(publish=events.append)})
    load = block("load", "data_loader", retry_config=config)

    async def opening() -> Any:
        return await planner.open_source_block(run, cast(Any, None), load, SourceSpec(source="tap-x"), retry=retry)

    if failures < tries:
        assert anyio.run(opening) == "opened"
    else:
        with pytest.raises(DiscoveryFailed):
            anyio.run(opening)
    assert (len(tried), len(events)) == (tries, tries - 1)
