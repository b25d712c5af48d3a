"""A stage of a transformer's code, run as the router runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamline.blocks.python.file import BlockFile
from streamline.blocks.python.messages.caller import MessageSettings
from streamline.blocks.python.messages.transform import MessageTransform
from streamline.blocks.python.messages.worker import MessageWorker
from streamline.flow.items import Item

Run = Callable[..., list[Item]]


@pytest.fixture
def transform(tmp_path: Path) -> Run:
    """Run items through a stage of a function's body."""

    def run(body: str, items: Iterable[Item], *, signature: str = "messages: list[dict]", **options: Any) -> list[Item]:
        path = tmp_path / "enrich.py"
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        head = options.pop("head", "")
        path.write_text(f"{head}\n\n\n@transformer\ndef transform({signature}, *args, **kwargs):\n{lines}")
        set_aside = options.pop("set_aside", True)
        worker = MessageWorker(MessageSettings(block=BlockFile("enrich", str(path)), **options))

        async def cook() -> list[Item]:
            stage = MessageTransform(worker, set_aside=set_aside)
            out: list[Item] = []
            try:
                await stage.start()
                for item in items:
                    out += await stage.process(item)
                out += await stage.finish()
            finally:
                await stage.close()
            return out

        return anyio.run(cook)

    return run
