"""DuckDB as a sink: tables are made and changed, rows replaced and deleted, and what does not fit is refused."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from streamline.connectors.tables.connector import DUCKDB, POSTGRES
from streamline.databases import duckdb_lock
from streamline.errors import ConfigError, StreamlineError
from streamline.flow.items import BadRecord, MessageBatch
from tests.connectors.sinks import Outcome, batch, context, where, written


class Shop:
    """A DuckDB file that a sink writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, *sent: MessageBatch, about: dict[str, Any] | None = None, **config: Any) -> Outcome:
        config = {"path": "shop.duckdb", "table": "{stream}", "key": ["id"], **config}
        return written(
            DUCKDB, {key: value for key, value in config.items() if value is not None}, self.folder, sent, **about or {}
        )

    def sql(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / "shop.duckdb")) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_the_last_message_of_a_key_is_its_row_and_a_replay_changes_nothing(shop: Shop) -> None:
    sent = [
        batch([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 1, "name": "c"}]),
        batch([{"id": 2, "name": "d"}, None], keys=["2", "1"]),
    ]
    outcome = shop.write(*sent)
    assert outcome.proven == {"load": 2}
    assert shop.sql("from orders") == [(2, "d")]
    shop.write(*sent)
    assert shop.sql("from orders") == [(2, "d")]


def test_without_a_key_the_message_key_is_the_rows(shop: Shop) -> None:
    outcome = shop.write(
        batch([{"name": "a"}, {"name": "b"}, None, {"name": "c"}], keys=["x", "y", "x", None]), key=None
    )
    assert shop.sql("from orders") == [("b", "y")]
    assert [record.origin.offset for record in outcome.refused if record.origin] == [3]


def test_types_are_inferred_and_widened(shop: Shop) -> None:
    first = {"id": 1, "n": 1, "big": 2**70, "f": 1, "t": "x", "b": True, "j": {"a": [1]}, "none": None, "mixed": 1}
    moment = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
    shop.write(batch([first, {"id": 2, "mixed": "x", "moment": moment, "raw": b"\xff", "f": 1.5}]))
    shop.write(batch([{"id": 3, "n": 2.5, "later": "y"}]))
    rows = shop.sql("select n, big, f, t, b, j, mixed, raw, later from orders order by id")
    assert rows == [
        (1.0, 2**70, 1.0, "x", True, '{"a":[1]}', "1", None, None),
        (None, None, 1.5, None, None, None, "x", b"\xff", None),
        (2.5, None, None, None, None, None, None, None, "y"),
    ]
    assert shop.sql("select epoch_ms(moment) from orders where id = 2") == [(moment.timestamp() * 1000,)]


def test_what_the_database_refuses_is_refused_alone(shop: Shop) -> None:
    shop.sql("create table orders (id bigint primary key, price integer check (price > 0), day date)")
    messages: list[Any] = [{"id": number, "price": number + 1} for number in range(100)]
    messages[7]["price"] = -1
    messages[20]["day"] = "no date"
    messages[30]["price"] = 1.5
    messages[40] = ["no object"]
    messages[50] = {"price": 5}
    messages[60] = {"id": 60, "extra": 1}
    outcome = shop.write(batch(messages), schema_change="freeze", key=["id"])
    assert {record.origin.offset for record in outcome.refused if record.origin} == {7, 20, 30, 40, 50, 60}
    assert shop.sql("select count(*) from orders") == [(94,)]
    assert outcome.proven == {"load": 1}
    assert outcome.failures == []


def test_nothing_after_a_refused_message_is_written_where_it_ends_the_run(shop: Shop) -> None:
    def stop(record: BadRecord) -> None:
        raise StreamlineError("stopped")

    sent = batch([{"id": 1}, {"id": 2, "price": 1}, {"id": 3, "price": "no"}, {"id": 4}, ["no"], {"id": 6}])
    shop.sql("create table orders (id bigint primary key, price integer)")
    outcome = shop.write(sent, about={"set_aside": False, "refuse": stop})
    assert shop.sql("select id from orders order by id") == [(1,), (2,)]
    assert outcome.proven == {}
    assert len(outcome.failures) == 1


