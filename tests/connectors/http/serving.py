"""An HTTP server for tests that answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec


class Request(msgspec.Struct):
    """What was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Server:
    """What it was sent, and what it answers: a status, and headers."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections: set[object] = set()
        self.answer: Callable[[Request], tuple[int, dict[str, str]]] = lambda request: (200, {})
        self.url = ""

    def taken(self) -> list[bytes]:
        """The bodies that were taken."""
        return [request.body for request in self.requests if self.answer(request)[0] == 200]


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = Request(self.command, self.path, dict(self.headers), body)
            server.connections.add(self.client_address)
            status, headers = server.answer(request)
            server.requests.append(request)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PUT = handle_any  # noqa: N815 (the names that the base class calls)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
