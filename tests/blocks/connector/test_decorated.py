"""Decorated functions of sources and destinations: their order, what they may return, when a source is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamline.blocks.connector.prepare import prepare
from streamline.blocks.connector.prepared import PreparedSource
from streamline.blocks.python.file import UserError
from streamline.connectors.singer.discovery import DiscoveryFailed
from streamline.errors import ConfigError
from streamline.outputs.frames import Frames
from streamline.state import project_store
from tests.blocks.call_inputs import Given
from tests.blocks.connector.preparing import DESTINATION, PLUGINS, SOURCE, Preparing

ASK = """
@data_integration_selected_streams(discover_streams=True)
def selected_streams(*args, **kwargs):
    kwargs['seen'].append(kwargs['selected_streams'])
"""


def names(prepared: PreparedSource) -> list[str]:
    """Return the streams that a source reads, [] for those that its catalog selects."""
    return [entry.pattern for entry in prepared.spec.streams.entries]


def test_functions_are_called_in_order_whatever_their_order_in_the_file(shop: Preparing) -> None:
    for role in ("source", "destination"):
        parts = [
            f"@data_integration_{name}\ndef f(*args, **kwargs):\n    kwargs['seen'].append('{name}')\n    {value}\n"
            for name, value in (
                ("catalog", "return None"),
                ("selected_streams", "return []"),
                ("config", "return {}"),
                (role, "return 'shop'"),
            )
        ]
        shop.prepare("data_loader" if role == "source" else "data_exporter", "\n".join(parts))
        assert shop.seen == [role, "config", "selected_streams", "catalog"]
        shop.seen.clear()


def test_a_function_changes_nothing_for_the_next_one(shop: Preparing) -> None:
    text = """
@data_integration_selected_streams
def selected_streams(*args, **kwargs):
    kwargs['config']['host'] = 'other'
    return ['orders']

@data_integration_catalog
def catalog(*args, **kwargs):
    kwargs['seen'].append(kwargs['config'])
    kwargs['selected_streams'].append('users')
"""
    prepared = shop.source(SOURCE + text)
    assert shop.seen == [prepared.spec.config] == [{"host": "localhost"}]
    assert names(prepared) == ["orders"]


def test_functions_may_be_async_and_ask_for_the_streams(shop: Preparing) -> None:
    text = """
@data_integration_catalog
async def catalog(*args, **kwargs):
    return kwargs['discover_func']()