def test_rows_are_appended(shop: Shop) -> None:
    sent = batch([{"id": 1}, {"id": 1}, None], keys=["a", "a", "a"])
    outcome = shop.write(sent, sent, mode="append", key=None)
    assert shop.sql("from orders") == [(1,)] * 4
    assert len(outcome.refused) == 2


def test_columns_with_defaults_and_those_that_are_not_named_are_left_alone(shop: Shop) -> None:
    shop.sql("create table orders (id bigint primary key, name text, state text default 'new', note text)")
    shop.write(batch([{"id": 1, "name": "a", "other": 1}]), columns=["id", "name"])
    shop.sql("update orders set note = 'mine', state = 'done'")
    shop.write(batch([{"id": 1, "name": "b"}]), columns=["id", "name"])
    assert shop.sql("from orders") == [(1, "b", "done", "mine")]


def test_a_table_for_each_stream_by_metadata_and_several_columns_of_a_key(shop: Shop) -> None:
    def keyed(data: Any, key: str) -> dict[str, Any]:
        return {"data": data, "metadata": {"key": key}}

    shop.write(
        MessageBatch("a", [keyed({"x": 1, "y": "p"}, "?"), keyed({"x": 1, "y": "q"}, "?")]),
        MessageBatch("b", [{"x": 1, "y": "z"}]),
        MessageBatch("a", [keyed(None, '[1,"p"]')]),
        key=["x", "y"],
    )
    assert shop.sql("from a") == [(1, "q")]
    assert shop.sql("from b") == [(1, "z")]


def test_a_table_without_an_index_on_the_key_ends_the_run(shop: Shop) -> None:
    shop.sql("create table orders (id bigint)")
    (error,) = shop.write(batch([{"id": 1}])).failures
    assert isinstance(error, ConfigError)
    assert error.code == "table_sink.no_unique_index"


def test_a_file_that_another_process_has_is_an_error(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb_lock, "SECONDS", 0.1)
    path = str(shop.folder / "shop.duckdb")
    code = f"import duckdb, sys; c = duckdb.connect({path!r}); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        (error,) = shop.write(batch([{"id": 1}])).failures
        assert isinstance(error, ConfigError)
        assert error.code == "table_sink.locked"
        other.communicate(b"")


@pytest.mark.parametrize(
    ("connector", "config"),
    [
        (DUCKDB, {"table": "t"}),
        (DUCKDB, {"path": "f"}),
        (DUCKDB, {"path": "f", "table": "{topic}"}),
        (DUCKDB, {"path": "f", "table": "t", "mode": "append", "key": "id"}),
        (DUCKDB, {"path": "f", "table": "t", "columns": ["a"], "key": "id"}),
        (DUCKDB, {"path": "f", "table": "t", "columns": {"a": 1}}),
        (POSTGRES, {"table": "t"}),
        (POSTGRES, {"table": "t", "url": "mysql://h/d"}),
        (POSTGRES, {"table": "t", "url": "postgresql://h"}),
        (POSTGRES, {"table": "t", "url": "postgresql://h/d?options=x"}),
        (POSTGRES, {"table": "t", "url": "postgresql://h/d", "host": "h"}),
    ],
)
def test_wrong_settings_are_told_before_anything_starts(connector: Any, config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        connector.describe_sink(config, context(tmp_path), where)
    assert caught.value.code == "setting.invalid"


def test_its_template_can_be_used(tmp_path: Path) -> None:
    import yaml

    for connector in (POSTGRES, DUCKDB):
        config = yaml.safe_load(connector.template("destination", "p", "orders"))
        assert config.pop("connector_type") == connector.name
        if connector is DUCKDB:
            assert connector.describe_sink(config, context(tmp_path), where).replaces
            assert connector.check("destination", config, context(tmp_path), where)
