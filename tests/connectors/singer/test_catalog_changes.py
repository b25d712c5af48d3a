from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.catalog_changes import CatalogWatch, catalog_changes
from streamline.state import open_store
from streamline.state.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store("sqlite:///state.db", tmp_path)) as opened:
        yield opened


def catalog(**streams: list[str]) -> Catalog:
    return Catalog({"streams": [{"stream": name, "schema": shape(*columns)} for name, columns in streams.items()]})


def shape(*columns: str) -> dict[str, Any]:
    return {"properties": {column: {} for column in columns}}


def test_changes_of_a_catalog_are_told() -> None:
    changes = catalog_changes(catalog(a=["id", "fax"], b=["id"]), catalog(a=["id", "phone"], c=["id"]))
    assert changes == [
        "stream a: new column phone",
        "stream a: column fax no longer exists",
        "new stream c",
        "stream b no longer exists",
    ]


def test_many_changes_are_counted() -> None:
    def told(count: int) -> list[str]:
        return catalog_changes(catalog(a=["id"]), catalog(a=["id", *(f"c{at}" for at in range(count))]))

    assert told(20)[-1] == "stream a: new column c19"
    assert told(23)[19:] == ["stream a: new column c19", "3 more changes of streams and columns"]


def test_a_schema_that_a_cached_catalog_lacks_is_told_once_and_drops_the_catalog(store: Store) -> None:
    dropped: list[bool] = []
    watch = CatalogWatch(catalog(a=["id", "note"]), store, "k", forget=lambda: dropped.append(True))
    assert watch.look("a", shape("id", "_sdc_deleted_at"), deselected=["note"]) == []
    assert watch.look("a", shape("id", "note")) == []
    assert watch.look("b", shape("id")) == []
    assert not dropped
    assert watch.look("a", shape("id", "note", "phone")) == ["stream a: new column phone"]
    assert watch.look("a", shape("id", "note", "phone")) == []
    assert dropped == [True]


def test_what_a_tap_sends_beyond_a_new_catalog_is_its_habit(store: Store) -> None:
    columns = catalog(a=["id"])
    assert CatalogWatch(columns, store, "k", forget=None).look("a", shape("id", "extra")) == []
    later = CatalogWatch(columns, store, "k", forget=lambda: None)
    assert later.look("a", shape("id", "extra")) == []
    assert later.look("a", shape("id", "extra", "phone")) == ["stream a: new column phone"]
