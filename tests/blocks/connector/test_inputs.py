"""The settings of inputs, and what decorated functions get of upstream outputs."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from streamline.blocks.connector.prepared import Export
from streamline.errors import ConfigError
from tests.blocks.call_inputs import Given
from tests.blocks.connector.preparing import DESTINATION, SOURCE, Preparing

SEES_ARGUMENTS = "def config(*args, **kwargs):\n    kwargs['seen'].append(args)"


def seeing(text: str) -> str:
    return text.replace("def config(*args, **kwargs):", SEES_ARGUMENTS)


def inputs(value: Any) -> dict[str, Any]:
    return {"data_integration": {"inputs": value}}


A, B, C = (Given(name, number) for number, name in enumerate("abc", 1))


@pytest.mark.parametrize(
    ("settings", "arguments", "exports"),
    [
        (None, (1, 2, 3), ["a", "b", "c"]),
        ([], (), ["a", "b", "c"]),
        (["c", "a"], (1, 3), ["a", "b", "c"]),
        ({"b": None}, (2,), ["a", "b", "c"]),
        ({"c": {"input_only": True}, "b": {}}, (2, 3), ["a", "b"]),
        ({"a": {"streams": ["a"]}, "b": {"streams": []}}, (1, 2), ["a", "b", "c"]),
    ],
)
def test_what_is_passed_and_what_is_exported(
    shop: Preparing, settings: Any, arguments: tuple[int, ...], exports: list[str]
) -> None:
    prepared = shop.destination(seeing(DESTINATION), A, B, C, configuration=inputs(settings))
    assert shop.seen == [arguments]
    assert [(export.index, export.block) for export in prepared.exports] == [("abc".index(b), b) for b in exports]


def test_a_source_gets_the_same_arguments(shop: Preparing) -> None:
    shop.source(seeing(SOURCE), A, B, C, configuration=inputs({"b": {"input_only": True}}))
    assert shop.seen == [(2,)]


def test_yaml_destinations_export_by_the_same_settings(shop: Preparing) -> None:
    settings = inputs({"a": {"input_only": True}, "b": {"streams": ["b"]}})
    exports = shop.destination("destination: shop\n", A, B, C, configuration=settings).exports
    assert [(export.block, export.streams) for export in exports] == [("b", ["b"]), ("c", None)]
    assert shop.line(exports[0].where) == "streams:"


def test_answers_and_destinations_are_not_exported(shop: Preparing) -> None:
    exports = shop.destination("destination: shop\n", Given("ready", True, type="sensor"), B).exports
    assert exports == [Export(index=1, block="b")]


def test_a_parameter_with_the_name_of_a_block_takes_its_output(shop: Preparing) -> None:
    text = SOURCE.replace("config(*args, **kwargs):", "config(c, *, b, **kwargs):\n    kwargs['seen'].append((c, b))")
    shop.source(text, A, B, C)
    assert shop.seen == [(3, 2)]


def test_functions_take_as_many_arguments_as_they_have_parameters(shop: Preparing) -> None:
    text = SOURCE.replace("source(*args, **kwargs)", "source()").replace("config(*args, **kwargs):", "config(first):")
    assert shop.source(text.replace("'localhost'", "first"), A, B).spec.config == {"host": 1}


def test_a_parameter_named_as_a_keyword_argument_takes_that(shop: Preparing) -> None:
    text = SOURCE.replace("config(*args, **kwargs):", "config(source, first):").replace("'localhost'", "source")
    assert shop.source(text, A).spec.config == {"host": "shop"}


def test_outputs_of_upstream_blocks_have_their_names(shop: Preparing) -> None:
    text = SOURCE.replace("'localhost'", "df_1 + b")
    assert shop.source(text, A, B).spec.config == {"host": 3}


@pytest.mark.parametrize(
    ("settings", "code", "line"),
    [
        ("a", "setting.invalid", "inputs: a"),
        ([5], "setting.invalid", "- 5"),
        (["a", "d"], "block.not_upstream", "- d"),
        ({"a": {}, "d": {}}, "block.not_upstream", "d: {}"),
        ({"a": []}, "setting.invalid", "a: []"),
        ({"a": {"stream": []}}, "setting.unknown", "stream: []"),
        ({"a": {"streams": "x"}}, "setting.invalid", "streams: x"),
        ({"a": {"streams": [""]}}, "setting.invalid", "streams:"),
        ({"a": {"catalog": "yes"}}, "setting.invalid", "catalog: 'yes'"),
        ({"a": {"catalog": True, "input_only": 1}}, "setting.invalid", "input_only: 1"),
    ],
)
def test_wrong_settings_are_found_before_anything_runs(shop: Preparing, settings: Any, code: str, line: str) -> None:
    for type, text in (("data_loader", SOURCE), ("data_exporter", "destination: shop\n")):
        with pytest.raises(ConfigError) as found:
            shop.check(type, text, "a", configuration=inputs(settings))
        assert (found.value.code, shop.line(found.value.where)) == (code, line)


@pytest.mark.parametrize(
    ("settings", "code"), [({"input": []}, "setting.unknown"), ([], "setting.invalid"), ("x", "setting.invalid")]
)
def test_wrong_keys_above_the_inputs(shop: Preparing, settings: Any, code: str) -> None:
    with pytest.raises(ConfigError) as found:
        shop.check("data_loader", SOURCE, "a", configuration={"data_integration": settings})
    assert found.value.code == code


# -- catalogs


def argument(shop: Preparing, value: Any, **settings: Any) -> Any:
    """Return what a function gets for an output with these settings."""
    shop.seen.clear()
    shop.source(seeing(SOURCE), Given("a", value), configuration=inputs({"a": settings}))
    return shop.seen[0][0]


VALUES = {
    "id": 1,
    "total": Decimal("1.50"),
    "day": dt.date(2026, 1, 2),
    "at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    "ok": True,
    "rate": 0.5,
    "name": "ada",
    "tags": ["x"],
    "address": {"zip": 1000},
}
TYPES = {
    "id": {"type": ["null", "integer"]},
    "total": {"type": ["null", "number"], "multipleOf": 0.01},
    "day": {"type": ["null", "string"], "format": "date"},
    "at": {"type": ["null", "string"], "format": "date-time"},
    "ok": {"type": ["null", "boolean"]},
    "rate": {"type": ["null", "number"]},
    "name": {"type": ["null", "string"]},
    "tags": {"type": ["null", "array"], "items": {"type": ["null", "string"]}},
    "address": {"type": ["null", "object"], "properties": {"zip": {"type": ["null", "integer"]}}},
}


@pytest.mark.parametrize(
    "make",
    [
        lambda: [VALUES],
        lambda: pd.DataFrame([VALUES]),
        lambda: pa.Table.from_pylist([VALUES]),
        lambda: {
            "stream": {"stream": "a"},
            "columns": list(VALUES),
            "rows": [list(VALUES.values())],
        },
    ],
)
def test_the_catalog_of_an_output_has_its_types(shop: Preparing, make: Any) -> None:
    value = make()
    data, catalog = argument(shop, value, catalog=True)
    assert type(data) is type(value)
    (entry,) = catalog["streams"]
    assert (entry["tap_stream_id"], entry["stream"], entry["key_properties"]) == ("a", "a", [])
    assert entry["schema"] == {"type": "object", "properties": TYPES}
    breadcrumbs = [mark["breadcrumb"] for mark in entry["metadata"]]
    assert breadcrumbs == [[], *(["properties", name] for name in VALUES)]
    assert all(mark["metadata"]["selected"] for mark in entry["metadata"])


ORDERS = {"tap_stream_id": "shop-orders", "stream": "orders", "schema": {"properties": {"id": {}}}, "metadata": []}
STREAMS = [
    {"stream": ORDERS, "columns": ["id"], "rows": [[1], [2]]},
    {"stream": {"stream": "users"}, "columns": ["name"], "rows": [["ada"]]},
    {"stream": "days", "columns": ["day"], "rows": [[1]]},
]


def test_the_catalog_of_a_source(shop: Preparing) -> None:
    data, catalog = argument(shop, STREAMS, catalog=True)
    assert data == STREAMS
    assert [entry["stream"] for entry in catalog["streams"]] == ["orders", "users", "days"]
    assert catalog["streams"][0].items() >= ORDERS.items()
    assert [list(entry["schema"]["properties"]) for entry in catalog["streams"]] == [["id"], ["name"], ["day"]]


@pytest.mark.parametrize(("names", "places"), [(["orders"], [0]), (["days", "orders"], [0, 2]), ([], [0, 1, 2])])
def test_streams_limit_data_and_catalog(shop: Preparing, names: list[str], places: list[int]) -> None:
    expected: Any = [STREAMS[place] for place in places]
    expected = expected[0] if len(places) == 1 else expected  # a dict for one stream
    assert argument(shop, STREAMS, streams=names) == expected
    data, catalog = argument(shop, STREAMS, streams=names, catalog=True)
    assert data == expected
    assert len(catalog["streams"]) == len(places)


def test_a_dict_of_tables_has_a_stream_for_each(shop: Preparing) -> None:
    tables = {"orders": pd.DataFrame({"id": [1]}), "users": pa.table({"name": ["ada"]})}
    assert argument(shop, tables, streams=["users"]) == {"users": tables["users"]}
    data, catalog = argument(shop, tables, catalog=True)
    assert list(data) == ["orders", "users"]
    assert [entry["stream"] for entry in catalog["streams"]] == ["orders", "users"]
    assert [list(entry["schema"]["properties"]) for entry in catalog["streams"]] == [["id"], ["name"]]


@pytest.mark.parametrize("value", [STREAMS, STREAMS[0], pd.DataFrame({"a": [1]}), {"a": pd.DataFrame({"a": [1]})}])
def test_a_stream_that_the_output_does_not_have(shop: Preparing, value: Any) -> None:
    with pytest.raises(ConfigError) as found:
        argument(shop, value, streams=["order"])
    assert (found.value.code, shop.line(found.value.where)) == ("stream.unknown", "streams:")


@pytest.mark.parametrize("value", [5, "x", {"host": "h"}, None])
def test_an_output_without_a_catalog(shop: Preparing, value: Any) -> None:
    assert argument(shop, value, streams=["a"]) == value
    with pytest.raises(ConfigError) as found:
        argument(shop, value, catalog=True)
    assert shop.line(found.value.where) == "a:"


class Name(str):
    """Text of a user's class."""


def test_templates_give_plain_json_values(shop: Preparing) -> None:
    given = Given("a", {"host": Name("db"), "day": dt.date(2026, 1, 2), "limit": Decimal("2.5")})
    config = "".join(
        f"  {key}: \"{{{{ block_output('a', parse=lambda data: data['{key}']) }}}}\"\n"
        for key in ("host", "day", "limit")
    )
    values = shop.source(f"source: shop\nconfig:\n{config}", given).spec.config
    assert values == {"host": "db", "day": "2026-01-02", "limit": 2.5}
    assert type(values["host"]) is str


def test_a_template_that_gives_an_object_is_refused(shop: Preparing) -> None:
    with pytest.raises(ConfigError) as error:
        shop.source("source: shop\nconfig: {host: \"{{ block_output('a') }}\"}\n", Given("a", object()))
    assert error.value.code == "setting.invalid"
    assert shop.line(error.value.where) == "config: {host: \"{{ block_output('a') }}\"}"
