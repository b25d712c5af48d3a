"""Streams, columns and replication settings, as users write them and as taps of each library read them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.connectors.singer.catalog import Catalog, layer, needs_discovery
from streamline.connectors.singer.selection import TapTraits, apply_settings, choose
from streamline.connectors.singer.settings import parse_streams
from streamline.errors import ConfigError
from tests.support.failures import refuses

SDK = TapTraits(library="singer-sdk")


def table(name: str, *, schema_name: str = "public", root: dict | None = None, **entry: Any) -> dict:
    """A table as a tap of singer-python's family discovers it."""
    return {
        "tap_stream_id": f"{schema_name}-{name}",
        "stream": name,
        "table_name": name,
        "schema": {
            "type": "object",
            "properties": {
                "id": {"type": ["integer"]},
                "total": {"type": ["null", "number"]},
                "note": {"type": ["null", "string"]},
                "updated_at": {"type": ["null", "string"], "format": "date-time"},
                "geo": {"type": ["null", "string"]},
            },
        },
        "metadata": [
            {
                "breadcrumb": [],
                "metadata": {
                    "table-key-properties": ["id"],
                    "schema-name": schema_name,
                    "is-view": False,
                    **(root or {}),
                },
            },
            {"breadcrumb": ["properties", "id"], "metadata": {"inclusion": "automatic", "sql-datatype": "integer"}},
            {"breadcrumb": ["properties", "total"], "metadata": {"inclusion": "available"}},
            {"breadcrumb": ["properties", "note"], "metadata": {"inclusion": "available"}},
            {"breadcrumb": ["properties", "updated_at"], "metadata": {"inclusion": "available"}},
            {"breadcrumb": ["properties", "geo"], "metadata": {"inclusion": "unsupported"}},
        ],
        **entry,
    }


def plain(name: str, properties: dict | None = None, **entry: Any) -> dict:
    """A stream of a tap that writes no metadata at all."""
    return {
        "tap_stream_id": name,
        "stream": name,
        "schema": {"properties": {"id": {"type": "integer"}} if properties is None else properties},
        **entry,
    }


def catalog(*streams: dict) -> Catalog:
    return Catalog({"streams": list(streams)})


def run(found: Catalog, streams: object = None, tap: TapTraits | None = None, **more: Any):
    chosen = choose(found, parse_streams(streams, "source"), tap=tap, **more)
    return chosen, apply_settings(found, chosen, tap=tap)


def marks(written: Catalog, stream: str) -> dict[str, bool]:
    found = written.get(stream)
    assert found is not None
    return {".".join(path): one["selected"] for path, one in found.metadata.items() if "selected" in one}


def test_a_stream_without_any_mark_is_selected() -> None:
    chosen, written = run(catalog(plain("users"), plain("orders")))
    assert [one.id for one in chosen] == ["users", "orders"]
    assert marks(written, "users") == {"": True, "properties.id": True}
    assert written.get("users").schema["selected"] is True


def test_selected_by_default_false_is_not_selected() -> None:
    found = catalog(table("a", root={"selected-by-default": False}), table("b"))
    chosen, written = run(found)
    assert [one.id for one in chosen] == ["public-b"]
    assert marks(written, "public-a") == {"": False}
    assert written.get("public-a").schema["selected"] is False


def test_a_catalog_that_selects_nothing_says_how_to_select() -> None:
    with refuses("stream.none_selected"):
        run(catalog(table("a", root={"selected-by-default": False})))
    chosen, _ = run(catalog(table("a", root={"selected-by-default": False})), {"*": {}})
    assert [one.id for one in chosen] == ["public-a"]


