"""An environment of its own with Streamline and packages made for a test, as a user would install them."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from streamline.project.environments import uv_program
from tests.project.wheels import make_wheel

ROOT = Path(__file__).parents[2]


class Installation:
    """A virtual environment that sees this one's packages, with one package more.

    Args:
        folder: where it is made.
        name: the package's name; its module is the same with underscores.
        body: the module's text.
        entry_points: `{group: {name: "module:attribute"}}`.
    """

    def __init__(self, folder: Path, name: str, body: str, entry_points: Mapping[str, Mapping[str, str]]) -> None:
        self.venv = folder / "venv"
        wheel = make_wheel(folder / "wheels", name, body=body, entry_points=entry_points)
        uv = uv_program()
        _run([uv, "venv", "--quiet", "--offline", "--python", sys.executable, str(self.venv)])
        self.python = self.venv / "bin" / "python"
        _run([uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(self.python), str(wheel)])
        packages = next(self.venv.glob("lib/python*/site-packages"))
        (packages / "base.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")

    def streamline(self, project: Path, *arguments: str, code: int = 0) -> str:
        """Run a command in the project; return what it printed to standard output."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        done = subprocess.run(
            [self.python, "-m", "streamline", *arguments],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