"""
    catalog = shop.source(SOURCE + text).catalog
    assert catalog is not None
    assert [entry["stream"] for entry in catalog["streams"]] == ["orders", "users"]


def test_variables_are_there_where_no_keyword_argument_has_their_name(shop: Preparing) -> None:
    text = SOURCE.replace("return 'shop'", "return kwargs['source']").replace("'localhost'", "kwargs['source']")
    assert shop.source(text, source="tap-shop").spec.config == {"host": "tap-shop"}


def test_several_functions_with_one_decorator(tmp_path: Path) -> None:
    text = SOURCE + "\n@data_integration_config\ndef other(*args, **kwargs):\n    return {}\n"
    shop = Preparing(tmp_path / "shop")
    for refused in (shop.check, shop.prepare):
        with pytest.raises(ConfigError) as found:
            refused("data_loader", text)
        assert found.value.code == "block.function_ambiguous"
    mage = Preparing(tmp_path / "mage", PLUGINS + "compat: mage\n")
    mage.check("data_loader", text)
    assert mage.source(text).spec.config == {"host": "localhost"}
    assert len(mage.warned) == 1


def test_functions_can_be_imported_from_the_project(shop: Preparing) -> None:
    shop.write("utils/__init__.py", "")
    shop.write(
        "utils/shops.py",
        "from streamline.decorators import data_integration_config\n\n"
        "@data_integration_config\ndef config(*args, **kwargs):\n    return {'host': 'h'}\n",
    )
    text = SOURCE[: SOURCE.index("\n\n\n")] + "\n\nfrom utils.shops import config\n"
    shop.check("data_loader", text)


def test_decorators_can_have_other_names(shop: Preparing) -> None:
    text = "from streamline.decorators import data_integration_source as from_, data_integration_config as with_\n"
    text += SOURCE.replace("@data_integration_source", "@from_").replace("@data_integration_config", "@with_()")
    shop.check("data_loader", text)
    assert shop.source(text).spec.source == "shop"


def test_what_a_function_raises_is_its_own(shop: Preparing) -> None:
    with pytest.raises(UserError) as found:
        shop.source(SOURCE.replace("'localhost'", "args[0]"))
    assert found.value.where == "data_loaders/sync.py:8"


def test_a_name_without_a_plugin_is_refused_with_the_functions_line(shop: Preparing) -> None:
    for name, code in (("shopp", "plugin.unknown"), ("target-shop", "plugin.wrong_role")):
        with pytest.raises(ConfigError) as found:
            shop.source(SOURCE.replace("return 'shop'", f"return '{name}'.lower()"))
        assert (found.value.code, found.value.where) == (code, "data_loaders/sync.py:1")


def test_the_secrets_of_a_config_are_masked(shop: Preparing) -> None:
    shop.source(SOURCE.replace("'host': 'localhost'", "'auth': [{'password': 'hunter2x'}]"))
    assert "hunter2x" not in shop.project.secrets.masker.mask("tap: hunter2x is wrong")


def test_configs_in_projects_of_mage_have_the_plugins_keys_too(tmp_path: Path) -> None:
    mage = Preparing(tmp_path / "mage", "compat: mage\nplugins: {tap-postgres: {command: [python, tap.py]}}\n")
    text = SOURCE.replace("'shop'", "'postgresql'").replace("'host'", "'database'")
    seen = text + ASK.replace("(discover_streams=True)", "").replace("'selected_streams'", "'config'")
    assert mage.source(seen).spec.config == {"database": "localhost", "dbname": "localhost"}
    assert mage.seen == [{"database": "localhost"}]


# -- asking the source


def test_a_source_that_fails_is_the_error_whoever_asked(shop: Preparing) -> None:
    down = SOURCE.replace("'host': 'localhost'", "'down': True")
    calls = ASK.replace("(discover_streams=True)", "").replace("['selected_streams']", "['discover_streams_func']()")
    for text in (ASK, calls):
        with pytest.raises(DiscoveryFailed) as found:
            shop.source(down + text)
        assert found.value.where == "data_loaders/sync.py"
        assert any("the database is down" in line for line in shop.logged)


def test_a_function_may_go_on_without_the_source(shop: Preparing) -> None:
    text = """
@data_integration_catalog
def catalog(*args, **kwargs):
    for _ in range(2):
        try:
            return kwargs['discover_func']()
        except Exception as error:
            kwargs['seen'].append(error)
"""
    prepared = shop.source(SOURCE.replace("'host': 'localhost'", "'down': True") + text)
    assert (prepared.catalog, prepared.discovered) == (None, None)
    assert [type(error) for error in shop.seen] == [DiscoveryFailed, DiscoveryFailed]
    assert shop.asked.count("--discover") == 1


def test_a_token_that_is_rotated_by_discovery_is_kept(shop: Preparing) -> None:
    text = SOURCE.replace("'host': 'localhost'", "'rotate': 'new', 'token': 'old'")
    assert shop.source(text + ASK).spec.config["token"] == "old"
    with project_store(shop.project) as store:
        assert store.plugin_secrets("p", "sync")["token"].value == '"new"'


def test_nothing_private_stays(shop: Preparing) -> None:
    shop.source(SOURCE + ASK)
    assert [path for path in shop.scratches.rglob("*") if path.is_file()] == []


def test_a_tap_without_discovery(shop: Preparing) -> None:
    shop.write("streamline.yaml", PLUGINS + "  tap-plain: {command: [python, plain.py]}\n")
    shop.write("plain.py", "print('usage: plain --config --catalog --state')\n")
    shop = Preparing(shop.root, (shop.root / "streamline.yaml").read_text())
    text = SOURCE.replace("'shop'", "'plain'") + ASK
    with pytest.raises(ConfigError) as found:
        shop.source(text)
    assert found.value.code == "tap.no_discovery"
    shop.catalog({"streams": [{"tap_stream_id": "lines", "schema": {}}]})
    assert shop.source(text).discovered is None
    assert shop.seen == [["lines"]]


# -- streams and catalogs

RETURNS = """
@data_integration_{name}
def f(*args, **kwargs):
    return {value}
