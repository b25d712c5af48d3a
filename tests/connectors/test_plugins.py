"""From the name in a block to a program and its environment."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from streamline.connectors import registry
from streamline.connectors.plugins import resolve_plugin
from streamline.connectors.registry import Role, bundled_connectors
from streamline.errors import ConfigError
from tests.support.failures import refuses
from tests.support.opened_project import MakeProject


def test_a_command_runs_in_the_project(new_project: MakeProject) -> None:
    project = new_project(
        "plugins:\n  target-acme: {command: [python, connectors/acme.py, 1], proof: exit, max_processes: 2}\n"
    )
    plugin = resolve_plugin(project, "acme", "target")
    assert plugin.argv == [shutil.which("python") or shutil.which("python3"), "connectors/acme.py", "1"]
    assert (plugin.name, plugin.kind, plugin.library) == ("target-acme", "command", None)
    assert (plugin.proof, plugin.max_processes, plugin.prestart) == ("exit", 2, False)
    assert plugin.cwd == project.root


def test_programs_are_looked_for_in_the_project_and_on_the_path(new_project: MakeProject) -> None:
    project = new_project(
        "plugins:\n  a: {command: [bin/tap.sh]}\n  b: {command: tap.sh}\n  c: {command: sh -c true}\n"
        "  d: {executable: bin/tap.sh}\n",
        **{"bin/tap.sh": "#!/bin/sh\n", "tap.sh": "#!/bin/sh\n"},
    )
    for name in ("bin/tap.sh", "tap.sh"):
        (project.root / name).chmod(0o755)
    assert resolve_plugin(project, "a", "tap").argv == [str(project.root / "bin/tap.sh")]
    assert resolve_plugin(project, "b", "tap").argv == [str(project.root / "tap.sh")]
    assert resolve_plugin(project, "c", "tap").argv == [shutil.which("sh"), "-c", "true"]
    assert resolve_plugin(project, "d", "mapper").argv == [str(project.root / "bin/tap.sh")]


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("[./absent]", "start at the project"),
        ("[no-such-program-anywhere]", "neither on PATH"),
        ("[c/x.py]", "chmod +x c/x.py"),
    ],
)
def test_programs_that_are_not_there(new_project: MakeProject, command: str, hint: str) -> None:
    project = new_project(f"plugins:\n  a: {{command: {command}}}\n", **{"c/x.py": ""})
    with refuses("plugin.program_missing") as caught:
        resolve_plugin(project, "a", "tap")
    assert caught.value.where == "streamline.yaml:2"
    assert hint in str(caught.value.hint)


def test_a_plugin_gets_its_whitelist_and_nothing_else(
    new_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name in (
        *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "https_proxy", "NO_PROXY", "SSL_CERT_FILE"),
        *(
            "REQUESTS_CA_BUNDLE",
            "AWS_REGION",
            "AWS_SECRET",
            "OTHER",
            "PYTHONPATH",
            "VIRTUAL_ENV",
            "STREAMLINE_SECRET_X",
        ),
    ):
        monkeypatch.setenv(name, name.lower())
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    project = new_project(
        "plugins:\n  a: {command: sh, env: {TZ: UTC, TOKEN: \"{{ secret('x') }}\"}, pass_env: ['AWS_*']}\n"
    )
    env = resolve_plugin(project, "a", "tap").env
    assert set(env) == {
        *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "https_proxy", "NO_PROXY", "SSL_CERT_FILE"),
        *("REQUESTS_CA_BUNDLE", "AWS_REGION", "AWS_SECRET", "TOKEN"),
    }
    assert (env["TZ"], env["TOKEN"]) == ("UTC", "streamline_secret_x")
    masked = project.secrets.masker.mask("streamline_secret_x aws_secret aws_region")
    assert masked == "******** ******** aws_region"


@pytest.mark.parametrize("command", ["sh -c \"{{ secret('x') }}\"", ["sh", "--token={{ secret('x') }}"]])
def test_a_secret_in_a_command_is_refused(
    new_project: MakeProject, command: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_X", "hush-hush")
    project = new_project(f"plugins:\n  a: {{command: {json.dumps(command)}}}\n")
    with pytest.raises(ConfigError) as caught:
        resolve_plugin(project, "a", "tap")
    assert caught.value.code == "plugin.secret_in_command"


def test_the_fingerprint_follows_the_files_of_a_command(new_project: MakeProject) -> None:
    project = new_project("plugins:\n  a: {command: [python, c/a.py]}\n", **{"c/a.py": "1"})
    before = resolve_plugin(project, "a", "tap").fingerprint
    assert resolve_plugin(project, "a", "tap").fingerprint == before
    (project.root / "c/a.py").write_text("22")
    assert resolve_plugin(project, "a", "tap").fingerprint != before


@pytest.fixture
def builtin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connectors `tap-here` (needs nothing) and `tap-away` (needs what is not here), as if they came along."""
    manifests = {
        "here": '{"modules": ["json"]}',
        "away": '{"modules": ["no_such_module_x"], "requirements": ["six"], "max_processes": 3}',
    }
    for system, manifest in manifests.items():
        folder = tmp_path / "site" / "taps" / system
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(manifest)
    (tmp_path / "site" / "taps" / "run.py").write_text("")
    monkeypatch.setattr(registry, "HOME", tmp_path / "site")


