"""The job that Streamline is for: a community tap reads a real PostgreSQL, a Python block changes the rows, a target
writes them; the second run moves only what changed.

`STREAMLINE_TEST_MAIN_JOB_ROWS` sets the number of rows (100,000 by default; 1,000,000 is the job as it was meant).
"""

from __future__ import annotations

import os
from pathlib import Path

import duckdb

from tests.services.postgres import PostgresServer
from tests.services.project import MakeCommunity

ROWS = int(os.environ.get("STREAMLINE_TEST_MAIN_JOB_ROWS", "100000"))

TRANSFORMER = """
import pandas as pd
from streamline.decorators import transformer


@transformer
def with_tax(frame: pd.DataFrame, *args, **kwargs) -> pd.DataFrame:
    frame["gross"] = (frame["cents"] * 121) // 100
    return frame[frame["shop"] != "shop 7"]
"""


def test_postgres_through_a_transformer_into_duckdb(
    community: MakeCommunity, tmp_path: Path, postgres_server: PostgresServer, postgres_database: str
) -> None:
    project = community("tap-pw-postgres")
    with postgres_server.connect(postgres_database) as source:
        source.execute(
            "create table sales (id bigint primary key, cents bigint, shop text, sold_at timestamptz not null)"
        )
        source.execute(
            "insert into sales select n, (n * 7919) %% 100000, 'shop ' || n %% 50, "
            "'2024-01-01'::timestamptz + n * interval '1 second' from generate_series(1, %s::bigint) n",
            [ROWS],
        )
        source.execute("create index on sales (sold_at)")
        project.integration(
            "sales",
            source={
                "source": "tap-pw-postgres",
                "config": {
                    "host": postgres_server.host,
                    "port": postgres_server.port,
                    "user": postgres_server.user,
                    "password": postgres_server.password,
                    "dbname": postgres_database,
                    "filter_schemas": "public",
                },
                "streams": {"public-sales": {"replication_method": "INCREMENTAL", "bookmark_properties": ["sold_at"]}},
            },
            transform=TRANSFORMER,
            destination={
                "destination": "duckdb",
                "config": {"path": "warehouse.duckdb"},
                "streams": {"public-sales": {"destination_table": "sales"}},
            },
        )
        project.sync("sales")
        assert project.moved("sales") == {"public-sales": ROWS}
        wanted = (
            "select id, cents, shop, sold_at at time zone 'utc', (cents * 121) / 100 as gross "
            "from sales where shop <> 'shop 7' order by id"
        )
        _assert_equal(source.execute(wanted).fetchall(), tmp_path / "warehouse.duckdb")

        source.execute(
            "insert into sales select n, n, 'new', '2024-06-01'::timestamptz + n * interval '1 second' "
            "from generate_series(%s::bigint, %s) n",
            [ROWS + 1, ROWS + 25],
        )
        source.execute("update sales set cents = 1, sold_at = '2025-01-01' where id in (11, 12, 13)")
        project.sync("sales")
        # Twenty-five new, three changed, and the one at the bookmark's very time, which the tap sends again.
        assert project.moved("sales") == {"public-sales": 29}
        _assert_equal(source.execute(wanted).fetchall(), tmp_path / "warehouse.duckdb")


def _assert_equal(wanted: list[tuple[object, ...]], warehouse: Path) -> None:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        found = connection.execute("select id, cents, shop, sold_at, gross from sales order by id").fetchall()
    assert len(found) == len(wanted)
    different = [(a, b) for a, b in zip(wanted, found, strict=True) if a != b]
    assert not different, different[:5]
