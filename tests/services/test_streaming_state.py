"""Keyed state on a real Kafka: counts go on after a kill, and equal a replay of the input."""

from __future__ import annotations

import json
import random
import secrets
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.services.kafka import Kafka
from tests.services.test_streaming_kafka import Pipeline
from tests.support.processes import wait_until

COUNT = """
@transformer
def count(messages: list[dict], *args, **kwargs):
    state = kwargs["state"]
    for message in messages:
        message["n"] = state.get(message["user"], 0) + 1
        state.set(message["user"], message["n"])
    return messages
"""


@pytest.mark.parametrize(
    ("delivery", "configuration"),
    [("exactly-once", {"repartition_by": "user"}), ("at-least-once", {})],
    ids=["exactly-once, by another key", "at-least-once"],
)
def test_counts_over_a_kill(tmp_path: Path, kafka_server: Kafka, delivery: str, configuration: dict[str, Any]) -> None:
    kafka = kafka_server
    pipeline = Pipeline(tmp_path / "shop", kafka)
    source, sink = kafka.create_topic(partitions=3), kafka.create_topic(partitions=3)
    pipeline.keys(delivery=delivery, on_error="stop", checkpoint_interval=0.1)
    pipeline.source(source, session_seconds=6, batch_size=50)
    block = f"count_{secrets.token_hex(4)}"
    pipeline.project.block(block, COUNT, configuration=configuration)
    pipeline.sink(sink, transaction_timeout=20)
    users = [f"u{random.randrange(40)}" for _ in range(6000)]

    def produce(part: list[str]) -> None:
        keys = (lambda user: b"%d" % random.randrange(9)) if configuration else str.encode
        kafka.produce(source, [{"key": keys(user), "value": json.dumps({"user": user}).encode()} for user in part])

    produce(users[:3000])
    running = pipeline.start()
    wait_until(lambda: pipeline.committed() > 0, "progress")
    running.signal(signal.SIGKILL)
    running.finish()
    produce(users[3000:])
    pipeline.project.run("--until-caught-up").expect(0)
    written = Counter((value["user"], value["n"]) for value in pipeline.values(sink))
    expected = Counter((user, n + 1) for user, count in Counter(users).items() for n in range(count))
    if delivery == "exactly-once":
        assert written == expected
    highest: Counter[str] = Counter()
    for user, n in written:
        highest[user] = max(highest[user], n)
    assert all(highest[user] >= count for user, count in Counter(users).items())
    state = {record.key.decode(): json.loads(record.value) for record in kafka.consume_all(f"p.{block}.state")}
    assert {user: state[user] for user in highest} == dict(highest)
