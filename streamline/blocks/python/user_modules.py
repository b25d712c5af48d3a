"""A project's block files as modules, such as `streamline.blocks.python.user_modules.data_loaders.load_orders`.

A pickle names the classes of its objects by their module. So that name leads back to the block's file, in whichever
process of the project: a worker that reads another block's output, a pool that the block's code starts. The file is
run with the decorators in its namespace, as it is when its block runs.
"""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader  # importlib.abc imports tempfile and much else
from pathlib import Path
from types import ModuleType

from streamline.blocks.python.file import BlockFile, compiled, injected
from streamline.blocks.python.hints import MAGE_NAME

__path__: list[str] = []  # what makes it a package; its modules are found by the finder below

_project: list[Path] = []
_text: list[Callable[[], str]] = []


def serve(project: Path, text: Callable[[], str] | None = None) -> None:
    """Find block files in that project from now on; without this, in the working directory's, which is the project in
    all of its blocks' processes.

    Args:
        text: returns the text of the block's file, whose imports may name the project's folder otherwise.
    """
    _text[:] = [text] if text is not None else []
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


def own_packages(project: Path, text: str) -> set[str]:
    """Return the packages in a file's imports that mean the project's folder by another name: `default_repo.utils.x`,
    where `utils/x.py` is in the folder."""
    own = {MAGE_NAME}
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            own |= {module.partition(".")[0] for module in modules if _in_project(project, module)}
    return own


def _in_project(project: Path, module: str) -> bool:
    """Return whether a module, or a name in a module, is in the project under the name after the first dot."""
    below = module.split(".")[1:]
    if not below:
        return False
    place = project.joinpath(*below)
    if place.is_dir() or place.with_name(f"{place.name}.py").is_file():
        return True
    module_of_name = place.parent
    files = (module_of_name.with_name(f"{module_of_name.name}.py"), module_of_name / "__init__.py")
    return len(below) > 1 and any(file.is_file() and below[-1] in file.read_text("utf-8", "replace") for file in files)


class _BlockLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        file = BlockFile(Path(self.path).stem, self.path)
        vars(module).update(injected(file))
        exec(compiled(file), vars(module))


class _Finder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        prefix, _, rest = fullname.partition(f"{__name__}.")
        if path is None and _text and fullname in own_packages(_project[0], _text[0]()):
            package = ModuleSpec(fullname, None, is_package=True)
            package.submodule_search_locations = [str(_project[0])]
            return package
        if prefix or not rest:
            return None
        parts = [part.replace("%2E", ".").replace("%25", "%") for part in rest.split(".")]
        place = (_project[0] if _project else Path.cwd()).joinpath(*parts)
        file = place.with_name(f"{place.name}.py")
        if file.is_file():
            return ModuleSpec(fullname, _BlockLoader(fullname, str(file)), origin=str(file))
        return ModuleSpec(fullname, None, is_package=True) if place.is_dir() else None


sys.meta_path.append(_Finder())
