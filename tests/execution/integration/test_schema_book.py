"""Which SCHEMAs are kept for dead letters, and where."""

from __future__ import annotations

from typing import cast

import anyio

from streamline.execution.integration.schema_book import (
    SchemaBook,
    destination_schemas,
    save_destination_schema,
    saved_schemas,
)
from streamline.flow.items import Schema
from streamline.flow.protocols import Sink
from streamline.flow.router import Route
from streamline.state.store import Store
from tests.execution.integration.plans import Schemas


class End:
    id = "export"


def run(store: Schemas, *schemas: Schema, needed: str | None = None) -> None:
    """A run in which a source's SCHEMAs pass the destination `export`."""
    book = SchemaBook(cast(Store, store), "p")
    route = Route([], sinks=[cast(Sink, End())])
    book.watch("load", route)

    async def feed() -> None:
        for schema in schemas:
            for stage in route.stages:
                assert list(await stage.process(schema)) == [schema]

    anyio.run(feed)
    if needed is not None:
        book.need("load", "export", needed)
    book.save()


def saved(store: Schemas) -> dict[str, Schema]:
    return saved_schemas(cast(Store, store), "p", "load", "export")


def test_a_run_without_dead_letters_writes_nothing() -> None:
    store = Schemas()
    run(store, Schema("users", {"x": 1}))
    assert store.kept == {}


def test_the_schema_of_a_stream_with_a_dead_letter_is_kept_and_from_then_on_kept_current() -> None:
    store = Schemas()
    first, second = Schema("users", {"x": 1}, ["id"], ["at"]), Schema("users", {"x": 2}, [], None)
    run(store, first, Schema("orders", {"x": 3}), needed="users")
    assert saved(store) == {"users": first}
    run(store, first)
    assert store.saves == 1
    run(store, second)
    assert saved(store) == {"users": second}
    run(store, Schema("users", {"x": 2}, None, []))
    assert saved(store)["users"].key_properties is None
    assert saved(store)["users"].bookmark_properties == []


def test_the_schemas_of_a_destination_are_kept_by_source() -> None:
    store = Schemas()
    store.kept["export"] = {"users": {"x": "all sources"}, "orders": {"x": "all sources"}}
    save_destination_schema(cast(Store, store), "p", "load", "export", "users", {"x": "load"})
    assert destination_schemas(cast(Store, store), "p", "load", "export") == {
        "users": {"x": "load"},
        "orders": {"x": "all sources"},
    }
    assert destination_schemas(cast(Store, store), "p", "more", "export")["users"] == {"x": "all sources"}
