"""`streamline demo`: what a newcomer sees, and the project that it leaves."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
from contextlib import closing
from importlib.machinery import ModuleSpec
from pathlib import Path

import duckdb
import pytest
import yaml
from click.testing import CliRunner

from streamline.cli.main import main
from tests.support.preloaded import streamline


def moved(output: str) -> list[dict[str, int]]:
    """The tables of the two syncs: rows moved, by table."""
    table = re.compile(r"^(customers|orders|order_lines|products) +(\d+) +(\d+) +(\d+)$", re.MULTILINE)
    rows = [(name, int(number)) for name, _, number, _ in table.findall(output)]
    assert len(rows) == 8, output
    return [dict(rows[:4]), dict(rows[4:])]


def test_demo_moves_everything_and_then_what_changed_and_names_commands_that_work(tmp_path: Path) -> None:
    done = streamline(tmp_path, "demo", "shop")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = moved(done.stdout)
    assert (first["customers"], first["orders"], first["products"]) == (1000, 5000, 40)
    # What the day brought, exactly: our own taps do not send a row twice.
    (changes,) = re.findall(r"^Added, changed or deleted: (.*)$", done.stdout, re.MULTILINE)
    brought = {table: int(number) for number, table in re.findall(r"(\d+) (\w+)", changes)}
    assert {name: second[name] for name in ("customers", "order_lines")} == {
        name: brought[name] for name in ("customers", "order_lines")
    }
    assert 60 < second["orders"] <= brought["orders"]
    assert second["products"] == 39
    shop = tmp_path / "shop"
    with closing(sqlite3.connect(shop / "shop.db")) as source, duckdb.connect(str(shop / "warehouse.duckdb")) as target:
        for query in (
            "select id, name, country from customers order by id",
            "select id, customer_id, status from orders order by id",
            "select order_id, line, quantity * unit_cents from order_lines order by order_id, line",
            "select id, name, cents from products order by id",
        ):
            ours = query.replace("quantity * unit_cents", "total_cents")
            assert target.execute(ours).fetchall() == source.execute(query).fetchall()
        assert target.execute("select count(*) from customers where email not like '***@%'").fetchone() == (0,)
    commands = re.findall(r"^  streamline (\w.*?)(?:  +.*)?$", done.stdout, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        did = streamline(shop, *command.split())
        assert did.returncode == 0, f"{command}\n{did.stdout}{did.stderr}"


def test_demo_refuses_a_folder_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    done = streamline(tmp_path, "demo", "mine")
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_the_streaming_demo_ends_by_itself_with_every_order_delivered(tmp_path: Path) -> None:
    done = streamline(tmp_path, "demo", "--streaming", "live")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1,000 orders in, 994 totals out, 6 dead letters" in done.stdout
    assert "1,000 orders in, 1,000 totals out" in done.stdout
    pipeline = yaml.safe_load((tmp_path / "live/pipelines/orders/metadata.yaml").read_text())
    assert pipeline["variables"] == {"kafka": "localhost:9092"}
    shown = streamline(tmp_path / "live", "runs", "show").stdout
    assert "dead letters: 6" in shown  # of the pipeline's run, not of the retry
    assert "quarantined" not in shown.casefold()
    for command in (["explain", "orders"], ["check", "--help"]):
        assert streamline(tmp_path / "live", *command).returncode == 0


def test_the_streaming_demo_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def without_confluent(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "confluent_kafka" else find_spec(name, package)

    monkeypatch.setattr("importlib.util.find_spec", without_confluent)
    result = CliRunner().invoke(main, ["demo", "--streaming", str(tmp_path / "live")])
    assert result.exit_code == 2
    assert "pip install 'streamline[confluent]'" in result.output
    assert not (tmp_path / "live").exists()
