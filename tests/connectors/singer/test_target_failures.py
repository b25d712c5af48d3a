"""A target that fails or does not end: what it proved before counts, and nobody waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamline.connectors.singer.target import TargetFailed, TargetRefused
from tests.connectors.singer.running import (
    ABORT,
    DEAF,
    DIE,
    HANG,
    STUCK,
    Account,
    batch,
    gone,
    kill,
    position,
    record,
    rows,
    running,
    send_all,
    target,
    until,
)
from tests.support.failures import fails

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient_target")]


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
        await until(lambda: process._child is None)
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
    reason = "print('no space left in tablespace', file=sys.stderr, flush=True)"
    process = target(tmp_path, account)
    async with running(account.runs(process)):
        await process.send("load", rows(1, 2))
        await process.send("load", [batch(record(3, do=f"import atexit; atexit.register(os._exit, 3); {reason}"))])
        await send_all(process)
    assert [failure.code for failure in account.failures] == ["target.exited"]
    assert "code 3" in account.failures[0].message
    assert "tablespace" in (account.failures[0].hint or "")
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
