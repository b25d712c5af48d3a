"""Files that a sink writes into a folder: when they are there, what is in them, and what is proven by that."""

from __future__ import annotations

import datetime as dt
import gzip
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamline.connectors.objects import sink as sink_module
from streamline.connectors.objects.connector import AMAZON_S3, OBJECTS, S3
from streamline.connectors.objects.settings import object_settings
from streamline.connectors.objects.sink import ObjectWriter
from streamline.connectors.objects.stores import Folder, StoreAway, StoreDenied, StoreUnusable
from streamline.errors import ConfigError
from streamline.flow.items import BadRecord, MessageBatch, Position
from tests.connectors.sinks import batch, context, where, written


class Writing:
    """A writer into a folder, with a clock."""

    def __init__(self, root: Path, **config: Any) -> None:
        self.root = root / "out"
        self.now = 0.0
        self.proven: dict[str, int] = {}
        self.refused: list[BadRecord] = []
        settings = object_settings("objects", {"url": "out", **config}, context(root), where)
        store = Folder(settings, "tag")
        store.clean()
        self.writer = ObjectWriter(
            "export",
            settings,
            store,
            "tag",
            lambda source, record: self.refused.append(record),
            self.proven.update,
            store.put,
            clock=lambda: self.now,
        )

    def send(self, data: Sequence[Any], number: int, *, source: str = "load", at: int = 0, **about: Any) -> None:
        self.writer.take(source, batch(data, at=at, **about))
        self.reach(number, source)

    def reach(self, number: int, source: str = "load", *, awaited: bool = False) -> None:
        self.writer.reach(source, Position(source, number, {}, awaited=awaited))

    def files(self) -> dict[str, bytes]:
        return files(self.root)


def files(folder: Path) -> dict[str, bytes]:
    """The files that readers of a folder see, by their paths."""
    found = (file for file in folder.rglob("*") if file.is_file() and ".streamline-" not in str(file))
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(found)}


# -- when


def test_a_file_is_there_when_it_is_complete_and_proves_what_is_in_it(tmp_path: Path) -> None:
    writing = Writing(tmp_path, max_file_seconds=60)
    writing.send([{"n": 1}, {"n": 2}], 1)
    writing.now = 20
    writing.send([{"n": 3}], 2, at=2)
    assert writing.writer.patience() == 40
    writing.writer.rest(hurry=False)
    assert (writing.files(), writing.proven) == ({}, {})
    writing.now = 60
    writing.writer.rest(hurry=False)
    assert writing.files() == {"orders/load-orders-20231114T221320000Z-0-0-tag.jsonl": b'{"n":1}\n{"n":2}\n{"n":3}\n'}
    assert writing.proven == {"load": 2}
    assert writing.writer.patience() is None


def test_files_are_closed_at_positions_only_unless_there_is_a_hurry(tmp_path: Path) -> None:
    writing = Writing(tmp_path, max_file_seconds=1)
    writing.writer.take("load", batch([{"n": 1}]))
    writing.now = 5
    assert writing.writer.patience() is None
    writing.writer.rest(hurry=False)
    assert writing.files() == {}
    writing.reach(1)
    assert (len(writing.files()), writing.proven) == (1, {"load": 1})
    writing.writer.take("load", batch([{"n": 2}], at=1))
    writing.writer.rest(hurry=True)
    assert (len(writing.files()), writing.proven) == (2, {"load": 1})


def test_a_large_file_is_closed_alone_and_proves_nothing_while_others_are_open(tmp_path: Path) -> None:
    writing = Writing(tmp_path, max_file_bytes=30)
    writing.send([{"n": 1}], 1, stream="small")
    writing.send([{"n": 1}, {"n": "x" * 40}], 2, stream="large")
    assert [name.partition("/")[0] for name in writing.files()] == ["large"]
    assert writing.proven == {}
    writing.send([{"n": 2}], 1, source="other", stream="large")
    writing.reach(2, "other", awaited=True)
    assert writing.proven == {"other": 2}
    writing.writer.rest(hurry=True)
    assert writing.proven == {"other": 2, "load": 2}
    assert len(writing.files()) == 3


def test_where_positions_are_far_between_a_file_is_closed_at_twice_the_size(tmp_path: Path) -> None:
    writing = Writing(tmp_path, max_file_bytes=10)
    for number in range(4):
        writing.writer.take("load", batch([{"n": "x" * 20}], at=number))
    assert len(writing.files()) == 4
    assert writing.proven == {}
    writing.reach(1)
    assert writing.proven == {"load": 1}


def test_a_position_without_messages_is_proven_at_once(tmp_path: Path) -> None:
    writing = Writing(tmp_path)
    writing.reach(7)
    assert (writing.files(), writing.proven) == ({}, {"load": 7})


