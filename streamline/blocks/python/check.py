"""What can be said about a Python block's file before anything runs: it is looked at, not executed."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from streamline.blocks.call import shown_block
from streamline.blocks.python.file import BlockFile, imports_of, parsed
from streamline.blocks.python.function import decorator_name
from streamline.blocks.python.imports import imported
from streamline.decorators import CALLBACKS, LEGACY, NAMES, STATUSES, decorator_of
from streamline.errors import ConfigError
from streamline.pipeline.block_settings import block_settings
from streamline.pipeline.kinds import Explanation
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project
    from streamline.project.render import ProjectFolder, Renderer

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def check_block(project: ProjectFolder, block: Block, renderer: Renderer | None = None) -> set[str]:
    """Check that the block's file is Python and has exactly one function to run.

    Returns:
        The modules that it imports when it is loaded: first parts of their names, without the project's own.

    Raises:
        ConfigError: the file cannot be read or is not Python; no function has the decorator of the block's type, or
            several have it. `where` is `file:line`.
    """
    tree = block_tree(project, block)
    _DecoratedFunctions(block, shown_block(project, block), tree, first_wins=project.mage).check()
    return imported_modules(project, tree)


def block_tree(project: ProjectFolder, block: Block) -> ast.Module:
    """Parse the block's file.

    Raises:
        ConfigError: the file cannot be read or is not Python.
    """
    path = str(block.file) if block.file is not None else f"<block {block.uuid}>"
    source = None if block.file is not None else block.content or ""
    file = BlockFile(block.uuid, path, source, shown_block(project, block))
    text = file.text()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are shown when the block runs
        return parsed(file, text)[0]


def explain(project: Project, model: PipelineModel, block: Block) -> Explanation:
    """Return the environment that the block runs in."""
    isolated = block_settings(model, block).isolated
    return Explanation(engine="Python, in the environment of requirements.txt" if isolated else "Python")


class _DecoratedFunctions:
    def __init__(self, block: Block, shown: str, tree: ast.Module, *, first_wins: bool) -> None:
        self._first_wins = first_wins
        self._block = block
        self._shown = shown
        self._tree = tree
        self._decorator = decorator_of(block.type)
        self._names = CALLBACKS if self._decorator == "callback" else (self._decorator,)
        self._meant = {name: full.rpartition(".")[2] for name, full in imports_of(tree).items()}

    def check(self) -> None:
        functions = list(defined_functions(self._tree.body))
        decorated = [
            (function, sure) for function, sure in functions if self._kinds(function).intersection(self._names)
        ]
        if self._decorator == "callback":
            self._check_statuses([function for function, _ in decorated])
        elif not self._first_wins and sum(sure for _, sure in decorated) > 1:
            self._refuse_several([function for function, sure in decorated if sure])
        if not decorated and not self._may_come_otherwise(functions):
            self._refuse_none([function for function, _ in functions])

    def _kinds(self, function: FunctionNode) -> set[str]:
        names = {decorator_name(each) for each in function.decorator_list}
        return {self._meant.get(name, name) for name in names}

    def _may_come_otherwise(self, functions: Sequence[object]) -> bool:
        """Return whether the file could get its function in a way that only running it tells."""
        names = {name for name, full in self._meant.items() if full in self._names} | set(self._names)
        decorators = {id(part) for node in ast.walk(self._tree) for part in _decorator_parts(node)}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                return True
            if isinstance(node, ast.Name) and node.id in names and id(node) not in decorators:
                return True  # `load = data_loader(make(…))`
            if isinstance(node, ast.Attribute) and node.attr in names and id(node) not in decorators:
                return True
        imported = {name for name, full in self._meant.items() if full not in NAMES and full not in LEGACY}
        return not functions and bool(imported)

    def _refuse_several(self, functions: Sequence[FunctionNode]) -> None:
        lines = " and ".join(f"{function.name} (line {first_line(function)})" for function in functions)
        raise ConfigError(
            f"more than one function in this file is decorated with @{self._decorator}: {lines}",
            where=f"{self._shown}:{first_line(functions[1])}",
            hint="leave the decorator on one of them; it can call the others",
            code="block.function_ambiguous",
        )

    def _refuse_none(self, functions: Sequence[FunctionNode]) -> None:
        for function in functions:
            for kind in sorted(self._kinds(function)):
                if kind in NAMES and kind not in ("test", self._decorator):
                    raise ConfigError(
                        f"no function in this file is decorated with @{self._decorator}, but {function.name}() is with "
                        f"@{kind}",
                        where=f"{self._shown}:{first_line(function)}",
                        hint=f"the block '{self._block.uuid}' is a {self._block.type}: write @{self._decorator} above "
                        "its function, or change its type in metadata.yaml",
                        code="block.function_missing",
                    )
        plain = [function for function in functions if not self._kinds(function)]
        line = f":{first_line(plain[0])}" if len(plain) == 1 else ""
        above = f"{plain[0].name}()" if len(plain) == 1 else "the function to run"
        raise ConfigError(
            f"no function in this file is decorated with @{self._decorator}",
            where=f"{self._shown}{line}",
            hint=f"write @{self._decorator} above {above}",
            code="block.function_missing",
        )

    def _check_statuses(self, functions: Sequence[FunctionNode]) -> None:
        for function in functions:
            for each in function.decorator_list:
                if not isinstance(each, ast.Call) or decorator_name(each) != "callback":
                    continue
                for value in each.args:
                    if isinstance(value, ast.Constant) and value.value not in STATUSES:
                        raise ConfigError(
                            f"@callback: unknown status {value.value!r}",
                            where=f"{self._shown}:{value.lineno}",
                            hint=suggestion(str(value.value), STATUSES, what="statuses"),
                            code="block.unknown_status",
                        )


def defined_functions(body: Sequence[ast.stmt], sure: bool = True) -> Iterator[tuple[FunctionNode, bool]]:
    """Yield the functions that loading the file defines, and whether it always does: those in `if` or `try` may not."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, sure
        elif isinstance(node, ast.With):
            yield from defined_functions(node.body, sure)
        elif isinstance(node, ast.If | ast.For | ast.While | ast.Try):
            for part in ("body", "orelse", "finalbody"):
                yield from defined_functions(getattr(node, part, []), False)
            for handler in getattr(node, "handlers", []):
                yield from defined_functions(handler.body, False)


def _decorator_parts(node: ast.AST) -> list[ast.AST]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return []
    return [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]


def first_line(function: FunctionNode) -> int:
    """Return the line of a function's first decorator, else of its `def`."""
    return function.decorator_list[0].lineno if function.decorator_list else function.lineno


def imported_modules(project: ProjectFolder, tree: ast.Module) -> set[str]:
    """Return the modules that a file imports when it is loaded, without the project's own: first parts of names."""
    rest: list[ast.stmt] = list(tree.body)
    for node in rest:
        if isinstance(node, ast.Try | ast.With):
            rest.extend([*node.body, *getattr(node, "orelse", ())])
    modules = {name for name, _ in imported(ast.Module(rest, []))}
    own = {name for name in modules if (project.root / name).is_dir() or (project.root / f"{name}.py").is_file()}
    return modules - own - {project.root.name}
