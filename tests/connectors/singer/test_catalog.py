"""A tap's catalog, in the words of each library."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.connectors.singer.catalog import Catalog, CatalogStream, layer
from tests.support.failures import refuses


def stream(*properties: dict[str, Any], root: dict[str, Any] | None = None, **entry: Any) -> CatalogStream:
    metadata = [{"breadcrumb": [], "metadata": root or {}}]
    metadata += [{"breadcrumb": ["properties", f"c{at}"], "metadata": found} for at, found in enumerate(properties)]
    return CatalogStream({"tap_stream_id": "a", "metadata": metadata, **entry})


@pytest.mark.parametrize(
    ("found", "is_table"),
    [
        (stream({"inclusion": "available"}), False),
        (stream(root={"selected": True}), False),
        (stream({"inclusion": "available"}, {"sql-datatype": "integer"}), True),
        (stream(is_view=False), True),
        *((stream(root={name: 0}), True) for name in ("is-view", "database-name", "schema-name", "row-count")),
    ],
)
def test_a_table_of_a_database_is_known_by_its_metadata(found: CatalogStream, is_table: bool) -> None:
    assert found.is_table is is_table


@pytest.mark.parametrize(
    ("found", "keys"),
    [
        (stream(key_properties=["id", None, ""]), ["id"]),
        (stream(key_properties=[], root={"table-key-properties": "id"}), ["id"]),
        (stream(key_properties=["id"], root={"is-view": True, "view-key-properties": ["nr"]}), ["nr"]),
        (stream(), []),
    ],
)
def test_a_key_is_taken_from_wherever_the_catalog_has_it(found: CatalogStream, keys: list[str]) -> None:
    assert found.key_properties == keys


@pytest.mark.parametrize(
    ("found", "keys"),
    [
        (stream(bookmark_properties=["at", "id"], replication_key="nr"), ["at", "id"]),
        (stream(replication_key="nr", root={"replication-key": "id"}), ["nr"]),
        (stream(root={"valid-replication-keys": ["at"]}), ["at"]),
        (stream(root={"valid-replication-keys": ["at", "id"]}), []),
    ],
)
def test_a_replication_key_is_the_only_one_that_there_is(found: CatalogStream, keys: list[str]) -> None:
    assert found.replication_keys == keys


def test_two_streams_with_one_id_are_refused() -> None:
    with refuses("catalog.invalid", "'a'"):
        Catalog({"streams": [{"tap_stream_id": "a"}, {"stream": "a"}]})


def test_what_a_layer_leaves_out_or_sets_to_null_is_the_discovered_catalogs() -> None:
    discovered = Catalog({"streams": [{"stream": "a", "schema": {"properties": {"id": {}}}, "key_properties": ["id"]}]})
    over = Catalog({"streams": [{"stream": "a", "key_properties": None, "note": "x"}, {"stream": "b", "schema": {}}]})
    first, second = layer(discovered, over).streams
    assert (first.key_properties, list(first.properties), first.entry["note"]) == (["id"], ["id"], "x")
    assert "metadata" not in first.entry
    assert second.entry == {"stream": "b", "schema": {}}
    assert layer(None, Catalog({"streams": [{"stream": "b", "schema": {}}]})).streams[0].id == "b"


def test_a_stream_is_found_by_its_id_or_its_name() -> None:
    found = Catalog({"streams": [{"tap_stream_id": "public-a", "stream": "a"}]})
    assert found.require("public-a") is found.require("a") is found.streams[0]
    with refuses("stream.unknown", "'b'", "public-a"):
        found.require("b")
