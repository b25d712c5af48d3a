"""Takes the body of a request apart into messages."""

from __future__ import annotations

from typing import Literal
from urllib.parse import parse_qs

import msgspec

from streamline.connectors.kafka.serialization.json_text import decode_json

_LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})
_FORM = "application/x-www-form-urlencoded"
_BOM = b"\xef\xbb\xbf"


def messages_of(body: bytes, content_type: str, format: Literal["json", "text"]) -> list[bytes]:
    """Return the values of the messages in a body.

    A JSON array is several messages, and so are lines of JSON: where the content type says so, or where the body is no
    JSON value as a whole. Of a form, the field `payload` is the body, as GitHub and Slack send it.

    Raises:
        ValueError: the body is not what it should be.
    """
    body = body.removeprefix(_BOM)
    if format == "text":
        body.decode()
        return [body]
    kind = content_type.partition(";")[0].strip().lower()
    if kind in _LINES:
        return _lines(body)
    if kind == _FORM and body.startswith(b"payload="):
        body = parse_qs(body, strict_parsing=True)[b"payload"][0]
    try:
        decode_json(body)
    except ValueError:
        if len(body.strip().splitlines()) < 2:
            raise
        return _lines(body)
    if body.lstrip()[:1] != b"[":
        return [body.strip()]
    try:
        return [bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except msgspec.DecodeError as error:  # NaN, which `decode_json` takes
        raise ValueError(f"it is not JSON: {error}") from None


def _lines(body: bytes) -> list[bytes]:
    values = []
    for number, line in enumerate(body.split(b"\n"), 1):
        value = line.strip()
        if not value:
            continue
        try:
            decode_json(value)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        values.append(value)
    return values
