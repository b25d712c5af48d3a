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
from streamline.connectors.singer.target import TargetFailed, TargetProcess, TargetRefused
from streamline.connectors.singer.target_input import Feed
from streamline.flow.items import ActivateVersion, Item, Position, RowBatch, Schema
from tests.connectors.singer.running import (
    PATIENCE,
    TARGET,
    Account,
    batch,
    bookmark,
    compact,
    gone,
    got,
    got_ids,
    kill,
    left,
    position,
    record,
    running,
    schema,
    target,
    until,
)
from tests.support.failures import fails

pytestmark = pytest.mark.anyio

SOON = 0.5
ABORT = "os._exit(0)"
DIE = "os._exit(7)"
DEAF = "os.close(0); time.sleep(60)"
STUCK = "time.sleep(60)"
HANG = "signal.signal(15, signal.SIG_IGN); time.sleep(60)"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits ten seconds for what ignores TERM."""
    for name in ("TERM_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(target_module, name, SOON)


def rows(first: int, last: int, **more: int) -> list[Item]:
    """A batch of records and the position after them."""
    return [batch(*(record(n, pad=more.get("pad", 0)) for n in range(first, last + 1))), position(last)]


async def send_all(process: TargetProcess, *parts: list[Item], source: str = "load") -> None:
    """Send, end the source, close."""
    for items in parts:
        await process.send(source, items)
    await process.source_ended(source)
    await process.close()


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


async def test_rows_are_written_as_records(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        await send_all(process, [schema(), RowBatch("users", [{"id": 1}, {"id": 2}]), position(2)])
    assert got_ids(tmp_path) == [1, 2]
    assert account.newest() == 2


# -- how it fails


@pytest.mark.parametrize(
    ("crash", "code"),
    [
        (ABORT, "target.exited_early"),
        (DIE, "target.exited_early"),
        ("os.kill(os.getpid(), 9)", "target.killed"),
        (DEAF, "target.exited_early"),
    ],
)
async def test_ending_before_its_input_does_is_a_failure_for_everyone_who_sends(
    tmp_path: Path, crash: str, code: str
) -> None:
    account = Account()
    process = target(tmp_path, account, feeds=("load", "other"))
    raised: list[TargetFailed] = []

    async def flood(source: str) -> None:
        try:
            while True:
                await process.send(source, [batch(record(9, pad=300_000, stream=source), stream=source)])
        except TargetFailed as error:
            raised.append(error)

    async with running(account.runs(process)) as tasks:
        await process.send("load", rows(1, 2))
        await until(lambda: account.newest() == 2)
        await process.send("load", [batch(record(3, do=crash)), position(3)])
        tasks.start_soon(flood, "load")
        tasks.start_soon(flood, "other")
        await until(lambda: len(raised) == 2)
        await process.close()
    assert len(account.failures) == 1
    assert [error.code for error in raised] == [code, code]
    assert account.newest() == 2


async def test_exiting_with_0_between_two_batches_is_a_failure_though_nothing_is_being_sent(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        await process.send("load", [batch(record(1, do=ABORT)), position(1)])
        await until(lambda: account.failures)
        await process.close()
    assert [failure.code for failure in account.failures] == ["target.exited_early"]
    assert "code 0" in account.failures[0].message
    assert account.proven == []


async def test_an_exit_before_the_end_of_its_input_is_none_after_it_however_late_it_is_seen(tmp_path: Path) -> None:
    # A daemon keeps its output open: the engine listens to that for a while, and is asked to close meanwhile.
    account = Account()
    daemon = (
        "subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(60)'], start_new_session=True)"
    )
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        await process.send("load", [batch(record(1, do=f"print({daemon}.pid, file=sys.stderr); {ABORT}")), position(1)])
        await until(lambda: account.log and gone(process._child.pid if process._child else 0))
        await process.close()
    kill(int(account.log[0]))
    assert account.failures
    assert account.proven == []


async def test_exiting_with_0_and_leaving_input_unread_is_a_failure(tmp_path: Path) -> None:
    account = Account()
    code = "import os, time\nwhile b'RECORD' not in os.read(0, 100): pass\ntime.sleep(0.3)"
    process = target(tmp_path, account, code)
    async with running(account.runs(process)):
        await send_all(process, *(rows(n, n) for n in range(1, 50)))
    assert [failure.code for failure in account.failures] == ["target.exited_early"]
    assert "unread" in account.failures[0].message
    assert account.proven == []


async def test_failing_after_the_end_of_its_input_keeps_what_was_echoed(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        await process.send("load", rows(1, 2))
        await process.send("load", [batch(record(3, do="import atexit; atexit.register(os._exit, 3)"))])
        await send_all(process)
    assert [failure.code for failure in account.failures] == ["target.exited"]
    assert "code 3" in account.failures[0].message
    assert account.newest() == 2


async def test_a_program_that_is_not_there_is_named_and_nobody_waits_for_it(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account)
    process._command = type(process._command)(
        id="export", name="target-x", argv=["/no/such/target"], env={}, cwd=tmp_path, config={}
    )
    async with running(account.runs(process)):
        with fails("target.not_started", "/no/such/target"):
            await process.send("load", rows(1, 2))
        await process.close()
    assert account.proven == []


async def test_after_a_failure_nothing_is_proven_any_more(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        await process.send("load", [batch(record(1, do=DIE)), position(1)])
        await until(lambda: account.failures)
        for number in (2, 3):
            with pytest.raises(TargetFailed):
                await process.send("load", rows(number, number))
        await process.close()
    assert account.proven == []
    assert (account.sent, account.confirmed) == ({"users": 1}, {})


async def test_a_daemon_that_holds_its_input_does_not_hold_who_sends(tmp_path: Path) -> None:
    account = Account()
    fork = (
        "import subprocess; print(subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(60)'],"
        f" start_new_session=True).pid, file=sys.stderr, flush=True); {DIE}"
    )
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        with fails("target.exited_early", "code 7"):
            await process.send("load", [batch(record(1, do=fork)), *rows(2, 40, pad=100_000)])
    kill(int(account.log[0]))
    assert account.proven == []


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
    assert left(tmp_path) == ["got.jsonl"]


# -- its end


async def test_it_is_ended_if_it_takes_too_long_after_its_input(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account, drain_seconds=0.2)
    async with running(account.runs(process)):
        await process.send("load", rows(1, 1))
        await until(lambda: account.newest() == 1)
        await send_all(process, [batch(record(2, do=HANG)), position(2)])
    assert "in time" in account.failures[0].message
    assert account.newest() == 1


async def test_ending_well_only_because_it_was_told_to_proves_nothing(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account, drain_seconds=0.2)
    obey = "signal.signal(15, lambda *_: os._exit(0)); time.sleep(60)"
    async with running(account.runs(process)):
        await send_all(process, [batch(record(2, do=obey)), position(2)])
    assert account.failures
    assert account.proven == []


@pytest.mark.parametrize("crash", [STUCK, HANG])
async def test_a_limit_ends_a_target_that_takes_nothing_any_more(tmp_path: Path, crash: str) -> None:
    account = Account()
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        process.limit(0.3)
        with fails("target.timed_out"):
            await process.send("load", [batch(record(1, do=crash)), *rows(2, 60, pad=100_000)])
        await process.close()
    assert account.proven == []


async def test_a_process_that_lives_longer_than_its_timeout_is_ended(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account, timeout=0.3)
    async with running(account.runs(process)):
        with fails("target.timed_out", "0.3 s"):
            await process.send("load", [batch(record(1, do=STUCK)), *rows(2, 60, pad=100_000)])
        await process.close()
    assert account.proven == []


async def test_a_target_that_refuses_its_config_is_not_worth_another_attempt(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account, "import sys\nsys.exit('ERROR Config validation failed: path')")
    async with running(account.runs(process)):
        await until(lambda: account.failures)
        await process.close()
    (failure,) = account.failures
    assert isinstance(failure, TargetRefused)
    assert (failure.code, "exit code 1" in failure.message) == ("target.config_refused", True)


async def test_what_it_forked_ends_with_it(tmp_path: Path) -> None:
    account = Account()
    fork = (
        "print(subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(60)']).pid,"
        " file=sys.stderr, flush=True)"
    )
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        await send_all(process, [batch(record(1, do=fork)), position(1)])
        await until(lambda: gone(int(account.log[0])))
    assert account.newest() == 1
    assert account.failures == []


async def test_a_target_that_floods_its_log_and_its_output_is_read_to_its_end(tmp_path: Path) -> None:
    account = Account()
    flood = "[(os.write(2, b'noise\\n' * 9_000), os.write(1, b'noise\\n' * 9_000)) for _ in range(30)]"
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        await send_all(process, [batch(record(1, do=flood)), position(1)])
    assert account.newest() == 1
    assert len(account.log) == 2 * 30 * 9_000


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


# -- sessions


async def test_sessions_prove_a_silent_target_and_lose_nothing(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account, echo=False, session_interval=0.05)
    async with running(account.runs(process)):
        await process.send("load", [schema()])
        number = 0
        while len([m for m in got(tmp_path) if m["type"] == "SCHEMA"]) < 4:
            number += 1
            await process.send("load", rows(number, number))
            await anyio.sleep(0.01)
        proven = account.newest()
        assert proven > 0
        await send_all(process)
    assert got_ids(tmp_path) == list(range(1, number + 1))
    assert account.newest() == number
    assert account.failures == []
    # Each session begins with a proven state, then the schemas.
    kinds = [m["type"] for m in got(tmp_path)]
    starts = [at for at in range(len(kinds) - 1) if kinds[at : at + 2] == ["STATE", "SCHEMA"]]
    assert len(starts) == kinds.count("SCHEMA")
    assert starts[0] == 0


async def test_a_session_begins_when_the_one_before_has_ended(tmp_path: Path) -> None:
    account = Account()
    code = f"""
