"""What `streamline add` writes into batch pipelines runs as it is."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import duckdb
import pytest
import yaml

from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from tests.cli.conftest import Shop
from tests.services.require import missing
from tests.support.preloaded import streamline


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A project with an empty batch pipeline `p`."""
    (tmp_path / "streamline.yaml").write_text("name: shop\n")
    made = Shop(tmp_path)
    made("create", "p", "--type", "python")
    return made


def run(shop: Shop, *arguments: str) -> str:
    """Run the pipeline with its tests; what was printed."""
    done = streamline(shop.root, "run", "p", "--test", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_kind_of_python_block(shop: Shop) -> None:
    assert "no block waits for this sensor yet" in shop("add", "sensor", "wait").stderr
    for kind in ("data_loader", "transformer", "custom", "data_exporter"):
        upstream = ("--upstream", "wait") if kind == "data_loader" else ()
        shop("add", kind, f"my_{kind}", *upstream)
    assert "which gates my_custom" in shop("add", "conditional", "if_so", "--upstream", "my_custom").stdout
    assert "told, called after my_custom" in shop("add", "callback", "told", "--upstream", "my_custom").stdout
    assert "told_all, called after the whole pipeline" in shop("add", "callback", "told_all").stdout
    out = run(shop)
    assert "completed: 5 completed" in out
    assert "my_custom succeeded" in out
    assert "p succeeded" in out


def test_a_callback_tells_which_blocks_failed(shop: Shop) -> None:
    shop("add", "custom", "breaks")
    shop("add", "callback", "told_all")
    shop("add", "callback", "told", "--upstream", "breaks")
    (shop.root / "custom/breaks.py").write_text("@custom\ndef run(*args, **kwargs):\n    raise OSError('no disk')\n")
    done = streamline(shop.root, "run", "p")
    assert done.returncode == 1
    assert "p failed: breaks" in done.stdout
    assert "breaks failed: OSError: no disk" in done.stdout


@pytest.mark.parametrize("kind", ["data_loader", "transformer", "custom", "data_exporter"])
def test_alone_in_a_pipeline(shop: Shop, kind: str) -> None:
    shop("add", kind, "x")
    assert "1 completed" in run(shop)


def test_parameters_are_called_as_the_blocks_before(shop: Shop) -> None:
    for name in ("orders", "customers", "class", "two words".replace(" ", "-")):
        shop("add", "data_loader", name)
    shop("add", "sensor", "wait")
    shop("add", "transformer", "one", "--upstream", "orders", "--upstream", "wait")
    shop("add", "transformer", "two", "--upstream", "orders", "--upstream", "customers")
    shop("add", "transformer", "odd", "--upstream", "class", "--upstream", "two-words")
    texts = {name: (shop.root / f"transformers/{name}.py").read_text() for name in ("one", "two", "odd")}
    assert "def transform(orders, *args, **kwargs):\n    return orders\n" in texts["one"]
    assert 'return {"orders": orders, "customers": customers}' in texts["two"]
    assert "def transform(df_1, df_2, *args, **kwargs):" in texts["odd"]
    run(shop)


def test_blocks_in_sql(shop: Shop) -> None:
    shop("add", "data_loader", "load", "--language", "sql")
    shop("add", "transformer", "change", "--language", "sql")
    shop("add", "data_loader", "more", "--language", "sql")
    shop("add", "transformer", "both", "--language", "sql", "--upstream", "change", "--upstream", "more")
    shop("add", "data_exporter", "out", "--language", "sql", "--upstream", "both")
    assert (shop.root / "transformers/change.sql").read_text() == "select *\nfrom {{ df_1 }}\n"
    assert (shop.root / "transformers/both.sql").read_text().startswith("-- df_1 is change, df_2 is more\n")
    assert "5 completed" in run(shop)


def test_blocks_in_r(shop: Shop) -> None:
    if shutil.which("Rscript") is None:
        missing("there is no Rscript")
    shop("add", "data_loader", "load", "--language", "r")
    shop("add", "transformer", "change", "--language", "r")
    shop("add", "data_loader", "more", "--language", "python")
    shop("add", "transformer", "both", "--language", "r", "--upstream", "change", "--upstream", "more")
    shop("add", "data_exporter", "out", "--language", "r", "--upstream", "both")
    assert "transform <- function(df_1, df_2, ...)" in (shop.root / "transformers/both.r").read_text()
    assert "5 completed" in run(shop)


def test_what_is_written_says_what_people_would_write(shop: Shop) -> None:
    shop("add", "data_loader", "load")
    shop("add", "callback", "told", "--upstream", "load")
    written = yaml.safe_load((shop.root / "pipelines/p/metadata.yaml").read_text())
    assert written["callbacks"] == [
        {"uuid": "told", "type": "callback", "language": "python", "upstream_blocks": ["load"]}
    ]
    text = (
        "# ours\nblocks:\n- {uuid: load, type: data_loader}  # theirs\ncolour: red\n"
        "dynamic_blocks: {max_child_block_runs: 5} # few\n"
    )
    (shop.root / "pipelines/p/metadata.yaml").write_text(text)
    shop("add", "transformer", "t")
    shop("add", "conditional", "c", "--upstream", "t")
    after = (shop.root / "pipelines/p/metadata.yaml").read_text()
    for line in text.splitlines():
        assert line in after.splitlines()
    model = load_pipeline(Project.open(shop.root), "p")
    assert (model.order(), list(model.conditionals), model.extra) == (["load", "t"], ["c"], {"colour": "red"})


def entry(shop: Shop, uuid: str) -> dict[str, object]:
    blocks = yaml.safe_load((shop.root / "pipelines/p/metadata.yaml").read_text())["blocks"]
    found: dict[str, object] = next(one for one in blocks if one["uuid"] == uuid)
    return found


def test_the_first_dbt_block_brings_a_dbt_project(shop: Shop) -> None:
    shop("add", "data_loader", "load")
    made = shop("add", "dbt", "clean").stdout.splitlines()
    assert made == [
        "Created dbts/clean.yaml",
        "Created dbt/shop/dbt_project.yml",
        "Created dbt/shop/profiles.yml",
        "Created dbt/shop/models/clean.sql",
        "Created dbt/shop/models/clean.yml",
        "Added to p: load → clean",
    ]
    assert entry(shop, "clean")["configuration"] == {"dbt": {"command": "build"}, "dbt_project_name": "shop"}
    assert "source('streamline', 'load')" in (shop.root / "dbt/shop/models/clean.sql").read_text()
    assert "--select clean" in (shop.root / "dbts/clean.yaml").read_text()
    assert shop("check", "p").stdout.endswith("3 of 3 ok\n")


def test_dbt_and_targets_write_files_of_their_own(shop: Shop) -> None:
    from streamline.blocks.connector.templates import connector_block
    from streamline.project.starter_project import TEMPLATE

    shop("add", "dbt", "clean")
    target = yaml.safe_load(connector_block("destination", "duckdb", "target-duckdb", [], with_streams=False))[
        "config"
    ]["path"]
    for file in (shop.root / "dbt/shop/profiles.yml", TEMPLATE / "dbt/shop/profiles.yml"):
        assert yaml.safe_load(file.read_text())["shop"]["outputs"]["dev"]["path"] != target


def test_a_name_with_a_folder(shop: Shop) -> None:
    assert "Created data_loaders/sub/load.py" in shop("add", "data_loader", "sub/load").stdout
    shop("add", "transformer", "sub/change")
    assert entry(shop, "sub/change")["upstream_blocks"] == ["sub/load"]
    assert "2 completed" in run(shop)
    for name in ("../x", "/x", "x/", "a//b"):
        shop.refuses("block.invalid_name", "add", "custom", name)


def test_a_name_is_suggested_without_accents(shop: Shop) -> None:
    shop.refuses("pipeline.invalid_name", "create", "été")


def test_further_dbt_blocks_use_it(shop: Shop) -> None:
    shop("add", "dbt", "all")
    made = ["Created dbts/more.yaml", "Created dbt/shop/models/more.sql"]
    assert shop("add", "dbt", "more").stdout.splitlines()[:-1] == made
    assert (shop.root / "dbts/more.yaml").read_text().splitlines()[-1] == "--select more"
    (shop.root / "dbt/shop/models/there.sql").write_text("select 2 as id\n")
    assert shop("add", "dbt", "there").stdout.splitlines()[:-1] == ["Created dbts/there.yaml"]
    assert (shop.root / "dbt/shop/models/there.sql").read_text() == "select 2 as id\n"
    shop("add", "dbt", "one-model", "--language", "sql")
    assert entry(shop, "one-model")["configuration"] == {"file_path": "dbt/shop/models/one_model.sql"}
    assert (shop.root / "dbt/shop/models/one_model.sql").read_text() == "select 1 as id\n"
    assert shop("check", "p").stdout.endswith("5 of 5 ok\n")


def test_of_several_dbt_projects_one_is_named(shop: Shop) -> None:
    for name in ("a", "b"):
        (shop.root / "dbt" / name).mkdir(parents=True)
        (shop.root / "dbt" / name / "dbt_project.yml").write_text(f"name: {name}\nprofile: {name}\n")
    assert "--dbt-project:" in shop.refuses("dbt.project_ambiguous", "add", "dbt", "x")
    assert "'dbt/a'" in shop.refuses("dbt.project_not_found", "add", "dbt", "x", "--dbt-project", "dbt/aa")
    (shop.root / "dbt/b/dbt_project.yml").write_text("name: b\nprofile: b\nmodel-paths: [sql]\n")
    shop("add", "dbt", "x", "--dbt-project", "b")
    assert (shop.root / "dbt/b/sql/x.sql").read_text() == "select 1 as id\n"
    assert entry(shop, "x")["configuration"] == {"dbt": {"command": "build"}, "dbt_project_name": "b"}


@pytest.mark.parametrize(
    ("args", "code", "name"),
    [
        (("conditional", "c"), "block.upstream_missing", "add --upstream BLOCK"),
        (("source", "s", "--language", "sql"), "block.wrong_language", "sql"),
        (("mapper", "m"), "block.wrong_pipeline", "python"),
        (("callback", "c", "--language", "sql"), "block.no_template", "sql"),
        (("data_loader", "d", "--language", "yaml"), "block.no_template", "python or sql or r"),
        (("custom", "x y"), "block.invalid_name", "x y"),
        (("dbt", "x", "--language", "python"), "block.wrong_language", "yaml"),
        (("custom", "x", "--dbt-project", "a"), "option.conflict", "--dbt-project"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    shop: Shop, args: tuple[str, ...], code: str, name: str
) -> None:
    before = sorted(shop.root.rglob("*"))
    assert name in shop.refuses(code, "add", *args, "-p", "p")
    assert sorted(shop.root.rglob("*")) == before


@pytest.mark.parametrize("language", ["yaml", "python"])
def test_a_source_and_a_destination(shop: Shop, language: str) -> None:
    with sqlite3.connect(shop.root / "shop.db") as database:
        database.execute("create table orders (id integer primary key, total)")
        database.execute("insert into orders values (1, 2.5)")
    shop("add", "source", "load", "--pipeline", "p", "--source", "sqlite", "--language", language)
    shop("add", "destination", "store", "--destination", "duckdb", "--language", language)
    assert load_pipeline(Project.open(shop.root), "p").upstream() == {"load": [], "store": ["load"]}
    assert "completed: 2 completed" in run(shop)
    with duckdb.connect(str(shop.root / "warehouse.duckdb")) as warehouse:
        assert warehouse.execute("select id, total from orders").fetchall() == [(1, 2.5)]


def test_a_source_in_python_reads_its_credentials_from_the_environment(shop: Shop) -> None:
    shop("add", "source", "load", "--source", "postgresql", "--language", "python", "--stream", "orders")
    text = (shop.root / "data_loaders/load.py").read_text()
    compile(text, "load.py", "exec")
    for part in ('"postgresql"', 'os.environ["STREAMLINE_SECRET_DB"]', '"orders"', "# @data_integration_catalog"):
        assert part in text
