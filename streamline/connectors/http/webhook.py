"""What an HTTP source makes of a request: an ASGI application that checks it, hands its messages over, and answers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

from streamline.connectors.http.bodies import messages_of
from streamline.connectors.http.listen_settings import ListenSettings

BODY_SECONDS = 30.0
"""A client that sends nothing for so long in the middle of a body is given up."""

RETRY_SECONDS = 1
"""What `Retry-After` says."""

_LARGE_BYTES = 1 << 18
"""Larger bodies are taken apart in another thread."""

_LEFT_OUT = frozenset(
    {
        b"accept", b"accept-encoding", b"accept-language", b"authorization", b"connection", b"content-length",
        b"cookie", b"expect", b"host", b"keep-alive", b"proxy-authorization", b"te", b"trailer", b"transfer-encoding",
        b"upgrade",
    }
)  # fmt: skip

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = list[tuple[str, bytes | None]]


class Taker(Protocol):
    """Where messages go."""

    @property
    def ending(self) -> bool:
        """Whether no more are taken."""
        ...

    def reserve(self, nbytes: int, held: int) -> bool:
        """Make room for bytes of a body that is being read, and that holds so many already; False: there is none."""
        ...

    def free(self, nbytes: int) -> None:
        """Give back room that was reserved."""
        ...

    def take(
        self, values: Sequence[bytes], path: str, headers: Headers | None, nbytes: int
    ) -> asyncio.Future[bool] | None:
        """Take messages.

        Args:
            nbytes: that are reserved for them; they are free when the messages are proven.

        Returns:
            Whether to answer with 2xx, as soon as that is known; None: they are not taken.
        """
        ...


class Answer(Exception):
    """A request is answered with this."""

    def __init__(self, status: HTTPStatus, error: str, **headers: str) -> None:
        super().__init__(error)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Webhook:
    """The application.

    Args:
        note: writes a line to the run's log, with its level.
    """

    def __init__(self, settings: ListenSettings, taker: Taker, note: Callable[[str, str], None]) -> None:
        self._settings = settings
        self._taker = taker
        self._note = note
        self._authorization = _authorization(settings)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI says."""
        if scope["type"] != "http":
            return
        content: dict[str, Any]
        extra: Mapping[str, str] = {}
        try:
            count = await self._messages(scope, receive)
            accepted = self._settings.respond == "accepted"
            status, content = HTTPStatus.ACCEPTED if accepted else HTTPStatus.OK, {"messages": count}
        except Answer as answer:
            status, content, extra = answer.status, {"error": str(answer)}, answer.headers
        except Exception as error:  # an answer is better than none, and the source goes on
            self._note(f"a request failed: {error!r}", "ERROR")
            status, content = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "internal error"}
        body = json.dumps(content).encode() + b"\n"
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **extra}
        encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": int(status), "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async def _messages(self, scope: Mapping[str, Any], receive: Receive) -> int:
        """Take the messages of a request; return how many they are.

        Raises:
            Answer: they were not taken, or are not proven.
        """
        if self._taker.ending:
            raise _unavailable("the pipeline is being stopped")
        headers = dict(scope["headers"])
        self._check(scope, headers)
        body = await self._body(receive, headers)
        reserved = len(body)
        try:
            if self._settings.secret is not None and not self._is_signed(body, headers):
                raise Answer(HTTPStatus.UNAUTHORIZED, "the signature is missing or wrong")
            values = await self._values(body, headers)
            if not values:
                return 0
            proof = self._taker.take(values, scope["path"], self._kept(scope["headers"]), len(body))
            if proof is None:
                raise _unavailable("the pipeline is being stopped")
            reserved = 0  # it passes on to the messages
        finally:
            self._taker.free(reserved)
        try:
            async with asyncio.timeout(self._settings.proof_timeout):
                proven = await proof
        except TimeoutError:
            raise _unavailable("the messages are not durable yet; sent again, they may arrive twice") from None
        if not proven:
            raise _unavailable("the pipeline has stopped before the messages were durable")
        return len(values)

    def _check(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> None:
        if scope["path"] not in self._settings.paths:
            raise Answer(HTTPStatus.NOT_FOUND, "nothing is taken at this path")
        if scope["method"] != "POST":
            raise Answer(HTTPStatus.METHOD_NOT_ALLOWED, "messages are sent with POST", Allow="POST")
        if self._authorization is not None:
            given = headers.get(b"authorization", b"")
            if not any(hmac.compare_digest(given, each) for each in self._authorization):
                scheme = "Bearer" if self._settings.bearer is not None else 'Basic realm="streamline"'
                raise Answer(HTTPStatus.UNAUTHORIZED, "access is denied", WWW_Authenticate=scheme)
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed")

    async def _body(self, receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
        """Read the body. Its room is reserved when it is returned."""
        chunks: list[bytes] = []
        length = 0
        try:
            self._check_length(int(headers.get(b"content-length", b"0")))
            more = True
            while more:
                async with asyncio.timeout(BODY_SECONDS):
                    event = await receive()
                if event["type"] != "http.request":
                    raise Answer(HTTPStatus.BAD_REQUEST, "the body is not complete")
                chunk, more = event.get("body", b""), event.get("more_body", False)
                self._check_length(length + len(chunk))
                if not self._taker.reserve(len(chunk), length):
                    raise _unavailable("there is no room for more messages now")
                length += len(chunk)
                chunks.append(chunk)
        except BaseException as error:
            self._taker.free(length)
            if isinstance(error, TimeoutError):
                raise Answer(HTTPStatus.REQUEST_TIMEOUT, "the body did not come in time") from None
            raise
        return b"".join(chunks)

    def _check_length(self, length: int) -> None:
        if length > self._settings.max_body_bytes:
            limit = self._settings.max_body_bytes
            raise Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {limit:,} bytes")

    def _is_signed(self, body: bytes, headers: Mapping[bytes, bytes]) -> bool:
        assert self._settings.secret is not None
        given = headers.get(self._settings.signature_header.encode(), b"").removeprefix(b"sha256=").lower()
        digest = hmac.new(self._settings.secret.encode(), body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(given, digest.encode())

    async def _values(self, body: bytes, headers: Mapping[bytes, bytes]) -> list[bytes]:
        kind = headers.get(b"content-type", b"").decode("latin-1")
        try:
            if len(body) < _LARGE_BYTES:
                return messages_of(body, kind, self._settings.format)
            return await asyncio.to_thread(messages_of, body, kind, self._settings.format)
        except ValueError as error:
            raise Answer(HTTPStatus.BAD_REQUEST, str(error)) from None

    def _kept(self, headers: Sequence[tuple[bytes, bytes]]) -> Headers | None:
        wanted, signature = self._settings.headers, self._settings.signature_header.encode()
        kept: Headers = [
            (name.decode("latin-1"), value)
            for name, value in headers
            if (name.decode("latin-1") in wanted if wanted is not None else name not in _LEFT_OUT | {signature})
        ]
        return kept or None


def _unavailable(error: str) -> Answer:
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, error, Retry_After=str(RETRY_SECONDS))


def _authorization(settings: ListenSettings) -> list[bytes] | None:
    """Return the values of `Authorization` that are right; None: it is not looked at."""
    if settings.bearer is not None:
        return [f"{scheme} {settings.bearer}".encode() for scheme in ("Bearer", "bearer")]
    if settings.username is not None:
        pair = base64.b64encode(f"{settings.username}:{settings.password}".encode()).decode()
        return [f"{scheme} {pair}".encode() for scheme in ("Basic", "basic")]
    return None
