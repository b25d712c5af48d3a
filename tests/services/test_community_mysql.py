"""Community taps for MySQL, unmodified, in environments of their own, against a real MariaDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.services.compare import assert_same, latest, read_duckdb, read_jsonl
from tests.services.mariadb import MariaDBServer
from tests.services.project import MakeCommunity
from tests.services.seed import Shop, write_mariadb

FULL: dict[str, Any] = {"replication_method": "FULL_TABLE"}
BY_TIME: dict[str, Any] = {"replication_method": "INCREMENTAL", "bookmark_properties": ["updated_at"]}


def login(server: MariaDBServer, **more: Any) -> dict[str, Any]:
    """The keys that both taps share; they want the port as text."""
    return {"host": server.host, "port": str(server.port), "user": server.user, "password": server.password, **more}


@pytest.fixture
def shop(mariadb_server: MariaDBServer, mariadb_database: str) -> Shop:
    """A shop that stands in the test's database. Both taps read as utf8mb3: an emoji would come as a question mark."""
    shop = Shop(beyond_utf8mb3=False)
    write_mariadb(mariadb_server, mariadb_database, shop.tables)
    return shop


def test_pipelinewise_tap_into_community_duckdb(
    community: MakeCommunity, tmp_path: Path, shop: Shop, mariadb_server: MariaDBServer, mariadb_database: str
) -> None:
    """The target flushes every hundred rows: with an unsuitable duckdb it would lose the first of each hundred."""
    project = community("tap-pw-mysql", "target-community-duckdb")
    project.integration(
        "shop",
        source={
            "source": "tap-pw-mysql",
            "config": login(mariadb_server, filter_dbs=mariadb_database, engine="mariadb"),
            "streams": {f"{mariadb_database}-customers": FULL, f"{mariadb_database}-orders": BY_TIME},
        },
        destination={
            "destination": "target-community-duckdb",
            "config": {"filepath": "warehouse.duckdb", "default_target_schema": "main", "batch_size_rows": 100},
        },
    )
    for _ in range(2):
        project.sync("shop")
        for table in shop.tables:
            found = read_duckdb(tmp_path / "warehouse.duckdb", f"main.{table.name}")
            assert_same(table, found, empty_is_null=True)
        moved = project.moved("shop")
        shop.change()
        write_mariadb(mariadb_server, mariadb_database, shop.tables)
    assert 12 <= moved[f"{mariadb_database}-orders"] <= 16


def test_pipelinewise_tap_reads_the_binary_log(
    community: MakeCommunity, tmp_path: Path, shop: Shop, mariadb_server: MariaDBServer, mariadb_database: str
) -> None:
    project = community("tap-pw-mysql", "target-jsonl")
    project.integration(
        "shop",
        source={
            "source": "tap-pw-mysql",
            "config": login(mariadb_server, filter_dbs=mariadb_database, engine="mariadb"),
            "streams": {f"{mariadb_database}-*": {"replication_method": "LOG_BASED"}},
        },
        destination={
            "destination": "target-jsonl",
            "config": {"destination_path": ".", "do_timestamp_file": False},
        },
    )
    files = {table.name: tmp_path / f"{mariadb_database}-{table.name}.jsonl" for table in shop.tables}
    project.sync("shop")
    for table in shop.tables:
        assert_same(table, read_jsonl(files[table.name]))
    shop.change()
    del shop.orders.rows[5]
    write_mariadb(mariadb_server, mariadb_database, shop.tables)
    project.sync("shop")
    for table in shop.tables:
        rows = latest(read_jsonl(files[table.name]))
        assert_same(table, [row for row in rows if not row.get("_sdc_deleted_at")])
    assert project.moved("shop") == {f"{mariadb_database}-customers": 12, f"{mariadb_database}-orders": 13}


def test_singer_tap_into_jsonl(
    community: MakeCommunity, tmp_path: Path, shop: Shop, mariadb_server: MariaDBServer, mariadb_database: str
) -> None:
    """This tap names its streams otherwise in messages (`orders`) than in the catalog (`shop-orders`)."""
    project = community("tap-singer-mysql", "target-jsonl")
    project.integration(
        "shop",
        source={
            "source": "tap-singer-mysql",
            "config": login(mariadb_server, database=mariadb_database),
            "streams": {f"{mariadb_database}-*": BY_TIME},
        },
        destination={
            "destination": "target-jsonl",
            "config": {"destination_path": ".", "do_timestamp_file": False},
        },
    )
    project.sync("shop")
    for table in shop.tables:
        assert_same(table, read_jsonl(tmp_path / f"{table.name}.jsonl"))
    before = len(read_jsonl(tmp_path / "orders.jsonl"))
    shop.change()
    write_mariadb(mariadb_server, mariadb_database, shop.tables)
    project.sync("shop")
    for table in shop.tables:
        assert_same(table, latest(read_jsonl(tmp_path / f"{table.name}.jsonl")))
    assert 12 <= len(read_jsonl(tmp_path / "orders.jsonl")) - before <= 16
