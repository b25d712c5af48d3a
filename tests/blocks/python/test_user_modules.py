"""Block files as importable modules."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from streamline.blocks.python import user_modules


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose block files are found."""
    user_modules.serve(tmp_path)
    return tmp_path


@pytest.mark.parametrize("file", ["data_loaders/load.py", "custom/deep/down/it.py", "custom/with.dots 100%2E.py"])
def test_a_files_module_leads_back_to_the_file_with_the_decorators_in_it(project: Path, file: str) -> None:
    path = project / file
    path.parent.mkdir(parents=True)
    path.write_text("@data_loader\ndef load(): return __file__\n")
    name = user_modules.module_name(project, path)
    assert name is not None
    assert importlib.import_module(name).load() == str(path)


def test_a_file_elsewhere_is_no_module_and_what_is_no_file_is_not_found(project: Path) -> None:
    assert user_modules.module_name(project / "inner", project / "load.py") is None
    for name in (
        "streamline.blocks.python.user_modules.nothing",
        "streamline.blocks.python.user_modules.data_loaders.load",
    ):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)


def test_another_projects_modules_are_others(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    for folder in (project, other):
        (folder / "load.py").write_text("def where(): return __file__\n")
    for folder in (project, other, project):
        user_modules.serve(folder)
        assert importlib.import_module("streamline.blocks.python.user_modules.load").where() == str(folder / "load.py")
