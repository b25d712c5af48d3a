"""A project's block files as modules, such as `streamline.blocks.python.user_modules.data_loaders.load_orders`.

A pickle names the classes of its objects by their module. So that name leads back to the block's file, in whichever
process of the project: a worker that reads another block's output, a pool that the block's code starts. The file is
run with the decorators in its namespace, as it is when its block runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from streamline.blocks.python.file import BlockFile, compiled, injected

__path__: list[str] = []  # what makes it a package; its modules are found by the finder below

_project: list[Path] = []


def serve(project: Path) -> None:
    """Find block files in that project from now on; without this, in the working directory's, which is the project in
    all of its blocks' processes."""
    if _project == [project]:
        return
    _project[:] = [project]
    for name in [name for name in sys.modules if name.startswith(f"{__name__}.")]:
        del sys.modules[name]


def module_name(project: Path, file: Path) -> str | None:
    """Return the name of a block file's module; None if the file is outside the project."""
    if not file.is_relative_to(project):
        return None
    parts = file.relative_to(project).with_suffix("").parts
    return ".".join([__name__, *(part.replace("%", "%25").replace(".", "%2E") for part in parts)])


class _BlockLoader(Loader):
    def __init__(self, file: Path) -> None:
        self._file = file

    def exec_module(self, module: ModuleType) -> None:
        file = BlockFile(self._file.stem, str(self._file))
        vars(module).update(injected(file))
        exec(compiled(file), vars(module))


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        prefix, _, rest = fullname.partition(f"{__name__}.")
        if prefix or not rest:
            return None
        parts = [part.replace("%2E", ".").replace("%25", "%") for part in rest.split(".")]
        place = (_project[0] if _project else Path.cwd()).joinpath(*parts)
        file = place.with_name(f"{place.name}.py")
        if file.is_file():
            return ModuleSpec(fullname, _BlockLoader(file), origin=str(file))
        return ModuleSpec(fullname, None, is_package=True) if place.is_dir() else None


sys.meta_path.append(_Finder())
