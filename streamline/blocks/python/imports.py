"""The modules that a block's file imports when it is loaded, and when its functions are called."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from streamline.blocks.call import block_text
from streamline.blocks.python.function import decorator_name
from streamline.blocks.python.user_modules import own_packages
from streamline.decorators import NAMES

if TYPE_CHECKING:
    from streamline.pipeline.model import Block
    from streamline.project.project import Project

ALIAS = "mage_ai"


def imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the modules that a file always imports, with their lines: not those in `if`, `try` and functions."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0], node.lineno


def of_the_alias(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield what a file imports of Mage's modules: `module:name`, and the line."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((f"{alias.name}:", node.lineno) for alias in node.names if alias.name.startswith(f"{ALIAS}."))
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == ALIAS:
            yield from (
                (f"{node.module}:{'' if alias.name == '*' else alias.name}", node.lineno) for alias in node.names
            )


def _always_run(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that loading a file and calling its decorated functions always executes."""
    for node in body:
        yield node
        if isinstance(node, ast.With):
            yield from _always_run(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
            decorator_name(each) in NAMES for each in node.decorator_list
        ):
            # After a `return` in an `if` the rest may be left out.
            yield from _always_run(
                list(takewhile(lambda each: not any(isinstance(n, ast.Return) for n in ast.walk(each)), node.body))
            )


def required_modules(project: Project, block: Block) -> dict[str, int]:
    """Return the modules that must be installed for a block's file, with the line of the first import."""
    source = block_text(block)
    own = own_packages(project.root, source)
    lines: dict[str, int] = {}
    try:
        tree = ast.Module(list(_always_run(ast.parse(source).body)), [])
        for name, line in (*imported(tree), *of_the_alias(tree)):
            if name not in sys.stdlib_module_names and name not in own:
                lines.setdefault(name, line)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return lines
