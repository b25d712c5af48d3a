"""Files and HTTP as the ends of streaming pipelines, run by the real command."""

from __future__ import annotations

import http.client
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.connectors.http.serving import serving
from tests.services.process import free_port
from tests.support.batch import BatchProject
from tests.support.processes import wait_until

FILE = """
import os
import time

@streaming_sink
class File:
    def batch_write(self, messages):
        open("begun", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.02)
        with open("out.txt", "a") as file:
            file.writelines(f"{message['id']}\\n" for message in messages)
"""


@pytest.fixture
def project(tmp_path: Path) -> BatchProject:
    """A project for streaming pipelines."""
    made = BatchProject(tmp_path / "shop")
    made.type = "streaming"
    return made


def post(port: int, body: bytes, path: str = "/orders") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_lines_of_files_go_by_http(project: BatchProject) -> None:
    (project.root / "in").mkdir(parents=True)
    (project.root / "in/a.jsonl").write_text('{"id": 1}\nno JSON\n{"id": 2}\n')
    with serving() as server:
        project.block("read", "connector_type: files\npath: in\n", type="data_loader", language="yaml")
        sink = f"connector_type: http\nurl: {server.url}/orders/{{id}}\nmethod: PUT\n"
        project.block("send", sink, type="data_exporter", language="yaml")
        project.run("--until-caught-up").expect(0, "1 dead letter")
        assert [(request.path, request.body) for request in server.requests] == [
            ("/orders/1", b'{"id":1}'),
            ("/orders/2", b'{"id":2}'),
        ]
        (project.root / "in/b.jsonl").write_text('{"id": 3}')
        project.run("--until-caught-up").expect(0)
        assert [request.path for request in server.requests[2:]] == ["/orders/3"]


def started(project: BatchProject, log_count: int) -> Any:
    """Start the pipeline; return it when it listens."""
    running = project.start("run", "p")

    def listens() -> bool:
        logs = list(project.root.glob(".streamline/runs/*/run.log"))
        return len(logs) == log_count and all("listens for POST" in log.read_text() for log in logs)

    wait_until(listens, "the server", 60.0)
    return running


def test_a_sender_is_answered_when_its_messages_are_written(project: BatchProject) -> None:
    port = free_port()
    source = f"connector_type: http\nport: {port}\npath: /orders\n"
    project.block("take", source, type="data_loader", language="yaml")
    project.block("write", FILE, type="data_exporter")
    project.save()
    explained = json.loads(project.command("explain", "p", "--json").expect(0).out)
    assert explained["sources"][0]["replays"]
    running = started(project, 1)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(post, port, b'[{"id": 1}, {"id": 2}]')
        wait_until((project.root / "begun").exists, "the message", 60.0)
        assert not waiting.done()
        running.kill()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            waiting.result()
    (project.root / "go").touch()
    running = started(project, 2)
    assert post(port, b'[{"id": 1}, {"id": 2}]') == (200, b'{"messages": 2}\n')
    assert project.lines("out.txt") == ["1", "2"]
    assert post(port, b"{")[0] == 400
    running.signal(signal.SIGTERM)
    running.finish().expect(0)
    assert project.lines("out.txt") == ["1", "2"]


def test_killed_with_files_open_it_goes_on_from_whole_files(project: BatchProject) -> None:
    (project.root / "in.jsonl").parent.mkdir(parents=True, exist_ok=True)
    lines = project.root / "in.jsonl"
    lines.write_text('{"id": 1}\n{"id": 2}\n')
    project.block("read", "connector_type: files\npath: in.jsonl\n", type="data_loader", language="yaml")
    sink = "connector_type: objects\nurl: out\nformat: parquet\nmax_file_seconds: 3600\n"
    project.block("keep", sink, type="data_exporter", language="yaml")
    project.save()
    running = project.start("run", "p")
    wait_until(lambda: list(project.root.glob("out/.streamline-*/*")), "an open file", 60.0)
    running.kill()
    assert not list(project.root.glob("out/**/*.parquet"))
    lines.write_text('{"id": 1}\n{"id": 2}\n{"id": 3}\n')
    project.run("--until-caught-up").expect(0)
    (file,) = project.root.glob("out/read/*.parquet")
    assert pq.read_table(file).to_pylist() == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert not list(project.root.glob("out/.streamline-*"))
