"""What is known about source and destination blocks before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamline.blocks.connector.role import connector_role, takes_no_data
from streamline.errors import ConfigError
from tests.blocks.connector.preparing import DESTINATION, PLUGINS, SOURCE, Preparing

YAML = "source: shop\nconfig:\n  host: h\n"


def refusal(shop: Preparing, type: str, text: str, *upstream: str, **keys: Any) -> ConfigError:
    with pytest.raises(ConfigError) as found:
        shop.check(type, text, *upstream, **keys)
    assert found.value.exit_code == 2
    return found.value


@pytest.mark.parametrize(
    ("type", "text", "code", "line"),
    [
        ("data_loader", "source: shopp\n", "plugin.unknown", 1),
        ("data_loader", "config: {}\nsource: target-shop\n", "plugin.wrong_role", 2),
        ("data_exporter", "destination: shopp\n", "plugin.unknown", 1),
        ("data_loader", "destination: shop\n", "block.wrong_kind", 1),
        ("data_exporter", "\nsource: shop\n", "block.wrong_kind", 2),
        ("data_loader", "sourc: shop\n", "block.wrong_kind", 1),
        ("data_loader", YAML + "bath_config: {}\n", "setting.unknown", 4),
        ("data_loader", YAML + "streams: {orders: {colums: [id]}}\n", "setting.unknown", 4),
        ("data_exporter", "destination: shop\nstreams: {orders: {load_method: x}}\n", "setting.invalid", 2),
        ("data_loader", YAML + "  port: \"{{ variables('por') }}\"\n", "variable.not_found", 4),
        ("data_loader", YAML + "  password: \"{{ secret('x') }}\"\n", "secret.not_found", 4),
        ("data_loader", YAML + '  port: "{{ 1 + }}"\n', "template.syntax", 4),
        ("data_loader", YAML + "  port: \"{{ block_output('a' }}\"\n", "template.syntax", 4),
        ("data_loader", YAML + "  port: {{ block_output('c') }}\n", "block.not_upstream", 4),
        ("data_loader", YAML + "  port: [1, \"{{ block_output('a', parse='data') }}\"]\n", "template.invalid_parse", 4),
        ("data_loader", "{% if 1 %}\nsource: {{ block_output('c') }}\n{% endif %}\n", "block.not_upstream", 2),
        ("data_loader", "{% if 1 %}\nsource: {{ block_output('a') }}\n", "template.syntax", 2),
        ("data_loader", SOURCE.replace("'shop'", "'shopp'"), "plugin.unknown", 3),
        ("data_exporter", DESTINATION.replace("'shop'", "'shopp'"), "plugin.unknown", 3),
        ("data_exporter", SOURCE, "block.wrong_kind", 1),
        ("data_loader", SOURCE + "\n" + DESTINATION.partition("\n\n")[0], "block.wrong_kind", 10),
        ("data_loader", SOURCE.replace("def config(", "def (config"), "block.syntax", 7),
        ("data_loader", SOURCE.replace("data_integration_config", "data_integration_config(1)"), "setting.invalid", 6),
    ],
)
def test_what_is_wrong_in_a_file(shop: Preparing, type: str, text: str, code: str, line: int) -> None:
    error = refusal(shop, type, text, "a", "b")
    suffix = "py" if "def " in text else "yaml"
    assert (error.code, error.where) == (code, f"{type}s/sync.{suffix}:{line}")
    assert shop.asked == []


@pytest.mark.parametrize(
    ("type", "text"),
    [
        ("data_loader", YAML),
        ("data_loader", SOURCE),
        ("data_exporter", DESTINATION),
        ("data_loader", SOURCE.replace("return 'shop'", "return kwargs['system']")),
        ("data_loader", "source: \"{{ block_output('a') }}\"\nmax_parallel: \"{{ block_output('b')['n'] }}\"\n"),
        ("data_loader", YAML + "  more: [1, \"{{ block_output('a') }}\", {port: \"{{ block_output('b') }}\"}]\n"),
        ("data_loader", YAML + "streams:\n  orders: {columns: \"{{ block_output('a') }}\"}\n"),
        ("data_loader", YAML + "streams: \"{{ block_output('a') }}\"\n"),
        ("data_loader", YAML + "  port: |\n    {{ block_output('a', parse=lambda data, variables: data['port']) }}\n"),
        ("data_loader", "{% if block_output('a') %}\nsource: no-such\n{% endif %}\n"),
        ("data_exporter", "destination: shop\nstreams: [\"{{ block_output('a') }}\", b]\n"),
    ],
)
def test_what_is_right(shop: Preparing, type: str, text: str) -> None:
    shop.check(type, text, "a", "b")


def test_mappers_are_for_integration_pipelines(shop: Preparing) -> None:
    assert refusal(shop, "transformer", "mapper: shop\n").code == "block.wrong_pipeline"


def test_the_imports_of_a_file_are_told(shop: Preparing) -> None:
    assert shop.check("data_loader", "import json\nfrom utils.shops import x\n" + SOURCE) >= {"json", "utils"}


@pytest.mark.parametrize("text", [SOURCE, YAML])
def test_the_output_of_a_source_cannot_be_secret(shop: Preparing, text: str) -> None:
    error = refusal(shop, "data_loader", text, configuration={"secret_output": True})
    assert (error.code, shop.line(error.where)) == ("setting.invalid", "secret_output: true")
    shop.check("data_loader", text, configuration={"secret_output": False})
    shop.check("data_exporter", DESTINATION, "a", configuration={"secret_output": True})


@pytest.mark.parametrize(
    "catalog", ["{", "[]", '{"streams": {}}', {"streams": [{"schema": {}}]}, {"streams": [{"stream": "a"}] * 2}]
)
def test_a_catalog_json_that_is_none(shop: Preparing, catalog: Any) -> None:
    shop.catalog(catalog)
    for type, text in (("data_loader", SOURCE), ("data_loader", YAML), ("data_exporter", "destination: shop\n")):
        error = refusal(shop, type, text)
        assert (error.code, error.where) == ("catalog.invalid", "pipelines/p/sync/catalog.json")


@pytest.mark.parametrize("text", [DESTINATION, "destination: shop\n"])
def test_a_destination_needs_an_output(shop: Preparing, text: str) -> None:
    only_input = {"data_integration": {"inputs": {"a": {"input_only": True}}}}
    for upstream in ([], ["a"]):
        error = refusal(shop, "data_exporter", text, *upstream, configuration=only_input if upstream else None)
        assert (error.code, shop.line(error.where)) == ("graph.wrong_place", "- uuid: sync")
    shop.check("data_exporter", text, "a", "b", configuration=only_input)


def test_a_helper_of_the_project_is_no_decorated_function(shop: Preparing) -> None:
    shop.write("utils/shops.py", "")
    text = "from utils.shops import host, name\n" + SOURCE[SOURCE.index("@data_integration_config") :]
    shop.check("data_loader", text)  # one of them may be the source's name
    helpers = text.replace("'localhost'", "host() + name")
    assert refusal(shop, "data_loader", helpers).code == "block.function_missing"


def test_a_config_alone_makes_a_source_that_lacks_its_name(shop: Preparing) -> None:
    config = SOURCE[SOURCE.index("@data_integration_config") :]
    for type in ("data_loader", "data_exporter"):
        error = refusal(shop, type, config, "a")
        assert (error.code, error.where) == ("block.function_missing", f"{type}s/sync.py")


# -- whether a destination uses the output of its source as a value

ARGS = "(*args, **kwargs)"


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("destination: shop\n", False),
        ("destination: shop\nconfig: {host: \"{{ block_output('creds') }}\"}\n", False),
        ("destination: shop\nconfig: {host: \"{{ block_output('src')['x'] }}\"}\n", True),
        ("destination: shop\nconfig: {host: '{{ block_output(variables(\"name\")) }}'}\n", True),
        (DESTINATION, False),
        (DESTINATION.replace(ARGS, "()"), False),
        (DESTINATION.replace(ARGS, "(destination=None, **kwargs)"), False),
        (DESTINATION.replace(ARGS, "(data, **kwargs)"), True),
        (DESTINATION.replace(ARGS, "(*, src)"), True),
        (DESTINATION.replace("'localhost'", "args[0]"), True),
        (DESTINATION.replace("'localhost'", "df_1"), True),
        (DESTINATION.replace("'localhost'", "src"), True),
        ("from utils.shops import config\n" + DESTINATION.partition("\n\n\n")[0], True),
    ],
)
def test_a_destination_that_uses_its_source(shop: Preparing, text: str, uses: bool) -> None:
    block = shop.pipeline("data_exporter", text, ["creds", "src"]).blocks["sync"]
    assert connector_role(block) == "destination"
    assert takes_no_data(block, "src") is not uses
    listed = {"data_integration": {"inputs": ["creds"]}}
    if block.language == "python" and "df_1" not in text:
        block = shop.pipeline("data_exporter", text, ["creds", "src"], listed).blocks["sync"]
        assert takes_no_data(block, "src")


# -- YAML in a run


def test_outputs_in_yaml(tmp_path: Path) -> None:
    from tests.blocks.call_inputs import Given

    creds = Given("creds", {"host": "h", "port": 5432, "streams": ["orders"], "password": "hunter2x"})
    text = """
