"""Projects that are Mage's: their pipelines are read as Mage reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamline.errors import ConfigError
from streamline.pipeline.block_settings import block_settings
from streamline.pipeline.model import PipelineModel
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from tests.support.batch import BatchProject

Load = Callable[..., PipelineModel]
MAGE = {"metadata.yaml": "project_type: standalone\n"}
OURS = {"streamline.yaml": "name: shop\n"}
OURS_AS_MAGE = {"streamline.yaml": "name: shop\ncompat: mage\n"}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads the pipeline `p` of the given metadata; files of its blocks are made."""

    def make(metadata: str, settings: dict[str, str] = MAGE, **more: str) -> PipelineModel:
        files = {f"data_loaders/{name}.py": "" for name in "ab"} | {f"transformers/{name}.py": "" for name in "tu"}
        files |= {"conditionals/only_if.py": "", "callbacks/tell.py": "", "pipelines/p/metadata.yaml": metadata}
        for name, text in (files | settings | more).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return load_pipeline(Project.open(tmp_path), "p")

    return make


@pytest.fixture
def project(tmp_path: Path) -> Iterator[BatchProject]:
    """A project with Mage's settings file."""
    made = BatchProject(tmp_path / "shop")
    (made.root / "streamline.yaml").unlink()
    made.write("metadata.yaml", "project_type: standalone\n")
    yield made
    made.close()


UNTIDY = {
    "upstream beside an empty downstream": (
        "blocks:\n- {uuid: a, type: data_loader, upstream_blocks: [], downstream_blocks: []}\n"
        "- {uuid: t, type: transformer, upstream_blocks: [a]}\n",
        "graph.contradiction",
        ["a"],
    ),
    "downstream beside an empty upstream": (
        "blocks:\n- {uuid: a, type: data_loader, downstream_blocks: [t]}\n"
        "- {uuid: t, type: transformer, upstream_blocks: []}\n",
        "graph.contradiction",
        [],
    ),
    "an upstream twice": (
        "blocks:\n- {uuid: a, type: data_loader}\n- {uuid: t, type: transformer, upstream_blocks: [a, a]}\n",
        "graph.duplicate",
        ["a"],
    ),
    "an upstream that was deleted": (
        "blocks:\n- {uuid: a, type: data_loader}\n- {uuid: t, type: transformer, upstream_blocks: [gone, a]}\n",
        "graph.unknown_block",
        ["a"],
    ),
    "a key twice": (
        "blocks:\n- {uuid: a, type: data_loader}\n- {uuid: t, type: transformer, upstream_blocks: [], "
        "upstream_blocks: [a]}\n",
        "yaml.duplicate_key",
        ["a"],
    ),
}


@pytest.mark.parametrize(("metadata", "code", "upstream"), UNTIDY.values(), ids=UNTIDY)
def test_an_untidy_graph_is_a_warning(load: Load, metadata: str, code: str, upstream: list[str]) -> None:
    model = load(metadata)
    assert model.blocks["t"].upstream == upstream
    (warning,) = model.warnings
    assert warning.startswith("pipelines/p/metadata.yaml:")
    with pytest.raises(ConfigError) as refused:
        load(metadata, OURS)
    assert refused.value.code == code


def test_our_own_project_may_ask_for_mages_reading(load: Load) -> None:
    metadata, _, upstream = UNTIDY["an upstream twice"]
    assert load(metadata, OURS_AS_MAGE).blocks["t"].upstream == upstream
    with pytest.raises(ConfigError) as refused:
        load(metadata, {"streamline.yaml": "compat: airflow\n"})
    assert refused.value.code == "setting.invalid"


def test_duplicate_keys_of_the_projects_settings(load: Load) -> None:
    load("blocks: [{uuid: a, type: data_loader}]", {"metadata.yaml": "variables_dir: x\nvariables_dir: y\n"})


def test_switches_as_text(load: Load) -> None:
    model = load(
        "blocks:\n- {uuid: a, type: data_loader, configuration: {dynamic: 'True', reduce_output: 'false'}}\n"
        "- {uuid: t, type: transformer, upstream_blocks: [a]}\n"
    )
    settings = block_settings(model, model.blocks["a"])
    assert (settings.dynamic, settings.reduce_output) == (True, False)
    assert len(model.warnings) == 2


def test_a_conditional_and_a_callback_of_no_block(load: Load) -> None:
    model = load(
        "blocks: [{uuid: a, type: data_loader}]\n"
        "conditionals: [{uuid: only_if, type: conditional, upstream_blocks: []}]\n"
        "callbacks: [{uuid: tell, type: callback, upstream_blocks: [gone]}]\n"
    )
    assert (list(model.conditionals), list(model.callbacks)) == (["only_if"], [])
    assert len(model.warnings) == 2


