"""metadata.yaml: what loads, and what is refused with file and line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from streamline.errors import ConfigError
from streamline.pipeline.model import PipelineModel, RetryConfig
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from tests.support.batch import SEED
from tests.support.failures import refuses

Load = Callable[..., PipelineModel]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a pipeline `p` of the given metadata, with the given files of blocks."""

    def make(metadata: str, *files: str) -> PipelineModel:
        (tmp_path / "streamline.yaml").write_text("name: shop\n")
        for name in ("pipelines/p/metadata.yaml", *files):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(metadata if name.startswith("pipelines") else "")
        return load_pipeline(Project.open(tmp_path), "p")

    return make


def refused(load: Load, metadata: str, *files: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(metadata, *files)
    assert caught.value.exit_code == 2
    return caught.value


SEED_FILES = ("data_loaders/load_data.py", "transformers/transform_data.py", "data_exporters/export_data.py")


def test_the_seed_document_s_pipeline(load: Load, tmp_path: Path) -> None:
    model = load(SEED, *SEED_FILES)
    assert model.order() == ["load_data", "transform_data", "export_data"]
    assert (model.type, model.name, model.uuid, model.warnings) == ("python", "my_pipeline", "p", [])
    block = model.block("transform_data")
    assert (block.type, block.language, block.upstream, block.downstream) == (
        "transformer",
        "python",
        ["load_data"],
        ["export_data"],
    )
    assert block.file == tmp_path / "transformers/transform_data.py"
    assert model.where("transform_data", "upstream_blocks") == "pipelines/p/metadata.yaml:8"


MAGE = """\
blocks:
- all_upstream_blocks_executed: true
  color: null
  configuration: {data_integration: {inputs: [a]}, dynamic: false}
  downstream_blocks: [b]
  executor_config: null
  executor_type: local_python
  extension_uuid: null
  has_callback: true
  language: yaml
  name: load shop
  retry_config: null
  status: executed
  timeout: null
  type: data_loader
  upstream_blocks: []
  uuid: load_shop
- {uuid: b, name: b, type: data_exporter, language: yaml, upstream_blocks: [load_shop], downstream_blocks: [],
   retry_config: {retries: 3, delay: 1}}
- {uuid: note, type: markdown, language: markdown, upstream_blocks: [], downstream_blocks: []}
- {uuid: pad, type: scratchpad, upstream_blocks: [], downstream_blocks: []}
cache_block_output_in_memory: false
callbacks:
- {uuid: say, type: callback, upstream_blocks: [b], downstream_blocks: [], language: python}
concurrency_config: {}
conditionals:
- {uuid: only_if, type: conditional, upstream_blocks: [b], downstream_blocks: []}
created_at: 2024-01-02 03:04:05.678+00:00
data_integration: null
description: null
executor_config: {}
executor_count: 1
executor_type: null
extensions: {}
name: shop
notification_config: {}
remote_variables_dir: null
retry_config: {retries: 1}
run_pipeline_in_one_process: false
settings: {triggers: null}
spark_config: {}
state_store_config: {}
tags: [a]
type: integration
uuid: shop
variables: {x: 1}
variables_dir: /home/src/mage_data/shop
widgets: []
"""


def test_a_mage_pipeline_loads_unmodified(load: Load) -> None:
    model = load(
        MAGE, "data_loaders/load_shop.yaml", "data_exporters/b.yaml", "callbacks/say.py", "conditionals/only_if.py"
    )
    assert model.warnings == []
    assert list(model.blocks) == ["load_shop", "b"]
    assert model.blocks["load_shop"].extra["status"] == "executed"
    assert model.blocks["load_shop"].configuration["dynamic"] is False
    assert (model.callbacks["say"].upstream, model.conditionals["only_if"].upstream) == (["b"], ["b"])
    assert model.variables == {"x": 1}
    first, second = model.blocks["load_shop"].retry_config, model.blocks["b"].retry_config
    assert first is not None
    assert second is not None
    assert (first.retries, second.retries, second.delay, second.max_delay) == (1, 3, 1, 60)
    assert model.created_at == "2024-01-02 03:04:05.678+00:00"


def test_unknown_keys_are_told_with_line_and_guess(load: Load) -> None:
    model = load(
        "varibles: {}\nblocks:\n- uuid: a\n  type: custom\n- uuid: b\n  type: custom\n  upstream_block: [a]\n"
        "  retry_confg: {}\n  mine: 1\n",
        "custom/a.py",
        "custom/b.py",
    )
    (warning,) = model.warnings
    assert re.search(r"varibles \(line 1; .*'variables'", warning)
    assert re.search(r"upstream_block \(line 7; .*'upstream_blocks'", warning)
    assert re.search(r"retry_confg \(line 8; .*'retry_config'", warning)
    assert "mine (line 9)" in warning


def test_keys_of_a_configuration_that_are_almost_ours(load: Load) -> None:
    model = load(
        "blocks:\n- uuid: a\n  type: custom\n  configuration:\n    dynamc: true\n    mine: 1\n    timeout: 5\n"
        "- uuid: b\n  type: sensor\n  configuration: {Intervall: 5}\n",
        "custom/a.py",
        "sensors/b.py",
    )
    first, second = model.warnings
    assert first.startswith("pipelines/p/metadata.yaml:5: ")
    assert "'dynamc'" in first
    assert "'dynamic'" in first
    assert "'Intervall'" in second
    assert "'interval'" in second


@pytest.mark.parametrize("text", ["", "blocks: []\n", "type: python\n"])
def test_a_pipeline_without_blocks_is_warned_of(load: Load, text: str) -> None:
    (warning,) = load(text).warnings
    assert "the pipeline has no blocks" in warning


def test_a_file_among_those_of_another_type(load: Load) -> None:
    with refuses("block.file_missing", "data_loaders/both.py") as raised:
        load("blocks:\n- {uuid: both, type: data_loader}\n", "transformers/both.py")
    assert raised.value.hint == "transformers/both.py exists: use `type: transformer`?"


def test_unknown_keys_are_kept_with_one_warning(load: Load) -> None:
    model = load(
        "blocks:\n- {uuid: a, type: custom, colour: red}\nowner: me\nretry_config: {tries: 1}\n", "custom/a.py"
    )
    assert len(model.warnings) == 1
    assert re.search(
        r"owner \(line 3\), retry_config\.tries \(line 4; .*'retries'.*\), colour \(line 2; ", model.warnings[0]
    )
    assert model.extra == {"owner": "me"}
    assert model.blocks["a"].extra == {"colour": "red"}


@pytest.mark.parametrize(
    "metadata",
    [
        "blocks:\n- {uuid: a, type: data_loader, downstream_blocks: [b]}\n- {uuid: b, type: data_exporter}\n",
        "blocks:\n- {uuid: a, type: data_loader}\n- {uuid: b, type: data_exporter, upstream_blocks: [a]}\n",
    ],
)
def test_one_direction_is_enough(load: Load, metadata: str) -> None:
    model = load(metadata, "data_loaders/a.py", "data_exporters/b.py")
    assert model.blocks["b"].upstream == ["a"]
    assert model.blocks["a"].downstream == ["b"]


@pytest.mark.parametrize("kind", ["python", "standard", "batch"])
def test_names_of_batch_pipelines(load: Load, kind: str) -> None:
    assert load(f"type: {kind}\n").type == "python"


@pytest.mark.parametrize("kind", ["integration", "streaming", "dbt"])
def test_other_types(load: Load, kind: str) -> None:
    assert load(f"type: {kind}\n").type == kind


IN_LINES = "blocks:\n- uuid: a\n  type: custom\n"
IN_ONE = "blocks:\n- {uuid: a, type: custom}\n"
"""A block `a`, in several lines and in one."""


@pytest.mark.parametrize(
    ("metadata", "line", "code", "name"),
    [
        (
            "blocks:\n- {uuid: a, type: custom, downstream_blocks: [b]}\n"
            "- {uuid: b, type: custom, upstream_blocks: []}\n",
            2,
            "graph.contradiction",
            "'b'",
        ),
        (
            "blocks:\n- {uuid: a, type: custom, downstream_blocks: []}\n"
            "- {uuid: b, type: custom, upstream_blocks: [a]}\n",
            3,
            "graph.contradiction",
            "'a'",
        ),
        (
            "blocks:\n- {uuid: a, type: custom, upstream_blocks: [b]}\n"
            "- {uuid: b, type: custom, upstream_blocks: [a]}\n",
            2,
            "graph.cycle",
            "a → b → a",
        ),
        ("blocks:\n- {uuid: a, type: custom, upstream_blocks: [a]}\n", 2, "graph.cycle", "a → a"),
        (IN_LINES + "  upstream_blocks:\n  - bb\n", 5, "graph.unknown_block", "'bb'"),
        (IN_LINES + "  downstream_blocks: [c, c]\n", 4, "graph.duplicate", "'c'"),
        (IN_ONE + "- {uuid: a, type: custom}\n", 3, "graph.duplicate", "pipelines/p/metadata.yaml:2"),
        ("blocks:\n- {uuid: absent, type: custom}\n", 2, "block.file_missing", "custom/absent.py"),
        ("blocks:\n- {uuid: a, type: custom, language: sql}\n", 2, "block.file_missing", "custom/a.sql"),
        ("blocks:\n- uuid: ../../etc/x\n  type: custom\n", 2, "block.invalid_name", ""),
        ("blocks:\n- uuid: /etc/x\n  type: custom\n", 2, "block.invalid_name", ""),
        ("blocks:\n- {type: custom}\n", 2, "setting.invalid", "uuid"),
        ("blocks:\n- {uuid: 5, type: custom}\n", 2, "setting.invalid", "the number 5"),
        ("blocks:\n- {uuid: a}\n", 2, "block.unknown_type", "'a'"),
        ("blocks:\n- uuid: a\n  type: data_loder\n", 3, "block.unknown_type", "'data_loder'"),
        (IN_LINES + "  language: cobol\n", 4, "block.unknown_kind", "'cobol'"),
        ("blocks: {a: b}\n", 1, "setting.invalid", "blocks"),
        ("blocks: [a]\n", 1, "setting.invalid", "blocks[0]"),
        ("type: integratoin\n", 1, "pipeline.type_unknown", "'integratoin'"),
        ("blocks:\n- uuid: a\n  uuid: b\n", 3, "yaml.duplicate_key", "'uuid'"),
        (IN_LINES + "  timeout: soon\n", 4, "setting.invalid", "timeout"),
        (IN_LINES + "  timeout: .inf\n", 4, "setting.invalid", "the number inf"),
        (IN_LINES + "  retry_config: {delay: .nan}\n", 4, "setting.invalid", "delay"),
        (IN_LINES + "  configuration: [x]\n", 4, "setting.invalid", "configuration"),
        ("retry_config:\n  retries: many\n", 2, "setting.invalid", "retries"),
        ("retry_config: {retries: true}\n", 1, "setting.invalid", "the boolean true"),
        ("retry_config: {delay: -1}\n", 1, "setting.invalid", "the number -1"),
        ("retry_config: {exponential_backoff: 2}\n", 1, "setting.invalid", "exponential_backoff"),
        ("blocks:\n- uuid: no\n  type: custom\n", 2, "setting.invalid", "the boolean false"),
        ("blocks:\n- type: custom\n  name: off\n", 3, "setting.invalid", "the boolean false"),
        (
            "blocks:\n- type: custom\n  uuid: a\n  upstream_blocks: [b,\n   no]\n",
            5,
            "setting.invalid",
            "upstream_blocks",
        ),
        ("callbacks:\n- {uuid: a, upstream_blocks: [x]}\n", 2, "graph.unknown_block", "'x'"),
        ("variables: [1]\n", 1, "yaml.wrong_type", "variables"),
        ("blocks:\n\t- a\n", 2, "yaml.tab", ""),
        (IN_LINES + "\tlanguage: python\n", 4, "yaml.tab", ""),
        ("blocks:\n- uuid: x/../../y\n  type: custom\n", 2, "block.invalid_name", ""),
        ("blocks:\n- {uuid: ./a, type: custom}\n", 2, "block.invalid_name", ""),
        ("blocks:\n- {uuid: a/, type: custom}\n", 2, "block.invalid_name", ""),
        ("blocks:\n- {uuid: .a, type: custom}\n", 2, "block.invalid_name", ""),
        (IN_ONE + "callbacks:\n- {uuid: a}\n", 4, "graph.duplicate", "'a'"),
        ('blocks:\n- {uuid: "a\\x07", type: custom}\n', 2, "block.invalid_name", ""),
        ("blocks:\n- uuid: b\n  type: custom\n  replicated_block: ../../etc/x\n", 4, "block.invalid_name", ""),
        ("blocks:\n- uuid: b\n  type: custom\n  replicated_block: 5\n", 4, "setting.invalid", "replicated_block"),
        (IN_ONE + "- uuid: c\n  type: transformer\n  replicated_block: a\n", 5, "setting.invalid", "'a'"),
        (
            IN_ONE + "- {uuid: c, type: custom, replicated_block: a}\n- {uuid: d, type: custom, replicated_block: c}\n",
            4,
            "setting.invalid",
            "'c'",
        ),
        ("blocks:\n- uuid: a\n  type: [custom]\n", 3, "setting.invalid", "type"),
        ("callbacks:\n- uuid: a\n  type: custom\n", 3, "block.unknown_type", "callbacks"),
        ("conditionals:\n- uuid: a\n  language: sql\n  content: select 1\n", 3, "block.wrong_language", "sql"),
        (IN_ONE + "- {uuid: a/b, type: custom}\n", 3, "block.invalid_name", "'a'"),
        ("concurrency_config: {block_run_limit: 0}\n", 1, "setting.invalid", "block_run_limit"),
        ("concurrency_config:\n  block_run_limit: two\n", 2, "setting.invalid", "block_run_limit"),
        ("dynamic_blocks:\n  max_child_block_runs: true\n", 2, "setting.invalid", "max_child_block_runs"),
        (
            "dynamic_blocks:\n  max_concurrent_child_block_runs: 1.5\n",
            2,
            "setting.invalid",
            "max_concurrent_child_block_runs",
        ),
        ("dynamic_blocks:\n  on_max_child_block_runs_exceeded: stop\n", 2, "setting.invalid", "'stop'"),
        ("dynamic_blocks: [1]\n", 1, "yaml.wrong_type", "dynamic_blocks"),
        (IN_LINES + "  retry_config: 3\n", 4, "setting.invalid", "retry_config"),
    ],
)
def test_what_cannot_be_names_file_and_line(load: Load, metadata: str, line: int, code: str, name: str) -> None:
    error = refused(
        load, metadata, *("custom/a.py", "custom/b.py", "custom/a/b.py", "transformers/c.py"), "callbacks/a.py"
    )
    assert error.where == f"pipelines/p/metadata.yaml:{line}"
    assert error.code == code
    assert name in error.message


def test_a_missing_file_suggests_what_there_is(load: Load) -> None:
    error = refused(load, "blocks:\n- {uuid: load, type: data_loader, language: python}\n", "data_loaders/load.yaml")
    assert "language: yaml" in str(error.hint)
    error = refused(load, "blocks:\n- {uuid: lod_shop, type: data_loader}\n", "data_loaders/load_shop.py")
    assert "'load_shop'" in str(error.hint)


def test_without_a_language_the_only_file_is_meant(load: Load) -> None:
    model = load("blocks:\n- {uuid: a, type: data_loader}\n", "data_loaders/a.yaml")
    assert model.blocks["a"].language == "yaml"


def test_files_elsewhere_and_shared_ones(load: Load, tmp_path: Path) -> None:
    model = load(
        "blocks:\n"
        "- {uuid: a, type: transformer, configuration: {file_path: shared/x.sql}}\n"
        "- {uuid: b, type: transformer, replicated_block: c}\n"
        "- {uuid: sub/d, type: transformer}\n",
        *("shared/x.sql", "transformers/c.py", "transformers/sub/d.py"),
    )
    assert (model.blocks["a"].language, model.blocks["a"].file) == ("sql", tmp_path / "shared/x.sql")
    assert model.blocks["b"].file == tmp_path / "transformers/c.py"
    assert model.blocks["sub/d"].file == tmp_path / "transformers/sub/d.py"


def test_a_pipeline_that_is_not_there(tmp_path: Path, load: Load) -> None:
    load("blocks: []\n")
    project = Project.open(tmp_path)
    with refuses("pipeline.not_found", "'pp'") as caught:
        load_pipeline(project, "pp")
    assert "'p'" in str(caught.value.hint)
    with refuses("pipeline.invalid_name"):
        load_pipeline(project, "../p")


def test_delays_grow_to_their_limit(load: Load) -> None:
    model = load("retry_config: {retries: 9, delay: 1, max_delay: 6}\n")
    retry = model.retry_config
    assert retry is not None
    assert [retry.delay_before(attempt) for attempt in (1, 2, 3, 4, 90)] == [1, 2, 4, 6, 6]


BATCH = """\
blocks:
- {uuid: a, type: data_loader}
- {uuid: b, type: transformer, upstream_blocks: [a], retry_config: {retries: 3}}
- {uuid: c, type: transformer, replicated_block: b, upstream_blocks: [a]}
callbacks:
- {uuid: say, upstream_blocks: [b]}
- {uuid: all}
conditionals:
- {uuid: only_if, type: conditional, upstream_blocks: [c]}
"""
BATCH_FILES = (
    "data_loaders/a.py",
    "transformers/b.py",
    "callbacks/say.py",
    "callbacks/all.py",
    "conditionals/only_if.py",
)


def test_callbacks_and_conditionals_need_no_type_and_may_have_no_upstream(load: Load) -> None:
    model = load(BATCH, *BATCH_FILES)
    assert {uuid: one.type for uuid, one in model.callbacks.items()} == {"say": "callback", "all": "callback"}
    assert model.callbacks["all"].upstream == []
    assert list(model.conditionals) == ["only_if"]


def test_a_callback_among_the_blocks_is_a_callback(load: Load) -> None:
    model = load(
        "blocks:\n- {uuid: a, type: custom}\n- {uuid: say, type: callback, upstream_blocks: [a]}\n"
        "- {uuid: only_if, type: conditional, upstream_blocks: [a]}\n",
        *("custom/a.py", "callbacks/say.py", "conditionals/only_if.py"),
    )
    assert (list(model.blocks), list(model.callbacks), list(model.conditionals)) == (["a"], ["say"], ["only_if"])
    assert (model.callbacks["say"].upstream, model.blocks["a"].downstream) == (["a"], [])


def test_a_replica_has_the_original_s_file_and_language(load: Load, tmp_path: Path) -> None:
    model = load(BATCH, *BATCH_FILES)
    assert model.blocks["c"].file == tmp_path / "transformers/b.py"
    model = load(
        "blocks:\n- {uuid: x, type: transformer, configuration: {file_path: shared/x.sql}}\n"
        "- {uuid: y, type: transformer, replicated_block: x, configuration: {limit: 1}}\n",
        "shared/x.sql",
    )
    assert (model.blocks["y"].language, model.blocks["y"].file) == ("sql", tmp_path / "shared/x.sql")
    assert model.blocks["y"].configuration == {"limit": 1}


def test_retries_are_inherited_key_by_key_from_pipeline_and_project(load: Load, tmp_path: Path) -> None:
    load(BATCH, *BATCH_FILES)
    (tmp_path / "streamline.yaml").write_text("retry_config: {retries: 1, delay: 2, max_delay: 9}\n")
    path = tmp_path / "pipelines/p/metadata.yaml"
    path.write_text(BATCH + "retry_config: {delay: 4, exponential_backoff: false}\n")
    model = load_pipeline(Project.open(tmp_path), "p")
    assert model.retry_config == RetryConfig(retries=1, delay=4, max_delay=9, exponential_backoff=False)
    assert model.blocks["a"].retry_config == model.retry_config
    assert model.blocks["b"].retry_config == RetryConfig(retries=3, delay=4, max_delay=9, exponential_backoff=False)


def test_a_wrong_value_in_the_project_names_the_project_s_file(load: Load, tmp_path: Path) -> None:
    load(BATCH, *BATCH_FILES)
    for text, line in (
        ("retry_config: {retries: many}\n", 1),
        ("name: x\nconcurrency_config: {block_run_limit: many}\n", 2),
        ("name: x\ndynamic_blocks:\n  on_max_child_block_runs_exceeded: maybe\n", 3),
    ):
        (tmp_path / "streamline.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_pipeline(Project.open(tmp_path), "p")
        assert caught.value.where == f"streamline.yaml:{line}"


MAGE_BATCH = """\
blocks:
- all_upstream_blocks_executed: true
  color: blue
  configuration: {file_source: {path: data_loaders/load.py}}
  downstream_blocks: [fan, query, again]
  executor_config: {}
  executor_type: local_python
  groups: []
  has_callback: true
  language: python
  name: load
  retry_config: null
  status: executed
  timeout: null
  type: data_loader
  upstream_blocks: []
  uuid: load
- {uuid: fan, name: fan, type: transformer, language: python, upstream_blocks: [load], downstream_blocks: [child],
   configuration: {dynamic: true}}
- {uuid: child, name: child, type: transformer, language: python, upstream_blocks: [fan], downstream_blocks: [],
   configuration: {reduce_output: true}, retry_config: {retries: 2, delay: 1, max_delay: 5, exponential_backoff: false}}
- {uuid: query, name: query, type: data_exporter, language: sql, upstream_blocks: [load], downstream_blocks: [],
   configuration: {data_provider: postgres, data_provider_profile: default, data_provider_schema: public,
   data_provider_table: '', export_write_policy: append, use_raw_sql: false, limit: 1000}}
- {uuid: wait, name: wait, type: sensor, upstream_blocks: [], downstream_blocks: [], timeout: 600}
- {uuid: again, name: again, type: transformer, replicated_block: child, upstream_blocks: [load], downstream_blocks: []}
cache_block_output_in_memory: true
callbacks:
- {all_upstream_blocks_executed: true, uuid: say, name: say, type: callback, language: python, upstream_blocks: [load],
   downstream_blocks: [], configuration: {}, status: not_executed, groups: []}
concurrency_config: {block_run_limit: 2, pipeline_run_limit: 1, on_pipeline_run_limit_reached: wait}
conditionals:
- {uuid: only_if, name: only_if, type: conditional, language: python, upstream_blocks: [child], downstream_blocks: []}
created_at: '2024-01-02 03:04:05.678000+00:00'
data_integration: null
description: null
dynamic_blocks: {max_child_block_runs: 10, on_max_child_block_runs_exceeded: limit, max_concurrent_child_block_runs: 2}
execution_framework: null
executor_config: {}
executor_count: 1
executor_type: null
extensions: {great_expectations: {blocks: []}}
name: p
notification_config: {alert_on: [trigger_failure]}
remote_variables_dir: null
retry_config: {}
run_pipeline_in_one_process: true
settings: {triggers: {save_in_code_automatically: true}}
spark_config: {}
state_store_config: {}
tags: []
type: python
updated_at: 2024-02-02 03:04:05
uuid: p
variables: {day: "{{ execution_date }}"}
variables_dir: /home/src/mage_data/shop
widgets: []
"""


def test_a_mage_batch_pipeline_loads_unmodified(load: Load, tmp_path: Path) -> None:
    model = load(
        MAGE_BATCH,
        *("data_loaders/load.py", "transformers/fan.py", "transformers/child.py", "data_exporters/query.sql"),
        *("sensors/wait.py", "callbacks/say.py", "conditionals/only_if.py"),
    )
    assert model.warnings == []
    assert list(model.blocks) == ["load", "fan", "child", "query", "wait", "again"]
    assert model.retry_config == RetryConfig()
    assert model.blocks["child"].retry_config == RetryConfig(2, 1, 5, False)
    assert model.blocks["wait"].timeout == 600
    assert model.blocks["again"].file == tmp_path / "transformers/child.py"
