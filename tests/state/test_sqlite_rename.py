"""A block's new name reaches every table."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamline.state import open_store
from streamline.state.sqlite_rename import _TABLES
from streamline.state.store import BookmarkSave, DeadLetter, Store


def test_every_table_that_names_blocks_is_renamed(tmp_path: Path) -> None:
    open_store("sqlite:///state.db", tmp_path).close()
    with sqlite3.connect(tmp_path / "state.db") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        with_block = {
            name for name in tables if any(row[1] == "block" for row in db.execute(f"PRAGMA table_info({name})"))
        }
    db.close()
    assert set(_TABLES) == with_block


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store("sqlite:///state.db", tmp_path)
    yield store
    store.close()


def rename(store: Store, old: str, new: str) -> None:
    with store.renamed_block("p", old, new):
        pass


def letter(block: str = "load", stage: str = "validate", record: str = "{}", **values: Any) -> DeadLetter:
    fields = {"pipeline": "p", "stream": "s", "run_id": "r", "error": "odd"}
    return DeadLetter(block=block, stage=stage, record=record, **{**fields, **values})


def test_a_sources_rows_have_its_new_name_and_what_that_name_had_left_is_replaced(store: Store) -> None:
    for pipeline, block, value in (("p", "load", "1"), ("p", "new", "2"), ("p", "more", "3"), ("q", "load", "4")):
        store.save(pipeline, block, "r", [BookmarkSave(stream=block, value=value)], [letter(block, pipeline=pipeline)])
    rename(store, "load", "new")
    assert [(each.stream, each.value) for each in store.bookmarks("p", "new").values()] == [("load", "1")]
    assert store.bookmarks("p", "load") == {}
    assert store.bookmarks("p", "more")["more"].value == "3"
    assert store.bookmarks("q", "load")["load"].value == "4"
    assert sorted(each.block for each in store.dead_letters("p")) == ["more", "new"]
    assert [each.block for each in store.dead_letters("q")] == ["load"]


def test_the_children_of_a_dynamic_block_have_its_new_name(store: Store) -> None:
    for block, value in (("load:a", "1"), ("load:b:c", "2"), ("loader:a", "3"), ("new:d", "4")):
        store.save("p", block, "r", [BookmarkSave(stream="s", value=value)])
    rename(store, "load", "new")
    kept = {block: store.bookmarks("p", block) for block in ("new:a", "new:b:c", "loader:a", "load:a", "new:d")}
    values = {block: [each.value for each in bookmarks.values()] for block, bookmarks in kept.items()}
    assert values == {"new:a": ["1"], "new:b:c": ["2"], "loader:a": ["3"], "load:a": [], "new:d": []}


def test_a_destination_has_its_new_name_wherever_it_has_proven_a_bookmark(store: Store) -> None:
    places = {"old": "x", "old\ns": "y", "other": "z", "older": "v"}
    store.save("p", "load", "r", [BookmarkSave(stream="s", value="1", sinks=["old", "older"], destinations=places)])
    rename(store, "old", "new")
    assert store.bookmarks("p", "load")["s"].sinks == ["new", "older"]
    assert store.history("p")[0].sinks == ["new", "older"]
    renamed = {"new": "x", "new\ns": "y", "other": "z", "older": "v"}
    assert store.destinations("p", "load") == {"s": renamed}
    store.set_bookmark("p", "load", "s", "2", run_id="s1")
    store.save_destinations("p", "load", "s", {})
    store.rollback("p", "load", run_id="x")
    assert store.destinations("p", "load") == {"s": renamed}


def test_dead_letters_name_the_block_that_refused_them(store: Store) -> None:
    letters = [
        letter(stage="old", record="1"),
        letter(stage="old", record="2", output=True),
        letter(record="3", destination="old"),
        letter(stage="older", record="4"),
        letter(record="5", destination="older"),
        letter(record="6"),
    ]
    store.save("p", "load", "r", [], letters)
    rename(store, "old", "new")
    assert [(each.record, each.stage, each.destination, each.output) for each in store.dead_letters("p")] == [
        ("1", "new", None, False),
        ("2", "new", None, True),
        ("3", "validate", "new", False),
        ("4", "older", None, False),
        ("5", "validate", "older", False),
        ("6", "validate", None, False),
    ]


def test_schemas_of_pairs_of_blocks_have_the_new_name(store: Store) -> None:
    for key in ("old > export", "load > old", "old < load", "export < old", "load > export", "old"):
        store.save_schema("p", key, "s", {"x": key})
    rename(store, "old", "new")
    for key in ("new > export", "load > new", "new < load", "export < new", "load > export", "new"):
        assert store.last_schemas("p", key) == {"s": {"x": key.replace("new", "old")}}
    assert store.last_schemas("p", "old > export") == {}
