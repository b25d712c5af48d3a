"""`streamline streams`, `discover` and `sample`, on a pipeline of fakes."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from click.testing import Result

from streamline.state import open_store
from tests.cli import conftest
from tests.conftest import MakeProject
from tests.support.project import Project, tap, target

COLUMNS = {"id": "integer", "text": "string"}
STREAMS: dict[str, Any] = {
    "orders": {"properties": COLUMNS, "replication_key": "id", "rows": 500},
    "users": {"properties": COLUMNS, "rows": 3},
    "hidden": {"properties": COLUMNS, "metadata": {"selected-by-default": False}, "rows": 2},
}


class Shop(conftest.Shop):
    """The project, and the command line inside it."""

    def __init__(self, project: Project) -> None:
        super().__init__(project.root)
        self.project = project

    def __call__(self, *args: str, code: int = 0, stdin: str | None = None) -> Result:
        result = super().__call__(*args, code=code, stdin=stdin)
        folder = self.root / ".streamline" / "runs"
        assert not folder.exists() or list(folder.iterdir()) == [], "private files are gone"
        return result

    def stream(self, name: str, *args: str) -> dict[str, Any]:
        """What `streams list` says about a stream."""
        (found,) = [row for row in self.json("streams", "list", "p", *args) if row["stream"] == name]
        return found

    def selected(self) -> list[str]:
        rows = self.json("streams", "list", "p", "--block", "load")
        return [row["stream"] for row in rows if row["selected"]]


@pytest.fixture
def shop(make_project: MakeProject) -> Shop:
    return Shop(make_project(tap("rows", {"streams": STREAMS, "spy": "spy"}), target()))


def test_discover_shows_what_the_tap_has(shop: Shop) -> None:
    shown = shop("discover", "p").stdout
    assert "orders" in shown
    assert "hidden" in shown
    catalog = shop.json("discover", "p", "load")
    assert [stream["tap_stream_id"] for stream in catalog["streams"]] == list(STREAMS)
    assert len(shop.project.spied(discover=True)) == 2, "it asks the tap each time"
    shop("discover", "p", "--cached")
    assert len(shop.project.spied(discover=True)) == 2


def test_discover_of_several_sources(make_project: MakeProject) -> None:
    one = tap("rows", {"streams": STREAMS}, uuid="one")
    shop = Shop(make_project(one, tap("counts", {"rows": 3}, uuid="two"), target()))
    assert set(shop.json("discover", "p")) == {"one", "two"}
    assert [stream["stream"] for stream in shop.json("discover", "p", "two")["streams"]] == ["numbers"]
    assert "'two'" in shop.refuses("block.not_found", "discover", "p", "tow")


def test_discovery_that_fails_says_why(make_project: MakeProject) -> None:
    shop = Shop(make_project(tap("rows", {}), target()))
    output = shop.refuses("tap.discovery_failed", "discover", "p", code=1)
    assert "KeyError" in output, "the tap's own last lines"


def test_streams_are_listed_with_their_settings(make_project: MakeProject) -> None:
    settings = {"orders": {"bookmark_properties": ["id"], "columns": ["text"]}, "*": {}}
    sink = target(streams={"*": {}, "orders": {"destination_table": "o"}})
    shop = Shop(make_project(tap("rows", {"streams": STREAMS}, streams=settings), sink))
    orders = shop.stream("orders", "--block", "load")
    assert orders["selected"] is True
    assert (orders["replication_method"], orders["bookmark_properties"]) == ("INCREMENTAL", ["id"])
    assert orders["columns"] == ["id", "text"]
    assert orders["settings"]["columns"] == {"value": ["text"], "where": "data_loaders/load.yaml:19"}
    assert shop.stream("orders", "--block", "export")["settings"]["destination_table"]["value"] == "o"
    shown = shop("streams", "list", "p").stdout
    assert "destination_table=o" in shown
    assert [row["stream"] for row in shop.json("streams", "list", "p", "u*")] == ["users"]


def test_secrets_are_masked_in_the_list(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_T", "hush-hush")
    sink = target(streams={"orders": {"destination_table": "o_{{ secret('t') }}"}})
    shop = Shop(make_project(tap("rows", {"streams": STREAMS}), sink))
    for args in (("--json",), ()):
        shown = shop("streams", "list", "p", *args).stdout
        assert "o_***" in shown
        assert "hush" not in shown


def test_settings_are_written_into_the_block_s_file(shop: Shop) -> None:
    file = shop.project.root / "data_loaders/load.yaml"
    file.write_text(before := f"# the shop\n{file.read_text()}")
    diff = shop("streams", "set", "p", "orders", "bookmark_properties=id", "run_in_parallel=true", "--block", "load")
    added = (
        'streams:\n  "*": {selected: default}\n  orders:\n    bookmark_properties: [id]\n    run_in_parallel: true\n'
    )
    assert file.read_text() == before + added
    assert "--- data_loaders/load.yaml" in diff.stdout
    assert "\n+    bookmark_properties: [id]\n" in diff.stdout
    orders = shop.stream("orders")
    assert (orders["replication_method"], orders["run_in_parallel"]) == ("INCREMENTAL", True)
    assert "run_in_parallel=true" in shop("streams", "list", "p").stdout
    assert shop.selected() == ["orders", "users"], "as before"
    shop("streams", "set", "p", "orders", "run_in_parallel=", "bookmark_properties=", "--block", "load")
    assert file.read_text() == before
    assert "says so already" in shop("streams", "set", "p", "orders", "run_in_parallel=", "--block", "load").stdout


def test_secrets_are_masked_in_the_difference(shop: Shop) -> None:
    file = shop.project.root / "data_loaders/load.yaml"
    file.write_text(file.read_text().replace("config: {", "config: {password: hunter22, "))
    diff = shop("streams", "set", "p", "orders", "replication_method=FULL_TABLE").stdout
    assert "FULL_TABLE" in diff
    assert "hunter22" not in diff


def test_a_stream_that_is_not_listed_is_not_read_because_it_is_set(make_project: MakeProject) -> None:
    shop = Shop(make_project(tap("rows", {"streams": STREAMS}, streams={"orders": {}}), target()))
    shop("streams", "set", "p", "*", "run_in_parallel=true", "--block", "load")
    assert shop.selected() == ["orders"]
    shop("streams", "set", "p", "hidden", "columns=[id]", "--block", "load")
    assert shop.selected() == ["orders"]
    shop("streams", "select", "p", "hidden")
    assert shop.selected() == ["orders", "hidden"]


def test_a_source_in_python_is_told_to_be_none(make_project: MakeProject) -> None:
    project = make_project(tap("rows", {"streams": STREAMS}), target())
    (project.root / "data_loaders/load.yaml").rename(project.root / "data_loaders/load.py")
    metadata = project.root / "pipelines/p/metadata.yaml"
    metadata.write_text(metadata.read_text().replace("yaml", "python", 1))
    for args in (["set", "p", "orders", "replication_method=FULL_TABLE"], ["select", "p", "orders"], ["list", "p"]):
        assert "data_loader in python" in Shop(project)("streams", *args, code=2).output


def test_what_an_earlier_version_stored_is_moved_into_the_files(shop: Shop) -> None:
    shop("streams", "list", "p")
    with sqlite3.connect(shop.project.root / ".streamline/state.db") as db:
        rows = [
            ("load", "users", "selected", "false"),
            ("load", "o*", "replication_method", '"FULL_TABLE"'),
            ("gone", "orders", "columns", '["id"]'),
        ]
        sql = "INSERT INTO unmoved_stream_settings (pipeline, block, stream, key, value) VALUES ('p', ?, ?, ?, ?)"
        db.executemany(sql, rows)
    db.close()
    said = shop("explain", "p").stderr
    assert "Moved the stream settings of block 'load' from the state store to data_loaders/load.yaml" in said
    assert "they are kept in .streamline/unmoved-settings/p.gone.yaml" in said
    assert "columns: [id]" in (shop.project.root / ".streamline/unmoved-settings/p.gone.yaml").read_text()
    assert shop.selected() == ["orders"]
    assert shop.stream("orders", "--block", "load")["settings"]["replication_method"]["value"] == "FULL_TABLE"
    assert shop("explain", "p").stderr == "", "once"


def test_what_cannot_be_moved_stops_the_pipeline_until_somebody_has_moved_it(shop: Shop) -> None:
    shop("streams", "list", "p")
    file = shop.project.root / "data_loaders/load.yaml"
    file.write_text(file.read_text() + "# {% if true %}\n# {% endif %}\n")
    with sqlite3.connect(shop.project.root / ".streamline/state.db") as db:
        sql = "INSERT INTO unmoved_stream_settings (pipeline, block, stream, key, value) VALUES ('p', ?, ?, ?, ?)"
        db.execute(sql, ("load", "users", "selected", "false"))
    db.close()
    kept = shop.project.root / ".streamline/unmoved-settings/p.load.yaml"
    for command in ("explain", "check", "explain"):
        assert ".streamline/unmoved-settings/p.load.yaml" in shop.refuses("setting.not_moved", command, "p")
    kept.unlink()
    shop("explain", "p")


def test_a_setting_tells_the_block_that_is_meant(shop: Shop) -> None:
    shop("streams", "set", "p", "orders", "replication_method=full-table")
    assert shop.stream("orders", "--block", "load")["settings"]["replication_method"]["value"] == "FULL_TABLE"
    shop("streams", "set", "p", "or*", "schema_change=evolve")
    assert shop.stream("orders", "--block", "export")["settings"]["schema_change"]["value"] == "evolve"
    output = shop("streams", "set", "p", "orders", "columns=id", code=2).output
    assert "--block load|export" in output


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["order", "replication_method=FULL_TABLE"], "stream.unknown", ["'order'", "orders"]),
        (["x*", "replication_method=FULL_TABLE"], "stream.unknown", ["'x*'"]),
        (["orders", "replication_metod=x"], "setting.unknown", ["'replication_metod'", "replication_method"]),
        (["orders", "replication_method=NEVER"], "setting.invalid", ["NEVER"]),
        (["users", "replication_method=INCREMENTAL"], "replication.no_key", ["users"]),
        (["orders", "bookmark_properties=idd"], "column.unknown", ["'idd'", "'id'"]),
        (["orders", "schema_change=evolve", "replication_method=FULL_TABLE"], "block.ambiguous", ["different blocks"]),
        (["orders", "nonsense"], "usage", ["KEY=VALUE"]),
        (["orders", "columns=id", "--block", "lod"], "block.not_found", ["'lod'", "load"]),
        (["orders", "replication_method=FULL_TABLE", "--block", "export"], "setting.unknown", ["source"]),
    ],
)
def test_what_can_not_be_honoured_is_not_written(shop: Shop, args: list[str], code: str, words: list[str]) -> None:
    files = [shop.project.root / name for name in ("data_loaders/load.yaml", "data_exporters/export.yaml")]
    before = [file.read_text() for file in files]
    output = shop.refuses(code, "streams", "set", "p", *args)
    for word in words:
        assert word in output
    assert [file.read_text() for file in files] == before


def test_streams_are_selected(shop: Shop) -> None:
    assert shop.selected() == ["orders", "users"]
    shop("streams", "select", "p", "hidden")
    assert shop.selected() == ["orders", "users", "hidden"]
    shop("streams", "select", "p", "users", "--off")
    assert shop.selected() == ["orders", "hidden"]
    shop("streams", "select", "p", "u*", "--only")
    assert shop.selected() == ["users"]
    shop("streams", "select", "p", "*", "u*", "--default")
    assert shop.selected() == ["orders", "users"]
    assert "selects none" in shop.refuses("stream.none_selected", "streams", "select", "p", "*", "--off")
    assert "--only" in shop.refuses("usage", "streams", "select", "p", "users", "--off", "--only")


def test_settings_can_be_changed_while_the_pipeline_runs(shop: Shop) -> None:
    store = open_store("sqlite:///.streamline/state.db", shop.project.root)
    with store.acquire_lease("p", "run-1"):
        shop("streams", "set", "p", "orders", "replication_method=FULL_TABLE")
    store.close()


def test_sample_shows_the_first_records(shop: Shop) -> None:
    shown = shop("sample", "p", "users").stdout
    assert "text 3" in shown
    assert shop.json("sample", "p", "orders", "-n", "4") == [{"id": n, "text": f"text {n}"} for n in range(1, 5)]
    assert [row["id"] for row in shop.json("sample", "p", "hidden")] == [1, 2], "it need not be selected"
    assert "'orders'" in shop.refuses("stream.unknown", "sample", "p", "order")


def test_sample_shows_numbers_with_all_their_digits(make_project: MakeProject) -> None:
    prices = {"properties": {"id": "integer", "price": "number"}, "rows": [{"id": 1, "price": 0.04}]}
    shop = Shop(make_project(tap("rows", {"streams": {"prices": prices}}), target()))
    assert shop("sample", "p", "prices").stdout.split()[-2:] == ["1", "0.04"]


def test_sample_stops_a_tap_that_never_ends(make_project: MakeProject) -> None:
    shop = Shop(make_project(tap("never_ends", {}), target()))
    (stream,) = shop.json("discover", "p")["streams"]
    assert len(shop.json("sample", "p", stream["stream"], "-n", "2")) == 2


def test_sample_of_a_tap_that_fails(make_project: MakeProject) -> None:
    config = {"streams": {"a": STREAMS["users"]}, "fail_at_start": {"stream": "a"}}
    shop = Shop(make_project(tap("rows", config), target()))
    shop.refuses("tap.exited", "sample", "p", "a", code=1)