NOTEBOOK = """\
blocks:
- {uuid: a, type: data_loader, upstream_blocks: [pad], downstream_blocks: [t, hist, note]}
- {uuid: t, type: transformer, upstream_blocks: [a, note]}
- {uuid: note, type: markdown, upstream_blocks: [a], downstream_blocks: [t]}
- {uuid: pad, type: scratchpad, downstream_blocks: [a]}
- {uuid: ask, type: ai}
widgets:
- {uuid: hist, upstream_blocks: [a]}
callbacks:
- {uuid: tell, type: callback, upstream_blocks: [note, a]}
"""


@pytest.mark.parametrize("settings", [MAGE, OURS], ids=["mage", "ours"])
def test_blocks_of_the_notebook_are_left_out_of_the_graph(load: Load, settings: dict[str, str]) -> None:
    model = load(NOTEBOOK, settings)
    assert model.upstream() == {"a": [], "t": ["a"]}
    assert model.callbacks["tell"].upstream == ["a"]
    (warning,) = model.warnings
    assert all(name in warning for name in ("pad (scratchpad)", "hist (chart)", "note (markdown)"))


@pytest.mark.parametrize("listed", ["upstream", "downstream"])
def test_the_input_from_a_global_data_product(load: Load, listed: str) -> None:
    upstream = ", upstream_blocks: [sales]" if listed == "upstream" else ""
    downstream = ", downstream_blocks: [t]" if listed == "downstream" else ""
    metadata = (
        f"blocks:\n- {{uuid: sales, type: global_data_product{downstream}}}\n"
        f"- {{uuid: t, type: transformer{upstream}}}\n"
    )
    with pytest.raises(ConfigError) as refused:
        load(metadata)
    assert (refused.value.code, refused.value.where) == ("block.global_data_product", "pipelines/p/metadata.yaml:3")


def test_the_first_of_several_functions_runs(project: BatchProject) -> None:
    two = "@{0}\ndef first(*args, **kwargs): return True\n\n@{0}\ndef second(*args, **kwargs): return False\n"
    project.block("load", two.format("data_loader"), type="data_loader")
    project.block("wait", two.format("sensor"), type="sensor", upstream=["load"])
    project.block("only_if", two.format("condition"), type="conditional", upstream=["load"])
    project.command("run", "p").expect(0, "the first runs")
    assert project.output("load") is True


def test_an_installed_package_named_as_a_folder_of_the_project(project: BatchProject) -> None:
    project.write("transformers/__init__.py", "")
    site = project.root.parent / "site"
    (site / "transformers").mkdir(parents=True)
    (site / "transformers" / "__init__.py").write_text("def pipeline(task): return f'model for {task}'\n")
    project.block(
        "load",
        "from transformers import pipeline\n\n@data_loader\ndef load(*args, **kwargs): return pipeline('text')\n",
        type="data_loader",
    )
    project.command("run", "p", env={"PYTHONPATH": str(site)}).expect(0)
    assert project.output("load") == "model for text"


def test_lists_are_several_outputs(project: BatchProject) -> None:
    project.block("one", "@data_loader\ndef load(): return [{'qty': 1}]\n", type="data_loader")
    project.block(
        "two",
        """
        @data_loader
        def load():
            return [3, 4]

        @test
        def test_each(first, second):
            assert (first, second) == (3, 4)
        """,
        type="data_loader",
    )
    project.block(
        "take",
        """
        from mage_ai.data_preparation.variable_manager import get_variable

        @transformer
        def take(one, two, *args):
            return one, two, get_variable('p', 'two', 'output_1')

        @test
        def test_tuple(one, two, stored):
            assert stored == 4
        """,
        upstream=["one", "two"],
    )
    project.block("table", "select qty from {{ df_1 }}", language="sql", upstream=["one"])
    project.command("run", "p", "--test").expect(0)
    assert project.output("take") == [{"qty": 1}, [3, 4], 4]
    assert project.output("table")["qty"].tolist() == [1]


def test_a_project_without_a_settings_file_and_under_another_name(project: BatchProject) -> None:
    (project.root / "metadata.yaml").unlink()
    project.write("io_config.yaml", "default: {}\n")
    project.write("utils/sums.py", "def double(x):\n    return 2 * x\n")
    project.block(
        "load",
        """
        import old_name.utils.sums
        from default_repo.utils.sums import double

        @data_loader
        def load(*args, **kwargs):
            return double(21) + old_name.utils.sums.double(1)
        """,
        type="data_loader",
    )
    project.command("check", "p").expect(0)
    project.command("run", "p").expect(0)
    assert project.output("load") == 44


@pytest.mark.parametrize("name", ["default_repo", "old_name"])
def test_no_hint_to_install_what_may_be_the_project_itself(project: BatchProject, name: str) -> None:
    project.write("utils/sums.py", f"def double(x):\n    from {name}.utils import gone\n")
    project.block(
        "load", "from utils.sums import double\n\n@data_loader\ndef load(*args): return double(1)\n", type="data_loader"
    )
    completed = project.command("run", "p")
    assert completed.code == 1
    assert "pip install" not in completed.text


WIDE = """
    import pandas as pd

    @data_loader
    def load(*args):
        return pd.DataFrame({'Boxes Shipped': [2], 'price$': [3], 'Order': [4]})
"""