import os
lock = os.open("lock", os.O_CREAT | os.O_EXCL)
ECHO = False
{target_code()}
time.sleep(0.2)
os.unlink("lock")
"""
    process = target(tmp_path, account, code, session_interval=0.05)
    async with running(account.runs(process)):
        for number in range(1, 60):
            await process.send("load", rows(number, number))
            await anyio.sleep(0.01)
        await send_all(process)
    assert account.failures == []
    assert got_ids(tmp_path) == list(range(1, 60))
    assert account.newest() == 59


def target_code() -> str:
    from tests.connectors.singer.running import TARGET

    return TARGET


async def test_senders_wait_while_sessions_change_and_so_does_the_end_of_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    code = f"ECHO = False\n{target_code()}\ntime.sleep(0.3)"
    process = target(tmp_path, account, code, feeds=("load", "other"), session_interval=0.05)
    async with running(account.runs(process)):
        await process.send("other", [batch(record(1))])
        monkeypatch.setattr(process._input._account, "wants_place", lambda: False)
        await process.send("load", [batch(record(2)), position(2)])
        await until(lambda: process._closing)  # the first session has been told to end, and takes its time
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.source_ended, "load")
            tasks.start_soon(process.send, "other", [batch(record(3))])
        await process.close()
    assert account.failures == []
    assert got_ids(tmp_path) == [1, 2, 3]
    assert account.newest("load") == 2


async def test_a_session_that_fails_keeps_what_the_sessions_before_proved(tmp_path: Path) -> None:
    account = Account()
    process = target(tmp_path, account, echo=False, session_interval=0.05)
    async with running(account.runs(process)):
        await process.send("load", rows(1, 1))
        await until(lambda: account.newest() == 1)
        with pytest.raises(TargetFailed):
            await process.send("load", [batch(record(2, do=DIE)), position(2)])
            while True:
                await process.send("load", rows(3, 3))
        await process.close()
    assert account.newest() == 1


async def test_closing_while_a_session_changes_starts_no_other(tmp_path: Path) -> None:
    account = Account()
    code = f"ECHO = False\n{target_code()}\ntime.sleep(0.2)"
    process = target(tmp_path, account, code, session_interval=0.05)
    async with running(account.runs(process)):
        await process.send("load", rows(1, 1))
        await until(lambda: process._closing)
        await send_all(process)
    assert account.failures == []
    assert account.newest() == 1


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


def test_signals_are_what_they_are_called() -> None:
    assert signal.SIGTERM == 15  # HANG and others above say so
    assert compact(b'{"a": 1}') == b'{"a":1}'


@pytest.mark.parametrize("prestart", [False, True])
async def test_the_next_sessions_process_may_be_started_ahead_but_is_told_nothing_before_the_end_of_the_one_before(
    tmp_path: Path, prestart: bool
) -> None:
    account = Account()
    code = """
