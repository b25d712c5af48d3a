"""Listens for requests: an ASGI server (uvicorn) in the event loop, without its handlers of signals and logs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from streamline.connectors.http.listen_settings import ListenSettings
from streamline.errors import StreamlineError
from streamline.project.extras import need

MAX_CONNECTIONS = 2_000
"""More are answered with 503."""

CLOSE_SECONDS = 5.0
"""Requests that are being answered when it is closed have so long."""

_IDLE_SECONDS = 30
_HEADER_BYTES = 1 << 16


class CannotListen(StreamlineError):
    """The address cannot be listened on."""

    code = "http.cannot_listen"


class Listener:
    """A server for an ASGI application. It lives in one event loop."""

    def __init__(self, settings: ListenSettings, app: Any) -> None:
        self._settings = settings
        self._app = app
        self._server: Any = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listen; return the address.

        Raises:
            CannotListen: it cannot.
            ConfigError: uvicorn is not installed.
        """
        uvicorn = need("uvicorn", "webhook", "the HTTP source")
        settings = self._settings
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=CLOSE_SECONDS,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            ssl_certfile=settings.cert_file,
            ssl_keyfile=settings.key_file,
        )
        listening = bound(settings)
        self._server = uvicorn.Server(config)
        self._server.capture_signals = contextlib.nullcontext  # the command has handlers of its own
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0.01)
        scheme = "http" if settings.cert_file is None else "https"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return f"{scheme}://{host}:{listening.getsockname()[1]}"

    async def ended(self) -> None:
        """Wait for its end, which comes by `close` only.

        Raises:
            StreamlineError: it came by itself.
        """
        assert self._serving is not None
        await asyncio.wait([self._serving])
        error = None if self._serving.cancelled() else self._serving.exception()
        raise StreamlineError(f"the server has ended: {error or 'for no known reason'}", code="http.server_ended")

    async def close(self) -> None:
        """Finish the answers, and close all connections."""
        if self._serving is None:
            return
        self._server.should_exit = True
        _, late = await asyncio.wait([self._serving], timeout=2 * CLOSE_SECONDS)
        for task in late:
            task.cancel()
            await asyncio.wait([task])


def bound(settings: ListenSettings) -> socket.socket:
    """Return a socket that is bound to the address.

    Raises:
        CannotListen: that is not possible.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:
        made.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise CannotListen(
            f"cannot listen on {settings.host}, port {settings.port}: {reason}",
            hint="set another `port`, or end the program that has it; `host` is an address of this machine",
        ) from None
    return made
