"""Plugins' environments: made once, locked, re-made when they should be something else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamline.connectors.plugins import Plugin, resolve_plugin
from streamline.errors import ConfigError
from streamline.project import environments
from streamline.project.project import Project
from tests.project.wheels import make_wheel
from tests.support.failures import refuses
from tests.support.opened_project import MakeProject


@pytest.fixture(autouse=True)
def only_local_wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """uv finds packages in one folder and nowhere else."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return wheels


def output(plugin: Plugin, *arguments: str) -> str:
    done = subprocess.run([*plugin.argv, *arguments], env=plugin.env, cwd=plugin.cwd, capture_output=True, check=True)
    return done.stdout.decode().strip()


def lock(project: Project) -> dict[str, dict[str, object]]:
    loaded = yaml.safe_load((project.root / "streamline.lock.yaml").read_text())
    assert isinstance(loaded, dict)
    plugins = loaded["plugins"]
    assert isinstance(plugins, dict)
    return plugins


def reopened(project: Project, settings: str | None = None) -> Project:
    if settings is not None:
        (project.root / "streamline.yaml").write_text(settings)
    return Project.open(project.root)


def without_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise AssertionError("uv was asked for")

    monkeypatch.setattr(environments, "uv_program", fail)


def test_made_on_first_use_and_then_only_found(
    new_project: MakeProject, only_local_wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(only_local_wheels, "singer-python", "6.1")
    make_wheel(only_local_wheels, "shop-connectors", scripts=["tap-shop", "other"], requires=["singer-python"])
    project = new_project("plugins:\n  tap-shop: {pip: shop-connectors}\n")
    told: list[str] = []
    plugin = resolve_plugin(project, "shop", "tap", notify=told.append)
    assert output(plugin, "--about") == "shop-connectors 1.0 --about"
    assert told == ["installing tap-shop (shop-connectors)"]
    assert (plugin.kind, plugin.library) == ("pip", "singer-python")
    assert lock(project) == {
        "tap-shop": {"pip": ["shop-connectors"], "packages": {"shop-connectors": "1.0", "singer-python": "6.1"}}
    }
    without_uv(monkeypatch)
    again = resolve_plugin(reopened(project), "tap-shop", "tap", notify=told.append)
    assert (again.argv, again.fingerprint) == (plugin.argv, plugin.fingerprint)
    assert len(told) == 1


def test_private_and_named_by_the_plugin(new_project: MakeProject, only_local_wheels: Path) -> None:
    make_wheel(only_local_wheels, "tap-a", scripts=["tap-a"])
    project = new_project("plugins:\n  tap-a: {pip: tap-a}\n")
    resolve_plugin(project, "tap-a", "tap")
    assert (project.root / ".streamline/venvs/tap-a/bin/python").exists()
    assert (project.root / ".streamline").stat().st_mode & 0o777 == 0o700


def test_remade_when_the_requirement_changes(new_project: MakeProject, only_local_wheels: Path) -> None:
    make_wheel(only_local_wheels, "tap-a", "1.0", scripts=["tap-a"])
    make_wheel(only_local_wheels, "tap-a", "2.0", scripts=["tap-a"])
    project = new_project('plugins:\n  tap-a: {pip: "tap-a<2"}\n')
    first = resolve_plugin(project, "tap-a", "tap")
    second = resolve_plugin(reopened(project, 'plugins:\n  tap-a: {pip: "tap-a>=2"}\n'), "tap-a", "tap")
    assert (output(first), output(second)) == ("tap-a 1.0", "tap-a 2.0")
    assert first.fingerprint != second.fingerprint
    assert lock(project)["tap-a"] == {"pip": ["tap-a>=2"], "packages": {"tap-a": "2.0"}}


def test_the_lock_file_decides_until_an_upgrade(new_project: MakeProject, only_local_wheels: Path) -> None:
    make_wheel(only_local_wheels, "tap-a", "1.0", scripts=["tap-a"], requires=["dep"])
    make_wheel(only_local_wheels, "dep", "1.0")
    project = new_project("plugins:\n  tap-a: {pip: tap-a}\n")
    resolve_plugin(project, "tap-a", "tap")
    make_wheel(only_local_wheels, "dep", "2.0")
    # As on another machine: the lock file is there, the environment is not.
    shutil.rmtree(project.work_dir)
    resolve_plugin(reopened(project), "tap-a", "tap")
    assert lock(project)["tap-a"]["packages"] == {"dep": "1.0", "tap-a": "1.0"}
    from streamline.connectors.plugins import requirements_of
    from streamline.project.environments import ensure_environment

    project = reopened(project)
    ensure_environment(project, requirements_of(project, project.plugin("tap-a")), upgrade=True)
    assert lock(project)["tap-a"]["packages"] == {"dep": "2.0", "tap-a": "1.0"}


def test_another_lock_file_makes_another_environment(new_project: MakeProject, only_local_wheels: Path) -> None:
    make_wheel(only_local_wheels, "tap-a", "1.0", scripts=["tap-a"])
    make_wheel(only_local_wheels, "tap-a", "2.0", scripts=["tap-a"])
    project = new_project("plugins:\n  tap-a: {pip: tap-a}\n")
    assert output(resolve_plugin(project, "tap-a", "tap")) == "tap-a 2.0"
    path = project.root / "streamline.lock.yaml"
    path.write_text(path.read_text().replace("2.0", "1.0"))
    assert output(resolve_plugin(reopened(project), "tap-a", "tap")) == "tap-a 1.0"


def test_the_lock_file_comes_back(new_project: MakeProject, only_local_wheels: Path) -> None:
    make_wheel(only_local_wheels, "tap-a", scripts=["tap-a"])
    project = new_project("plugins:\n  tap-a: {pip: tap-a}\n")
    resolve_plugin(project, "tap-a", "tap")
    (project.root / "streamline.lock.yaml").unlink()
    resolve_plugin(reopened(project), "tap-a", "tap")
    assert lock(project)["tap-a"]["packages"] == {"tap-a": "1.0"}


def test_overrides_beat_pins(new_project: MakeProject, only_local_wheels: Path) -> None:
    make_wheel(only_local_wheels, "tap-a", scripts=["tap-a"], requires=["dep==1.0"])
    make_wheel(only_local_wheels, "dep", "1.0")
    make_wheel(only_local_wheels, "dep", "3.0")
    project = new_project("plugins:\n  tap-a: {pip: tap-a, overrides: ['dep>=3']}\n")
    resolve_plugin(project, "tap-a", "tap")
    assert lock(project)["tap-a"] == {
        "pip": ["tap-a"],
        "overrides": ["dep>=3"],
        "packages": {"dep": "3.0", "tap-a": "1.0"},
    }


def test_an_interpreter_of_its_own(new_project: MakeProject, only_local_wheels: Path) -> None:
    make_wheel(only_local_wheels, "tap-a", scripts=["tap-a"])
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    project = new_project(f"plugins:\n  tap-a: {{pip: tap-a, python: '{version}'}}\n")
    assert output(resolve_plugin(project, "tap-a", "tap")) == "tap-a 1.0"
    assert lock(project)["tap-a"]["python"] == version


def test_a_local_wheel_is_no_business_of_the_lock_file(new_project: MakeProject, tmp_path: Path) -> None:
    project = new_project("plugins:\n  tap-a: {pip: ./vendor/tap_a-1.0-py3-none-any.whl}\n")
    make_wheel(project.root / "vendor", "tap-a", scripts=["tap-a"])
    assert output(resolve_plugin(project, "tap-a", "tap")) == "tap-a 1.0"
    assert lock(project)["tap-a"]["packages"] == {}
    # Built anew under the same name: it is not the same plugin any more.
    make_wheel(project.root / "vendor", "tap-a", scripts=["tap-a"], body="def main():\n    print('changed')\n")
    assert output(resolve_plugin(reopened(project), "tap-a", "tap")) == "changed"


@pytest.mark.parametrize(
    ("scripts", "entry", "program"),
    [
        (["tap-a", "x"], "pip: tap-a", "tap-a"),
        (["tap-other", "x"], "pip: tap-a", "tap-other"),
        (["only"], "pip: tap-a", "only"),
        (["tap-a", "x"], "pip: tap-a, executable: x", "x"),
    ],
)
def test_the_program_of_a_package(
    new_project: MakeProject, only_local_wheels: Path, scripts: list[str], entry: str, program: str
) -> None:
    make_wheel(only_local_wheels, "tap-a", scripts=scripts)
    plugin = resolve_plugin(new_project(f"plugins:\n  tap-a: {{{entry}}}\n"), "tap-a", "tap")
    assert Path(plugin.argv[0]).name == program


def test_a_program_that_is_not_there(new_project: MakeProject, only_local_wheels: Path) -> None:
    make_wheel(only_local_wheels, "tap-a", scripts=["one", "two"])
    project = new_project("plugins:\n  tap-a: {pip: tap-a}\n  tap-b: {pip: tap-a, executable: three}\n")
    for name, line in (("tap-a", 2), ("tap-b", 3)):
        with refuses("plugin.program_missing") as caught:
            resolve_plugin(project, name, "tap")
        assert caught.value.where == f"streamline.yaml:{line}"
        assert "one, two" in str(caught.value.hint)


def test_a_command_can_have_an_environment(new_project: MakeProject, only_local_wheels: Path) -> None:
    make_wheel(only_local_wheels, "dep", body="value = 7\n")
    project = new_project(
        "plugins:\n  acme: {pip: dep, command: [python, c/acme.py, --x]}\n",
        **{"c/acme.py": "import dep, sys\nprint(dep.value, sys.argv[1:])\n"},
    )
    assert output(resolve_plugin(project, "acme", "tap"), "-y") == "7 ['--x', '-y']"


def test_what_cannot_be_installed_says_why_and_leaves_nothing(
    new_project: MakeProject, only_local_wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_T", "hush-hush")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    make_wheel(only_local_wheels, "tap-a", scripts=["tap-a"], requires=["not-to-be-had"])
    project = new_project(
        "plugins:\n  tap-a: {pip: tap-a}\n"
        "  tap-b: {pip: \"b @ https://u:{{ secret('t') }}@localhost:1/b-1.0-py3-none-any.whl\"}\n"
    )
    with refuses("plugin.install_failed", "not-to-be-had") as caught:
        resolve_plugin(project, "tap-a", "tap")
    assert caught.value.where == "plugin tap-a"
    told: list[str] = []
    argv: list[str] = []
    run = subprocess.run

    def spy(command: list[str], **options: Any) -> Any:
        argv.extend(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", spy)
    with pytest.raises(ConfigError) as caught:
        resolve_plugin(project, "tap-b", "tap", notify=told.append)
    assert "localhost:1" in str(caught.value)
    assert argv
    assert "hush" not in str(caught.value) + str(told) + str(argv)
    assert not list((project.work_dir / "venvs" / ".builds").iterdir())
    assert not (project.root / "streamline.lock.yaml").exists()


def test_the_credential_of_a_git_url_reaches_git_and_no_arguments(
    new_project: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "protocol=https\\nhost=git.example\\npath=acme/tap.git\\n\\n"
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(
        f"#!/bin/sh\ncat /proc/[0-9]*/cmdline >> {tmp_path}/arguments 2>/dev/null\n"
        f"printf '{asked}' | {shutil.which('git')} credential fill >> {tmp_path}/filled\n"
        f'[ $1 = init ] && exec {shutil.which("git")} "$@"\nexit 1\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("STREAMLINE_SECRET_T", "hush-hush")
    project = new_project(
        "plugins:\n  tap-a: {pip: \"tap-a @ git+https://bot:{{ secret('t') }}@git.example/acme/tap.git@v1\"}\n"
    )

    with refuses("plugin.install_failed"):
        resolve_plugin(project, "tap-a", "tap")

    assert "https://git.example/acme/tap.git" in (tmp_path / "arguments").read_text()
    assert "hush" not in (tmp_path / "arguments").read_text()
    assert "username=bot\npassword=hush-hush\n" in (tmp_path / "filled").read_text()
    assert not list((project.work_dir / "venvs" / ".builds").iterdir())


def test_a_failed_change_leaves_the_old_environment(new_project: MakeProject, only_local_wheels: Path) -> None:
    make_wheel(only_local_wheels, "tap-a", scripts=["tap-a"])
    project = new_project("plugins:\n  tap-a: {pip: tap-a}\n")
    plugin = resolve_plugin(project, "tap-a", "tap")
    with pytest.raises(ConfigError):
        resolve_plugin(reopened(project, "plugins:\n  tap-a: {pip: tap-a==9}\n"), "tap-a", "tap")
    assert output(plugin) == "tap-a 1.0"
    back = reopened(project, "plugins:\n  tap-a: {pip: tap-a}\n")
    assert resolve_plugin(back, "tap-a", "tap").argv == plugin.argv


def test_secrets_do_not_reach_the_lock_file(
    new_project: MakeProject, only_local_wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_V", "1.0")
    make_wheel(only_local_wheels, "tap-a", scripts=["tap-a"])
    project = new_project("plugins:\n  tap-a: {pip: \"tap-a=={{ secret('v') }}\"}\n")
    assert output(resolve_plugin(project, "tap-a", "tap")) == "tap-a 1.0"
    assert lock(project)["tap-a"]["pip"] == ["tap-a=={{ secret('v') }}"]


def test_two_at_once_make_one(new_project: MakeProject, only_local_wheels: Path) -> None:
    make_wheel(only_local_wheels, "tap-a", scripts=["tap-a"])
    make_wheel(only_local_wheels, "tap-b", scripts=["tap-b"])
    project = new_project("plugins:\n  tap-a: {pip: tap-a}\n  tap-b: {pip: tap-b}\n")
    told: list[str] = []
    found: list[str] = []

    def resolve(name: str) -> None:
        found.extend(resolve_plugin(Project.open(project.root), name, "tap", notify=told.append).argv)

    threads = [threading.Thread(target=resolve, args=(name,)) for name in ("tap-a", "tap-b") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 2
    assert sorted(told) == ["installing tap-a (tap-a)", "installing tap-b (tap-b)"]
    assert sorted(lock(project)) == ["tap-a", "tap-b"]


def test_a_moved_project_makes_its_environments_anew(
    new_project: MakeProject, only_local_wheels: Path, tmp_path: Path
) -> None:
    make_wheel(only_local_wheels, "tap-a", scripts=["tap-a"])
    project = new_project("plugins:\n  tap-a: {pip: tap-a}\n")
    resolve_plugin(project, "tap-a", "tap")
    moved = tmp_path / "moved"
    project.root.rename(moved)
    plugin = resolve_plugin(Project.open(moved), "tap-a", "tap")
    assert plugin.argv[0].startswith(str(moved))
    assert output(plugin) == "tap-a 1.0"


def test_a_killed_build_is_cleared_away(new_project: MakeProject, only_local_wheels: Path) -> None:
    make_wheel(only_local_wheels, "tap-a", scripts=["tap-a"])
    project = new_project("plugins:\n  tap-a: {pip: tap-a}\n")
    leftover = project.work_dir / "venvs" / ".builds" / "tap-a-0badcafe"
    leftover.mkdir(parents=True)
    other = project.work_dir / "venvs" / ".builds" / "tap-a-b-0badcafe"
    other.mkdir()
    resolve_plugin(project, "tap-a", "tap")
    assert not leftover.exists()
    assert other.exists()


def test_uv_has_its_own_settings_first(tmp_path: Path) -> None:
    from streamline.project.pipconfig import uv_settings

    pip = {"PIP_INDEX_URL": "http://localhost/simple", "PIP_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)}
    assert uv_settings(pip, tmp_path)[0]["UV_DEFAULT_INDEX"] == "http://localhost/simple"
    assert "UV_DEFAULT_INDEX" not in uv_settings({**pip, "UV_INDEX": "x"}, tmp_path)[0]
    (tmp_path / "uv.toml").write_text("")
    assert "UV_DEFAULT_INDEX" not in uv_settings(pip, tmp_path)[0]


def test_pips_file_is_read(tmp_path: Path) -> None:
    from streamline.project.pipconfig import uv_settings

    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://localhost/a\nextra-index-url =\n  http://b\n  http://c\n"
    )
    environ = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "HOME": str(tmp_path)}
    settings, options = uv_settings(environ, tmp_path)
    assert settings["UV_DEFAULT_INDEX"] == "http://localhost/a"
    assert settings["UV_INDEX"] == "http://b http://c"
    assert options == []
