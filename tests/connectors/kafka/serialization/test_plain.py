"""Bytes and text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.connectors.kafka.serialization.base import UndecodableError, UnwritableError
from streamline.connectors.kafka.serialization.plain import BytesDecoder, BytesSerializer, TextDecoder, TextSerializer
from streamline.flow.items import Origin

ORIGIN = Origin("orders", 0, 0, None, None)


@given(st.lists(st.none() | st.binary()))
def test_bytes_are_given_and_written_as_they_are(values: list[bytes | None]) -> None:
    data = BytesDecoder().decode_batch(values, [ORIGIN] * len(values))
    assert data == values
    assert BytesSerializer().encode_batch(data, "t", "s") == values


@given(st.lists(st.none() | st.text(st.characters(codec="utf-8"))))
def test_text_is_utf_8(texts: list[str | None]) -> None:
    values = TextSerializer().encode_batch(texts, "t", "s")
    assert TextDecoder().decode_batch(values, [ORIGIN] * len(values)) == texts


def test_bytes_that_are_no_text_are_undecodable() -> None:
    with pytest.raises(UndecodableError):
        TextDecoder().decode(b"\xff", ORIGIN)


@pytest.mark.parametrize("data", [{"a": 1}, 5, ["x"], "\ud800"])
def test_other_data_is_refused(data: Any) -> None:
    for serializer in (TextSerializer(), BytesSerializer()):
        with pytest.raises(UnwritableError):
            serializer.encode(data, "t", "s")


def test_what_else_holds_bytes_is_written_as_bytes() -> None:
    assert BytesSerializer().encode_batch([bytearray(b"a"), memoryview(b"b"), "c"], "t", "s") == [b"a", b"b", b"c"]
