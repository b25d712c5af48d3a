"""Incremental replication with ties and NULLs in the bookmark."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from tests.conformance.integration.common import rows_tap, upto
from tests.conftest import MakeProject
from tests.support.project import tap, target


def shop_database(root: Path) -> sqlite3.Connection:
    """25 orders; `updated_at` has ties across the border of any page of 10, and NULLs."""
    db = sqlite3.connect(root / "shop.db", isolation_level=None)
    db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total REAL, updated_at TEXT)")
    for n in range(1, 26):
        at = None if n % 8 == 0 else f"2026-01-{n // 7 + 1:02d}T00:00:00Z"
        db.execute("INSERT INTO orders VALUES (?, ?, ?)", (n, n / 4, at))
    return db


def test_ties_and_nulls_in_the_bookmark_of_our_own_tap(make_project: MakeProject) -> None:
    settings = {"orders": {"replication_method": "INCREMENTAL", "bookmark_properties": ["updated_at"]}}
    project = make_project(
        tap("sqlite", {"path": "shop.db"}, builtin=True, streams=settings),
        target("keyed", {"log": "log.jsonl", "flush": 10}),
    )
    with contextlib.closing(shop_database(project.root)) as db:
        log = project.root / "log.jsonl"

        project.run().expect(0)
        assert project.ids("orders") == upto(25)
        before = project.rows("orders")

        # Nothing has changed: our own tap sends nothing twice. Rows with NULLs come with full syncs only.
        log.unlink()
        project.run().expect(0, "3 rows .* updated_at")
        assert project.rows("orders") == before
        assert [m for m in project.messages() if m["type"] == "RECORD"] == []

        # A row added with the same bookmark as the last.
        (newest,) = db.execute("SELECT max(updated_at) FROM orders").fetchone()
        db.execute("INSERT INTO orders VALUES (26, 1.0, ?)", (newest,))
        log.unlink()
        project.run().expect(0)
        assert [m["record"]["id"] for m in project.messages() if m["type"] == "RECORD"] == [26]

        # A changed row.
        db.execute("UPDATE orders SET total = 99.5, updated_at = '2026-02-01T00:00:00Z' WHERE id = 3")
        log.unlink()
        project.run().expect(0)
        assert [m["record"]["id"] for m in project.messages() if m["type"] == "RECORD"] == [3]
        assert project.rows("orders")[2]["total"] == 99.5


def test_ties_and_nulls_in_the_bookmark_of_an_ordinary_tap(make_project: MakeProject) -> None:
    rows: list[dict[str, Any]] = [{"id": n, "at": None if n % 8 == 0 else n // 7, "text": "a"} for n in upto(25)]
    orders = {"properties": {"id": "integer", "at": "integer", "text": "string"}, "replication_key": "at"}
    settings = {"orders": {"replication_method": "INCREMENTAL", "bookmark_properties": ["at"]}}
    source = rows_tap({"orders": orders}, {"page": 10, "rows_file": "rows.json"}, streams=settings)
    project = make_project(source, target())
    project.write_json("rows.json", {"orders": rows})
    project.run().expect(0)
    assert project.ids("orders") == upto(25)

    project.run().expect(0)
    assert project.rows("orders") == sorted(rows, key=lambda row: row["id"])

    rows.append({"id": 26, "at": 25 // 7, "text": "new, with the bookmark of the last"})
    project.write_json("rows.json", {"orders": rows})
    project.run().expect(0)
    assert project.ids("orders") == upto(26)

    rows[2].update(at=9, text="changed")
    project.write_json("rows.json", {"orders": rows})
    project.run().expect(0)
    assert project.rows("orders")[2]["text"] == "changed"
