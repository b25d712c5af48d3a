"""A pipeline with a block that counts by key, on a Kafka cluster in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import yaml

from streamline.execution.engine import engine_of
from streamline.execution.events import Bus
from streamline.execution.flow_runs import open_planning
from streamline.execution.run import RunOptions, RunResult, Stop, run_to_end
from streamline.state.store import DeadLetter
from tests.connectors.kafka.fake import FakeCluster
from tests.execution.streaming.conftest import Stream

COUNT = """
@transformer
def count(messages, *args, **kwargs):
    state = kwargs["state"]
    for message in messages:
        message["n"] = state.get(message["user"], 0) + 1
        state.set(message["user"], message["n"])
    return messages
"""


class Shop:
    """The pipeline `p`: topic `clicks` → block `count` → topic `counts`."""

    def __init__(self, stream: Stream, cluster: FakeCluster) -> None:
        self.stream = stream
        self.cluster = cluster
        self.sent = 0

    def build(
        self,
        code: str = COUNT,
        partitions: int = 2,
        topics: Sequence[str] = ("clicks",),
        configuration: Mapping[str, Any] | None = None,
        include_metadata: bool = False,
        **keys: Any,
    ) -> None:
        for topic in topics:
            self.cluster.create(topic, partitions)
        self.cluster.create("counts")
        self.read(topics, include_metadata=include_metadata)
        self.stream.transformer("count", code, upstream=["read"], configuration=dict(configuration or {}))
        self.end("write", "data_exporter", topic="counts")
        self.stream.keys(startup_timeout=5, checkpoint_interval=0.05, **keys)

    def read(self, topics: Sequence[str], **more: Any) -> None:
        """Let the source read these topics."""
        config = {"topics": list(topics), "consumer_group": "g", "auto_offset_reset": "earliest", **more}
        if (self.stream.files.root / "data_loaders/read.yaml").exists():
            self.stream.files.write("data_loaders/read.yaml", self.yaml(**config))
        else:
            self.end("read", "data_loader", **config)

    def yaml(self, **config: Any) -> str:
        return yaml.safe_dump({"connector_type": "kafka", "bootstrap_server": "kafka.test:9092", **config})

    def end(self, uuid: str, type: str, **config: Any) -> None:
        text = self.yaml(**config)
        upstream = [] if type == "data_loader" else ["count"]
        self.stream.files.block(uuid, text, type=type, language="yaml", upstream=upstream)

    def click(self, *users: str, topic: str = "clicks") -> None:
        for user in users:
            partition = sum(user.encode()) % len(self.cluster.known[topic].logs)
            self.cluster.write(topic, json.dumps({"user": user}).encode(), partition=partition, key=user.encode())

    def run(self) -> RunResult:
        return self.stream.run(until_caught_up=True)

    def run_until(self, stop: Stop) -> None:
        """Run until somebody stops it."""
        model = self.stream.model()
        engine = engine_of(model)
        work = partial(engine.run, self.stream.project, model, RunOptions(), Bus(()))
        run_to_end(lambda _: work(stop), uvloop=engine.uvloop)

    def forget_copies(self) -> None:
        """Delete the local copies of the state."""
        shutil.rmtree(self.stream.files.root / ".streamline" / "stream-state")

    def counts(self) -> list[tuple[str, int]]:
        """Users and counts that were written."""
        (values,) = self.cluster.values("counts")
        rows = [json.loads(value) for value in values if value is not None]
        return sorted((row["user"], row["n"]) for row in rows)

    def letters(self) -> list[DeadLetter]:
        """The dead letters."""
        with open_planning(self.stream.project, self.stream.model(), RunOptions(), "test") as run:
            return run.store.dead_letters("p")

    def state(self, topic: str = "p.count.state") -> list[dict[str, Any]]:
        """The state in each partition of the changelog: the last value of each key."""
        partitions: list[dict[str, Any]] = [{} for _ in self.cluster.known[topic].logs]
        for record in self.cluster.records(topic):
            assert record.key is not None
            value = None if record.value is None else json.loads(record.value)
            partitions[record.partition][record.key.decode()] = value
        return partitions


DELIVERIES = [{}, {"delivery": "exactly-once", "on_error": "stop"}]
