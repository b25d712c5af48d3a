"""Dead letters as messages of a Kafka topic, in both directions.

A letter has the key, value and headers of the message that was refused, and headers `streamline.…` behind them. The
data that a later stage was given stands in `streamline.data` where it differs from the value. A message that a block
made, of which no value was read, has its data for a value.

A topic is only ever added to, so what became of letters stands in it as *marks*, messages without a value:
`streamline.done` names a letter that was delivered or discarded, and `streamline.written` the offset of a message that
was delivered although there is a letter of an earlier one with its key. A mark concerns what stands before it in its
partition.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import TypeAlias, cast

import msgspec

from streamline.connectors.kafka.client import Outgoing
from streamline.flow.items import Origin
from streamline.state.store import DeadLetter, LetterForm, LetterKey

PREFIX = "streamline."
_FIRST = f"{PREFIX}pipeline"

FIRST_ID = 1 << 47
"""Ids of letters in topics begin here; those of the state database are counted from 1."""


class DoneMark(msgspec.Struct, frozen=True):
    """A letter was delivered or discarded."""

    id: int


class WrittenMark(msgspec.Struct, frozen=True):
    """A later message of a key with letters was delivered."""

    key: LetterKey


Entry: TypeAlias = DeadLetter | DoneMark | WrittenMark


def letter_id(letter: DeadLetter) -> int:
    """Return the id of a letter in a topic: that of the refused message and of the place where it was refused."""
    message = letter.message_identity() if letter.topic is not None else letter.record
    refused = (letter.pipeline, letter.block, letter.stream, letter.stage, letter.destination, letter.output)
    digest = hashlib.sha256(repr((refused, message, letter.copy)).encode("utf-8", "backslashreplace")).digest()
    return FIRST_ID + int.from_bytes(digest[:8], "big") % FIRST_ID


def letter_message(letter: DeadLetter, topic: str) -> Outgoing:
    """Return the message that keeps a letter in a topic."""
    read = letter.topic is not None or letter.value is not None or letter.form == "value"
    fields: dict[str, str | None] = {
        "source": letter.block,
        "stream": letter.stream,
        "topic": letter.topic,
        "partition": _number(letter.partition),
        "offset": _number(letter.offset),
        "time": _number(letter.message_time),
        "stage": letter.stage,
        "destination": letter.destination,
        "output": "true" if letter.output else None,
        "error": letter.error,
        "traceback": letter.trace,
        "run": letter.run_id,
        "copy": letter.copy or None,
        "form": letter.form,
        "data": letter.record if read and letter.form != "value" else None,
    }
    value = letter.value
    if not read:
        value = b64decode(letter.record) if letter.form == "base64" else letter.record.encode("utf-8", "surrogatepass")
    return _message(topic, letter.pipeline, letter.key, fields, value=value, headers=letter.headers or [])


def done_message(letter: DeadLetter, topic: str, partition: int) -> Outgoing:
    """Return the mark of a letter that was delivered or discarded."""
    return _message(topic, letter.pipeline, letter.key, {"done": str(letter.id)}, partition=partition)


def written_message(pipeline: str, key: LetterKey, topic: str) -> Outgoing:
    """Return the mark of a key of which a later message was delivered."""
    fields = {
        "source": key.block,
        "topic": key.topic,
        "partition": str(key.partition),
        "written": _number(key.written),
    }
    return _message(topic, pipeline, key.key, fields)


def read_entry(message: Origin, pipeline: str) -> Entry | None:
    """Return what a message of a dead-letter topic says; None if it is not one of the pipeline's."""
    headers = message.headers or []
    # A letter of a message that was itself read from such a topic has two sets; the last is its own.
    first = next((index for index in reversed(range(len(headers))) if headers[index][0] == _FIRST), None)
    if first is None:
        return None
    fields = {name.removeprefix(PREFIX): (value or b"").decode("utf-8", "replace") for name, value in headers[first:]}
    if fields["pipeline"] != pipeline:
        return None
    try:
        if "done" in fields:
            return DoneMark(int(fields["done"]))
        if "written" in fields:
            return WrittenMark(
                LetterKey(
                    block=fields["source"],
                    topic=fields["topic"],
                    partition=int(fields["partition"]),
                    key=message.key or b"",
                    written=int(fields["written"]),
                )
            )
        return _letter(message, fields, headers[:first])
    except (KeyError, ValueError):
        return None


def _letter(message: Origin, fields: dict[str, str], headers: list[tuple[str, bytes | None]]) -> DeadLetter:
    topic, form = fields.get("topic"), cast(LetterForm, fields.get("form", "value"))
    record, value = fields.get("data", ""), message.value
    if form != "value" and "data" not in fields:
        data, value = value or b"", None
        record = b64encode(data).decode() if form == "base64" else data.decode("utf-8", "surrogatepass")
    letter = DeadLetter(
        pipeline=fields["pipeline"],
        block=fields["source"],
        stream=fields["stream"],
        run_id=fields.get("run", ""),
        record=record,
        error=fields["error"],
        stage=fields["stage"],
        destination=fields.get("destination"),
        output="output" in fields,
        time=_moment(message.time),
        copy=fields.get("copy", ""),
        form=form,
        topic=topic,
        partition=_integer(fields.get("partition")),
        offset=_integer(fields.get("offset")),
        key=message.key,
        value=value,
        headers=headers or None,
        message_time=_integer(fields.get("time")),
        trace=fields.get("traceback"),
    )
    letter.id = letter_id(letter)
    return letter


def _message(
    topic: str,
    pipeline: str,
    key: bytes | None,
    fields: dict[str, str | None],
    *,
    value: bytes | None = None,
    headers: list[tuple[str, bytes | None]] | None = None,
    partition: int | None = None,
) -> Outgoing:
    own = {_FIRST: pipeline, **{f"{PREFIX}{name}": text for name, text in fields.items() if text is not None}}
    encoded = [(name, text.encode("utf-8", "backslashreplace")) for name, text in own.items()]
    return Outgoing(topic, key, value, headers=[*(headers or []), *encoded], partition=partition)


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)


def _moment(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