def test_names_of_columns_in_sql_and_on_export(project: BatchProject) -> None:
    project.write("io_config.yaml", "default:\n  SQLITE_DATABASE: shop.db\n")
    project.block("load", WIDE, type="data_loader")
    project.block("embedded", "select boxes_shipped, price, _order from {{ df_1 }}", language="sql", upstream=["load"])
    project.block("behind", "select _order as order_date, price as date from {{ df_1 }}", language="sql")
    project.block("last", "select date from {{ df_1 }}", language="sql")
    project.block(
        "provided",
        'select boxes_shipped, price, "order" from {{ df_1 }}',
        language="sql",
        upstream=["load"],
        configuration={"data_provider": "sqlite", "allow_reserved_words": True},
    )
    project.block(
        "export",
        """
        from mage_ai.io.sqlite import SQLite

        @data_exporter
        def export(df, *args):
            with SQLite('shop.db') as database:
                database.export(df, None, 'mages')
                database.export(df, None, 'ours', allow_reserved_words=True)
                return [list(database.load(f'select * from {name}').columns) for name in ('mages', 'ours')]
        """,
        type="data_exporter",
        upstream=["load"],
    )
    project.command("run", "p").expect(0)
    assert list(project.output("embedded").columns) == ["boxes_shipped", "price", "_order"]
    assert list(project.output("provided").columns) == ["boxes_shipped", "price", "order"]
    assert project.output("export") == [["boxes_shipped", "price", "_order"], ["boxes_shipped", "price", "order"]]


def test_clean_columns_in_a_project_of_ours(project: BatchProject) -> None:
    (project.root / "metadata.yaml").unlink()
    project.write("streamline.yaml", "name: shop\n")
    project.block("load", WIDE, type="data_loader")
    sql = {"language": "sql", "upstream": ["load"]}
    project.block("clean", "select price, _order from {{ df_1 }}", configuration={"clean_columns": True}, **sql)
    project.block("plain", 'select "price$", "Order" from {{ df_1 }}', **sql)
    project.command("run", "p").expect(0)
    assert list(project.output("clean").columns) == ["price", "_order"]
    assert list(project.output("plain").columns) == ["price$", "Order"]


def test_files_are_found_as_in_mage(load: Load, tmp_path: Path) -> None:
    model = load(
        """
        blocks:
        - {uuid: x, type: data_loader, configuration: {file_path: /home/src/default_repo/utils/x.py}}
        - {uuid: m, type: dbt, language: sql, configuration: {file_path: shop/models/m.sql}}
        - {uuid: a, type: data_loader, configuration: {file_source: {path: utils/x.py}}}
        - {uuid: gone, type: data_loader, configuration: {file_source: {path: default_repo/utils/x.py}}}
        """.replace("\n        ", "\n"),
        **{"utils/x.py": "", "dbt/shop/models/m.sql": "", "dbt/shop/dbt_project.yml": ""},
    )
    files = {uuid: str(block.file.relative_to(tmp_path)) for uuid, block in model.blocks.items() if block.file}
    assert files == {
        "x": "utils/x.py",
        "m": "dbt/shop/models/m.sql",
        "a": "data_loaders/a.py",
        "gone": "utils/x.py",
    }


def test_variables_set_by_a_block_and_more_keyword_arguments(project: BatchProject) -> None:
    project.keys["variables"] = {"since": 1, "given": 1}
    project.block(
        "set",
        """
        from mage_ai.data_preparation.variable_manager import set_global_variable

        @custom
        def set_both(*args, **kwargs):
            for name in ('since', 'given', 'new'):
                set_global_variable(kwargs['pipeline_uuid'], name, 2)
        """,
        type="custom",
        upstream=[],
    )
    project.block(
        "read",
        """
        @transformer
        def read(*args, **kwargs):
            assert kwargs['pipeline_run_id'] == kwargs['run_id'] and kwargs['execution_partition']
            return [kwargs[name] for name in ('since', 'given', 'new', 'event', 'trigger_name')]
        """,
    )
    project.command("run", "p", "--runtime-vars", "given=7").expect(0)
    assert project.output("read") == [2, 7, 2, {}, None]


def test_a_sample_in_either_order(tmp_path: Path) -> None:
    from streamline.io import SQLite

    with SQLite(tmp_path / "shop.db") as database:
        database.export([{"id": 1}, {"id": 2}], None, "orders")
        assert len(database.sample(None, 1, "orders")) == len(database.sample(None, "orders", 1)) == 1


@pytest.mark.parametrize(
    ("requirements", "remedy"),
    [("tqdmx\ntqdm==4\n", r"-r requirements\.txt"), ("", r"'streamline\[mage\]'")],
)
def test_missing_modules_come_with_a_remedy(project: BatchProject, requirements: str, remedy: str) -> None:
    project.write("requirements.txt", requirements)
    project.block("load", "import tqdm\n\n@data_loader\ndef load(*args): ...\n", type="data_loader")
    completed = project.command("check", "p")
    assert completed.code != 0
    assert re.search(rf"pip\s+install\s+{remedy}", completed.text)
