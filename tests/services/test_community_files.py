"""Community taps for files and web services, unmodified, in environments of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.services.compare import assert_same, read_csv, read_jsonl, read_postgres
from tests.services.files import csv_bytes, dbf_bytes, serving
from tests.services.moto import S3Server
from tests.services.postgres import PostgresServer
from tests.services.project import MakeCommunity
from tests.services.seed import Kind, Row, Shop, Table


def test_s3_tap_into_csv(community: MakeCommunity, tmp_path: Path, s3_server: S3Server) -> None:
    """The tap reads its catalog from `--properties` alone: given `--catalog` it says nothing and moves nothing."""
    shop = Shop()
    bucket = f"shop-{tmp_path.name.replace('_', '-')}".lower()[:60]
    s3_server.make_bucket(bucket)
    for table in shop.tables:
        s3_server.put(bucket, f"in/{table.name}.csv", csv_bytes(table))
    project = community("tap-s3-csv", "target-csv")
    project.integration(
        "shop",
        source={
            "source": "tap-s3-csv",
            "config": {
                "aws_access_key_id": "test",
                "aws_secret_access_key": "test",
                "aws_endpoint_url": s3_server.endpoint,
                "bucket": bucket,
                "start_date": "2000-01-01T00:00:00Z",
                "tables": [
                    {
                        "table_name": table.name,
                        "search_prefix": "in",
                        "search_pattern": rf"{table.name}.*\.csv$",
                        "key_properties": ["id"],
                        "delimiter": ",",
                    }
                    for table in shop.tables
                ],
            },
        },
        destination={
            "destination": "target-csv",
            "config": {"destination_path": ".", "disable_collection": True},
        },
    )
    project.sync("shop")
    for table in shop.tables:
        (written,) = tmp_path.glob(f"{table.name}-*.csv")
        assert_same(table, read_csv(written), empty_is_null=True)

    more = Table("orders", shop.orders.kinds)
    more.rows = {number: shop.orders.rows[number] | {"id": number + 1000} for number in (1, 2, 3)}
    s3_server.put(bucket, "in/orders-2.csv", csv_bytes(more))
    before = set(tmp_path.glob("*.csv"))
    project.sync("shop")
    written_now = set(tmp_path.glob("*.csv")) - before
    rows = [row for file in written_now for row in read_csv(file)]
    # The bookmark is the newest file's time, to the second: files of that very second may come again.
    again = [row for row in rows if row["_sdc_source_file"] == "in/orders-2.csv"]
    assert [int(row["id"]) for row in again] == [1001, 1002, 1003]


def dbf_table(orders: Table) -> Table:
    """What of the orders stands in the DBF file."""
    kinds: dict[str, Kind] = {"ID": "int", "CUSTOMER": "int", "TOTAL": "decimal", "PLACED_ON": "date"}

    def one(row: Row) -> Row:
        return {
            "ID": row["id"],
            "CUSTOMER": row["customer_id"],
            "TOTAL": row["total"],
            "PLACED_ON": row["placed_on"],
        }

    return Table("orders", kinds, key="ID", rows={n: one(row) for n, row in orders.rows.items()})


def test_dbf_tap_into_jsonl(community: MakeCommunity, tmp_path: Path) -> None:
    shop = Shop()
    project = community("tap-dbf", "target-jsonl")
    (tmp_path / "orders.dbf").write_bytes(dbf_bytes(shop.orders))
    project.integration(
        "shop",
        source={"source": "tap-dbf", "config": {"path": str(tmp_path / "orders.dbf")}},
        destination={
            "destination": "target-jsonl",
            "config": {"destination_path": ".", "do_timestamp_file": False},
        },
    )
    project.sync("shop")
    assert_same(dbf_table(shop.orders), read_jsonl(tmp_path / "orders.jsonl"))


def test_dbf_tap_with_a_key_given_by_the_user(
    community: MakeCommunity, tmp_path: Path, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """The tap knows no key; `unique_constraints` gives one, so that the second run changes rows in place."""
    shop = Shop()
    project = community("tap-dbf", "target-pw-postgres")
    project.integration(
        "shop",
        source={"source": "tap-dbf", "config": {"path": str(tmp_path / "orders.dbf")}},
        destination={
            "destination": "target-pw-postgres",
            "config": {
                "host": postgres_server.host,
                "port": postgres_server.port,
                "user": postgres_server.user,
                "password": postgres_server.password,
                "dbname": postgres_database,
                "default_target_schema": "shop",
            },
            "streams": {"orders": {"destination_table": "dbf_orders", "unique_constraints": ["ID"]}},
        },
    )
    for _ in range(2):
        (tmp_path / "orders.dbf").write_bytes(dbf_bytes(shop.orders))
        project.sync("shop")
        found = read_postgres(postgres_server, postgres_database, "shop.dbf_orders")
        assert_same(dbf_table(shop.orders), [{name.upper(): value for name, value in row.items()} for row in found])
        shop.change()


def test_rest_tap_into_meltanolabs_target(
    community: MakeCommunity, tmp_path: Path, postgres_server: PostgresServer, postgres_database: str
) -> None:
    shop = Shop()
    project = community("tap-rest-api-msdk", "target-ml-postgres")
    with serving(shop.tables) as api:
        stream: dict[str, Any] = {"primary_keys": ["id"], "replication_key": "updated_at", "num_inference_records": 100}
        since = {"source_search_field": "updated_since", "source_search_query": "$last_run_date"}
        project.integration(
            "shop",
            source={
                "source": "tap-rest-api-msdk",
                "config": {
                    "api_url": api.url,
                    "records_path": "$.data[*]",
                    "next_page_token_path": "$.next_page",
                    "start_date": "2020-01-01T00:00:00+00:00",
                    "streams": [
                        {"name": table.name, "path": f"/{table.name}", **stream, **since} for table in shop.tables
                    ],
                },
                "streams": {"*": {"replication_method": "INCREMENTAL", "bookmark_properties": ["updated_at"]}},
            },
            destination={
                "destination": "target-ml-postgres",
                "config": {
                    "host": postgres_server.host,
                    "port": postgres_server.port,
                    "user": postgres_server.user,
                    "password": postgres_server.password,
                    "database": postgres_database,
                    "default_target_schema": "shop",
                    "load_method": "upsert",
                },
            },
        )
        for _ in range(2):
            project.sync("shop")
            for table in shop.tables:
                assert_same(table, read_postgres(postgres_server, postgres_database, f"shop.{table.name}"))
            moved = project.moved("shop")
            shop.change()
        assert 12 <= moved["orders"] <= 16
