"""Taps and targets in streaming pipelines."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from streamline.connectors.registry import find_connector
from streamline.errors import ConfigError
from streamline.execution.run import new_run_id
from streamline.execution.streaming import attempts
from streamline.execution.streaming.explain import explain
from streamline.execution.streaming.resend import resend
from streamline.pipeline.model import RetryConfig
from streamline.state import project_store
from tests.execution.streaming.conftest import Stream
from tests.support.batch import BatchProject
from tests.support.processes import processes_of, wait_until

ORDERS: dict[str, Any] = {
    "orders": {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "unique_constraints": ["id"]}
}
DOUBLE = """
@transformer
def double(messages, *args, **kwargs):
    return [{**message, "twice": 2 * message["id"]} for message in messages]
"""


def shop(root: Path, ids: Iterable[int]) -> None:
    """Add orders to the shop."""
    with closing(sqlite3.connect(root / "shop.db")) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, name TEXT, at TIMESTAMP)")
        db.executemany("INSERT INTO orders VALUES (?, ?, '2026-01-02T03:04:05')", [(n, f"n{n}") for n in ids])


def table(root: Path, columns: str = "id", name: str = "orders") -> list[Any]:
    """Rows of a table of the target."""
    try:
        with closing(duckdb.connect(str(root / "out.duckdb"), read_only=True)) as db:
            rows = db.sql(f"SELECT {columns} FROM {name} ORDER BY ALL").fetchall()
    except (duckdb.IOException, duckdb.CatalogException):
        return []  # being written, or not there yet
    return [row[0] if len(row) == 1 else row for row in rows]


def tap(stream: Stream, **keys: Any) -> None:
    settings = {"source": "tap-sqlite", "config": {"path": "shop.db"}, "streams": ORDERS, **keys}
    stream.files.block("load", yaml.safe_dump(settings), type="data_loader", language="yaml")


def target(stream: Stream, uuid: str = "export", upstream: list[str] | None = None, **keys: Any) -> None:
    settings = {"destination": "target-duckdb", "config": {"path": "out.duckdb"}, **keys}
    stream.files.block(uuid, yaml.safe_dump(settings), type="data_exporter", language="yaml", upstream=upstream)


@pytest.fixture(autouse=True)
def at_home(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in configs are relative to the project's folder; attempts follow each other at once."""
    monkeypatch.chdir(stream.files.root)
    monkeypatch.setattr(attempts, "BACKOFF", RetryConfig(delay=0))


def letters(stream: Stream) -> list[Any]:
    with project_store(stream.project) as store:
        return store.dead_letters("p")


def test_records_go_from_a_tap_to_a_target_as_in_other_pipelines(stream: Stream) -> None:
    root = stream.files.root
    shop(root, range(1, 4))
    tap(stream)
    target(stream)
    assert stream.run().status == "completed"
    assert table(root, "id, name") == [(1, "n1"), (2, "n2"), (3, "n3")]
    shop(root, [4])
    result = stream.run(until_caught_up=True)
    assert table(root) == [1, 2, 3, 4]
    assert [each["written"] for each in result.summary["tables"]] == [1]


def test_a_transformer_gets_the_records_and_its_output_has_columns(stream: Stream) -> None:
    root = stream.files.root
    shop(root, range(1, 3))
    tap(stream, interval=60)
    stream.transformer("double", DOUBLE)
    target(stream)
    assert stream.run(until_caught_up=True).status == "completed"
    assert table(root, 'id, twice, typeof("at")') == [(1, 2, "TIMESTAMP"), (2, 4, "TIMESTAMP")]


def test_sinks_of_messages_get_the_records(stream: Stream) -> None:
    shop(stream.files.root, [7])
    tap(stream)
    stream.sink("list", upstream=["load"])
    stream.run()
    (data,) = stream.world.written["list"]
    assert (data["id"], data["name"]) == (7, "n7")


MAPPER = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["type"] == "SCHEMA":
        message["schema"]["properties"]["tag"] = {"type": ["null", "string"]}
    if message["type"] == "RECORD":
        if message["record"]["id"] == 2:
            continue
        message["record"]["tag"] = "mapped"
    print(json.dumps(message), flush=True)