"""


def test_names_are_the_blocks_streams(shop: Preparing) -> None:
    prepared = shop.source(SOURCE + RETURNS.format(name="selected_streams", value="('users', 'orders', 'users')"))
    assert names(prepared) == ["users", "orders"]
    assert prepared.spec.streams.entries[0].where == "data_loaders/sync.py:10"


def test_no_names_are_as_no_function(shop: Preparing) -> None:
    for value in ("[]", "None", "()"):
        prepared = shop.source(SOURCE + RETURNS.format(name="selected_streams", value=value))
        assert names(prepared) == []


def test_a_name_that_the_source_does_not_have(shop: Preparing) -> None:
    text = SOURCE + RETURNS.format(name="selected_streams(discover_streams=True)", value="['order']")
    with pytest.raises(ConfigError) as found:
        shop.source(text)
    assert (found.value.code, found.value.where) == ("stream.unknown", "data_loaders/sync.py:10")
    assert "'orders'" in (found.value.hint or "")


def test_a_catalog_overrides(shop: Preparing) -> None:
    value = "{'streams': [{'tap_stream_id': 'orders', 'replication_method': 'INCREMENTAL'}]}"
    prepared = shop.source(SOURCE + RETURNS.format(name="catalog", value=value))
    assert prepared.catalog is not None
    (entry,) = prepared.catalog["streams"]
    assert entry["replication_method"] == "INCREMENTAL"
    assert "schema" not in entry  # the source's is taken
    assert prepared.catalog_where == "data_loaders/sync.py:10"


def test_a_catalog_without_streams_overrides_nothing(shop: Preparing) -> None:
    for value in ("None", "{'streams': []}", "{'catalog': {'streams': []}}"):
        assert shop.source(SOURCE + RETURNS.format(name="catalog", value=value)).catalog is None


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("[]", "block.wrong_return"),
        ("{'stream': 'orders'}", "block.wrong_return"),
        ("{'streams': {'orders': {}}}", "catalog.invalid"),
        ("{'streams': [{'schema': {}}]}", "catalog.invalid"),
        ("{'streams': [{'stream': 'a'}, {'stream': 'a'}]}", "catalog.invalid"),
        ("{'streams': [{'stream': 'a', 'schema': {'a': {1}}}]}", "block.wrong_return"),
    ],
)
def test_a_catalog_that_is_none(shop: Preparing, value: str, code: str) -> None:
    for type, text in (("data_loader", SOURCE), ("data_exporter", DESTINATION)):
        with pytest.raises(ConfigError) as found:
            shop.prepare(type, text + RETURNS.format(name="catalog", value=value))
        assert (found.value.code, found.value.where) == (code, f"{type}s/sync.py:10")


def test_an_entry_without_a_schema_of_a_stream_that_does_not_exist(shop: Preparing) -> None:
    text = SOURCE + RETURNS.format(name="catalog(discover=True)", value="{'streams': [{'stream': 'order'}]}")
    with pytest.raises(ConfigError) as found:
        shop.source(text)
    assert (found.value.code, found.value.where) == ("stream.unknown", "data_loaders/sync.py:10")


EDIT = """
@data_integration_catalog(discover=True, select_all={select_all})
def catalog(*args, **kwargs):
    streams = {{stream['stream']: stream for stream in kwargs['catalog']['streams']}}
    orders = streams['orders']
    {edit}
    return {{'streams': list(streams.values())}}
