"""Blocks are removed and renamed in metadata.yaml, with their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamline.errors import ConfigError
from streamline.pipeline.edit_blocks import Edited, remove_block, rename_block
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project

METADATA = """\
# the shop
type: python
variables:
  __bookmark_values__: {load: {orders: {id: 3}}}
blocks:
# read it
- uuid: load   # from the shop
  type: data_loader
  downstream_blocks: [clean]
# clean it
- uuid: clean
  name: clean
  type: transformer
  upstream_blocks:
  - load  # raw rows
  color: {{ odd }}
# write it
- uuid: export
  type: data_exporter
  upstream_blocks: [clean]
callbacks:
- {uuid: tell, type: callback, upstream_blocks: [clean, export]}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "streamline.yaml").write_text("name: shop\n")
    for path, text in {
        "pipelines/p/metadata.yaml": METADATA,
        "pipelines/p/load/catalog.json": "{}",
        "data_loaders/load.py": "def load(): ...\n",
        "transformers/clean.py": "def clean(load): ...\n",
        "data_exporters/export.py": "def export(rows):\n    load = rows\n",
        "callbacks/tell.py": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return Project.open(tmp_path)


def text(project: Project) -> str:
    return (project.root / "pipelines/p/metadata.yaml").read_text()


def renamed(project: Project, old: str, new: str, *, copy: bool = False) -> Edited:
    return rename_block(project, "p", old, new, copy=copy)


def removed(project: Project, uuid: str, *, connect: bool = False, delete_files: bool = False) -> Edited:
    return remove_block(project, "p", uuid, connect=connect, delete_files=delete_files)


def shared(project: Project) -> None:
    """A second pipeline uses the file of `load`."""
    (project.root / "pipelines/q").mkdir()
    (project.root / "pipelines/q/metadata.yaml").write_text("blocks: [{uuid: load, type: data_loader}]\n")


def test_a_renamed_block_is_renamed_wherever_it_is_named(project: Project) -> None:
    edited = renamed(project, "load", "orders")
    expected = METADATA.replace("load: {orders", "orders: {orders").replace("uuid: load ", "uuid: orders ")
    assert text(project).split() == expected.replace("- load ", "- orders ").split()
    assert load_pipeline(project, "p").upstream() == {"orders": [], "clean": ["orders"], "export": ["clean"]}
    assert (project.root / "data_loaders/orders.py").read_text() == "def load(): ...\n"
    assert (project.root / "pipelines/p/orders/catalog.json").read_text() == "{}"
    assert not (project.root / "data_loaders/load.py").exists()
    assert not (project.root / "pipelines/p/load").exists()
    # What a block that does not get its output says is something else.
    assert edited.mentions == ["transformers/clean.py:1"]


def test_a_renamed_block_keeps_its_callbacks_and_its_place(project: Project) -> None:
    renamed(project, "clean", "tidy")
    model = load_pipeline(project, "p")
    assert model.callbacks["tell"].upstream == ["tidy", "export"]
    assert model.upstream() == {"load": [], "tidy": ["load"], "export": ["tidy"]}
    assert model.blocks["tidy"].name == "tidy"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("nothing", "x", "graph.unknown_block"),
        ("load", "clean", "block.exists"),
        ("load", "a b", "block.invalid_name"),
        ("clean", "taken", "file.exists"),
    ],
)
def test_a_rename_that_cannot_be_done_changes_nothing(project: Project, old: str, new: str, code: str) -> None:
    (project.root / "transformers/taken.py").write_text("mine")
    with pytest.raises(ConfigError) as caught:
        renamed(project, old, new)
    assert caught.value.code == code
    assert text(project) == METADATA
    assert (project.root / "transformers/taken.py").read_text() == "mine"
    assert (project.root / "data_loaders/load.py").exists()


def test_a_file_that_other_pipelines_use_is_copied_where_that_is_asked_for(project: Project) -> None:
    shared(project)
    with pytest.raises(ConfigError) as caught:
        renamed(project, "load", "orders")
    assert caught.value.code == "block.in_use"
    assert text(project) == METADATA
    renamed(project, "load", "orders", copy=True)
    assert {path.name for path in (project.root / "data_loaders").iterdir()} == {"load.py", "orders.py"}
    assert load_pipeline(project, "q").blocks.keys() == {"load"}


def test_a_block_that_others_use_is_removed_only_where_that_is_asked_for(project: Project) -> None:
    with pytest.raises(ConfigError) as caught:
        removed(project, "clean")
    assert caught.value.code == "block.in_use"
    assert text(project) == METADATA
    edited = removed(project, "clean", connect=True)
    assert load_pipeline(project, "p").upstream() == {"load": [], "export": ["load"]}
    assert load_pipeline(project, "p").callbacks["tell"].upstream == ["export"]
    assert edited.kept == [project.root / "transformers/clean.py"]
    assert edited.kept[0].exists()
    assert "# write it\n- uuid: export" in text(project)
    assert "# clean it" not in text(project) or "# from the shop" in text(project)


def test_a_callback_does_not_become_one_of_the_whole_pipeline(project: Project) -> None:
    removed(project, "export")
    with pytest.raises(ConfigError) as caught:
        removed(project, "clean")
    assert caught.value.code == "block.in_use"
    removed(project, "tell")
    removed(project, "clean")
    assert load_pipeline(project, "p").blocks.keys() == {"load"}


def test_the_files_of_a_removed_block_are_deleted_on_request_unless_others_use_them(project: Project) -> None:
    shared(project)
    with pytest.raises(ConfigError) as caught:
        removed(project, "load", connect=True, delete_files=True)
    assert caught.value.code == "block.in_use"
    assert text(project) == METADATA
    (project.root / "pipelines/q/metadata.yaml").unlink()
    removed(project, "load", connect=True, delete_files=True)
    assert not (project.root / "data_loaders/load.py").exists()
    assert not (project.root / "pipelines/p/load").exists()


def test_a_block_whose_file_is_gone_is_removed(project: Project) -> None:
    (project.root / "data_exporters/export.py").unlink()
    removed(project, "export")
    assert load_pipeline(project, "p").blocks.keys() == {"load", "clean"}


def test_a_renamed_sql_block_writes_the_same_table(project: Project) -> None:
    (project.root / "pipelines/p/metadata.yaml").write_text(
        "blocks:\n- {uuid: a, type: data_loader, language: sql, configuration: {data_provider: postgres}}\n"
        "- uuid: b\n  type: transformer\n  language: sql\n  upstream_blocks: [a]\n  configuration:\n"
        "    data_provider: postgres\n    use_raw_sql: true\n"
        "    upstream_block_configuration:\n      a: {table_name: raw}\n"
    )
    (project.root / "data_loaders/a.sql").write_text("select 1")
    (project.root / "transformers/b.sql").write_text("select 1")
    renamed(project, "a", "first")
    renamed(project, "b", "second")
    blocks = load_pipeline(project, "p").blocks
    assert blocks["first"].configuration == {"data_provider": "postgres", "data_provider_table": "p_a"}
    assert blocks["second"].configuration["upstream_block_configuration"] == {"first": {"table_name": "raw"}}
    assert "data_provider_table" not in blocks["second"].configuration
