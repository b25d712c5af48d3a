"""Kafka → identity transformer → Kafka on a real broker, against a hand-written loop on the same client library.

Messages are JSON of 200 bytes in three partitions. Both sides are whole commands: they start, join a new group, and end
when all that was there has been produced again and its offsets are committed. The broker shares the machine.

The loop: consume(5000) → orjson.loads → orjson.dumps → produce → flush → commit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from common import Options, Result, finish, interleaved, streamline_command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.services.kafka import KafkaCluster

PARTITIONS = 3
SLOWER = 4
"""kafka-python gets this part of the messages: enough for the start of a command to weigh little."""

BARS = {"confluent": (0.7, 0.9), "kafka-python": (0.85, None)}
EXACTLY_ONCE_BAR = 0.95

CONFLUENT_LOOP = """\
import sys

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

servers, source, target, group, count = sys.argv[1:6]
left = int(count)
consumer = Consumer({
    "bootstrap.servers": servers, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
})
producer = Producer({
    "bootstrap.servers": servers, "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 5,
    "queue.buffering.max.messages": 1_000_000,
})
consumer.subscribe([source])
while left:
    messages = consumer.consume(5000, 1.0)
    if not messages:
        continue
    offsets = {}
    for message in messages:
        data = orjson.loads(message.value())
        producer.produce(target, orjson.dumps(data), message.key())
        offsets[message.partition()] = message.offset() + 1
    assert producer.flush() == 0
    consumer.commit(offsets=[TopicPartition(source, *each) for each in offsets.items()], asynchronous=False)
    left -= len(messages)
consumer.close()
"""

KAFKA_PYTHON_LOOP = """\
import sys

import orjson
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata

servers, source, target, group, count = sys.argv[1:6]
left = int(count)
consumer = KafkaConsumer(
    source, bootstrap_servers=servers, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
    max_poll_records=5000,
)
producer = KafkaProducer(bootstrap_servers=servers, linger_ms=5, batch_size=1 << 18)
while left:
    polled = consumer.poll(1000, 5000)
    futures, offsets = [], {}
    for partition, messages in polled.items():
        for message in messages:
            data = orjson.loads(message.value)
            futures.append(producer.send(target, orjson.dumps(data), message.key))
        offsets[partition] = OffsetAndMetadata(messages[-1].offset + 1, "", -1)
        left -= len(messages)
    producer.flush()
    assert all(future.succeeded() for future in futures)
    if offsets:
        consumer.commit(offsets)
consumer.close()
"""

TRANSFORMER = """\
from streamline.decorators import transformer


@transformer
def transform(messages: list[dict], *args, **kwargs) -> list[dict]:
    return messages