def test_listed_streams_are_the_ones_that_are_read() -> None:
    found = catalog(table("orders"), table("users"), table("orders_old"))
    assert [one.id for one in run(found, {"public-orders": None})[0]] == ["public-orders"]
    assert [one.id for one in run(found, ["users"])[0]] == ["public-users"]
    assert [one.id for one in run(found, {"public-orders*": {}})[0]] == ["public-orders", "public-orders_old"]
    assert [one.id for one in run(found, {"users": False})[0]] == ["public-orders", "public-orders_old"]
    assert [one.id for one in run(found, {"*": None, "users": {"selected": False}})[0]] == [
        "public-orders",
        "public-orders_old",
    ]


def test_a_name_that_does_not_exist_suggests_the_nearest() -> None:
    found = catalog(table("orders"), table("users"))
    with refuses("stream.unknown", "'public-order'") as error:
        run(found, {"public-order": {}})
    assert "'public-orders'" in str(error.value)
    run(found, {"orders": {}, "public-nothing-*": {}})


def test_a_name_that_several_streams_bear_must_be_an_id() -> None:
    found = catalog(table("orders"), table("orders", schema_name="sales"))
    with refuses("stream.ambiguous", "'orders'") as error:
        run(found, ["orders"])
    assert "sales-orders" in str(error.value)
    assert [one.id for one in run(found, ["sales-orders"])[0]] == ["sales-orders"]


def test_an_id_that_is_the_name_of_another_stream_means_the_id() -> None:
    found = catalog(plain("orders", stream="x"), {**plain("sales"), "stream": "orders"})
    assert [one.id for one in run(found, ["orders"])[0]] == ["orders"]


def test_exact_beats_glob_and_later_beats_earlier_key_by_key() -> None:
    found = catalog(table("orders"), table("users"))
    chosen, _ = run(
        found,
        {
            "public-orders": {"replication_method": "FULL_TABLE", "run_in_parallel": True},
            "*": {"replication_method": "INCREMENTAL", "bookmark_properties": ["updated_at"]},
            "public-*": {"run_in_parallel": False, "bookmark_properties": ["id"]},
        },
    )
    orders, users = chosen
    assert (orders.replication_method, orders.replication_key, orders.run_in_parallel) == ("FULL_TABLE", None, True)
    assert (users.replication_method, users.replication_key, users.run_in_parallel) == ("INCREMENTAL", "id", False)


def test_selected_default_leaves_a_stream_to_the_catalog() -> None:
    hidden = [{"breadcrumb": [], "metadata": {"selected-by-default": False}}]
    others = [{"tap_stream_id": name, "stream": name, "metadata": hidden} for name in ("hidden", "more")]
    found = catalog(table("orders"), table("users"), *others)
    chosen, _ = run(found, {"*": {"selected": "default"}, "orders": {"replication_method": "FULL_TABLE"}, "more": True})
    assert [stream.id for stream in chosen] == ["public-orders", "public-users", "more"]


def test_replication_is_written_where_each_library_reads_it() -> None:
    settings = {"orders": {"replication_method": "incremental", "bookmark_properties": ["updated_at"]}}
    _, written = run(catalog(table("orders")), settings)
    orders = written.get("public-orders")
    assert orders.entry["replication_method"] == orders.root["replication-method"] == "INCREMENTAL"
    assert orders.entry["replication_key"] == orders.root["replication-key"] == "updated_at"
    assert "forced-replication-method" not in orders.root
    _, written = run(catalog(table("orders")), settings, tap=SDK)
    assert written.get("public-orders").root["forced-replication-method"] == "INCREMENTAL"


def test_bookmark_properties_alone_mean_incremental() -> None:
    chosen, _ = run(catalog(table("orders")), {"orders": {"bookmark_properties": "updated_at"}})
    assert chosen[0].replication_method == "INCREMENTAL"


def test_a_table_without_a_method_is_read_whole_and_a_tap_that_decides_is_left_alone() -> None:
    chosen, written = run(catalog(table("orders"), plain("users")))
    assert [one.replication_method for one in chosen] == ["FULL_TABLE", None]
    assert "replication-method" not in written.get("users").root
    chosen, _ = run(catalog(table("orders")), tap=TapTraits(default_replication_method="LOG_BASED"))
    assert chosen[0].replication_method == "LOG_BASED"


