"""A schema registry in this process: Confluent's REST interface over a dictionary, with faults on demand."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Answer = tuple[int, Any]


class RegistryStub:
    """What the registry holds, and how it behaves.

    Attributes:
        frozen: subjects that take no other schema: another one is answered with 409.
        faults: statuses of the next answers, before anything else is looked at.
        credentials: `user:password` that every request needs.
        requests: `METHOD /path` of each request.
    """

    def __init__(self) -> None:
        self.url = ""
        self.frozen: set[str] = set()
        self.faults: list[int] = []
        self.credentials: str | None = None
        self.requests: list[str] = []
        self.ids: dict[str, int] = {}
        self.subjects: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def add(self, subject: str, schema: Any, kind: str = "AVRO", references: list[Any] | None = None) -> int:
        """Register a schema (Protobuf's text, or what its JSON text is made of), and return its id."""
        text = schema if kind == "PROTOBUF" else json.dumps(schema)
        return self._register(subject, {"schema": text, "schemaType": kind, "references": references or []})

    def schemas(self, subject: str) -> list[Any]:
        """Return the schemas of a subject, oldest first; those that are JSON as what they mean."""
        entries = [json.loads(entry) for entry in self.subjects.get(subject, [])]
        return [
            entry["schema"] if entry.get("schemaType") == "PROTOBUF" else json.loads(entry["schema"])
            for entry in entries
        ]

    def answer(self, method: str, path: str, body: Any, authorization: str | None) -> Answer:
        """Return status and body."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            if self.faults:
                status = self.faults.pop(0)
                return status, {"error_code": status, "message": "not now"}
            if self.credentials is not None:
                wanted = "Basic " + base64.b64encode(self.credentials.encode()).decode()
                if authorization != wanted:
                    return 401, {"error_code": 401, "message": "Unauthorized"}
            return self._route(method, [unquote(part) for part in path.partition("?")[0].strip("/").split("/")], body)

    def _route(self, method: str, parts: list[str], body: Any) -> Answer:
        if parts == ["subjects"]:
            return 200, list(self.subjects)
        if parts[:2] == ["schemas", "ids"]:
            for entry, number in self.ids.items():
                if number == int(parts[2]):
                    return 200, json.loads(entry)
            return 404, {"error_code": 40403, "message": "Schema not found"}
        if parts[0] == "compatibility":
            return 200, {"is_compatible": False, "messages": ["reader field 'total' has no default"]}
        subject, rest = parts[1], parts[2:]
        if method == "POST" and rest == ["versions"]:
            try:
                return 200, {"id": self._register(subject, body)}
            except PermissionError:
                return 409, {"error_code": 409, "message": "Schema being registered is incompatible"}
        versions = self.subjects.get(subject, [])
        if not versions:
            return 404, {"error_code": 40401, "message": "Subject not found"}
        if method == "POST":
            entry = _entry(body)
            if entry not in versions:
                return 404, {"error_code": 40403, "message": "Schema not found"}
            number = versions.index(entry) + 1
        else:
            number = len(versions) if rest[1] == "latest" else int(rest[1])
            if not 0 < number <= len(versions):
                return 404, {"error_code": 40402, "message": "Version not found"}
        entry = versions[number - 1]
        return 200, {"subject": subject, "version": number, "id": self.ids[entry], **json.loads(entry)}

    def _register(self, subject: str, body: Any) -> int:
        entry = _entry(body)
        versions = self.subjects.setdefault(subject, [])
        if entry not in versions:
            if subject in self.frozen:
                raise PermissionError
            versions.append(entry)
        return self.ids.setdefault(entry, len(self.ids) + 1)


def _entry(body: Any) -> str:
    entry = {"schema": body["schema"], "schemaType": body.get("schemaType", "AVRO")}
    if body.get("references"):
        entry["references"] = body["references"]
    if entry["schemaType"] == "AVRO":  # as the real one, which leaves the default out
        del entry["schemaType"]
    return json.dumps(entry)


@contextmanager
def registry_stub(certificate: Path | None = None) -> Iterator[RegistryStub]:
    """Run a registry on a free port of this machine; with TLS if there is a certificate (and its key, in PEM)."""
    stub = RegistryStub()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, answer = stub.answer(self.command, self.path, body, self.headers.get("Authorization"))
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self.handle_any()

        def do_POST(self) -> None:
            self.handle_any()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        stub.url = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
