"""`streamline plugin`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Shop
from tests.project.wheels import make_wheel

TAP = """\
import argparse, json, sys
def main():
    parser = argparse.ArgumentParser()
    for name in ("config", "catalog", "state"):
        parser.add_argument("--" + name)
    parser.add_argument("--discover", action="store_true")
    parser.parse_args()
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A project, and wheels of a tap in two versions; nothing else can be installed."""
    root = tmp_path / "shop"
    root.mkdir()
    (root / "streamline.yaml").write_text("# ours\nname: shop  # the shop\n")
    for version in ("1.0", "2.0"):
        make_wheel(tmp_path / "wheels", "tap-a", version, scripts=["tap-a"], body=TAP)
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return Shop(root)


def settings(shop: Shop) -> str:
    return (shop.root / "streamline.yaml").read_text()


def test_add_declares_and_installs(shop: Shop) -> None:
    result = shop("plugin", "add", "tap-a", "--pip", "tap-a<2")
    assert "tap-a is installed: tap-a 1.0" in result.stdout
    assert settings(shop) == "# ours\nname: shop  # the shop\nplugins:\n  tap-a: {pip: tap-a<2}\n"
    row = next(row for row in shop.json("plugin", "list") if row["name"] == "tap-a")
    assert row == {"name": "tap-a", "kind": "pip", "source": "tap-a<2", "installed": True, "version": "1.0"}


def test_add_knows_every_key(shop: Shop) -> None:
    shop(
        *("plugin", "add", "tap-a", "--no-install", "--pip", "tap-a", "--pip", "b", "--executable", "x"),
        *("--override", "c>=2", "--python", "3.11", "--env", "A=b=c", "--pass-env", "AWS_*"),
    )
    shop("plugin", "add", "target-b", "--command", "python 'my b.py'")
    shop("plugin", "add", "tap-plain", "--no-install")
    from streamline.project.project import Project

    plugins = Project.open(shop.root).plugins
    entry = plugins["tap-a"]
    assert (entry.pip, entry.executable, entry.overrides, entry.python) == (["tap-a", "b"], "x", ["c>=2"], "3.11")
    assert (entry.env, entry.pass_env) == ({"A": "b=c"}, ["AWS_*"])
    assert plugins["target-b"].command == ["python", "my b.py"]
    assert plugins["tap-plain"].pip == ["tap-plain"]


def test_add_refuses(shop: Shop) -> None:
    shop("plugin", "add", "target-b", "--command", "sh")
    before = settings(shop)
    shop.refuses("plugin.exists", "plugin", "add", "target-b")
    shop.refuses("plugin.invalid", "plugin", "add", "../x")
    shop.refuses("plugin.invalid", "plugin", "add", "x", "--pip=--index-url=y")
    assert "NAME=VALUE" in shop.refuses("option.invalid", "plugin", "add", "x", "--env", "A")
    assert settings(shop) == before


def test_what_cannot_be_installed_is_not_declared(shop: Shop) -> None:
    before = settings(shop)
    assert "not-to-be-had" in shop.refuses("plugin.install_failed", "plugin", "add", "tap-x", "--pip", "not-to-be-had")
    assert settings(shop) == before


def test_remove_undoes_add(shop: Shop) -> None:
    shop("plugin", "add", "tap-a", "--pip", "tap-a<2")
    shop("plugin", "remove", "tap-a")
    assert "tap-a" not in settings(shop)
    assert "tap-a" not in (shop.root / "streamline.lock.yaml").read_text()
    assert not (shop.root / ".streamline/venvs/tap-a").exists()
    shop.refuses("plugin.unknown", "plugin", "remove", "tap-a")


def test_remove_names_the_blocks_that_still_use_it(shop: Shop) -> None:
    shop("plugin", "add", "tap-a", "--pip", "tap-a", "--no-install")
    shop.pipeline("shop", "load", "other")
    (shop.root / "data_loaders/load.yaml").write_text("source: a\n")
    assert shop("plugin", "remove", "tap-a").output.endswith("still used by data_loaders/load.yaml\n")


def test_install_all_and_upgrade(shop: Shop) -> None:
    shop("plugin", "add", "tap-a", "--pip", "tap-a", "--no-install")
    shop("plugin", "add", "target-b", "--command", "sh")
    (shop.root / "streamline.lock.yaml").write_text("plugins: {tap-a: {pip: [tap-a], packages: {tap-a: '1.0'}}}\n")
    assert "tap-a 1.0" in shop("plugin", "install").stdout
    assert "tap-a 2.0" in shop("plugin", "install", "--upgrade", "tap-a").stdout
    assert "has no environment" in shop("plugin", "install", "target-b").stdout
    assert "'tap-a'" in shop.refuses("plugin.unknown", "plugin", "install", "tap-b")


def test_install_goes_on_after_a_failure(shop: Shop) -> None:
    shop("plugin", "add", "tap-x", "--pip", "not-to-be-had", "--no-install")
    shop("plugin", "add", "tap-a", "--no-install")
    result = shop("plugin", "install", code=2)
    assert "tap-a is installed" in result.stdout
    assert "not-to-be-had" in result.stderr


def test_a_plugin_is_tried_out(shop: Shop) -> None:
    shop("plugin", "add", "tap-a", "--no-install")
    found = shop.json("plugin", "test", "tap-a")
    assert (found["role"], found["kind"], found["catalog"], found["state"]) == ("tap", "pip", ["--catalog"], True)
    assert "--catalog" in shop("plugin", "test", "tap-a").stdout
    shop("plugin", "add", "mask", "--command", "no-such-program-anywhere")
    assert "--role" in shop.refuses("option.missing", "plugin", "test", "mask")
    shop.refuses("plugin.program_missing", "plugin", "test", "mask", "--role", "mapper")


def test_a_program_that_says_nothing_fails_the_test(shop: Shop) -> None:
    shop("plugin", "add", "tap-b", "--command", "true")
    shop.refuses("plugin.no_capabilities", "plugin", "test", "tap-b", code=1)


def test_list_shows_what_comes_along(shop: Shop) -> None:
    rows = {row["name"]: row for row in shop.json("plugin", "list")}
    assert rows["tap-sqlite"]["kind"] == "builtin"
    assert "tap-sqlite" in shop("plugin", "list").stdout


def test_the_settings_of_a_plugin_are_listed(shop: Shop) -> None:
    rows = shop.json("plugin", "settings", "tap-sqlite")
    assert rows[0] == {
        "name": "path",
        "type": "string",
        "required": True,
        "default": None,
        "description": "the database file; it is opened for reading only",
    }
    assert {"name": "state_interval", "default": 10000}.items() <= rows[-2].items()
    assert "busy_timeout" in shop("plugin", "settings", "sqlite", "--role", "tap").stdout
    shop("plugin", "add", "tap-a", "--no-install")
    assert "lists no settings" in shop("plugin", "settings", "tap-a", code=1).stderr
