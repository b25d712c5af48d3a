"""Sessions: a target that proves nothing before its exit is closed and started again within a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from streamline.connectors.singer.target import TargetFailed
from tests.connectors.singer.running import (
    DIE,
    PATIENCE,
    TARGET,
    Account,
    batch,
    gone,
    got,
    got_ids,
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
{TARGET}
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


async def test_senders_wait_while_sessions_change_and_so_does_the_end_of_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    code = f"ECHO = False\n{TARGET}\ntime.sleep(0.3)"
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
    code = f"ECHO = False\n{TARGET}\ntime.sleep(0.2)"
    process = target(tmp_path, account, code, session_interval=0.05)
    async with running(account.runs(process)):
        await process.send("load", rows(1, 1))
        await until(lambda: process._closing)
        await send_all(process)
    assert account.failures == []
    assert account.newest() == 1


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
    assert account.log == []
    assert got_ids(tmp_path) == [1, 2, 3]
    words = [event.split()[0] for event in events()]
    ends = [at for at, word in enumerate(words) if word == "end"]
    for before, end in enumerate(ends):
        # As many sessions have got a byte as have ended before, and this one.
        assert words[:end].count("first") == before + 1
        if end != ends[-1]:
            assert words[:end].count("start") == before + (2 if prestart else 1)
    assert not [event for event in events() if event.startswith("start") and not gone(int(event.split()[1]))]


async def test_a_process_that_was_started_ahead_and_has_exited_is_replaced(tmp_path: Path) -> None:
    account = Account()
    code = f"""
import os, pathlib, sys, time
with open("pids", "a") as file: file.write(f"{{os.getpid()}}\\n")
pids = lambda: open("pids").read().split()
stat = lambda pid: pathlib.Path(f"/proc/{{pid}}/stat")
first = len(pids()) == 1
if len(pids()) == 2: os._exit(1)
ECHO = False
{TARGET}
while first and len(pids()) < 2: time.sleep(0.01)
while first and stat(pids()[1]).exists() and ") Z" not in stat(pids()[1]).read_text(): time.sleep(0.01)
"""
    process = target(tmp_path, account, code, session_interval=0.05, prestart=True)
    async with running(account.runs(process)):
        for number in (1, 2):
            await process.send("load", rows(number, number))
            await until(lambda number=number: account.newest() == number)
        await send_all(process)
    assert account.failures == []
    assert got_ids(tmp_path) == [1, 2]


@pytest.mark.parametrize(("seconds", "unproven", "closed"), [(0.04, True, True), (0.0, True, False), (9, False, False)])
async def test_a_session_is_closed_after_an_interval_without_proof_of_what_it_was_sent(
    tmp_path: Path, seconds: float, unproven: bool, closed: bool
) -> None:
    process = target(tmp_path, Account())
    process._input = SimpleNamespace(seconds_without_proof=seconds, unproven=unproven)  # type: ignore[assignment]
    with anyio.move_on_after(PATIENCE if closed else 0.05):
        await process._close_sessions(0.04, tmp_path)
    assert process._closing is closed
