"""Kafka → an unmodified community target on PostgreSQL for ten minutes, 1,000 messages a second, default settings.

The target says nothing until its end, so what proves positions is that its sessions are closed in time. Gaps are those
between changes of the group's committed offsets. Memory is resident memory of Streamline's own processes; flat means
that the peak of the last quarter is not above the second quarter's by more than a tenth.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from common import Options, Result, finish, streamline_command
from memory import own_processes, resident

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import tests.services.postgres as postgres_service
from tests.services.kafka import Kafka, KafkaCluster
from tests.services.postgres import PostgresServer
from tests.services.project import RUN_SECONDS, CommunityProject

PLUGIN = "target-ml-postgres"
RATE = 1000
PARTITIONS = 3
SAMPLE_SECONDS = 0.25
MOST_SECONDS = 30.0
MOST_GROWTH = 0.1


def write_project(folder: Path, kafka: Kafka, topic: str, server: PostgresServer, database: str) -> CommunityProject:
    """Make the project and the target's environment."""
    project = CommunityProject(folder, [PLUGIN])
    reading = {"connector_type": "kafka", "bootstrap_server": kafka.bootstrap, "topic": topic}
    config = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    config |= {"database": database, "default_target_schema": "public"}
    blocks = [
        {"uuid": "read", "type": "data_loader", "language": "yaml"},
        {"uuid": "write", "type": "data_exporter", "language": "yaml", "upstream_blocks": ["read"]},
    ]
    project.write("pipelines/demo/metadata.yaml", json.dumps({"name": "demo", "type": "streaming", "blocks": blocks}))
    project.write(
        "data_loaders/read.yaml", json.dumps({**reading, "consumer_group": "bench", "auto_offset_reset": "earliest"})
    )
    exporter = {"destination": PLUGIN, "config": config}
    streams = {topic: {"unique_constraints": ["id"]}}
    project.write("data_exporters/write.yaml", json.dumps({**exporter, "streams": streams}))
    project.write("streamline.yaml", json.dumps(project.settings))
    project.command("plugin", "install", PLUGIN, seconds=RUN_SECONDS).expect(0)
    return project


def produce(kafka: Kafka, topic: str, count: int, stopping: threading.Event) -> None:
    """Write messages at the rate."""
    began = time.monotonic()
    for first in range(0, count, RATE // 10):
        if stopping.wait(max(0.0, began + first / RATE - time.monotonic())):
            return
        values = [
            json.dumps({"id": number, "note": f"message number {number}"}).encode()
            for number in range(first, first + RATE // 10)
        ]
        kafka.produce(topic, [{"key": value[7:20], "value": value} for value in values])


def watch(kafka: Kafka, process: subprocess.Popen[bytes], count: int) -> tuple[list[float], list[float]]:
    """Seconds between proofs, and samples of memory in MB, until all is committed."""
    gaps: list[float] = []
    samples: list[float] = []
    proven, at = 0, time.monotonic()
    while proven < count:
        time.sleep(SAMPLE_SECONDS)
        if process.poll() is not None:
            raise SystemExit(f"the run ended with {process.returncode}")
        samples.append(sum(resident(pid)[0] for pid in own_processes(process.pid, (b"target-postgres",))) / 1e6)
        if (now := sum(kafka.committed("bench").values())) > proven:
            proven, gap, at = now, time.monotonic() - at, time.monotonic()
            gaps.append(gap)
            print(f"{proven:,} proven after {gap:.1f} s; {samples[-1]:.0f} MB", file=sys.stderr, flush=True)
    return gaps, samples


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=600 * RATE, rounds=1)
    with ExitStack() as stack:
        kafka = stack.enter_context(KafkaCluster(fast=True))
        server = stack.enter_context(postgres_service.running())
        database = stack.enter_context(server.database())
        topic = kafka.create_topic("events", partitions=PARTITIONS)
        folder = options.work / "streaming_target"
        shutil.rmtree(folder, ignore_errors=True)
        project = write_project(folder, kafka, topic, server, database)
        stopping = threading.Event()
        producing = threading.Thread(target=produce, args=(kafka, topic, options.records, stopping))
        with (project.root / "output.txt").open("wb") as output:
            process = subprocess.Popen(
                [*streamline_command(), "run", "demo"],
                cwd=project.root, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            producing.start()
            try:
                gaps, samples = watch(kafka, process, options.records)
            finally:
                stopping.set()
                producing.join()
                process.send_signal(signal.SIGINT)
                process.wait(120)
        with server.connect(database) as connection:
            row = connection.execute(f'select count(*), count(distinct id) from "{topic}"').fetchone()
    if process.returncode or row is None or row[1] < options.records:
        raise SystemExit(f"exit code {process.returncode}, {row} of {options.records}")
    quarter = len(samples) // 4
    growth = max(samples[3 * quarter :]) / max(samples[quarter : 2 * quarter]) - 1
    details = {
        "proofs": f"{len(gaps)}, on average every {sum(gaps) / len(gaps):.1f} s",
        "rows": f"{row[0]:,} of {options.records:,} messages",
        "memory": f"{max(samples):.0f} MB at most",
    }
    finish(
        options,
        Result("longest time without a proof", max(gaps), "s", MOST_SECONDS, at_most=True, details=details),
        Result("growth of memory", growth, "of the second quarter's", MOST_GROWTH, at_most=True),
    )


if __name__ == "__main__":
    main()
