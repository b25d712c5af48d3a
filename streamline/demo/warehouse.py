"""Query the demo's two databases."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

TABLES = ("customers", "orders", "order_lines", "products")

SALES = """
select c.country, count(distinct o.id) as orders, sum(l.quantity) as things, sum(l.total_cents) / 100 as euros
from orders o join customers c on c.id = o.customer_id join order_lines l on l.order_id = o.id
where o.status in ('paid', 'shipped')
group by c.country order by euros desc
"""
CUSTOMERS = "select id, name, email, country from customers order by id limit 3"


class Result(NamedTuple):
    """The result of a query."""

    columns: list[str]
    rows: list[tuple[object, ...]]


def shop_counts(database: Path) -> dict[str, int]:
    """Return the number of rows of each table of the shop."""
    with closing(sqlite3.connect(database)) as connection:
        return {name: connection.execute(f"select count(*) from {name}").fetchone()[0] for name in TABLES}


def warehouse_counts(warehouse: Path) -> dict[str, int]:
    """Return the number of rows of each table of the warehouse."""
    return {name: int(str(query(warehouse, f"select count(*) from {name}").rows[0][0])) for name in TABLES}


def query(warehouse: Path, statement: str) -> Result:
    """Run a query in the warehouse."""
    import duckdb

    with duckdb.connect(str(warehouse), read_only=True) as connection:
        cursor = connection.execute(statement)
        return Result([column[0] for column in cursor.description or ()], cursor.fetchall())
