"""Metrics and health of a streaming run."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from streamline.execution.events import AttemptFailed, PositionSaved, RunInterrupted, StreamProgress
from streamline.execution.streaming.metrics import Metrics
from streamline.processes.job import Failure
from tests.execution.streaming.test_command import DOUBLE, ENDLESS, FILE
from tests.support.batch import BatchProject
from tests.support.processes import wait_until


class Watched:
    """Metrics at times that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.metrics = Metrics("p", "r", 30.0, lambda: self.now)

    def progress(self, read: int = 0, in_flight: int = 0, **values: Any) -> None:
        """One more second."""
        self.now += 1
        streams = [{"block": "load", "stream": "t", "read": read, "quarantined": 0}]
        tables = [{"block": "export", "table": 'a"b', "sent": read, "written": read - in_flight, "quarantined": 0}]
        given: dict[str, Any] = {"lag": [], "streams": streams, "tables": tables, **values}
        counts = {"read": read, "written": read - in_flight, "dead_letters": 0, "seconds": self.now}
        self.metrics(StreamProgress(in_flight=in_flight, **counts, **given))

    def sample(self, name: str) -> list[tuple[str, float]]:
        """Labels and values of a metric."""
        lines = re.findall(rf"^streamline_{name}\{{(.*)\}} (\S+)$", self.metrics.text(), re.MULTILINE)
        return [(labels, float(value)) for labels, value in lines]

    def health(self) -> tuple[bool, str]:
        healthy, report = self.metrics.health()
        assert ("reason" in report) is not healthy
        return healthy, report["status"]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_counters_never_fall(watched: Watched) -> None:
    for read in (10, 30, 20, 35):  # the third is another attempt's: 10 messages are read again
        watched.progress(read)
    assert watched.sample("messages_read_total") == [('pipeline="p",block="load",stream="t"', 45.0)]


def test_labels_are_escaped_and_partitions_have_lag_and_position(watched: Watched) -> None:
    known = {"block": "load", "name": "t/0", "behind": 7, "position": 35}
    watched.progress(5, lag=[known, {"block": "load", "name": "t/1", "behind": None, "position": None}])
    assert watched.sample("messages_written_total") == [('pipeline="p",block="export",table="a\\"b"', 5.0)]
    assert watched.sample("lag_messages") == [('pipeline="p",block="load",partition="t/0"', 7.0)]
    assert watched.sample("position_offset") == [('pipeline="p",block="load",partition="t/0"', 35.0)]


def test_each_metric_is_declared_once_and_counters_end_in_total(watched: Watched) -> None:
    watched.progress(5, in_flight=5)
    watched.metrics(PositionSaved(block="load"))
    watched.metrics(AttemptFailed(block="load", failure=Failure(message="no"), delay=1.0))
    declared = re.findall(r"^# TYPE (\w+) (\w+)$", watched.metrics.text(), re.MULTILINE)
    assert len(dict(declared)) == len(declared) > 8
    assert all((kind == "counter") == name.endswith("_total") for name, kind in declared)
    assert set(re.findall(r"^(\w+)\{", watched.metrics.text(), re.MULTILINE)) == set(dict(declared))


def test_it_is_stalled_when_nothing_in_flight_is_proven(watched: Watched) -> None:
    assert watched.health() == (True, "starting")
    for _ in range(40):
        watched.progress(10)
    assert watched.health() == (True, "running")
    for _ in range(31):
        watched.progress(20, in_flight=10)
    assert watched.health() == (True, "running")
    watched.progress(20, in_flight=10)
    assert watched.health() == (False, "stalled")
    assert watched.sample("healthy") == [('pipeline="p"', 0.0)]
    watched.metrics(PositionSaved(block="load"))
    assert watched.health() == (True, "running")


def test_it_is_stalled_when_nothing_is_reported(watched: Watched) -> None:
    watched.progress()
    watched.now += 31
    assert watched.health() == (False, "stalled")


def test_a_failed_attempt_is_unhealthy_until_another_runs(watched: Watched) -> None:
    watched.progress()
    watched.metrics(AttemptFailed(block="export", failure=Failure(message="no"), delay=4.0))
    assert watched.health() == (False, "backoff")
    watched.progress()  # of another of several processes
    assert watched.health() == (False, "backoff")
    watched.now += 4
    watched.progress()
    watched.metrics(RunInterrupted(signal=15))
    assert watched.health() == (True, "stopping")
    assert watched.sample("failed_attempts_total") == [('pipeline="p",block="export"', 1.0)]


@pytest.fixture
def project(tmp_path: Path) -> BatchProject:
    """A pipeline that runs until it is stopped."""
    made = BatchProject(tmp_path / "shop")
    made.type = "streaming"
    made.block("read", ENDLESS, type="data_loader")
    made.block("double", DOUBLE)
    made.block("write", FILE, type="data_exporter")
    return made


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_run_serves_them(project: BatchProject) -> None:
    running = project.start("run", "p", "--metrics-port", "0")
    wait_until(lambda: len(project.lines("out.txt")) > 3, "messages")
    (log,) = project.root.glob(".streamline/runs/*/run.log")
    (url,) = re.findall(r"metrics: (http://127\.0\.0\.1:\d+/metrics)", log.read_text())
    wait_until(lambda: 'streamline_messages_written_total{pipeline="p"' in get(url)[1], "counts")
    status, text = get(url.replace("/metrics", "/health"))
    assert (status, json.loads(text)["status"]) == (200, "running")
    assert get(url + "x")[0] == 404
    running.signal(signal.SIGTERM)
    assert url in running.finish().expect(0).out


def test_health_says_why_an_attempt_failed(project: BatchProject) -> None:
    project.write("data_exporters/write.py", FILE + "\n        raise OSError('no space on the shelf')\n")
    project.keys = {"metrics": {"port": 0}, "retry_config": {"retries": 50, "delay": 60, "max_delay": 60}}
    project.save()
    running = project.start("run", "p")
    logs = project.root / ".streamline"
    wait_until(lambda: any("another attempt" in log.read_text() for log in logs.glob("runs/*/run.log")), "a failure")
    (log,) = logs.glob("runs/*/run.log")
    (url,) = re.findall(r"metrics: (\S+)/metrics", log.read_text())
    status, text = get(f"{url}/health")
    assert (status, json.loads(text)["status"]) == (503, "backoff")
    assert "no space on the shelf" in json.loads(text)["reason"]
    running.signal(signal.SIGTERM)
    running.finish()


def test_a_port_in_use_is_refused_and_no_run_is_recorded(project: BatchProject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        completed = project.run("--json", "--metrics-port", str(taken.getsockname()[1])).expect(2)
    assert json.loads(completed.out)["error"]["code"] == "metrics.port_unusable"
    assert json.loads(project.command("runs", "list", "--json").expect(0).out) == []
    assert project.lines("out.txt") == []
