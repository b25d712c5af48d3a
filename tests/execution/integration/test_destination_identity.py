"""Whether the destinations are those that have the records before the bookmarks."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from streamline.execution.integration import destination_identity
from streamline.execution.integration.destination_identity import (
    check_destinations,
    destinations_of,
    flat_start,
    keep_destinations,
)
from streamline.execution.integration.flat_state import stream_key
from streamline.execution.integration.plan import Plan
from tests.execution.integration.plans import catalog, context, group, plan, plugin, sink, source, stream
from tests.support.failures import refuses

USERS = stream("users")
ORDERS = stream("shop-orders", stream="orders")


class Places:
    """The destinations that a store has beside each bookmark, and the schemas of the last run."""

    def __init__(self, known: dict[str, dict[str, str]] | None = None, sent: Collection[str] = ()) -> None:
        self.known = known or {}
        self.sent = sent
        self.saves: list[str] = []

    def destinations(self, pipeline: str, block: str) -> dict[str, dict[str, str]]:
        return self.known

    def save_destinations(self, pipeline: str, block: str, stream: str, destinations: dict[str, str]) -> None:
        self.saves.append(stream)
        self.known[stream] = destinations

    def last_schemas(self, pipeline: str, block: str) -> dict[str, Any]:
        return {name: {} for name in self.sent}


def loaded(rows: dict[str, str] | None = None, *, causes: dict[str, Any] | None = None, **values: Any) -> Plan:
    """A run that reads on from these bookmarks."""
    rows = rows if rows is not None else {"users": "1"}
    load = source(USERS, ORDERS, cause_of=causes or {})
    load.groups = [group(USERS, ORDERS)]
    load.groups[0].rows = {name: text.encode() for name, text in rows.items()}
    return plan(load, sinks=[sink(load, **values)])


def check(made: Plan, store: Places, root: Path = Path(), **options: Any) -> None:
    run = {
        "project": SimpleNamespace(path=lambda place: root / place),
        "run_dir": root,
        "masker": None,
    }
    anyio.run(check_destinations, context(store=store, run=run, **options), made)


def identity(made: Plan, bookmark: str = "users") -> str:
    return destinations_of(made, made.sources["load"], bookmark)["export"]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"host": "a"}, {"host": "b"}, False),
        ({"port": 1}, {"port": 2}, False),
        ({"db_name": "a"}, {"db_name": "b"}, False),
        ({"project_id": "a"}, {"project_id": "b"}, False),
        ({"targetPath": "a"}, {"targetPath": "b"}, False),
        ({"path": "data/x.db"}, {"path": "data/./x.db"}, True),
        ({"path": "data/x.db"}, {"path": "data/y.db"}, False),
        ({"url": "pg://u:old@h/d"}, {"url": "pg://u:new@h/d"}, True),
        ({"url": "pg://u@h/d"}, {"url": "pg://u@other/d"}, False),
        ({"url": "pg://[h/d"}, {"url": "pg://[h/e"}, False),
        ({"name": "a"}, {"name": "b"}, True),
        ({"batch_size": 1}, {"batch_size": 2}, True),
        ({"temp_dir": "a"}, {"temp_dir": "b"}, True),
        ({"ssl_ca_path": "a"}, {"ssl_ca_path": "b"}, True),
        ({"schema": None}, {"schema": ["b"]}, True),
        ({"": "a"}, {"": "b"}, True),
    ],
)
def test_a_destination_is_another_if_what_says_where_it_writes_has_changed(
    before: dict[str, Any], after: dict[str, Any], same: bool
) -> None:
    assert (identity(loaded(config=before)) == identity(loaded(config=after))) is same


def test_a_destination_is_another_for_another_plugin_table_or_source_column() -> None:
    plain = identity(loaded())
    assert identity(loaded(target=plugin("target-y"))) != plain
    assert identity(loaded(streams={"users": {"destination_table": "people"}, "*": {}})) != plain
    assert identity(loaded(source_column=True)) != plain
    assert identity(loaded(streams={"users": {"destination_table": "users"}, "*": {}})) == plain


def test_an_identity_that_was_stored_stays_valid() -> None:
    assert identity(loaded(config={"path": "x.db"})) == "ce2da460b92fd61220c64426"
    assert identity(loaded(config={"path": "x.db"}, source_column=True)) == "3e50bd0ac6c73d9dabdc7509"


def test_a_destination_counts_where_the_stream_is_exported() -> None:
    made = loaded(streams={"orders": {}})
    load = made.sources["load"]
    assert destinations_of(made, load, "users") == {}
    # A bookmark of the state as a whole: each stream that is exported, too.
    assert set(destinations_of(made, load, "*")) == {"export", stream_key("export", "shop-orders")}
    own = {"export", stream_key("export", "shop-orders")}
    assert set(destinations_of(made, load, "shop-orders")) == set(destinations_of(made, load, "orders")) == own


def test_a_destination_that_moved_is_refused_and_accepted_with_a_gap() -> None:
    made = loaded()
    moved = Places({"users": {"export": "elsewhere"}})
    with refuses("bookmark.destination_moved", "'export'", "'users'"):
        check(made, moved)
    check(made, moved, accept_gap=True)
    check(made, Places({"users": {"export": identity(made)}}))
    # It was not recorded, or another destination's.
    check(made, Places())
    check(made, Places({"users": {"other": "elsewhere"}}))


@pytest.mark.parametrize("cause", ["override", "full-refresh"])
def test_who_replaces_a_bookmark_vouches_for_its_destinations(cause: str) -> None:
    check(loaded(causes={"users": cause}), Places({"users": {"export": "elsewhere"}}))
    with refuses("bookmark.destination_moved"):
        check(loaded(causes={"users": "run"}), Places({"users": {"export": "elsewhere"}}))


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    made = loaded(config={"path": "x.db"}, target=plugin("target-x", place="path"))
    known = Places({"users": {"export": identity(made)}})
    with refuses("bookmark.destination_empty", "x.db"):
        check(made, known, tmp_path)
    (tmp_path / "x.db").touch()
    check(made, known, tmp_path)


def ask(made: Plan, store: Places, monkeypatch: pytest.MonkeyPatch, *missing: str) -> list[list[str]]:
    """Check tables against a target that lacks some; return the tables that it was asked for."""
    asked: list[list[str]] = []

    async def missing_tables(plugin: Any, config: Any, tables: Collection[str], **_: Any) -> list[str]:
        asked.append(sorted(tables))
        return [table for table in tables if table in missing]

    monkeypatch.setattr(destination_identity, "missing_tables", missing_tables)
    check(made, store)
    return asked


def test_a_table_that_was_loaded_and_is_gone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = loaded({"users": "1", "shop-orders": "1"}, names=["missing-tables"])
    assert ask(made, Places(sent=["users"]), monkeypatch) == [["users"]]
    assert ask(made, Places(sent=["users", "orders"]), monkeypatch) == [["orders", "users"]]
    assert ask(made, Places(), monkeypatch) == []
    with refuses("bookmark.destination_empty", "'orders'", "'shop-orders'"):
        ask(made, Places(sent=["users", "orders"]), monkeypatch, "orders")
    assert ask(loaded(), Places(sent=["users"]), monkeypatch) == [], "the target cannot be asked"
    hidden = loaded(names=["missing-tables"], streams={"orders": {}})
    assert ask(hidden, Places(sent=["users"]), monkeypatch) == [], "not exported"


def test_the_tables_of_a_state_without_bookmarks_are_asked_for_by_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    made = loaded({"*": '{"lsn": 7}'}, names=["missing-tables"])
    with refuses("bookmark.destination_empty", "'orders'", "'shop-orders'"):
        ask(made, Places(sent=["users", "orders"]), monkeypatch, "orders")


# -- a state without bookmarks


def flat(made: Plan, *streams: str) -> Places:
    """What the store has after a run of these streams."""
    identities = destinations_of(made, made.sources["load"], "*")
    keys = {"export", *(stream_key("export", name) for name in streams)}
    return Places({"*": {key: value for key, value in identities.items() if key in keys}})


def test_a_stream_that_a_state_of_all_streams_does_not_cover_is_refused() -> None:
    made = loaded({"*": '{"lsn": 7}'})
    with refuses("bookmark.stream_new", "'shop-orders'"):
        check(made, flat(made, "users"))
    check(made, flat(made, "users", "shop-orders"))
    check(made, flat(made, "users"), accept_gap=True)


def test_a_streams_table_in_a_state_of_all_streams_may_not_move() -> None:
    made = loaded({"*": '{"lsn": 7}'})
    store = flat(made, "users", "shop-orders")
    store.known["*"][stream_key("export", "users")] = "elsewhere"
    with refuses("bookmark.destination_moved", "'users'"):
        check(made, store)


def test_a_state_with_bookmarks_does_not_stand_for_its_streams() -> None:
    made = loaded({"*": '{"bookmarks": {}, "x": 1}', "users": "1"})
    check(made, flat(made, "users"))
    run = context(store=Places())
    assert flat_start(run, made, made.sources["load"].groups[0]) is None
    alone = loaded({"*": '{"lsn": 7}'})
    assert flat_start(run, alone, alone.sources["load"].groups[0]) is not None
    assert flat_start(run, loaded(), loaded().sources["load"].groups[0]) is None


# -- children, which are read by their parent's bookmark


def family(rows: dict[str, str]) -> Plan:
    child = stream("items", parent="users")
    load = source(USERS, child, groups=[group(USERS, child, **rows)])
    return plan(load, sinks=[sink(load)])


def test_a_child_whose_records_a_destination_lacks_is_refused() -> None:
    made = family({"users": "1"})
    child = stream_key("export", "items")
    recorded = destinations_of(made, made.sources["load"], "users")
    assert child in recorded
    check(made, Places({"users": recorded}))
    parent = {key: value for key, value in recorded.items() if key != child}
    with refuses("bookmark.stream_new", "'items'", "'users'"):
        check(made, Places({"users": parent}))
    check(made, Places({"users": parent}), accept_gap=True)
    # It has a bookmark of its own; and what was saved before children were recorded.
    check(family({"users": "1", "items": "1"}), Places({"users": parent, "items": {"export": recorded[child]}}))
    check(made, Places({"users": {"export": recorded["export"]}}))


# -- what is recorded


def test_destinations_are_recorded_once() -> None:
    made, store = loaded({"users": "1", "shop-orders": "1"}), Places()
    keep_destinations(context(store=store), made)
    names = ("users", "shop-orders")
    assert store.known == {
        name: dict.fromkeys(["export", stream_key("export", name)], identity(made, name)) for name in names
    }
    keep_destinations(context(store=store), made)
    assert store.saves == ["users", "shop-orders"]


def test_streams_that_are_not_read_stay_recorded_while_the_state_stands() -> None:
    made = loaded({"*": '{"lsn": 7}'})
    load = made.sources["load"]
    store = flat(made, "users", "shop-orders")
    before = dict(store.known["*"])
    load.catalog, load.selected = catalog(USERS, ORDERS), [USERS]
    keep_destinations(context(store=store), made)
    assert (store.known["*"], store.saves) == (before, [])
