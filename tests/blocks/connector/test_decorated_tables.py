"""The tables about decorated functions of sources and destinations: one test per row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from streamline.blocks.connector.prepared import PreparedDestination, PreparedSource
from streamline.errors import ConfigError
from tests.blocks.connector.preparing import DESTINATION, SOURCE, Preparing

CODE = {"data_loader": SOURCE, "data_exporter": DESTINATION}
ROLES = {"data_loader": "source", "data_exporter": "destination"}

# The functions that are optional; each puts its keyword arguments into `seen`.
SELECTED = """
@data_integration_selected_streams{arguments}
def selected_streams(*args, **kwargs):
    kwargs['seen'].append(kwargs)
    return ['orders']
"""
CATALOG = """
@data_integration_catalog{arguments}
def catalog(*args, **kwargs):
    kwargs['seen'].append(kwargs)
"""
CONFIG = """
@data_integration_{role}
def name(*args, **kwargs):
    return 'shop'

@data_integration_config
def config(*args, **kwargs):
    kwargs['seen'].append(kwargs)
    return {{'host': 'h'}}
"""


FUNCTIONS = {
    "source": "@data_integration_source\ndef f(*args, **kwargs) -> str:\n    return 'shop'\n",
    "destination": "@data_integration_destination\ndef f(*args, **kwargs) -> str:\n    return 'shop'\n",
    "config": "@data_integration_config\ndef f(*args, **kwargs):\n    return {'host': 'h'}\n",
    "selected": "@data_integration_selected_streams\ndef f(*args, **kwargs):\n    return ['o']\n",
    "catalog": "@data_integration_catalog\ndef f(*a, **k):\n    return {'streams': [{'stream': 'o', 'schema': {}}]}\n",
}
VALUES = {"source": "shop", "destination": "shop", "config": {"host": "h"}, "selected": ["o"], "catalog": ["o"]}


# what a decorated function gives, for which block, whether it is required
@pytest.mark.parametrize(
    ("what", "type", "required"),
    [
        ("source", "data_loader", True),
        ("destination", "data_exporter", True),
        ("config", "data_loader", True),
        ("config", "data_exporter", True),
        ("selected", "data_loader", False),
        ("selected", "data_exporter", False),
        ("catalog", "data_loader", False),
        ("catalog", "data_exporter", False),
    ],
)
def test_decorators(shop: Preparing, what: str, type: str, required: bool) -> None:
    decorator = FUNCTIONS[what].partition("\n")[0]
    others = [part for part in CODE[type].split("\n\n\n") if decorator not in part]
    for text in (FUNCTIONS[what], FUNCTIONS[what].replace(decorator, f"{decorator}()")):
        assert _taken(shop.prepare(type, "\n\n\n".join([*others, text])), what) == VALUES[what]
    without = "\n\n\n".join(others)
    if not required:
        assert not _taken(shop.prepare(type, without), what)
        return
    for refused in (partial(shop.check, type, without, "a"), partial(shop.prepare, type, without)):
        with pytest.raises(ConfigError) as found:
            refused()
        assert (found.value.code, found.value.exit_code) == ("block.function_missing", 2)


def _taken(prepared: PreparedSource | PreparedDestination, what: str) -> Any:
    if what == "catalog":
        return [entry["stream"] for entry in (prepared.catalog or {"streams": []})["streams"]]
    if what == "selected":
        return [entry.pattern for entry in prepared.spec.streams.entries]
    return getattr(prepared.spec, what)


# function, keyword, type, where available, the argument that it depends on
S, D = "data_loader", "data_exporter"
KEYWORDS: list[tuple[str, str, Callable[[Any], bool], tuple[str, ...], str]] = [
    (CONFIG, "source", lambda v: v == "shop", (S,), ""),
    (CONFIG, "destination", lambda v: v == "shop", (D,), ""),
    (SELECTED, "source", lambda v: v == "shop", (S,), ""),
    (SELECTED, "destination", lambda v: v == "shop", (D,), ""),
    (SELECTED, "config", lambda v: v == {"host": "localhost"}, (S, D), ""),
    (SELECTED, "selected_streams", lambda v: v == ["orders", "users"], (S,), "discover_streams"),
    (SELECTED, "discover_streams_func", lambda v: v() == ["orders", "users"], (S,), ""),
    (CATALOG, "source", lambda v: v == "shop", (S,), ""),
    (CATALOG, "destination", lambda v: v == "shop", (D,), ""),
    (CATALOG, "config", lambda v: v == {"host": "localhost"}, (S, D), ""),
    (SELECTED + CATALOG, "selected_streams", lambda v: v == ["orders"], (S, D), ""),
    (CATALOG, "catalog", lambda v: [one["stream"] for one in v["streams"]] == ["orders", "users"], (S,), "discover"),
    (CATALOG, "discover_func", lambda v: [one["stream"] for one in v()["streams"]] == ["orders", "users"], (S,), ""),
]


@pytest.mark.parametrize(("function", "keyword", "right", "available", "argument"), KEYWORDS)
@pytest.mark.parametrize("type", [S, D])
def test_keyword_arguments(
    shop: Preparing,
    type: str,
    function: str,
    keyword: str,
    right: Callable[[Any], bool],
    available: tuple[str, ...],
    argument: str,
) -> None:
    start = "" if function is CONFIG else CODE[type]
    arguments = f"({argument}=True)" if argument and type in available else ""
    shop.prepare(type, start + function.format(role=ROLES[type], arguments=arguments), day="2026-01-01")
    given = shop.seen[-1]
    assert given["day"] == "2026-01-01"
    if type not in available:
        assert keyword not in given
        return
    assert right(given[keyword])
    if argument:  # None unless it is asked for
        shop.prepare(type, start + function.format(role=ROLES[type], arguments=""))
        assert shop.seen[-1][keyword] is None


# decorator argument, its values, where available
@pytest.mark.parametrize(
    ("decorator", "argument", "default"),
    [
        ("data_integration_selected_streams", "discover_streams", False),
        ("data_integration_catalog", "discover", False),
        ("data_integration_catalog", "select_all", True),
    ],
)
class TestArguments:
    def test_both_values_are_for_sources(self, shop: Preparing, decorator: str, argument: str, default: bool) -> None:
        for value in (True, False):
            text = SOURCE + f"\n@{decorator}({argument}={value})\ndef f(*args, **kwargs): ...\n"
            shop.check("data_loader", text)
            shop.source(text)

    def test_destinations_have_the_default(self, shop: Preparing, decorator: str, argument: str, default: bool) -> None:
        text = DESTINATION + f"\n@{decorator}({argument}={default})\ndef f(*args, **kwargs): ...\n"
        shop.check("data_exporter", text, "a")
        shop.destination(text)
        text = text.replace(f"={default}", f"={not default}")
        refusals = (partial(shop.check, "data_exporter", text, "a"), partial(shop.prepare, "data_exporter", text))
        for refused in refusals:
            with pytest.raises(ConfigError) as found:
                refused()
            assert found.value.code == "setting.invalid"
            assert found.value.where == "data_exporters/sync.py:10"

    @pytest.mark.parametrize("value", ["'yes'", "1", "None"])
    def test_other_values(self, shop: Preparing, decorator: str, argument: str, default: bool, value: str) -> None:
        text = SOURCE + f"\n@{decorator}({argument}={value})\ndef f(*args, **kwargs): ...\n"
        for refused in (shop.check, shop.prepare):
            with pytest.raises(ConfigError) as found:
                refused("data_loader", text)
            assert (found.value.code, found.value.where) == ("setting.invalid", "data_loaders/sync.py:10")

    def test_other_arguments(self, shop: Preparing, decorator: str, argument: str, default: bool) -> None:
        text = SOURCE + f"\n@{decorator}({argument}s=True)\ndef f(*args, **kwargs): ...\n"
        for refused in (shop.check, shop.prepare):
            with pytest.raises(ConfigError) as found:
                refused("data_loader", text)
            assert found.value.code == "setting.unknown"
            assert argument in (found.value.hint or "")


def test_nothing_is_discovered_unless_it_is_asked_for(shop: Preparing) -> None:
    text = SOURCE + (SELECTED + CATALOG).format(arguments="")
    assert shop.source(text).discovered is None
    assert shop.asked == []


@pytest.mark.parametrize(
    ("selected", "catalog"),
    [
        ("(discover_streams=True)", "(discover=True)"),
        ("(True)", "(True, False)"),
        ("", "(discover=True, select_all=True)"),
        ("(discover_streams=True)", ""),
    ],
)
def test_a_source_is_discovered_once(shop: Preparing, selected: str, catalog: str) -> None:
    calls = "    kwargs['discover_streams_func'](), kwargs['discover_streams_func']()\n"
    text = SOURCE + SELECTED.format(arguments=selected).replace("    return", f"{calls}    return")
    prepared = shop.source(text + CATALOG.format(arguments=catalog) + "    kwargs['discover_func']()\n")
    assert shop.asked.count("--discover") == 1
    assert prepared.discovered is not None
    assert [entry["stream"] for entry in prepared.discovered["streams"]] == ["orders", "users"]
