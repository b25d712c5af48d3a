"""Settings of the HTTP sink."""

from __future__ import annotations

import base64
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from streamline.connectors.setting_kinds import (
    Kinds,
    Settings,
    WrongValueError,
    choice,
    read_settings,
    seconds,
    secret_text,
    text,
    whole,
)
from streamline.connectors.stream_connector import Config, StreamContext, Where


def _headers(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise WrongValueError("must be a mapping of names to values")
    headers = {str(name): secret_text(content) for name, content in value.items()}
    for name, content in headers.items():
        if not name or any(sign in name + content for sign in "\r\n") or not (name + content).isascii():
            raise WrongValueError(f"has the header {name!r}, which cannot be sent: one line of ASCII text is needed")
    return headers


SINK_KINDS: Kinds = {
    "url": text,
    "method": choice("POST", "PUT", "PATCH", fold=str.upper),
    "body": choice("single", "list", "lines"),
    "batch_size": whole(1),
    "headers": _headers,
    "auth": {"bearer": secret_text, "username": secret_text, "password": secret_text},
    "timeout": seconds(0.1),
    "ca_file": text,
    "idempotency_header": text,
}


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an HTTP sink sends, and where.

    Args:
        url: without what stands behind its host.
        path: with the query; may have `{key}` and `{field}`.
        fields: names in it.
        body: one message in each request, a JSON array of some, or lines of JSON.
        timeout: seconds without an answer.
    """

    url: str
    path: str
    fields: tuple[str, ...] = ()
    method: str = "POST"
    body: Literal["single", "list", "lines"] = "single"
    batch_size: int = 1
    headers: Mapping[str, str] = {}
    timeout: float = 30.0
    ca_file: Path | None = None
    idempotency_header: str | None = None


def http_settings(config: Config, context: StreamContext, where: Where) -> HttpSettings:
    """Read and check the settings of a sink.

    Raises:
        ConfigError: one is missing or invalid, or two contradict each other.
    """
    given = read_settings(config, SINK_KINDS, where, what="an HTTP sink")
    url, path, fields = _url(given)
    body = given.get("body", "single")
    pointless = "batch_size" if body == "single" else "idempotency_header"
    if pointless in given and given[pointless] != 1:
        given.fail(f"`{pointless}` has no effect with `body: {body}`", pointless, hint="change `body`, or remove it")
    if fields and body != "single":
        given.fail(
            "a `url` with placeholders needs `body: single`", "url", hint="each message has a request of its own"
        )
    ca_file = context.root / given["ca_file"] if "ca_file" in given else None
    if ca_file is not None and not ca_file.is_file():
        given.fail(f"`ca_file` does not exist: {ca_file}", "ca_file", hint="name a file in PEM format")
    kind = "application/x-ndjson" if body == "lines" else "application/json"
    headers = {"Content-Type": kind, **_authorization(given.section("auth"), context), **given.get("headers", {})}
    return HttpSettings(
        url=url,
        path=path,
        fields=fields,
        method=given.get("method", "POST"),
        body=body,
        batch_size=1 if body == "single" else given.get("batch_size", 100),
        headers=headers,
        timeout=given.get("timeout", 30.0),
        ca_file=ca_file,
        idempotency_header=given.get("idempotency_header"),
    )


def _url(given: Settings) -> tuple[str, str, tuple[str, ...]]:
    value = given.need("url", "where messages are sent")
    try:
        parts = urlsplit(value)
        port_is_valid = parts.port != 0
        fields = tuple(name for _, name, spec, _ in string.Formatter().parse(value) if name is not None and not spec)
    except ValueError as error:
        given.fail(f"`url` is not valid: {error}", "url", hint="write https://host/path")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid or "{" in parts.netloc:
        given.fail("`url` must be http://host/path or https://host/path", "url", hint="placeholders stand in the path")
    if parts.username is not None:
        given.fail("`url` must not have a user in it", "url", hint="write `auth: {username: …, password: …}`")
    if not value.isascii() or any(sign.isspace() for sign in value) or "" in fields:
        given.fail("`url` is not valid", "url", hint="write other signs as %XX, and placeholders as {field}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return f"{parts.scheme}://{parts.netloc}", path, fields


def _authorization(auth: Settings, context: StreamContext) -> dict[str, str]:
    auth.refuse_both("bearer", "username")
    if "bearer" in auth:
        context.secret(auth["bearer"])
        return {"Authorization": f"Bearer {auth['bearer']}"}
    if "username" not in auth:
        return {}
    password = auth.get("password", "")
    if password:
        context.secret(password)
    pair = base64.b64encode(f"{auth['username']}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}
