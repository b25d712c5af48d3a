"""Settings of the HTTP source."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Literal

import msgspec

from streamline.connectors.setting_kinds import (
    Kinds,
    Settings,
    WrongValueError,
    choice,
    flag,
    read_settings,
    seconds,
    secret_text,
    text,
    texts,
    whole,
)
from streamline.connectors.stream_connector import Config, StreamContext, Where

SIGNATURE_HEADER = "X-Hub-Signature-256"
"""Of GitHub, and of many others after it: `sha256=` and the HMAC of the body in hexadecimal digits."""


def _port(value: Any) -> int:
    port: int = whole(0)(value)
    if port > 65_535:
        raise WrongValueError("must be a port: 65535 at most")
    return port


def _paths(value: Any) -> tuple[str, ...]:
    paths = texts(value)
    for path in paths:
        if not path.startswith("/") or any(sign in path for sign in "?#% \t"):
            raise WrongValueError(f"has '{path}': a path begins with `/`, and has no query and no % in it")
    return paths


SOURCE_KINDS: Kinds = {
    "host": text,
    "port": _port,
    "path": _paths,
    "format": choice("json", "text"),
    "respond": choice("proven", "accepted"),
    "auth": {"bearer": secret_text, "username": secret_text, "password": secret_text},
    "signature": {"secret": secret_text, "header": text},
    "headers": texts,
    "max_body_bytes": whole(1),
    "proof_timeout": seconds(0.1),
    "cert_file": text,
    "key_file": text,
    "batch_size": whole(1),
    "include_metadata": flag,
}


class ListenSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where an HTTP source listens, and what it takes.

    Args:
        paths: of requests.
        format: a body is one JSON value, an array of messages, or lines of JSON; or text.
        respond: when a request is answered with 2xx.
        bearer, username, password: what requests have to bring in `Authorization`.
        secret: of the signature that they have to bring.
        signature_header: with the signature, in lower case.
        headers: names of those that are kept, in lower case; None: all but credentials and those of the connection.
        proof_timeout: seconds after which a request is answered, though its messages are not proven.
        cert_file, key_file: in PEM format; with these it speaks https.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    paths: tuple[str, ...] = ("/",)
    format: Literal["json", "text"] = "json"
    respond: Literal["proven", "accepted"] = "proven"
    bearer: str | None = None
    username: str | None = None
    password: str = ""
    secret: str | None = None
    signature_header: str = SIGNATURE_HEADER.lower()
    headers: frozenset[str] | None = None
    max_body_bytes: int = 16 << 20
    proof_timeout: float = 60.0
    cert_file: Path | None = None
    key_file: Path | None = None
    batch_size: int = 1_000
    include_metadata: bool = False

    @property
    def open(self) -> bool:
        """Whether anybody may send."""
        return self.bearer is None and self.username is None and self.secret is None


def listen_settings(config: Config, context: StreamContext, where: Where) -> ListenSettings:
    """Read and check the settings of a source.

    Raises:
        ConfigError: one is missing or invalid, or two contradict each other.
    """
    given = read_settings(config, SOURCE_KINDS, where, what="an HTTP source")
    auth, signature = given.section("auth"), given.section("signature")
    auth.refuse_both("bearer", "username")
    if "password" in auth:
        auth.need("username")
    for each, key in ((auth, "bearer"), (auth, "password"), (signature, "secret")):
        if key in each:
            if not each[key]:
                each.fail(f"`{key}` is empty", key, hint="requests without it would be taken")
            context.secret(each[key])
    if signature:
        signature.need("secret", "the key of the signature")
    cert_file, key_file = _certificate(given, context)
    plain = ("host", "port", "format", "respond", "max_body_bytes", "proof_timeout", "batch_size", "include_metadata")
    return ListenSettings(
        **{key: given[key] for key in plain if key in given},
        paths=given.get("path", ("/",)),
        **auth,
        secret=signature.get("secret"),
        signature_header=signature.get("header", SIGNATURE_HEADER).lower(),
        headers=frozenset(map(str.lower, given["headers"])) if "headers" in given else None,
        cert_file=cert_file,
        key_file=key_file,
    )


def _certificate(given: Settings, context: StreamContext) -> tuple[Path | None, Path | None]:
    if "cert_file" not in given:
        if "key_file" in given:
            given.fail("`key_file` has no effect without `cert_file`", "key_file", hint="add `cert_file:`")
        return None, None
    cert_file = context.root / given["cert_file"]
    key_file = context.root / given["key_file"] if "key_file" in given else None
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert_file, key_file)
    except OSError as error:
        given.fail(
            f"the certificate cannot be used: {error.strerror or error}",
            "cert_file",
            hint="name files in PEM format: the certificate chain, and in `key_file` its key without a password",
        )
    return cert_file, key_file
