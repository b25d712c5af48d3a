"""Counting per key and minute with `@window`: events per second, no broker.

Events are JSON texts with a time in ISO 8601, in four partitions; a minute has 500,000 of them. They are decoded and
put into windows, and the state that results is written to its local copy; what goes to the changelog and to the sink is
counted and dropped. Both forms of the decorator are measured: the function that gets a window's messages,
and the one that gets what `fold` made of them. The reference makes the same events, and counts them in a dict.
"""

from __future__ import annotations

import datetime as dt
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import orjson
from common import Options, Result, finish, interleaved

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from streamline.blocks.python.file import BlockFile
from streamline.blocks.python.messages.caller import MessageSettings
from streamline.blocks.python.messages.stateful import StatefulTransform
from streamline.blocks.python.messages.worker import MessageWorker
from streamline.connectors.kafka.serialization.json_text import JsonDecoder
from streamline.connectors.kafka.state_topic import KafkaState, StateTopicOptions
from streamline.flow.items import BadRecord, Item, MessageBatch, Origin, Position
from streamline.flow.protocols import Emit, Failed, Proven
from streamline.flow.router import Route
from streamline.flow.runtime import Flow, Runtime
from streamline.flow.stages.decode import DecodeStage
from tests.connectors.kafka.fake import CONNECTION, FakeCluster
from tests.connectors.kafka.running import settings

BAR = 150_000
KEYS = 100_000
PARTITIONS = 4
BATCH = 2_000
PER_MINUTE = 500_000
START = dt.datetime(2026, 11, 30, tzinfo=dt.UTC)

MESSAGES = """
@window(tumbling=60, key="user", time="at", lateness=5)
@transformer
def count(user, window, clicks, *args, **kwargs):
    return {"user": user, "minute": window.start.isoformat(), "clicks": len(clicks)}
"""
FOLD = """
@window(tumbling=60, key="user", time="at", lateness=5, fold=lambda clicks, message: clicks + 1, initial=0)
@transformer
def count(user, window, clicks, *args, **kwargs):
    return {"user": user, "minute": window.start.isoformat(), "clicks": clicks}
"""


def polls(events: int) -> Iterator[list[Origin]]:
    """Yield what a consumer reads at a time; it is made as cheaply as it can be, because it counts on all sides."""
    chosen = random.Random(7).choices(range(KEYS), k=1_000_003)
    keys = [b"user-%d" % user for user in range(KEYS)]
    starts = [b'{"user":"%b","at":"' % key for key in keys]
    offsets = [0] * PARTITIONS
    milliseconds, at = -1, b""
    for first in range(0, events, BATCH):
        origins = []
        for number in range(first, min(first + BATCH, events)):
            user = chosen[number % 1_000_003]
            partition = user % PARTITIONS
            now = number * 60_000 // PER_MINUTE
            if now != milliseconds:
                milliseconds = now
                at = (START + dt.timedelta(milliseconds=now)).isoformat(timespec="milliseconds").encode()
            value = starts[user] + at + b'","page":"/orders/9973"}'
            origins.append(Origin("clicks", partition, offsets[partition], keys[user], value))
            offsets[partition] += 1
        yield origins


class Source:
    """Gives polls as a Kafka source does."""

    id = "read"
    stopped = None

    def __init__(self, events: int) -> None:
        self._events = events

    async def run(self, emit: Emit) -> None:
        """Give everything."""
        ends: dict[str, bytes] = {}
        for number, origins in enumerate(polls(self._events), 1):
            for origin in origins[-PARTITIONS * 4 :]:
                ends[f"clicks/{origin.partition}"] = b"%d" % (origin.offset + 1)
            await emit(
                [
                    MessageBatch("clicks", [each.value for each in origins], origins),
                    Position("read", number, dict(ends)),
                ]
            )

    def stop(self, reason: str) -> None:
        """Go on."""

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """Nothing to do."""

    async def release(self, keys: Any) -> None:
        """Nothing to do."""