def test_a_forced_method_can_only_be_changed_where_the_library_reads_it() -> None:
    forced = {"forced-replication-method": {"replication-method": "FULL_TABLE", "reason": "no date"}}
    found = catalog(table("orders", root=forced))
    assert run(found)[0][0].replication_method == "FULL_TABLE"
    settings = {"orders": {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}}
    with refuses("replication.method_refused", "FULL_TABLE"):
        run(found, settings)
    assert run(found, settings, tap=SDK)[0][0].replication_method == "INCREMENTAL"


def test_incremental_needs_a_column() -> None:
    with refuses("replication.no_key"):
        run(catalog(table("orders")), {"orders": {"replication_method": "INCREMENTAL"}})
    found = catalog(table("orders", root={"valid-replication-keys": ["updated_at"]}))
    assert run(found, {"orders": {"replication_method": "INCREMENTAL"}})[0][0].replication_key == "updated_at"
    with refuses("column.unknown", "'id'"):
        run(found, {"orders": {"bookmark_properties": ["id"]}})


def test_a_method_and_columns_that_contradict_each_other() -> None:
    with refuses("replication.no_bookmark", "FULL_TABLE", "bookmark_properties"):
        run(catalog(table("orders")), {"orders": {"replication_method": "FULL_TABLE", "bookmark_properties": ["id"]}})


def test_a_tap_of_the_sdk_is_told_the_column_of_its_log() -> None:
    """meltanolabs-tap-postgres finds its bookmark only by the name `_sdc_lsn`, a column that no table has."""
    settings = {"orders": {"replication_method": "LOG_BASED", "bookmark_properties": ["_sdc_lsn"]}}
    chosen, written = run(catalog(table("orders")), settings, tap=SDK)
    assert (chosen[0].replication_method, chosen[0].replication_key) == ("LOG_BASED", "_sdc_lsn")
    assert written.get("public-orders").entry["replication_key"] == "_sdc_lsn"
    with refuses("replication.no_bookmark", "LOG_BASED", "bookmark_properties"):
        run(catalog(table("orders")), settings)
    # A column that was named for many streams is not the log's.
    settings = {"*": {"bookmark_properties": ["updated_at"]}, "orders": {"replication_method": "LOG_BASED"}}
    assert run(catalog(table("orders")), settings, tap=SDK)[0][0].replication_key is None


def test_several_bookmark_properties_need_a_tap_that_follows_them() -> None:
    settings = {"orders": {"bookmark_properties": ["updated_at", "id"]}}
    with refuses("replication.several_bookmarks"):
        run(catalog(table("orders")), settings)
    chosen, written = run(catalog(table("orders")), settings, tap=TapTraits(multiple_bookmarks=True))
    assert written.get("public-orders").entry["bookmark_properties"] == ["updated_at", "id"]
    assert written.get("public-orders").entry["replication_key"] == "updated_at"
    assert (chosen[0].replication_key, chosen[0].bookmark_properties) == ("updated_at", ["updated_at", "id"])


def test_a_bookmark_property_must_be_a_column() -> None:
    with refuses("column.unknown", "'updated'", "'public-orders'") as error:
        run(catalog(table("orders")), {"orders": {"bookmark_properties": ["updated"]}})
    assert "updated_at" in str(error.value)


def test_unique_constraints_become_the_key() -> None:
    chosen, written = run(catalog(table("orders")), {"orders": {"unique_constraints": ["id", "note"]}})
    assert chosen[0].key_properties == ["id", "note"]
    assert chosen[0].own_key
    orders = written.get("public-orders")
    assert orders.entry["key_properties"] == orders.root["table-key-properties"] == ["id", "note"]
    view = catalog(table("v", root={"is-view": True, "table-key-properties": []}))
    _, written = run(view, {"v": {"unique_constraints": ["id"]}})
    assert written.get("public-v").root["view-key-properties"] == ["id"]
    assert written.get("public-v").entry["key_properties"] == ["id"]


