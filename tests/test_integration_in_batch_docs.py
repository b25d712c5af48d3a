"""docs/integration-in-batch.md: what it shows runs."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import duckdb
import pytest

from tests.support.preloaded import streamline

PAGE = Path(__file__).parents[1] / "docs" / "integration-in-batch.md"
FILES = {
    found[1]: text
    for text in re.findall(r"^```\w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    if (found := re.match(r"# ((?:\w+/)+[\w.]+)\n", text))
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The page's files as a project."""
    (tmp_path / "streamline.yaml").write_text("name: shop\n")
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("create table orders (id integer primary key, total real, updated_at text)")
        database.executemany("insert into orders values (?, ?, ?)", [(1, 9.5, "2026-01-01"), (2, 20.0, "2026-01-02")])
    return tmp_path


def test_the_pipeline_runs_as_printed(shop: Path) -> None:
    for _ in range(2):
        done = streamline(shop, "run", "shop_orders")
        assert done.returncode == 0, done.stdout + done.stderr
    with duckdb.connect(str(shop / "warehouse.duckdb")) as warehouse:
        assert warehouse.execute("select id, total from orders").fetchall() == [(2, 20.0)]


def test_its_commands_run_as_printed(shop: Path) -> None:
    commands = re.findall(r"^streamline (.+)$", PAGE.read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        done = streamline(shop, *command.split())
        assert done.returncode == 0, done.stdout + done.stderr