class Sink:
    """Counts what comes, and proves positions at once."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.messages = 0
        self.clicks = 0
        self._proven: Proven = lambda source, number: None

    async def run(self, proven: Proven, failed: Failed) -> None:
        """Prove by `send`."""
        self._proven = proven
        await anyio.sleep_forever()

    async def send(self, source: str, items: Sequence[Item]) -> None:
        """Count."""
        for item in items:
            if isinstance(item, MessageBatch) and (item.sink or "export") == self.id:
                self.messages += item.count
                if item.sink is None:
                    self.clicks += sum(each["clicks"] for each in item.data)
            elif isinstance(item, Position):
                self._proven(source, item.number)

    async def source_ended(self, source: str) -> None:
        """Nothing is held back."""

    def limit(self, seconds: float) -> None:
        """Nothing takes long."""

    async def close(self) -> None:
        """Everything is proven."""


class Store:
    """Keeps no positions."""

    def save(
        self, source: str, parts: Mapping[str, bytes], refused: Sequence[BadRecord], number: int = 0
    ) -> Mapping[str, bytes]:
        """Everything is new."""
        assert not refused, refused[0]
        return parts


def window(folder: Path, code: str, events: int) -> tuple[float, int, int]:
    """Return the seconds that the pipeline takes, how many windows it closed, and how many changes of state it had."""
    with TemporaryDirectory(dir=folder) as work:
        path = Path(work) / "count.py"
        path.write_text(code)
        cluster = FakeCluster()
        cluster.create("clicks", PARTITIONS)
        options = StateTopicOptions(
            block="count",
            pipeline="p",
            connection=CONNECTION,
            topic="p.count.state",
            sources=[settings(topics=("clicks",))],
            folder=Path(work),
        )
        worker = MessageWorker(
            MessageSettings(
                block=BlockFile("count", str(path)), batch_size=BATCH, state=lambda: KafkaState(cluster, options)
            )
        )
        stage = StatefulTransform(worker, "log", interval=1.0)
        sink, log = Sink("export"), Sink("log")

        async def saved(position: Position, moved: Mapping[str, bytes]) -> None:
            stage.saved(position, moved)

        route = Route([DecodeStage(JsonDecoder()), stage], [sink, log])
        runtime = Runtime([Flow(source=Source(events), route=route)], store=Store(), on_saved=saved)
        started = time.perf_counter()
        (outcome,) = anyio.run(runtime.run)
        seconds = time.perf_counter() - started
        if outcome.error is not None:
            raise outcome.error
        return seconds, sink.messages, log.messages


def loop(events: int) -> tuple[float, int]:
    """Return the seconds of the reference, and how many windows it closed."""
    started = time.perf_counter()
    minutes: dict[int, dict[str, int]] = {}
    highest = 0.0
    rows = []
    for origins in polls(events):
        for origin in origins:
            data = orjson.loads(origin.value or b"")
            at = dt.datetime.fromisoformat(data["at"]).timestamp()
            counts = minutes.setdefault(int(at // 60), {})
            counts[data["user"]] = counts.get(data["user"], 0) + 1
            highest = max(highest, at)
        for minute in [minute for minute in minutes if minute * 60 + 65 <= highest]:
            start = dt.datetime.fromtimestamp(minute * 60, dt.UTC).isoformat()
            closed = minutes.pop(minute).items()
            rows += [{"user": user, "minute": start, "clicks": clicks} for user, clicks in closed]
    return time.perf_counter() - started, len(rows)


def main() -> None:
    """Measure both forms."""
    options = Options.parse(__doc__, records=5_000_000, rounds=3)
    events = options.records
    closed: dict[str, int] = {}
    details: dict[str, str] = {}
    with TemporaryDirectory(dir=options.work) as folder:

        def form(name: str, code: str) -> float:
            seconds, closed[name], changes = window(Path(folder), code, events)
            details[name] = f"{closed[name]:,} windows, {changes:,} changes of state"
            return seconds

        def reference() -> float:
            seconds, closed["loop"] = loop(events)
            return seconds

        sides = {
            "fold": lambda: form("fold", FOLD),
            "messages": lambda: form("messages", MESSAGES),
            "loop": reference,
        }
        times = interleaved(sides, options.rounds, options.say, warm_up=False)
    details |= {f"{name}, rate": f"{events / each.median:,.0f} events/s" for name, each in times.items()}
    finish(
        options,
        *(
            Result(f"count per key and minute, {name}", events / times[name].median, "events/s", BAR, details=details)
            for name in ("fold", "messages")
        ),
    )


if __name__ == "__main__":
    main()
