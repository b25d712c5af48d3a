"""What commands say about streaming pipelines."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamline.cli.screen import LiveCounts, Screen
from streamline.execution.delivery import Grade
from streamline.execution.events import StreamProgress
from tests.cli.conftest import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A pipeline `s`: a source, a transformer and a sink, as `streamline add` writes them."""
    (tmp_path / "streamline.yaml").write_text("name: shop\n")
    made = Shop(tmp_path)
    made("create", "s", "--type", "streaming")
    made("add", "source", "read", "--language", "python")
    made("add", "transformer", "change")
    made("add", "destination", "write", "--language", "python")
    return made


def test_the_plan(shop: Shop) -> None:
    plan = shop.json("explain", "s")
    (edge,) = plan["edges"]
    assert (edge["source"], edge["through"], edge["destination"]) == ("read", ["change"], "write")
    assert edge["delivery"]["grade"] == Grade.AT_LEAST_ONCE
    assert plan["dead_letters"] == "the state database"
    assert [source["connector"] for source in plan["sources"]] == ["python"]
    assert f"read -> change -> write: {Grade.AT_LEAST_ONCE}" in shop("explain", "s").stdout


def test_all_is_well(shop: Shop) -> None:
    assert {check["what"]: check["ok"] for check in shop.json("check", "s")["checks"]} == {
        "plan": True,
        "transformer": True,
        "source": True,
        "destination": True,
    }


def test_a_plan_that_cannot_be_is_found_by_check_and_dry_run(shop: Shop) -> None:
    file = shop.root / "pipelines/s/metadata.yaml"
    file.write_text(file.read_text() + "delivery: exactly-once\n")
    assert shop("check", "s", code=2).stdout.startswith("failed")
    shop.refuses("delivery.impossible", "run", "s", "--dry-run")


def test_blocks_in_yaml_are_of_kafka_unless_another_system_is_named(shop: Shop) -> None:
    shop("add", "source", "orders")
    assert "connector_type: kafka" in (shop.root / "data_loaders/orders.yaml").read_text()
    shop.refuses("plugin.unknown", "add", "mapper", "m")  # none is declared


@pytest.mark.parametrize("command", [("discover", "s"), ("sample", "s", "x"), ("streams", "list", "s")])
def test_there_is_no_catalog(shop: Shop, command: tuple[str, ...]) -> None:
    shop.refuses("pipeline.no_catalog", *command)


def test_taps_have_catalogs_whose_streams_are_selected_in_their_files(shop: Shop) -> None:
    with closing(sqlite3.connect(shop.root / "shop.db")) as db, db:
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT)")
        db.execute("INSERT INTO orders VALUES (1, 'a')")
    shop("create", "taps", "--type", "streaming")
    shop("add", "source", "crm", "--source", "sqlite", "--pipeline", "taps")
    shop("add", "destination", "house", "--destination", "duckdb", "--pipeline", "taps")
    file = shop.root / "data_loaders/crm.yaml"
    settings = {**yaml.safe_load(file.read_text()), "config": {"path": str(shop.root / "shop.db")}}
    assert settings["interval"] == 60
    file.write_text(yaml.safe_dump(settings))
    (stream,) = shop.json("streams", "list", "taps")
    assert stream["stream"] == "orders"
    shop("streams", "set", "taps", "orders", "replication_method=INCREMENTAL", "bookmark_properties=id")
    assert "INCREMENTAL" in file.read_text()
    assert shop.json("sample", "taps", "orders")
    assert [source["connector"] for source in shop.json("explain", "taps")["sources"]] == ["tap-sqlite"]


def test_connectors_of_streaming_pipelines_are_listed(shop: Shop) -> None:
    def listed(*words: str) -> set[str]:
        return {row["connector"] for row in shop.json("add", *words, "--list")}

    assert {"connector_type: kafka", "connector_type: stdin", "tap-postgres"} <= listed("source")
    assert {"connector_type: kafka", "connector_type: stdout"} <= listed("destination")
    assert "connector_type: stdout" not in listed("source")


def progress(**values: Any) -> StreamProgress:
    return StreamProgress(
        **{"read": 0, "written": 0, "in_flight": 0, "dead_letters": 0, "lag": [], "seconds": 0.0, **values}
    )


def test_on_a_pipe_counts_are_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    counts = LiveCounts(Screen(live=False))
    lag = [{"block": "read", "name": "t/0", "behind": 40}, {"block": "read", "name": "t/1", "behind": None}]
    for second in range(1, 11):
        values = {"read": 100 * second, "written": 90 * second, "in_flight": 10, "dead_letters": 1, "lag": lag}
        counts.show(progress(**values, seconds=float(second), saved_ago=0.4))
    first, second_line = capsys.readouterr().out.splitlines()
    assert first == "in 100/s, out 90/s, 450 written, 10 in flight, lag 40, 1 dead letter, proof 0 s ago"
    assert "900 written" in second_line


def test_on_a_pipe_counts_that_stay_the_same_are_a_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    counts = LiveCounts(Screen(live=False))
    for second in range(1, 131):
        written = 10 if second < 80 else 20
        counts.show(progress(read=written, written=written, seconds=float(second), saved_ago=0.4))
    lines = capsys.readouterr().out.splitlines()
    # After 5 s, a minute later, and when something moves.
    assert [line.split(", ")[2] for line in lines] == ["10 written", "10 written", "20 written"]
