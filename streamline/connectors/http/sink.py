"""A sink that sends messages to an HTTP server. An answer of 2xx is the proof."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from streamline.connectors.http.client import Ended, HttpClient, Refused
from streamline.connectors.http.settings import HttpSettings
from streamline.connectors.kafka.serialization.json_text import encode_json
from streamline.connectors.refusals import Message, has_metadata
from streamline.connectors.stream_connector import StreamContext
from streamline.connectors.thread_sink import StreamWriter, ThreadSink
from streamline.flow.bisection import bisect
from streamline.flow.items import BadRecord, MessageBatch, Origin, Position

ROOM = 5_000
"""Messages that wait in memory."""


class HttpSink(ThreadSink):
    """Sends messages in their order, one request after the other."""

    def __init__(self, settings: HttpSettings, context: StreamContext) -> None:
        super().__init__(context.block, room=ROOM, note=context.note)
        self._settings = settings
        self._context = context
        self._client: HttpClient | None = None

    def _open(self) -> StreamWriter:
        self._client = HttpClient(
            self._settings,
            pause=self._pause,
            startup_timeout=self._context.startup_timeout,
            note=self._tell,
        )
        seed = f"{self._context.pipeline}/{self.id}"
        return HttpWriter(
            self.id, self._settings, self._client, self._refuse, self._prove, lambda: self._inbox.abandoned, seed
        )

    def _free(self) -> None:
        if self._client is not None:
            self._client.close()


class _Message(msgspec.Struct):
    """A message of a batch, and its JSON text."""

    source: str
    batch: MessageBatch
    number: int
    body: bytes
    path: str


class HttpWriter:
    """Implements `StreamWriter`.

    Args:
        refuse: called with a source's id and a message of it that was not taken.
        prove: called with numbers of positions, by source.
        abandoned: whether it is to end at once.
        seed: of idempotency keys.
    """

    def __init__(
        self,
        id: str,
        settings: HttpSettings,
        client: HttpClient,
        refuse: Callable[[str, BadRecord], None],
        prove: Callable[[dict[str, int]], None],
        abandoned: Callable[[], bool],
        seed: str,
    ) -> None:
        self._id = id
        self._settings = settings
        self._client = client
        self._refuse = refuse
        self._prove = prove
        self._abandoned = abandoned
        self._seed = seed
        self._waiting: list[_Message] = []
        self._numbers: dict[str, int] = {}

    def take(self, source: str, batch: MessageBatch) -> None:
        """See `StreamWriter.take`."""
        for number, data in enumerate(batch.data):
            if self._abandoned():
                return
            try:
                message = _Message(source, batch, number, self._body(data), self._path(data, batch, number))
            except ValueError as error:
                self._send()  # what is before it comes before it
                self._refuse_message(source, batch, number, error)
                continue
            self._waiting.append(message)
            if len(self._waiting) >= self._settings.batch_size:
                self._send()

    def reach(self, source: str, position: Position) -> None:
        """See `StreamWriter.reach`."""
        self._numbers[source] = position.number
        if not self._waiting:
            self._report()

    def patience(self) -> float | None:
        """See `StreamWriter.patience`."""
        return None

    def rest(self, *, hurry: bool) -> None:
        """See `StreamWriter.rest`."""
        self._send()
        self._report()

    def _report(self) -> None:
        if self._numbers and not self._abandoned():
            numbers, self._numbers = self._numbers, {}
            self._prove(numbers)

    def _send(self) -> None:
        messages, self._waiting = self._waiting, []
        if not messages:
            return
        error = self._try(messages)
        if error is not None:
            bisect(messages, error, self._try, self._refuse_one)

    def _try(self, messages: Sequence[_Message]) -> Refused | None:
        settings = self._settings
        if self._abandoned():
            return None
        if settings.body == "single":
            body = messages[0].body
        elif settings.body == "list":
            body = b"[" + b",".join(message.body for message in messages) + b"]"
        else:
            body = b"".join(message.body + b"\n" for message in messages)
        headers = dict(settings.headers)
        if settings.idempotency_header is not None:
            headers[settings.idempotency_header] = self._idempotency_key(messages[0])
        try:
            self._client.deliver(messages[0].path, body, headers)
        except Refused as error:
            return error
        except Ended:
            return None  # nothing is proven any more
        return None

    def _refuse_one(self, message: _Message, error: Refused) -> None:
        if not self._abandoned():
            self._refuse_message(message.source, message.batch, message.number, error)

    def _refuse_message(self, source: str, batch: MessageBatch, number: int, error: Exception) -> None:
        self._refuse(source, Message(source, batch, number).refused(str(error), self._id))

    def _body(self, data: Any) -> bytes:
        value, _ = _split(data)
        if isinstance(value, bytes) and self._settings.body == "single":
            return value
        return encode_json(value)

    def _path(self, data: Any, batch: MessageBatch, number: int) -> str:
        """Return the path with the message's values in it.

        Raises:
            ValueError: it does not have one of them.
        """
        if not self._settings.fields:
            return self._settings.path
        value, metadata = _split(data)
        origin = batch.origins[number] if batch.origins is not None else None
        values: dict[str, str] = {}
        for name in self._settings.fields:
            if name == "key":
                key = metadata.get("key", origin.key if origin is not None else None)
                content = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
            else:
                content = value.get(name) if isinstance(value, Mapping) else None
            if isinstance(content, bool) or not isinstance(content, str | int | float) or content == "":
                raise ValueError(f"the message has no {name!r} for the url")
            values[name] = quote(str(content), safe="")
        path = self._settings.path
        for name, text in values.items():
            path = path.replace(f"{{{name}}}", text)
        return path

    def _idempotency_key(self, message: _Message) -> str:
        origin = _origin_of(message)
        if origin is None:
            return uuid.uuid4().hex
        place = f"{self._seed}/{origin.topic}/{origin.partition}/{origin.offset}/".encode()
        return hashlib.sha256(place + message.body).hexdigest()[:32]


def _origin_of(message: _Message) -> Origin | None:
    """Return where the message was read, if it is known by a place there."""
    origin, _ = message.batch.made_of(message.number)
    return origin if origin is not None and origin.offset >= 0 else None


def _split(data: Any) -> tuple[Any, Mapping[str, Any]]:
    if has_metadata(data):
        return data["data"], data["metadata"]
    return data, {}
