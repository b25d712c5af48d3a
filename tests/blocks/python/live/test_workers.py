"""Transformer blocks that run in worker processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest

from streamline.blocks.python.live.transform import TransformStage
from streamline.errors import ConfigError, PipelineFailed
from streamline.flow.items import Item
from tests.blocks.python.live.kitchen import INTEGER, STRING, Kitchen, code, position, records, rows_of, schema
from tests.processes.pools import alive
from tests.support.failures import fails
from tests.support.processes import wait_until


def test_worker_processes_keep_the_order(kitchen: Kitchen) -> None:
    slow_first = code("import time\ntime.sleep(0.3 if rows[0]['id'] == 0 else 0)\nreturn rows")
    items: list[Item] = [schema(id=INTEGER)]
    for number in range(6):
        items += [records({"id": number}), position(number + 1)]
    out = kitchen.run(slow_first, items, flush_each=False, configuration={"workers": 3, "batch_rows": 1})
    assert [row["id"] for row in rows_of(out)] == list(range(6))
    assert out[-1] == position(6)


def test_code_that_ends_its_worker_process_fails_the_block(kitchen: Kitchen) -> None:
    with fails("block.exited", "mask", "code 7"):
        kitchen.run(code("import os\nos._exit(7)"), [schema(), records({"id": 1})], configuration={"workers": 1})


def test_a_crash_in_a_worker_process_names_the_line(kitchen: Kitchen) -> None:
    with pytest.raises(PipelineFailed) as caught:
        kitchen.run(code("import os\nos.abort()"), [schema(), records({"id": 1})], configuration={"workers": 1})
    assert caught.value.code == "block.crashed"
    assert caught.value.where == f"{kitchen.folder / 'mask.py'}:7"


def test_worker_processes_keep_what_the_block_holds_and_end_with_all_that_it_started(kitchen: Kitchen) -> None:
    head = """
import os, subprocess, threading
from tests.support.failures import fails
calls = 0
os.environ["SEEN"] = "yes"
child = subprocess.Popen(["sleep", "600"])
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
    body = "global calls\ncalls += 1\nreturn [{'id': calls, 'seen': os.environ['SEEN'], 'pid': child.pid}]"
    out = kitchen.run(
        code(body, head=head),
        [schema(id=INTEGER, seen=STRING, pid=INTEGER), *(records({"id": 0}) for _ in range(3))],
        configuration={"workers": 1},
    )
    rows = rows_of(out)
    assert [(row["id"], row["seen"]) for row in rows] == [(1, "yes"), (2, "yes"), (3, "yes")]
    assert not alive(rows[0]["pid"])


def test_a_worker_process_that_is_killed_between_two_calls_fails_the_block(kitchen: Kitchen) -> None:
    def killed(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "its parent has seen its end")

    async def cook() -> None:
        stage = TransformStage(
            kitchen.block(code("return [{'id': os.getpid()}]", head="import os")), configuration={"workers": 1}
        )
        try:
            await stage.process(schema(id=INTEGER))
            for _ in range(2):
                await stage.process(records({"id": 0}))
                killed(rows_of(await stage.flush())[0]["id"])
        finally:
            await stage.close()

    with pytest.raises(PipelineFailed) as caught:
        anyio.run(cook)
    # A call that was sent to it before the pool saw its end fails with the signal.
    assert caught.value.code in ("block.worker_state_lost", "block.killed")


def test_keyword_arguments_that_cannot_be_sent_to_a_worker_process_are_refused(kitchen: Kitchen) -> None:
    with pytest.raises(ConfigError) as caught:
        kitchen.run(
            code("return rows"),
            [schema(), records({"id": 1})],
            configuration={"workers": 1},
            keywords={"f": lambda: None},
        )
    assert caught.value.code == "block.unpicklable_arguments"


def test_what_a_worker_process_prints_does_not_get_between(kitchen: Kitchen) -> None:
    out = kitchen.run(
        code("print('x' * 100_000)\nreturn rows"),
        [schema(id=INTEGER), records({"id": 1})],
        configuration={"workers": 1},
    )
    assert rows_of(out) == [{"id": 1}]
