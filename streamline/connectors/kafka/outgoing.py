"""Makes messages to produce of what a flow carries: value, key, headers, time and topic of each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, TypeGuard

import msgspec

from streamline.connectors.kafka.client import Outgoing
from streamline.connectors.kafka.settings import KafkaSinkSettings
from streamline.connectors.stream_connector import Serializer
from streamline.flow.items import MessageBatch, Origin

Headers = list[tuple[str, bytes | None]]


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A destination block.

    Args:
        block: its uuid.
        values: of messages.
        keys: of keys that metadata gives; None: they are text or bytes.
    """

    block: str
    settings: KafkaSinkSettings
    values: Serializer
    keys: Serializer | None = None


class OutgoingMaker:
    """Makes the messages of one destination block.

    Data of the form `{data, metadata}` brings key, headers, time and `dest_topic` with it. Any other message keeps
    those of its origin; without an origin it has none.
    """

    def __init__(self, destination: Destination) -> None:
        self._settings = destination.settings
        self._values = destination.values
        self._keys = destination.keys
        self._topics: dict[str, str] = {}

    def topic_of(self, stream: str) -> str:
        """Return the topic of a stream's messages, unless their metadata names another."""
        topic = self._topics.get(stream)
        if topic is None:
            topic = self._topics[stream] = self._settings.topic_of(stream)
        return topic

    def make(self, batch: MessageBatch) -> list[Outgoing]:
        """Return the messages of a batch, in their order.

        Raises:
            ValueError: one of them cannot be made, it is not said which.
            StreamlineError: see `Serializer`.
        """
        data, origins, stream = batch.data, batch.origins, batch.stream
        if [each for each in data if type(each) is dict and len(each) == 2 and "metadata" in each]:
            return self._with_metadata(data, origins, stream)
        topic = self.topic_of(stream)
        values = self._values.encode_batch(data, topic, stream, origins)
        if origins is None:
            return [Outgoing(topic, None, value) for value in values]
        if self._keys is not None:
            keys = self._keys.encode_batch([origin and origin.key for origin in origins], topic, stream, origins)
            messages = [
                Outgoing(topic, key, value, origin.headers, origin.time) if origin else Outgoing(topic, key, value)
                for key, value, origin in zip(keys, values, origins, strict=True)
            ]
        else:
            messages = [
                Outgoing(topic, origin.key, value, origin.headers, origin.time)
                if origin is not None
                else Outgoing(topic, None, value)
                for value, origin in zip(values, origins, strict=True)
            ]
        if origins and origins[0] is not None and origins[0].offset < 0:
            for message, origin in zip(messages, origins, strict=True):
                message.partition = _partition(origin) if origin is not None else None
        return messages

    def make_one(self, data: Any, origin: Origin | None, stream: str) -> Outgoing:
        """Return one message.

        Raises:
            ValueError: it cannot be made.
            StreamlineError: see `Serializer`.
        """
        message = self._head(data, origin, stream)
        message.value = self._values.encode(_body(data), message.topic, stream, origin)
        return message

    def _with_metadata(
        self, data: Sequence[Any], origins: Sequence[Origin | None] | None, stream: str
    ) -> list[Outgoing]:
        each_origin = origins if origins is not None else [None] * len(data)
        messages = [self._head(each, origin, stream) for each, origin in zip(data, each_origin, strict=True)]
        topics = {message.topic for message in messages}
        if len(topics) == 1:
            values = self._values.encode_batch([_body(each) for each in data], topics.pop(), stream, origins)
        else:
            values = [
                self._values.encode(_body(each), message.topic, stream, origin)
                for each, message, origin in zip(data, messages, each_origin, strict=True)
            ]
        for message, value in zip(messages, values, strict=True):
            message.value = value
        return messages

    def _head(self, data: Any, origin: Origin | None, stream: str) -> Outgoing:
        """Return the message without its value."""
        topic = self.topic_of(stream)
        if not _has_metadata(data):
            if origin is None:
                return Outgoing(topic, None, None)
            key = self._key(origin.key, topic, stream, origin)
            return Outgoing(topic, key, None, origin.headers, origin.time, _partition(origin))
        metadata: dict[str, Any] = data["metadata"]
        chosen = metadata.get("dest_topic")
        if chosen is not None:
            if not isinstance(chosen, str) or not chosen:
                raise ValueError(f"metadata.dest_topic must be the name of a topic, not {chosen!r}")
            topic = chosen
        return Outgoing(
            topic,
            self._key(metadata.get("key"), topic, stream, origin),
            None,
            _headers(metadata.get("headers")),
            _time(metadata.get("time")),
        )

    def _key(self, key: Any, topic: str, stream: str, origin: Origin | None) -> bytes | None:
        if self._keys is not None:
            # Bytes, too: their schema has to be known where they are written.
            return self._keys.encode(key, topic, stream, origin)
        if key is None or isinstance(key, bytes):
            return key
        if isinstance(key, str):
            return key.encode()
        raise ValueError(f"metadata.key must be text or bytes, not {type(key).__name__}")


def _partition(origin: Origin) -> int | None:
    """Return the partition that a message which was read from no topic has to go to; None: by its key."""
    return origin.partition if origin.offset < 0 <= origin.partition else None


def _has_metadata(data: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(data, dict) and len(data) == 2 and "data" in data and isinstance(data.get("metadata"), dict)


def _body(data: Any) -> Any:
    return data["data"] if _has_metadata(data) else data


def _headers(headers: Any) -> Headers | None:
    if headers is None:
        return None
    if isinstance(headers, dict):
        headers = list(headers.items())
    if isinstance(headers, list | tuple):
        return [_header(each) for each in headers]
    raise ValueError(f"metadata.headers must be a list of (name, bytes), not {type(headers).__name__}")


def _header(header: Any) -> tuple[str, bytes | None]:
    if isinstance(header, list | tuple) and len(header) == 2:
        name, value = header
        if isinstance(name, str) and (value is None or isinstance(value, bytes)):
            return name, value
        if isinstance(name, str) and isinstance(value, str):
            return name, value.encode()
    raise ValueError(f"a header in metadata.headers must be (name, bytes), not {header!r}")


def _time(time: Any) -> int | None:
    """Return milliseconds since 1970 in UTC."""
    if time is None:
        return None
    if isinstance(time, dt.datetime):
        if time.tzinfo is None:
            raise ValueError("metadata.time is a datetime without a time zone")
        time = (time - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)
    if isinstance(time, bool) or not isinstance(time, int | float) or time != time:
        raise ValueError(f"metadata.time must be milliseconds since 1970, or a datetime, not {time!r}")
    if not 0 <= time < 1 << 63:
        raise ValueError(f"metadata.time is {time}: Kafka has no time before 1970")
    return int(time)
