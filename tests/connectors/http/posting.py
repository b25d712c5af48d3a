"""Requests to an HTTP source, without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streamline.connectors.http.listen_settings import ListenSettings
from streamline.connectors.http.webhook import Webhook
from streamline.errors import StreamlineError


class NoServer:
    """Stands for the listener; `end` makes it end by itself."""

    def __init__(self, settings: ListenSettings, app: Webhook) -> None:
        self.app = app
        self.closed = False
        self._ended = asyncio.Event()

    async def start(self) -> str:
        return "http://nowhere"

    async def ended(self) -> None:
        await self._ended.wait()
        raise StreamlineError("the server has ended")

    async def close(self) -> None:
        self.closed = True

    def end(self) -> None:
        self._ended.set()


class Reply(msgspec.Struct):
    """An answer."""

    status: int
    headers: dict[str, str]
    content: Any


async def post(
    app: Webhook,
    *chunks: bytes,
    path: str = "/",
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    complete: bool = True,
    hangs: bool = False,
) -> Reply:
    """Send a body in chunks; return the answer.

    Args:
        complete: the client stays until the body has ended.
        hangs: or it stays, and sends nothing more.
    """
    events: list[dict[str, Any]] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    events.append({"type": "http.request"} if complete else {"type": "http.disconnect"})
    sent: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if hangs and len(events) == 1:
            await asyncio.sleep(3_600)
        return events.pop(0)

    async def send(event: Mapping[str, Any]) -> None:
        sent.append(event)

    encoded: Sequence[tuple[bytes, bytes]] = [
        (name.lower().encode(), value.encode()) for name, value in (headers or {}).items()
    ]
    await app({"type": "http", "method": method, "path": path, "headers": encoded}, receive, send)
    start, body = sent
    names = {name.decode(): value.decode() for name, value in start["headers"]}
    return Reply(start["status"], names, json.loads(body["body"]))
