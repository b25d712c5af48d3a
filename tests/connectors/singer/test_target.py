"""A target is a sink: what it is sent arrives whole and in order, and only what it has proven counts."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamline.connectors.singer import target as target_module
from streamline.connectors.singer.state import StateParts
from streamline.connectors.singer.target_input import Feed
from streamline.flow.items import ActivateVersion, Position, RowBatch, Schema
from tests.connectors.singer.running import (
    HANG,
    PATIENCE,
    TARGET,
    Account,
    batch,
    bookmark,
    compact,
    gone,
    got,
    got_ids,
    left,
    position,
    record,
    rows,
    running,
    schema,
    send_all,
    target,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient_target")]


# -- the ordinary way


async def test_it_reads_its_starting_state_then_everything_in_order(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account, state={"load": bookmark(5)})
    async with running(account.runs(process)):
        await send_all(process, [schema(), *rows(6, 7)], [ActivateVersion("users", 1), *rows(8, 9)])
    assert [message["type"] for message in got(tmp_path)] == [
        *("STATE", "SCHEMA", "RECORD", "RECORD", "STATE"),
        *("ACTIVATE_VERSION", "RECORD", "RECORD", "STATE"),
    ]
    assert got(tmp_path)[0]["value"] == json.loads(bookmark(5))
    assert account.newest() == 9
    assert account.failures == []
    assert account.sent == account.confirmed == {"users": 4}


async def test_a_target_that_says_nothing_is_proven_by_its_exit_only(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account, echo=False)
    async with running(account.runs(process)):
        await process.send("load", rows(1, 3))
        await until(lambda: len(got(tmp_path)) == 5)
        assert account.proven == []
        assert process.unproven
        await send_all(process)
    assert account.newest() == 3
    assert not process.unproven


async def test_echoes_count_while_it_runs_unless_only_its_exit_is_to(tmp_path: Path) -> None:
    for echoes, proven in ((True, 3), (False, 0)):
        account = Account()
        process = target(tmp_path, account, echoes=echoes)
        async with running(account.runs(process)):
            await process.send("load", rows(1, 3))
            await process.send("load", [batch(record(4, do="say('[1]')"))])
            await until(lambda account=account: "[stdout] [1]" in account.log)
            assert account.newest() == proven
            await send_all(process)
        assert account.newest() == 3


async def test_the_last_echo_may_lack_its_newline(tmp_path: Path) -> None:
    account = Account()
    finish = f"say({bookmark(2).decode()!r}, end=''); os._exit(5)"
    process = target(tmp_path, account, echo=False)
    async with running(account.runs(process)):
        await process.send("load", rows(1, 2))
        await process.send("load", [batch(record(3, do=finish))])
        await until(lambda: account.failures)
    assert account.newest() == 2


async def test_an_echo_may_come_in_pieces(tmp_path: Path) -> None:
    account = Account()
    text = bookmark(1).decode()
    pieces = f"for piece in {[text[:9], text[9:14], text[14:]]!r}: say(piece, end=''); time.sleep(0.05)\nsay('')"
    process = target(tmp_path, account, echo=False)
    async with running(account.runs(process)):
        await process.send("load", [*rows(1, 1), batch(record(2, do=pieces))])
        await until(lambda: account.newest() == 1)
        await send_all(process)
    assert account.log == []


async def test_half_an_echo_is_none(tmp_path: Path) -> None:
    account = Account()
    finish = f"say({bookmark(2).decode()[:-1]!r}, end=''); os._exit(5)"
    process = target(tmp_path, account, echo=False)
    async with running(account.runs(process)):
        await process.send("load", rows(1, 2))
        await process.send("load", [batch(record(3, do=finish))])
        await until(lambda: account.failures)
    assert account.proven == []


async def test_other_output_is_logged_masked_and_cut(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account)
    noise = "say('hello hunter2hunter2'); say('x' * 1995 + 'hunter2hunter2' * 9); say('{\"a\": ')"
    async with running(account.runs(process)):
        await send_all(process, [batch(record(1, do=noise))])
    assert account.failures == []
    assert "[stdout] hello ***" in account.log
    assert not [line for line in account.log if "hunt" in line or len(line) > 2500]


async def test_an_endless_line_of_output_is_no_echo_and_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_module, "LONGEST_ECHO", 100_000)
    account = Account()
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        await send_all(process, [batch(record(1, do="say('{' * 900_000)")), position(1)])
    assert account.newest() == 1
    assert sum(map(len, account.log)) < 300_000


DEEP = st.integers(1, 20_000).flatmap(lambda n: st.sampled_from([b'{"a":' * n, b'{"a":' * n + b"1" + b"}" * n]))


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(), st.text().map(str.encode), DEEP))
def test_whatever_a_target_prints_is_an_echo_or_a_log_line(
    tmp_path_factory: pytest.TempPathFactory, line: bytes
) -> None:
    async def echo() -> None:
        account = Account()
        process = target(tmp_path_factory.getbasetemp(), account)
        process._echo(line)
        assert account.proven == []

    anyio.run(echo)


@pytest.mark.parametrize(
    ("state", "printed"),
    [
        ('{"bookmarks": {"users": 1}}', '{"type": "STATE", "value": {"bookmarks": {"users": 1}}}'),
        ('{"value": {"users": 1}}', '{"value": {"users": 1}}'),
        ('{"type": "STATE", "users": 1}', '{"type": "STATE", "users": 1}'),
    ],
)
async def test_an_echo_is_the_state_or_its_whole_message(tmp_path: Path, state: str, printed: str) -> None:
    account = Account()
    process = target(tmp_path, account, echo=False)
    echo = batch(record(2, do=f"say({printed!r})"))
    async with running(account.runs(process)):
        await process.send("load", [batch(record(1)), Position("load", 1, StateParts(state.encode())), echo])
        await until(lambda: account.proven)
        await send_all(process)
    assert account.proven == [("load", 1)]


async def test_rows_are_written_as_records(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        await send_all(process, [schema(), RowBatch("users", [{"id": 1}, {"id": 2}]), position(2)])
    assert got_ids(tmp_path) == [1, 2]
    assert account.newest() == 2


async def test_its_config_is_private_and_gone_when_it_has_ended(tmp_path: Path) -> None:
    account = Account()
    code = """
    import os, sys
    print(oct(os.stat(sys.argv[2]).st_mode & 0o777), open(sys.argv[2]).read(), file=sys.stderr)
    sys.stdin.read()
    """
    process = target(tmp_path, account, code, config={"path": "x"})
    async with running(account.runs(process)):
        await send_all(process)
    assert account.log == ['0o600 {"path": "x"}']
    assert left(tmp_path) == []


# -- several feeds


async def test_batches_of_several_sources_are_whole_and_each_source_is_proven_for_itself(tmp_path: Path) -> None:
    account = Account()
    feeds = [
        Feed(source=name, keys_of=lambda stream: [stream], owns=lambda key, name=name: key == name)
        for name in ("a", "b")
    ]  # type: ignore[misc]
    process = target(tmp_path, account, feeds=feeds)

    async def feed(name: str) -> None:
        for number in range(1, 41):
            lines = [record(number * 10 + n, stream=name, pad=9_000) for n in range(10)]
            await process.send(name, [batch(*lines, stream=name), position(number, source=name, stream=name)])
        await process.source_ended(name)

    async with running(account.runs(process)):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed, "a")
            tasks.start_soon(feed, "b")
        await process.close()
    for name in ("a", "b"):
        assert got_ids(tmp_path, name) == list(range(10, 410))
        assert account.newest(name) == 40
    assert got(tmp_path)[-1]["value"] == {"bookmarks": {"a": {"id": 40}, "b": {"id": 40}}}
    assert account.failures == []


@pytest.mark.parametrize(
    "value",
    [b'{"users": "2024-01-0%d"}', b'{"bookmarks": {}, "lsn": %d}', b'"%d"', b'{"bookmarks": {"users": {}}, "lsn": %d}'],
    ids=["flat", "beside no bookmarks", "no object", "beside bookmarks"],
)
async def test_a_position_of_any_shape_waits_for_its_proof_in_a_target_of_several_sources(
    tmp_path: Path, value: bytes
) -> None:
    account = Account()
    feeds = [
        Feed(source="a", keys_of=lambda stream: [stream], owns=lambda key: True, name_of=lambda key: f"a:{key}"),
        Feed(source="b", keys_of=lambda stream: [stream], owns=lambda key: True, name_of=lambda key: f"b:{key}"),
    ]
    start = {"a": value % 1, "b": bookmark(1)}
    process = target(tmp_path, account, echo=False, feeds=feeds, state=start)
    async with running(account.runs(process)):
        await process.send("a", [batch(record(1)), Position("a", 1, StateParts(value % 2))])
        await process.send("b", [batch(record(2)), position(2, source="b")])
        await process.send("a", [batch(record(3)), Position("a", 2, StateParts(value % 3))])
        assert account.proven == []
        await process.source_ended("a")
        await process.source_ended("b")
        await process.close()
    assert (account.newest("a"), account.newest("b")) == (2, 2)


async def test_positions_of_any_shape_are_proven_by_echoes_in_a_target_of_several_sources(tmp_path: Path) -> None:
    account = Account()
    feeds = [
        Feed(source="a", keys_of=lambda stream: [stream], owns=lambda key: True, name_of=lambda key: f"a:{key}"),
        Feed(source="b", keys_of=lambda stream: [stream], owns=lambda key: True, name_of=lambda key: f"b:{key}"),
    ]
    process = target(tmp_path, account, feeds=feeds)
    async with running(account.runs(process)):
        await process.send("a", [batch(record(1)), Position("a", 1, StateParts(b'{"users": 1}'))])
        await process.send("b", [batch(record(2)), position(2, source="b")])
        await until(lambda: account.newest("a") == 1 and account.newest("b") == 2)
        await process.send("a", [batch(record(3)), Position("a", 2, StateParts(b'{"users": 2}'))])
        await until(lambda: account.newest("a") == 2)


async def test_a_bookmark_withheld_for_a_version_waits_for_its_activation(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account, f"ECHO = True\n{TARGET}sys.exit(1)")
    held = msgspec.structs.replace(position(1), withheld=frozenset({"users"}))
    async with running(account.runs(process)):
        await process.send("load", [schema(), batch(record(1)), held])
        await until(lambda: account.newest() == 1)
        await process.send("load", [ActivateVersion("users", 1), msgspec.structs.replace(position(1), number=2)])
        await process.source_ended("load")
        await process.close()
    assert account.proven == [("load", 1)]


async def test_records_are_read_by_the_schema_of_the_source_that_sent_them(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account, feeds=("a", "b"))
    other = Schema("users", {"type": "object", "properties": {"id": {"type": "string"}}}, ["id"])
    async with running(account.runs(process)):
        await process.send("a", [schema()])
        await process.send("b", [other])
        await process.send("a", [batch(record(1))])
        await process.send("a", [batch(record(2))])
        await process.send("b", [batch(record(3))])
        await process.close()
    seen = [
        m["schema"]["properties"]["id"]["type"] if m["type"] == "SCHEMA" else m["record"]["id"]
        for m in got(tmp_path)[1:]
    ]
    assert seen == ["integer", "string", "integer", 1, 2, "string", 3]


# -- cancelled senders


async def test_a_cancelled_sender_leaves_no_half_line_behind(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account, feeds=("load", "other"))
    slow = batch(record(1, do="time.sleep(0.5)"), *(record(n, pad=100_000) for n in range(2, 60)))
    async with running(account.runs(process)):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.send, "load", [slow, position(59)])
            await until(lambda: got_ids(tmp_path))
            tasks.cancel_scope.cancel()
        await process.send("other", [batch(record(100, stream="other"), stream="other")])
        await process.close()
    assert got_ids(tmp_path) == list(range(1, 60))  # `got` fails on half a line
    assert got_ids(tmp_path, "other") == [100]
    assert account.failures == []
    assert account.newest() == 59


async def test_a_sender_that_was_cancelled_before_its_turn_has_sent_nothing(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account, feeds=("load", "other"))
    slow = batch(record(1, do="time.sleep(0.5)"), *(record(n, pad=100_000) for n in range(2, 60)))
    async with running(account.runs(process)) as outer:
        outer.start_soon(process.send, "other", [slow])
        await until(lambda: got_ids(tmp_path))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.send, "load", rows(100, 101))
            await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()
        await process.close()
    assert got_ids(tmp_path) == list(range(1, 60))
    assert account.failures == []
    assert account.proven == []


async def test_a_run_that_is_cancelled_ends_a_stuck_target_and_its_sender(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account)
    pid = f"print(os.getpid(), file=sys.stderr, flush=True); {HANG}"
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(account.runs(process))
            tasks.start_soon(process.send, "load", [batch(record(1, do=pid)), *rows(2, 60, pad=100_000)])
            await until(lambda: account.log)
            tasks.cancel_scope.cancel()
        await until(lambda: gone(int(account.log[0])))
    assert account.proven == []
    assert account.failures == []
    assert left(tmp_path) == ["got.jsonl"]


# -- positions that are deferred


async def test_a_position_that_was_held_back_goes_out_when_its_source_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        await process.send("load", rows(1, 1))
        monkeypatch.setattr(process._input._account, "wants_place", lambda: False)
        await process.send("load", rows(2, 2))
        await process.send("load", rows(3, 3))
        await send_all(process)
    assert [
        m["value"]["bookmarks"]["users"]["id"]
        for m in got(tmp_path)
        if m["type"] == "STATE" and m["value"]["bookmarks"]
    ] == [1, 3]
    assert account.newest() == 3


def test_signals_are_what_they_are_called() -> None:
    assert signal.SIGTERM == 15  # HANG and others say so
    assert compact(b'{"a": 1}') == b'{"a":1}'