def test_a_replay_replaces_a_file_that_was_not_proven(tmp_path: Path) -> None:
    before = Writing(tmp_path)
    before.send([{"n": 1}, {"n": 2}], 1)
    before.writer.rest(hurry=True)
    before.send([{"n": 3}], 2, at=2)
    left = list((tmp_path / "out/.streamline-tag").iterdir())
    assert len(left) == 1
    after = Writing(tmp_path)  # the spool folder is emptied
    assert not left[0].exists()
    after.send([{"n": 1}], 1)
    after.send([{"n": 2}, {"n": 3}], 2, at=1)
    after.writer.rest(hurry=True)
    assert list(after.files().values()) == [b'{"n":1}\n{"n":2}\n{"n":3}\n']


def test_files_never_replace_others_that_are_wanted(tmp_path: Path) -> None:
    writing = Writing(tmp_path, max_file_bytes=1)
    writing.writer.take("load", batch([{"n": 1}]))
    writing.writer.take("load", batch([{"n": 1}]))  # the same message again, by another branch
    writing.reach(1)
    for number in (2, 3):  # without an origin
        writing.writer.take("load", MessageBatch("orders", [{"n": number}]))
        writing.reach(number)
    assert sorted(writing.files().values()) == [b'{"n":1}\n', b'{"n":1}\n', b'{"n":2}\n', b'{"n":3}\n']


def test_a_file_stays_if_only_one_of_its_partitions_is_read_again(tmp_path: Path) -> None:
    writing = Writing(tmp_path)
    first, second = batch([{"a": 1}, {"a": 2}], partition=0), batch([{"b": 1}], partition=1)
    writing.writer.take("load", first)
    writing.writer.take("load", second)
    writing.reach(1, awaited=True)  # the group has committed partition 1 alone: the other was taken away, and came back
    writing.writer.take("load", first)
    writing.writer.take("load", batch([{"b": 2}], partition=1, at=1))
    writing.reach(2, awaited=True)
    writing.writer.take("load", first)
    writing.writer.take("load", MessageBatch("orders", [{"c": 1}]))  # nobody knows of which message
    writing.reach(3, awaited=True)
    writing.writer.take("load", first)
    writing.reach(4, awaited=True)
    written = b"".join(writing.files().values())
    assert all(line in written for line in (b'{"b":1}', b'{"b":2}', b'{"c":1}'))


def test_a_replay_of_several_partitions_replaces_a_file_too(tmp_path: Path) -> None:
    for _ in range(2):
        writing = Writing(tmp_path)
        for partition in (0, 1):
            writing.writer.take("load", batch([{"n": partition}], partition=partition))
        writing.reach(1, awaited=True)
    assert list(writing.files().values()) == [b'{"n":0}\n{"n":1}\n']


# -- where


def test_a_path_has_the_stream_the_partition_and_the_date_of_a_message(tmp_path: Path) -> None:
    writing = Writing(tmp_path, path="{stream}/day={date}/{partition}", date_partition_format="%Y/%m")
    writing.send([{"n": 1}], 1, stream="../a b")
    writing.writer.rest(hurry=True)
    (name,) = writing.files()
    assert name.startswith("_a_b/day=2023/11/0/load-")


# -- what


