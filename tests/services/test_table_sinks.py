"""PostgreSQL as a sink of messages: what only a server can show."""

from __future__ import annotations

import datetime as dt
import threading
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from streamline.connectors.tables.connector import POSTGRES
from streamline.errors import ConfigError
from streamline.flow.items import MessageBatch
from tests.connectors.sinks import Outcome, batch, context, where, written
from tests.services.postgres import PostgresServer


class Shop:
    """A database that a sink writes."""

    def __init__(self, server: PostgresServer, database: str, folder: Path) -> None:
        self.server, self.database, self.folder = server, database, folder
        self.place = {"url": server.url(database)}

    def write(self, *sent: MessageBatch, about: dict[str, Any] | None = None, **config: Any) -> Outcome:
        config = {**self.place, "table": "{stream}", "key": ["id"], **config}
        return written(POSTGRES, config, self.folder, sent, **about or {})

    def sql(self, sql: str) -> list[tuple[Any, ...]]:
        with self.server.connect(self.database) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def shop(postgres_server: PostgresServer, postgres_database: str, tmp_path: Path) -> Shop:
    return Shop(postgres_server, postgres_database, tmp_path)


def test_tables_are_made_filled_by_key_and_replayed_without_harm(shop: Shop) -> None:
    moment = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
    uuid = UUID(int=7)
    first = {"id": 1, "n": 1, "big": 2**70, "t": 'a,"b"\n', "empty": "", "j": {"a": [1]}, "at": moment, "u": uuid}
    sent = [
        batch([first, {"id": 2, "raw": b"\xff\x00", "n": 2, "j": "x"}, {"id": 3}, {"id": 3, "t": "last"}]),
        batch([{"id": 4, "n": 1.5, "new": True, "j": "text"}, None], keys=["4", "2"]),
    ]
    for _ in range(2):
        outcome = shop.write(*sent, schema="made")
        assert outcome.proven == {"load": 2}
        assert shop.sql("select id, n, t, j, new from made.orders order by id") == [
            (1, 1.0, 'a,"b"\n', {"a": [1]}, None),
            (3, None, "last", None, None),
            (4, 1.5, None, "text", True),
        ]
    shop.write(batch([{"id": 2, "raw": b"\xff\x00"}]), schema="made")
    rows = shop.sql("select big, t, empty, j, at, u, pg_typeof(j)::text from made.orders where id = 1")
    assert rows == [(2**70, 'a,"b"\n', "", {"a": [1]}, moment, uuid, "jsonb")]
    assert shop.sql("select raw from made.orders where id = 2") == [(b"\xff\x00",)]


def test_what_the_database_refuses_is_refused_alone(shop: Shop) -> None:
    shop.sql(
        "create table orders (id int primary key, price int check (price > 0), day date, tags text[], "
        "made timestamptz default now(), twice int generated always as (price * 2) stored, "
        "note text not null default '')"
    )
    messages: list[Any] = [{"id": number, "price": number + 1, "tags": ["a", "b"]} for number in range(50)]
    messages[7]["price"] = -1
    messages[20]["day"] = "no date"
    messages[30]["note"] = "a\0b"
    messages[40]["price"] = 1.5
    outcome = shop.write(batch(messages), schema_change="freeze")
    assert {record.origin.offset for record in outcome.refused if record.origin} == {7, 20, 30, 40}
    assert outcome.failures == []
    rows = shop.sql("select count(*), count(made), max(twice), max(tags) from orders")
    assert rows == [(46, 46, 100, ["a", "b"])]


def test_a_lost_connection_is_waited_for(shop: Shop) -> None:
    shop.sql("create table orders (id int primary key)")
    sent = [batch([{"id": number}]) for number in range(200)]
    ended = threading.Event()

    def disturb() -> None:
        while not ended.wait(0.02):
            shop.sql(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )

    thread = threading.Thread(target=disturb)
    thread.start()
    timer = threading.Timer(1.0, ended.set)
    timer.start()
    try:
        outcome = shop.write(*sent)
    finally:
        ended.set()
        thread.join()
        timer.cancel()
    assert outcome.failures == []
    assert outcome.proven == {"load": 200}
    assert shop.sql("select count(*) from orders") == [(200,)]


def test_two_sinks_may_make_the_same_table(shop: Shop) -> None:
    outcomes: list[Outcome] = []

    def write(first: int) -> None:
        outcomes.append(shop.write(*(batch([{"id": first + each, f"c{each}": 1}]) for each in range(20))))

    threads = [threading.Thread(target=write, args=[first]) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.proven for outcome in outcomes] == [{"load": 20}] * 3
    assert shop.sql("select count(*), sum(c7) from orders") == [(60, 3)]


def test_who_is_not_let_in_is_told_at_once(shop: Shop) -> None:
    began = time.monotonic()
    shop.place = {"url": shop.server.url(shop.database).replace(shop.server.password, "wrong")}
    (error,) = shop.write(batch([{"id": 1}]), about={"startup_timeout": 3600.0}).failures
    assert getattr(error, "code", None) == "table_sink.failed"
    assert time.monotonic() - began < 60


def test_a_table_without_an_index_on_the_key_ends_the_run(shop: Shop) -> None:
    shop.sql("create table orders (id int)")
    (error,) = shop.write(batch([{"id": 1}])).failures
    assert isinstance(error, ConfigError)
    assert error.code == "table_sink.no_unique_index"
    assert "it will be made" in POSTGRES.check(
        "destination", {**shop.place, "table": "none", "key": "id"}, context(shop.folder), where
    )
