"""Decodes the values of messages, and puts metadata beside them where transformers ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import anyio.to_thread
import msgspec

from streamline.flow.bisection import bisect
from streamline.flow.items import BadRecord, Item, MessageBatch, Origin
from streamline.flow.protocols import Decoder, ImmediateStage


class DecodeStage(ImmediateStage):
    """Decodes messages. One that cannot be decoded leaves the flow; the others go on in their order.

    It works in a thread: a decoder may have to ask a schema registry.

    Args:
        decoder: of the values; None: they come decoded.
        include_metadata: give `{data, metadata}` (see `metadata_of`) of messages that have an origin.
        key_decoder: of the keys in the metadata; None: they are text, or bytes where they are not UTF-8.
    """

    def __init__(
        self, decoder: Decoder | None, *, include_metadata: bool = False, key_decoder: Decoder | None = None
    ) -> None:
        self._decoder = decoder
        self._key_decoder = key_decoder
        self._include_metadata = include_metadata

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`.

        Raises:
            StreamlineError: nothing can be decoded now.
        """
        if not isinstance(item, MessageBatch) or not item.data:
            return [item]
        return await anyio.to_thread.run_sync(self._process, item, abandon_on_cancel=True)

    def _process(self, batch: MessageBatch) -> list[Item]:
        origins = _origins(batch)
        whole = range(len(batch.data))
        data: list[Any] = []
        bad: list[int] = []
        items: list[Item] = []

        def run(part: Sequence[int]) -> ValueError | None:
            start, stop = part[0], part[-1] + 1
            try:
                data.extend(self._decoded(batch, origins[start:stop], start, stop))
            except ValueError as error:
                return error
            return None

        def refuse(number: int, error: ValueError) -> None:
            bad.append(number)
            origin = batch.origins[number] if batch.origins is not None else None
            text = str(error) or type(error).__name__
            record = batch.data[number] or b""
            items.append(BadRecord(batch.stream, record, text, "decode", sink=batch.sink, origin=origin, form="bytes"))

        error = run(whole)
        if error is not None:
            bisect(whole, error, run, refuse)
        kept = batch.origins
        if kept is not None and bad:
            without = set(bad)
            kept = [origin for number, origin in enumerate(kept) if number not in without]
        return [msgspec.structs.replace(batch, data=data, origins=kept), *items] if data else items

    def _decoded(self, batch: MessageBatch, origins: Sequence[Origin], start: int, stop: int) -> list[Any]:
        values = batch.data[start:stop]
        data = self._decoder.decode_batch(values, origins) if self._decoder is not None else values
        if not self._include_metadata or batch.origins is None:
            return data
        keys: Sequence[Any] | None = None
        if self._key_decoder is not None:
            keys = self._key_decoder.decode_batch([origin.key for origin in origins], origins)
        return _with_metadata(data, batch.origins[start:stop], keys)


def metadata_of(origin: Origin) -> dict[str, Any]:
    """Return what transformers and sinks are told about a message.

    Returns:
        `topic`, `partition`, `offset`: where it was read, of one from a repartition topic where it was read first;
        `key`: a string, bytes if it is not UTF-8, or None; `time`: milliseconds since 1970 in UTC, or None; `headers`:
        a list of (name, bytes).
    """
    place = origin.first or origin
    return {
        "key": _text(origin.key),
        "partition": place.partition,
        "offset": place.offset,
        "time": origin.time,
        "topic": place.topic,
        "headers": list(origin.headers or ()),
    }


def _with_metadata(data: list[Any], origins: list[Origin | None], keys: Sequence[Any] | None) -> list[Any]:
    wrapped: list[Any] = []
    for number, (value, origin) in enumerate(zip(data, origins, strict=True)):
        if origin is None:
            wrapped.append(value)
            continue
        metadata = metadata_of(origin)
        if keys is not None:
            metadata["key"] = keys[number]
        wrapped.append({"data": value, "metadata": metadata})
    return wrapped


def _text(key: bytes | None) -> str | bytes | None:
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key


def _origins(batch: MessageBatch) -> list[Origin]:
    """Return origins for a decoder; it names a message without one by its stream."""
    origins = batch.origins if batch.origins is not None else [None] * len(batch.data)
    if all(origins):
        return cast(list[Origin], origins)
    return [
        origin if origin is not None else Origin(batch.stream, -1, -1, None, value)
        for origin, value in zip(origins, batch.data, strict=True)
    ]