def test_unique_constraints_must_be_columns() -> None:
    with refuses("column.unknown", "'nota'"):
        run(catalog(table("orders")), {"orders": {"unique_constraints": ["nota"]}})


def test_columns_are_listed_only_where_some_are_left_out() -> None:
    assert run(catalog(plain("a")))[0][0].columns is None
    every = list(plain("a")["schema"]["properties"])
    assert run(catalog(plain("a")), {"a": {"columns": every}})[0][0].columns == every


def test_columns_that_are_not_read_are_dropped() -> None:
    """A tap may send more than its catalog lists, so a list of all columns drops some, too."""
    found = catalog(plain("a", {"id": {}, "note": {}}))
    assert not run(found)[0][0].drops_columns
    every = run(found, {"a": {"columns": ["id", "note"]}})[0][0]
    some = run(found, {"a": {"columns": ["id"]}})[0][0]
    assert (every.drops_columns, every.deselected) == (True, frozenset())
    assert (some.drops_columns, some.deselected) == (True, {"note"})


def test_a_replication_key_alone_means_incremental_to_taps_of_the_sdk() -> None:
    found = catalog(plain("a", replication_key="id"))
    assert [run(found, tap=tap)[0][0].replication_method for tap in (SDK, None)] == ["INCREMENTAL", None]


def test_columns_keep_the_key_and_the_replication_key() -> None:
    settings = {"orders": {"columns": ["total"], "bookmark_properties": ["updated_at"]}}
    chosen, written = run(catalog(table("orders")), settings)
    assert chosen[0].columns == ["id", "total", "updated_at"]
    assert marks(written, "public-orders") == {
        "": True,
        "properties.id": True,
        "properties.total": True,
        "properties.note": False,
        "properties.updated_at": True,
        "properties.geo": False,
    }
    chosen, _ = run(catalog(table("orders")), {"orders": {"columns": {"exclude": ["note", "id", "up*"]}}})
    assert chosen[0].columns == ["id", "total"]


def test_columns_that_can_not_be_had_or_left_out() -> None:
    with refuses("column.unsupported", "'geo'"):
        run(catalog(table("orders")), {"orders": {"columns": ["geo"]}})
    with refuses("column.unknown", "'totl'"):
        run(catalog(table("orders")), {"orders": {"columns": ["totl"]}})
    found = table("orders")
    found["metadata"][2]["metadata"]["inclusion"] = "automatic"
    with refuses("column.always_sent", "'total'"):
        run(catalog(found), {"orders": {"columns": {"exclude": ["total"]}}})


def test_nested_properties_and_array_items_are_marked() -> None:
    properties = {
        "id": {"type": "integer"},
        "address": {"type": "object", "properties": {"city": {"type": "string"}, "zip": {"type": "string"}}},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {}, "price": {}}}},
    }
    _, written = run(catalog(plain("orders", properties)), {"orders": {"columns": ["address.city", "lines"]}})
    assert marks(written, "orders") == {
        "": True,
        "properties.id": False,
        "properties.address": True,
        "properties.address.properties.city": True,
        "properties.address.properties.zip": False,
        "properties.lines": True,
        "properties.lines.items": True,
        "properties.lines.items.properties.sku": True,
        "properties.lines.items.properties.price": True,
    }
    _, written = run(catalog(plain("orders", properties)), {"orders": {"columns": {"exclude": ["lines"]}}})
    assert marks(written, "orders")["properties.lines.items.properties.sku"] is False
    inclusions = {path: found.get("inclusion") for path, found in written.get("orders").metadata.items()}
    assert inclusions[()] == inclusions["properties", "id"] == "available"


