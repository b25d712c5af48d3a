"""Schemas that are inferred from records."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamline.connectors.singer.inferred_schema import InferredSchema, MisfitError


def fit(schema: InferredSchema, record: str, **more: Any) -> list[str]:
    known = schema.fits(record.encode())
    before = schema.changed
    schema.changed = False
    unknown = schema.fit(msgspec.json.decode(record, type=dict[str, msgspec.Raw]), **more)
    assert not known or not (schema.changed or unknown)
    schema.changed = schema.changed or before
    assert schema.fits(record.encode()) or unknown
    return unknown


def test_a_column_gets_the_type_of_its_first_value() -> None:
    schema = InferredSchema(["id"])
    assert fit(schema, '{"id":1,"name":"a","price":1.5,"ok":true,"tags":[1],"more":{"a":1}}') == []
    assert schema.schema == {
        "type": "object",
        "properties": {
            "id": {"type": ["integer"]},
            "name": {"type": ["null", "string"]},
            "price": {"type": ["null", "number"]},
            "ok": {"type": ["null", "boolean"]},
            "tags": {"type": ["null", "array"]},
            "more": {"type": ["null", "object"]},
        },
    }


def test_columns_are_added_and_whole_numbers_become_numbers() -> None:
    schema = InferredSchema()
    fit(schema, '{"a":1}')
    schema.changed = False
    fit(schema, '{"a":2}')
    fit(schema, '{"a":null}')
    assert not schema.changed
    fit(schema, '{"a":1e3,"b":"x"}')
    assert schema.changed
    assert schema.properties == {"a": {"type": ["null", "number"]}, "b": {"type": ["null", "string"]}}
    fit(schema, '{"a":12345678901234567890123}')


@pytest.mark.parametrize(
    "record",
    [
        '{"id":1,"a":"text"}',
        '{"id":1,"a":{}}',
        '{"id":1,"a":[]}',
        '{"id":1,"a":false}',
        '{"id":1,"a":NaN}',
        '{"id":null,"a":1}',
        '{"a":1}',
        '{"id":"x","a":1}',
    ],
)
def test_a_record_that_does_not_fit_changes_nothing(record: str) -> None:
    schema = InferredSchema(["id"])
    fit(schema, '{"id":1,"a":1}')
    before = schema.schema
    schema.changed = False
    members = {name: msgspec.Raw(text.encode()) for name, text in _members(record)}
    assert not schema.fits(record.encode())
    with pytest.raises(MisfitError):
        schema.fit({"new": msgspec.Raw(b"1"), **members})
    assert schema.schema == before
    assert not schema.changed


def _members(record: str) -> list[tuple[str, str]]:
    """The members of a flat object; their values need not be JSON."""
    return [(name.strip('"'), text) for name, _, text in (each.partition(":") for each in record[1:-1].split(","))]


def test_a_column_that_never_had_a_value_has_no_type() -> None:
    schema = InferredSchema()
    assert fit(schema, '{"a":null,"b":1}') == ["a"]
    assert list(schema.properties) == ["b"]
    assert fit(schema, '{"a":"x"}') == []
    assert fit(schema, '{"a":null}') == []


def test_declared_types_are_used_for_columns_that_come_and_widened_by_values() -> None:
    declared: dict[str, Any] = {
        "at": {"type": ["null", "string"], "format": "date-time"},
        "count": {"type": "integer"},
        "gone": {"type": "string"},
    }
    schema = InferredSchema(declared=declared)
    fit(schema, '{"at":null,"count":1}')
    assert schema.properties == {"at": declared["at"], "count": declared["count"]}
    fit(schema, '{"count":null}')
    fit(schema, '{"count":1.5}')
    assert schema.properties["count"] == {"type": ["null", "number"]}


def test_what_the_destination_was_sent_before_stays_unless_it_was_declared_as_more() -> None:
    known: dict[str, Any] = {"a": {"type": ["null", "number"]}, "b": {"type": ["null", "string"]}}
    declared: dict[str, Any] = {
        "a": {"type": ["null", "integer"]},
        "b": {"type": ["null", "string"], "format": "date-time"},
    }
    schema = InferredSchema(known=known, declared=declared)
    assert schema.properties == {"a": known["a"], "b": declared["b"]}


def test_dates_and_times_have_a_format() -> None:
    schema = InferredSchema()
    fit(schema, '{"at":"2026-01-01T00:00:00+00:00"}', formats={"at": "date-time"})
    assert schema.properties == {"at": {"type": ["null", "string"], "format": "date-time"}}


@pytest.mark.parametrize("text", [b'{"a":"\xff"}', b'{"a":"\\ud800"}', b'{"a":"x"', b'{"a":"x","b":1}', b"[]", b"1"])
def test_what_is_not_surely_right_is_not_known_to_fit(text: bytes) -> None:
    schema = InferredSchema()
    assert not schema.fits(b'{"a":"x"}')
    fit(schema, '{"a":"x"}')
    assert schema.fits(b'{"a":"x"}')
    assert not schema.fits(text)


def test_columns_may_have_any_name_and_several_types() -> None:
    schema = InferredSchema(["odd name!"], declared={"mixed": {"type": ["null", "string", "integer"]}})
    fit(schema, '{"odd name!":1,"mixed":"x","class":true,"":{"a":[1]}}')
    fit(schema, '{"odd name!":2,"mixed":5}')
    assert not schema.fits(b'{"mixed":5}')