import json, os, sys, time
def note(word):
    with open("events", "a") as file: file.write(f"{word} {os.getpid()}\\n")
note("start")
first = True
for line in sys.stdin:
    if first: note("first")
    first = False
    open("got.jsonl", "a").write(line)
words = lambda: [line.split()[0] for line in open("events")]
until = time.monotonic() + WAIT
while time.monotonic() < until and words().count("start") < words().count("end") + 2: time.sleep(0.01)
note("end")
""".replace("WAIT", "2" if prestart else "0.2")
    process = target(tmp_path, account, code, session_interval=0.05, prestart=prestart)

    def events() -> list[str]:
        return (tmp_path / "events").read_text().split("\n")[:-1] if (tmp_path / "events").exists() else []

    async with running(account.runs(process)):
        for number in range(1, 4):
            await process.send("load", rows(number, number))
            await until(lambda number=number: account.newest() == number)
        await send_all(process)
    assert account.failures == []
    assert got_ids(tmp_path) == [1, 2, 3]
    words = [event.split()[0] for event in events()]
    ends = [at for at, word in enumerate(words) if word == "end"]
    for before, end in enumerate(ends):
        # As many sessions have got a byte as have ended before, and this one.
        assert words[:end].count("first") == before + 1
        if end != ends[-1]:
            assert words[:end].count("start") == before + (2 if prestart else 1)
    assert not [event for event in events() if event.startswith("start") and not gone(int(event.split()[1]))]
