"""Whether the modules that blocks import are installed, without importing them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamline.errors import ConfigError
from streamline.extensions import load_object
from streamline.pipeline.kinds import kind_of
from streamline.project.extras import MAGE_MODULES

if TYPE_CHECKING:
    from streamline.execution.run import Run
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project

# Asks an interpreter which of the modules it was given are nowhere; the paths in front are the project's. A name with
# a colon is one inside a module of the alias, which says itself what it does not have.
_FIND = """\
import importlib, importlib.util, sys
import streamline
count = int(sys.argv[1])
installed = list(sys.path)
for name in sys.argv[2 + count:]:
    sys.path[:] = installed
    if ":" in name:
        module, _, wanted = name.partition(":")
        try:
            if importlib.util.find_spec(module.partition(".")[0]).origin == "streamline":
                found = importlib.import_module(module)
                wanted and getattr(found, wanted)
        except (ImportError, AttributeError) as error:
            print(name, str(error).replace("\\n", " "), sep="\\t")
        continue
    sys.path += sys.argv[2:2 + count]
    try:
        found = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        found = name in sys.modules
    if not found:
        print(name, "", sep="\\t")
"""


class Imports:
    """The modules that a pipeline's blocks import.

    Args:
        blocks: that will be checked: each interpreter is asked once for all of them.
        python_of: returns the interpreter that a block runs in; None: it could not be made.
    """

    def __init__(
        self,
        project: Project,
        model: PipelineModel,
        blocks: Collection[Block],
        python_of: Callable[[Block], str | None] = lambda block: sys.executable,
    ) -> None:
        self._project = project
        self._model = model
        self._blocks = blocks
        self._python_of = python_of
        self._absent: dict[str, dict[str, str]] = {}

    def check(self, block: Block) -> None:
        """Look for the modules that a block's file always imports.

        Raises:
            ConfigError: one is not installed; the error names the line of its import.
        """
        python = self._python_of(block)
        missing = self._missing(block, python)
        if missing:
            name, line, why = missing[0]
            shown = (
                self._project.shown(block.file) if block.file is not None else self._model.where(block.uuid, "content")
            )
            raise ConfigError(
                why or f"imports '{name}', which is not installed",
                where=f"{shown}:{line}",
                hint=None if why else self._remedy(name, isolated=python != sys.executable),
                code="package.missing",
            )

    def _remedy(self, module: str, *, isolated: bool) -> str:
        """Return how to install a missing module."""
        own = self._model.path / "requirements.txt"
        if isolated:
            return f"add it to {self._project.shown(own)}"
        listed = re.compile(rf"^{re.escape(module)}\b".replace("_", "[-_]"), re.IGNORECASE | re.MULTILINE)
        for file in (self._project.root / "requirements.txt", own):
            if file.is_file() and listed.search(file.read_text("utf-8", "replace")):
                return f"pip install -r {self._project.shown(file)}"
        if module in MAGE_MODULES and self._project.mage:
            return "pip install 'streamline[mage]', which has what comes with Mage"
        if self._model.type == "streaming":  # its blocks do not run isolated
            return f"pip install {module}, if that is its package's name"
        return (
            f"pip install {module}, if that is its package's name; or add it to requirements.txt and run the block "
            "isolated"
        )

    def _missing(self, block: Block, python: str | None) -> list[tuple[str, int, str]]:
        """Return modules that the file always imports and that do not exist: with their lines, and why if known."""
        if python is None:
            return []
        if python not in self._absent:
            names = {
                name for other in self._blocks if self._python_of(other) == python for name in self._modules(other)
            }
            self._absent[python] = _not_found(python, self._project.root, sorted(names))
        absent = self._absent[python]
        return [(name, line, absent[name]) for name, line in self._modules(block).items() if name in absent]

    def _modules(self, block: Block) -> dict[str, int]:
        """Return the modules that must be installed for a block, with the line of the first import."""
        kind = kind_of(block)
        if kind is None or kind.imports is None:
            return {}
        modules: dict[str, int] = load_object(kind.imports)(self._project, block)
        return modules


def _not_found(python: str, root: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the modules that are not installed, and why if that is known."""
    if not names:
        return {}
    # As in a run: the project's folder and the one that it lies in come last. They are searched, but no file is run.
    paths = [str(root), str(root.parent)]
    command = [python, "-P", "-c", _FIND, str(len(paths)), *paths, *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    # An interpreter that cannot even do this is found out about in other ways.
    if done.returncode != 0:
        return {}
    return {name: why for name, _, why in (line.partition("\t") for line in done.stdout.splitlines())}


def imports_of(run: Run, model: PipelineModel) -> Imports:
    """Return what the Python files of a pipeline import that runs in Streamline's own environment."""
    written = [block for block in model.blocks.values() if block.language == "python"]
    return Imports(run.project, model, [*written, *model.callbacks.values()])


def check_imports(run: Run, model: PipelineModel) -> None:
    """Check that what they import is installed.

    Raises:
        ConfigError: a module is not; the error names the line of its import.
    """
    imports = imports_of(run, model)
    for block in [*model.blocks.values(), *model.callbacks.values()]:
        imports.check(block)
