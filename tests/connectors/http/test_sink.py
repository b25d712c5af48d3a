"""What an HTTP sink sends, and what it makes of the answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from streamline.connectors.http.client import HttpClient, NotReachable, NotUsable
from streamline.connectors.http.connector import CONNECTOR
from streamline.connectors.http.settings import http_settings
from streamline.connectors.http.sink import HttpWriter
from streamline.connectors.stream_connector import StreamContext
from streamline.errors import ConfigError
from streamline.flow.items import BadRecord, MessageBatch, Origin, Position
from tests.connectors.http.serving import Request, Server, serving

CONTEXT = StreamContext(pipeline="p", block="export", root=Path("/nowhere"))


def where(*keys: Any) -> str:
    return "export.yaml:1"


class Sending:
    """A writer, and what became of what it was given."""

    def __init__(self, url: str, **config: Any) -> None:
        self.pauses: list[float] = []
        self.notes: list[str] = []
        self.refused: list[BadRecord] = []
        self.proven: dict[str, int] = {}
        settings = http_settings({"url": url, **config}, CONTEXT, where)
        self.client = HttpClient(
            settings, pause=self.pause, startup_timeout=5.0, note=lambda text, level: self.notes.append(level)
        )
        self.writer = HttpWriter(
            "export",
            settings,
            self.client,
            lambda source, record: self.refused.append(record),
            self.proven.update,
            lambda: False,
            "p/export",
        )

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return True

    def send(self, data: Sequence[Any], origins: list[Origin | None] | None = None) -> None:
        self.writer.take("load", MessageBatch("orders", list(data), origins))
        self.writer.reach("load", Position("load", 7, {}))
        self.writer.rest(hurry=True)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def test_messages_go_in_order_over_one_connection_and_are_proven(server: Server) -> None:
    sending = Sending(f"{server.url}/in", headers={"X-Shop": "a"}, auth={"bearer": "s3cret"})
    sending.send([{"n": 1}, {"n": 10**30}])
    assert server.taken() == [b'{"n":1}', b'{"n":%d}' % 10**30]
    assert len(server.connections) == 1
    request = server.requests[0]
    assert (request.method, request.path) == ("POST", "/in")
    assert request.headers["X-Shop"] == "a"
    assert request.headers["Authorization"] == "Bearer s3cret"
    assert request.headers["Content-Type"] == "application/json"
    assert sending.proven == {"load": 7}


def test_the_url_has_values_of_the_message(server: Server) -> None:
    sending = Sending(f"{server.url}/{{key}}/{{id}}", method="put")
    origins: list[Origin | None] = [Origin("t", 0, 1, b"a b", b""), None]
    sending.send([{"id": "x/y"}, {"id": 2}], origins)
    assert [(request.method, request.path) for request in server.requests] == [("PUT", "/a%20b/x%2Fy")]
    assert [record.record for record in sending.refused] == [b'{"id":2}']


@pytest.mark.parametrize(
    ("body", "bodies"),
    [("list", [b'[{"n":0},{"n":1}]', b'[{"n":2}]']), ("lines", [b'{"n":0}\n{"n":1}\n', b'{"n":2}\n'])],
)
def test_several_messages_in_one_request(server: Server, body: str, bodies: list[bytes]) -> None:
    Sending(server.url, body=body, batch_size=2).send([{"n": 0}, {"n": 1}, {"n": 2}])
    assert server.taken() == bodies


@pytest.mark.parametrize("body", ["single", "list"])
def test_a_message_that_is_refused_is_found_and_the_others_arrive(server: Server, body: str) -> None:
    server.answer = lambda request: (422 if b"7" in request.body else 200, {})
    sending = Sending(server.url, body=body)
    sending.send([{"n": n} for n in range(10)])
    assert [record.record for record in sending.refused] == [b'{"n":7}']
    assert sending.refused[0].stage == "export"
    taken = b"".join(server.taken())
    assert [n for n in range(10) if b'{"n":%d}' % n in taken] == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert sending.pauses == []
    assert sending.proven == {"load": 7}


def test_an_outage_is_waited_for(server: Server) -> None:
    answers = iter([(503, {}), (429, {"Retry-After": "7"}), (500, {}), (200, {})])

    def answer(request: Request) -> tuple[int, dict[str, str]]:
        return next(answers)

    server.answer = answer
    sending = Sending(server.url, idempotency_header="Idempotency-Key")
    sending.send([{"n": 1}])
    assert sending.pauses == [0.5, 7.0, 2.0]
    assert sending.notes == ["WARNING", "INFO"]
    assert len({request.headers["Idempotency-Key"] for request in server.requests}) == 1
    assert sending.proven == {"load": 7}


def test_a_connection_that_the_server_has_closed_is_opened_again(server: Server) -> None:
    server.answer = lambda request: (200, {"Connection": "close"})
    sending = Sending(server.url)
    sending.send([{"n": 1}, {"n": 2}])
    assert len(server.taken()) == 2
    assert sending.pauses == []


@pytest.mark.parametrize("status", [401, 308])
def test_an_answer_that_is_no_message_s_fault_ends_the_attempt(server: Server, status: int) -> None:
    server.answer = lambda request: (status, {})
    sending = Sending(server.url)
    with pytest.raises(NotUsable):
        sending.send([{"n": 1}])
    assert (sending.refused, sending.proven) == ([], {})


def test_without_a_first_answer_it_gives_up_in_time() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        sending = Sending(f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(NotReachable):
            sending.send([{"n": 1}])
    assert sum(sending.pauses) == pytest.approx(5.0)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"url": "ftp://host"},
        {"url": "http://{host}/"},
        {"url": "http://a:b@host/"},
        {"url": "http://host/{id}", "body": "list"},
        {"url": "http://host", "batch_size": 5},
        {"url": "http://host", "body": "list", "idempotency_header": "K"},
        {"url": "http://host", "headers": {"A": "b\r\nC: d"}},
        {"url": "http://host", "auth": {"bearer": "a", "username": "b"}},
        {"url": "http://host", "ca_file": "missing.pem"},
        {"url": "http://host", "unknown": 1},
    ],
)
def test_settings_that_cannot_be_used_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        CONNECTOR.describe_sink(config, CONTEXT, where)
