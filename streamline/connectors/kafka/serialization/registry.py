"""A schema registry: the REST interface of Confluent's, which Karapace, Apicurio and Redpanda speak, too.

What may pass (no answer, 5xx, 429) is tried again here for a while, and is then a `RegistryUnavailable`: the caller
tries later. It is never the fault of a message.
"""

from __future__ import annotations

import base64
import functools
import http.client
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from email.message import Message
from typing import Any
from urllib.parse import quote

import msgspec

from streamline.connectors.kafka.serde_settings import RegistrySettings
from streamline.connectors.kafka.serialization.base import UndecodableError
from streamline.errors import ConfigError, StreamlineError

TIMEOUT = 10.0
RETRY_SECONDS = 30.0
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_TRANSIENT = (408, 425, 429)
_FORGET_MISSING = 60.0
_MOST_MISSING = 10_000
_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"


class Reference(msgspec.Struct, frozen=True):
    """A schema that another one uses, under a name of its own."""

    name: str
    subject: str
    version: int


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """A schema as the registry keeps it."""

    text: str = msgspec.field(name="schema")
    type: str = msgspec.field(name="schemaType", default="AVRO")
    references: tuple[Reference, ...] = ()


class NoSuchSchema(UndecodableError):
    """The registry has no such schema."""


class RegistryUnavailable(StreamlineError):
    """The registry does not answer, or says that it cannot now."""

    code = "registry.unavailable"
    transient = True


class RegistryRefusal(ConfigError):
    """The registry, or a schema, has to be changed before the pipeline can go on: another attempt does not help."""

    exit_code = 1


