"""Which bookmarks a source starts from, and which it cannot continue from."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streamline.blocks.connector.source import OpenedSource
from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.selection import SelectedStream, TapTraits
from streamline.execution.integration.positions import BOOKMARK_VARIABLE, Positions, group_rows, source_positions
from streamline.state.store import Bookmark, BookmarkOverride
from tests.execution.integration.plans import bookmark, catalog, context, stream
from tests.support.failures import refuses

USERS = stream("users", key="id")
ORDERS = stream("shop-orders", key="id", stream="orders")


def start(
    *saved: Bookmark,
    read: Sequence[SelectedStream] = (USERS, ORDERS),
    offered: Catalog | None = None,
    discovery: bool = True,
    proving: Sequence[str] = ("export",),
    values: dict[str, Any] | None = None,
    consumed: Sequence[BookmarkOverride] = (),
    show: bool = False,
    **options: Any,
) -> Positions:
    store = SimpleNamespace(
        bookmarks=lambda pipeline, block: {each.stream: each for each in saved},
        consumed_overrides=lambda pipeline, block: set(consumed),
    )
    opened = SimpleNamespace(
        catalog=(offered or catalog(USERS, ORDERS)) if discovery else None,
        block=SimpleNamespace(uuid="load"),
        traits=TapTraits(library="singer-python"),
    )
    return source_positions(
        context(store=store, **options),
        cast(OpenedSource, opened),
        read,
        lambda stream, selected: list(proving),
        values or {},
        show=show,
    )


def proven(name: str, value: str = "1", **values: Any) -> Bookmark:
    return bookmark(
        name, value, **{"sinks": ["export"], "replication_method": "INCREMENTAL", "replication_key": "id", **values}
    )


def test_every_stream_starts_from_its_bookmark() -> None:
    positions = start(proven("users"), proven("shop-orders", "2"))
    assert positions.rows == {"users": b"1", "shop-orders": b"2"}
    assert (positions.cause_of, positions.notes, positions.left_out) == ({}, [], [])


def test_a_stream_of_the_log_that_is_not_read_is_left_out_and_others_are_not() -> None:
    saved = [proven("users", replication_method="LOG_BASED"), proven("shop-orders"), proven("unknown")]
    positions = start(*saved, read=())
    assert (positions.left_out, positions.rows) == (["users"], {"unknown": b"1"})
    without_catalog = start(*saved, read=(), discovery=False)
    assert (without_catalog.left_out, len(without_catalog.rows)) == ([], 3)


@pytest.mark.parametrize(
    ("before", "now", "used"),
    [
        (("INCREMENTAL", "id"), ("INCREMENTAL", "id"), True),
        (("INCREMENTAL", "id"), ("INCREMENTAL", "time"), False),
        (("LOG_BASED", None), ("INCREMENTAL", "id"), False),
        (("FULL_TABLE", None), ("FULL_TABLE", None), True),
        # An operator set it, or only the tap knows.
        ((None, None), ("INCREMENTAL", "id"), True),
        (("INCREMENTAL", "id"), (None, None), True),
    ],
)
def test_a_bookmark_of_another_replication_is_not_used(
    before: tuple[str | None, str | None], now: tuple[str | None, str | None], used: bool
) -> None:
    saved = proven("users", replication_method=before[0], replication_key=before[1])
    positions = start(saved, read=[stream("users", now[0], now[1])])
    assert positions.rows == ({"users": b"1"} if used else {})
    assert positions.cause_of == ({} if used else {"users": "full-refresh"})
    assert len(positions.notes) == (0 if used else 1)


def test_a_destination_that_has_not_proven_a_bookmark_is_refused_unless_the_gap_is_accepted() -> None:
    with refuses("bookmark.destination_new", "'other'", "'users'"):
        start(proven("users"), proving=["export", "other"])
    accepted = start(proven("users"), proving=["export", "other"], accept_gap=True)
    assert (accepted.rows, accepted.cause_of) == ({"users": b"1"}, {"users": "run"})
    shown = start(proven("users"), proving=["export", "other"], show=True)
    assert len(shown.notes) == 1
    # An operator vouches for all destinations.
    vouched = start(proven("users", sinks=[]), proving=["export", "other"])
    assert (vouched.rows, vouched.cause_of) == ({"users": b"1"}, {})


def test_destinations_are_asked_about_the_stream_that_a_bookmark_names() -> None:
    asked: list[str | None] = []

    def proving(chosen: SelectedStream | None, selected: Sequence[SelectedStream]) -> list[str]:
        asked.append(chosen.id if chosen is not None else None)
        return []

    alias = stream("shop-items", stream="items", names=("catalog-items",))
    for name in ("users", "orders", "catalog-items", "global"):
        store = SimpleNamespace(bookmarks=lambda *args, name=name: {name: proven(name)})
        source_positions(
            context(store=store),
            cast(OpenedSource, SimpleNamespace(catalog=None, block=SimpleNamespace(uuid="load"))),
            [USERS, ORDERS, alias],
            proving,
            {},
        )
    assert asked == ["users", "shop-orders", "shop-items", None]


def test_a_gap_is_refused_though_it_is_accepted_for_destinations() -> None:
    with refuses("bookmark.gap", "users"):
        start(proven("users", gap=True), accept_gap=True)


# -- read from the start


def test_a_full_refresh_starts_from_nothing() -> None:
    positions = start(proven("users"), proven("old"), full_refresh=True)
    assert positions.rows == {}
    assert positions.cause_of == dict.fromkeys(("users", "shop-orders", "old"), "full-refresh")
    assert start(proven("users")).cause_of == {}


def test_a_full_refresh_of_one_stream_leaves_the_others() -> None:
    # The tap keys bookmarks by the stream's name.
    positions = start(proven("users"), proven("orders", "2"), full_refresh=True, streams=["shop-orders"])
    assert positions.rows == {"users": b"1"}
    assert positions.cause_of == dict.fromkeys(("shop-orders", "orders"), "full-refresh")


def test_the_name_of_a_refreshed_stream_may_be_the_id_of_another() -> None:
    twin = stream("orders", key="id", stream="old_orders")
    positions = start(
        *(proven("shop-orders"), proven("orders", "2")),
        read=[ORDERS, twin],
        offered=catalog(ORDERS, twin),
        full_refresh=True,
        streams=["shop-orders"],
    )
    assert positions.rows == {"orders": b"2"}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"orders":1,"users":2}', b'{"users":2}'),
        ('{"shop-orders":1,"users":2}', b'{"users":2}'),
        ('{"shop-orders":1}', None),
    ],
)
def test_a_refreshed_stream_is_taken_out_of_a_state_without_bookmarks(text: str, left: bytes | None) -> None:
    positions = start(bookmark("*", text), full_refresh=True, streams=["shop-orders"])
    assert positions.rows.get("*") == left


@pytest.mark.parametrize("text", ['{"lsn":7}', "7"])
def test_a_state_of_all_streams_cannot_be_refreshed_for_one(text: str) -> None:
    with refuses("bookmark.not_by_stream", "users"):
        start(bookmark("*", text), full_refresh=True, streams=["users"])
    # Nothing follows a stream that every run reads whole.
    whole = stream("users", "FULL_TABLE")
    kept = start(bookmark("*", text), read=[whole, ORDERS], full_refresh=True, streams=["users"])
    assert kept.rows == {"*": text.encode()}


def test_what_stands_beside_the_bookmarks_stays() -> None:
    positions = start(proven("users"), bookmark("*", '{"bookmarks":{},"x":1}'), full_refresh=True, streams=["users"])
    assert positions.rows == {"*": b'{"bookmarks":{},"x":1}'}


# -- the log


def log(name: str, text: str) -> Bookmark:
    return proven(name, text, replication_method="LOG_BASED", replication_key=None)


@pytest.mark.parametrize(
    ("read", "left_out", "passed"),
    [
        ('{"lsn":8}', '{"lsn":7}', True),
        ('{"lsn":7}', '{"lsn":7}', False),
        ('{"lsn":6}', '{"lsn":7}', False),
        ('{"lsn":10}', '{"lsn":9}', True),
        ('{"token":"b"}', '{"token":"a"}', True),
        ('{"token":"a"}', '{"token":"a"}', False),
        ('{"log_file":"b1","log_pos":4,"x":1}', '{"log_file":"b1","log_pos":4,"x":2}', False),
        ('{"log_file":"b1","log_pos":5}', '{"log_file":"b1","log_pos":4}', True),
        ('{"when":1}', '{"when":1}', False),
        ('{"when":1}', '{"when":2}', True),
        ("7", "7", False),
        ("7", "8", True),
    ],
)
def test_a_tap_that_starts_further_in_the_log_passes_a_stream_that_is_left_out(
    read: str, left_out: str, passed: bool
) -> None:
    positions = start(log("users", read), log("shop-orders", left_out), read=[stream("users", "LOG_BASED")])
    assert positions.left_out == ["shop-orders"]
    assert positions.passed == (["shop-orders"] if passed else [])


def test_only_bookmarks_of_the_log_move_it() -> None:
    positions = start(proven("users", '{"lsn":8}'), log("shop-orders", '{"lsn":7}'), read=[USERS])
    assert (positions.left_out, positions.passed) == (["shop-orders"], [])


def test_the_smallest_of_several_places_counts() -> None:
    items = stream("items", "LOG_BASED")
    positions = start(
        *(log("users", '{"lsn":9}'), log("items", '{"lsn":6}'), log("shop-orders", '{"lsn":7}')),
        read=[stream("users", "LOG_BASED"), items],
        offered=catalog(USERS, ORDERS, items),
    )
    assert positions.passed == []


# -- overrides


def test_an_override_is_applied_where_its_stream_is_read() -> None:
    for name in ("shop-orders", "orders"):
        positions = start(proven("shop-orders", '{"id":1}'), bookmarks=[f"{name}.id=5"])
        assert (positions.rows, positions.cause_of) == ({"shop-orders": b'{"id":5}'}, {"shop-orders": "override"})
    elsewhere = start(proven("shop-orders", '{"id":1}'), read=[ORDERS], bookmarks=["users.id=5"])
    assert elsewhere.rows == {"shop-orders": b'{"id":1}'}
    unknown = start(proven("users", '{"id":1}'), discovery=False, read=(), bookmarks=["users.id=5"])
    assert unknown.rows == {"users": b'{"id":5}'}


def test_a_stored_override_is_used_once_and_one_of_the_command_line_each_time() -> None:
    values = {BOOKMARK_VARIABLE: {"load": {"users": {"id": 5}}}}
    stored = BookmarkOverride("users", "id", "5")
    saved = proven("users", '{"id":1}')
    first = start(saved, values=values)
    assert (first.rows, first.overrides) == ({"users": b'{"id":5}'}, {"users": [stored]})
    again = start(saved, values=values, consumed=[stored])
    assert (again.rows, again.overrides, again.cause_of) == ({"users": b'{"id":1}'}, {}, {})
    asked = start(saved, values=values, consumed=[stored], variables=values)
    assert (asked.rows, asked.overrides) == ({"users": b'{"id":5}'}, {})


# -- the rows of each process


def test_a_process_is_given_its_streams_rows_and_those_of_no_stream() -> None:
    rows = {"users": b"1", "shop-orders": b"2", "global": b"3"}
    offered = catalog(USERS, ORDERS)
    assert group_rows(rows, [USERS], offered, shared=True) == {"users": b"1", "global": b"3"}
    assert group_rows(rows, [USERS], None, shared=True) == rows


@pytest.mark.parametrize(
    ("syncing", "shared", "kept"),
    [("users", False, True), ("users", True, False), ("shop-orders", False, False), (None, False, True)],
)
def test_the_stream_that_was_syncing_is_told_only_to_the_process_that_reads_it(
    syncing: str | None, shared: bool, kept: bool
) -> None:
    text = b'{"x":1,"currently_syncing":"%s"}' % syncing.encode() if syncing else b'{"x":1}'
    rows = group_rows({"*": text}, [USERS], catalog(USERS, ORDERS), shared=shared)
    assert rows["*"] == (text if kept else b'{"x":1}')


def test_what_the_run_has_read_already_is_not_refreshed_or_overridden_again() -> None:
    saved = proven("users", '{"id": 9}', run_id=context().run_id), proven("shop-orders", "2")
    refreshed = start(*saved, full_refresh=True)
    assert (refreshed.rows, refreshed.cause_of) == ({"users": b'{"id": 9}'}, {"shop-orders": "full-refresh"})
    overridden = start(*saved, values={"load": {"users": {"id": 1}}})
    assert overridden.rows["users"] == b'{"id": 9}'
    assert overridden.overrides == {}
