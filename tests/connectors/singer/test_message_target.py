"""Targets that are fed by sources of messages."""

from __future__ import annotations

from pathlib import Path

import anyio
import msgspec
import pytest

from streamline.connectors.singer.message_target import MessageTarget
from streamline.connectors.singer.target_input import Feed
from streamline.connectors.singer.target_pool import TargetPool
from streamline.flow.items import Item, MessageBatch, Position
from tests.connectors.singer.running import (
    Account,
    batch,
    bookmark,
    got,
    got_ids,
    position,
    record,
    rows,
    running,
    schema,
    target,
    until,
)

pytestmark = pytest.mark.anyio


def feed(source: str = "read") -> Feed:
    return Feed(source=source, keys_of=lambda stream: (stream,), owns=lambda key: True)


def offsets(number: int, **partitions: int) -> Position:
    parts = {f"topic/{name}": b'{"offset":%d}' % offset for name, offset in partitions.items()}
    return Position("read", number, parts)


def made(
    folder: Path, account: Account, code: str | None = None, *, taps: list[str] | None = None, **more: object
) -> MessageTarget:
    process = target(folder, account, code, feeds=[feed(*(taps or []))], **more)  # type: ignore[arg-type]
    return MessageTarget(TargetPool("export", [process], lambda stream: 0), taps or [])


async def test_an_echo_proves_positions_of_partitions(tmp_path: Path) -> None:
    account = Account()
    sink = made(tmp_path, account)
    async with running(account.runs(sink)):
        await sink.send(
            "read", [schema(), batch(record(1)), offsets(1, p0=1), batch(record(2)), offsets(2, p0=1, p1=1)]
        )
        await until(lambda: account.newest("read") == 2)
        await sink.send("read", [offsets(3, p0=2, p1=1)])  # nothing came with it
        await until(lambda: account.newest("read") == 3)
        await sink.close()
    assert [m["value"]["bookmarks"] for m in got(tmp_path) if m["type"] == "STATE"] == [
        {},
        {"users": {"position": 1}},
        {"users": {"position": 2}},
        {"users": {"position": 2}},
    ]


async def test_a_target_that_echoes_by_stream_proves_what_it_has_flushed(tmp_path: Path) -> None:
    account = Account()
    code = """
import json, sys
got = open("got.jsonl", "ab", 0)
flushed = {"bookmarks": {}}
for line in sys.stdin.buffer:
    got.write(line)
    message = json.loads(line)
    if message["type"] == "STATE" and "users" in message["value"]["bookmarks"]:
        flushed["bookmarks"]["users"] = message["value"]["bookmarks"]["users"]
        print(json.dumps(flushed), flush=True)
"""
    sink = made(tmp_path, account, code)
    async with running(account.runs(sink)):
        await sink.send("read", [schema(), batch(record(1)), offsets(1, p0=1)])
        await until(lambda: account.newest("read") == 1)
        await sink.send(
            "read", [schema("orders"), batch(record(1, stream="orders"), stream="orders"), offsets(2, p0=2)]
        )
        await sink.send("read", [batch(record(2)), offsets(3, p0=3)])
        await until(lambda: len(got(tmp_path)) == 9)
        await anyio.sleep(0.05)
        assert account.newest("read") == 1  # the order is not flushed
        await sink.source_ended("read")
        await sink.close()
    assert account.newest("read") == 3


async def test_sessions_prove_a_silent_target(tmp_path: Path) -> None:
    account = Account()
    sink = made(tmp_path, account, echo=False, session_interval=0.05)
    async with running(account.runs(sink)):
        await sink.send("read", [schema()])
        for number in range(1, 4):
            await sink.send("read", [batch(record(number)), offsets(number, p0=number)])
            await until(lambda number=number: account.newest("read") == number)
        await sink.close()
    assert got_ids(tmp_path) == [1, 2, 3]
    assert account.failures == []


async def test_what_somebody_waits_for_is_proven_soon(tmp_path: Path) -> None:
    account = Account()
    sink = made(tmp_path, account, echo=False, session_interval=3600.0)
    async with running(account.runs(sink)):
        sink.hurry("read", 2)
        await sink.send("read", [schema(), batch(record(1)), offsets(1, p0=1)])
        await sink.send("read", [batch(record(2)), offsets(2, p0=2)])
        await until(lambda: account.newest("read") == 2)
        await sink.send("read", [batch(record(3)), msgspec.structs.replace(offsets(3, p0=3), awaited=True)])
        await until(lambda: account.newest("read") == 3)
        sink.hurry("read", 3)  # it is proven already
        await sink.close()
    assert got_ids(tmp_path) == [1, 2, 3]
    assert [m["type"] for m in got(tmp_path)].count("SCHEMA") <= 3


async def test_a_position_that_was_held_back_is_proven_with_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    process = target(tmp_path, account, feeds=[feed()], echo=False, session_interval=3600.0)
    sink = MessageTarget(TargetPool("export", [process], lambda stream: 0))
    async with running(account.runs(sink)):
        await sink.send("read", [schema(), batch(record(1))])
        monkeypatch.setattr(process._input._account, "wants_place", lambda: False)
        await sink.send("read", [offsets(1, p0=1)])
        sink.hurry("read", 1)
        await until(lambda: account.newest("read") == 1)
        await sink.close()


async def test_states_of_taps_reach_it_as_they_are(tmp_path: Path) -> None:
    account = Account()
    sink = made(tmp_path, account, taps=["load"])
    async with running(account.runs(sink)):
        await sink.send("load", [schema(), *rows(1, 2), position(3)])
        await sink.close()
    assert account.newest() == 3
    assert bookmark(3) in (tmp_path / "got.jsonl").read_bytes().replace(b" ", b"")


async def test_messages_must_be_records_by_now(tmp_path: Path) -> None:
    account = Account()
    sink = made(tmp_path, account)
    items: list[Item] = [MessageBatch("users", [b"{}"])]
    async with running(account.runs(sink)):
        with pytest.raises(TypeError):
            await sink.send("read", items)
        await sink.close()
