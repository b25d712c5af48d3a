"""What can be said about a transformer block of a streaming pipeline before anything runs."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from streamline.blocks.python.check import check_block
from streamline.blocks.python.file import BlockFile, parsed
from streamline.blocks.python.function import Shape, decorator_name, shape_of
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.pipeline.model import Block
    from streamline.project.render import ProjectFolder


def takes_state(file: BlockFile) -> bool:
    """Return whether a block's function has windows, or takes `state`: as a parameter, or out of its keyword arguments.

    Raises:
        ConfigError: the file cannot be read or is not Python.
    """
    tree, _ = parsed(file, file.text())
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not any(decorator_name(each) == "transformer" for each in function.decorator_list):
            continue
        if is_windowed(function):
            return True
        arguments = function.args
        if any(each.arg == "state" for each in [*arguments.args[1:], *arguments.kwonlyargs]):
            return True
        rest = arguments.kwarg.arg if arguments.kwarg is not None else None
        return rest is not None and any(_takes_out(node, rest) for node in ast.walk(function))
    return False


def is_windowed(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function is called with windows."""
    return any(decorator_name(each) == "window" for each in function.decorator_list)


def _takes_out(node: ast.AST, rest: str) -> bool:
    """Return whether an expression takes `state` out of the keyword arguments."""
    if isinstance(node, ast.Subscript):
        taken, key = node.value, node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        taken, key = node.func.value, node.args[0]
    else:
        return False
    return isinstance(taken, ast.Name) and taken.id == rest and isinstance(key, ast.Constant) and key.value == "state"


def check_transformer(project: ProjectFolder, block: Block, file: BlockFile, where: str) -> None:
    """Check a block's file, which is only read, and its configuration.

    Args:
        where: `file:line` of the block in metadata.yaml.

    Raises:
        ConfigError: the file cannot be read or is not Python; it does not have one function with @transformer; the
            function takes what no transformer is given; or `workers` are asked for.
    """
    check_block(project, block)
    shape_of(file, Shape.ROWS)
    if block.configuration.get("workers"):
        raise ConfigError(
            "configuration.workers: transformers of streaming pipelines run on one thread each",
            where=where,
            hint="leave `workers` out; for Kafka sources, `instances` at the top of metadata.yaml starts processes",
            code="transformer.setting_invalid",
        )
