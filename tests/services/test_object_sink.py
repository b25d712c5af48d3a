"""An S3-compatible store as a sink of messages: what only a store can show."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamline.connectors.objects.connector import S3
from streamline.connectors.objects.stores import StoreUnusable
from tests.connectors.sinks import batch, context, where, written
from tests.services.moto import S3Server
from tests.support.batch import BatchProject
from tests.support.processes import wait_until

pytestmark = pytest.mark.services


class Bucket:
    """A bucket of its own, and what readers see of it."""

    def __init__(self, server: S3Server) -> None:
        import s3fs

        self.name = f"lake-{uuid.uuid4().hex[:8]}"
        server.make_bucket(self.name)
        self.config = {
            "bucket": self.name,
            "prefix": "raw",
            "endpoint_url": server.endpoint,
            "region_name": "us-east-1",
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
        }
        self.files: Any = s3fs.S3FileSystem(
            key="test", secret="test", endpoint_url=server.endpoint, skip_instance_cache=True, use_listings_cache=False
        )

    def objects(self) -> dict[str, bytes]:
        return {path: self.files.cat_file(path) for path in self.files.find(self.name)}

    def uploads(self) -> list[str]:
        """The keys of uploads that are not complete."""
        answer = self.files.call_s3("list_multipart_uploads", Bucket=self.name)
        return [upload["Key"] for upload in answer.get("Uploads", ())]

    def begin_upload(self, key: str) -> None:
        self.files.call_s3("create_multipart_upload", Bucket=self.name, Key=key)


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    return Bucket(s3_server)


def test_files_are_put_whole_and_uploads_that_a_killed_run_left_are_aborted(bucket: Bucket, tmp_path: Path) -> None:
    sent = [batch([{"n": 1}, {"n": 2}]), batch([{"n": 3}], at=2)]
    outcome = written(S3, bucket.config, tmp_path, sent)
    assert (outcome.failures, outcome.proven) == ([], {"load": 2})
    ((name, data),) = bucket.objects().items()
    assert data == b'{"n":1}\n{"n":2}\n{"n":3}\n'
    key = name.partition("/")[2]
    assert key.startswith("raw/orders/load-orders-")
    for left in (key, "raw/orders/others.jsonl"):
        bucket.begin_upload(left)
    written(S3, bucket.config, tmp_path, sent)  # a replay: the same name
    assert list(bucket.objects()) == [name]
    assert bucket.uploads() == ["raw/orders/others.jsonl"]


def test_a_bucket_that_does_not_exist_is_an_error(bucket: Bucket, tmp_path: Path) -> None:
    missing = {**bucket.config, "bucket": f"{bucket.name}-x"}
    outcome = written(S3, missing, tmp_path, [batch([{"n": 1}])])
    assert [type(failure) for failure in outcome.failures] == [StoreUnusable]
    with pytest.raises(StoreUnusable):
        S3.check("destination", missing, context(tmp_path), where)
    assert bucket.name in S3.check("destination", bucket.config, context(tmp_path), where)


def test_a_killed_pipeline_goes_on_where_the_last_whole_file_ends(bucket: Bucket, tmp_path: Path) -> None:
    project = BatchProject(tmp_path / "shop")
    project.type = "streaming"
    project.block("read", "connector_type: files\npath: in.jsonl\n", type="data_loader", language="yaml")
    sink = {"connector_type": "s3", **bucket.config, "max_file_seconds": 0.5}
    project.block("keep", json.dumps(sink), type="data_exporter", language="yaml")
    project.save()
    lines = project.root / "in.jsonl"
    ended = threading.Event()
    writer = threading.Thread(target=_write, args=(lines, ended.is_set))
    writer.start()
    try:
        running = project.start("run", "p")
        wait_until(lambda: len(bucket.objects()) > 1, "files", 60.0)
        running.kill()
    finally:
        ended.set()
        writer.join()
    project.run("--until-caught-up").expect(0)
    numbers = [json.loads(line)["n"] for data in bucket.objects().values() for line in data.splitlines()]
    assert sorted(set(numbers)) == list(range(len(lines.read_bytes().splitlines())))


def _write(path: Path, ended: Callable[[], bool]) -> None:
    number = 0
    pause = threading.Event()
    with path.open("ab", buffering=0) as file:
        while not ended():
            file.write(b'{"n": %d}\n' % number)
            number += 1
            pause.wait(0.005)