def test_a_property_that_is_called_items_follows_its_parent() -> None:
    properties = {"box": {"type": "object", "properties": {"items": {"type": "object", "properties": {"sku": {}}}}}}
    _, written = run(catalog(plain("orders", {"id": {}, **properties})), {"orders": {"columns": {"exclude": ["box"]}}})
    assert marks(written, "orders") == {
        "": True,
        "properties.id": True,
        "properties.box": False,
        "properties.box.properties.items": False,
        "properties.box.properties.items.properties.sku": False,
    }
    _, written = run(catalog(plain("orders", {"items": {}, "lines": {"type": "array", "items": {"properties": {}}}})))
    inclusions = {path: found.get("inclusion") for path, found in written.get("orders").metadata.items()}
    assert inclusions["properties", "items"] == "available"
    assert inclusions["properties", "lines", "items"] is None


def test_odd_column_names_are_columns() -> None:
    properties = {"first-name": {}, "a b": {}, "x.y": {}, "$ref": {}}
    chosen, written = run(catalog(plain("odd", properties)), {"odd": {"columns": ["x.y", "$ref"]}})
    assert chosen[0].columns == ["x.y", "$ref"]
    assert len(marks(written, "odd")) == 5


def test_marks_of_the_oldest_taps_are_kept_up() -> None:
    properties = {"id": {"inclusion": "automatic"}, "note": {"inclusion": "available", "selected": False}, "b": {}}
    _, written = run(catalog(plain("old", properties)))
    found = written.get("old").properties
    assert [found[name]["selected"] for name in ("id", "note", "b")] == [True, False, True]


def test_a_schema_override_types_and_adds_columns() -> None:
    settings = {"orders": {"schema": {"note": {"type": "integer"}, "extra": {"type": "string"}}}}
    chosen, written = run(catalog(table("orders")), settings)
    assert written.get("public-orders").properties["note"] == {"type": "integer"}
    assert marks(written, "public-orders")["properties.extra"] is True
    assert chosen[0].schema_override == {"properties": settings["orders"]["schema"]}


def test_unsupported_streams_are_left_out_and_not_asked_for() -> None:
    found = catalog(table("a", root={"inclusion": "unsupported"}), table("b"))
    assert [one.id for one in run(found, {"*": {}})[0]] == ["public-b"]
    with refuses("stream.unsupported"):
        run(found, {"a": {}, "b": {}})


def test_a_run_of_single_streams() -> None:
    found = catalog(table("a"), table("b"), table("c"))
    assert [one.id for one in run(found, stream_filter=["b", "public-c"])[0]] == ["public-b", "public-c"]
    assert len(run(found, stream_filter=["public-*"])[0]) == 3
    with refuses("stream.not_selected"):
        run(found, ["a"], stream_filter=["b"])
    with refuses("stream.unknown", "'bb'"):
        run(found, stream_filter=["bb"])
    logs = {"a": {"replication_method": "LOG_BASED"}, "b": {"replication_method": "LOG_BASED"}, "c": {}}
    assert [one.id for one in run(found, logs, stream_filter=["b"])[0]] == ["public-a", "public-b"]
    # One that is not in the log takes nothing with it.
    assert [one.id for one in run(found, logs, stream_filter=["c"])[0]] == ["public-c"]


def test_the_tap_is_given_the_streams_of_its_own_group_only() -> None:
    found = catalog(table("a"), table("b"))
    chosen = choose(found)
    written = apply_settings(found, chosen[1:])
    assert [marks(written, one)[""] for one in ("public-a", "public-b")] == [False, True]


def test_catalogs_are_not_changed_and_unknown_keys_are_kept() -> None:
    found = catalog(table("a", own="x"), plain("b"))
    before = copy.deepcopy(found.data)
    _, written = run(found, {"*": {"bookmark_properties": ["id"]}})
    assert found.data == before
    assert written.get("public-a").entry["own"] == "x"
    assert written.get("public-a").metadata["properties", "id"]["sql-datatype"] == "integer"


