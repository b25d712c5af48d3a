"""Restart of a streaming pipeline with a million keys of state: from the changelog alone, and from the local copy.

Each run is a whole command: it starts, joins the group, restores the state of four partitions, counts one message in
each, and ends. A run from the changelog has no local copy; the one after it has. The reference is the same pipeline
with no state to restore. The broker is a real one and shares the machine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common import Options, Result, Times, finish, streamline_command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.services.kafka import KafkaCluster

PARTITIONS = 4
BARS = {"seconds": 3.0, "keys": 100_000}

TRANSFORMER = """\
from streamline.decorators import transformer


@transformer
def count(messages: list[dict], state, **kwargs) -> list[dict]:
    for message in messages:
        message["visits"] = state.get(message["user"], 0) + 1
        state.set(message["user"], message["visits"])
    return messages
"""


class Bench:
    """A broker, and a project whose pipeline counts messages per key.

    Args:
        folder: of the project.
        client: the client library.
    """

    def __init__(self, folder: Path, kafka: KafkaCluster, client: str) -> None:
        self.folder = folder
        self._kafka = kafka
        self._visits = 0
        common = {"connector_type": "kafka", "bootstrap_server": kafka.bootstrap, "client": client}
        blocks = [
            {"uuid": "read", "type": "data_loader", "language": "yaml"},
            {"uuid": "count", "type": "transformer", "upstream_blocks": ["read"]},
            {"uuid": "write", "type": "data_exporter", "language": "yaml", "upstream_blocks": ["count"]},
        ]
        self.pipeline = f"demo_{client.replace('-', '_')}"
        self.source = kafka.create_topic(partitions=PARTITIONS)
        self.target = kafka.create_topic()
        reading = {"topic": self.source, "consumer_group": self.pipeline, "auto_offset_reset": "earliest"}
        pipeline = {"name": self.pipeline, "type": "streaming", "on_error": "stop", "blocks": blocks}
        # JSON is YAML.
        self._write("streamline.yaml", "name: benchmark\n")
        self._write(f"pipelines/{self.pipeline}/metadata.yaml", json.dumps(pipeline))
        self._write("data_loaders/read.yaml", json.dumps({**common, **reading}))
        self._write("data_exporters/write.yaml", json.dumps({**common, "topic": self.target}))
        self._write("transformers/count.py", TRANSFORMER)

    def fill(self, keys: int) -> None:
        """Write the state of so many keys to the changelog."""
        from confluent_kafka import Producer

        topic = f"{self.pipeline}.count.state"  # the first run has created it
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap, "linger.ms": 20})
        for number in range(keys):
            while len(producer) > 90_000:
                producer.poll(0.05)
            producer.produce(topic, b"%d" % self._visits, b"user-%d" % number, number % PARTITIONS)
        producer.flush()

    def forget_copy(self) -> None:
        """Delete the local copies."""
        shutil.rmtree(self.folder / ".streamline" / "stream-state", ignore_errors=True)

    def run(self) -> float:
        """Return the seconds that `streamline run --until-caught-up` takes for a message in each partition."""
        self._visits += 1
        for number in range(PARTITIONS):
            user = f"user-{number}"
            self._kafka.produce(
                self.source, [{"key": user.encode(), "value": json.dumps({"user": user}).encode()}], partition=number
            )
        started = time.perf_counter()
        command = [*streamline_command(), "run", self.pipeline, "--until-caught-up"]
        done = subprocess.run(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        written = [json.loads(record.value) for record in self._kafka.consume_all(self.target)]
        if done.returncode or {row["visits"] for row in written[-PARTITIONS:]} != {self._visits}:
            sys.exit(f"it ended with {done.returncode} and {written[-PARTITIONS:]}:\n{done.stdout.decode()[-4000:]}")
        return seconds

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def main() -> None:
    """Measure each client library."""
    options = Options.parse(__doc__, records=1_000_000, rounds=3)
    results: list[Result] = []
    with KafkaCluster(fast=True) as kafka:
        for client in ("confluent", "kafka-python"):
            folder = options.work / f"streaming_restart-{client}"
            shutil.rmtree(folder, ignore_errors=True)
            bench = Bench(folder, kafka, client)
            bench.run()
            sides: dict[str, Callable[[], float]] = {"changelog": bench.run, "copy": bench.run}
            empty = Times([bench.run() for _ in range(options.rounds)])
            bench.fill(options.records)
            times: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(options.rounds):
                bench.forget_copy()
                for name, run in sides.items():
                    times[name].append(run())
                options.say(f"{client}, round {number + 1}: {times['changelog'][-1]:.2f} s, {times['copy'][-1]:.2f} s")
            changelog, copy = Times(times["changelog"]), Times(times["copy"])
            details = {
                f"{client}, nothing to restore": str(empty),
                f"{client}, from the changelog": str(changelog),
                f"{client}, from the local copy": str(copy),
            }
            rate = options.records / (changelog.median - empty.median)
            bar = BARS["seconds"]
            name = f"restart from the local copy, {client}"
            results.append(Result(name, copy.median, "s", bar, at_most=True, details=details))
            results.append(Result(f"restart from the changelog, {client}", rate, "keys/s", BARS["keys"]))
    finish(options, *results)


if __name__ == "__main__":
    main()
