"""Serves the metrics and the health of a streaming run by HTTP, in a thread of its own."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6

from streamline.errors import WrongOption
from streamline.execution.run import Run
from streamline.execution.streaming.metrics import CONTENT_TYPE, Metrics
from streamline.execution.streaming.settings import MetricsSettings

_PATIENCE = 10.0
"""Seconds that a client may take to send its request."""


@contextmanager
def served(run: Run, settings: MetricsSettings) -> Iterator[str]:
    """Serve /metrics and /health; yield the address of /metrics.

    Raises:
        WrongOption: the port cannot be used.
    """
    metrics = Metrics(run.pipeline, run.run_id, settings.stalled_after)
    try:
        server = _Server(settings.host, settings.port, metrics)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise WrongOption(
            f"metrics cannot be served on {settings.host}, port {settings.port}: {reason}",
            where=run.pipeline,
            hint="choose another port: --metrics-port N, or metrics: {port: N} in metadata.yaml",
            code="metrics.port_unusable",
        ) from None
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        thread.start()
        try:
            run.bus.subscribe(metrics)
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            url = f"http://{host}:{server.server_address[1]}/metrics"
            run.note("streamline", f"metrics: {url}")
            yield url
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, metrics: Metrics) -> None:
        self.metrics = metrics
        if ":" in host:
            self.address_family = AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look up its own name, which takes long where name servers do not answer.
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients may go away at any time."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    server_version = "streamline"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE, self.server.metrics.text())
        elif path == "/health":
            healthy, report = self.server.metrics.health()
            status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, "application/json", json.dumps(report) + "\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", "/metrics and /health\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
