"""dbt blocks as far as they need no dbt: arguments, settings, profiles, the private view, results in words."""

from __future__ import annotations

import datetime as dt
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streamline.blocks.dbt import block as dbt
from streamline.blocks.dbt.arguments import Arguments, command_words, read_arguments
from streamline.blocks.dbt.overlay import make_overlay, mentions
from streamline.blocks.dbt.profiles import load_profile
from streamline.blocks.dbt.results import failure_text, node_name
from streamline.blocks.dbt.settings import read_settings
from streamline.errors import ConfigError
from streamline.project.render import Renderer
from tests.blocks.call_inputs import Calls
from tests.support.failures import refuses

PROJECT = "name: demo\nprofile: demo\n"
PROFILES = """
demo:
  target: dev
  outputs:
    dev: {type: duckdb, path: dev.duckdb}
    prod:
      type: postgres
      host: "{{ env_var('PG_HOST', 'localhost') }}"
      port: "{{ env_var('PG_PORT') | as_number }}"
      password: "{{ secret('pg') }}"
      schema: "{{ var('schema') }}_x"
"""


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    made = Calls(tmp_path / "shop")
    made.write("dbt/demo/dbt_project.yml", PROJECT)
    made.write("dbt/demo/profiles.yml", PROFILES)
    made.write("dbt/demo/models/staging/orders.sql", "select 1 as id")
    return made


def read(text: str, **variables: Any) -> Arguments:
    return read_arguments(text, "dbts/it.yaml", Renderer(None, variables, block_output=lambda _: [{"day": 3}]))


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("--select my_model+", ["--select", "my_model+"]),
        ("--select a b \\\n  --exclude 'tag:x y'\n", ["--select", "a", "b", "--exclude", "tag:x y"]),
        ("# models\n--select a\n", ["--select", "a"]),
        ("- --select\n- my_model+\n", ["--select", "my_model+"]),
        ("- --select a b\n- --full-refresh\n", ["--select", "a", "b", "--full-refresh"]),
        ("select: [a, b+]\nfull_refresh: true\nfail-fast: false\n", ["--select", "a", "b+", "--full-refresh"]),
        ('"--select a"', ["--select", "a"]),
        ("", []),
        ("--select {{ variables('model') }}", ["--select", "a b; rm"]),
        ("--select {{ variables('models') }}", ["--select", "m1", "m2"]),
        ("{{ '--full-refresh' if variables('full') else '' }} --select a", ["--select", "a"]),
        ("{% if variables('full') %}--full-refresh{% endif %} --select a", ["--select", "a"]),
        ("args: {n: 1}", ["--args", '{"n": 1}']),
    ],
)
def test_forms_of_arguments(text: str, rest: list[str]) -> None:
    assert read(text, model="a b; rm", models=["m1", "m2"], full=False).rest == rest


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("""--vars '{"day": "{{ variables("day") }}"}'""", {"day": 'it\'s "x": {}'}),
        ("--vars '{n: {{ variables(\"n\") }}, day: 2024-01-02}'", {"n": 3, "day": dt.date(2024, 1, 2)}),
        ("--vars='{a: 1}'", {"a": 1}),
        ("vars: {n: \"{{ variables('n') }}\"}", {"n": 3}),
        ("--vars \"{{ variables('all') }}\"", {"x": "{{ not rendered }}"}),
        ('--vars \'{d: {{ block_output("up", parse=lambda data, vars: data[0]["day"]) }}}\'', {"d": 3}),
    ],
)
def test_vars_keep_their_types_and_no_value_breaks_them(text: str, result: dict[str, Any]) -> None:
    all_of_them = {"x": "{{ not rendered }}"}
    runtime = Renderer(
        None, {}, runtime={"all": all_of_them, "day": 'it\'s "x": {}', "n": 3}, block_output=lambda _: [{"day": 3}]
    )
    assert read_arguments(text, "dbts/it.yaml", runtime).vars == result


@given(
    st.lists(
        st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="-{}\ue010\ue011")), min_size=1
    )
)
def test_words_are_split_as_a_shell_splits(words: list[str]) -> None:
    assert read(f"--select {shlex.join(words)} --full-refresh").rest == ["--select", *words, "--full-refresh"]


def test_a_command_and_what_streamline_takes_out() -> None:
    result = read("dbt docs generate --target prod --profiles-dir=conf -t other --no-compile")
    assert result.command == ["docs", "generate"]
    assert (result.target, result.profiles_dir, result.rest) == ("other", "conf", ["--no-compile"])