class _Refused(Exception):
    """An answer that says no: status, the registry's error code, and its message."""

    def __init__(self, status: int, number: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.number = number
        self.message = message


class SchemaRegistry:
    """A client that remembers what cannot change. Any thread may call it.

    Raises:
        RegistryUnavailable: from every method: see there.
        RegistryRefusal: from every method: it denies access, or answers with something else.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        retry_seconds: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._urls = list(settings.urls)
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._schemas: dict[int, Schema] = {}
        self._missing: dict[int, float] = {}
        self._ids: dict[tuple[str, Schema, bool], int] = {}
        self._headers = {"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE}
        if settings.token is not None:
            self._headers["Authorization"] = f"Bearer {settings.token}"
        elif settings.username is not None:
            pair = f"{settings.username}:{settings.password or ''}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        context = ssl.create_default_context(cafile=settings.cafile) if self._urls[0].startswith("https") else None
        handlers = [urllib.request.HTTPSHandler(context=context)] if context is not None else []
        self._open = urllib.request.build_opener(*handlers).open

    def schema(self, number: int) -> Schema:
        """Return the schema with an id.

        Raises:
            NoSuchSchema: there is none.
        """
        with self._lock:
            schema = self._schemas.get(number)
            if schema is not None:
                return schema
            if self._missing.get(number, 0.0) > self._clock():
                raise NoSuchSchema(f"the registry has no schema {number}")
            try:
                schema = msgspec.convert(self._ask("GET", f"/schemas/ids/{number}"), Schema)
            except _Refused as refused:
                if refused.status != 404:
                    raise self._failure(refused, f"schema {number}") from None
                if len(self._missing) >= _MOST_MISSING:
                    self._missing.clear()
                self._missing[number] = self._clock() + _FORGET_MISSING
                raise NoSuchSchema(f"the registry has no schema {number}") from None
            self._schemas[number] = schema
            return schema

    def version(self, subject: str, version: int) -> Schema:
        """Return a version of a subject.

        Raises:
            RegistryRefusal: there is none.
        """
        try:
            return self._version(subject, str(version))[1]
        except _Refused as refused:
            raise self._failure(refused, f"subject {subject!r}, version {version}") from None

    def latest(self, subject: str) -> tuple[int, Schema] | None:
        """Return the id and schema of a subject's newest version; None if it has none."""
        try:
            return self._version(subject, "latest")
        except _Refused as refused:
            if refused.status == 404:
                return None
            raise self._failure(refused, f"subject {subject!r}") from None

    def register(self, subject: str, schema: Schema, *, new: bool = True) -> int:
        """Return the id of a schema in a subject.

        Args:
            new: it is added if the subject does not have it.

        Raises:
            RegistryRefusal: the subject does not have it and `new` is false; it is not compatible with the versions
                that the subject has; or it is not valid.
        """
        key = (subject, schema, new)
        with self._lock:
            number = self._ids.get(key)
            if number is not None:
                return number
            number = self._ids[key] = self._register(subject, schema, new)
            self._schemas.setdefault(number, schema)
            return number

    def _register(self, subject: str, schema: Schema, new: bool) -> int:
        body = msgspec.to_builtins(schema)
        place = f"/subjects/{quote(subject, safe='')}"
        try:
            answer = self._ask("POST", place + "/versions" if new else place, body)
        except _Refused as refused:
            if refused.status == 409:
                raise self._conflict(subject, place, body, refused) from None
            if refused.status == 404 and not new:
                raise RegistryRefusal(
                    f"the subject {subject!r} does not have this schema ({refused.message})",
                    where=self._urls[0],
                    hint="register it, or set `register_schemas: true`",
                    code="registry.schema_missing",
                ) from None
            raise self._failure(refused, f"subject {subject!r}") from None
        number: int = msgspec.convert(answer["id"], int)
        return number

    def version_of(self, subject: str, schema: Schema) -> int:
        """Return the number of a subject's version that is this schema.

        Raises:
            RegistryRefusal: it has none.
        """
        try:
            answer = self._ask("POST", f"/subjects/{quote(subject, safe='')}", msgspec.to_builtins(schema))
        except _Refused as refused:
            raise self._failure(refused, f"subject {subject!r}") from None
        version: int = msgspec.convert(answer["version"], int)
        return version

    def subjects(self) -> list[str]:
        """Return the names of all subjects."""
        try:
            return msgspec.convert(self._ask("GET", "/subjects"), list[str])
        except _Refused as refused:
            raise self._failure(refused, "subjects") from None

    def _version(self, subject: str, version: str) -> tuple[int, Schema]:
        answer = self._ask("GET", f"/subjects/{quote(subject, safe='')}/versions/{version}")
        return msgspec.convert(answer["id"], int), msgspec.convert(answer, Schema)

    def _conflict(self, subject: str, place: str, body: Any, refused: _Refused) -> RegistryRefusal:
        """Return the error of a schema that is not compatible: with which version, and why."""
        reasons: Sequence[str] = ()
        version = "an earlier version"
        try:
            newest = self._ask("GET", f"{place}/versions/latest")
            version = f"version {newest['version']}"
            check = f"/compatibility{place}/versions/latest?verbose=true"
            reasons = self._ask("POST", check, body).get("messages") or ()
        except (_Refused, RegistryUnavailable, KeyError):
            pass  # what the registry has said is all there is
        why = "; ".join(map(str, reasons)) or refused.message
        return RegistryRefusal(
            f"the schema is not compatible with {version} of the subject {subject!r}: {why}",
            where=self._urls[0],
            hint="change the schema, or the subject's compatibility level in the registry",
            code="registry.incompatible",
        )

    def _failure(self, refused: _Refused, what: str) -> RegistryRefusal:
        hints = {401: "username and password", 403: "username and password, and their rights", 422: "schema"}
        return RegistryRefusal(
            f"the schema registry refused the request for {what}: {refused.message} (status {refused.status})",
            where=self._urls[0],
            hint=f"check the {hints.get(refused.status, 'address')}",
            code="registry.denied"
            if refused.status in (401, 403)
            else "registry.schema_invalid"
            if refused.status == 422
            else "registry.request_failed",
        )

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else msgspec.json.encode(body)
        end = self._clock() + self._retry_seconds
        pause = _FIRST_PAUSE
        while True:
            reason, wait = "", pause
            for url in list(self._urls):
                try:
                    request = urllib.request.Request(url + path, data, self._headers, method=method)
                    with self._open(request, timeout=TIMEOUT) as answer:
                        return msgspec.json.decode(answer.read())
                except urllib.error.HTTPError as error:
                    refused = _refused(error)
                    if error.code < 500 and error.code not in _TRANSIENT:
                        raise refused from None
                    reason = f"{refused.message} (status {error.code})"
                    wait = max(pause, _retry_after(error.headers))
                except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
                    if isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError):
                        raise RegistryRefusal(
                            f"the schema registry's certificate cannot be verified: {error}",
                            where=url,
                            hint="name the authority's certificate: `schema_registry_cafile`",
                            code="registry.certificate_invalid",
                        ) from None
                    reason = str(getattr(error, "reason", None) or error) or type(error).__name__
                # The next one is asked first from now on.
                self._urls.append(self._urls.pop(self._urls.index(url)))
            if self._clock() + wait > end:
                raise RegistryUnavailable(
                    f"the schema registry does not answer: {reason}",
                    where=self._urls[0],
                    hint="check `schema_registry_url` and that the registry runs; it is tried again",
                    code="registry.unavailable",
                )
            self._sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _refused(error: urllib.error.HTTPError) -> _Refused:
    text = error.read()
    try:
        answer = msgspec.json.decode(text)
    except msgspec.DecodeError:
        answer = {}
    if not isinstance(answer, Mapping):
        answer = {}
    number, message = answer.get("error_code", 0), answer.get("message") or error.reason
    return _Refused(error.code, number if isinstance(number, int) else 0, str(message))


def _retry_after(headers: Message) -> float:
    value = headers.get("Retry-After") or ""
    return min(float(value), RETRY_SECONDS) if value.isdecimal() else 0.0


@functools.cache
def open_registry(settings: RegistrySettings) -> SchemaRegistry:
    """Return the client for a registry; its sources and sinks share it."""
    return SchemaRegistry(settings)
