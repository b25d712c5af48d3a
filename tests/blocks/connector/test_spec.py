"""Source, destination and mapper blocks as their files say them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamline.blocks.connector.spec import DestinationSpec, MapperSpec, SourceSpec, duration, load_source, load_spec
from streamline.connectors.singer.settings import resolve_destination
from streamline.errors import ConfigError
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project

KINDS = {"data_loader": "data_loaders", "data_exporter": "data_exporters", "transformer": "transformers"}


def spec(
    tmp_path: Path,
    text: str,
    kind: str = "data_loader",
    variables: dict[str, Any] | None = None,
    settings: str = "name: shop\n",
):
    (tmp_path / "streamline.yaml").write_text(settings)
    folder = tmp_path / KINDS[kind]
    folder.mkdir(exist_ok=True)
    (folder / "b.yaml").write_text(text)
    pipeline = tmp_path / "pipelines" / "p"
    pipeline.mkdir(parents=True, exist_ok=True)
    (pipeline / "metadata.yaml").write_text(
        f"type: integration\nblocks:\n- {{uuid: b, type: {kind}, language: yaml, upstream_blocks: []}}\n"
    )
    project = Project.open(tmp_path)
    project.variables.update(variables or {})
    return load_spec(load_pipeline(project, "p").blocks["b"], project.renderer)


def test_a_source_with_all_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PORT", "5433")
    loaded = spec(
        tmp_path,
        """
source: tap-shop
config: {host: "{{ env_var('SHOP_PORT') }}", port: {{ variables('port') }}, nested: {list: [1, "{{ 1 + 1 }}"]}}
streams:
  public-orders:
    replication_method: INCREMENTAL
    bookmark_properties: [updated_at]
    columns: {exclude: [note]}
    run_in_parallel: true
  "public-*": {}
max_parallel: 3
max_duration: 1h30m
idle_timeout: 90
batch_config: {batch_size: 10}
""",
        variables={"port": 5432},
    )
    assert isinstance(loaded, SourceSpec)
    assert loaded.source == "tap-shop"
    assert loaded.config == {
        "host": "5433",
        "port": 5432,
        "nested": {"list": [1, 2]},
        "batch_config": {"batch_size": 10},
    }
    assert (loaded.max_parallel, loaded.max_duration, loaded.idle_timeout) == (3, 5400.0, 90.0)
    assert [entry.pattern for entry in loaded.streams.entries] == ["public-orders", "public-*"]
    assert loaded.streams.entries[0].where == "data_loaders/b.yaml:5"
    assert loaded.where.startswith("data_loaders/b.yaml")


def test_configs_of_mage_have_the_plugins_keys_too(tmp_path: Path) -> None:
    text = "source: postgresql\nconfig: {database: shop, username: ada, schema: public, host: h}\n"
    config = {"database": "shop", "username": "ada", "schema": "public", "host": "h"}
    assert spec(tmp_path, text).config == config
    in_mage = spec(tmp_path, text, settings="compat: mage\n").config
    assert in_mage == {**config, "dbname": "shop", "user": "ada", "filter_schemas": "public"}


def test_a_destination_with_all_its_keys(tmp_path: Path) -> None:
    loaded = spec(
        tmp_path,
        """
destination: duckdb
config: {path: warehouse.duckdb}
streams:
  public-orders: {destination_table: orders, unique_conflict_method: update, load_method: upsert}
  "*": {schema_change: pause}
on_bad_record: quarantine
max_bad_records: 0
schema_change: freeze
session_interval: 500ms
""",
        "data_exporter",
    )
    assert isinstance(loaded, DestinationSpec)
    assert (loaded.on_bad_record, loaded.max_bad_records, loaded.schema_change, loaded.session_interval) == (
        "quarantine",
        0,
        "freeze",
        0.5,
    )
    orders = resolve_destination(loaded.streams, ("public-orders", "orders"))
    assert orders is not None
    assert orders.values == {
        "destination_table": "orders",
        "unique_conflict_method": "UPDATE",
        "load_method": "upsert",
        "schema_change": "pause",
    }


def test_listed_streams_are_the_ones_exported(tmp_path: Path) -> None:
    loaded = spec(tmp_path, "destination: x\nstreams: {orders: {}, users: {selected: false}}", "data_exporter")
    assert isinstance(loaded, DestinationSpec)
    exported = {name: resolve_destination(loaded.streams, (name,)) is not None for name in ("orders", "users", "c")}
    assert exported == {"orders": True, "users": False, "c": False}
    everything = spec(tmp_path, "destination: x", "data_exporter")
    assert isinstance(everything, DestinationSpec)
    assert resolve_destination(everything.streams, ("c",)) is not None


def test_a_mapper(tmp_path: Path) -> None:
    loaded = spec(tmp_path, "mapper: transform-field\nconfig: {transformations: []}", "transformer")
    assert loaded == MapperSpec(mapper="transform-field", config={"transformations": []}, where="transformers/b.yaml:1")


def test_templates_for_a_whole_file(tmp_path: Path) -> None:
    text = "source: tap-x\nstreams:\n{% for name in ['a', 'b'] %}\n  {{ name }}: {}\n{% endfor %}"
    loaded = spec(tmp_path, text)
    assert isinstance(loaded, SourceSpec)
    assert [entry.pattern for entry in loaded.streams.entries] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: tap-x\nstreems: {}", ["data_loaders/b.yaml:2", "'streems'", "streams"]),
        ("config: {}\nsorce: tap-x", ["`source:`", "instead of `sorce:`"]),
        ("sorce: tap-x", ["`source:`"]),
        ("destination: target-x", ["a data_loader in YAML needs `source:`", "destination"]),
        ("source: tap-x\ndestination: y", ["`source:`", "source and a destination"]),
        ("source: tap-x\nconfig: 5", ["data_loaders/b.yaml:2", "config", "mapping"]),
        ("source: tap-x\nmax_parallel: 0", ["max_parallel", "at least 1"]),
        ("source: tap-x\nmax_duration: soon", ["max_duration", "'soon'"]),
        ("source: [tap-x]", ["data_loaders/b.yaml:1", "source"]),
        ("source: tap-x\nstreams:\n  a:\n    replication_metod: x", ["data_loaders/b.yaml:4", "replication_method"]),
        ("source: tap-x\nconfig:\n  host: \"{{ env_var('NOT_SET_ANYWHERE') }}\"", ["b.yaml:3", "NOT_SET_ANYWHERE"]),
    ],
)
def test_wrong_files_are_refused_with_their_place(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        spec(tmp_path, text)
    for word in words:
        assert word in str(error.value), str(error.value)


def test_secrets_of_a_config_are_masked(tmp_path: Path) -> None:
    spec(tmp_path, "source: tap-x\nconfig: {password: swordfish-7}")
    project = Project.open(tmp_path)
    loaded = load_source(load_pipeline(project, "p").blocks["b"], project.renderer)
    assert loaded.config["password"] == "swordfish-7"
    assert "swordfish-7" not in project.secrets.masker.mask("login with swordfish-7 failed")


@pytest.mark.parametrize(
    ("given", "seconds"), [(5, 5.0), (0.5, 0.5), ("90", 90.0), ("90s", 90.0), ("1h 30m", 5400.0), ("2d", 172_800.0)]
)
def test_durations(given: object, seconds: float) -> None:
    assert duration(given) == seconds


@pytest.mark.parametrize("given", [0, -1, "", "5 minutes", "m", True, None, float("inf"), "0s", [5]])
def test_what_is_no_duration(given: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(given)