@pytest.mark.parametrize(
    ("text", "code", "name"),
    [
        ("--select 'a", "dbt.arguments_invalid", "dbt"),
        ("--project-dir x", "dbt.arguments_invalid", "--project-dir"),
        ("--select a --target", "dbt.arguments_invalid", "--target"),
        ("--vars '{a: ['", "dbt.arguments_invalid", "--vars"),
        ("--vars 3", "dbt.arguments_invalid", "--vars"),
        ("docs serve", "dbt.command_invalid", "`dbt docs serve`"),
        ("--select {{ variables('no') }}", "variable.not_found", "'no'"),
    ],
)
def test_arguments_that_cannot_be_read(text: str, code: str, name: str) -> None:
    with refuses(code, name) as caught:
        read(text)
    assert caught.value.where == "dbts/it.yaml"


def test_commands() -> None:
    assert command_words("dbt run", "x") == ["run"]
    assert command_words("docs", "x") == ["docs", "generate"]
    with refuses("dbt.command_invalid", "'biuld'") as caught:
        command_words("biuld", "x")
    assert "build" in str(caught.value.hint)


def settings(calls: Calls, language: str, path: str, text: str = "", **configuration: Any) -> Any:
    file = calls.write(path, text) if text or not (calls.root / path).exists() else calls.root / path
    block = calls.block("dbt", language, file, configuration=configuration)
    dbt.check_block(calls.project, block)
    return read_settings(calls.project, block, path, None)


def test_a_yaml_block(calls: Calls) -> None:
    result = settings(calls, "yaml", "dbts/it.yaml", "--select a", dbt={"command": "build"}, dbt_profile_target="prod")
    assert (result.folder, result.command, result.target) == (calls.root / "dbt/demo", ["build"], "prod")
    assert settings(calls, "yaml", "dbts/it.yaml").command == ["run"]


@pytest.mark.parametrize("name", ["demo", "dbt/demo", "shop/dbt/demo"])
def test_names_of_a_dbt_project(calls: Calls, name: str) -> None:
    calls.write("dbt/other/dbt_project.yml", PROJECT)
    assert settings(calls, "yaml", "dbts/it.yaml", "x", dbt_project_name=name).folder == calls.root / "dbt/demo"


def test_an_sql_block_is_one_model(calls: Calls) -> None:
    result = settings(calls, "sql", "dbt/demo/models/staging/orders.sql")
    assert result.command == ["build"]
    assert result.arguments.rest == ["--select", "path:models/staging/orders.sql"]
    result = settings(
        calls, "sql", "dbt/demo/models/staging/orders.sql", dbt={"disable_tests": True, "prefix": "+", "suffix": "+1"}
    )
    assert (result.command, result.arguments.rest) == (["run"], ["--select", "+path:models/staging/orders.sql+1"])


@pytest.mark.parametrize(
    ("given", "code", "name"),
    [
        ({"dbt_project_name": "dmeo"}, "dbt.project_not_found", "'dmeo'"),
        ({"dbt": {"command": "fly"}}, "dbt.command_invalid", "'fly'"),
        ({"dbt": "build"}, "dbt.command_invalid", "configuration.dbt "),
        ({"dbt_profile_target": "stage"}, "dbt.target_not_found", "'stage'"),
        ({"dbt": {"output": 3}}, "dbt.arguments_invalid", "configuration.dbt.output"),
    ],
)
def test_wrong_settings(calls: Calls, given: dict[str, Any], code: str, name: str) -> None:
    with refuses(code, name):
        settings(calls, "yaml", "dbts/it.yaml", "--select a", **given)


def test_files_that_are_missing(calls: Calls) -> None:
    (calls.root / "dbt/demo/profiles.yml").unlink()
    with refuses("dbt.profile_not_found", "profiles.yml") as caught:
        settings(calls, "yaml", "dbts/it.yaml", "--select a")
    assert "dbt/demo/profiles.yml" in str(caught.value.hint)
    calls.write("dbt/other/dbt_project.yml", PROJECT)
    with refuses("dbt.project_ambiguous"):
        settings(calls, "yaml", "dbts/it.yaml", "--select a")
    with refuses("dbt.project_not_found"):
        settings(calls, "sql", "dbts/it.sql", "select 1")


