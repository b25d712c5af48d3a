"""A Python source, an identity transformer and a Python sink of a streaming pipeline: messages per second, no Kafka.

The source gives batches of 1 (which Streamline joins), 100 and 1,000 messages, each with a position. The reference is
the same source, function and sink in a plain loop. Mage moves 5,700, 64,000 and 61,000 a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from common import Options, Result, finish, interleaved

from streamline.blocks.python.file import BlockFile
from streamline.blocks.python.messages.caller import MessageSettings
from streamline.blocks.python.messages.transform import MessageTransform
from streamline.blocks.python.messages.worker import MessageWorker
from streamline.blocks.python.streaming import python_sink, python_source
from streamline.connectors.stream_connector import StreamContext
from streamline.flow.items import BadRecord
from streamline.flow.router import Route
from streamline.flow.runtime import Flow, Runtime

BARS = {1: 40_000, 100: 600_000, 1_000: 1_500_000}
SHARE = {1: 0.05, 100: 0.5, 1_000: 1.0}
"""Of the messages that are asked for, by batch."""

SOURCE = """\
@streaming_source
class Source:
    def batch_read(self, handler):
        for first in range(0, {messages}, {batch}):
            batch = [{{"id": number, "name": "left at the door"}} for number in range(first, first + {batch})]
            handler(batch, position=first + {batch})
"""
TRANSFORMER = """\
@transformer
def transform(messages: list[dict], *args, **kwargs) -> list[dict]:
    return messages
"""
SINK = """\
@streaming_sink
class Sink:
    count = 0

    def batch_write(self, messages):
        self.count += len(messages)

    def destroy(self):
        assert self.count == {messages}, self.count
"""
LOOP = """\
def run():
    count = 0
    for first in range(0, {messages}, {batch}):
        batch = [{{"id": number, "name": "left at the door"}} for number in range(first, first + {batch})]
        count += len(transform(batch))
    assert count == {messages}


def transform(messages):
    return messages
"""


class Store:
    """Keeps positions in memory: what the state store takes is measured elsewhere."""

    def save(
        self, source: str, parts: Mapping[str, bytes], refused: Sequence[BadRecord], number: int = 0
    ) -> Mapping[str, bytes]:
        """Everything is new."""
        return parts


def flow(folder: Path, messages: int, batch: int) -> float:
    """Seconds that the pipeline takes."""

    def block(name: str, code: str) -> BlockFile:
        path = folder / f"{name}.py"
        path.write_text(code.format(messages=messages, batch=batch))
        return BlockFile(name, str(path))

    def context(name: str) -> StreamContext:
        return StreamContext(pipeline="benchmark", block=name, root=folder)

    source = python_source(block("load", SOURCE), context("load"), {})
    sink = python_sink(block("export", SINK), context("export"), {})
    transform = MessageTransform(MessageWorker(MessageSettings(block=block("change", TRANSFORMER), batch_size=1_000)))
    runtime = Runtime([Flow(source=source, route=Route(stages=[transform], sinks=[sink]))], store=Store())
    started = time.perf_counter()
    (outcome,) = anyio.run(runtime.run)
    seconds = time.perf_counter() - started
    if outcome.error is not None:
        raise outcome.error
    return seconds


def loop(messages: int, batch: int) -> float:
    """Seconds that the plain loop takes."""
    names: dict[str, Callable[[], None]] = {}
    exec(LOOP.format(messages=messages, batch=batch), names)
    started = time.perf_counter()
    names["run"]()
    return time.perf_counter() - started


def main() -> None:
    """Measure each size of batch."""
    options = Options.parse(__doc__, records=2_000_000)
    results: list[Result] = []
    with TemporaryDirectory(dir=options.work) as folder:
        for batch, bar in BARS.items():
            messages = max(1, round(options.records * SHARE[batch] / batch)) * batch
            times = interleaved(
                {
                    "streamline": lambda messages=messages, batch=batch: flow(Path(folder), messages, batch),
                    "loop": lambda messages=messages, batch=batch: loop(messages, batch),
                },
                options.rounds,
                options.say,
            )
            details = {
                f"{name}, batches of {batch}": f"{messages / each.median:,.0f}/s" for name, each in times.items()
            }
            rate = messages / times["streamline"].median
            results.append(Result(f"batches of {batch:,}", rate, "messages/s", bar, details=details))
    finish(options, *results)


if __name__ == "__main__":
    main()
