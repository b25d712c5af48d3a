"""Gives messages another key, for a topic between two halves of a pipeline, and takes them from there.

In that topic a value is the message's data (`codecs/message_data.py`), whatever format it was read in. Headers say
where the message was read first; behind the topic they are taken off again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from streamline.flow.codecs.message_data import dump_data, load_data
from streamline.flow.items import BadRecord, FirstPlace, Item, MessageBatch, Origin
from streamline.flow.protocols import ImmediateStage

PLACE_HEADER = "streamline.first"
"""Its value is `TOPIC/PARTITION/OFFSET`."""

KEY_HEADER = "streamline.first.key"
"""The key that the message had there, if it had one."""

Headers = list[tuple[str, bytes | None]]


class RekeyStage(ImmediateStage):
    """Makes the messages for the repartition topic: `{data, metadata}`, as sinks of Kafka take them. One without the
    key leaves the flow.

    Args:
        sink: id of the sink for the topic.
        field: of the message's data, which has the key.
    """

    def __init__(self, sink: str, field: str) -> None:
        self._sink = sink
        self._field = field

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if not isinstance(item, MessageBatch):
            return [item]
        data: list[Any] = []
        kept: list[int] = []
        refused: list[Item] = []
        for number, message in enumerate(item.data):
            origin = item.origins[number] if item.origins is not None else None
            try:
                data.append(self._rekeyed(message, origin))
                kept.append(number)
            except ValueError as error:
                refused.append(self._refused(item, number, str(error)))
        if not data:
            return refused
        batch = item if len(kept) == item.count else item.only(kept)
        return [msgspec.structs.replace(batch, data=data), *refused]

    def _rekeyed(self, message: Any, origin: Origin | None) -> Any:
        body, headers, time = message, None, None
        metadata = message.get("metadata") if isinstance(message, dict) and len(message) == 2 else None
        if isinstance(metadata, dict) and "data" in message:
            body = message["data"]
            headers, time = metadata.get("headers"), metadata.get("time")
            if isinstance(body, bytes) and PLACE_HEADER in dict(headers or ()):
                return message  # made before, and sent again
        elif origin is not None:
            headers, time = origin.headers, origin.time
        if not isinstance(body, dict) or body.get(self._field) is None:
            what = "no value" if body is None else f"no field {self._field!r}"
            raise ValueError(f"the message has {what}: repartition_by takes its key from the field {self._field!r}")
        key = body[self._field]
        value, form = dump_data(body)
        if form != "json" or isinstance(key, dict | list):
            what = f"the key {self._field}" if form == "json" else "the data"
            raise ValueError(f"{what} is of a type that the repartition topic cannot take")
        all_headers = list(headers.items() if isinstance(headers, dict) else headers or ())
        return {
            "data": value,
            "metadata": {
                "key": key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogateescape"),
                "headers": [*all_headers, *first_headers(_first_of(origin))],
                "time": time,
            },
        }

    def _refused(self, batch: MessageBatch, number: int, error: str) -> BadRecord:
        origin, inferred = batch.made_of(number)
        record, form = dump_data(batch.data[number])
        return BadRecord(
            batch.stream, record, error, self._sink, sink=self._sink, origin=origin, form=form, inferred=inferred
        )


class FirstPlaceStage(ImmediateStage):
    """Takes the headers off that say where messages were read first."""

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if not isinstance(item, MessageBatch) or item.origins is None:
            return [item]
        origins = [origin and without_first_headers(origin) for origin in item.origins]
        return [msgspec.structs.replace(item, origins=origins)]


class RekeyedDecoder:
    """Reads values of the repartition topic: a `flow.protocols.Decoder`."""

    def decode(self, value: bytes, origin: Origin) -> Any:
        """See `Decoder.decode`."""
        return load_data(value, "json")

    def decode_batch(self, values: Sequence[bytes | None], origins: Sequence[Origin]) -> list[Any]:
        """See `Decoder.decode_batch`."""
        return [None if value is None else load_data(value, "json") for value in values]


def first_headers(first: FirstPlace | None) -> Headers:
    """Return the headers that say where a message was read first."""
    if first is None:
        return []
    headers: Headers = [(PLACE_HEADER, f"{first.topic}/{first.partition}/{first.offset}".encode())]
    if first.key is not None:
        headers.append((KEY_HEADER, first.key))
    return headers


def without_first_headers(origin: Origin) -> Origin:
    """Return the origin of a message without these headers; `first` then says what they said."""
    if origin.headers is None:
        return origin
    found = dict(origin.headers)
    place = found.get(PLACE_HEADER)
    parts = place.decode("utf-8", "replace").rsplit("/", 2) if place is not None else []
    if len(parts) != 3 or not parts[1].isdecimal() or not parts[2].isdecimal():
        return origin
    return msgspec.structs.replace(
        origin,
        first=FirstPlace(parts[0], int(parts[1]), int(parts[2]), found.get(KEY_HEADER)),
        headers=[each for each in origin.headers if each[0] not in (PLACE_HEADER, KEY_HEADER)] or None,
    )


def _first_of(origin: Origin | None) -> FirstPlace | None:
    if origin is None or origin.first is not None or origin.offset < 0:
        return origin.first if origin is not None else None
    return FirstPlace(origin.topic, origin.partition, origin.offset, origin.key)