def test_the_profile_is_rendered_for_its_target_alone(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_PORT", "5433")
    monkeypatch.setenv("STREAMLINE_SECRET_PG", "pa{{ss}}")
    result = settings(calls, "yaml", "dbts/it.yaml", "x", dbt_profile_target="prod")
    profile = load_profile(calls.project, result, "x", {"schema": "s"})
    assert profile.type == "postgres"
    assert profile.output["port"] == 5433
    assert (profile.output["host"], profile.output["schema"]) == ("localhost", "s_x")
    # dbt renders it once more: what looks like a template must come out as it is.
    written = yaml.safe_load(profile.text())["demo"]
    assert list(written["outputs"]) == ["prod"]
    assert written["outputs"]["prod"]["password"] == "{{ 'pa{{ss}}' }}"
    monkeypatch.delenv("PG_PORT")
    assert load_profile(calls.project, settings(calls, "yaml", "dbts/b.yaml", "x"), "x", {}).type == "duckdb"
    with refuses("environment_variable.not_set", "PG_PORT") as caught:
        load_profile(calls.project, result, "x", {"schema": "s"})
    assert caught.value.where == "dbt/demo/profiles.yml:9"


def test_the_private_view(calls: Calls) -> None:
    calls.write("dbt/demo/target/manifest.json", "{}")
    calls.write("dbt/demo/packages.yml", "packages:\n  - local: ../shared\n")
    before = sorted(path for path in (calls.root / "dbt").rglob("*"))
    home = calls.root / ".streamline/dbt/p/it"
    made = make_overlay(calls.project, calls.root / "dbt/demo", home, profile="demo")
    assert made.needs_deps
    assert (made.folder / "models/staging/orders.sql").read_text() == "select 1 as id"
    assert not (made.folder / "target").exists()
    written = yaml.safe_load((made.folder / "dbt_project.yml").read_text())
    assert written["model-paths"] == ["models", "streamline_sources"]
    packages = yaml.safe_load((made.folder / "packages.yml").read_text())
    assert packages == {"packages": [{"local": str(calls.root / "dbt/shared")}]}
    made.installed()
    (made.folder / "dbt_packages/shared").mkdir(parents=True)
    again = make_overlay(calls.project, calls.root / "dbt/demo", home, profile="demo")
    assert not again.needs_deps
    assert (again.folder / "dbt_packages/shared").is_dir()
    assert sorted(path for path in (calls.root / "dbt").rglob("*")) == before


def test_a_wrong_dbt_project_file(calls: Calls) -> None:
    calls.write("dbt/demo/dbt_project.yml", "name: demo\nprofile: demo\nmodel-paths: ['.']\n")
    with refuses("dbt.project_invalid", "model-paths"):
        make_overlay(calls.project, calls.root / "dbt/demo", calls.root / "home", profile="demo")
    calls.write("dbt/demo/dbt_project.yml", "name: demo\nprofile: [\n")
    with refuses("yaml.invalid") as caught:
        settings(calls, "yaml", "dbts/it.yaml", "--select a")
    assert str(caught.value.where).startswith("dbt/demo/dbt_project.yml:")


def test_what_models_ask_for(calls: Calls) -> None:
    calls.write("dbt/demo/models/b.sql", "select {{ var('day') }}, {{ var( \"ds\", 1) }}")
    calls.write("dbt/demo/models/c.sql", "from {{ source( 'streamline',\"load it\" ) }} {{ source('raw', 'x') }}")
    calls.write("dbt/demo/target/old.sql", "{{ var('gone') }}")
    assert mentions(calls.root / "dbt/demo") == ({"day", "ds", "schema"}, {"load it"})


@pytest.mark.parametrize(
    ("unique_id", "result"),
    [
        ("model.demo.orders", ("model", "orders")),
        ("model.demo.orders.v2", ("model", "orders.v2")),
        ("test.demo.not_null_orders_id.cf6c17daed", ("test", "not_null_orders_id")),
        ("unit_test.demo.orders.adds_up", ("unit_test", "orders.adds_up")),
        ("source.demo.raw.users", ("source", "raw.users")),
    ],
)
def test_names_of_nodes(unique_id: str, result: tuple[str, str]) -> None:
    assert node_name(unique_id) == result


def test_failures_in_words() -> None:
    error = "Runtime Error in model a (models/a.sql)\n  Catalog Error: no x\n  LINE 1: x"
    results = [
        {"name": "a", "resource_type": "model", "status": "error", "message": error},
        {"name": "b", "resource_type": "model", "status": "skipped", "message": None},
    ]
    assert failure_text(results) == "dbt: model a failed: Catalog Error: no x\n    LINE 1: x (1 skipped because of it)"
    results.append({"name": "t", "resource_type": "test", "status": "fail", "message": "Got 2 results"})
    assert failure_text(results).splitlines()[0] == "dbt: 2 of 3 nodes failed (1 skipped because of it):"
    assert json.dumps(results)


@pytest.mark.parametrize(("adapter", "guess"), [("duckdbb", "`type: duckdb`"), ("acme", "")])
def test_an_adapter_that_cannot_be_installed(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, adapter: str, guess: str
) -> None:
    from streamline.blocks.dbt.environment import dbt_environment

    def refuse(*args: object, **kwargs: object) -> None:
        raise ConfigError("not found in the package registry")

    monkeypatch.setattr("streamline.project.environments.ensure_environment", refuse)
    with pytest.raises(ConfigError) as caught:
        dbt_environment(calls.project, adapter, lambda text: None)
    hint = str(caught.value.hint)
    assert (guess in hint) if guess else ("`type: " not in hint)
