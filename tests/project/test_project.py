"""Finding a project and reading its settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamline.errors import ConfigError
from streamline.project import project as project_module
from streamline.project.project import Project
from tests.support.failures import refuses
from tests.support.opened_project import MakeProject


def test_found_from_any_folder_inside(new_project: MakeProject) -> None:
    project = new_project(**{"pipelines/p/metadata.yaml": "blocks: []\n", "data_loaders/x.py": ""})
    for folder in ("", "pipelines", "pipelines/p", "data_loaders"):
        assert Project.find(project.root / folder).root == project.root


def test_no_project(tmp_path: Path) -> None:
    with refuses("project.not_found", "streamline init") as caught:
        Project.find(tmp_path)
    assert "streamline init" in str(caught.value.hint)
    with refuses("project.not_found", "not a project"):
        Project.open(tmp_path)
    with refuses("project.not_found"):
        Project.open(tmp_path / "absent")


def test_a_mage_project_is_read_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text(
        "project_type: standalone\nvariables_dir: ~/.mage_data\nfeatures:\n  data_integration_in_batch_pipeline: true\n"
        "emr_config:\n  master: x\nmy_own: 1\nother_own: 2\n"
        "plugins:\n  tap-x: {command: [python, x.py]}\n"
    )
    pipeline = tmp_path / "pipelines" / "p"
    pipeline.mkdir(parents=True)
    (pipeline / "metadata.yaml").write_text("blocks: []\nvariables_dir: x\n")
    project = Project.find(pipeline)
    assert project.root == tmp_path
    assert project.name == tmp_path.name
    assert list(project.plugins) == ["tap-x"]
    assert len(project.warnings) == 1
    assert "my_own, other_own" in project.warnings[0]
    assert "emr_config" not in project.warnings[0]
    assert project.pipelines() == ["p"]


def test_our_own_file_beats_theirs(new_project: MakeProject) -> None:
    project = new_project("name: ours\n", **{"metadata.yaml": "project_type: standalone\n", "io_config.yaml": ""})
    assert Project.find(project.root).name == "ours"


def test_defaults(new_project: MakeProject) -> None:
    project = new_project("")
    assert (project.name, project.state_url, project.executor) == ("shop", "sqlite:///.streamline/state.db", "local")
    assert project.plugins == {}


def test_unknown_keys_name_line_and_nearest(new_project: MakeProject) -> None:
    with pytest.raises(ConfigError) as caught:
        new_project("name: x\nplugin:\n  a: b\n")
    assert str(caught.value) == "streamline.yaml:2: unknown key 'plugin'\n  did you mean 'plugins'?"


@pytest.mark.parametrize(
    ("entry", "code", "name", "line"),
    [
        ("tap: {pipp: x}", "setting.unknown", "'pipp'", 2),
        ("tap: x", "plugin.invalid", "'tap'", 2),
        ("tap: {pip: 1}", "plugin.invalid", "plugins.tap.pip", 2),
        ("tap: {pip: []}", "plugin.invalid", "empty list", 2),
        ("tap: {pip: [x, --index-url=https://u:p@y]}", "plugin.invalid", "(--index-url)", 2),
        ("tap: {pip: x, python: 3.10}", "plugin.invalid", 'python: "3.10"', 2),
        ("tap: {pip: x, proof: eof}", "plugin.invalid", "plugins.tap.proof", 2),
        ("tap: {pip: x, max_processes: 0}", "plugin.invalid", "plugins.tap.max_processes", 2),
        ("tap: {pip: x, prestart: 1}", "plugin.invalid", "plugins.tap.prestart", 2),
        ("tap: {pip: x, env: [a]}", "plugin.invalid", "plugins.tap.env", 2),
        ("tap: {pip: x, env: {'a=b': c}}", "plugin.invalid", "'a=b'", 2),
        ("tap:\n    pip: x\n    env:\n      A: [b]", "plugin.invalid", "plugins.tap.env", 4),
        ("'../x': {pip: x}", "plugin.invalid", "'../x'", 2),
        ("tap: {command: [[python], x]}", "plugin.invalid", "plugins.tap.command", 2),
        ('tap: {command: "a \'b"}', "plugin.invalid", "No closing quotation", 2),
        ("tap: {command: [cat, x], executable: y}", "plugin.invalid", "`executable:`", 2),
        ("tap: {command: [cat, x], overrides: [y==1]}", "plugin.invalid", "`overrides:`", 2),
        ("tap-files: {python: '3.9'}", "plugin.invalid", "`python:`", 2),
        ("tap: {command: [cat, x], python: '3.9'}", "plugin.invalid", "`python:`", 2),
    ],
)
def test_wrong_entries(new_project: MakeProject, entry: str, code: str, name: str, line: int) -> None:
    with refuses(code, name) as caught:
        new_project(f"plugins:\n  {entry}\n")
    assert caught.value.where == f"streamline.yaml:{line}"


def test_every_key_of_an_entry(new_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_T", "tok")
    project = new_project(
        "variables: {n: 3}\n"
        "plugins:\n"
        "  tap-a:\n"
        "    pip: [a==1, b]\n"
        "    executable: run-a\n"
        "    overrides: ['c>=2']\n"
        "    python: '3.11'\n"
        "    env: {TOKEN: \"{{ secret('t') }}\", PORT: 80, ON: true, EMPTY: }\n"
        "    pass_env: [AWS_*, X]\n"
        "    proof: exit\n"
        "    max_processes: {{ variables('n') }}\n"
        "    prestart: true\n"
        "  b: {command: python b.py --fast, env: {A: {{ env_var('NOT_SET_AT_ALL') }}}}\n"
    )
    entry = project.plugin("tap-a")
    assert (entry.pip, entry.executable, entry.overrides, entry.python) == (["a==1", "b"], "run-a", ["c>=2"], "3.11")
    assert entry.env == {"TOKEN": "tok", "PORT": "80", "ON": "true", "EMPTY": ""}
    assert (entry.pass_env, entry.proof, entry.max_processes, entry.prestart) == (["AWS_*", "X"], "exit", 3, True)
    # What is not used is not rendered: only asking for `b` needs its variable.
    assert project.plugins["b"].command == ["python", "b.py", "--fast"]
    with pytest.raises(ConfigError) as caught:
        project.plugin("b")
    assert caught.value.where == "streamline.yaml:13"
    assert caught.value.message.startswith("plugins.b.env.A: ")


def test_settings_are_rendered_when_asked_for(new_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project = new_project("state: sqlite:///{{ env_var('STATE_FILE') }}\nvariables: {x: {{ env_var('NOT_SET') }}}\n")
    monkeypatch.setenv("STATE_FILE", "a.db")
    assert project.state_url == "sqlite:///a.db"
    monkeypatch.delenv("STATE_FILE")
    with refuses("environment_variable.not_set", "STATE_FILE") as caught:
        assert project.state_url
    assert caught.value.where == "streamline.yaml:1"


def test_the_work_folder_is_private(new_project: MakeProject) -> None:
    project = new_project()
    (project.root / ".streamline").mkdir(mode=0o755)
    assert project.ensure_work_dir().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("foreign", ["streamline.yaml", "io_config.yaml", "pipelines"])
def test_another_users_project_in_a_parent_folder_is_refused(
    new_project: MakeProject, monkeypatch: pytest.MonkeyPatch, foreign: str
) -> None:
    root = new_project("name: shop\n", **{"io_config.yaml": "default: {}\n"}).root
    inside = root / "mine"
    for folder in (inside, root / "pipelines"):
        folder.mkdir()
    if foreign != "streamline.yaml":
        (root / "streamline.yaml").unlink()
    users = {root / foreign: os.geteuid() + 1}
    monkeypatch.setattr(project_module, "owner_of", lambda path: users.get(path, os.geteuid()))
    with pytest.raises(ConfigError) as failure:
        Project.find(inside)
    assert failure.value.code == "project.foreign_owner"
    assert Project.find(root).root == root
    assert Project.open(root).root == root
    monkeypatch.setenv("STREAMLINE_ALLOW_FOREIGN_PROJECT", "1")
    assert Project.find(inside).root == root