@pytest.mark.parametrize(
    ("settings", "code", "name"),
    [
        ({"a": {"replication_metod": "FULL_TABLE"}}, "setting.unknown", "'replication_metod'"),
        ({"a": {"destination_table": "x"}}, "setting.unknown", "'destination_table'"),
        ({"a": {"replication_method": "SOMETIMES"}}, "setting.invalid", "'SOMETIMES'"),
        ({"a": {"columns": {"include": ["x"]}}}, "setting.invalid", "columns"),
        ({"a": {"run_in_parallel": "yes"}}, "setting.invalid", "run_in_parallel"),
        ({"a": {"schema": {"x": "string"}}}, "setting.invalid", "'x'"),
        ({"a": 3}, "setting.invalid", "'a'"),
        ("a", "setting.invalid", "`streams`"),
    ],
)
def test_wrong_settings_are_refused(settings: object, code: str, name: str) -> None:
    with refuses(code, name):
        parse_streams(settings, "source")


def test_a_catalog_file_says_which_streams_there_are_and_discovery_fills_it_in() -> None:
    found = catalog(table("a"), table("b"))
    over = catalog({"tap_stream_id": "public-a", "metadata": [{"breadcrumb": [], "metadata": {"selected": False}}]})
    assert needs_discovery(over)
    both = layer(found, over)
    assert [one.id for one in both] == ["public-a"]
    assert both.get("public-a").properties == found.get("public-a").properties
    assert both.get("public-a").root["schema-name"] == "public"
    assert both.get("public-a").root["selected"] is False
    with refuses("catalog.no_schema"):
        layer(None, over)
    with refuses("stream.unknown", "'public-x'"):
        layer(found, catalog({"tap_stream_id": "public-x"}))


def test_catalogs_written_by_mage_are_read() -> None:
    found = Catalog({"catalog": {"streams": [plain("a", unique_constraints=["id"], bookmark_properties=["id"])]}})
    chosen = choose(found)
    assert chosen[0].key_properties == ["id"]


@pytest.mark.parametrize("data", [[], {}, {"streams": {}}, {"streams": [1]}, {"streams": [{}]}, None])
def test_what_is_no_catalog_is_refused(data: object) -> None:
    with pytest.raises(ConfigError):
        Catalog(data)


properties = st.recursive(
    st.builds(dict),
    lambda inner: (
        st.builds(lambda found: {"properties": found}, st.dictionaries(st.text(max_size=3), inner, max_size=3))
        | st.builds(lambda found: {"type": "array", "items": found}, inner)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=3), properties, max_size=4),
    st.lists(
        st.tuples(
            st.integers(0, 30), st.sampled_from(["automatic", "available", "unsupported"]), st.none() | st.booleans()
        )
    ),
    st.booleans(),
)
def test_every_property_is_marked_and_inclusions_are_respected(
    columns: dict, found: list[tuple[int, str, bool | None]], with_metadata: bool
) -> None:
    first = catalog(plain("s", columns))
    paths = [path for path in apply_settings(first, choose(first)).get("s").metadata if path]
    metadata = [{"breadcrumb": [], "metadata": {}}]
    if with_metadata and paths:
        for number, inclusion, selected in found:
            entry: dict[str, Any] = {"inclusion": inclusion}
            if selected is not None:
                entry["selected"] = selected
            metadata.append({"breadcrumb": list(paths[number % len(paths)]), "metadata": entry})
    second = catalog(plain("s", columns, metadata=metadata))
    written = apply_settings(second, choose(second)).get("s")
    assert {path for path in written.metadata if path} >= set(paths)
    for path, entry in written.metadata.items():
        assert isinstance(entry["selected"], bool)
        if entry.get("inclusion") == "unsupported":
            assert entry["selected"] is False
        if entry.get("inclusion") == "automatic" and len(path) == 2:
            assert entry["selected"] is True
    # What was written is what a second reading chooses.
    again = Catalog({"streams": [written.entry]})
    assert apply_settings(again, choose(again)).get("s").entry == written.entry
