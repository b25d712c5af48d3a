"""Files of a project that have the names of installed modules: nothing but the project's own blocks imports them."""

from __future__ import annotations

import os
import subprocess
import sys

from streamline.execution.imports import _not_found
from tests.support.batch import BatchProject

IMPORTED = "open({!r}, 'a').write(__name__ + '\\n')\nraise SystemExit('a file of the project was imported')\n"


def write_modules(project: BatchProject, *names: str) -> None:
    for name in names:
        project.write(f"{name}.py", IMPORTED.format(str(project.root / "log.txt")))


def streamline(project: BatchProject, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as users start it: in a process of its own, in the project's folder."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-m", "streamline", *arguments]
    return subprocess.run(command, cwd=project.root, env=env, capture_output=True, text=True, check=False)


def test_a_run_and_a_check_import_the_installed_modules(project: BatchProject) -> None:
    code = """
    import statistics

    import pandas as pd
    from utils.prices import PRICE

    @data_loader
    def load():
        return pd.DataFrame({'price': [PRICE, statistics.mean([1, 3])]})
    """
    project.block("load", code, type="data_loader")
    project.write("utils/prices.py", "PRICE = 5\n")
    write_modules(project, "json", "numpy", "msgspec", "yaml", "statistics", "zipfile")
    for arguments in (("check", "p"), ("run", "p")):
        completed = streamline(project, *arguments)
        assert completed.returncode == 0, completed
    assert project.lines() == []
    assert project.output("load")["price"].tolist() == [5, 2]


def test_a_check_of_imports_runs_no_file_of_the_project(project: BatchProject) -> None:
    write_modules(project, "contextlib", "importlib", "numpy", "mage_ai", "shop_utils", "polars")
    names = ["numpy", "shop_utils", "nothing_of_this_name", "mage_ai.data_preparation.shared:no_such_name"]
    absent = _not_found(sys.executable, project.root, names)
    assert "nothing_of_this_name" in absent
    assert not {"numpy", "shop_utils"} & set(absent)
    assert project.lines() == []