def test_lines_are_compressed(tmp_path: Path) -> None:
    for compression, decompressed in (
        ("gzip", gzip.decompress),
        ("zstd", lambda data: pa.input_stream(pa.py_buffer(data), compression="zstd").read()),
    ):
        writing = Writing(tmp_path / compression, compression=compression)
        writing.send([{"n": 10**30}, None, "ü", {"data": 1, "metadata": {"key": "k"}}], 1)
        writing.writer.rest(hurry=True)
        ((name, data),) = writing.files().items()
        assert decompressed(data) == b'{"n":%d}\nnull\n"\xc3\xbc"\n1\n' % 10**30
        assert name.endswith({"gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}[compression])


def test_parquet_has_the_types_that_its_messages_need(tmp_path: Path) -> None:
    writing = Writing(tmp_path, format="parquet")
    moment = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
    rows: list[Any] = [
        {"i": 1, "f": 1, "s": "a", "b": True, "mixed": 1, "json": {"a": [1]}, "at": moment, "day": moment.date()},
        {"i": None, "f": Decimal("2.5"), "s": None, "mixed": "x", "json": "j", "big": 2**64, "none": None},
    ]
    writing.send(rows, 1)
    writing.writer.take("load", batch(["no object", {}, None], at=2))
    writing.reach(2)
    writing.writer.rest(hurry=True)
    assert [record.stage for record in writing.refused] == ["export"] * 3
    (name,) = writing.files()
    table = pq.read_table(writing.root / name)
    assert {field.name: str(field.type) for field in table.schema} == {
        "i": "int64",
        "f": "double",
        "s": "string",
        "b": "bool",
        "mixed": "string",
        "json": "string",
        "at": "timestamp[us, tz=UTC]",
        "day": "date32[day]",
        "big": "string",
        "none": "string",
    }
    first, second = table.to_pylist()
    assert (first["at"], first["day"], first["json"], first["mixed"]) == (moment, moment.date(), '{"a":[1]}', "1")
    assert (second["f"], second["json"], second["mixed"], second["big"]) == (2.5, '"j"', "x", str(2**64))
    assert second["b"] is None
    writing.send([{"f": 1}], 3, at=9)  # a column keeps its type
    writing.writer.rest(hurry=True)
    later = next(name for name in writing.files() if "-9-" in name)
    assert str(pq.read_schema(writing.root / later).field("f").type) == "double"


# -- the sink


def test_closed_it_leaves_whole_files_and_nothing_else(tmp_path: Path) -> None:
    config = {"url": "out", "format": "jsonl"}
    outcome = written(OBJECTS, config, tmp_path, [batch([{"n": 1}, object()]), batch([{"n": 2}], at=2)])
    assert outcome.failures == []
    assert outcome.proven == {"load": 2}
    assert len(outcome.refused) == 1
    assert list(files(tmp_path).values()) == [b'{"n":1}\n{"n":2}\n']
    assert not list((tmp_path / "out").glob(".streamline-*"))


def test_a_store_that_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "PAUSES", (0.001,))
    away = [True, True]
    put = Folder.put

    def often_away(store: Folder, file: Path, key: str) -> None:
        if away:
            away.pop()
            raise StoreAway("slow down")
        put(store, file, key)

    monkeypatch.setattr(Folder, "put", often_away)
    outcome = written(OBJECTS, {"url": "out"}, tmp_path, [batch([{"n": 1}])])
    assert outcome.failures == []
    assert outcome.proven == {"load": 1}
    assert [level for level, _ in outcome.notes] == ["WARNING", "INFO"]


def test_a_store_that_denies_access_fails_it_and_one_that_only_does_not_list_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*args: Any) -> int:
        raise StoreDenied("access is denied")

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "put", denied)
        outcome = written(OBJECTS, {"url": "out"}, tmp_path, [batch([{"n": 1}])])
        assert [type(failure) for failure in outcome.failures] == [StoreDenied]
        assert outcome.proven == {}
    clean = Folder.clean
    monkeypatch.setattr(Folder, "clean", lambda store: clean(store) or denied())
    outcome = written(OBJECTS, {"url": "out"}, tmp_path, [batch([{"n": 1}])])
    assert (outcome.failures, outcome.proven) == ([], {"load": 1})
    assert [level for level, _ in outcome.notes] == ["WARNING"]


def test_dead_letters_have_files_of_their_own(tmp_path: Path) -> None:
    for letters in (False, True):
        written(OBJECTS, {"url": "out"}, tmp_path, [batch([{"n": 1}])], letters=letters)
    assert len(files(tmp_path)) == 2


def test_a_folder_that_cannot_be_made_fails_it(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    outcome = written(OBJECTS, {"url": "out"}, tmp_path, [batch([{"n": 1}])])
    assert [type(failure) for failure in outcome.failures] == [StoreUnusable]


# -- settings


@pytest.mark.parametrize(
    ("connector", "config"),
    [
        (S3, {}),
        (OBJECTS, {}),
        (OBJECTS, {"url": "gs://bucket"}),
        (OBJECTS, {"url": "s3:///prefix"}),
        (OBJECTS, {"url": "out", "bucket": "b"}),
        (OBJECTS, {"url": "out", "prefix": "p"}),
        (OBJECTS, {"url": "out", "endpoint_url": "http://h"}),
        (OBJECTS, {"url": "out", "path": "{topic}"}),
        (OBJECTS, {"url": "out", "path": "../{stream}"}),
        (OBJECTS, {"url": "out", "path": "x", "date_partition_format": "%Y"}),
        (OBJECTS, {"url": "out", "date_partition_format": "today"}),
        (OBJECTS, {"url": "out", "format": "parquet", "file_type": "parquet"}),
        (OBJECTS, {"url": "out", "format": "csv"}),
        (OBJECTS, {"url": "out", "compression": "snappy"}),
    ],
)
def test_wrong_settings_are_told_before_anything_starts(connector: Any, config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        connector.describe_sink(config, context(tmp_path), where)
    assert caught.value.code == "setting.invalid"


def test_mages_settings_are_taken(tmp_path: Path) -> None:
    config = {
        "bucket": "lake",
        "prefix": "raw/",
        "buffer_size_mb": 5,
        "buffer_timeout_seconds": 300,
        "date_partition_format": "%Y%m%dT%H",
    }
    settings = object_settings("amazon_s3", config, context(tmp_path), where)
    assert (settings.address, settings.format, settings.path) == ("s3://lake/raw", "parquet", "{stream}/{date}")
    assert (settings.max_file_bytes, settings.max_file_seconds) == (5_000_000, 300.0)


def test_its_template_can_be_used(tmp_path: Path) -> None:
    import yaml

    for connector in (AMAZON_S3, OBJECTS, S3):
        config = yaml.safe_load(connector.template("destination", "p", "orders"))
        assert config.pop("connector_type") == connector.name
        assert connector.describe_sink(config, context(tmp_path), where)
    assert str(tmp_path / "new") in OBJECTS.check("destination", {"url": "new"}, context(tmp_path), where)
