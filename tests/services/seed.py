"""What the tests put into databases and files, and expect to find again: a small shop that changes.

Rows are dicts of Python values; a column's *kind* says what it means, so that values read back from any system
(a decimal from SQLite, a timestamp from a CSV file) can be told equal or not. See `compare.py`.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from tests.services.mariadb import MariaDBServer
from tests.services.postgres import PostgresServer

Kind = Literal["int", "text", "decimal", "bool", "date", "instant"]
Row = dict[str, Any]

EPOCH = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
# Text that careless code breaks: quotes, separators, escapes, other alphabets, what looks like null, nothing at all.
NOTES = (
    None,
    "",
    "plain",
    'say "hi"',
    "it's; drop table x --",
    "comma, tab\tand\\backslash",
    "žluťoučký 馬 🐎",
    "NULL",
    r"\N",
    "{'a': 1}",
    " spaces ",
)


@dataclass
class Table:
    """One table: its columns' kinds, its key, its rows by key."""

    name: str
    kinds: dict[str, Kind]
    key: str = "id"
    rows: dict[int, Row] = field(default_factory=dict)

    def sorted_rows(self) -> list[Row]:
        """All rows, by key."""
        return [self.rows[key] for key in sorted(self.rows)]


CUSTOMERS: dict[str, Kind] = {
    "id": "int",
    "name": "text",
    "note": "text",
    "active": "bool",
    "balance": "decimal",
    "updated_at": "instant",
}
ORDERS: dict[str, Kind] = {
    "id": "int",
    "customer_id": "int",
    "code": "int",
    "total": "decimal",
    "placed_on": "date",
    "updated_at": "instant",
}


class Shop:
    """Customers and orders, made from a seed, and the changes made to them.

    Args:
        beyond_utf8mb3: whether notes may hold characters beyond the sixteen-bit ones.
    """

    def __init__(self, seed: int = 1, customers: int = 60, orders: int = 400, *, beyond_utf8mb3: bool = True) -> None:
        self._notes = [note if beyond_utf8mb3 or note is None else note.replace("🐎", "") for note in NOTES]
        self._random = random.Random(seed)
        self._clock = EPOCH
        self.customers = Table("customers", CUSTOMERS)
        self.orders = Table("orders", ORDERS)
        for number in range(1, customers + 1):
            self.customers.rows[number] = self._customer(number)
        for number in range(1, orders + 1):
            self.orders.rows[number] = self._order(number)

    @property
    def tables(self) -> Sequence[Table]:
        """Both of them."""
        return (self.customers, self.orders)

    def change(self, updates: int = 7, inserts: int = 5) -> dict[str, list[Row]]:
        """Change some rows and add some, all later than any before; returns the rows concerned, by table."""
        changed: dict[str, list[Row]] = {}
        for table, make in ((self.customers, self._customer), (self.orders, self._order)):
            numbers = self._random.sample(sorted(table.rows), updates)
            last = max(table.rows)
            numbers += range(last + 1, last + 1 + inserts)
            changed[table.name] = [table.rows.setdefault(n, {}) for n in numbers]
            for number, row in zip(numbers, changed[table.name], strict=True):
                row.update(make(number))
        return changed

    def _tick(self) -> dt.datetime:
        # Ties are part of life: about every third row has its predecessor's time.
        if self._random.random() > 0.3:
            self._clock += dt.timedelta(seconds=self._random.randrange(1, 4000))
        return self._clock

    def _customer(self, number: int) -> Row:
        return {
            "id": number,
            "name": f"customer {number}",
            "note": self._notes[number % len(NOTES)],
            "active": number % 3 != 0,
            "balance": Decimal(self._random.randrange(-10_000_00, 10_000_00)) / 100,
            "updated_at": self._tick(),
        }

    def _order(self, number: int) -> Row:
        return {
            "id": number,
            "customer_id": self._random.randrange(1, 61),
            "code": 2**62 + number,  # not exact as a float
            "total": Decimal(self._random.randrange(0, 1_000_00)) / 100,
            "placed_on": (EPOCH + dt.timedelta(days=number % 365)).date(),
            "updated_at": self._tick(),
        }


POSTGRES_TYPES: dict[Kind, str] = {
    "int": "bigint",
    "text": "text",
    "decimal": "numeric(12, 2)",
    "bool": "boolean",
    "date": "date",
    "instant": "timestamptz",
}
MARIADB_TYPES: dict[Kind, str] = {
    "int": "bigint",
    "text": "varchar(200)",
    "decimal": "decimal(12, 2)",
    "bool": "boolean",
    "date": "date",
    "instant": "datetime",
}


def write_postgres(server: PostgresServer, database: str, tables: Sequence[Table]) -> None:
    """Make the tables where they are not there, and make their rows equal to ours, touching only what differs."""
    with server.connect(database) as connection:
        for table in tables:
            columns = ", ".join(f'"{name}" {POSTGRES_TYPES[kind]}' for name, kind in table.kinds.items())
            connection.execute(f'create table if not exists "{table.name}" ({columns}, primary key ("{table.key}"))')
            there = connection.execute(f'select {_names(table)} from "{table.name}"').fetchall()
            before = {row[0]: row for row in there}
            marks = ", ".join(["%s"] * len(table.kinds))
            sets = ", ".join(f'"{name}" = excluded."{name}"' for name in table.kinds)
            with connection.cursor() as cursor:
                cursor.executemany(
                    f'insert into "{table.name}" ({_names(table)}) values ({marks}) '
                    f'on conflict ("{table.key}") do update set {sets}',
                    [
                        tuple(row.values())
                        for row in table.sorted_rows()
                        if before.get(row["id"]) != tuple(row.values())
                    ],
                )
                cursor.executemany(
                    f'delete from "{table.name}" where "{table.key}" = %s',
                    [(number,) for number in before if number not in table.rows],
                )


def write_mariadb(server: MariaDBServer, database: str, tables: Sequence[Table]) -> None:
    """The same for a MariaDB; instants are stored as UTC without a zone."""
    with server.connect(database) as connection, connection.cursor() as cursor:
        for table in tables:
            columns = ", ".join(f"`{name}` {MARIADB_TYPES[kind]}" for name, kind in table.kinds.items())
            cursor.execute(f"create table if not exists `{table.name}` ({columns}, primary key (`{table.key}`))")
            cursor.execute(f"select {_names(table, '`')} from `{table.name}`")
            before = {row[0]: row for row in cursor.fetchall()}
            marks = ", ".join(["%s"] * len(table.kinds))
            ours = {row["id"]: tuple(map(_naive, row.values())) for row in table.sorted_rows()}
            cursor.executemany(
                f"replace into `{table.name}` ({_names(table, '`')}) values ({marks})",
                [values for number, values in ours.items() if before.get(number) != values],
            )
            for number in before:
                if number not in table.rows:
                    cursor.execute(f"delete from `{table.name}` where `{table.key}` = %s", [number])


def _names(table: Table, quote: str = '"') -> str:
    return ", ".join(f"{quote}{name}{quote}" for name in table.kinds)


def _naive(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, dt.datetime) else value
