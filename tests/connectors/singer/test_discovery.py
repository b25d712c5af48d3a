"""Catalogs, from taps that discover them in every way they do, and kept until something changes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamline.connectors.plugins import Plugin
from streamline.connectors.singer.capabilities import cached_capabilities, probe
from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.discovery import (
    Discovered,
    Discovery,
    find_catalog,
    read_catalog_file,
)
from streamline.connectors.singer.settings import parse_streams
from streamline.errors import ConfigError
from streamline.project.secrets import Masker
from streamline.state import open_store
from streamline.state.store import Store
from tests.support.failures import fails, refuses

from . import fakes

SECRET = "hunter2-very-secret"


@pytest.fixture
def store(tmp_path: Path):
    found = open_store("sqlite:///state.db", tmp_path)
    yield found
    found.close()


def discover(
    plugin: Plugin,
    store: Store | None = None,
    *over: Catalog,
    config: dict[str, Any] | None = None,
    refresh: bool = False,
    **more: Any,
) -> Discovered:
    run_dir = Path(plugin.cwd) / "run"
    run_dir.mkdir(mode=0o700, exist_ok=True)
    masker = Masker()
    masker.add_config({"password": SECRET})

    async def run() -> Discovered:
        capabilities = await probe(plugin, store=store, masker=masker)
        discovery = Discovery(
            plugin,
            config if config is not None else {"path": "x"},
            capabilities=capabilities,
            store=store,
            run_dir=run_dir,
            masker=masker,
            **more,
        )
        return await discovery.catalog(*over, refresh=refresh)

    found = anyio.run(run)
    assert list(run_dir.iterdir()) == []
    return found


def streams(found: Discovered) -> list[str] | None:
    return None if found.catalog is None else [stream.id for stream in found.catalog]


def test_a_catalog_is_discovered_and_kept(tmp_path: Path, store: Store) -> None:
    plugin = fakes.tap(tmp_path, fakes.ECHO_CATALOG)
    assert streams(discover(plugin, store)) == ["users"]
    found = discover(plugin, store)
    assert found.cached
    assert streams(found) == ["users"]
    assert fakes.calls(tmp_path) == ["--help", "--about --format=json", "--config --discover"]


def test_it_is_discovered_again_when_config_plugin_or_settings_change(tmp_path: Path, store: Store) -> None:
    plugin = fakes.tap(tmp_path, fakes.ECHO_CATALOG)
    assert not discover(plugin, store).cached
    assert not discover(plugin, store, config={"path": "y"}).cached
    assert not discover(plugin, store, streams=parse_streams({"users": {}}, "source")).cached
    assert not discover(plugin, store, refresh=True).cached
    assert not discover(fakes.tap(tmp_path, fakes.ECHO_CATALOG, fingerprint="2"), store).cached
    assert discover(plugin, store).cached


def test_a_catalog_that_has_changed_is_kept(tmp_path: Path, store: Store) -> None:
    plugin = fakes.tap(tmp_path, fakes.ECHO_CATALOG)
    discover(plugin, store)
    fakes.tap(tmp_path, fakes.ECHO_CATALOG.replace("'users'", "'accounts'"))
    found = discover(plugin, store, refresh=True)
    assert (streams(found), bool(found.changes)) == (["accounts"], True)
    assert streams(discover(plugin, store)) == ["accounts"]


def test_no_config_is_kept_in_the_store(tmp_path: Path, store: Store) -> None:
    discover(fakes.tap(tmp_path, fakes.ECHO_CATALOG), store, config={"password": SECRET})
    store.close()
    dump = "\n".join(sqlite3.connect(tmp_path / "state.db").iterdump())
    assert "users" in dump
    assert SECRET not in dump


@pytest.mark.parametrize(
    "text",
    [
        "Connecting ...\n" + fakes.CATALOG_TEXT + "\nDone {ok}\n",
        '{"level": "info", "msg": "start"}\n{not json}\n  ' + fakes.CATALOG_TEXT,
        fakes.CATALOG_TEXT.replace('"integer"', '"integer", "default": NaN'),
        "\n\n" + fakes.CATALOG_TEXT.replace("{", "{\n", 3) + "\n",
    ],
)
def test_noise_around_a_catalog_is_ignored(tmp_path: Path, text: str) -> None:
    assert streams(discover(fakes.tap(tmp_path, fakes.catalog_code(text)))) == ["users"]


def test_a_failing_discovery_says_what_the_tap_said_without_secrets(tmp_path: Path) -> None:
    code = fakes.ARGPARSE + f"sys.stderr.write('cannot log in as reader:{SECRET}\\n'); sys.exit(7)\n"
    with fails("tap.discovery_failed", "tap-shop", "code 7", "cannot log in as reader") as failure:
        discover(fakes.tap(tmp_path, code, "tap-shop"))
    assert SECRET not in str(failure.value)


def test_a_discovery_without_a_key_of_the_config_is_not_tried_again(tmp_path: Path) -> None:
    code = fakes.ARGPARSE + "raise Exception(\"Config is missing required keys: ['host']\")\n"
    with pytest.raises(ConfigError) as error:
        discover(fakes.tap(tmp_path, code))
    assert error.value.code == "tap.config_refused"
    assert str(error.value).splitlines()[1] == "  Exception: Config is missing required keys: ['host']"


def test_a_discovery_that_prints_no_catalog(tmp_path: Path) -> None:
    with fails("tap.discovery_failed", "printed no catalog"):
        discover(fakes.tap(tmp_path, fakes.catalog_code("hello {}\n")))
    with refuses("catalog.invalid", "tap_stream_id"):
        discover(fakes.tap(tmp_path, fakes.catalog_code('{"streams": [{}]}')))


def test_a_discovery_that_never_ends(tmp_path: Path) -> None:
    code = fakes.ARGPARSE + "import time; time.sleep(600)\n"
    with fails("tap.discovery_failed", "1 s"):
        discover(fakes.tap(tmp_path, code), timeout=1.0)


def test_a_tap_that_reads_properties_only_is_discovered(tmp_path: Path) -> None:
    found = discover(fakes.tap(tmp_path, fakes.PROPERTIES_ONLY))
    assert streams(found) == ["users"]
    assert found.capabilities.catalog_flags == ("--properties",)


def test_a_tap_without_discovery_runs_without_a_catalog(tmp_path: Path, store: Store) -> None:
    found = discover(fakes.tap(tmp_path, fakes.NO_DISCOVERY), store)
    assert streams(found) is None
    assert "--config --discover" not in fakes.calls(tmp_path)


def test_a_tap_that_looks_at_no_argument_is_not_made_to_work(tmp_path: Path, store: Store) -> None:
    plugin = fakes.tap(tmp_path, fakes.LINES + "import time; time.sleep(600)")
    for _ in range(2):
        found = discover(plugin, store)
        assert streams(found) is None
        assert found.capabilities.config
        assert found.capabilities.state


def test_a_program_that_refuses_our_options_is_run_without_them(tmp_path: Path, store: Store) -> None:
    (tmp_path / "lines").write_text('{"type": "RECORD", "stream": "a", "record": {}}\n')
    found = discover(fakes.program(tmp_path, ["cat", "lines"]), store)
    assert streams(found) is None
    assert not (found.capabilities.config)
    assert not (found.capabilities.catalog_flags)
    assert not (found.capabilities.state)


def test_a_hand_written_tap_is_tried(tmp_path: Path, store: Store) -> None:
    plugin = fakes.tap(tmp_path, f"import sys\nif '--discover' in sys.argv: print({fakes.CATALOG_TEXT!r})\n")
    for found in (discover(plugin), discover(plugin, store)):
        assert streams(found) == ["users"]
        assert found.capabilities.discover is True
    assert cached_capabilities(plugin, store) == found.capabilities


def test_schemas_of_a_run_are_compared_with_a_catalog_that_is_kept_and_costs_something(
    tmp_path: Path, store: Store
) -> None:
    plugin = fakes.tap(tmp_path, fakes.ECHO_CATALOG)
    cheap = fakes.tap(tmp_path, fakes.ECHO_CATALOG, cheap_discovery=True)
    watched = [discover(*given).watch is not None for given in ((plugin,), (plugin, store), (cheap, store))]
    assert watched == [False, True, False]


def test_a_full_catalog_file_spares_the_discovery(tmp_path: Path) -> None:
    over = Catalog({"streams": [{"tap_stream_id": "mine", "schema": {"properties": {}}}]})
    plugin = fakes.tap(tmp_path, fakes.ECHO_CATALOG)
    assert streams(discover(plugin, None, over)) == ["mine"]
    assert "--config --discover" not in fakes.calls(tmp_path)


def test_a_catalog_file_without_schemas_takes_those_discovered(tmp_path: Path) -> None:
    over = Catalog({"streams": [{"tap_stream_id": "users", "replication_method": "FULL_TABLE"}]})
    found = discover(fakes.tap(tmp_path, fakes.ECHO_CATALOG), None, over)
    assert found.catalog is not None
    assert list(found.catalog.require("users").properties) == ["id", "name"]
    assert found.catalog.require("users").replication_method == "FULL_TABLE"


@pytest.mark.parametrize(
    ("written", "handed_over"),
    [("{**CONFIG, 'token': 'new'}", [{"token": "new", "x": 1}]), ("CONFIG, indent=8", []), ("[CONFIG]", [])],
)
def test_a_rotated_token_is_handed_over(tmp_path: Path, written: str, handed_over: list[object]) -> None:
    code = fakes.ECHO_CATALOG + f"pathlib.Path(args.config).write_text(json.dumps({written}))\n"
    changed: list[dict[str, Any]] = []
    discover(fakes.tap(tmp_path, code), config={"token": "old", "x": 1}, config_changed=changed.append)
    assert changed == handed_over


def test_the_config_file_is_private_while_it_exists(tmp_path: Path) -> None:
    code = fakes.ECHO_CATALOG + "sys.stderr.write(oct(os.stat(args.config).st_mode & 0o777)); sys.exit(1)\n"
    with fails("tap.discovery_failed", "0o600"):
        discover(fakes.tap(tmp_path, code))


def test_catalog_files(tmp_path: Path) -> None:
    path = tmp_path / "catalog.json"
    assert read_catalog_file(path) is None
    path.write_text('{"streams": [{"tap_stream_id": "a"}]}')
    found = read_catalog_file(path)
    assert found is not None
    assert [stream.id for stream in found] == ["a"]
    path.write_text('{"streams": [')
    with refuses("catalog.invalid", "load/catalog.json"):
        read_catalog_file(path, shown="load/catalog.json")


def test_no_catalog_in_nothing() -> None:
    assert find_catalog(b"") is None
    assert find_catalog(b"\xff{") is None


def test_a_pipe_in_place_of_the_config_file_is_not_read(tmp_path: Path) -> None:
    code = fakes.ECHO_CATALOG + "os.unlink(args.config); os.mkfifo(args.config)\n"
    changed: list[dict[str, Any]] = []
    discover(fakes.tap(tmp_path, code), config={"token": "old"}, config_changed=changed.append)
    assert changed == []
