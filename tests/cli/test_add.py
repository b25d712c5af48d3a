"""`streamline create` and `streamline add`: what they write, and what they refuse to."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from streamline.blocks.connector.spec import load_destination, load_source
from streamline.pipeline.model import PipelineModel
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from streamline.project.render import Renderer
from tests.cli.conftest import Shop


@pytest.fixture
def empty(tmp_path: Path) -> Shop:
    """A project without pipelines, with some plugins."""
    (tmp_path / "streamline.yaml").write_text(
        "plugins:\n  tap-shop: {command: [python, tap.py]}\n  mask: {command: [python, mask.py]}\n"
        "  target-a: {command: [python, a.py]}\n  target-b: {command: [python, b.py]}\n"
    )
    return Shop(tmp_path)


@pytest.fixture
def pipe(empty: Shop) -> Shop:
    """The same with an integration pipeline `p`."""
    empty("create", "p", "--type", "integration")
    return empty


def model(shop: Shop, name: str = "p") -> PipelineModel:
    return load_pipeline(Project.open(shop.root), name)


def edges(shop: Shop) -> dict[str, list[str]]:
    return model(shop).upstream()


def metadata(shop: Shop) -> str:
    return (shop.root / "pipelines/p/metadata.yaml").read_text()


def test_create_makes_the_folder_of_a_pipeline(empty: Shop) -> None:
    result = empty("create", "shop", "--type", "integration", "--description", "The: shop", "--tag", "a", "--tag", "b")
    assert "streamline add source NAME --pipeline shop" in result.stdout
    folder = empty.root / "pipelines/shop"
    assert sorted(path.name for path in folder.iterdir()) == ["__init__.py", "metadata.yaml", "requirements.txt"]
    made = model(empty, "shop")
    assert (made.type, made.name, made.description, made.tags, made.blocks, made.warnings) == (
        *("integration", "shop", "The: shop"),
        ["a", "b"],
        {},
        [],
    )


@pytest.mark.parametrize(
    ("args", "code", "name"),
    [
        (("p",), "pipeline.exists", "'p'"),
        (("my shop",), "pipeline.invalid_name", "my_shop"),
        (("../x",), "pipeline.invalid_name", "../x"),
        (("x", "--type", "integratoin"), "pipeline.type_unknown", "'integration'"),
    ],
)
def test_create_refuses(pipe: Shop, args: tuple[str, ...], code: str, name: str) -> None:
    before = metadata(pipe)
    assert name in pipe.refuses(code, "create", *args)
    assert metadata(pipe) == before
    assert [path.name for path in (pipe.root / "pipelines").iterdir()] == ["p"]


def test_a_standard_pipeline_is_a_python_one(empty: Shop) -> None:
    result = empty("create", "x", "--type", "standard")
    assert model(empty, "x").type == "python"
    assert "streamline add data_loader NAME --pipeline x" in result.stdout


def test_a_pipeline_grows_in_any_order(pipe: Shop) -> None:
    assert "load" in pipe("add", "source", "load", "-p", "p").stdout
    assert "load → out" in pipe("add", "destination", "out", "-p", "p", "--plugin", "target-a").stdout
    assert "load → fix → out" in pipe("add", "transformer", "fix", "-p", "p").stdout
    assert "fix → mask → out" in pipe("add", "mapper", "mask", "-p", "p").stdout
    assert "mask → out2" in pipe("add", "destination", "out2", "--plugin", "target-b").stdout
    assert edges(pipe) == {"load": [], "out": ["mask"], "fix": ["load"], "mask": ["fix"], "out2": ["mask"]}
    loaded = yaml.safe_load(metadata(pipe))
    for block in loaded["blocks"]:
        assert set(block) == {"uuid", "type", "language", "upstream_blocks", "downstream_blocks"}


def test_blocks_go_where_they_are_told(pipe: Shop) -> None:
    for name in ("a", "b"):
        pipe("add", "source", name)
    pipe("add", "destination", "out", "--plugin", "target-a")
    assert edges(pipe)["out"] == ["a", "b"]
    pipe("add", "transformer", "fix", "--upstream", "a", "--downstream", "out")
    assert edges(pipe) == {"a": [], "b": [], "out": ["fix", "b"], "fix": ["a"]}
    assert "'x'" in pipe.refuses("graph.unknown_block", "add", "transformer", "c", "--upstream", "x")


def test_where_it_could_go_to_several_places_it_asks(pipe: Shop) -> None:
    pipe("add", "source", "a")
    pipe("add", "destination", "outa", "--plugin", "target-a")
    pipe("add", "source", "b")
    pipe("add", "destination", "outb", "--plugin", "target-b")
    assert edges(pipe) == {"a": [], "outa": ["a"], "b": [], "outb": ["b"]}
    assert "--upstream BLOCK" in pipe.refuses("graph.position_ambiguous", "add", "transformer", "fix")
    assert not (pipe.root / "transformers/fix.py").exists()


def test_what_people_wrote_stays(pipe: Shop) -> None:
    (pipe.root / "data_loaders").mkdir()
    (pipe.root / "data_loaders/load.yaml").write_text("source: tap-shop\n")
    text = (
        "# ours\ntype: integration\nowner: me   # not you\nblocks:\n"
        "# the source\n- uuid: load\n  type: data_loader\n  color: blue\n  downstream_blocks: []  # none yet\n"
        "\nvariables: {a: 1}\n"
    )
    (pipe.root / "pipelines/p/metadata.yaml").write_text(text)
    pipe("add", "destination", "out", "--plugin", "target-a")
    new = "- uuid: out\n  type: data_exporter\n  language: yaml\n  upstream_blocks: [load]\n  downstream_blocks: []\n"
    assert metadata(pipe) == text.replace("blocks: []  #", "blocks: [out] #").replace("\n\nvar", f"\n{new}\nvar")


@pytest.mark.parametrize("template", ["basic", "streams"])
def test_the_templates_of_a_source_and_a_destination_are_valid(pipe: Shop, template: str) -> None:
    pipe("add", "source", "load", "--template", template)
    pipe("add", "destination", "out", "--system", "duckdb", "--template", template)
    project, made = Project.open(pipe.root), model(pipe)
    source = load_source(made.blocks["load"], Renderer(project))
    destination = load_destination(made.blocks["out"], Renderer(project))
    assert (source.source, destination.destination) == ("tap-shop", "duckdb")
    assert destination.config == {"path": "warehouse.duckdb"}
    text = (pipe.root / "data_loaders/load.yaml").read_text()
    assert ("streams:" in text) == (template == "streams")


def test_streams_are_written_as_named(pipe: Shop) -> None:
    pipe("add", "source", "load", "--stream", "public-orders", "--stream", "on", "--stream", "a: b")
    streams = yaml.safe_load((pipe.root / "data_loaders/load.yaml").read_text())["streams"]
    assert list(streams) == ["public-orders", "on", "a: b"]
    pipe("add", "destination", "out", "--plugin", "target-a", "--stream", "public-orders")
    streams = yaml.safe_load((pipe.root / "data_exporters/out.yaml").read_text())["streams"]
    assert streams["public-orders"]["destination_table"] == "orders"


def test_systems_without_a_connector_are_written_with_a_note(pipe: Shop) -> None:
    result = pipe("add", "source", "load", "--system", "mariadb")
    assert "tap-mysql" in result.stderr
    written = yaml.safe_load((pipe.root / "data_loaders/load.yaml").read_text())
    assert written["source"] == "mariadb"
    assert written["config"]["port"] == 3306
    assert written["config"]["password"] == "{{ secret('db') }}"


@pytest.mark.parametrize(
    ("args", "code", "name"),
    [
        (("source", "load", "--plugin", "tap-shp"), "plugin.unknown", "'tap-shop'"),
        (("source", "load", "--plugin", "tap-shop", "--system", "sqlite"), "option.conflict", "--system"),
        (("destination", "out"), "plugin.ambiguous", "target-a, target-b"),
        (("source", "load", "--language", "sql"), "block.wrong_pipeline", "sql"),
        (("source", "load", "--language", "python"), "block.wrong_pipeline", "python"),
        (("sensor", "wait"), "block.wrong_pipeline", "sensor"),
        (("custom", "c"), "block.wrong_pipeline", "custom"),
        (("source", "load", "--language", "cobol"), "block.unknown_kind", "cobol"),
        (("transformer", "t", "--stream", "x"), "option.conflict", "transformer"),
        (("sensor", "t", "--language", "r"), "block.no_template", "sensor"),
        (("source", "../x"), "block.invalid_name", "../x"),
        (("sourc", "x"), "usage", "'source'"),
        (("source", "load", "--system", "postgers"), "plugin.unknown", "'postgres'"),
        (("source", "x", "-p", "pp"), "pipeline.not_found", "'pp'"),
    ],
)
def test_add_refuses_and_writes_nothing(pipe: Shop, args: tuple[str, ...], code: str, name: str) -> None:
    before = metadata(pipe)
    assert name in pipe.refuses(code, "add", *args)
    assert metadata(pipe) == before
    assert not list(pipe.root.rglob("*.py")) or [path.name for path in pipe.root.rglob("*.py")] == ["__init__.py"]


def test_nothing_is_overwritten(pipe: Shop) -> None:
    pipe("add", "source", "load")
    (pipe.root / "data_loaders/load.yaml").write_text("mine")
    pipe.refuses("block.exists", "add", "source", "load")
    (pipe.root / "transformers").mkdir()
    (pipe.root / "transformers/fix.sql").write_text("mine")
    pipe.refuses("file.exists", "add", "transformer", "fix", "--language", "python")
    assert (pipe.root / "data_loaders/load.yaml").read_text() == "mine"


def test_a_file_that_exists_is_used_as_it_is(pipe: Shop) -> None:
    pipe("create", "q", "--type", "python")
    (pipe.root / "transformers").mkdir()
    (pipe.root / "transformers/fix.sql").write_text("select 1")
    (pipe.root / "data_exporters").mkdir()
    (pipe.root / "data_exporters/out.yaml").write_text("destination: target-a\n")
    assert "Uses transformers/fix.sql" in pipe("add", "transformer", "fix", "--pipeline", "q").stdout
    assert model(pipe, "q").blocks["fix"].language == "sql"
    # Which of several targets it uses is known from the file.
    pipe("add", "destination", "out", "--pipeline", "p")
    assert model(pipe).blocks["out"].file == pipe.root / "data_exporters/out.yaml"
    assert "--plugin" in pipe("add", "destination", "out", "-p", "p", "--plugin", "target-a", code=2).stderr
    pipe("add", "transformer", "fix", "--pipeline", "p", code=2)  # SQL is nothing for this pipeline
    assert (pipe.root / "transformers/fix.sql").read_text() == "select 1"


def test_the_systems_that_a_block_can_name_are_listed(pipe: Shop) -> None:
    rows = {row["system"]: row for row in pipe.json("add", "source", "--list")}
    assert rows["sqlite"]["ready"] is True
    assert rows["shop"]["connector"] == "tap-shop"
    assert rows["postgres"]["ready"] is False
    assert rows["postgres"]["available"].endswith("--pip pipelinewise-tap-postgres==2.1.0")
    assert "postgresql" in rows["postgres"]["aliases"]
    assert "comes with Streamline" in pipe("add", "destination", "--list").stdout
    assert "NAME" in pipe("add", "source", code=2).stderr
    assert "--list applies to" in pipe("add", "sensor", "--list", code=2).stderr


@pytest.mark.parametrize(
    ("kind", "pipeline_type"),
    [
        *((kind, "python") for kind in ("data_loader", "transformer", "data_exporter", "sensor", "custom")),
        ("transformer", "integration"),
    ],
)
def test_python_blocks_compile(empty: Shop, kind: str, pipeline_type: str) -> None:
    empty("create", "p", "--type", pipeline_type)
    empty("add", kind, "x")
    file = model(empty).blocks["x"].file
    assert file is not None
    functions = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)]
    assert any(getattr(one, "id", "") == kind for function in functions for one in function.decorator_list)


@pytest.mark.parametrize(("kind", "language"), [("data_loader", "sql"), ("transformer", "r")])
def test_other_languages(empty: Shop, kind: str, language: str) -> None:
    empty("create", "p")
    empty("add", kind, "x", "--language", language)
    assert model(empty).blocks["x"].language == language


def test_a_source_is_connected_to_what_waits_for_records(pipe: Shop) -> None:
    pipe("add", "destination", "out", "--plugin", "target-a")
    assert "a → out" in pipe("add", "source", "a").stdout
    assert edges(pipe) == {"out": ["a"], "a": []}
    assert "no block gets the records of b yet" in pipe("add", "source", "b").stderr


def test_callbacks_and_conditionals_have_lists_of_their_own(pipe: Shop) -> None:
    pipe("add", "source", "load")
    pipe("add", "callback", "say", "--upstream", "load")
    pipe("add", "conditional", "only_if", "--upstream", "load")
    made = model(pipe)
    assert list(made.blocks) == ["load"]
    assert made.callbacks["say"].upstream == ["load"]
    assert made.conditionals["only_if"].upstream == ["load"]


def test_the_pipeline_may_be_left_out_if_there_is_only_one(pipe: Shop) -> None:
    pipe("add", "source", "load")
    pipe("create", "q")
    assert "--pipeline:" in pipe.refuses("pipeline.ambiguous", "add", "source", "other")
