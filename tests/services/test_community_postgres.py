"""Community connectors for PostgreSQL, unmodified, in environments of their own, against a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.services.compare import assert_same, read_duckdb, read_jsonl, read_postgres, read_sqlite
from tests.services.postgres import PostgresServer
from tests.services.project import MakeCommunity
from tests.services.seed import Row, Shop, Table, write_postgres

FULL: dict[str, Any] = {"replication_method": "FULL_TABLE"}
BY_TIME: dict[str, Any] = {"replication_method": "INCREMENTAL", "bookmark_properties": ["updated_at"]}


def login(server: PostgresServer, **more: Any) -> dict[str, Any]:
    """The keys that all these connectors share."""
    return {"host": server.host, "port": server.port, "user": server.user, "password": server.password, **more}


def as_pipelinewise_stores(row: Row) -> Row:
    """PipelineWise's target writes control characters as JSON escapes, and empty text as null."""
    for name, value in row.items():
        if isinstance(value, str):
            row[name] = value.replace("\t", "\\t") or None
    return row


@pytest.fixture
def shop(postgres_server: PostgresServer, postgres_database: str) -> Shop:
    """A shop that stands in the test's database."""
    shop = Shop()
    write_postgres(postgres_server, postgres_database, shop.tables)
    return shop


def test_pipelinewise_tap_into_pipelinewise_target(
    community: MakeCommunity, tmp_path: Path, shop: Shop, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """One table in full, one by its time of change. The target cannot replace: a row deleted at the source stays."""
    project = community("tap-pw-postgres", "target-pw-postgres")
    with postgres_server.database("warehouse") as warehouse:
        project.integration(
            "shop",
            source={
                "source": "tap-pw-postgres",
                "config": login(postgres_server, dbname=postgres_database, filter_schemas="public"),
                "streams": {"public-customers": FULL, "public-orders": BY_TIME},
            },
            destination={
                "destination": "target-pw-postgres",
                "config": login(
                    postgres_server,
                    dbname=warehouse,
                    default_target_schema="shop",
                    hard_delete=True,
                    batch_size_rows=100,
                ),
            },
        )

        def check() -> None:
            for table in shop.tables:
                found = read_postgres(postgres_server, warehouse, f"shop.{table.name}")
                assert_same(table, found, change=as_pipelinewise_stores)

        project.sync("shop")
        check()
        shop.change()
        write_postgres(postgres_server, postgres_database, shop.tables)
        project.sync("shop")
        check()
        moved = project.moved("shop")
        assert moved["public-customers"] == len(shop.customers.rows)
        # Seven changed, five added; the tap reads from its bookmark on, so rows with its very time come again.
        assert 12 <= moved["public-orders"] <= 16


def test_meltanolabs_tap_into_meltanolabs_target(
    community: MakeCommunity, shop: Shop, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """One table replaced as a whole, so that deleted rows go, one by its time of change."""
    project = community("tap-ml-postgres", "target-ml-postgres")
    with postgres_server.database("warehouse") as warehouse:
        project.integration(
            "shop",
            source={
                "source": "tap-ml-postgres",
                "config": login(postgres_server, database=postgres_database, filter_schemas=["public"]),
                "streams": {"public-customers": FULL, "public-orders": BY_TIME},
            },
            destination={
                "destination": "target-ml-postgres",
                "config": login(
                    postgres_server,
                    database=warehouse,
                    default_target_schema="shop",
                    load_method="upsert",
                    hard_delete=True,
                ),
            },
        )
        for _ in range(2):
            project.sync("shop")
            for table in shop.tables:
                assert_same(table, read_postgres(postgres_server, warehouse, f"shop.{table.name}"))
            moved = project.moved("shop")
            shop.change()
            shop.customers.rows.pop(3, None)
            write_postgres(postgres_server, postgres_database, shop.tables)
        assert moved["public-customers"] == 64
        assert 12 <= moved["public-orders"] <= 16


def test_pipelinewise_tap_into_meltanolabs_target(
    community: MakeCommunity, shop: Shop, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """The target refuses the tap's schema of decimals; `schema` in the source block says it otherwise."""
    project = community("tap-pw-postgres", "target-ml-postgres")
    number = {"type": ["null", "number"]}
    with postgres_server.database("warehouse") as warehouse:
        project.integration(
            "shop",
            source={
                "source": "tap-pw-postgres",
                "config": login(postgres_server, dbname=postgres_database, filter_schemas="public"),
                "streams": {
                    "public-customers": {**BY_TIME, "schema": {"properties": {"balance": number}}},
                    "public-orders": {**BY_TIME, "schema": {"properties": {"total": number}}},
                },
            },
            destination={
                "destination": "target-ml-postgres",
                "config": login(
                    postgres_server, database=warehouse, default_target_schema="shop", load_method="upsert"
                ),
            },
        )
        project.sync("shop")
        for table in shop.tables:
            assert_same(table, read_postgres(postgres_server, warehouse, f"shop.{table.name}"))


def test_meltanolabs_tap_into_sqlite(
    community: MakeCommunity, tmp_path: Path, shop: Shop, postgres_server: PostgresServer, postgres_database: str
) -> None:
    project = community("tap-ml-postgres", "target-sqlite")
    project.integration(
        "shop",
        source={
            "source": "tap-ml-postgres",
            "config": login(postgres_server, database=postgres_database, filter_schemas=["public"]),
            "streams": {"public-orders": BY_TIME, "public-customers": FULL},
        },
        destination={"destination": "target-sqlite", "config": {"database": "warehouse.db", "batch_size": 50}},
    )
    for _ in range(2):
        project.sync("shop")
        for table in shop.tables:
            assert_same(table, read_sqlite(tmp_path / "warehouse.db", f"public_{table.name}"))
        shop.change()
        write_postgres(postgres_server, postgres_database, shop.tables)


def test_a_mapper_between_tap_and_target(
    community: MakeCommunity, tmp_path: Path, shop: Shop, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """PipelineWise's transform-field hides a column of one stream and leaves the other alone.

    It swallows ACTIVATE_VERSION; a table is replaced all the same, and what was deleted at the source is gone.
    """
    project = community("tap-pw-postgres", "transform-field")
    project.integration(
        "shop",
        source={
            "source": "tap-pw-postgres",
            "config": login(postgres_server, dbname=postgres_database, filter_schemas="public"),
            "streams": {"public-*": FULL},
        },
        transform={
            "mapper": "transform-field",
            "config": {
                "transformations": [{"tap_stream_name": "public-customers", "field_id": "note", "type": "MASK-HIDDEN"}]
            },
        },
        destination={
            "destination": "duckdb",
            "config": {"path": "warehouse.duckdb"},
            "streams": {f"public-{table.name}": {"destination_table": table.name} for table in shop.tables},
        },
    )

    def hidden(row: Row) -> Row:
        return row | {"note": "hidden"}

    for _ in range(2):
        project.sync("shop")
        assert_same(shop.customers, read_duckdb(tmp_path / "warehouse.duckdb", "customers"), change=hidden)
        assert_same(shop.orders, read_duckdb(tmp_path / "warehouse.duckdb", "orders"))
        shop.change()
        for table in shop.tables:
            table.rows.pop(3, None)
        write_postgres(postgres_server, postgres_database, shop.tables)


def test_meltanolabs_tap_reads_the_log(
    community: MakeCommunity, tmp_path: Path, shop: Shop, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """Changes only: what stood in the tables before the slot was made is not in the log."""
    project = community("tap-ml-postgres", "target-jsonl")
    slot = f"look_{postgres_database}"
    with postgres_server.connect(postgres_database) as source:
        source.execute("select pg_create_logical_replication_slot(%s, 'wal2json')", [slot])
    project.integration(
        "shop",
        source={
            "source": "tap-ml-postgres",
            "config": login(
                postgres_server,
                database=postgres_database,
                filter_schemas=["public"],
                replication_slot_name=slot,
                # Else each table is read for itself, and the first one's end throws the others' log away.
                log_based_single_connection=True,
                replication_idle_exit_seconds=3,
            ),
            "streams": {"public-*": {"replication_method": "LOG_BASED", "bookmark_properties": ["_sdc_lsn"]}},
        },
        destination={"destination": "target-jsonl", "config": {"destination_path": ".", "do_timestamp_file": False}},
    )
    seen: dict[str, int] = dict.fromkeys(("customers", "orders"), 0)
    for _ in range(2):
        changed = shop.change()
        write_postgres(postgres_server, postgres_database, shop.tables)
        project.sync("shop")
        for table in shop.tables:
            rows = read_jsonl(tmp_path / f"public-{table.name}.jsonl")
            news = Table(table.name, table.kinds, rows={row["id"]: row for row in changed[table.name]})
            assert_same(news, rows[seen[table.name] :])
            seen[table.name] = len(rows)
