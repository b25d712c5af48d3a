"""The lines that are written to a target."""

from __future__ import annotations

import json
from decimal import Decimal

from streamline.connectors.singer import messages
from streamline.flow.items import ActivateVersion, Schema


def test_an_unchanged_message_keeps_its_bytes() -> None:
    raw = b'{"stream": "a",  "type": "SCHEMA", "schema": {"multipleOf": 1e-38}, "key_properties": []}'
    assert messages.schema_line(Schema("a", {}, raw=raw)) == raw + b"\n"
    assert messages.schema_line(Schema("a", {}, raw=raw + b"\n")) == raw + b"\n"
    assert messages.activate_version_line(ActivateVersion("a", 1, raw=b"{ }")) == b"{ }\n"


def test_a_changed_schema_always_names_its_keys() -> None:
    line = messages.schema_line(Schema("a", {"properties": {"n": {"multipleOf": Decimal("0.010")}}}))
    assert (
        line
        == b'{"type":"SCHEMA","stream":"a","schema":{"properties":{"n":{"multipleOf":0.010}}},"key_properties":[]}\n'
    )
    with_bookmark = Schema("a", {}, key_properties=["id"], bookmark_properties=("at",))
    assert json.loads(messages.schema_line(with_bookmark))["bookmark_properties"] == ["at"]


def test_states_and_versions() -> None:
    assert messages.state_line(b'{"bookmarks":{}}') == b'{"type":"STATE","value":{"bookmarks":{}}}\n'
    line = messages.activate_version_line(ActivateVersion("a", 2))
    assert line == b'{"type":"ACTIVATE_VERSION","stream":"a","version":2}\n'
