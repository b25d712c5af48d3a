"""`.env`: variables of a project that never replace those of the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamline.errors import ConfigError
from streamline.project.dotenv import parse
from streamline.project.project import Project


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder; the environment is restored after the test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr("streamline.project.dotenv._from_files", {})
    (tmp_path / "streamline.yaml").write_text("variables: {where: \"{{ env_var('SHOP_HOST') }}\"}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("\n# A=x\n  export A = b  # the b\n", "b"),
        ("A=b\nA=c\r\n", "c"),
        ("A=", ""),
        ("A=   # nothing", ""),
        ("A=a=b&c #d", "a=b&c"),
        ("A=a#b", "a#b"),
        ("A='it is $HOME \\n # so'", "it is $HOME \\n # so"),
        ('A="one\\ntwo \\"three\\" \\\\ \\d"  # four', 'one\ntwo "three" \\ \\d'),
        ('A="-----BEGIN\nabc=\n-----END"\nB=1', "-----BEGIN\nabc=\n-----END"),
        ("A=żółw 🐢", "żółw 🐢"),
    ],
)
def test_a_value_is_read_as_it_was_meant(text: str, value: str) -> None:
    assert parse(text)["A"] == value


@pytest.mark.parametrize("line", ["hunter2", "A: hunter2", 'A="hunter2', "A='hunter2' b", "1A=hunter2", "A=\0hunter2"])
def test_a_line_that_is_wrong_is_named_and_not_quoted(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"B=1\n\n{line}\n")
    assert (caught.value.code, caught.value.where) == ("env_file.invalid_line", ".env:3")
    assert "hunter2" not in str(caught.value)


def test_variables_come_from_the_file_unless_they_are_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_USER", "mine")
    (folder / ".env").write_text("SHOP_HOST=db\nSHOP_USER=theirs\nSTREAMLINE_SECRET_SHOP=hunter2\nAPI_KEY=swordfish\n")
    project = Project.open(folder)
    assert (os.environ["SHOP_HOST"], os.environ["SHOP_USER"]) == ("db", "mine")
    assert project.secrets.get("shop") == "hunter2"
    assert project.secrets.masker.mask("hunter2 swordfish db") == "******** ******** db"
    (folder / ".env").write_text("SHOP_HOST=other\n")
    Project.open(folder)
    assert os.environ["SHOP_HOST"] == "other"
    assert "API_KEY" not in os.environ


def test_variables_of_one_project_are_not_those_of_another(folder: Path) -> None:
    (folder / ".env").write_text("SHOP_HOST=db\n")
    (folder / "other").mkdir()
    (folder / "other/streamline.yaml").touch()
    Project.open(folder)
    Project.open(folder / "other")
    assert "SHOP_HOST" not in os.environ


def test_the_file_of_another_user_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("SHOP_HOST=db\n")
    monkeypatch.setattr("streamline.project.project.owner_of", lambda path: 12345)
    project = Project.open(folder)
    assert "SHOP_HOST" not in os.environ
    assert any(".env is not read" in warning for warning in project.warnings)
    monkeypatch.setenv("STREAMLINE_ALLOW_FOREIGN_PROJECT", "1")
    Project.open(folder)
    assert os.environ["SHOP_HOST"] == "db"