"""
ROOT = "orders['metadata'][0]['metadata']"


@pytest.mark.parametrize(
    ("select_all", "marks", "edit", "selected"),
    [
        (True, "{}", "pass", ["orders", "users"]),
        (True, '{"selected": false}', "pass", ["orders", "users"]),
        (True, '{"selected-by-default": false}', "pass", ["orders", "users"]),
        (True, '{"inclusion": "unsupported", "selected": false}', "pass", []),
        (True, "{}", f"{ROOT}['selected'] = False", ["users"]),
        (True, "{}", "orders['selected'] = False", ["users"]),
        (True, "{}", "orders['schema']['selected'] = False", ["users"]),
        (True, "{}", "del streams['users']", ["orders"]),
        (True, "{}", "orders['metadata'] = []", ["orders", "users"]),
        (False, "{}", "pass", []),
        (False, '{"selected": true}', "pass", []),
        (False, "{}", f"{ROOT}['selected'] = True", ["orders"]),
        (False, '{"selected": false}', "orders['selected'] = True", ["orders"]),
        (False, "{}", "orders['schema']['selected'] = True", ["orders"]),
        (False, "{}", "orders['metadata'] = [{'breadcrumb': (), 'metadata': {'selected': True}}]", ["orders"]),
    ],
)
def test_select_all(shop: Preparing, select_all: bool, marks: str, edit: str, selected: list[str]) -> None:
    text = SOURCE.replace("'host': 'localhost'", f"'marks': '{marks}'")
    catalog = shop.source(text + EDIT.format(select_all=select_all, edit=edit)).catalog
    assert catalog is not None
    roots = {entry["stream"]: entry["metadata"][0]["metadata"] for entry in catalog["streams"]}
    assert [name for name, root in roots.items() if root["selected"]] == selected


def test_a_catalog_may_deselect_what_was_named(shop: Preparing) -> None:
    named = RETURNS.format(name="selected_streams", value="['orders', 'users']")
    for edit, selected in (("orders['selected'] = False", ["users"]), ("pass", ["orders", "users"])):
        prepared = shop.source(SOURCE + named + EDIT.format(select_all=False, edit=edit))
        assert names(prepared) == selected
    edit = "orders['selected'] = streams['users']['selected'] = False"
    with pytest.raises(ConfigError) as found:
        shop.source(SOURCE + named + EDIT.format(select_all=True, edit=edit))
    assert (found.value.code, found.value.where) == ("stream.none_selected", "data_loaders/sync.py:10")


def test_a_destination_exports_the_streams_that_are_named(shop: Preparing) -> None:
    entries = "[{'stream': n, 'metadata': [{'breadcrumb': [], 'metadata': {'selected': True}}]} for n in ('a', 'b')]"
    text = DESTINATION + RETURNS.format(name="selected_streams", value="['a']")
    prepared = shop.destination(text + RETURNS.format(name="catalog", value=f"{{'streams': {entries}}}"))
    assert [entry.pattern for entry in prepared.spec.streams.entries] == ["a"]
    assert prepared.spec.streams.entries[0].where == "data_exporters/sync.py:10"
    assert prepared.catalog is not None
    marks = [entry["metadata"][0]["metadata"]["selected"] for entry in prepared.catalog["streams"]]
    assert marks == [True, False]


def test_the_catalog_of_a_destination_is_laid_over_its_file(shop: Preparing) -> None:
    def table_of(prepared: Any) -> Any:
        return [(entry["stream"], entry.get("destination_table")) for entry in prepared.catalog["streams"]]

    shop.catalog({"streams": [{"stream": "orders", "destination_table": "o", "schema": {}}]})
    assert table_of(shop.destination()) == [("orders", "o")]
    assert table_of(shop.destination("destination: shop\n")) == [("orders", "o")]
    value = "{'streams': [{'stream': 'orders'}, {'stream': 'users', 'destination_table': 'u', 'schema': {}}]}"
    text = DESTINATION + RETURNS.format(name="catalog", value=value)
    assert table_of(shop.destination(text)) == [("orders", "o"), ("users", "u")]


def test_a_kept_catalog_is_used_until_a_new_one_is_asked_for(shop: Preparing) -> None:
    model = shop.pipeline("data_loader", SOURCE + ASK, [])
    for refresh, asked in ((False, 1), (False, 1), (True, 2)):
        call = shop.call(model.blocks["sync"], variables={"seen": shop.seen})
        call.refresh = refresh
        prepare(call)
        assert shop.asked.count("--discover") == asked


def test_an_output_that_no_function_reads_is_not_loaded(shop: Preparing) -> None:
    class Unread(Given):
        def value(self, frames: Frames | None = None) -> Any:
            raise AssertionError("it was loaded")

    for text, prepared in ((SOURCE, shop.source), (DESTINATION, shop.destination)):
        prepared(text, Unread("orders", None))
        with pytest.raises(AssertionError, match="it was loaded"):
            prepared(text.replace("return {'host'", "args\n    return {'host'"), Unread("orders", None))


def test_functions_annotated_as_in_mages_documentation_need_no_import(shop: Preparing) -> None:
    functions = """
@data_integration_selected_streams(discover_streams = False)
def selected_streams(*args, **kwargs) -> List[str]:
    config: Dict = kwargs.get('config', None)
    discover_streams_func: Callable = kwargs.get('discover_streams_func', None)
    return discover_streams_func()


@data_integration_catalog(discover = False, select_all = True)
def catalog(*args, **kwargs) -> Dict:
    return {'streams': []}
"""
    assert "orders" in names(shop.source(SOURCE + functions))
