"""What a plugin can do, asked without making it work."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from streamline.connectors.plugins import Plugin
from streamline.connectors.singer.capabilities import Capabilities, probe, tap_traits
from streamline.project.secrets import Masker
from streamline.state import open_store
from streamline.state.store import Store
from tests.support.failures import refuses

from . import fakes


@pytest.fixture
def store(tmp_path: Path):
    found = open_store("sqlite:///state.db", tmp_path)
    yield found
    found.close()


def ask(plugin: Plugin, store: Store | None = None) -> Capabilities:
    async def run() -> Capabilities:
        return await probe(plugin, store=store, masker=Masker())

    return anyio.run(run)


def test_the_help_of_a_tap_tells_its_options(tmp_path: Path) -> None:
    found = ask(fakes.tap(tmp_path, fakes.ECHO_CATALOG))
    assert (found.known, found.config, found.catalog_flags, found.state, found.discover) == (
        True,
        True,
        ("--catalog", "--properties"),
        True,
        True,
    )


def test_a_tap_that_reads_properties_only_gets_its_catalog_there(tmp_path: Path) -> None:
    found = ask(fakes.tap(tmp_path, fakes.PROPERTIES_ONLY))
    assert found.config
    assert found.catalog_flags == ("--properties",)


def test_a_tap_that_lists_both_options_gets_its_catalog_in_both(tmp_path: Path) -> None:
    """pipelinewise-tap-s3-csv lists `--catalog` in its help, reads `--properties` alone, and else moves nothing."""
    found = ask(fakes.tap(tmp_path, fakes.ECHO_CATALOG))
    assert found.config
    assert found.catalog_flags == ("--catalog", "--properties")


def test_a_tap_of_the_sdk_describes_itself(tmp_path: Path) -> None:
    plugin = fakes.tap(tmp_path, fakes.SDK_LIKE)
    found = ask(plugin)
    assert found.batch
    assert found.multiple_bookmarks
    assert not found.activate_version
    assert list(found.settings) == ["path"]
    traits = tap_traits(plugin, found, {"default_replication_method": "log based"})
    assert (traits.library, traits.default_replication_method) == ("singer-sdk", "LOG_BASED")


def test_a_plugin_is_asked_once_per_version(tmp_path: Path, store: Store) -> None:
    plugin = fakes.tap(tmp_path, fakes.SDK_LIKE)
    first = ask(plugin, store)
    assert ask(plugin, store) == first
    assert fakes.calls(tmp_path) == ["--help", "--about --format=json"]
    ask(fakes.tap(tmp_path, fakes.SDK_LIKE, fingerprint="2"), store)
    assert len(fakes.calls(tmp_path)) == 4


def test_a_program_that_starts_to_work_instead_is_stopped(tmp_path: Path) -> None:
    found = ask(fakes.tap(tmp_path, fakes.LINES + "import time; time.sleep(600)"))
    assert found == Capabilities()
    assert found.discover is None


def test_a_program_without_our_options_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("x")
    assert not ask(fakes.program(tmp_path, ["cat", "lines"])).known
    assert not ask(fakes.program(tmp_path, ["sh", "-c", "exit 3"])).known


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with refuses("plugin.not_started", "/no/such/tap"):
        ask(fakes.program(tmp_path, ["/no/such/tap"]))


@pytest.mark.parametrize("question", ["--help", "--about"])
def test_a_failure_is_asked_again(tmp_path: Path, store: Store, question: str) -> None:
    broken = f'import sys\nif "{question}" in sys.argv: sys.exit("usage: --config --about: no module named x")\n'
    assert not ask(fakes.tap(tmp_path, broken + fakes.SDK_LIKE), store).names
    assert "batch" in ask(fakes.tap(tmp_path, fakes.SDK_LIKE), store).names
