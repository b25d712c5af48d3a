"""Environments of isolated blocks: the pipeline's requirements on top of what is installed beside Streamline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamline.pipeline import isolated
from streamline.pipeline.isolated import isolated_python
from streamline.pipeline.reader import load_pipeline
from streamline.project import environments
from streamline.project.project import Project
from tests.project.wheels import make_wheel
from tests.support.failures import refuses
from tests.support.opened_project import MakeProject

METADATA = "blocks:\n- uuid: a\n  type: custom\n  configuration: {isolated: true}\n"


@pytest.fixture(autouse=True)
def wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """uv finds packages in one folder and nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


@pytest.fixture
def project(new_project: MakeProject) -> Project:
    return new_project(**{"pipelines/p/metadata.yaml": METADATA, "custom/a.py": ""})


def require(project: Project, text: str) -> None:
    (project.root / "pipelines/p/requirements.txt").write_text(text)


def python(project: Project, told: list[str] | None = None) -> str:
    heard: list[str] = []
    found = isolated_python(project, load_pipeline(project, "p"), heard.append)
    if told is not None:
        told += heard
    return found


def says(interpreter: str, code: str) -> str:
    done = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def without_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise AssertionError("uv was started")

    monkeypatch.setattr(environments, "uv_program", fail)
    monkeypatch.setattr(isolated, "uv_program", fail)


def test_a_requirement_is_there_beside_streamline_and_its_packages(
    project: Project, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(wheels, "acme-tools", "1.2", body="VERSION = '1.2'\n")
    require(project, "acme-tools  # of ours\n")
    told: list[str] = []
    made = python(project, told)
    code = "import acme_tools, pandas, pyarrow, msgspec, streamline.errors as e; print(acme_tools.VERSION, e.__file__)"
    version, path = says(made, code).split()
    assert version == "1.2"
    assert Path(path).samefile(sys.modules["streamline.errors"].__file__ or "")
    assert told == ["resolving pipelines/p/requirements.txt", "installing pipelines/p/requirements.txt"]
    without_uv(monkeypatch)
    assert python(project) == made


def test_it_is_made_anew_when_the_file_changes(project: Project, wheels: Path) -> None:
    for version in ("1.0", "2.0"):
        make_wheel(wheels, "acme-tools", version, body=f"VERSION = {version!r}\n")
    code = "import acme_tools; print(acme_tools.VERSION)"
    require(project, "acme-tools==1.0\n")
    assert says(python(project), code) == "1.0"
    require(project, "-r ../../more.txt\n")
    (project.root / "more.txt").write_text("acme-tools\n")
    assert says(python(project), code) == "2.0"
    (project.root / "more.txt").write_text("acme-tools==1.0\n")
    assert says(python(project), code) == "1.0"


def test_a_local_wheel_that_changes_is_installed_anew(project: Project) -> None:
    require(project, "./lib/acme_tools-1.0-py3-none-any.whl\n")
    for body in ("before", "after, and longer"):
        make_wheel(project.root / "lib", "acme-tools", body=f"VERSION = {body!r}\n")
        assert says(python(project), "import acme_tools; print(acme_tools.VERSION)") == body


def test_its_versions_win_over_installed_ones_and_that_is_said(project: Project, wheels: Path) -> None:
    make_wheel(wheels, "click", "0.1", body="VERSION = 'old'\n")
    require(project, "click==0.1\n")
    told: list[str] = []
    assert says(python(project, told), "import click, pandas; print(click.VERSION)") == "old"
    assert any("conflicts with Streamline's own requirements" in text and "click==0.1" in text for text in told)


def test_what_is_installed_is_preferred_where_it_will_do(
    project: Project, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "_installed", lambda: {"base": "1.0"})
    monkeypatch.setattr(isolated, "_own_requirements", lambda: ["base>=1"])
    for version in ("1.0", "2.0"):
        make_wheel(wheels, "base", version, body=f"VERSION = {version!r}\n")
    make_wheel(wheels, "tool", requires=["base"])
    make_wheel(wheels, "new-tool", requires=["base>=2"])
    require(project, "tool\n")
    told: list[str] = []
    says(python(project, told), "import importlib.util as u, tool; assert u.find_spec('base') is None")
    require(project, "new-tool\n")
    assert says(python(project, told), "import base, new_tool; print(base.VERSION)") == "2.0"
    assert not any("conflicts" in text for text in told)


@pytest.mark.parametrize("text", ["", "\n# nothing yet\n"])
def test_without_requirements_it_is_the_running_interpreter(
    project: Project, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(project, text)
    without_uv(monkeypatch)
    assert python(project) == sys.executable


def test_what_is_installed_already_needs_no_environment(
    project: Project, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(wheels, "base", "1.0")
    monkeypatch.setattr(isolated, "_installed", lambda: {"base": "1.0"})
    require(project, "base\n")
    assert python(project) == sys.executable


def test_a_file_that_is_missing_names_the_block(project: Project) -> None:
    with refuses("requirements.missing", "requirements.txt") as caught:
        python(project)
    assert caught.value.where == "pipelines/p/metadata.yaml:4"
    assert "pipelines/p/requirements.txt" in str(caught.value.hint)


def test_what_cannot_be_met_ends_with_uv_s_words(project: Project) -> None:
    require(project, "no-such-package-here==1.0\n")
    with refuses("requirements.install_failed", "no-such-package-here") as caught:
        python(project)
    assert (caught.value.exit_code, caught.value.where) == (2, "pipelines/p/requirements.txt")


def test_a_password_in_an_index_s_address_is_shown_nowhere(project: Project, wheels: Path) -> None:
    make_wheel(wheels, "acme-tools")
    secret = "--extra-index-url https://me:hunter2@127.0.0.1:9/simple\n"
    require(project, f"{secret}acme-tools\n")
    python(project)
    for path in (project.work_dir / "venvs").iterdir():
        if path.is_file() and "hunter2" in path.read_text():
            assert path.stat().st_mode & 0o077 == 0


def test_versions_that_break_what_hands_data_over_are_refused_before_anything_runs(
    project: Project, wheels: Path
) -> None:
    make_wheel(wheels, "numpy", "1.0", body="raise ImportError('this numpy is too old for all')\n")
    require(project, "numpy==1.0\n")
    for _ in range(2):
        with refuses("requirements.conflict", "this numpy is too old") as caught:
            python(project)
        assert caught.value.where == "pipelines/p/requirements.txt"
    make_wheel(wheels, "acme-tools")
    require(project, "acme-tools\n")
    assert says(python(project), "import acme_tools, numpy; print(numpy.__name__)") == "numpy"
