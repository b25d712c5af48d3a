"""The thread of a transformer block: shared by routes, and ended with the last of them."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from streamline.blocks.python.file import BlockFile
from streamline.blocks.python.messages.caller import MessageSettings
from streamline.blocks.python.messages.transform import MessageTransform
from streamline.blocks.python.messages.worker import MessageWorker
from streamline.errors import PipelineFailed
from streamline.flow.items import Item, MessageBatch

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


CODE = """
import threading

seen = []

@transformer
def transform(messages, *args, **kwargs):
    seen.append(kwargs["stream"])
    return {"seen": list(seen), "thread": threading.get_ident()}
"""


async def through(stage: MessageTransform, stream: str) -> dict[str, object]:
    items: list[Item] = [*await stage.process(MessageBatch(stream, [{}])), *await stage.flush()]
    (batch,) = items
    assert isinstance(batch, MessageBatch)
    message: dict[str, object] = batch.data[0]
    return message


async def test_routes_share_the_block_and_a_later_attempt_starts_anew(tmp_path: Path) -> None:
    file = tmp_path / "enrich.py"
    file.write_text(CODE)
    worker = MessageWorker(MessageSettings(block=BlockFile("enrich", str(file))))
    first, second = MessageTransform(worker), MessageTransform(worker)
    for stage in (first, second):
        await stage.start()
    one, two = await through(first, "a"), await through(second, "b")
    assert (one["thread"], two["seen"]) == (two["thread"], ["a", "b"])
    await first.close()
    assert (await through(second, "c"))["seen"] == ["a", "b", "c"]
    await second.close()
    third = MessageTransform(worker)
    assert (await through(third, "d"))["seen"] == ["d"]
    await third.close()


async def test_what_is_taken_is_returned_while_the_function_works_on_the_next(tmp_path: Path) -> None:
    file, gate = tmp_path / "enrich.py", tmp_path / "go"
    file.write_text(
        "import pathlib, time\n\n\n@transformer\ndef transform(messages, *args, **kwargs):\n"
        f"    while messages[0] == 'slow' and not pathlib.Path({str(gate)!r}).exists():\n        time.sleep(0.01)\n"
        "    return messages\n"
    )
    stage = MessageTransform(MessageWorker(MessageSettings(block=BlockFile("enrich", str(file)))))
    with anyio.fail_after(30):
        out = list(await stage.process(MessageBatch("s", ["fast"])))
        while not out:
            out += await stage.process(MessageBatch("s", []))
        assert out[0] == MessageBatch("s", ["fast"])
        assert not await stage.process(MessageBatch("s", ["slow"]))
        assert stage.pending
        gate.touch()
        assert MessageBatch("s", ["slow"]) in await stage.flush()
    await stage.close()


async def test_calls_behind_one_that_takes_too_long_fail_with_it(tmp_path: Path) -> None:
    file = tmp_path / "enrich.py"
    file.write_text("import time\n\n\n@transformer\ndef transform(messages, **kwargs):\n    time.sleep(60)\n")
    worker = MessageWorker(MessageSettings(block=BlockFile("enrich", str(file)), timeout=0.1))
    first, second = MessageTransform(worker), MessageTransform(worker)
    with anyio.fail_after(30):
        for stage in (first, second):
            await stage.start()
        for stage in (first, second):
            await stage.process(MessageBatch("s", [1]))
        for stage in (second, first):
            with pytest.raises(PipelineFailed):
                await stage.flush()
    await first.close()
    await second.close()