"""


def mapper(stream: Stream, uuid: str = "tag", upstream: list[str] | None = None) -> None:
    """Add a mapper that leaves out the order 2."""
    stream.files.write("mapper.py", MAPPER)
    plugins = {"mapper-tag": {"command": [sys.executable, "mapper.py"]}}
    stream.files.write("streamline.yaml", yaml.safe_dump({"name": "shop", "plugins": plugins}))
    stream.files.block(uuid, "mapper: mapper-tag\n", type="transformer", language="yaml", upstream=upstream)


def test_a_mapper_behind_a_tap_changes_its_records(stream: Stream) -> None:
    root = stream.files.root
    shop(root, [1, 2, 3])
    tap(stream, interval=60)
    mapper(stream)
    stream.transformer("double", DOUBLE)
    target(stream)
    stream.sink("list", upstream=["tag"])
    assert stream.run(until_caught_up=True).status == "completed"
    assert table(root, "id, tag, twice") == [(1, "mapped", 2), (3, "mapped", 6)]
    assert [data["tag"] for data in stream.world.written["list"]] == ["mapped", "mapped"]
    with project_store(stream.project) as store:
        (bookmark,) = store.bookmarks("p", "load").values()
    assert json.loads(bookmark.value)["id"] == 3
    shop(root, [4])
    stream.run(until_caught_up=True)
    assert table(root) == [1, 3, 4]
    assert [source.mappers for source in explain(stream.model(), stream.plan()).sources] == [["tag"]]


@pytest.mark.parametrize("behind", ["transformer", "messages", "tap and sink"])
def test_a_mapper_stands_directly_behind_a_tap_and_alone(stream: Stream, behind: str) -> None:
    if behind == "messages":
        stream.source(messages=[1])
    else:
        tap(stream)
    if behind == "transformer":
        stream.transformer("double", DOUBLE)
    mapper(stream)
    stream.sink("list", upstream=["tag", "load"] if behind == "tap and sink" else ["tag"])
    with pytest.raises(ConfigError) as refusal:
        stream.plan()
    assert refusal.value.code == "graph.wrong_place"


def test_a_run_may_read_some_streams_of_a_tap_only(stream: Stream) -> None:
    shop(stream.files.root, [1])
    with closing(sqlite3.connect(stream.files.root / "shop.db")) as db, db:
        db.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT)")
        db.execute("INSERT INTO users VALUES (7, 'a@b')")
    tap(stream, interval=60, streams={**ORDERS, "users": {}})
    stream.sink("list", upstream=["load"])
    stream.run(until_caught_up=True, streams=["users"])
    assert [data["id"] for data in stream.world.written["list"]] == [7]
    stream.run(until_caught_up=True)
    assert sorted(data["id"] for data in stream.world.written["list"])[:2] == [1, 7]
    with pytest.raises(ConfigError) as refusal:
        stream.run(streams=["nothing"])
    assert refusal.value.code == "stream.unknown"


def test_streams_are_those_of_taps(stream: Stream) -> None:
    stream.source(messages=[1])
    stream.sink()
    with pytest.raises(ConfigError) as refusal:
        stream.run(streams=["users"])
    assert refusal.value.code == "run.option_refused"


def test_the_file_of_a_tap_may_ask_for_singers_format(stream: Stream) -> None:
    shop(stream.files.root, [7])
    tap(stream, format="singer")
    stream.sink("list", upstream=["load"], format="JSON")
    stream.run()
    lines = [json.loads(line) for line in stream.world.written["list"]]
    kinds = [(message["type"], message["stream"]) for message in lines]
    assert kinds == [("SCHEMA", "orders"), ("RECORD", "orders")]


def test_a_position_is_saved_when_all_sinks_have_proven_it(stream: Stream) -> None:
    root = stream.files.root
    shop(root, [1, 2])
    tap(stream)
    stream.transformer("double", DOUBLE, upstream=["load"])
    target(stream, upstream=["load"])
    stream.sink("list", upstream=["double"])
    stream.run()
    assert table(root) == [1, 2]
    assert [data["twice"] for data in stream.world.written["list"]] == [2, 4]
    with project_store(stream.project) as store:
        (bookmark,) = store.bookmarks("p", "load").values()
    assert (bookmark.stream, bookmark.sinks) == ("orders", ["export", "list"])
    assert json.loads(bookmark.value)["id"] == 2


def test_a_full_refresh_reads_everything_again(stream: Stream) -> None:
    shop(stream.files.root, [1, 2])
    tap(stream)
    stream.sink("list", upstream=["load"])
    stream.run()
    stream.run(full_refresh=True)
    assert [data["id"] for data in stream.world.written["list"]] == [1, 2, 1, 2]
    stream.run(bookmarks=["orders.id=1"])
    assert [data["id"] for data in stream.world.written["list"]][4:] in ([2], [1, 2])


def test_messages_go_to_a_table_whose_columns_are_inferred(stream: Stream) -> None:
    root = stream.files.root
    messages = [{"id": 1}, {"id": 2, "price": 1}, {"id": 1, "price": 1.5}, {"id": "x"}, [1], {"price": 2}]
    stream.source(messages=messages, decodes=True)
    settings = {"load": {"destination_table": "sales", "unique_constraints": ["id"]}}
    target(stream, streams=settings, session_interval=1)
    result = stream.run()
    assert result.status == "completed"
    assert table(root, "id, price", "sales") == [(1, 1.5), (2, 1.0)]
    refused = letters(stream)
    assert sorted(letter.offset for letter in refused) == [3, 4, 5]
    assert {(letter.stage, letter.destination) for letter in refused} == {("export", "export")}
    assert result.summary["quarantined"] == 3


def test_letters_are_sent_again_to_a_target(stream: Stream) -> None:
    root = stream.files.root
    stream.source(messages=[1, {"value": 2}], decodes=True)
    target(stream)
    stream.run()
    assert len(letters(stream)) == 1
    settings = {"destination": "target-duckdb", "config": {"path": "out.duckdb"}, "wrap_values": True}
    stream.files.write("data_exporters/export.yaml", yaml.safe_dump(settings))
    with project_store(stream.project) as store:
        outcome = resend(stream.project, store, "p", new_run_id(), store.dead_letters("p"), overwrite=False)
    assert (outcome.arrived, outcome.refused, outcome.failure) == (1, 0, None)
    assert letters(stream) == []
    assert table(root, "value", "load") == [1, 2]


def said(number: int, stream: str = "users", **more: Any) -> dict[str, Any]:
    return {"type": "RECORD", "stream": stream, "record": {"id": number, **more}}


def test_messages_in_singers_format_have_their_schemas_and_letters_of_them_are_sent_again(stream: Stream) -> None:
    root = stream.files.root
    columns = {"id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}}
    schema = {"type": "SCHEMA", "stream": "users", "key_properties": ["id"], "schema": {"properties": columns}}
    messages = [said(1, at="2026-01-02T03:04:05Z"), schema, said(2, at="2026-01-02T03:04:05Z"), "no message"]
    stream.source(messages=messages, decodes=True, format="singer")
    target(stream)
    assert stream.run().status == "completed"
    assert table(root, 'id, typeof("at")', "users") == [(2, "TIMESTAMP")]
    assert [(letter.offset, letter.stage) for letter in letters(stream)] == [(0, "decode"), (3, "decode")]
    with project_store(stream.project) as store:
        outcome = resend(stream.project, store, "p", new_run_id(), store.dead_letters("p"), overwrite=False)
    assert (outcome.arrived, outcome.refused, outcome.failure) == (1, 1, None)
    assert table(root, "id", "users") == [1, 2]


def test_transformers_get_the_records_of_singers_format(stream: Stream) -> None:
    schema = {"type": "SCHEMA", "stream": "users", "key_properties": ["id"], "schema": {"properties": {"id": {}}}}
    stream.source(messages=[schema, said(1), said(2)], decodes=True, format="singer")
    stream.transformer("double", DOUBLE)
    stream.sink("list")
    stream.run()
    assert stream.world.written["list"] == [{"id": 1, "twice": 2}, {"id": 2, "twice": 4}]


def test_a_tap_and_messages_may_go_to_one_target(stream: Stream) -> None:
    root = stream.files.root
    shop(root, [1, 2])
    tap(stream)
    stream.source("events", messages=[{"id": 7}, {"id": 8}], group="g")
    target(stream, upstream=["load", "events"])
    assert stream.run().status == "completed"
    assert table(root) == [1, 2]
    assert table(root, name="events") == [7, 8]
    assert stream.world.committed == {"events": 2}
    shop(root, [3])
    stream.run()
    assert table(root) == [1, 2, 3]


def test_rows_that_are_read_in_full_replace_those_of_the_poll_before(stream: Stream) -> None:
    root = stream.files.root
    shop(root, [1, 2])
    tap(stream, streams={"orders": {"replication_method": "FULL_TABLE"}})
    target(stream)
    stream.run()
    with closing(sqlite3.connect(root / "shop.db")) as db, db:
        db.execute("DELETE FROM orders WHERE id = 1")
    stream.run()
    assert table(root) == [2]


def test_columns_are_known_to_the_next_run(stream: Stream) -> None:
    root = stream.files.root
    stream.source(messages=[{"id": 1, "n": 1.5}])
    target(stream)
    stream.run()
    stream.files.write(
        "data_loaders/load.yaml", yaml.safe_dump({"connector_type": "memory", "messages": [{}, {"n": 2}]})
    )
    stream.run()
    assert table(root, "n, typeof(n)", "load") == [(1.5, "DOUBLE"), (2.0, "DOUBLE")]


def test_columns_may_say_where_a_message_was_read(stream: Stream) -> None:
    root = stream.files.root
    stream.source(messages=[{"id": 1}, {"id": 2}])
    keys = ["_message_topic", "_message_partition", "_message_offset"]
    target(stream, message_columns=["topic", "partition", "offset"], streams={"load": {"unique_constraints": keys}})
    stream.run()
    assert table(root, "id, _message_topic, _message_offset", "load") == [(1, "topic", 0), (2, "topic", 1)]


def test_a_target_that_fails_is_followed_by_another_attempt_from_the_last_proof(stream: Stream) -> None:
    root = stream.files.root
    shop(root, range(1, 4))
    tap(stream)
    stream.sink("list", upstream=["load"], fail_at=None)
    once = textwrap.dedent(
        """
        import os, sys
        if not os.path.exists("failed"):
            open("failed", "w").close()
            sys.stdin.readline(), sys.stdin.readline()
            sys.exit(3)
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
        """
    )
    stream.files.write("once.py", once)
    connector = find_connector("target-duckdb")
    assert connector is not None
    argv = [sys.executable, "once.py", str(connector.run_file), "duckdb"]
    stream.files.settings["plugins"] = {"target-once": {"command": argv}}
    stream.files.write(
        "streamline.yaml", yaml.safe_dump({"name": "shop", "plugins": {"target-once": {"command": argv}}})
    )
    target(stream, upstream=["load"], destination="target-once")
    assert stream.run().status == "completed"
    assert table(root) == [1, 2, 3]
    assert (root / "failed").exists()


def test_settings_of_polls_are_of_streaming_pipelines_only(stream: Stream) -> None:
    shop(stream.files.root, [1])
    tap(stream, interval=1)
    target(stream)
    stream.files.type = "integration"
    stream.files.save()
    with pytest.raises(ConfigError) as caught:
        stream.run()
    assert caught.value.code == "setting.unknown"
    assert "data_loaders/load.yaml:" in str(caught.value.where)


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"config": {"path": "out.duckdb", "load_method": "overwrite"}}, "destination.load_method_unsupported"),
        ({"message_columns": ["nothing"]}, "setting.invalid"),
        ({"tombstones": "keep"}, "setting.invalid"),
        ({"interval": 5}, "setting.unknown"),
        ({"streams": {"order": {}}}, "stream.unknown"),
    ],
)
def test_what_a_target_cannot_do_is_said_before_anything_starts(stream: Stream, keys: Any, code: str) -> None:
    shop(stream.files.root, [1])
    tap(stream)
    target(stream, **keys)
    with pytest.raises(ConfigError) as caught:
        stream.run()
    assert caught.value.code == code


@pytest.fixture
def live(tmp_path: Path) -> Iterator[BatchProject]:
    """A project for the command; what it leaves running is ended."""
    project = BatchProject(tmp_path / "live")
    project.type = "streaming"
    project.env["STREAMLINE_INTERRUPT_SECONDS"] = "60"
    yield project
    project.close()


ENDLESS = """
import json, sys, time
users = {"tap_stream_id": "users", "stream": "users", "schema": {"properties": {"id": {"type": "integer"}}}}
if "--discover" in sys.argv: sys.exit(print(json.dumps({"streams": [{**users, "metadata": []}]})))
state = json.load(open(sys.argv[sys.argv.index("--state") + 1]))
number = state["bookmarks"].get("users", 0)
print(json.dumps({"type": "SCHEMA", "key_properties": ["id"], **users}), flush=True)
while True:
    number += 1
    print(json.dumps({"type": "RECORD", "stream": "users", "record": {"id": number}}))
    print(json.dumps({"type": "STATE", "value": {"bookmarks": {"users": number}}}), flush=True)
    time.sleep(0.01)
