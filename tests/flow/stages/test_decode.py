"""Messages are decoded; what cannot be is refused with its origin; metadata stands beside the data where asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from streamline.errors import StreamlineError
from streamline.flow.items import BadRecord, Item, MessageBatch, Origin, Position
from streamline.flow.stages.decode import DecodeStage


class Json:
    """Decodes JSON, and counts the values that it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def decode(self, value: bytes, origin: Origin) -> Any:
        self.asked += 1
        return json.loads(value)

    def decode_batch(self, values: Sequence[bytes | None], origins: Sequence[Origin]) -> list[Any]:
        return [
            None if value is None else self.decode(value, origin) for value, origin in zip(values, origins, strict=True)
        ]


class Registry(Json):
    """A registry that does not answer."""

    def decode(self, value: bytes, origin: Origin) -> Any:
        raise StreamlineError("the registry does not answer")


def batch(*values: bytes | None, **rest: Any) -> MessageBatch:
    return MessageBatch(
        "t", list(values), [Origin("t", 0, n, b"k%d" % n, value, **rest) for n, value in enumerate(values)]
    )


def process(stage: DecodeStage, item: Item) -> list[Item]:
    return list(anyio.run(stage.process, item))


def test_values_are_decoded_and_origins_stay() -> None:
    given = batch(b'{"id": 1}', None, b"123456789012345678901234567890")
    (out,) = process(DecodeStage(Json()), given)
    assert out == MessageBatch("t", [{"id": 1}, None, 123456789012345678901234567890], given.origins)


def test_a_value_that_cannot_be_decoded_is_refused_and_the_others_go_on() -> None:
    values = [b"%d" % n for n in range(100)]
    values[7], values[93] = b"{", b"\xff"
    decoder = Json()
    good, *bad = process(DecodeStage(decoder), batch(*values))
    assert isinstance(good, MessageBatch)
    assert good.data == [n for n in range(100) if n not in (7, 93)]
    assert [origin.offset for origin in good.origins or () if origin is not None] == good.data
    assert [
        (each.origin.offset, each.record, each.stage) for each in bad if isinstance(each, BadRecord) and each.origin
    ] == [
        (7, b"{", "decode"),
        (93, b"\xff", "decode"),
    ]
    assert decoder.asked < 1_000


def test_a_batch_of_nothing_good_becomes_refusals_only() -> None:
    out = process(DecodeStage(Json()), batch(b"{", b"["))
    assert [type(item) for item in out] == [BadRecord, BadRecord]


def test_metadata_is_given_as_it_was_read() -> None:
    given = MessageBatch(
        "t",
        [b"1", b"2", b"3", b"4"],
        [
            Origin("t", 2, 5, b"k", b"1", [("h", b"v"), ("n", None)], 1_700_000_000_000),
            Origin("t", 2, 6, None, b"2"),
            Origin("t", 2, 7, b"\xff", b"3"),
            None,
        ],
    )
    (out,) = process(DecodeStage(Json(), include_metadata=True), given)
    assert isinstance(out, MessageBatch)
    assert out.data[0] == {
        "data": 1,
        "metadata": {
            "key": "k",
            "partition": 2,
            "offset": 5,
            "time": 1_700_000_000_000,
            "topic": "t",
            "headers": [("h", b"v"), ("n", None)],
        },
    }
    assert [out.data[1]["metadata"]["key"], out.data[2]["metadata"]["key"]] == [None, b"\xff"]
    assert out.data[1]["metadata"]["headers"] == []
    assert out.data[3] == 4


def test_keys_have_a_decoder_of_their_own() -> None:
    given = MessageBatch("t", [b"1"], [Origin("t", 0, 0, b'{"id": 5}', b"1")])
    (out,) = process(DecodeStage(Json(), include_metadata=True, key_decoder=Json()), given)
    assert isinstance(out, MessageBatch)
    assert out.data[0]["metadata"]["key"] == {"id": 5}


def test_what_is_no_message_passes() -> None:
    position = Position("s", 1, {})
    assert process(DecodeStage(Json()), position) == [position]


def test_a_registry_that_does_not_answer_refuses_nothing() -> None:
    with pytest.raises(StreamlineError):
        process(DecodeStage(Registry()), batch(b"1"))