"""


def message(number: int) -> bytes:
    """JSON of 200 bytes."""
    data = {"id": number, "customer": f"customer number {number % 9973}", "status": "packed", "total": number % 500}
    text = json.dumps(data, separators=(",", ":"))
    return (text[:-1] + ',"note":"').encode() + b"x" * (200 - len(text) - 10) + b'"}'


class Bench:
    """A broker with the messages, and a project.

    Args:
        folder: of the project.
    """

    def __init__(self, folder: Path, kafka: KafkaCluster) -> None:
        self.folder = folder
        self._kafka = kafka
        self._runs = 0

    def fill(self, count: int) -> str:
        """Make a topic of so many messages."""
        from confluent_kafka import Producer

        topic = self._kafka.create_topic(partitions=PARTITIONS)
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap, "linger.ms": 20, "compression.type": "none"})
        for number in range(count):
            while len(producer) > 90_000:
                producer.poll(0.05)
            producer.produce(topic, message(number), b"%d" % (number % 9973))
        producer.flush()
        return topic

    def loop(self, code: str, source: str, count: int) -> float:
        """Seconds that the hand-written loop takes."""
        target = self._kafka.create_topic(partitions=PARTITIONS)
        script = self.folder / "loop.py"
        script.write_text(code)
        arguments = [self._kafka.bootstrap, source, target, self._group(), str(count)]
        return self._time([sys.executable, str(script), *arguments], target, count)

    def streamline(self, client: str, delivery: str, source: str, count: int) -> float:
        """Seconds that `streamline run --until-caught-up` takes."""
        target = self._kafka.create_topic(partitions=PARTITIONS)
        common = {"connector_type": "kafka", "bootstrap_server": self._kafka.bootstrap, "client": client}
        blocks = [
            {"uuid": "read", "type": "data_loader", "language": "yaml"},
            {"uuid": "change", "type": "transformer", "upstream_blocks": ["read"]},
            {"uuid": "write", "type": "data_exporter", "language": "yaml", "upstream_blocks": ["change"]},
        ]
        pipeline = {"name": "demo", "type": "streaming", "delivery": delivery, "on_error": "stop", "blocks": blocks}
        reading = {**common, "topic": source, "consumer_group": self._group(), "auto_offset_reset": "earliest"}
        # JSON is YAML.
        self._write("streamline.yaml", "name: benchmark\n")
        self._write("pipelines/demo/metadata.yaml", json.dumps(pipeline))
        self._write("data_loaders/read.yaml", json.dumps({**reading, "batch_size": 5000}))
        self._write("data_exporters/write.yaml", json.dumps({**common, "topic": target}))
        self._write("transformers/change.py", TRANSFORMER)
        return self._time([*streamline_command(), "run", "demo", "--until-caught-up"], target, count)

    def _time(self, command: list[str], target: str, count: int) -> float:
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        written = self._written(target)
        if done.returncode or written < count:
            sys.exit(f"{command} ended with {done.returncode}, {written} of {count}:\n{done.stdout.decode()[-4000:]}")
        self._kafka.delete_topic(target)
        return seconds

    def _environment(self) -> dict[str, str]:
        """Both sides find bytecode of what they import, as it is where packages are installed."""
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(self.folder.resolve() / "bytecode")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment

    def _written(self, topic: str) -> int:
        """How many offsets there are; markers of transactions are among them."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self._kafka.bootstrap, "group.id": "ends"})
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, number), 10)[1] for number in range(PARTITIONS)]
        consumer.close()
        return sum(ends)

    def _group(self) -> str:
        self._runs += 1
        return f"group-{self._runs}"

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def main() -> None:
    """Measure each client library, and exactly-once delivery."""
    options = Options.parse(__doc__, records=2_000_000, rounds=3)
    folder = options.work / "streaming_kafka"
    folder.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    with KafkaCluster(fast=True) as kafka:
        bench = Bench(folder, kafka)
        few = bench.fill(10)
        for client, code in (("confluent", CONFLUENT_LOOP), ("kafka-python", KAFKA_PYTHON_LOOP)):
            count = options.records if client == "confluent" else options.records // SLOWER
            source = bench.fill(count)
            bench.loop(code, few, 10)
            bench.streamline(client, "exactly-once", few, 10)
            sides = {
                "loop": lambda code=code, source=source, count=count: bench.loop(code, source, count),
                "at-least-once": lambda client=client, source=source, count=count: bench.streamline(
                    client, "at-least-once", source, count
                ),
                "exactly-once": lambda client=client, source=source, count=count: bench.streamline(
                    client, "exactly-once", source, count
                ),
            }
            times = interleaved(sides, options.rounds, options.say, warm_up=False)
            details = {f"{client}, {name}": f"{count / each.median:,.0f} messages/s" for name, each in times.items()}
            bar, aim = BARS[client]
            ratio = times["loop"].median / times["at-least-once"].median
            results.append(Result(f"{client}, at-least-once", ratio, "of the loop", bar, aim=aim, details=details))
            ratio = times["at-least-once"].median / times["exactly-once"].median
            results.append(Result(f"{client}, exactly-once", ratio, "of at-least-once", EXACTLY_ONCE_BAR))
    finish(options, *results)


if __name__ == "__main__":
    main()
