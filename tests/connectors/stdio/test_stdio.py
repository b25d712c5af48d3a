"""The standard input and output as source and sink."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import pytest

from streamline.connectors.files.settings import RecordSettings
from streamline.connectors.stdio.sink import LineWriter, OutputClosed
from streamline.connectors.stdio.source import COUNT, Input, StdinSource
from streamline.flow.items import BadRecord, Item, MessageBatch, Position
from tests.support.batch import BatchProject

pytestmark = pytest.mark.anyio


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Input]:
    file = tmp_path / "in"
    file.write_bytes(b"1\n2\n3\n4")
    fd = os.open(file, os.O_RDONLY)
    yield Input(fd)
    os.close(fd)


async def values(source: StdinSource, *, fail_after: int = 100) -> list[bytes]:
    taken: list[Item] = []

    async def emit(items: Sequence[Item]) -> None:
        taken.extend(items)
        if len(taken) // 2 >= fail_after:
            raise OSError

    with anyio.move_on_after(20):
        with contextlib.suppress(OSError):
            await source.run(emit)
    return [value for item in taken if isinstance(item, MessageBatch) for value in item.data]


async def test_another_attempt_gives_again_what_is_not_proven(lines: Input) -> None:
    settings = RecordSettings(batch_size=1)
    first = StdinSource("load", settings, lines)
    assert await values(first, fail_after=3) == [b"1", b"2", b"3"]
    await first.confirm({COUNT: b"1"})
    assert await values(StdinSource("load", settings, lines)) == [b"2", b"3", b"4"]


def test_lines_are_written_in_order_and_what_has_no_text_is_refused(tmp_path: Path) -> None:
    refused: list[BadRecord] = []
    proven: dict[str, int] = {}
    with (tmp_path / "out").open("wb") as file:
        writer = LineWriter(
            "out", file.fileno(), lambda source, record: refused.append(record), proven.update, as_text=False
        )
        writer.take("load", MessageBatch("load", [{"a": 1}, object(), "text", None]))
        writer.reach("load", Position("load", 5, {}))
    assert (tmp_path / "out").read_bytes() == b'{"a":1}\n"text"\nnull\n'
    assert [record.stage for record in refused] == ["out"]
    assert proven == {"load": 5}


def test_the_command_is_a_filter(tmp_path: Path) -> None:
    project = BatchProject(tmp_path / "shop")
    project.type = "streaming"
    project.block("read", "connector_type: stdin\n", type="data_loader", language="yaml")
    project.block("write", "connector_type: stdout\n", type="data_exporter", language="yaml")
    project.save()
    completed = subprocess.run(
        [sys.executable, "-m", "streamline", "run", "p"],
        cwd=project.root,
        input=b'{"n": 1}\nno JSON\n{"n": 2}',
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert completed.stdout == b'{"n":1}\n{"n":2}\n'
    assert completed.returncode == 0, completed.stderr


def test_an_output_that_nobody_reads_is_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter("out", writing, lambda source, record: None, lambda numbers: None, as_text=True)
    with pytest.raises(OutputClosed):
        writer.take("load", MessageBatch("load", ["a"]))
    os.close(writing)