"""
SILENT = """
import json, sys
rows = []
for line in sys.stdin:
    message = json.loads(line)
    if message["type"] == "RECORD": rows.append(message["record"]["id"])
with open("got.txt", "a") as file: file.writelines(f"{row}\\n" for row in rows)
"""


def test_a_tap_without_an_end_is_left_running_and_a_silent_target_is_kept_durable_by_sessions(
    live: BatchProject,
) -> None:
    project = live
    project.write("tap.py", ENDLESS)
    project.write("target.py", SILENT)
    plugins = {f"{role}-x": {"command": [sys.executable, f"{role}.py"]} for role in ("tap", "target")}
    project.write("streamline.yaml", yaml.safe_dump({"name": "live", "plugins": plugins}))
    streams = {"users": {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}}
    source = {"source": "tap-x", "streams": streams}
    project.block("load", yaml.safe_dump(source), type="data_loader", language="yaml")
    sink = {"destination": "target-x", "session_interval": 0.3}
    project.block("export", yaml.safe_dump(sink), type="data_exporter", language="yaml")

    def saved() -> int:
        listed = json.loads(project.command("state", "list", "p", "--json").expect(0).out)
        return max((each["value"] for each in listed), default=0)

    running = project.start("run", "p")
    wait_until(lambda: saved() > 0, "a session is proven")
    first = saved()
    wait_until(lambda: saved() > first, "the next one is proven")
    running.signal(signal.SIGTERM)
    running.finish().expect(0)
    got = [int(line) for line in project.lines("got.txt")]
    assert got == list(range(1, len(got) + 1))
    assert saved() == len(got)
    assert processes_of(project.root) == []


def test_the_command_keeps_a_table_up_to_date_and_a_kill_loses_nothing(live: BatchProject) -> None:
    project, root = live, live.root
    shop(root, range(1, 6))
    source = {"source": "tap-sqlite", "interval": 0.2, "config": {"path": "shop.db"}, "streams": ORDERS}
    project.block("load", yaml.safe_dump(source), type="data_loader", language="yaml")
    project.block("double", DOUBLE)
    sink = {"destination": "target-duckdb", "config": {"path": "out.duckdb"}, "session_interval": 0.5}
    project.block("export", yaml.safe_dump(sink), type="data_exporter", language="yaml")

    def saved() -> int:
        listed = json.loads(project.command("state", "list", "p", "--json").expect(0).out)
        return max((each["value"]["id"] for each in listed), default=0)

    running = project.start("run", "p")
    wait_until(lambda: saved() == 5, "the first rows are proven")
    shop(root, range(6, 9))
    wait_until(lambda: saved() == 8, "rows that came later are proven")
    shop(root, range(9, 12))
    running.kill()
    running = project.start("run", "p")
    wait_until(lambda: saved() == 11, "rows that came meanwhile are proven")
    running.signal(signal.SIGTERM)
    running.finish().expect(0)
    assert table(root, "id, twice") == [(number, 2 * number) for number in range(1, 12)]
    assert processes_of(root) == []
    explained = project.command("explain", "p").expect(0)
    assert "tap-sqlite" in explained.out
    checked = json.loads(project.command("check", "p", "--json").expect(0).out)
    assert {"load", "export"} <= {each["block"] for each in checked["checks"]}
