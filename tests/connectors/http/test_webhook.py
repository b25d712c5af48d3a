"""What an HTTP source takes, what it answers, and when."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import importlib.util
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamline.connectors.http import source as source_module
from streamline.connectors.http import webhook as webhook_module
from streamline.connectors.http.bodies import messages_of
from streamline.connectors.http.connector import CONNECTOR
from streamline.connectors.http.listen_settings import listen_settings
from streamline.connectors.http.listener import CannotListen, Listener, bound
from streamline.connectors.http.source import TAKEN, HttpSource
from streamline.connectors.http.webhook import Webhook
from streamline.errors import ConfigError
from streamline.flow.items import Item, MessageBatch, Position
from tests.connectors.http.posting import NoServer, Reply, post
from tests.connectors.sinks import PATIENCE, context, where

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Running:
    """A source that runs, and what it has given. What it gives is proven at once, unless it is to wait."""

    def __init__(self, source: HttpSource, app: Webhook) -> None:
        self.source = source
        self.app = app
        self.messages: list[bytes] = []
        self.batches: list[MessageBatch] = []
        self.positions: list[Position] = []
        self.proves = True

    async def emit(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, MessageBatch):
                self.batches.append(item)
                self.messages += item.data
            elif isinstance(item, Position):
                self.positions.append(item)
                if self.proves:
                    await self.source.confirm(item.parts)

    async def post(self, *chunks: bytes, **given: Any) -> Reply:
        return await post(self.app, *chunks, **given)


@asynccontextmanager
async def running(config: dict[str, Any] | None = None, **about: Any) -> AsyncIterator[Running]:
    made: list[NoServer] = []

    def listen(settings: Any, app: Webhook) -> NoServer:
        made.append(NoServer(settings, app))
        return made[0]

    options = context(Path("/nowhere"), **about)
    source = HttpSource(listen_settings(config or {}, options, where), options, listen)
    run = Running(source, made[0].app)
    with anyio.fail_after(PATIENCE):
        task = asyncio.create_task(source.run(run.emit))
        await asyncio.sleep(0)
        yield run
        source.stop("the test has ended")
        await task
        await source.close()
    assert made[0].closed


# -- bodies


@pytest.mark.parametrize(
    ("body", "kind", "values"),
    [
        (b'{"n": 1}', "application/json", [b'{"n": 1}']),
        (b' [{"n": 1}, 2, [3]]\n', "application/json", [b'{"n": 1}', b"2", b"[3]"]),
        (b"[]", "", []),
        (b'{"n": 1}\n\n{"n": 2}\r\n', "application/x-ndjson; charset=utf-8", [b'{"n": 1}', b'{"n": 2}']),
        (b"[1]\n[2]", "application/jsonl", [b"[1]", b"[2]"]),
        (b"1\n2\n", "", [b"1", b"2"]),
        (b'\xef\xbb\xbf{\n"n": 1}', "", [b'{\n"n": 1}']),
        (b"1" * 40, "", [b"1" * 40]),
        (b"payload=%7B%22n%22%3A+1%7D", "application/x-www-form-urlencoded", [b'{"n": 1}']),
        (b'{"n": 1}', "application/x-www-form-urlencoded", [b'{"n": 1}']),  # as curl sends it
    ],
)
def test_a_body_is_one_message_an_array_or_lines(body: bytes, kind: str, values: list[bytes]) -> None:
    assert messages_of(body, kind, "json") == values


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": 1}\n{', b"\xff", b"[1, NaN]", b"[" * 100_000])
def test_a_body_that_is_no_json_is_none(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (its text is for the sender)
        messages_of(body, "", "json")


def test_text_is_one_message() -> None:
    assert messages_of(b"a\n[b", "", "text") == [b"a\n[b"]


# -- answers


async def test_a_request_is_answered_when_its_messages_are_proven() -> None:
    async with running({"path": "/in"}) as run:
        run.proves = False
        first = asyncio.create_task(run.post(b'[{"n": 1},', b' {"n": 2}]', path="/in", headers={"X-Kind": "order"}))
        while not run.positions:
            await asyncio.sleep(0)
        others = [asyncio.create_task(run.post(b"%d" % number, path="/in")) for number in (3, 4)]
        await asyncio.sleep(0.05)
        assert not first.done()
        assert run.positions[0].awaited
        await run.source.confirm(run.positions[0].parts)
        assert (await first).status == 200
        assert (await first).content == {"messages": 2}
        while len(run.positions) < 2:  # requests that came meanwhile are proven together
            await asyncio.sleep(0)
        assert run.batches[1].data == [b"3", b"4"]
        await run.source.confirm(run.positions[1].parts)
        assert [(await other).status for other in others] == [200, 200]
    assert [position.parts for position in run.positions] == [{TAKEN: b"2"}, {TAKEN: b"4"}]
    origins = run.batches[0].origins
    assert origins is not None
    assert origins[0] is not None
    assert (origins[0].topic, origins[0].value, origins[0].headers) == ("/in", b'{"n": 1}', [("x-kind", b"order")])


async def test_what_is_not_proven_is_to_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running({"proof_timeout": 0.1}) as run:
        run.proves = False
        late = await run.post(b"1")
        assert (late.status, late.headers["retry-after"]) == (503, "1")
    async with running() as run:
        run.proves = False
        open_request = asyncio.create_task(run.post(b"1"))
        while not run.positions:
            await asyncio.sleep(0)
    assert (await open_request).status == 503


async def test_stopped_it_gives_what_it_took_and_refuses_the_rest() -> None:
    async with running() as run:
        run.proves = False
        requests = [asyncio.create_task(run.post(b"%d" % number)) for number in range(3)]
        while not run.positions:
            await asyncio.sleep(0)
        requests.append(asyncio.create_task(run.post(b"3")))
        await asyncio.sleep(0.01)
        run.source.stop("enough")
        assert (await run.post(b"4")).status == 503
        while len(run.messages) < 4:
            await asyncio.sleep(0)
        await run.source.confirm(run.positions[-1].parts)
        assert [(await request).status for request in requests] == [200] * 4
    assert run.messages == [b"0", b"1", b"2", b"3"]


async def test_answered_before_the_proof_messages_are_given_again_by_another_attempt() -> None:
    memory: dict[str, Any] = {}
    async with running({"respond": "accepted"}, memory=memory, start={TAKEN: b"7"}) as run:
        run.proves = False
        for number in (b"1", b"2", b"3"):
            assert (await run.post(number)).status == 202
    assert run.messages == [b"1", b"2", b"3"]
    await run.source.confirm({TAKEN: b"8"})
    async with running({"respond": "accepted"}, memory=memory, start={TAKEN: b"9"}) as run:
        assert (await run.post(b"4")).status == 202
    assert run.messages == [b"3", b"4"]
    assert run.positions[-1].parts == {TAKEN: b"11"}


async def test_where_there_is_no_room_a_request_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "ROOM_BYTES", 1_000)
    async with running({"format": "text", "respond": "accepted"}) as run:
        run.proves = False
        assert (await run.post(b"x" * 2_000)).status == 202  # a large one passes alone
        full = await run.post(b"y")
        assert (full.status, full.headers["retry-after"]) == (503, "1")
        await run.source.confirm({TAKEN: b"1"})
        assert (await run.post(b"y")).status == 202


async def test_a_wrong_request_is_told_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_module, "BODY_SECONDS", 0.05)
    async with running({"path": ["/a", "/b"], "max_body_bytes": 10, "auth": {"bearer": "t0p"}}) as run:
        right = {"Authorization": "Bearer t0p"}
        assert (await run.post(b"1", path="/b", headers=right)).status == 200
        assert (await run.post(b"1", path="/c", headers=right)).status == 404
        wrong_method = await run.post(path="/a", method="GET", headers=right)
        assert (wrong_method.status, wrong_method.headers["allow"]) == (405, "POST")
        denied = await run.post(b"1", path="/a", headers={"Authorization": "Bearer top"})
        assert (denied.status, denied.headers["www-authenticate"]) == (401, "Bearer")
        assert (await run.post(b"1", path="/a")).status == 401
        assert (await run.post(b"{", path="/a", headers=right)).status == 400
        assert (await run.post(b"1", path="/a", headers=right, complete=False)).status == 400
        assert (await run.post(b"1", path="/a", headers=right, hangs=True)).status == 408
        assert (await run.post(b"123456", b"78901", path="/a", headers=right)).status == 413
        assert (await run.post(b"1", path="/a", headers={**right, "Content-Length": "11"})).status == 413
        assert (await run.post(b"1", path="/a", headers={**right, "Content-Encoding": "gzip"})).status == 415
        assert (await run.post(b"[]", path="/a", headers=right)).content == {"messages": 0}
    assert run.messages == [b"1"]
    assert run.source._room == 0


async def test_a_signature_has_to_be_that_of_the_body() -> None:
    secret, body = "k3y", b'{"n": 1}'
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    async with running({"signature": {"secret": secret}}) as run:
        signed = {"X-Hub-Signature-256": f"sha256={digest}", "Cookie": "c", "X-Event": "push"}
        assert (await run.post(body, headers=signed)).status == 200
        assert (await run.post(body + b" ", headers=signed)).status == 401
        assert (await run.post(body)).status == 401
    origins = run.batches[0].origins
    assert origins is not None
    assert origins[0] is not None
    assert origins[0].headers == [("x-event", b"push")]
    async with running({"signature": {"secret": secret, "header": "X-Sign"}, "headers": ["X-Event"]}) as run:
        sent = {"X-Sign": digest, "X-Event": "push", "X-Other": "o"}
        assert (await run.post(body, headers=sent)).status == 200
    origins = run.batches[0].origins
    assert origins is not None
    assert origins[0] is not None
    assert origins[0].headers == [("x-event", b"push")]


async def test_there_is_no_end_to_catch_up_with() -> None:
    notes: list[str] = []
    async with running(until_caught_up=True, note=lambda text, level: notes.append(level)) as run:
        await asyncio.sleep(0)
    assert run.positions == []
    assert notes == ["INFO"]


# -- the server


async def test_real_requests_are_answered_and_the_last_ones_before_it_closes(tmp_path: Path) -> None:
    notes: list[tuple[str, str]] = []
    options = context(tmp_path, note=lambda text, level: notes.append((text, level)))
    settings = listen_settings({"port": 0, "host": "0.0.0.0", "path": "/in"}, options, where)
    source = HttpSource(settings, options, Listener)
    run = Running(source, None)  # type: ignore[arg-type]
    with anyio.fail_after(PATIENCE):
        task = asyncio.create_task(source.run(run.emit))
        while not notes:
            await asyncio.sleep(0.01)
        port = int(notes[0][0].rpartition(":")[2].partition("/")[0])

        def send() -> list[int]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            statuses = []
            for body in (b'{"n": 1}', iter([b"[1,", b"2]"])):
                connection.request("POST", "/in", body)
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
            connection.close()
            return statuses

        assert await asyncio.to_thread(send) == [200, 200]
        run.proves = False
        last = asyncio.create_task(asyncio.to_thread(send))
        while len(run.messages) < 4:
            await asyncio.sleep(0.01)
        source.stop("enough")
        await task
        await source.confirm(run.positions[-1].parts)
        await source.close()
        assert (await asyncio.gather(last, return_exceptions=True))[0] != [200, 200]
    assert run.messages == [b'{"n": 1}', b"1", b"2", b'{"n": 1}']
    assert [level for _, level in notes] == ["INFO", "WARNING"]  # anybody may send


async def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    options = context(tmp_path)
    with bound(listen_settings({"port": 0}, options, where)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        source = HttpSource(listen_settings({"port": port}, options, where), options, Listener)
        with pytest.raises(CannotListen):
            await source.run(Running(source, None).emit)  # type: ignore[arg-type]
        await source.close()
        with pytest.raises(CannotListen):
            CONNECTOR.check("source", {"port": port}, options, where)


# -- settings


@pytest.mark.parametrize(
    "config",
    [
        {"port": 65_536},
        {"path": "in"},
        {"path": ["/in?x=1"]},
        {"respond": "never"},
        {"auth": {"bearer": "a", "username": "b"}},
        {"auth": {"password": "b"}},
        {"auth": {"bearer": ""}},
        {"signature": {"header": "X"}},
        {"signature": {"secret": ""}},
        {"key_file": "k.pem"},
        {"cert_file": "missing.pem"},
    ],
)
def test_wrong_settings_are_told_before_anything_starts(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        CONNECTOR.describe_source(config, context(tmp_path), where)
    assert caught.value.code == "setting.invalid"


def test_without_the_server_it_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        CONNECTOR.describe_source({}, context(tmp_path), where)
    assert caught.value.code == "package.missing"


def test_its_template_can_be_used(tmp_path: Path) -> None:
    import yaml

    for side in ("source", "destination"):
        config = yaml.safe_load(CONNECTOR.template(side, "p", "orders"))
        assert config.pop("connector_type") == "http"
    traits = CONNECTOR.describe_source({"respond": "accepted"}, context(tmp_path), where)
    assert not traits.replays
    assert CONNECTOR.describe_source({}, context(tmp_path), where).replays
