"""`--bookmark STREAM.COLUMN=VALUE` and `__bookmark_values__`, inside the shapes that taps keep."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from streamline.connectors.singer.catalog import CatalogStream
from streamline.connectors.singer.override import (
    Override,
    apply_override,
    override_rows,
    parse_override,
    parse_overrides,
)
from streamline.connectors.singer.selection import TapTraits
from streamline.errors import ConfigError
from tests.support.failures import refuses

SDK = TapTraits(library="singer-sdk")
PYTHON = TapTraits(library="singer-python")
UNKNOWN = TapTraits()

TABLE = CatalogStream(
    {
        "tap_stream_id": "public-orders",
        "schema": {
            "properties": {
                "id": {"type": ["null", "integer"]},
                "amount": {"type": "number"},
                "updated_at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
                "code": {"type": ["string", "integer", "null"]},
                "paid": {"type": "boolean"},
            }
        },
        "metadata": [{"breadcrumb": [], "metadata": {"is-view": False}}],
    }
)
API = CatalogStream({"tap_stream_id": "users", "schema": {"properties": {"updated_at": {"type": "string"}}}})


def override(text: str, saved: str | None, tap: TapTraits = UNKNOWN, stream: CatalogStream | None = TABLE) -> str:
    return apply_override(parse_override(text), saved.encode() if saved else None, stream, tap).decode()


def test_the_last_dot_separates_stream_and_column() -> None:
    assert parse_override("a.b.id=x.y=z") == Override("a.b", "id", "x.y=z")
    assert parse_override("orders.id=") == Override("orders", "id", "")
    for text in ("orders", "orders=1", ".id=1", "orders.=1", "orders.id"):
        with refuses("bookmark.invalid_option", "STREAM.COLUMN=VALUE"):
            parse_override(text)


def test_stored_values_are_read_by_block() -> None:
    assert parse_overrides({"load": {"orders": {"id": 5}}}) == {"load": [Override("orders", "id", 5)]}
    with refuses("bookmark.invalid_option", "__bookmark_values__"):
        parse_overrides({"load": {"orders": 5}})


def test_the_value_takes_the_place_of_the_saved_one_and_nothing_else_changes() -> None:
    saved = '{"version": 17000000000001, "replication_key":"id", "replication_key_value": 12, "x":  1.10}'
    assert (
        override("public-orders.id=7", saved)
        == '{"version":17000000000001,"replication_key":"id","replication_key_value":7,"x":1.10}'
    )
    assert override("users.updated_at=2024-01-01", '{"updated_at": "2023", "page": 3}', stream=API) == (
        '{"updated_at":"2024-01-01","page":3}'
    )
    assert override("users.updated_at=2024-01-01", '"2023"', stream=API) == '"2024-01-01"'


def test_every_partition_of_an_sdk_bookmark_is_moved() -> None:
    saved = {
        "partitions": [
            {"context": {"org": "a"}, "replication_key": "updated_at", "replication_key_value": "2023"},
            {"context": {"org": "b"}, "replication_key": "updated_at", "replication_key_value": "2022"},
            {"context": {"org": "c"}},
        ],
        "starting_replication_value": "2020",
    }
    found = json.loads(override("users.updated_at=2024", json.dumps(saved), SDK, API))
    assert [part.get("replication_key_value") for part in found["partitions"]] == ["2024", "2024", None]
    assert "starting_replication_value" not in found


def test_without_a_saved_bookmark_the_library_gives_the_shape() -> None:
    pair = '{"replication_key":"id","replication_key_value":5}'
    assert override("public-orders.id=5", None, SDK) == pair
    assert override("public-orders.id=5", None, PYTHON) == pair
    assert override("public-orders.id=5", "{}", TapTraits(library="pipelinewise-singer-python")) == pair
    assert override("users.updated_at=2024", None, PYTHON, API) == '{"updated_at":"2024"}'
    several = TapTraits(library="singer-python", multiple_bookmarks=True)
    assert override("public-orders.id=5", None, several) == '{"id":5}'
    assert override("public-orders.id=5", '{"id": 7, "rows_sent": {"at": [7]}}', several) == (
        '{"id":5,"rows_sent":{"at": [7]}}'
    )
    empty = '{"version": 1, "last_replication_method": "FULL_TABLE", "progress_markers": {}, ' + (
        '"starting_replication_value": null, "replication_key_signpost": null}'
    )
    assert override("public-orders.id=5", empty, SDK) == pair
    # A bookmark about another column is not continued from.
    other = '{"replication_key": "updated_at", "replication_key_value": "2024", "version": 1}'
    assert override("public-orders.id=5", other, SDK) == pair


def test_where_the_shape_is_not_known_the_error_names_state_set() -> None:
    shapes = ['{"lsn": 5}', '{"since": {"a": 1}}', '{"id": {"a": 1}}', '{"id": [1]}']
    for saved, tap in ((None, UNKNOWN), *((saved, tap) for saved in shapes for tap in (SDK, PYTHON))):
        with pytest.raises(ConfigError) as error:
            override("public-orders.id=5", saved, tap)
        assert "state set" in str(error.value)
    assert override("public-orders.lsn=7", '{"lsn": 5}') == '{"lsn":7}'


def test_the_value_takes_the_column_type() -> None:
    def value(text: str) -> str:
        return json.dumps(json.loads(override(text, None, SDK))["replication_key_value"])

    assert value("o.id=123456789012345678901234567890") == "123456789012345678901234567890"
    assert value("o.updated_at=2024-01-01T00:00:00Z") == '"2024-01-01T00:00:00Z"'
    assert value("o.code=12") == '"12"'
    assert (value("o.paid=True"), value("o.paid=false")) == ("true", "false")
    assert override("o.amount=1.10", None, SDK).endswith('"replication_key_value":1.10}')
    assert override("o.code=12", '{"code": 3}') == '{"code":12}'
    for text in ("o.id=abc", "o.id=1.5", "o.amount=", "o.id=007", "o.paid=1"):
        with refuses("bookmark.invalid_value", "of type"):
            override(text, None, SDK)
    with refuses("column.unknown", "'ids'"):
        override("o.ids=1", None, SDK)


def test_json_values_take_the_column_type_too() -> None:
    def value(column: str, given: object) -> bytes:
        return apply_override(Override("o", column, given), None, TABLE, SDK)

    assert value("updated_at", 2024).endswith(b'"replication_key_value":"2024"}')
    assert value("amount", Decimal("0.10")).endswith(b'"replication_key_value":0.10}')
    assert value("id", "5").endswith(b'"replication_key_value":5}')
    for given in (None, [1], {}):
        with refuses("bookmark.invalid_value", "single value"):
            value("id", given)


def test_a_date_is_not_replaced_by_what_is_none() -> None:
    for text in ("banana", "2024-13-01", "2024-01-01T", "yesterday"):
        for saved in (None, '{"updated_at": "2024-01-01T00:00:00Z"}'):
            with pytest.raises(ConfigError) as raised:
                override(f"o.updated_at={text}", saved, SDK)
            assert raised.value.code == "bookmark.invalid_value"
            assert str(raised.value).endswith("now 2024-01-01T00:00:00Z" if saved else "T12:00:00Z")
    with pytest.raises(ConfigError):
        override("users.updated_at=banana", '{"updated_at": "2024-01-01"}', UNKNOWN, API)
    for text in ("2024", "2024-01-31", "2024-01-31 10:00", "2024-01-31T10:00:00.123456789+02:00", "20240131"):
        assert json.loads(override(f"o.updated_at={text}", None, SDK))["replication_key_value"] == text


def test_a_flat_state_is_overridden_in_its_own_row() -> None:
    rows = {"*": b'{"users": "2023", "orders": 5}'}
    changed = override_rows(parse_override("users.updated_at=2024"), rows, API, UNKNOWN)
    assert changed == {"*": b'{"users":"2024","orders":5}'}
    with refuses("bookmark.unknown_shape"):
        override_rows(parse_override("others.id=1"), rows, None, UNKNOWN)
    rows = {"public-orders": b'{"id": 4}', "*": b'{"currently_syncing":null}'}
    assert override_rows(parse_override("orders.id=5"), rows, TABLE, UNKNOWN) == {"public-orders": b'{"id":5}'}
