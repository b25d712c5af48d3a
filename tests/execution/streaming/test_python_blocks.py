"""Pipelines of Python blocks, run by the engine: graphs, bad messages at every stage, and what a later run reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamline.state import project_store
from tests.execution.streaming.conftest import Stream

SOURCE = """
from streamline.decorators import streaming_source


@streaming_source
class Source:
    def batch_read(self, handler):
        for first in range(self.position or 0, {count}, 100):
            handler([{{"n": number}} for number in range(first, first + 100)], position=first + 100)
"""
SINK = """
import json

from streamline.decorators import streaming_sink


@streaming_sink
class Sink:
    def init_client(self):
        self.file = open({path!r}, "a")

    def batch_write(self, messages):
        assert not any(message["n"] % 1_000 == {bad} for message in messages)
        self.file.writelines(json.dumps(message) + "\\n" for message in messages)
        self.file.flush()

    def destroy(self):
        self.file.close()
"""
TRANSFORMER = """
@transformer
def change(messages: list[dict], *args, **kwargs):
    for message in messages:
        message["{key}"] = 1 // (message["n"] % 1_000 - {bad})
    return messages
"""


class Blocks:
    """A pipeline: a source, transformers and sinks in Python."""

    def __init__(self, stream: Stream, folder: Path) -> None:
        self.stream = stream
        self.folder = folder

    def source(self, count: int) -> None:
        self.stream.files.block("load", SOURCE.format(count=count), type="data_loader", language="python", upstream=[])

    def transformer(self, uuid: str, upstream: list[str], bad: int) -> None:
        self.stream.transformer(uuid, TRANSFORMER.format(key=uuid, bad=bad), upstream)

    def sink(self, uuid: str, upstream: list[str], bad: int = -1) -> None:
        code = SINK.format(path=str(self.folder / uuid), bad=bad)
        self.stream.files.block(uuid, code, type="data_exporter", language="python", upstream=upstream)

    def got(self, uuid: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / uuid).read_text().splitlines()]

    def numbers(self, uuid: str) -> list[int]:
        return [message["n"] for message in self.got(uuid)]


@pytest.fixture
def blocks(stream: Stream, tmp_path: Path) -> Blocks:
    return Blocks(stream, tmp_path)


def test_bad_messages_at_every_stage_are_dead_letters_and_all_others_arrive_in_order(blocks: Blocks) -> None:
    blocks.source(5_000)
    blocks.transformer("first", ["load"], bad=7)
    blocks.transformer("second", ["first"], bad=8)
    blocks.sink("one", ["second"], bad=9)
    blocks.sink("two", ["first"])
    assert blocks.stream.run().status == "completed"
    assert blocks.numbers("one") == [n for n in range(5_000) if n % 1_000 not in (7, 8, 9)]
    assert blocks.numbers("two") == [n for n in range(5_000) if n % 1_000 != 7]
    assert not any("second" in message for message in blocks.got("two"))
    with project_store(blocks.stream.project) as store:
        letters = store.dead_letters("p")
    assert sorted((letter.stage, json.loads(letter.record)["n"]) for letter in letters) == [
        (stage, bad + thousand)
        for stage, bad in (("first", 7), ("one", 9), ("second", 8))
        for thousand in range(0, 5_000, 1_000)
    ]


def test_a_later_run_goes_on_after_the_saved_position(blocks: Blocks) -> None:
    blocks.source(300)
    blocks.sink("one", ["load"])
    assert blocks.stream.run().status == "completed"
    (blocks.stream.files.root / "data_loaders" / "load.py").write_text(SOURCE.format(count=500))
    assert blocks.stream.run().status == "completed"
    assert blocks.numbers("one") == list(range(500))


def test_with_stop_nothing_after_a_bad_message_arrives(blocks: Blocks) -> None:
    blocks.stream.keys(on_error="stop")
    blocks.source(500)
    blocks.sink("one", ["load"], bad=250)
    assert blocks.stream.run().status == "failed"
    assert blocks.numbers("one") == list(range(250))


@pytest.mark.parametrize("package", ["", "default_repo."])
def test_blocks_import_modules_of_the_project(blocks: Blocks, package: str) -> None:
    """Also while they run, and under Mage's name."""
    (blocks.stream.files.root / "shop_names").mkdir()
    (blocks.stream.files.root / "shop_names" / "words.py").write_text("def upper(text):\n    return text.upper()\n")
    blocks.source(100)
    blocks.stream.transformer(
        "change",
        "@transformer\ndef change(messages: list[dict], *args, **kwargs):\n"
        f"    from {package}shop_names.words import upper\n\n"
        "    return [{**message, 'word': upper('a')} for message in messages]\n",
        ["load"],
    )
    blocks.sink("one", ["change"])
    assert blocks.stream.run().status == "completed"
    assert {message["word"] for message in blocks.got("one")} == {"A"}
