"""The shop: a SQLite database with changing data. `python shop.py` simulates another day.

Generates customers, orders, order lines and products from a fixed seed, so that every demo shows the same numbers.
Uses the standard library only.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

DATABASE = "shop.db"
FIRST_DAY = datetime(2026, 3, 1, 8)

TABLES = """
create table products (id integer primary key, name text not null, cents integer not null);
create table customers (
    id integer primary key, name text not null, email text not null, country text not null, updated_at text not null
);
create table orders (
    id integer primary key, customer_id integer not null references customers, status text not null,
    updated_at text not null
);
create table order_lines (
    order_id integer not null references orders, line integer not null, product_id integer not null,
    quantity integer not null, unit_cents integer not null, updated_at text not null, primary key (order_id, line)
);
"""
COUNTRIES = ("CZ", "DE", "FR", "IT", "PL", "PT", "SE")
FIRST_NAMES = ("Ada", "Bruno", "Chiara", "David", "Emma", "Filip", "Greta", "Hugo", "Inês", "Jana", "Karl", "Łucja")
LAST_NAMES = ("Almeida", "Berg", "Conti", "Dvořák", "Eriksson", "Fischer", "Garnier", "Horák", "Kowalska", "Rossi")
THINGS = ("lamp", "chair", "table", "shelf", "mirror", "clock", "basket", "rug")
STYLES = ("small", "large", "oak", "steel", "red")


class Shop:
    """Changes an open shop database."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        (days,) = database.execute("select count(distinct substr(updated_at, 1, 10)) from orders").fetchone()
        self._random = random.Random(f"shop, day {days}")
        self._now = FIRST_DAY + timedelta(days=days)

    def first_day(self, customers: int = 1_000, orders: int = 5_000) -> None:
        """Fill the empty tables."""
        for style in STYLES:
            for thing in THINGS:
                self._new("products", (f"{style} {thing}", self._random.randrange(5, 200) * 100 - 1))
        for _ in range(customers):
            self._new_customer()
        for _ in range(orders):
            self._new_order()

    def next_day(self) -> dict[str, int]:
        """Add and update customers and orders, delete a product, raise prices.

        Returns:
            the number of added, changed and deleted rows, by table.
        """
        before = self._database.total_changes
        changes = {}

        def count(table: str) -> None:
            nonlocal before
            changes[table] = self._database.total_changes - before
            before = self._database.total_changes

        (discontinued,) = self._database.execute("select min(id) from products").fetchone()
        self._database.execute("delete from products where id = ?", (discontinued,))
        for (number,) in self._some("select id from products", 5):
            self._database.execute("update products set cents = cents + 200 where id = ?", (number,))
        count("products")
        for _ in range(12):
            self._new_customer()
        for (number,) in self._some("select id from customers", 20):
            self._change("customers", number, "country", self._random.choice(COUNTRIES))
        count("customers")
        lines = self._database.execute("select count(*) from order_lines").fetchone()[0]
        for _ in range(60):
            self._new_order()
        for status, next_status in (("paid", "shipped"), ("new", "paid")):
            for (number,) in self._some(f"select id from orders where status = '{status}'", 40):
                self._change("orders", number, "status", next_status)
        added = self._database.execute("select count(*) from order_lines").fetchone()[0] - lines
        count("orders")
        changes["orders"] -= added
        changes["order_lines"] = added
        self._database.commit()
        return changes

    def _new_customer(self) -> None:
        first, last = self._random.choice(FIRST_NAMES), self._random.choice(LAST_NAMES)
        email = f"{first}.{last}.{self._random.randrange(10_000)}@example.com".lower()
        self._new("customers", (f"{first} {last}", email, self._random.choice(COUNTRIES), self._time()))

    def _new_order(self) -> None:
        (customers,) = self._database.execute("select max(id) from customers").fetchone()
        status = self._random.choice(("new", "paid", "paid", "shipped"))
        order = self._new("orders", (self._random.randint(1, customers), status, self._time()))
        products = self._some("select id, cents from products", self._random.randint(1, 4))
        for line, (product, cents) in enumerate(products, 1):
            values = (order, line, product, self._random.randint(1, 3), cents, self._time())
            self._database.execute("insert into order_lines values (?, ?, ?, ?, ?, ?)", values)

    def _new(self, table: str, values: Sequence[object]) -> int:
        placeholders = ", ".join("?" * len(values))
        return self._database.execute(f"insert into {table} values (null, {placeholders})", values).lastrowid or 0

    def _change(self, table: str, number: int, column: str, value: str) -> None:
        statement = f"update {table} set {column} = ?, updated_at = ? where id = ?"
        self._database.execute(statement, (value, self._time(), number))

    def _some(self, query: str, count: int) -> list[tuple[int, ...]]:
        return self._random.sample(self._database.execute(query).fetchall(), count)

    def _time(self) -> str:
        self._now += timedelta(seconds=self._random.randrange(3))
        return self._now.isoformat(sep=" ")


def create(path: Path) -> None:
    """Create the database with the data of the first day."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(TABLES)
        Shop(database).first_day()
        database.commit()


def live(path: Path) -> dict[str, int]:
    """Simulate another day. Return the number of added, changed and deleted rows, by table."""
    with closing(sqlite3.connect(path)) as database:
        return Shop(database).next_day()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Live through another day at the shop.")
    parser.add_argument("--days", type=int, default=1, help="how many days (1)")
    for _ in range(parser.parse_args().days):
        print(", ".join(f"{table}: {count} rows" for table, count in live(Path(DATABASE)).items()))