@pytest.mark.usefixtures("builtin")
def test_connectors_that_come_along_run_by_path(new_project: MakeProject, tmp_path: Path) -> None:
    plugin = resolve_plugin(new_project(), "here", "tap")
    assert plugin.argv == [sys.executable, str(tmp_path / "site/taps/run.py"), "here"]
    assert (plugin.name, plugin.kind, plugin.library) == ("tap-here", "builtin", "singer-python")


@pytest.mark.usefixtures("builtin")
@pytest.mark.parametrize("file", ["taps/here/tap.py", "taps/common/output.py", "taps/run.py", "kit/connector.py"])
def test_the_fingerprint_follows_all_code_of_a_bundled_connector(
    new_project: MakeProject, tmp_path: Path, file: str
) -> None:
    before = resolve_plugin(new_project(), "here", "tap").fingerprint
    path = tmp_path / "site" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("changed = True\n")
    assert resolve_plugin(new_project(), "here", "tap").fingerprint != before


@pytest.mark.usefixtures("builtin")
def test_an_entry_without_a_program_adds_to_what_comes_along(new_project: MakeProject) -> None:
    plugin = resolve_plugin(new_project("plugins:\n  tap-here: {env: {A: b}, proof: exit}\n"), "here", "tap")
    assert plugin.kind == "builtin"
    assert plugin.env["A"] == "b"
    assert plugin.proof == "exit"


def test_an_entry_without_a_program_for_nothing_that_exists(new_project: MakeProject) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_plugin(new_project("plugins:\n  tap-nowhere: {}\n"), "tap-nowhere", "tap")
    assert (caught.value.code, caught.value.where) == ("plugin.nothing_to_run", "streamline.yaml:2")


@pytest.mark.usefixtures("builtin")
def test_a_declared_plugin_beats_what_comes_along(new_project: MakeProject) -> None:
    assert resolve_plugin(new_project("plugins:\n  tap-here: {command: sh}\n"), "here", "tap").kind == "command"


@pytest.mark.usefixtures("builtin")
def test_without_its_extra_a_connector_gets_an_environment(
    new_project: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.project.wheels import make_wheel

    make_wheel(tmp_path / "wheels", "six")
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    project = new_project()
    plugin = resolve_plugin(project, "away", "tap")
    assert plugin.argv[0].startswith(str(project.work_dir))
    assert plugin.argv[1:] == [str(tmp_path / "site/taps/run.py"), "away"]
    assert plugin.max_processes == 3
    # Its versions belong to Streamline's own release, not to the project.
    assert not (project.root / "streamline.lock.yaml").exists()


@pytest.mark.parametrize(
    ("name", "role", "code", "hint"),
    [
        ("tap-shp", "tap", "plugin.unknown", "'tap-shop'"),
        ("postgresql", "tap", "plugin.unknown", "plugin add tap-postgres --pip pipelinewise-"),
        ("tap-snowflake", "tap", "plugin.unknown", "PACKAGE==VERSION"),
        ("quite-unknown", "target", "plugin.unknown", "quite-unknown: {pip:"),
        ("target-x", "tap", "plugin.wrong_role", ""),
        ("mask", "mapper", "plugin.unknown", "mask: {pip:"),
    ],
)
def test_names_that_nobody_knows(new_project: MakeProject, name: str, role: Role, code: str, hint: str) -> None:
    project = new_project("plugins:\n  tap-shop: {command: sh}\n")
    with refuses(code, name.removeprefix("tap-")) as caught:
        resolve_plugin(project, name, role)
    assert hint in (caught.value.hint or "")
    assert caught.value.where == "streamline.yaml"


def test_sources_of_mage_name_the_plugin_to_add(new_project: MakeProject) -> None:
    project = new_project("compat: mage\n")
    with pytest.raises(ConfigError) as caught:
        resolve_plugin(project, "google_ads", "tap")
    assert caught.value.code == "plugin.unknown"
    assert "plugin add tap-google-ads --pip PACKAGE==VERSION" in (caught.value.hint or "")
    declared = new_project("plugins:\n  tap-google-ads: {command: sh}\n")
    assert resolve_plugin(declared, "google_ads", "tap").name == "tap-google-ads"


def test_the_manifests_name_the_extras() -> None:
    import tomllib

    path = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(path.read_text())["project"]["optional-dependencies"]
    for connector in bundled_connectors():
        assert list(connector.requirements) == extras[connector.name]
