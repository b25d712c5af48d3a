"""What a plugin can do, asked without making it work."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from streamline.connectors.plugins import Plugin
from streamline.connectors.singer.capabilities import Capabilities, check_config, library, probe, tap_traits
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


OPEN = {"properties": {"path": {"type": ["null", "string"], "title": "a  folder"}, "token": {}}, "required": ["token"]}
STRICT = {**OPEN, "additionalProperties": False}


@pytest.mark.parametrize(
    ("settings", "config", "code", "name"),
    [
        (STRICT, {"token": 5}, None, ""),
        (STRICT, {"token": "", "path": None}, None, ""),
        (STRICT, {"token": "", "pth": "a"}, "setting.unknown", "'path'"),
        (STRICT, {"path": "a"}, "setting.missing", "'token'"),
        (STRICT, {"token": "", "path": 5}, "setting.invalid", "'path'"),
        (OPEN, {"pth": "a", "path": 5}, None, ""),
        ([{"name": "path"}], {"pth": "a"}, None, ""),
        (None, {"pth": "a"}, None, ""),
    ],
)
def test_settings_are_checked_where_the_plugin_lists_all(
    tmp_path: Path, settings: object, config: dict[str, object], code: str | None, name: str
) -> None:
    capabilities = Capabilities(about={} if settings is None else {"settings": settings})
    plugin = fakes.program(tmp_path, ["tap-x"])
    if code is None:
        check_config(plugin, config, capabilities, where="load.yaml")
        return
    with refuses(code, name, "load.yaml"):
        check_config(plugin, config, capabilities, where="load.yaml")


def test_settings_are_described_the_required_ones_first() -> None:
    def described(settings: object) -> list[tuple[str, str, bool, str]]:
        infos = Capabilities(about={"settings": settings}).described_settings()
        return [(info.name, info.type, info.required, info.description) for info in infos]

    assert described(OPEN) == [("token", "", True, ""), ("path", "string", False, "a folder")]
    listed = [{"name": "path", "kind": "file"}, {"name": "token", "type": ["integer", "string"], "required": True}]
    assert described(listed) == [("token", "integer or string", True, ""), ("path", "file", False, "")]


@pytest.mark.parametrize(("value", "most"), [(1, 1), (4, 4), (0, None), (-1, None), (True, None), ("4", None)])
def test_the_number_of_processes_is_positive(value: object, most: int | None) -> None:
    assert Capabilities(about={"max_processes": value}).max_processes == most


@pytest.mark.parametrize("name", ["multiple-bookmarks", "activate-version", "batch", "pipelinewise-batch"])
def test_a_capability_is_one_that_it_lists(name: str) -> None:
    for names, listed in ((frozenset({name}), True), (frozenset(), False)):
        assert getattr(Capabilities(names=names), name.replace("-", "_")) is listed


def test_the_sdk_is_known_by_its_version(tmp_path: Path) -> None:
    plugin = fakes.program(tmp_path, ["tap-x"], library="singer-python")
    assert library(plugin, Capabilities(about={"name": "tap-x"})) == "singer-python"
    for name in ("sdk_version", "singer_sdk_version"):
        assert library(plugin, Capabilities(about={name: "0.1"})) == "singer-sdk"


@pytest.mark.parametrize(("default", "method"), [("log based", "LOG_BASED"), ("SOMETIMES", None), (5, None)])
def test_a_default_method_counts_if_there_is_such_a_method(tmp_path: Path, default: object, method: str | None) -> None:
    config = {"default_replication_method": default}
    assert tap_traits(fakes.program(tmp_path, ["x"]), Capabilities(), config).default_replication_method == method