source: shop
config:
  host: |
    {{ block_output('creds', parse=lambda data, variables: data['host'] + variables['domain']) }}
  port: "{{ block_output('creds')['port'] }}"
  password: {{ block_output('creds', parse='lambda data: data["password"]') }}
  note: |
    a
streams: "{{ block_output('creds').streams }}"
"""
    shop = Preparing(tmp_path / "shop")
    source = shop.source(text, creds, domain=".test").spec
    assert source.config == {"host": "h.test", "port": 5432, "password": "hunter2x", "note": "a\n"}
    assert [entry.pattern for entry in source.streams.entries] == ["orders"]
    assert "hunter2x" not in shop.project.secrets.masker.mask("hunter2x")
    mage = Preparing(tmp_path / "mage", PLUGINS + "compat: mage\n")
    assert mage.source(text, creds, domain=".test").spec.config["note"] == "a"
    with pytest.raises(ConfigError) as found:
        shop.source(text.replace("'host'", "'hosts'"), creds, domain=".test")
    assert (found.value.code, found.value.where) == ("template.failed", "data_loaders/sync.yaml:4")


def test_a_decorators_typed_argument_is_explained(shop: Preparing) -> None:
    text = SOURCE + "\n@data_integration_catalog(discover: bool = False)\ndef catalog():\n    pass\n"
    assert "discover=" in (refusal(shop, "data_loader", text).hint or "")
